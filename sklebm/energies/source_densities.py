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
# Below this radius f'' of the hyperbolic functions is that of the radius: it would round away.
_LEAST_RADIUS = 1e-2


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

    def slopes(self, q: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """f'(q), and f''(q) to the accuracy that a preconditioner needs."""
        if self.name == "laplace":
            root = torch.rsqrt(q + self.eps)
            return 0.5 * root, -0.25 * root**3
        if self.name == "student_t":
            inverse = 1.0 / (self.degrees_of_freedom + q)
            weight = 0.5 * (self.degrees_of_freedom + sizes) * inverse
            return weight, -weight * inverse
        half = 2.0 if self.name == "logistic" else 1.0
        root = torch.sqrt(q)
        r = root.clamp(min=1e-8)
        first = torch.tanh(r / half) / (2.0 * r)
        r = root.clamp(min=_LEAST_RADIUS)
        slope = torch.tanh(r / half)
        return first, (r / half * (1.0 - slope**2) - slope) / (4.0 * r**3)

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
