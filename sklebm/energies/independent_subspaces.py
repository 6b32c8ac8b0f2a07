r"""F(x) = sum_g f(|W_g (x - m)|^2 / b_g^2) + |r|^2 / 2v: groups of filters, and noise.

r is what the filters miss: nothing, with as many filters as features. Groups that share no filter
are independent, and then log Z = sum_g (log c_g + |g| log b_g) - log |det W|, with constants c_g.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from sklebm.energies.source_densities import SourceDensity


class IndependentSubspaceEnergy(nn.Module):
    """Energy of groups of sources.

    Parameters
    ----------
    mean : Tensor of shape (n_features,)
        The mean m.
    filters : Tensor of shape (n_components, n_features)
        The filters W.
    mixing : Tensor of shape (n_features, n_components)
        Their right inverse A, W A = I.
    feature_scales : Tensor of shape (n_features,)
        Units in which the noise is measured: r = (x - m - A W (x - m)) / feature_scales.
    group_scales : Tensor of shape (n_groups,)
        The scales b.
    density : SourceDensity
        The density exp(-f) of the norm of a group.
    group_size : int
        Filters in a group; the last may have fewer.
    topography : (rows, columns) or None
        Instead, a torus of filters with a pool of 3 x 3 around each.
    noise_variance : float
        The variance v; not used with as many filters as features.
    """

    mean: Tensor
    filters: Tensor
    mixing: Tensor
    feature_scales: Tensor
    group_scales: Tensor
    sizes: Tensor

    def __init__(
        self,
        mean: Tensor,
        filters: Tensor,
        mixing: Tensor,
        feature_scales: Tensor,
        group_scales: Tensor,
        density: SourceDensity,
        group_size: int = 1,
        topography: tuple[int, int] | None = None,
        noise_variance: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("filters", filters)
        self.register_buffer("mixing", mixing)
        self.register_buffer("feature_scales", feature_scales)
        self.register_buffer("group_scales", group_scales)
        sizes = group_sizes(len(filters), group_size, topography)
        if len(group_scales) != len(sizes):
            raise ValueError(
                f"{len(group_scales)} group scales were given, but {len(filters)} filters form "
                f"{len(sizes)} groups."
            )
        self.register_buffer("sizes", sizes.to(mean))
        self.density = density
        self.group_size = group_size
        self.topography = topography
        self.noise_variance = noise_variance

    def sources(self, x: Tensor) -> Tensor:
        """s = W (x - m) for each row, (n_rows, n_components)."""
        return (x - self.mean) @ self.filters.T

    def mix(self, s: Tensor) -> Tensor:
        """The rows m + A s, (n_rows, n_features)."""
        return torch.addmm(self.mean, s, self.mixing.T)

    def pooled(self, x: Tensor) -> Tensor:
        """The energy of each group, (n_rows, n_groups)."""
        return self._pooled(self.sources(x))

    def _pooled(self, s: Tensor) -> Tensor:
        q = pool(s.square(), self.group_size, self.topography) / self.group_scales.square()
        return self.density.energy(q, self.sizes.to(s))

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x) of shape (n_rows,). O(n d k)."""
        s = self.sources(x)
        energy = self._pooled(s).sum(dim=1)
        if len(self.filters) < len(self.mean):
            missed = ((x - self.mean) - s @ self.mixing.T) / self.feature_scales
            energy = energy + missed.square().sum(dim=1) / (2.0 * self.noise_variance)
        return energy

    def log_partition(self) -> float:
        """Log Z in nats; only for groups that share no filter."""
        if self.topography is not None:
            raise ValueError("Pools that overlap have no closed normaliser.")
        sizes = self.sizes.long().tolist()
        constants = {size: self.density.log_constant(size) for size in set(sizes)}
        log_z = sum(constants[size] for size in sizes)
        log_z += float(self.sizes @ self.group_scales.log())
        # |det W| is that of W diag(c) over the product of c, and W diag(c) may have fewer rows.
        filters = self.filters * self.feature_scales
        log_z -= 0.5 * float(torch.linalg.slogdet(filters @ filters.T).logabsdet)
        log_z += float(self.feature_scales.log().sum())
        n_missed = len(self.mean) - len(self.filters)
        if n_missed:
            log_z += 0.5 * n_missed * math.log(2 * math.pi * self.noise_variance)
        return log_z

    def sample(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws, (n_rows, n_features); only for groups that share no filter."""
        if self.topography is not None:
            raise ValueError("Pools that overlap have no density that can be drawn from exactly.")
        draws = torch.randint(2**31, (2,), generator=generator)
        rng = np.random.default_rng(draws.numpy())
        sizes = self.sizes.cpu().numpy()
        direction = torch.from_numpy(rng.standard_normal((n_rows, len(self.filters))))
        norm = pool(direction.square(), self.group_size).sqrt()
        radius = torch.from_numpy(self.density.radii(n_rows, sizes, rng)) * self.group_scales.cpu()
        s = direction * spread(radius / norm, self.group_size, len(self.filters))
        x = self.mix(s.to(self.mean))
        if len(self.filters) < len(self.mean):
            noise = torch.from_numpy(rng.standard_normal((n_rows, len(self.mean)))).to(self.mean)
            noise = noise * self.noise_variance**0.5 * self.feature_scales
            x = x + noise - (noise @ self.filters.T) @ self.mixing.T
        return x


def group_sizes(n: int, group_size: int, topography: tuple[int, int] | None = None) -> Tensor:
    """How many filters each group has, (n_groups,)."""
    return pool(torch.ones(1, n, dtype=torch.float64), group_size, topography)[0]


def pool(values: Tensor, group_size: int, topography: tuple[int, int] | None = None) -> Tensor:
    """Sums over the filters of each group, (n_rows, n_groups)."""
    if topography is not None:
        grid = values.reshape(-1, *topography)
        for axis, length in enumerate(topography, start=1):
            shifts = {shift % length for shift in (-1, 0, 1)}  # a short torus meets itself
            grid = torch.stack([grid.roll(shift, axis) for shift in sorted(shifts)]).sum(dim=0)
        return grid.flatten(1)
    if group_size == 1:
        return values
    n_missing = -values.shape[1] % group_size
    padded = torch.nn.functional.pad(values, (0, n_missing))
    return padded.reshape(len(values), -1, group_size).sum(dim=2)


def spread(
    values: Tensor, group_size: int, n: int, topography: tuple[int, int] | None = None
) -> Tensor:
    """The transpose of ``pool``: each filter gets the sum over its groups, (n_rows, n)."""
    if topography is not None:
        return pool(values, 1, topography)  # it is symmetric
    if group_size == 1:
        return values
    return values.repeat_interleave(group_size, dim=1)[:, :n]
