"""How Gaussian machines start and "auto" learns; intercepts around zero or an offset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from sklebm._shell.progress import Progress
from sklebm._shell.random import make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.state import first_broken
from sklebm.boltzmann._base import BoltzmannEstimator
from sklebm.energies import Bernoulli, Gaussian, GaussianBilinearEnergy
from sklebm.objectives import MaximumLikelihood
from sklebm.training.batches import training_rows
from sklebm.training.start import Start

# This few rows say little about a variance, and one that starts too small makes learning diverge.
_FEW = 10
# A spread below this many rounding errors of the values counts as zero.
_ROUNDING = 8.0 * torch.finfo(torch.float64).eps
# Maximum number of hidden units, of states times rows, and of products in one evaluation of the
# exact likelihood for L-BFGS to be the default: a few tens of milliseconds.
_MOST_UNITS, _MOST_STATES, _MOST_PRODUCTS = 16, 2**21, 1e8
# A hidden unit starts on in this fraction of the rows and moves them by one standard deviation.
# Small weights on units that are on half of the time would be a saddle point for white rows.
_SHARE = 0.03
# Minimum standard deviation of a feature relative to the largest, independent of units.
_RELATIVE_FLOOR = 1e-6
_LEARNING_RATE = 0.2
# L-BFGS ends in the nearest optimum, and starts are cheap on at most this many rows.
_STARTS, _START_ROWS = 8, 2000


def decided(model: Any, rows: Rows | None) -> Any:
    """A copy of the model with "auto" resolved; ``rows`` is None for chunks."""
    exact = model.objective == "auto" and model.optimizer in ("auto", "lbfgs")
    exact = exact and model.n_gibbs_steps == 1  # more steps ask for chains
    exact = exact and rows is not None and is_quickly_summed(rows, model.n_components)
    chosen: dict[str, Any] = {}
    if model.objective == "auto":
        chosen["objective"] = "maximum_likelihood" if exact else "pcd"
    if model.optimizer == "auto":
        chosen["optimizer"] = "lbfgs" if exact else "sgd"
        if exact and model.learning_rate == "auto":
            chosen |= {"learning_rate_schedule": "constant", "_n_starts": _STARTS}
    if model.learning_rate == "auto":
        line_search = chosen.get("optimizer", model.optimizer) == "lbfgs"
        chosen["learning_rate"] = 1.0 if line_search else _LEARNING_RATE
    return model._twin({**vars(model), **chosen})


def fitted(
    model: Any, rows: Rows, progress: Progress, *, searches: bool, **data: Any
) -> dict[str, Any]:
    """Fitted attributes with "auto" resolved; by chains where line searches that it chose diverge.

    ``searches`` says whether "auto" may choose line searches.
    """
    chosen = decided(model, rows if searches else None)
    both = model.objective == model.optimizer == "auto"
    has_another = both and chosen.objective == "maximum_likelihood"
    try:
        state = BoltzmannEstimator._fit(chosen, rows, progress, **data)
        if not has_another or first_broken(state) is None:
            return state
    except FloatingPointError:
        if not has_another:
            raise
    # Line searches can leave the numbers of single precision; chains take smaller steps.
    return BoltzmannEstimator._fit(decided(model, None), rows, progress, **data)


def best_start(model: Any, start: Start, *, apart: bool = False) -> Any:
    """Of several starts the one that L-BFGS takes to the highest likelihood, on some of the rows.

    They run for an epoch at a time, and after each the better half goes on. With ``apart``, every
    second start of a GaussianRBM has units in directions that are far from each other.
    """
    device, rows = start.rows.device, start.rows
    if len(rows) > _START_ROWS:
        generator = make_generator(start.seed, "rows of starts")
        rows = rows.some(torch.randperm(len(rows), generator=generator)[:_START_ROWS])
    options = replace(model._options(start.seed), max_epochs=1, n_iter_no_change=None, verbose=0)
    batch = training_rows(rows).batch(device)

    def after_an_epoch(energies: list[Any]) -> list[Any]:
        """The energies after one more epoch, those of highest likelihood first."""
        losses = []
        for index, energy in enumerate(energies):
            try:
                model._train(energy, replace(start, rows=rows), options)
            except FloatingPointError:  # a line search that went too far: another may not
                continue
            with torch.no_grad():
                loss, _ = MaximumLikelihood().loss(energy, batch, {}, make_generator(0, "unused"))
            if math.isfinite(float(loss)):
                losses.append((float(loss), index))
        if not losses:
            raise FloatingPointError("L-BFGS diverged from every start.")
        return [energies[index] for _, index in sorted(losses)]

    energies = []
    for index in range(model._n_starts):
        generator = make_generator(start.seed, "parameters", index=index)
        if apart and index % 2:
            # Directions that are no neighbours lead to the best optimum more often.
            energy: Any = initial_energy(
                model.variance, model.n_components, rows, start.means, generator, apart=True
            )
        else:
            energy = model._initial_energy(start.rows, start.means, generator)
        energies.append(energy.to(device))
    while len(energies) > 1:
        energies = after_an_epoch(energies)[: max(1, len(energies) // 2)]
    return energies[0]


def initial_energy(
    variance: float | str,
    n_components: int,
    rows: Rows,
    means: torch.Tensor,
    generator: torch.Generator,
    *,
    apart: bool = False,
) -> GaussianBilinearEnergy:
    """The machine before training, for rows around their mean; ``apart``: see ``towards_far``."""
    if isinstance(variance, str):
        found = independent_variance(rows, means, variance == "shared")
        # Beyond this, single precision cannot hold a density; training reports it if it matters.
        found = found.clamp(1e-30, 1e30).float()
    else:
        found = torch.tensor([float(variance)])
    weights = found.sqrt() * directions(rows, means, found, n_components, generator, apart=apart)
    # A hidden unit that is on moves the mean by its weights, and is on in few rows: the share
    # of its mass is exp(c_k + w_k'w_k / 2 s^2), around the mean of the rows.
    bias = math.log(_SHARE) - 0.5 * (weights.square() / found).sum(dim=1)
    units = Gaussian(torch.zeros(len(means)), found.log(), isinstance(variance, str))
    return GaussianBilinearEnergy(units, Bernoulli(bias), weights)


def keep_above_floor(energy: Any) -> None:
    """Keep variances above a floor: that of a constant feature would fall for ever."""
    log_variance = energy.visible.log_variance.data
    log_variance.clamp_(min=log_variance.max() + 2.0 * math.log(_RELATIVE_FLOOR))


def is_quickly_summed(rows: Rows, n_units: int) -> bool:
    """Whether the exact likelihood of all rows can be computed hundreds of times in seconds."""
    if rows.is_lazy or rows.ranks.size > 1 or n_units > _MOST_UNITS:
        return False
    if len(rows) <= n_units + 1:
        # Each row can be the mode of a state, and the likelihood grows for ever as s falls.
        return False
    n_states = len(rows) + 2**n_units
    work = n_states * n_units
    return bool(work <= _MOST_STATES and work * rows.shape[1] <= _MOST_PRODUCTS)


def independent_variance(rows: Rows, means: torch.Tensor, shared: bool) -> torch.Tensor:
    """The variance of each feature, or their mean; shrunk towards the mean for few rows."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    squares = 0.0
    for part in rows.chunks(floats_per_row=3 * rows.shape[1]):
        x = rows[part].double().cpu()
        total += (x - means).square().sum(dim=0)
        squares += float(x.square().sum())
    n_rows = rows.total()
    total, squares = rows.ranks.sum(total), rows.ranks.total(squares)
    mean, square = float(total.mean()) / n_rows, squares / total.numel() / n_rows
    if mean <= _ROUNDING**2 * square:
        # For rows equal up to rounding, their squares, or one, replace the variance.
        mean, total = square or 1.0, torch.zeros_like(total)
    if shared:
        return torch.tensor([mean])
    drawn = (total + mean) / (n_rows + 1)
    return torch.where(total > 0.0, total / n_rows, drawn) if n_rows >= _FEW else drawn


def directions(
    rows: Rows,
    means: torch.Tensor,
    variance: torch.Tensor,
    n_units: int,
    generator: torch.Generator,
    *,
    apart: bool = False,
) -> torch.Tensor:
    """Unit vectors towards rows far from the mean, in standard deviations."""
    some = torch.randint(rows.total(), (10 * n_units,), generator=generator)
    gaps = (rows.ranks.take(rows, some).cpu().double() - means) / variance.sqrt()
    return towards_far(gaps, n_units, generator, apart=apart)


def towards_far(
    gaps: torch.Tensor, n_units: int, generator: torch.Generator, *, apart: bool = False
) -> torch.Tensor:
    """Unit vectors towards some of the rows ``gaps``, given relative to the mean.

    ``apart``: a direction near those chosen before is avoided.
    """
    # As in k-means++: drawn in proportion to the squared distance, or all would start in the bulk.
    chances = gaps.square().sum(dim=1).nan_to_num(posinf=1e300).clamp(1e-300, 1e300)
    directions = functional.normalize(gaps, dim=1).float()
    if apart:
        chosen = _apart(directions, chances, n_units, generator)
    else:
        chosen = torch.multinomial(chances, n_units, generator=generator)
    # Units that start at the same row, or at the mean, need noise to break the symmetry.
    noise = torch.randn(n_units, gaps.shape[1], generator=generator)
    return functional.normalize(directions[chosen] + 0.1 / gaps.shape[1] ** 0.5 * noise, dim=1)


def _apart(
    directions: torch.Tensor, chances: torch.Tensor, n_units: int, generator: torch.Generator
) -> torch.Tensor:
    """Numbers of rows drawn by their chances times the square of how far they are from others."""
    nearest, chosen = torch.full_like(chances, -1.0), []
    for _ in range(n_units):
        now = (chances * (1.0 - nearest).square()).clamp(min=1e-300)
        chosen.append(torch.multinomial(now, 1, generator=generator))
        # Rows beyond the range of numbers have no direction: training names them.
        cosine = (directions @ directions[chosen[-1][0]]).to(nearest).nan_to_num(1.0)
        nearest = torch.maximum(nearest, cosine.clamp(max=1.0))
    return torch.cat(chosen)


def around_zero(state: Mapping[str, Any]) -> dict[str, Any]:
    """Intercepts for uncentred rows, from those around ``offset_``, in double precision.

    With x = m + u, the field c + W u / s^2 is (c - W m / s^2) + W x / s^2.
    """
    offset, weights = state["offset_"], state["components_"].astype(np.float64)
    if offset is None:
        return {}
    shift = weights @ (offset * np.exp(-state["log_variance_"].astype(np.float64)))
    return {
        "intercept_visible_": state["intercept_visible_"] + offset,
        "intercept_hidden_": state["intercept_hidden_"] - shift,
    }


def around_offset(parameters: Mapping[str, torch.Tensor], offset: Any) -> dict[str, torch.Tensor]:
    """Parameters around an offset, in double precision: the inverse of ``around_zero``."""
    if offset is None:
        return dict(parameters)
    double = {name: value.double() for name, value in parameters.items()}
    shift = torch.from_numpy(offset).to(double["components_"])
    sent = double["components_"] @ (shift * torch.exp(-double["log_variance_"]))
    double["intercept_visible_"] = double["intercept_visible_"] - shift
    double["intercept_hidden_"] = double["intercept_hidden_"] + sent
    return double
