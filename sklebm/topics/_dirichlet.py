"""How latent Dirichlet allocation is fitted: passes over all documents, or over batches of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_array
from torch import Tensor

from sklebm._shell.rows import Rows
from sklebm.energies import DirichletTopicEnergy
from sklebm.inference.counts import Counts
from sklebm.inference.quasi_monte_carlo import row_keys
from sklebm.inference.variational_topics import (
    Precision,
    best_prior,
    divergence,
    document_bounds,
    expected_log,
    geometric_mean,
    importance_samples,
    infer_shares,
    word_sums,
)
from sklebm.iterative import Draw
from sklebm.topics._base import read_counts

# What the first topics are drawn from, as in scikit-learn: counts of 1 with 10 % of noise.
_FIRST_SHAPE = 100


class DirichletRun(NamedTuple):
    """Where a run stands.

    Attributes
    ----------
    words : Tensor of shape (n_words, n_topics)
        Concentrations lambda of the topics, a column each.
    gamma : Tensor of shape (n_documents, n_topics)
        Concentrations of the shares, from the last pass.
    prior : Tensor of shape (n_topics,)
        Concentrations alpha.
    n_batches : int
        Steps that have changed the topics.
    bounds : tuple of float
        Bound per token in each pass.
    settled : bool
        Whether the last pass ended the run.
    """

    words: Tensor
    gamma: Tensor
    prior: Tensor
    n_batches: int = 0
    bounds: tuple[float, ...] = ()
    settled: bool = False


class DirichletProblem(NamedTuple):
    """Documents, of which there are ``n_documents`` in all, and how to learn from them."""

    counts: Counts
    prior: Tensor
    learns_prior: bool
    eta: float
    precision: Precision
    batch_size: int | None
    decay: float
    offset: float
    n_documents: float

    def start(
        self, words: Tensor | None, n_topics: int, generator: torch.Generator
    ) -> DirichletRun:
        """Topics that are given, or drawn."""
        (n_documents, n_words), values = self.counts.shape, self.counts.values
        if words is None:
            # torch has no public gamma variables that take a generator.
            seed = int(torch.randint(2**62, (1,), generator=generator))
            draw = np.random.default_rng(seed).gamma
            words = torch.from_numpy(draw(_FIRST_SHAPE, 1 / _FIRST_SHAPE, (n_words, n_topics)))
        gamma = values.new_ones(n_documents, n_topics)
        return DirichletRun(words.to(values.device), gamma, self.prior)

    def step(self, run: DirichletRun, tol: float) -> DirichletRun:
        """One pass over the documents."""
        if self.batch_size is None:
            return self._batch_step(run, tol)
        return self.online_pass(run, self.batch_size)

    def _batch_step(self, run: DirichletRun, tol: float) -> DirichletRun:
        topics = geometric_mean(run.words, dim=0)
        gamma, fit = self._posteriors(run, topics)
        bound = self._bound(run, fit)
        if run.bounds and bound < run.bounds[-1]:
            gamma, fit = self._kept_where_better(run, topics, gamma, fit)
            bound = self._bound(run, fit)
        words = self.eta + word_sums(self.counts, gamma, topics)
        prior = self._prior(run.prior, gamma)
        settled = bool(run.bounds) and abs(bound - run.bounds[-1]) < tol
        bounds = (*run.bounds, bound)
        return DirichletRun(words, gamma, prior, run.n_batches + 1, bounds, settled)

    def _bound(self, run: DirichletRun, fit: Tensor) -> float:
        """The bound per token, from those of the documents."""
        return float((fit.sum() - self._divergence(run.words)) / self._total())

    def _posteriors(self, run: DirichletRun, topics: Tensor) -> tuple[Tensor, Tensor]:
        """Concentrations of the shares of all documents, and their bounds.

        Each pass starts afresh: the posterior found under earlier topics may lead to a poor local
        optimum under the present ones.
        """
        first = torch.ones_like(run.gamma)
        gamma = infer_shares(self.counts, first, run.prior, topics, self.precision)
        return gamma, document_bounds(self.counts, gamma, run.prior, topics)

    def _kept_where_better(
        self, run: DirichletRun, topics: Tensor, gamma: Tensor, fit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same, but documents that were better continue from there, so the bound does not fall.

        Doing this in every pass would tie documents to early topics, and end in worse topics.
        """
        counts, prior = self.counts, run.prior
        worse = document_bounds(counts, run.gamma, prior, topics) > fit
        if bool(worse.any()):
            some = counts.of_documents(worse)
            old = infer_shares(some, run.gamma[worse], prior, topics, self.precision)
            gamma[worse], fit[worse] = old, document_bounds(some, old, prior, topics)
        return gamma, fit

    def online_pass(self, run: DirichletRun, batch_size: int) -> DirichletRun:
        """Steps towards the topics that each batch would give if all documents were like it."""
        n_documents = self.counts.shape[0]
        words, prior, n_batches, fit = run.words.clone(), run.prior, run.n_batches, 0.0
        gammas = []
        for start in range(0, n_documents, batch_size):
            batch, known = self.counts.between(start, start + batch_size).of_known_words()
            n_batches += 1
            rate = (self.offset + n_batches) ** -self.decay
            # Only words of the batch are looked at one by one.
            topics = geometric_mean(words[known], dim=0, total=words.sum(dim=0))
            first = words.new_ones(batch.shape[0], words.shape[1])
            gamma = infer_shares(batch, first, prior, topics, self.precision)
            fit += float(document_bounds(batch, gamma, prior, topics).sum())
            share = self.n_documents / batch.shape[0]
            words.mul_(1 - rate).add_(rate * self.eta)
            words.index_add_(0, known, word_sums(batch, gamma, topics), alpha=rate * share)
            prior = (1 - rate) * prior + rate * self._prior(prior, gamma)
            gammas.append(gamma)
        # As many tokens as there would be in all documents.
        share = self.n_documents / n_documents
        bound = (share * fit - float(self._divergence(words))) / (share * self._total())
        return DirichletRun(words, torch.cat(gammas), prior, n_batches, (*run.bounds, bound))

    def _prior(self, prior: Tensor, gamma: Tensor) -> Tensor:
        if not self.learns_prior:
            return prior
        return best_prior(prior, expected_log(gamma, dim=1).mean(dim=0))

    def _divergence(self, words: Tensor) -> Tensor:
        return divergence(words, words.new_tensor(self.eta), dim=0).sum()

    def _total(self) -> float:
        return float(self.counts.values.sum()) or 1.0

    def report(self, run: DirichletRun) -> dict[str, float]:
        """The bound in the last pass."""
        return {"lower_bound": run.bounds[-1]}

    def state(self, run: DirichletRun, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute after a run."""
        return {
            "components_": run.words.T.contiguous().cpu().numpy().copy(),
            "doc_topic_prior_": run.prior.cpu().numpy().copy(),
            "topic_word_prior_": self.eta,
            "converged_": run.settled,
            "n_iter_": n_iter,
            "n_batch_iter_": run.n_batches,
            "lower_bounds_": np.asarray(run.bounds),
        }


def make_problem(estimator: Any, rows: Rows, n_documents: float) -> DirichletProblem:
    """Documents, of ``n_documents`` in all, with checked parameters of the estimator."""
    n_topics, eta = estimator.n_components, estimator.topic_word_prior
    return DirichletProblem(
        read_counts(rows),
        _first_prior(estimator).to(rows.device),
        isinstance(estimator.doc_topic_prior, str),
        1.0 / n_topics if eta is None else float(eta),
        Precision(estimator.mean_change_tol, estimator.max_doc_update_iter),
        estimator.batch_size if estimator.learning_method == "online" else None,
        float(estimator.learning_decay),
        float(estimator.learning_offset),
        float(n_documents),
    )


def learn_online(estimator: Any, rows: Rows, draw: Draw) -> dict[str, Any]:
    """Every fitted attribute after one pass over a part of ``total_samples`` documents."""
    first = given_components(estimator, rows.shape[1])
    problem = make_problem(estimator, rows, estimator.total_samples)
    n_topics = estimator.n_components
    if not estimator._is_fitted():
        run = problem.start(first, n_topics, draw("topics"))
        return problem.state(problem.online_pass(run, estimator.batch_size), 1)
    fitted = estimator.components_
    if len(fitted) != n_topics:
        raise ValueError(
            f"n_components={n_topics} differs from the {len(fitted)} fitted topics: set it back, "
            "or call fit to start again."
        )
    # Priors stay those of the topics.
    problem = problem._replace(eta=float(estimator.topic_word_prior_))
    words, prior = (
        torch.from_numpy(np.array(array, np.float64)).to(rows.device)
        for array in (fitted.T, estimator.doc_topic_prior_)
    )
    bounds = tuple(estimator.lower_bounds_.tolist())
    run = DirichletRun(words, words[:0], prior, estimator.n_batch_iter_, bounds)
    return problem.state(problem.online_pass(run, estimator.batch_size), estimator.n_iter_ + 1)


def _first_prior(estimator: Any) -> Tensor:
    given, n_topics = estimator.doc_topic_prior, estimator.n_components
    if given is None or isinstance(given, str):
        given = 1.0 / n_topics
    prior = np.asarray(given, dtype=np.float64)
    if prior.ndim > 1 or (prior.ndim == 1 and prior.shape != (n_topics,)):
        raise ValueError(
            f"doc_topic_prior has shape {prior.shape}: pass one number, or one for each of "
            f"n_components={n_topics} topics."
        )
    if not (np.isfinite(prior) & (prior > 0)).all():
        raise ValueError(f"doc_topic_prior={given!r} must be positive and finite.")
    return torch.from_numpy(prior.copy()).expand(n_topics)


def given_components(estimator: Any, n_words: int) -> Tensor | None:
    """The first topics that the user gave, a column each."""
    given = estimator.components_init
    if given is None:
        return None
    first = check_array(given, dtype=np.float64, input_name="components_init")
    if first.shape != (estimator.n_components, n_words):
        raise ValueError(
            f"components_init has shape {first.shape}: pass one of ({estimator.n_components}, "
            f"{n_words}), for n_components topics and the words of X."
        )
    if first.min() <= 0:
        raise ValueError(
            f"components_init must be positive, but its least value is {first.min()}: pass numbers "
            "above 0."
        )
    return torch.from_numpy(first.T.copy())


def importance(
    energy: DirichletTopicEnergy, x: Tensor, gamma: Tensor, n_samples: int, seed: int
) -> Tensor:
    """Estimates of log p(x) and their standard errors, (n_documents, 2).

    The seed of a document follows from its words, so that its answer depends on no other.
    """
    topics = energy.topics()
    seeds = [[seed, key % 2**63] for key in row_keys(x).tolist()]
    pairs = [
        torch.stack(importance_samples(row, posterior, energy.prior, topics, n_samples, own))
        for row, posterior, own in zip(x, gamma, seeds, strict=True)
    ]
    return torch.stack(pairs)
