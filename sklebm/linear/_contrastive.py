r"""Quadratic log densities from noise: f(u) = -1/2 u'Qu + h'u + c, fitted by logistic regression.

Noise-contrastive: min E_x softplus(-G(x)) + k E_y softplus(G(y)), G = f - log p_noise - log k,
with k noise points y for each row (Gutmann & Hyvarinen, 2012, JMLR 13).
Conditional: min E softplus(-(f(x) - f(y))), y = x + symmetric noise; c cancels, and as the noise
shrinks this becomes score matching (Ceylan & Gutmann, 2018, ICML).
f is linear in (Q, h, c), so both problems are convex, and rows enter only through f. Both get the
term (tr Q - log det Q) / 2 n, which is what one more row of unit covariance adds to a Gaussian
likelihood: it keeps Q positive definite and finite for any data, and its effect vanishes as 1 / n.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sklebm.linear._newton import Convex, Observer, ignore, minimize
from sklebm.linear._structure import Entries


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
        self.u = u
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
        """Q, h and c of a parameter vector."""
        p, d = len(self.entries), self.entries.n_features
        constant = point[p + d] if self.has_constant else 0.0
        return self.entries.matrix(point[:p]), point[p : p + d], constant

    def _function(self, point: Tensor) -> Tensor:
        matrix, linear, constant = self.split(point)
        return ((linear - 0.5 * (self.u @ matrix)) * self.u).sum(dim=1) + constant

    def _collect(self, weights: Tensor, prior: Tensor) -> Tensor:
        """Derivatives with respect to (Q, h, c): of the weighted margins, and of the prior by Q."""
        rows = self.adjoint(weights)
        weighted = self.u * rows[:, None]
        by_precision = prior - 0.5 * (weighted.T @ self.u)
        parts = [self.entries.gradient(by_precision), weighted.sum(dim=0)]
        if self.has_constant:
            parts.append(rows.sum()[None])
        return torch.cat(parts) / self.n_rows

    def value(self, point: Tensor) -> float:
        matrix = self.split(point)[0]
        factor, failure = torch.linalg.cholesky_ex(matrix)
        if int(failure):
            return math.inf
        prior = 0.5 * float(matrix.trace()) - float(factor.diagonal().log().sum())
        margins = self.margins(self._function(point)) + self.offset()
        return (float(softplus(-margins).sum()) + prior) / self.n_rows

    def gradient(self, point: Tensor) -> Tensor:
        self._inverse = torch.cholesky_inverse(torch.linalg.cholesky(self.split(point)[0]))
        margins = self.margins(self._function(point)) + self.offset()
        wrong = torch.sigmoid(-margins)
        self._slopes = wrong * torch.sigmoid(margins)
        slope = 0.5 * (torch.eye(len(self._inverse)).to(self._inverse) - self._inverse)
        return self._collect(-wrong, slope)

    def curvature(self, direction: Tensor) -> Tensor:
        bend = 0.5 * (self._inverse @ self.split(direction)[0] @ self._inverse)
        return self._collect(self._slopes * self.margins(self._function(direction)), bend)

    def precondition(self, residual: Tensor) -> Tensor:
        # The features 1/2 u_i^2 and u_i u_j of white u have variances 1/2 and 1.
        pairs = torch.where(self.entries.is_diagonal, 0.5, 1.0)
        n_others = self.entries.n_features + self.has_constant
        return residual / torch.cat([pairs, torch.ones(n_others, device=pairs.device)]).double()


class _NoiseContrastive(_Logistic):
    """Rows of data against rows of noise of known density."""

    def __init__(self, data: Tensor, noise: Tensor, noise_factor: Tensor, entries: Entries) -> None:
        super().__init__(torch.cat([data, noise]), entries, len(data))
        z = torch.linalg.solve_triangular(noise_factor, self.u.T, upper=False)
        log_noise = -0.5 * z.square().sum(dim=0) - float(noise_factor.diagonal().log().sum())
        log_noise -= 0.5 * self.u.shape[1] * math.log(2 * math.pi)
        self.sign = torch.ones(len(self.u), dtype=data.dtype, device=data.device)
        self.sign[len(data) :] = -1.0
        self._offset: Tensor = -self.sign * (log_noise + math.log(len(noise) / len(data)))

    def margins(self, f: Tensor) -> Tensor:
        return self.sign * f

    def adjoint(self, weights: Tensor) -> Tensor:
        return self.sign * weights

    def offset(self) -> Tensor:
        return self._offset


class _ConditionalNoiseContrastive(_Logistic):
    """Rows of data against noisy copies of themselves."""

    has_constant = False

    def __init__(self, data: Tensor, noise: Tensor, entries: Entries) -> None:
        super().__init__(torch.cat([data, noise]), entries, len(data))
        self.n_noise = len(noise) // len(data)

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
    shape = (n_noise * len(data), data.shape[1])
    white = torch.randn(shape, generator=generator, dtype=data.dtype, device=data.device)
    noise = white @ noise_factor.T
    function: _Logistic
    if noise_scale is None:
        function = _NoiseContrastive(data, noise, noise_factor, entries)
    else:
        copies = data.repeat(n_noise, 1) + noise_scale * noise
        function = _ConditionalNoiseContrastive(data, copies, entries)
    n_others = entries.n_features + function.has_constant
    start = torch.cat([entries.is_diagonal.to(data), data.new_zeros(n_others)])
    point, n_iter, converged = minimize(
        function, start, tol=tol, max_iter=max_iter, observe=observe
    )
    matrix, linear, constant = function.split(point)
    known = float(constant) if function.has_constant else None
    return Quadratic(matrix, linear, known, n_iter, converged)
