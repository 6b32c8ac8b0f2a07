r"""Quadratic log densities from noise: f(u) = -1/2 u'Qu + h'u + c, fitted by logistic regression.

Noise-contrastive: min E_x softplus(-G(x)) + k E_y softplus(G(y)), G = f - log p_noise - log k,
with k noise points y for each row (Gutmann & Hyvarinen, 2012, JMLR 13).
Conditional: min E softplus(-(f(x) - f(y))), y = x + symmetric noise; c cancels, and as the noise
shrinks this becomes score matching (Ceylan & Gutmann, 2018, ICML).
f is linear in (Q, h, c), so both problems are convex, and rows enter only through f. Both get the
term (tr Q - log det Q) / 2 n, which is what one more row of unit covariance adds to a Gaussian
likelihood: it keeps Q positive definite and finite for any data, and its effect vanishes as 1 / n.

If few entries of Q are free, rows are kept in single precision and multiplied with these entries
only. A row is then what it was rounded to, in every term.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sklebm.linear._forms import forms
from sklebm.linear._newton import Convex, Observer, ignore, minimize
from sklebm.linear._precision import (
    curvature_at_entries,
    inverse_curvature,
    maximum_likelihood,
)
from sklebm.linear._structure import Entries

_CHUNK = 8192
_NEAR, _NEAR_STEPS = 1e-2, 20  # of the start


class Quadratic(NamedTuple):
    """Coefficients of f and how they were found; ``constant`` is None if it cancels."""

    precision: Tensor
    linear: Tensor
    constant: float | None
    n_iter: int
    converged: bool


class _Logistic(Convex):
    """sum_i softplus(-g_i) / n plus the prior, with margins g = M f(u) + offset, M linear."""

    has_constant = True

    def __init__(self, u: Tensor, entries: Entries, n_rows: int) -> None:
        self.forms = forms(u, entries)
        self.entries = entries
        self.n_rows = n_rows

    @abstractmethod
    def margins(self, f: Tensor) -> Tensor:
        """M f."""

    @abstractmethod
    def adjoint(self, weights: Tensor) -> Tensor:
        """M' weights: one weight for each row of u."""

    @abstractmethod
    def offset(self) -> Tensor | float:
        """What is added to M f."""

    def split(self, point: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """The free entries of Q, h and c of a parameter vector."""
        p, d = len(self.entries), self.entries.n_features
        constant = point[p + d] if self.has_constant else 0.0
        return point[:p], point[p : p + d], constant

    def _matrix(self, point: Tensor) -> Tensor:
        return self.entries.matrix(self.split(point)[0])

    def _function(self, point: Tensor) -> Tensor:
        vector, linear, constant = self.split(point)
        return self.forms.values(vector, linear) + constant

    def _collect(self, weights: Tensor, prior: Tensor) -> Tensor:
        """Derivatives by (Q, h, c) of the weighted margins, plus those of the prior by Q."""
        rows = self.adjoint(weights)
        by_entries, by_linear = self.forms.derivatives(rows)
        parts = [by_entries + prior, by_linear]
        if self.has_constant:
            parts.append(rows.sum()[None])
        return torch.cat(parts) / self.n_rows

    def value(self, point: Tensor) -> float:
        matrix = self._matrix(point)
        factor, failure = torch.linalg.cholesky_ex(matrix)
        if int(failure):
            return math.inf
        prior = 0.5 * float(matrix.trace()) - float(factor.diagonal().log().sum())
        margins = self.margins(self._function(point)) + self.offset()
        return (float(softplus(-margins).sum()) + prior) / self.n_rows

    def gradient(self, point: Tensor) -> Tensor:
        self._inverse = torch.cholesky_inverse(torch.linalg.cholesky(self._matrix(point)))
        if self.entries.is_sparse:  # for every step of conjugate gradients
            self._current = self.entries.sparse(self.split(point)[0])
            self._mean = self.entries.gradient(-0.5 * self._inverse)  # of the derivatives of f by Q
        margins = self.margins(self._function(point)) + self.offset()
        wrong = torch.sigmoid(-margins)
        self._slopes = wrong * torch.sigmoid(margins)
        slope = 0.5 * (torch.eye(len(self._inverse)).to(self._inverse) - self._inverse)
        return self._collect(-wrong, self.entries.gradient(slope))

    def curvature(self, direction: Tensor) -> Tensor:
        if self.entries.is_sparse:
            vector = self.split(direction)[0]
            bend = curvature_at_entries(self.entries, self._inverse, vector)
        else:
            bend = self._inverse @ self._matrix(direction) @ self._inverse
            bend = self.entries.gradient(bend)
        weights = self._slopes * self.margins(self._function(direction))
        return self._collect(weights, 0.5 * bend)

    def precondition(self, residual: Tensor) -> Tensor:
        """The inverse of what the curvature is, up to a factor, for rows u ~ N(0, Q^-1)."""
        if not self.entries.is_sparse:
            # The features 1/2 u_i^2 and u_i u_j of white u have variances 1/2 and 1.
            pairs = torch.where(self.entries.is_diagonal, 0.5, 1.0)
            n_others = self.entries.n_features + self.has_constant
            return residual / torch.cat([pairs, torch.ones(n_others, device=pairs.device)]).double()
        vector, linear, constant = self.split(residual)
        if self.has_constant:
            vector = vector - constant * self._mean
        parts = [2.0 * inverse_curvature(self.entries, self._current, vector)]
        parts.append(torch.from_numpy(self._current @ linear.numpy()))
        if self.has_constant:
            parts.append((constant - self._mean @ parts[0])[None])
        return torch.cat(parts)


class _NoiseContrastive(_Logistic):
    """Rows of data, the first ``n_rows`` of u, against rows of noise of known density."""

    def __init__(self, u: Tensor, noise_factor: Tensor, entries: Entries, n_rows: int) -> None:
        super().__init__(u, entries, n_rows)
        normaliser = float(noise_factor.diagonal().log().sum())
        normaliser += 0.5 * u.shape[1] * math.log(2 * math.pi)
        log_noise = noise_factor.new_empty(len(u))
        for part in _parts(0, len(u)):
            rows = u[part].to(noise_factor.dtype)
            z = torch.linalg.solve_triangular(noise_factor, rows.T, upper=False)
            log_noise[part] = -0.5 * z.square().sum(dim=0) - normaliser
        self.sign = torch.ones_like(log_noise)
        self.sign[n_rows:] = -1.0
        self._offset: Tensor = -self.sign * (log_noise + math.log(len(u) / n_rows - 1))

    def margins(self, f: Tensor) -> Tensor:
        return self.sign * f

    def adjoint(self, weights: Tensor) -> Tensor:
        return self.sign * weights

    def offset(self) -> Tensor:
        return self._offset


class _ConditionalNoiseContrastive(_Logistic):
    """Rows of data, the first ``n_rows`` of u, against noisy copies of themselves."""

    has_constant = False

    def __init__(self, u: Tensor, entries: Entries, n_rows: int) -> None:
        super().__init__(u, entries, n_rows)
        self.n_noise = len(u) // n_rows - 1

    def margins(self, f: Tensor) -> Tensor:
        data, noise = f[: self.n_rows], f[self.n_rows :].view(self.n_noise, self.n_rows)
        return (data - noise).flatten()

    def adjoint(self, weights: Tensor) -> Tensor:
        return torch.cat([weights.view(self.n_noise, self.n_rows).sum(dim=0), -weights])

    def offset(self) -> float:
        return 0.0


def noise_contrastive(
    data: Tensor,
    entries: Entries,
    noise_factor: Tensor,
    generator: torch.Generator,
    *,
    n_noise: int,
    noise_scale: float | None,
    tol: float,
    max_iter: int,
    observe: Observer = ignore,
) -> Quadratic:
    """Fit f to standardised rows; conditional if ``noise_scale`` is given.

    The noise is N(0, L L') with ``noise_factor`` L, or each row plus ``noise_scale`` times it.
    """
    n_rows, d = data.shape
    dtype = torch.float32 if entries.is_sparse else data.dtype
    u = torch.empty(((1 + n_noise) * n_rows, d), dtype=dtype, device=data.device)
    u[:n_rows] = data
    for part in _parts(n_rows, len(u)):
        shape = (part.stop - part.start, d)
        white = torch.randn(shape, generator=generator, dtype=data.dtype, device=data.device)
        noise = white @ noise_factor.T
        if noise_scale is not None:
            own = torch.arange(part.start, part.stop, device=data.device) % n_rows
            noise = data[own] + noise_scale * noise
        u[part] = noise
    function: _Logistic
    if noise_scale is None:
        function = _NoiseContrastive(u, noise_factor, entries, n_rows)
    else:
        function = _ConditionalNoiseContrastive(u, entries, n_rows)
    point, n_iter, converged = minimize(
        function, _start(function, noise_factor), tol=tol, max_iter=max_iter, observe=observe
    )
    vector, linear, constant = function.split(point)
    known = float(constant) if function.has_constant else None
    return Quadratic(entries.matrix(vector), linear, known, n_iter, converged)


def _start(function: _Logistic, noise_factor: Tensor) -> Tensor:
    """A density with Q nearly of maximum likelihood: far from the rows, margins are flat."""
    entries, covariance = function.entries, noise_factor @ noise_factor.T
    near = maximum_likelihood(covariance, entries, tol=_NEAR, max_iter=_NEAR_STEPS).precision
    parts = [near[entries.rows, entries.columns], near.new_zeros(entries.n_features)]
    if function.has_constant:
        factor = torch.linalg.cholesky(near)
        log_partition = 0.5 * entries.n_features * math.log(2 * math.pi)
        parts.append((factor.diagonal().log().sum() - log_partition)[None])
    return torch.cat(parts)


def _parts(first: int, stop: int) -> list[slice]:
    """Slices of rows that a matrix of double precision is made of at once."""
    return [slice(i, min(i + _CHUNK, stop)) for i in range(first, stop, _CHUNK)]
