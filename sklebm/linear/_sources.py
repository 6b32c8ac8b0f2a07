"""How groups of sources are fitted: white rows, rotations of them, and what a fit leaves behind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.rows import Rows
from sklebm._shell.warning import warn
from sklebm.energies import IndependentSubspaceEnergy
from sklebm.energies.independent_subspaces import group_sizes, pool, spread
from sklebm.energies.source_densities import SourceDensity
from sklebm.inference.grouping import grouped_order, square_correlations
from sklebm.inference.orthogonal import (
    Local,
    Place,
    advance,
    begin,
    symmetric_orthogonal,
)
from sklebm.iterative import Draw
from sklebm.linear._base import resolution_of
from sklebm.linear._moments import covariance_of, empty_moments, stream_moments
from sklebm.linear._spectrum import spectrum_of

# Directions without variance get so much of that of a standardised feature, as in whiteners.
_LEAST_NOISE = 1e-6
# A group that is silent in most rows has a large density there, but none without bound.
_LEAST_SCALE = 1e-3
# Independent components that groups begin with.
_START_STEPS, _START_TOL = 100, 1e-3
_CHUNK = 8192  # rows whose sources stand in memory at once


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


class White(NamedTuple):
    """Rows by their principal axes: x = m + c * (V' L^1/2 z + noise)."""

    rows: Tensor
    mean: Tensor
    scales: Tensor
    directions: Tensor
    deviations: Tensor
    noise_variance: float


class SourceProblem(NamedTuple):
    """White rows, and the energy whose mean is to be least."""

    white: White
    grouping: Grouping
    sizes: Tensor
    tol: float

    def start(self, draw: Draw) -> Place:
        """Random filters, orthogonalised: they depend on the plane and not on its axes.

        Groups begin as independent components, those together whose squares go together: of
        random filters some would end in the wrong group, a local minimum.
        """
        directions = self.white.directions.cpu()
        noise = torch.randn(directions.shape, generator=draw("init"), dtype=torch.float64)
        orthogonal = symmetric_orthogonal(noise @ directions.T).to(self.white.rows.device)
        if self.grouping.topography is not None:
            return begin(self.evaluate, orthogonal, torch.zeros_like(self.sizes[:0]))
        if self.grouping.group_size > 1:
            single = self._replace(
                grouping=self.grouping._replace(group_size=1),
                sizes=torch.ones_like(orthogonal[0]),
            )
            place = begin(single.evaluate, orthogonal, torch.zeros_like(single.sizes))
            for _ in range(_START_STEPS):
                place = advance(single.evaluate, place, _START_TOL)
                if place.settled:
                    break
            sources = self.white.rows @ place.orthogonal.T
            order = grouped_order(square_correlations(sources), self.grouping.group_size)
            orthogonal = place.orthogonal[order.to(orthogonal.device)]
        return begin(self.evaluate, orthogonal, torch.zeros_like(self.sizes))

    def step(self, place: Place) -> Place:
        """One step of L-BFGS."""
        return advance(self.evaluate, place, self.tol)

    def evaluate(self, orthogonal: Tensor, log_scales: Tensor) -> Local:
        """The mean of F + sum_g |g| log b_g over the rows, with its derivatives."""
        density, group_size, topography = self.grouping
        n_rows, n = self.white.rows.shape
        learnt = topography is None
        squares, share = torch.ones_like(self.sizes), torch.ones_like(self.sizes)
        if learnt:
            share = torch.exp(2.0 * log_scales)
            squares = share + _LEAST_SCALE**2
            share = share / squares
        loss, moment = 0.0, torch.zeros_like(orthogonal)
        bend = torch.zeros(n, dtype=torch.float64, device=orthogonal.device)
        free, free_bend = torch.zeros_like(squares), torch.zeros_like(squares)
        for z in torch.split(self.white.rows, _CHUNK):
            s = z @ orthogonal.T
            q = pool(s.square(), group_size, topography) / squares
            first, second = density.slopes(q, self.sizes)
            loss += float(density.energy(q, self.sizes).sum())
            weight = 2.0 * spread(first / squares, group_size, n, topography)
            moment += (weight * s).T @ s
            along = spread(second / squares.square(), group_size, n, topography)
            bend += (weight + 4.0 * s.square() * along).sum(dim=0)
            free -= (2.0 * first * q).sum(dim=0)
            free_bend += (4.0 * (first + second * q) * q).sum(dim=0)
        moment, bend, free, free_bend = (part / n_rows for part in (moment, bend, free, free_bend))
        own = bend - moment.diagonal()  # exactly so for independent sources of unit variance
        rotation_bend = own[:, None] + own
        loss /= n_rows
        if not learnt:
            return Local(loss, moment, rotation_bend, log_scales, log_scales)
        loss += 0.5 * float(self.sizes @ squares.log())
        free = (free + self.sizes) * share
        return Local(loss, moment, rotation_bend, free, free_bend * share.square())

    def report(self, place: Place) -> dict[str, float]:
        """The objective, for ``verbose``."""
        return {"objective": place.local.loss}

    def state(self, place: Place, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute."""
        white = self.white
        orthogonal = symmetric_orthogonal(place.orthogonal)
        filters = orthogonal @ (white.directions / white.deviations[:, None]) / white.scales
        mixing = (orthogonal @ (white.directions * white.deviations[:, None]) * white.scales).T
        largest = (mixing / white.scales[:, None]).abs().argmax(dim=0)
        signs = torch.sign(mixing[largest, torch.arange(len(filters), device=largest.device)])
        group_scales = torch.ones_like(self.sizes)
        if self.grouping.topography is None:
            group_scales = (torch.exp(2.0 * place.free) + _LEAST_SCALE**2).sqrt()
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
    rows: Rows, n_wanted: int | None, grouping: Grouping, tol: float, name: str
) -> SourceProblem:
    """White rows from rows, and the groups of their sources."""
    white = _whiten(rows, _count(rows.shape[1], n_wanted, grouping), name)
    n = len(white.directions)
    if grouping.topography and n != grouping.topography[0] * grouping.topography[1]:
        raise ValueError(
            f"topography={grouping.topography} needs as many directions with variance as it has "
            f"cells, but X has {n}: choose a smaller map."
        )
    sizes = group_sizes(n, grouping.group_size, grouping.topography).to(rows.device)
    return SourceProblem(white, grouping, sizes, tol)


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


def _whiten(rows: Rows, n_wanted: int, name: str) -> White:
    """Columns in units of their deviation, then by the principal axes of their correlations."""
    n_features = rows.shape[1]
    moments = stream_moments(rows, empty_moments(n_features, rows.device))
    covariance = covariance_of(moments)
    if not bool(torch.isfinite(covariance).all()):
        raise FloatingPointError(
            f"{name}.fit: squares of X overflow. Scale X, for example with StandardScaler, and "
            "check for outliers. The estimator was left as it was."
        )
    variances = covariance.diagonal()
    moving = variances > 0
    usual = variances[moving].mean() if bool(moving.any()) else torch.ones_like(variances[0])
    scales = torch.where(moving, variances, usual).sqrt()
    correlation = covariance / scales[:, None] / scales
    spectrum = spectrum_of(correlation, resolution_of(rows))
    rank = int(np.count_nonzero(spectrum.variances))
    n = max(min(n_wanted, rank), 1)  # one filter at least, of rows that are all equal too
    if n_wanted > rank:
        warn(
            f"X varies in {rank} directions only, so {name} has {n} filters instead of {n_wanted}: "
            "columns are constant or combinations of others, or there are too few rows."
        )
    noise = 0.0
    if n < n_features:
        noise = max(spectrum.rest(n) / (n_features - n), _LEAST_NOISE)
    kept = np.maximum(spectrum.variances[:n], 0.0 if rank else _LEAST_NOISE)
    directions = torch.from_numpy(np.ascontiguousarray(spectrum.directions[:n])).to(rows.device)
    deviations = torch.from_numpy(np.sqrt(kept)).to(rows.device)
    whitening = (directions / deviations[:, None] / scales).T
    parts = [
        (rows[part].double() - moments.mean) @ whitening for part in rows.chunks(3 * n_features)
    ]
    return White(torch.cat(parts), moments.mean, scales, directions, deviations, noise)


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
