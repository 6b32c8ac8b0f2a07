r"""f(q) for a group of sources with squared norm q, and log of the integral of exp(-f(|s|^2)).

.. code-block:: text

    laplace    f = sqrt(eps + q)               log_cosh   f = log cosh sqrt(q)
    student_t  f = (v + g)/2 log(1 + q/v)      logistic   f = 2 log cosh(sqrt(q) / 2)

In g dimensions the integral is the sphere's area 2 pi^(g/2) / Gamma(g/2) times that over the
radius, which is a Bessel, beta or zeta function: all four densities are normalised for every g.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.special import gammaln, kve, zeta
from torch import Tensor

DensityName = Literal["laplace", "log_cosh", "student_t", "logistic"]
# Below this radius f' and f'' of the hyperbolic functions are those of the radius: f' differs by
# 1e-10, and f'' would round away.
_LEAST_RADIUS = 1e-5
# Numbers between a half and one whose product is far from the smallest double.
_FACTORS = 256


class SourceDensity(NamedTuple):
    """A density of the norm of a group of sources.

    Parameters
    ----------
    name : {"laplace", "log_cosh", "student_t", "logistic"}
        Which.
    eps : float
        What rounds off the tip of "laplace".
    degrees_of_freedom : float
        Degrees of freedom v of "student_t".
    """

    name: DensityName
    eps: float = 1e-3
    degrees_of_freedom: float = 3.0

    def energy(self, q: Tensor, sizes: Tensor) -> Tensor:
        """f(q), of the shape of ``q``: (n_rows, n_groups)."""
        if self.name == "laplace":
            return torch.sqrt(q + self.eps)
        if self.name == "student_t":
            v = self.degrees_of_freedom
            return 0.5 * (v + sizes) * torch.log1p(q / v)
        half = 2.0 if self.name == "logistic" else 1.0
        r = torch.sqrt(q) / half
        # log cosh r without overflow
        return half * (r + torch.log1p(torch.exp(-2.0 * r)) - math.log(2.0))

    def expanded(self, q: Tensor, sizes: Tensor) -> tuple[float, Tensor, Tensor]:
        """Sum of f(q), with f'(q), and f''(q) to the accuracy that a preconditioner needs."""
        if self.name == "laplace":
            root = (q + self.eps).sqrt_()
            inverse = root.reciprocal()
            return float(root.sum()), 0.5 * inverse, inverse.pow(2).mul_(inverse).mul_(-0.25)
        if self.name == "student_t":
            v = self.degrees_of_freedom
            inverse = (v + q).reciprocal_()
            weight = 0.5 * (v + sizes) * inverse
            return float(self.energy(q, sizes).sum()), weight, -weight * inverse
        half = 2.0 if self.name == "logistic" else 1.0
        root = q.sqrt().clamp_(min=_LEAST_RADIUS)
        gap = torch.expm1(root * (-2.0 / half))  # exp(-2 r) - 1, r = root / half
        energy = root.sum() + half * _sum_of_logs(1.0 + 0.5 * gap)
        slope = torch.div(gap, gap + 2.0, out=gap).neg_()  # tanh r
        inverse = root.reciprocal()
        first = slope * inverse
        # (r (1 - tanh^2 r) - tanh r) / root^3, from which the powers of root cancel
        second = torch.addcmul(torch.tensor(1.0).to(q), slope, slope, value=-1.0)
        second = second.mul_(1.0 / half).sub_(first).mul_(inverse).mul_(inverse)
        return float(energy), first.mul_(0.5), second.mul_(0.25)

    def log_constant(self, size: int) -> float:
        """Log of the integral of exp(-f(|s|^2)) over all s in so many dimensions."""
        g = float(size)
        if self.name == "laplace":
            order, tip = (g + 1) / 2, math.sqrt(self.eps)
            bessel = math.log(float(kve(order, tip))) - tip
            return (
                math.log(2) + (g - 1) / 2 * math.log(2 * math.pi) + order * math.log(tip) + bessel
            )
        if self.name == "student_t":
            v = self.degrees_of_freedom
            return float(g / 2 * math.log(math.pi * v) + gammaln(v / 2) - gammaln((v + g) / 2))
        sphere = math.log(2) + g / 2 * math.log(math.pi) - float(gammaln(g / 2))
        if self.name == "log_cosh":  # 2 Gamma(g) times Dirichlet's beta function
            beta = math.pi / 4
            if size > 1:
                beta = float(zeta(g, 0.25) - zeta(g, 0.75)) / 4.0**g
            return float(sphere + math.log(2 * beta) + gammaln(g))
        # 4 Gamma(g) times Dirichlet's eta function of g - 1
        eta = {1: 0.5, 2: math.log(2.0)}.get(size)
        if eta is None:
            eta = (1.0 - 2.0 ** (2.0 - g)) * float(zeta(g - 1, 1.0))
        return float(sphere + math.log(4 * eta) + gammaln(g))

    def radii(self, n_rows: int, sizes: Any, rng: np.random.Generator) -> Any:
        """Independent draws of the norms of groups, (n_rows, n_groups)."""
        shape = (n_rows, len(sizes))
        if self.name == "student_t":
            v = self.degrees_of_freedom
            return np.sqrt(rng.chisquare(sizes, shape) * v / rng.chisquare(v, shape))
        # exp(-r) lies above all others but for a constant: draw from it, and reject.
        r = np.empty(shape)
        missing = np.ones(shape, dtype=bool)
        while missing.any():
            g = np.broadcast_to(sizes, shape)[missing]
            drawn = rng.gamma(g)
            kept = rng.random(len(g)) < self._kept_share(drawn)
            places = np.flatnonzero(missing)[kept]
            r.flat[places] = drawn[kept]
            missing.flat[places] = False
        return r

    def _kept_share(self, r: Any) -> Any:
        if self.name == "laplace":
            return np.exp(r - np.sqrt(self.eps + r**2))
        if self.name == "log_cosh":
            return 1.0 / (1.0 + np.exp(-2.0 * r))
        return 1.0 / (1.0 + np.exp(-r)) ** 2


def _sum_of_logs(values: Tensor) -> Tensor:
    """Sum of the logarithms of numbers in [1/2, 1], by products of many of them."""
    flat = (values.T if values.T.is_contiguous() else values).flatten()
    n_whole = len(flat) - len(flat) % _FACTORS
    blocks = flat[:n_whole].view(_FACTORS, -1)
    return blocks.prod(dim=0).log_().sum() + flat[n_whole:].log().sum()
