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

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array
from scipy.sparse.linalg import splu
from torch import Tensor

from sklebm.linear._newton import Convex, Observer, ignore, minimize, solve
from sklebm.linear._structure import Entries


class Solution(NamedTuple):
    """A precision and how it was found."""

    precision: Tensor
    n_iter: int
    converged: bool


def inverse(covariance: Tensor) -> Tensor | None:
    """S^-1, refined once; None if S is not positive definite to working precision."""
    scale = covariance.diagonal().sqrt()
    if not bool((scale > 0).all()):
        return None
    # Scale to unit variances first: different units do not make a matrix singular.
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

    def precondition(self, residual: Tensor) -> Tensor:
        return residual / torch.where(self.entries.is_diagonal, 1.0, 2.0).to(self.correlation)


class _SparseLogLikelihood(_LogLikelihood):
    """The same with products at the free entries only, and the inverse curvature of a full Q.

    Without zeros the inverse of D -> Q^-1 D Q^-1 is D -> Q D Q; at the free entries it is close.
    """

    def gradient(self, point: Tensor) -> Tensor:
        self.point = self.entries.sparse(point)
        return super().gradient(point)

    def curvature(self, direction: Tensor) -> Tensor:
        return curvature_at_entries(self.entries, self.covariance, direction)

    def precondition(self, residual: Tensor) -> Tensor:
        return inverse_curvature(self.entries, self.point, residual)


def curvature_at_entries(entries: Entries, covariance: Tensor, direction: Tensor) -> Tensor:
    """That of -log det Q: the derivatives of tr(S D S D) / 2 by the free entries of D. O(p d)."""
    from sklebm.inference.entry_products import sandwich

    change = entries.sparse(direction)
    found = torch.from_numpy(
        sandwich(
            covariance.numpy(),
            change.indptr,
            change.indices,
            change.data,
            entries.rows.numpy(),
            entries.columns.numpy(),
        )
    )
    return torch.where(entries.is_diagonal, found, 2.0 * found)


def inverse_curvature(entries: Entries, point: csr_array, residual: Tensor) -> Tensor:
    """Q D Q at the free entries, for the symmetric D whose derivative by them is ``residual``."""
    from sklebm.inference.entry_products import sparse_product

    change = entries.sparse(torch.where(entries.is_diagonal, residual, 0.5 * residual))
    half = point @ change
    half.sort_indices()
    found = sparse_product(
        half.indptr,
        half.indices,
        half.data,
        point.indptr,
        point.indices,
        point.data,
        entries.rows.numpy(),
        entries.columns.numpy(),
    )
    return torch.from_numpy(found)


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
    function = _LogLikelihood(correlation, entries)
    if entries.is_sparse:
        function = _SparseLogLikelihood(correlation, entries)
        near = _sparse_score_matching(correlation, entries)
        if math.isfinite(function.value(near)):
            start = near
    point, n_iter, converged = minimize(
        function, start, tol=tol, max_iter=max_iter, observe=observe
    )
    return Solution(entries.matrix(point) / scale[:, None] / scale, n_iter, converged)


def score_matching(covariance: Tensor, entries: Entries, *, tol: float) -> Solution:
    """Solve the linear system for the free entries: sparse Cholesky, or conjugate gradients."""
    if entries.is_sparse:
        return Solution(entries.matrix(_sparse_score_matching(covariance, entries)), 1, True)
    variances = covariance.diagonal()

    def operator(vector: Tensor) -> Tensor:
        product = entries.matrix(vector) @ covariance
        return entries.gradient((product + product.T) / 2)

    target = entries.gradient(torch.eye(len(covariance)).to(covariance))
    pairs = (variances[entries.rows] + variances[entries.columns]) / 2
    diagonal = torch.where(entries.is_diagonal, pairs, 2.0 * pairs)
    vector = solve(operator, target, lambda residual: residual / diagonal, min(tol, 1e-10) * 1e-2)
    error = float((operator(vector) - target).abs().max())
    return Solution(entries.matrix(vector), 1, error <= max(tol, 1e-10))


def _sparse_score_matching(covariance: Tensor, entries: Entries) -> Tensor:
    """The free entries v of P, from sum_c R_c' S_c R_c v = (1 on the diagonal).

    tr(P S P) is a sum over the columns p_c of P, and p_c = R_c v has few non-zero entries, with the
    block S_c of S between them.
    """
    n_entries, n_features = len(entries), entries.n_features
    numbers = entries.sparse(torch.arange(1, n_entries + 1).double())
    blocks, rows, columns = [], [], []
    for column in range(n_features):
        own = slice(numbers.indptr[column], numbers.indptr[column + 1])
        near, unknowns = numbers.indices[own], numbers.data[own].astype(np.int64) - 1
        blocks.append(covariance.numpy()[np.ix_(near, near)].ravel())
        rows.append(np.repeat(unknowns, len(near)))
        columns.append(np.tile(unknowns, len(near)))
    places = (np.concatenate(rows), np.concatenate(columns))
    system = csc_array((np.concatenate(blocks), places), shape=(n_entries, n_entries))
    unit = 1.0 / np.sqrt(system.diagonal())
    system = csc_array(system.multiply(unit[:, None]).multiply(unit))
    target = unit * entries.is_diagonal.numpy()
    # The system is positive definite: pivots on the diagonal, as in a Cholesky factorisation.
    factor = splu(
        system,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    solution = factor.solve(target)
    solution += factor.solve(target - system @ solution)
    return torch.from_numpy(unit * solution)
