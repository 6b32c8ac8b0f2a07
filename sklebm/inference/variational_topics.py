r"""Variational Bayes for latent Dirichlet allocation, on the non-zeros of a table of counts.

q makes the shares of document d Dirichlet(gamma_d), the words of topic k Dirichlet(lambda_k), and
each token's topic independent of them. With a_dk = exp E log theta_dk and b_wk = exp E log phi_kw,
the bound of a document is

.. math:: L_d = \sum_w x_{dw} \log \sum_k a_{dk} b_{wk} - \mathrm{KL}(\gamma_d \| \alpha),

raised by gamma_dk = alpha_k + a_dk sum_w x_dw b_wk / (a_d . b_w), and that of all by
lambda_wk = eta + b_wk sum_d x_dw a_dk / (a_d . b_w) (Blei et al., 2003; Hoffman et al., 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklebm.inference.counts import Counts, PaddedDocuments, settle

# exp E log of a probability is no less than this: quotients stay within the range of float64.
_LEAST = 1e-100
# The least concentration that is learnt: below, digamma is too large for its exponential.
_LEAST_PRIOR = 1e-3
# Parts of the documents for each thread.
_PARTS = 8


class Precision(NamedTuple):
    """When the posterior of a document has settled.

    Attributes
    ----------
    tol : float
        Mean change of a document's gamma in one step.
    max_iter : int
        Most steps.
    """

    tol: float
    max_iter: int


def expected_log(concentration: Tensor, dim: int) -> Tensor:
    """E log p under Dirichlet distributions along ``dim``."""
    total = concentration.sum(dim=dim, keepdim=True)
    return torch.digamma(concentration) - torch.digamma(total)


def geometric_mean(concentration: Tensor, dim: int, total: Tensor | None = None) -> Tensor:
    """exp E log p under Dirichlet distributions along ``dim``.

    ``total``, the sums along ``dim``, says that ``concentration`` is only a part of them.
    """
    if total is None:
        total = concentration.sum(dim=dim)
    if concentration.device.type == "cpu" and concentration.dtype == torch.float64:
        from sklebm.inference._topic_kernels import geometric_means

        concentration = concentration.contiguous()
        answer = torch.empty_like(concentration)
        arrays = _arrays(concentration, total)
        geometric_means(*arrays, dim == 1, _LEAST, answer.numpy())
        return answer
    logs = torch.digamma(concentration) - torch.digamma(total).unsqueeze(dim)
    return logs.exp().clamp(min=_LEAST)


def infer_shares(
    counts: Counts, gamma: Tensor, prior: Tensor, topics: Tensor, precision: Precision
) -> Tensor:
    """The posterior of the shares of each document, for given topics.

    Parameters
    ----------
    counts : Counts
        Documents.
    gamma : Tensor of shape (n_documents, n_topics)
        Where to begin.
    prior : Tensor of shape (n_topics,)
        Concentrations alpha of the prior.
    topics : Tensor of shape (n_words, n_topics)
        exp E log p(word | topic).
    precision : Precision
        When a document has settled.

    Returns
    -------
    gamma : Tensor of shape (n_documents, n_topics)
        Each row by itself: what else is in ``counts`` does not matter. O(nnz K) a step.
    """
    on_cpu = topics.device.type == "cpu"
    settle_all = _settle_compiled if on_cpu else settle_batches
    return settle_all(counts, gamma, prior, topics, precision)


def settle_batches(
    counts: Counts, gamma: Tensor, prior: Tensor, topics: Tensor, precision: Precision
) -> Tensor:
    """``infer_shares`` on any device: documents of about the same length together."""

    def step(gamma: Tensor, part: PaddedDocuments) -> tuple[Tensor, Tensor]:
        shares = geometric_mean(gamma, dim=1)
        moved = prior + shares * part.sums(shares)
        return moved, (moved - gamma).abs().mean(dim=1) < precision.tol

    return settle(counts, gamma, topics, step, precision.max_iter)


def _settle_compiled(
    counts: Counts, gamma: Tensor, prior: Tensor, topics: Tensor, precision: Precision
) -> Tensor:
    """``infer_shares`` on the CPU: document by document, some of them in each thread."""
    from sklebm.inference._topic_kernels import settle_documents

    answer, starts = gamma.contiguous().clone(), counts.starts()
    arrays = _arrays(starts, counts.words, counts.values, topics, prior, answer)
    tol, max_iter = float(precision.tol), int(precision.max_iter)

    def settle_some(first: int, last: int) -> None:
        settle_documents(*arrays, first, last, tol, max_iter, _LEAST)

    n_threads = torch.get_num_threads()
    if n_threads == 1 or len(answer) < 2:
        settle_some(0, len(answer))
        return answer
    # Parts with as many words each, more than threads: documents do not take the same time.
    shares = torch.arange(1, _PARTS * n_threads) * len(counts.values) // (_PARTS * n_threads)
    cuts = [0, *torch.searchsorted(starts, shares).tolist(), len(answer)]
    with ThreadPoolExecutor(n_threads) as pool:
        parts = [pool.submit(settle_some, *part) for part in pairwise(cuts) if part[0] < part[1]]
        for part in parts:
            part.result()
    return answer


def _arrays(*tensors: Tensor) -> list[Any]:
    """What compiled kernels take."""
    return [tensor.contiguous().numpy() for tensor in tensors]


def word_sums(counts: Counts, gamma: Tensor, topics: Tensor) -> Tensor:
    """Expected tokens of each word and topic, (n_words, n_topics). O(nnz K)."""
    shares = geometric_mean(gamma, dim=1)
    if topics.device.type == "cpu":
        from sklebm.inference._topic_kernels import add_words

        sums = torch.zeros_like(topics)
        entries = _arrays(counts.starts(), counts.words, counts.values)
        add_words(*entries, *_arrays(shares, topics), sums.numpy())
        return topics * sums
    ratios = counts.values / counts.reconstruct(shares, topics)
    return topics * counts.sum_by_word(ratios, shares)


def document_bounds(counts: Counts, gamma: Tensor, prior: Tensor, topics: Tensor) -> Tensor:
    """L_d of each document in nats, (n_documents,). O(nnz K)."""
    shares, fit = geometric_mean(gamma, dim=1), gamma.new_zeros(len(gamma))
    if topics.device.type == "cpu":
        from sklebm.inference._topic_kernels import log_fits

        entries = _arrays(counts.starts(), counts.words, counts.values)
        log_fits(*entries, *_arrays(shares, topics), fit.numpy())
    else:
        logs = counts.values * counts.reconstruct(shares, topics).log()
        fit.index_add_(0, counts.documents, logs)
    return fit - divergence(gamma, prior, dim=1)


def divergence(concentration: Tensor, prior: Tensor, dim: int) -> Tensor:
    """KL divergence from Dirichlet(prior) to Dirichlet(concentration), along ``dim``."""
    if prior.ndim == 0:
        prior = prior.expand(concentration.shape[dim])
    along = prior if dim else prior[:, None]
    means = ((concentration - along) * expected_log(concentration, dim)).sum(dim=dim)
    return means + log_normaliser(prior, dim=0) - log_normaliser(concentration, dim)


def log_normaliser(concentration: Tensor, dim: int) -> Tensor:
    """log B of Dirichlet distributions along ``dim``."""
    return torch.lgamma(concentration).sum(dim=dim) - torch.lgamma(concentration.sum(dim=dim))


def best_prior(prior: Tensor, mean_log: Tensor, max_iter: int = 100) -> Tensor:
    """Concentrations that maximise the expected log density of shares, by Newton's method.

    Parameters
    ----------
    prior : Tensor of shape (n_topics,)
        Where to begin.
    mean_log : Tensor of shape (n_topics,)
        E log theta, averaged over documents.
    max_iter : int, default=100
        Most steps of O(n_topics): the Hessian is a diagonal plus a constant (Minka, 2000).
    """

    def objective(alpha: Tensor) -> Tensor:
        return (alpha * mean_log).sum() - log_normaliser(alpha, dim=0)

    value = objective(prior)
    for _ in range(max_iter):
        total = prior.sum()
        slope = torch.digamma(total) - torch.digamma(prior) + mean_log
        curvature = -torch.polygamma(1, prior)
        shift = (slope / curvature).sum() / (
            1.0 / torch.polygamma(1, total) + (1.0 / curvature).sum()
        )
        step, moved = (slope - shift) / curvature, None
        for halvings in range(40):
            trial = prior - step * 0.5**halvings
            if bool((trial >= _LEAST_PRIOR).all()) and bool(objective(trial) > value):
                moved = trial
                break
        if moved is None:
            break
        prior, value = moved, objective(moved)
    return prior


def importance_samples(
    x: Tensor, gamma: Tensor, prior: Tensor, topics: Tensor, n_samples: int, seed: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """log p(x) of one document by importance sampling over its shares.

    Half of the proposals come from the prior, half from the posterior that q has found: a weight is
    then at most twice the likelihood, and its variance is finite.

    Parameters
    ----------
    x : Tensor of shape (n_words,)
        Counts.
    gamma, prior : Tensor of shape (n_topics,)
        Concentrations of the posterior and of the prior.
    topics : Tensor of shape (n_topics, n_words)
        p(word | topic).
    n_samples : int
        Number of proposals, rounded up to an even number.
    seed : sequence of int
        Seed of the draws.

    Returns
    -------
    estimate : Tensor of shape ()
        log p(x) in nats; its exponential is unbiased.
    error : Tensor of shape ()
        Standard error of the estimate, by the delta method.
    """
    generator = np.random.default_rng(list(seed))
    half = (n_samples + 1) // 2
    draws = [generator.dirichlet(alpha.cpu().numpy(), half) for alpha in (prior, gamma)]
    shares = torch.from_numpy(np.concatenate(draws)).to(x.device)
    words = torch.nonzero(x)[:, 0]
    likelihood = (shares @ topics[:, words]).clamp(min=_LEAST).log() @ x[words]
    # log of the posterior's density over the prior's; logarithms of zero shares stay finite.
    ratio = shares.clamp(min=1e-300).log() @ (gamma - prior)
    ratio = ratio + log_normaliser(prior, dim=0) - log_normaliser(gamma, dim=0)
    weights = likelihood - torch.logaddexp(ratio, torch.zeros_like(ratio)) + np.log(2.0)
    largest = weights.max()
    relative = (weights - largest).exp()
    # Strata: the draws of each half vary around a mean of their own.
    spread = torch.stack([part.var() for part in relative.split(half)]).mean()
    return largest + relative.mean().log(), (spread / len(relative)).sqrt() / relative.mean()
