r"""C = U L U': the variances of a covariance, small ones as accurate as large ones.

The rounding error of ``eigh`` is relative to the largest eigenvalue: a variance of 1e-9 times the
largest keeps seven digits. In the subspace B of small variances, the covariance B' C B is itself
small, and ``eigh`` is accurate relative to that. First, the rounding error of B along the other
directions A is removed to first order: B <- B - A L_A^-1 (A' C B).

Columns whose scales s differ by more than that are divided by them: whether a direction has
variance is decided on the correlations C / ss', whose rounding error does not depend on units, and
Jacobi rotations of their factor times s are accurate relative to each variance (Drmac & Veselic,
2008, "New fast and accurate Jacobi SVD algorithm"; LAPACK's dgejsv).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.linalg.lapack import dgejsv
from scipy.sparse.linalg import ArpackError, eigsh
from torch import Tensor

# Variances below these fractions of the largest are recomputed among themselves, if some are so
# much smaller still that their last digits are at stake.
_LEVELS = (1e-3, 1e-6)
_AT_STAKE = 1e-3
# A column is in danger if its variance is less than this multiple of what counts as rounding in X,
# or less than this fraction of the largest, where ``eigh`` loses digits.
_GRADED, _GRADED_ROUNDING = 10.0, 1e-11
# A pass that leaves this share of a deviation was the last; the most passes are enough for all
# scales that squares of float64 can hold.
_SETTLED, _PASSES = 0.5, 12
# Squared singular values down to this fraction of the largest keep ten digits.
_GRAM = 1e-4
# With at least this many features, and at most this share of them wanted, Krylov methods are
# cheaper.
_MANY_FEATURES, _FEW_COMPONENTS = 500, 0.1
# The largest acceptable residual |C v - l v|, relative to the largest variance, and the smallest
# variance, relative to the same, for which this error is small.
_RESIDUAL, _LEAST = 1e-13, 1e-6


class Spectrum(NamedTuple):
    """Variances (q,), descending, with directions (q, d), and what is known of all d of them.

    ``total`` and ``squares`` are the sums of all variances and of their squares; ``variances`` are
    all the non-zero ones, unless ``is_part``.
    """

    variances: Any
    directions: Any
    total: float
    squares: float
    is_part: bool = False

    def rest(self, n_used: int) -> float:
        """Sum of all variances except the first ``n_used``."""
        if self.is_part:
            return max(self.total - float(self.variances[:n_used].sum()), 0.0)
        return float(self.variances[n_used:].sum())


def spectrum_of(covariance: Tensor, resolution: float, n_wanted: int | None = None) -> Spectrum:
    """Spectrum of a covariance: all d variances, or the largest ``n_wanted`` if much cheaper.

    Variances below ``resolution``, relative to those of the columns, are rounding and set to 0.
    """
    scales = covariance.diagonal()
    squares = float(covariance.square().sum())
    if _is_graded(scales, resolution):
        variances, directions = _graded_axes(covariance.cpu(), resolution)
    else:
        n_features = len(covariance)
        if n_wanted is not None and n_features >= _MANY_FEATURES:
            few = n_wanted <= _FEW_COMPONENTS * n_features
            found = _leading_axes(covariance.cpu().numpy(), n_wanted) if few else None
            if found is not None:
                return Spectrum(*found, float(scales.sum()), squares, is_part=True)
        axes = principal_axes(covariance, resolution)
        variances, directions = (tensor.cpu().numpy() for tensor in axes)
    return Spectrum(variances, directions, float(variances.sum()), squares)


def spectrum_of_factor(factor: Tensor, scales: Tensor, resolution: float) -> Spectrum:
    """Spectrum of F'F, with diagonal ``scales``, from F with fewer rows than columns.

    Holds only the non-zero variances.
    """
    rows, scales = factor.cpu().numpy(), scales.cpu()
    if _is_graded(scales, resolution):
        variances, directions = _jacobi(rows)
        # What counts is whether there is variance in units of the columns.
        unit = np.sqrt(np.where(scales > 0, scales, 1.0))
        equal = np.linalg.norm(directions * unit, axis=1)
        kept = variances > resolution * equal**2
        variances, directions = variances[kept], directions[kept]
    else:
        variances, directions = _thin_axes(rows)
        kept = variances > resolution * max(float(variances.max(initial=0.0)), 0.0)
        variances, directions = variances[kept], directions[kept]
    total, squares = float(variances.sum()), float(np.square(variances).sum())
    return Spectrum(variances, directions, total, squares)


def _is_graded(scales: Tensor, resolution: float) -> bool:
    """Whether the variance of a column is close to the rounding of the largest."""
    moving = scales[scales > 0]
    if not len(moving):
        return False
    danger = max(_GRADED * resolution, _GRADED_ROUNDING)
    return float(moving.min()) < danger * float(moving.max())


def _graded_axes(covariance: Tensor, resolution: float) -> tuple[Any, Any]:
    """All variances and directions of a covariance with columns of very different scales."""
    variances = covariance.diagonal()
    moving = variances > 0
    scale = variances[moving].sqrt()
    correlation = covariance[moving][:, moving] / scale[:, None] / scale
    strengths, axes = principal_axes(correlation, resolution)
    axes = axes[strengths > 0] * strengths[strengths > 0].sqrt()[:, None] * scale
    factor = np.zeros((len(axes), len(covariance)))
    factor[:, moving.numpy()] = axes.numpy()
    found, directions = _jacobi_beyond_rounding(factor, variances.sqrt().numpy(), resolution)
    n_null = len(covariance) - len(found)
    directions = np.concatenate([directions, complement(directions, n_null)])
    return np.concatenate([found, np.zeros(n_null)]), directions


def _jacobi_beyond_rounding(factor: Any, unit: Any, resolution: float) -> tuple[Any, Any]:
    """What ``_jacobi`` finds in the directions whose variance is not only rounding.

    That of the difference of large columns that repeat each other can exceed all that a small
    column has, and would be found in its place.
    """
    found, directions = _jacobi(factor)
    left_out = np.zeros((0, len(unit)))
    while len(found):
        shares = np.abs(directions * unit)
        rounding = (found > 0) & (found <= resolution * np.square(shares).sum(axis=1))
        if not rounding.any():
            break
        # Small columns have no part in them, and stay axes of their own.
        least = np.finfo(np.float64).eps * shares.max(axis=1, keepdims=True)
        new = np.where(shares > least, directions, 0.0)[rounding]
        left_out = np.concatenate([left_out, new])
        mixed = left_out.any(axis=0)
        rest = np.linalg.qr(left_out[:, mixed].T, mode="complete")[0][:, len(left_out) :]
        basis = np.zeros((len(unit), len(unit) - len(left_out)))
        basis[mixed, : rest.shape[1]] = rest
        basis[~mixed, rest.shape[1] :] = np.eye(int((~mixed).sum()))
        reduced = factor @ basis
        if reduced.shape[0] > reduced.shape[1]:  # LAPACK takes no more rows than columns
            reduced = np.linalg.qr(reduced, mode="r")
        found, directions = _jacobi(reduced)
        directions = directions @ basis.T
    return found, directions


def _jacobi(factor: Any) -> tuple[Any, Any]:
    """Squares of the singular values of F, descending, and its right singular vectors as rows."""
    values, left, _, work, _, info = dgejsv(factor.T, joba=2, jobu=0, jobv=3, jobp=0)
    if info:
        raise FloatingPointError(f"LAPACK's dgejsv did not converge (info={info}).")
    variances, directions = np.square(values * (work[0] / work[1])), left.T
    return variances, _without_larger(directions, factor)


def _without_larger(directions: Any, factor: Any) -> Any:
    """Directions, in order of their variance, freed of those of larger variance.

    A direction of small variance has small entries at large columns, and rounding relative to its
    length spoils them. They follow from u_j'C u_i = 0 for all j of larger variance (Gram-Schmidt).
    One pass removes all but the last digits of what is wrong, which may still exceed the small
    variance: passes go on until the variance of the direction no longer falls by much.
    """
    freed, images = directions.copy(), np.zeros((len(directions), len(factor)))
    deviations = np.ones(len(directions))
    for i, direction in enumerate(freed):
        image = factor @ direction
        for _ in range(_PASSES):
            before = np.linalg.norm(image)
            direction -= ((images[:i] @ image) / deviations[:i]) @ freed[:i]
            image = factor @ direction
            deviation = np.linalg.norm(image)
            if deviation > _SETTLED * before:
                break
        if deviation > 0.0:
            deviations[i], images[i] = deviation, image / deviation
    return freed


def _thin_axes(rows: Any) -> tuple[Any, Any]:
    """The same for columns of similar scale, from products of rows if these are accurate enough."""
    values, vectors = np.linalg.eigh(rows @ rows.T)
    if not values[-1] > 0:
        return np.zeros(0), np.zeros((0, rows.shape[1]))
    # Centred rows add up to 0, so one value is always rounding.
    values, vectors = values[:0:-1], vectors[:, :0:-1]
    if len(values) and values[-1] >= _GRAM * values[0]:
        return values, (vectors / np.sqrt(values)).T @ rows
    _, singular, directions = np.linalg.svd(rows, full_matrices=False)
    return np.square(singular), directions


def _leading_axes(covariance: Any, n_wanted: int) -> tuple[Any, Any] | None:
    """The largest variances by Lanczos' method, or None if it missed machine precision."""
    start = np.random.default_rng(0).standard_normal(len(covariance))
    try:
        values, vectors = eigsh(covariance, n_wanted, which="LA", v0=start, maxiter=50)
    except ArpackError:
        return None
    values, vectors = values[::-1], vectors[:, ::-1]
    residual = np.linalg.norm(covariance @ vectors - vectors * values, axis=0).max()
    rest = float(np.trace(covariance)) - float(values.sum())
    exact = residual <= _RESIDUAL * len(covariance) * values[0]
    if not exact or min(float(values[-1]), rest) < _LEAST * values[0]:
        return None
    return values.copy(), np.ascontiguousarray(vectors.T)


def complement(directions: Any, count: int) -> Any:
    """Orthonormal rows (count, d), orthogonal to orthonormal ``directions`` (q, d)."""
    others = np.random.default_rng(0).standard_normal((count, directions.shape[1]))
    for _ in range(2):  # the second pass removes the rounding error of the first
        others -= (others @ directions.T) @ directions
        others = np.linalg.qr(others.T)[0].T
    return others


def principal_axes(covariance: Tensor, resolution: float) -> tuple[Tensor, Tensor]:
    """Return variances (d,), descending, and orthonormal directions (d, d), one per row.

    Variances below ``resolution`` times the largest are rounding and returned as exactly 0.
    """
    variances, vectors = _eigh(covariance)
    largest = float(variances[-1])
    tolerance = resolution * largest
    for level in _LEVELS:
        kept = variances[variances > tolerance]
        if len(kept) and float(kept[0]) < _AT_STAKE * level * largest:
            n_small = int((variances < level * largest).sum())
            variances, vectors = _refine(covariance, variances, vectors, n_small)
    variances = torch.where(variances > tolerance, variances, 0.0)
    return variances.flip(0), vectors.flip(1).T


def _eigh(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors. NumPy's LAPACK takes half as long as torch's."""
    if symmetric.device.type != "cpu":
        values, vectors = torch.linalg.eigh(symmetric)
        return values, vectors
    arrays = np.linalg.eigh(symmetric.numpy())
    return torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1])


def _refine(
    covariance: Tensor, variances: Tensor, vectors: Tensor, n_small: int
) -> tuple[Tensor, Tensor]:
    """Solve again within the first ``n_small`` columns of ``vectors``, those of lowest variance."""
    small, large = vectors[:, :n_small], vectors[:, n_small:]
    leak = (large.T @ (covariance @ small)) / variances[n_small:, None]
    small, _ = torch.linalg.qr(small - large @ leak)
    projected = small.T @ (covariance @ small)
    exact, rotation = _eigh((projected + projected.T) / 2)
    return torch.cat([exact, variances[n_small:]]), torch.cat([small @ rotation, large], dim=1)
