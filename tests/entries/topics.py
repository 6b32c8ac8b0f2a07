"""Topics: one document at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import digamma, gammaln, logsumexp

from tests.entries import Entry


def make_documents(n_rows: int, seed: int) -> Any:
    """Counts of 30 words in documents of 60 tokens, each about one of three sets of ten words.

    In ``make_rows``, half of the rows have all words alike. That is what independence gives too,
    and a score per token does not see how many there are. Of so many words, shuffled documents
    have about as many tokens: a score of whole documents compares them.
    """
    generator = np.random.default_rng(seed)
    topics = np.kron(np.eye(3), np.full(10, 0.09)) + 0.1 / 30
    return generator.multinomial(60, topics[generator.integers(3, size=n_rows)]).astype(np.float64)


def topic_free_energy(model: Any, X: Any) -> Any:
    """min_theta -1/n sum_w x_w log sum_k theta_k p(w | k), by EM of one document at a time."""
    energies = []
    for x in np.asarray(X, np.float64):
        theta = np.full(len(model.components_), 1 / len(model.components_))
        for _ in range(model.fold_in_iter):
            slope = model.components_ @ (x / (theta @ model.components_)) / x.sum()
            theta = theta * slope
            if slope.max() - 1 <= model.fold_in_tol:
                break
        energies.append(-(x @ np.log(theta @ model.components_)) / x.sum())
    return np.array(energies)


def dirichlet_free_energy(model: Any, X: Any) -> Any:
    """Minus the evidence lower bound, its terms one after the other, one document at a time."""
    alpha, components = model.doc_topic_prior_, model.components_
    log_topics = digamma(components) - digamma(components.sum(axis=1, keepdims=True))
    energies = []
    for x in np.asarray(X, np.float64):
        gamma, change = np.ones(len(alpha)), np.inf
        for _ in range(model.max_doc_update_iter):
            scores = (digamma(gamma) - digamma(gamma.sum()))[:, None] + log_topics
            posterior = np.exp(scores - logsumexp(scores, axis=0))
            new = alpha + posterior @ x
            change, gamma = np.abs(new - gamma).mean(), new
            if change < model.mean_change_tol:
                break
        log_shares = digamma(gamma) - digamma(gamma.sum())
        scores = log_shares[:, None] + log_topics
        posterior = np.exp(scores - logsumexp(scores, axis=0))
        tokens = (posterior * (scores - np.log(posterior))).sum(axis=0) @ x
        prior = gammaln(alpha.sum()) - gammaln(alpha).sum() + (alpha - 1) @ log_shares
        entropy = gammaln(gamma).sum() - gammaln(gamma.sum()) - (gamma - 1) @ log_shares
        energies.append(-(tokens + prior + entropy))
    return np.array(energies)


ENTRIES: dict[str, Entry] = {
    "LatentDirichletAllocation": Entry(
        quick={"n_components": 3, "random_state": 0},
        untrained={"max_iter": 1},
        variants=(
            {"n_components": 2, "doc_topic_prior": "auto", "topic_word_prior": 0.5},
            {"n_components": 3, "learning_method": "online", "batch_size": 32, "max_iter": 5},
        ),
        free_energy=dirichlet_free_energy,
        learnable=make_documents,
    ),
    "PLSA": Entry(
        quick={"n_components": 3, "tol": 1e-3, "fold_in_tol": 1e-4, "random_state": 0},
        untrained={"max_iter": 1},
        variants=({"n_components": 2, "beta": 0.8}, {"n_components": 3, "beta": "auto"}),
        free_energy=topic_free_energy,
        learnable=make_documents,
    ),
}
