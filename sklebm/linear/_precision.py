r"""Precisions with given zeros from a covariance S: maximum likelihood and score matching.

Maximum likelihood: min tr(S P) - log det P, at which P^-1 and S agree on all free entries
(Dempster, 1972, "Covariance selection").
Score matching: min 1/2 tr(P S P) - tr P, at which (P S + S P) / 2 and I agree on all free entries
(Hyvarinen, 2005, "Estimation of non-normalized statistical models by score matching").
Without zeros both are P = S^-1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sklebm.linear._newton import Convex, Observer, ignore, minimize, solve
from sklebm.linear._structure import Entries


class Solution(NamedTuple):
    """A precision and how it was reached."""

    precision: Tensor
    n_iter: int
    converged: bool


def inverse(covariance: Tensor) -> Tensor | None:
    """S^-1, refined once; None if S is not positive definite to working precision."""
    scale = covariance.diagonal().sqrt()
    if not bool((scale > 0).all()):
        return None
    # Unit variances first: features of other units are no reason to call a matrix singular.
    correlation = covariance / scale[:, None] / scale
    factor, failure = torch.linalg.cholesky_ex(correlation)
    resolution = len(scale) * torch.finfo(covariance.dtype).eps
    if int(failure) or float(factor.diagonal().square().min()) < 10 * resolution:
        return None
    solved = torch.cholesky_inverse(factor)
    solved = 2.0 * solved - solved @ (correlation @ solved)
    return (solved + solved.T) / 2 / scale[:, None] / scale


class _LogLikelihood(Convex):
    """tr(R Q) - log det Q over the free entries of Q, for a correlation matrix R."""

    def __init__(self, correlation: Tensor, entries: Entries) -> None:
        self.correlation = correlation
        self.entries = entries

    def value(self, point: Tensor) -> float:
        matrix = self.entries.matrix(point)
        factor, failure = torch.linalg.cholesky_ex(matrix)
        if int(failure):
            return math.inf
        trace = float((self.correlation * matrix).sum())
        return trace - 2.0 * float(factor.diagonal().log().sum())

    def gradient(self, point: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(self.entries.matrix(point))
        self.covariance = torch.cholesky_inverse(factor)
        return self.entries.gradient(self.correlation - self.covariance)

    def curvature(self, direction: Tensor) -> Tensor:
        change = self.entries.matrix(direction)
        return self.entries.gradient(self.covariance @ change @ self.covariance)

    def scale(self) -> Tensor:
        return torch.where(self.entries.is_diagonal, 1.0, 2.0).to(self.correlation)


def maximum_likelihood(
    covariance: Tensor,
    entries: Entries,
    *,
    tol: float,
    max_iter: int,
    observe: Observer = ignore,
) -> Solution:
    """Covariance selection by Newton's method, in units of standard deviations."""
    scale = covariance.diagonal().sqrt()
    correlation = covariance / scale[:, None] / scale
    start = entries.is_diagonal.to(covariance)
    point, n_iter, converged = minimize(
        _LogLikelihood(correlation, entries), start, tol=tol, max_iter=max_iter, observe=observe
    )
    return Solution(entries.matrix(point) / scale[:, None] / scale, n_iter, converged)


def score_matching(covariance: Tensor, entries: Entries, *, tol: float) -> Solution:
    """Solve the linear system for the free entries by conjugate gradients."""
    variances = covariance.diagonal()

    def operator(vector: Tensor) -> Tensor:
        product = entries.matrix(vector) @ covariance
        return entries.gradient((product + product.T) / 2)

    target = entries.gradient(torch.eye(len(covariance)).to(covariance))
    pairs = (variances[entries.rows] + variances[entries.columns]) / 2
    diagonal = torch.where(entries.is_diagonal, pairs, 2.0 * pairs)
    vector = solve(operator, target, diagonal, min(tol, 1e-10) * 1e-2)
    error = float((operator(vector) - target).abs().max())
    return Solution(entries.matrix(vector), 1, error <= max(tol, 1e-10))
