r"""EM for topics of words, tempered or not, and folding-in of documents.

With topic shares theta_d, words phi_k and the inverse temperature b, EM lowers

.. math:: F_b = -\frac{1}{b} \sum_{dw} x_{dw} \log \sum_k (\theta_{dk} \phi_{kw})^b

by the posterior p(k | d, w) ~ (theta_dk phi_kw)^b of the topic of a token (Hofmann, 2001). At
b = 1, it is minus the log likelihood, and the steps are those of non-negative matrix factorisation
with the Kullback-Leibler divergence. At b <= 1, F_b is convex in the shares of a document, so that
a Frank-Wolfe gap says how far they are from the best: max_k -dF/dtheta_k - 1, per token.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sklebm.inference.counts import Counts, PaddedDocuments, settle

#: No probability gets smaller: a quotient of two of them stays within the range of float64.
LEAST = 1e-100


class TopicStep(NamedTuple):
    """What one step of EM leaves.

    Attributes
    ----------
    theta : Tensor of shape (n_documents, n_topics)
        p(topic | document).
    phi : Tensor of shape (n_words, n_topics)
        p(word | topic), a column each.
    bound : float
        -F_b per token, before the step.
    """

    theta: Tensor
    phi: Tensor
    bound: float


def em_step(counts: Counts, theta: Tensor, phi: Tensor, beta: float) -> TopicStep:
    """One step of EM. O(nnz K) time, O(nnz + (n + W) K) memory."""
    total = counts.values.sum()
    if not len(counts.values):
        return TopicStep(theta, phi, 0.0)
    hot_theta, hot_phi = _tempered(theta, beta), _tempered(phi, beta)
    sums = counts.reconstruct(hot_theta, hot_phi)
    bound = float(counts.values @ sums.log() / (beta * total))
    ratios = counts.values / sums
    new_theta = hot_theta * counts.sum_by_document(ratios, hot_phi)
    new_phi = hot_phi * counts.sum_by_word(ratios, hot_theta)
    empty = new_theta.sum(dim=1, keepdim=True) == 0
    new_theta = torch.where(empty, theta, new_theta)
    return TopicStep(_shares(new_theta, dim=1), _shares(new_phi, dim=0), bound)


def fold_in(
    counts: Counts, empty: Tensor, phi: Tensor, beta: float, tol: float, max_iter: int
) -> Tensor:
    """Topic shares of documents for given topics.

    Parameters
    ----------
    counts : Counts
        Documents of words that some topic has.
    empty : Tensor of shape (n_topics,)
        Shares of documents without words. All others begin with equal shares.
    phi : Tensor of shape (n_words, n_topics)
        p(word | topic), a column each.
    beta : float
        Inverse temperature, in (0, 1].
    tol : float
        A document has settled when its F_b is within ``tol`` nats per token of the least.
    max_iter : int
        Most steps.

    Returns
    -------
    theta : Tensor of shape (n_documents, n_topics)
        Each row by itself: what else is in ``counts`` does not matter.
    """
    hot_phi = _tempered(phi, beta)

    def step(theta: Tensor, part: PaddedDocuments) -> tuple[Tensor, Tensor]:
        hot = _tempered(theta, beta)
        # Without words, what a document has moved to does not matter: it gets ``empty``.
        tokens = part.values.sum(dim=1, keepdim=True)
        moved = hot * part.sums(hot) / torch.where(tokens > 0, tokens, 1.0)
        # The gradient of -F_b, whose largest entry is 1 at the optimum; a step lowers F_b further.
        settled = torch.where(theta > 0, moved / theta, 0.0).amax(dim=1) - 1 <= tol
        return _shares(moved, dim=1), settled

    equal = torch.full_like(empty, 1.0 / len(empty)).repeat(counts.shape[0], 1)
    theta = settle(counts, equal, hot_phi, step, max_iter)
    return torch.where(counts.tokens()[:, None] > 0, theta, empty)


def _tempered(probabilities: Tensor, beta: float) -> Tensor:
    return probabilities if beta == 1 else probabilities**beta


def _shares(x: Tensor, dim: int) -> Tensor:
    """Normalised; what was positive stays so."""
    total = x.sum(dim=dim, keepdim=True)
    # A topic that no token has taken part in keeps no words: it has the least of all.
    x = torch.where(x > 0, (x / total.clamp(min=1e-300)).clamp(min=LEAST), x)
    return x
