"""How groups of sources are fitted: filters for white rows, and what a fit leaves behind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.rows import Rows
from sklebm.energies import IndependentSubspaceEnergy
from sklebm.energies.independent_subspaces import group_sizes, pool, spread
from sklebm.energies.source_densities import SourceDensity
from sklebm.inference.grouping import grouped_order, square_correlations
from sklebm.inference.matrix_groups import (
    Invertible,
    Local,
    MatrixGroup,
    Rotations,
    symmetric_orthogonal,
)
from sklebm.inference.relative_descent import Place, advance, begin, pass_over, promise
from sklebm.iterative import Draw
from sklebm.linear._white_rows import WhiteRows, white_rows

# A group that is silent in most rows has a large density there, but none without bound.
_LEAST_SCALE = 1e-3
# Independent components that groups begin with.
_START_STEPS, _START_TOL = 100, 1e-3


class Grouping(NamedTuple):
    """Which sources belong together, and the density of a group."""

    density: SourceDensity
    group_size: int
    topography: tuple[int, int] | None

    def record(self) -> dict[str, Any]:
        """The same in strings and numbers, as a fitted attribute."""
        rows, columns = self.topography or (0, 0)
        density = self.density._asdict()
        return {**density, "group_size": self.group_size, "rows": rows, "columns": columns}

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Grouping:
        """What ``record`` has kept."""
        density = SourceDensity(
            record["name"], float(record["eps"]), float(record["degrees_of_freedom"])
        )
        shape = (int(record["rows"]), int(record["columns"]))
        return cls(density, int(record["group_size"]), shape if shape != (0, 0) else None)


class Search(NamedTuple):
    """Where a start stands; the generator of its batches, and how many there were.

    Without a generator there are no more batches: L-BFGS goes on with all rows.
    """

    place: Place
    generator: torch.Generator | None
    n_batches: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether the last step ended the search."""
        return self.place.settled


class SourceProblem(NamedTuple):
    """White rows, and the energy whose mean is to be least."""

    white: WhiteRows
    grouping: Grouping
    sizes: Tensor
    tol: float
    orthogonal: bool = True
    batch_size: int | None = None

    @property
    def group(self) -> MatrixGroup:
        """The filters for white rows among which the least energy is searched."""
        directions = self.white.directions
        return Rotations.of(directions) if self.orthogonal else Invertible(len(directions))

    def start(self, draw: Draw) -> Search:
        """Random filters, orthogonalised: they depend on the plane and not on its axes.

        Groups begin as independent components, those together whose squares go together: of
        random filters some would end in the wrong group, a local minimum.
        """
        directions = self.white.directions.cpu()
        noise = torch.randn(directions.shape, generator=draw("init"), dtype=torch.float64)
        filters = symmetric_orthogonal(noise @ directions.T).to(self.white.directions.device)
        generator = None if self.batch_size is None else draw("batches")
        if self.grouping.topography is not None or self.grouping.group_size == 1:
            return self._begin(filters, generator)
        single = self._replace(
            grouping=self.grouping._replace(group_size=1),
            sizes=torch.ones_like(filters[0]),
            tol=_START_TOL,
            orthogonal=True,
        )
        search = single._begin(filters, generator)
        for _ in range(_START_STEPS):
            search = single.step(search)
            if search.settled:
                break
        filters = search.place.matrix
        sources = (z @ filters.T for z in self.white.parts())
        order = grouped_order(square_correlations(sources), self.grouping.group_size)
        return self._begin(filters[order.to(filters.device)], None)

    def _begin(self, filters: Tensor, generator: torch.Generator | None) -> Search:
        n_free = len(self.sizes) if self._learns_scales else 0
        return Search(begin(self.evaluate, filters, filters.new_zeros(n_free)), generator)

    @property
    def _learns_scales(self) -> bool:
        # Filters without a constraint have scales of their own.
        return self.orthogonal and self.grouping.topography is None

    def step(self, search: Search) -> Search:
        """One pass over random batches while they gain enough, then one step of L-BFGS."""
        place, generator, n_batches = search
        if generator is None or self.batch_size is None:
            return Search(advance(self.evaluate, self.group, place, self.tol), None)
        batches = self.white.batches(self.batch_size, generator)
        *there, n_batches = pass_over(self._evaluate_part, self.group, place, batches, n_batches)
        found = begin(self.evaluate, *there)
        gain = place.local.loss - found.local.loss
        if gain > promise(self.group, place):
            return Search(found, generator, n_batches)
        best = found if gain > 0 else place
        return Search(advance(self.evaluate, self.group, best, self.tol), None)

    def evaluate(self, filters: Tensor, log_scales: Tensor) -> Local:
        """The mean of F + sum_g |g| log b_g - log |det W| over the rows, with its derivatives."""
        return self._evaluate(self.white.parts(), self.white.n_rows, filters, log_scales)

    def _evaluate_part(self, z: Tensor, filters: Tensor, log_scales: Tensor) -> Local:
        """The same for some of the white rows."""
        return self._evaluate([z], len(z), filters, log_scales)

    def _evaluate(
        self, parts: Iterable[Tensor], n_rows: int, filters: Tensor, log_scales: Tensor
    ) -> Local:
        density, group_size, topography = self.grouping
        n = len(filters)
        squares, share = self._squared_scales(filters, log_scales)
        units = self._of_filters(squares)
        scaled = filters / units.sqrt()[:, None]
        loss, moment = 0.0, torch.zeros_like(filters)
        weights, bend, own_bend, power = (torch.zeros_like(moment[0]) for _ in range(4))
        free, free_bend = torch.zeros_like(self.sizes), torch.zeros_like(self.sizes)
        for z in parts:
            s = (scaled @ z.T).T  # columns are contiguous: sums and products of few are fast
            square = s.square()
            q = pool(square, group_size, topography)
            energy, first, second = density.expanded(q, self.sizes)
            loss += energy
            free += (first * q).sum(dim=0)
            free_bend += (second * q).mul_(q).sum(dim=0)
            power += square.sum(dim=0)
            weight = spread(first, group_size, n, topography)
            weights += weight.sum(dim=0)
            bent = spread(second, group_size, n, topography) * square
            bend += bent.sum(dim=0)
            own_bend += bent.mul_(square).sum(dim=0)
            moment += (weight * s).T @ s
        own_bend = 2.0 * moment.diagonal() + 4.0 * own_bend
        moment = 2.0 * moment * units.sqrt() / units.sqrt()[:, None]
        bend = (2.0 * weights + 4.0 * bend) / units
        power = power * units
        free, free_bend = -2.0 * free, 4.0 * (free + free_bend)
        loss /= n_rows
        moment, bend, own_bend, power, free, free_bend = (
            part / n_rows for part in (moment, bend, own_bend, power, free, free_bend)
        )
        # F_ii and s_j^2 are independent if sources are.
        curvature = torch.outer(bend, power)
        curvature.diagonal().copy_(own_bend + moment.diagonal())
        if self._learns_scales:
            loss += 0.5 * float(self.sizes @ squares.log())
            free = (free + self.sizes) * share
            return Local(loss, moment, curvature, free, free_bend * share.square())
        if not self.orthogonal:
            counts = self._scale_sizes
            loss += 0.5 * float(counts @ squares.log())
            loss -= float(torch.linalg.slogdet(filters).logabsdet)
            slack = counts + (free.sum() if topography else free)
            pull = self._of_filters(_LEAST_SCALE**2 * slack / squares / counts)
            covariance = filters @ filters.T * self._shrinkage
            moment = moment + pull[:, None] * covariance
        return Local(loss, moment, curvature, log_scales, log_scales)

    # ------------------------------------------------------------------ scales

    def _squared_scales(self, filters: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
        """b^2 in the units of the outputs, bounded from below, and its share that is free to move.

        Filters without a constraint choose the scales of their outputs, beside a b of 1; the bound
        holds for outputs divided by their deviation.
        """
        if not self.orthogonal:
            squares = 1.0 + _LEAST_SCALE**2 * self._variances(filters)
            return squares, torch.ones_like(squares)
        if not self._learns_scales:
            return torch.ones_like(self.sizes), torch.ones_like(self.sizes)
        share = torch.exp(2.0 * log_scales)
        squares = share + _LEAST_SCALE**2
        return squares, share / squares

    @property
    def _shrinkage(self) -> float:
        """Mean square of a white column, whose variance has the divisor n - 1."""
        return (self.white.n_rows - 1) / self.white.n_rows

    @property
    def _scale_sizes(self) -> Tensor:
        """How many filters share a scale: those of a group, or all that overlap."""
        return self.sizes.new_tensor([len(self.sizes)]) if self.grouping.topography else self.sizes

    def _variances(self, filters: Tensor) -> Tensor:
        """Mean squares of the outputs that share a scale."""
        squares = filters.square().sum(dim=1) * self._shrinkage
        if self.grouping.topography:
            return squares.mean()[None]
        return pool(squares[None], self.grouping.group_size)[0] / self.sizes

    def _of_filters(self, values: Tensor) -> Tensor:
        """For each filter the value of its scale."""
        n = len(self.white.directions)
        if self.grouping.topography:
            return values.expand(n)
        return spread(values[None], self.grouping.group_size, n)[0]

    # ------------------------------------------------------------------ results

    def report(self, search: Search) -> dict[str, float]:
        """The objective, for ``verbose``."""
        return {"objective": search.place.local.loss}

    def state(self, search: Search, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute."""
        white, place = self.white, search.place
        if self.orthogonal:
            matrix = symmetric_orthogonal(place.matrix)
            inverse = matrix.T
            group_scales = torch.ones_like(self.sizes)
            if self._learns_scales:
                group_scales = (torch.exp(2.0 * place.free) + _LEAST_SCALE**2).sqrt()
        else:
            variances = self._variances(place.matrix)
            units = self._of_filters(variances.sqrt())
            matrix = place.matrix / units[:, None]
            inverse = torch.linalg.inv(place.matrix) * units
            group_scales = (1.0 / variances + _LEAST_SCALE**2).sqrt().expand(len(self.sizes))
        filters = matrix @ (white.directions / white.deviations[:, None]) / white.scales
        mixing = white.scales[:, None] * (white.directions * white.deviations[:, None]).T @ inverse
        largest = (mixing / white.scales[:, None]).abs().argmax(dim=0)
        signs = torch.sign(mixing[largest, torch.arange(len(filters), device=largest.device)])
        arrays = (white.mean, filters * signs[:, None], mixing * signs, white.scales, group_scales)
        energy = build(arrays, self.grouping, white.noise_variance)
        return {
            "mean_": _array(energy.mean),
            "components_": _array(energy.filters),
            "mixing_": _array(energy.mixing),
            "scale_": _array(energy.feature_scales),
            "group_scales_": _array(group_scales),
            "n_components_": len(filters),
            "n_groups_": len(group_scales),
            "noise_variance_": white.noise_variance,
            "log_partition_": None if self.grouping.topography else energy.log_partition(),
            "objective_": place.local.loss,
            "architecture_": self.grouping.record(),
            "n_iter_": n_iter,
        }


def make_problem(
    rows: Rows,
    n_wanted: int | None,
    grouping: Grouping,
    tol: float,
    name: str,
    *,
    orthogonal: bool = True,
    batch_size: int | None = None,
) -> SourceProblem:
    """White rows from rows, and the groups of their sources."""
    n_filters = _count(rows.shape[1], n_wanted, grouping)
    white = white_rows(rows, n_filters, name, hold=batch_size is None)
    n = len(white.directions)
    if grouping.topography and n != grouping.topography[0] * grouping.topography[1]:
        raise ValueError(
            f"topography={grouping.topography} needs as many directions with variance as it has "
            f"cells, but X has {n}: choose a smaller map."
        )
    sizes = group_sizes(n, grouping.group_size, grouping.topography).to(rows.device)
    return SourceProblem(white, grouping, sizes, tol, orthogonal, batch_size)


def _count(n_features: int, n_wanted: int | None, grouping: Grouping) -> int:
    if grouping.topography:
        n_cells = grouping.topography[0] * grouping.topography[1]
        if n_wanted not in (None, n_cells):
            raise ValueError(
                f"n_components={n_wanted} does not fill topography={grouping.topography}, a map of "
                f"{n_cells} filters: leave n_components at None."
            )
        if n_cells > n_features:
            raise ValueError(
                f"topography={grouping.topography} is a map of {n_cells} filters, more than the "
                f"{n_features} features: choose a smaller map."
            )
        return n_cells
    if n_wanted is not None and n_wanted > n_features:
        raise ValueError(
            f"n_components={n_wanted} is larger than the number of features, {n_features}: choose "
            f"n_components between 1 and {n_features}, or None for all."
        )
    return n_features if n_wanted is None else int(n_wanted)


def build(
    arrays: Iterable[Tensor], grouping: Grouping, noise_variance: float
) -> IndependentSubspaceEnergy:
    """The energy of mean, filters, mixing, scales of the features, and of the groups."""
    mean, filters, mixing, feature_scales, group_scales = arrays
    return IndependentSubspaceEnergy(
        mean,
        filters,
        mixing,
        feature_scales,
        group_scales,
        grouping.density,
        grouping.group_size,
        grouping.topography,
        noise_variance,
    )


def untrained(given: dict[str, Any], grouping: Grouping) -> dict[str, Any]:
    """What follows from filters that were given."""
    n_components, n_features = np.shape(given["components_"])
    noise = float(given.get("noise_variance_", 0.0))
    if n_components < n_features and not noise > 0:
        raise ValueError(
            f"{n_components} filters leave {n_features - n_components} directions to noise: give "
            "its noise_variance, greater than 0."
        )
    names = ("mean_", "components_", "mixing_", "scale_", "group_scales_")
    arrays = [torch.from_numpy(np.array(given[name], dtype=np.float64)) for name in names]
    log_partition = None
    if grouping.topography is None:
        log_partition = build(arrays, grouping, noise).log_partition()
    return {
        "n_components_": n_components,
        "n_groups_": len(arrays[-1]),
        "noise_variance_": noise,
        "log_partition_": log_partition,
        "architecture_": grouping.record(),
        "n_iter_": 0,
    }


def _array(tensor: Tensor) -> Any:
    return tensor.cpu().numpy().copy()
