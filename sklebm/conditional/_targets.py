"""Real targets of conditional energies: the linear part, their coordinates, draws, intervals."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._checks import check_count
from sklebm._shell.columns import replace_targets
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.scaling import measure_spread
from sklebm._shell.warning import warn
from sklebm.energies.targets import EnergyGivenRow
from sklebm.inference import target_density
from sklebm.inference.langevin import MALA
from sklebm.inference.samplers import run

_LEAST_REACH = 8.0
#: Targets this many times as far from the linear part as nine tenths of all are gross, if they are
#: few: 16 standard deviations of a Gaussian. Of a log-normal 2 in 10,000 are as far.
_FAR, _FEW, _ROUNDS = 10.0, 0.02, 20
# Chosen among 1, 2, 3 and 5 by the log density of new rows of generated tables of 120 and 400 rows
# (bench_energy_regressor.py --penalties); hardly any penalty leaves networks certain of noise.
_ROWS_OF_PENALTY = 3.0
_CHAIN_STEPS, _ADAPTATION, _CANDIDATES = 300, 0.1, 16
BLOCK = 16  # rows that share a generator of draws


def residual_rows(
    model: Any, rows: Rows, known: dict[str, Any], *, goes_on: bool, chunk: bool
) -> tuple[Rows, dict[str, Any]]:
    """Rows whose targets are g, and what follows from the targets: the linear part, the reach."""
    y = rows.columns["target"].double()
    still = (y == y[0]).all(dim=0)
    if chunk and not goes_on and bool(still.all()):
        raise ValueError(
            f"{type(model).__name__} takes the units of y from the first chunk of partial_fit, in "
            "which y does not vary: pass a first chunk of many rows, with different targets."
        )
    alpha = _penalty(model, rows, model.n_samples_seen_ if chunk and goes_on else 0)
    if goes_on:
        need_width(y, model)
        coef, intercept = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
        coef, intercept = coef.to(y.device), intercept.to(y.device)
    else:
        coef, intercept = _ridge(rows, y, alpha)
    residuals, far = _drawn_in(rows, _residuals(rows, y, coef, intercept), model)
    for _ in range(0 if goes_on else _ROUNDS):
        if not bool(far.any()):
            break
        # Their pull on the linear part is limited as well: as if they lay where they are drawn to.
        moved = y - _residuals(rows, y, coef, intercept) + residuals
        coef, intercept = _ridge(rows, moved, alpha)
        residuals, far = _drawn_in(rows, _residuals(rows, y, coef, intercept), model)
    if bool(far.any()):
        n_far = int(far.any(dim=1).sum())
        warn(
            f"{type(model).__name__}: {n_far} of {len(y)} targets lie more than {_FAR:g} times as "
            "far from the linear part as 90 % of all targets. Training moves them to that "
            "distance: correct or remove wrong targets, or transform y, for example to its "
            "logarithm.",
            UserWarning,
        )
    if goes_on:
        scale = torch.from_numpy(model.residual_scale_).to(y.device)
    else:
        scale = _weighted(rows, residuals.square()).sqrt()
        # Residuals of rounding, as of two rows or of a constant target, have no scale of their own.
        spread = _weighted(rows, (y - _weighted(rows, y)).square()).sqrt()
        least = torch.maximum(1e-6 * spread, 1e-9 * y.abs().amax(dim=0))
        scale = torch.maximum(scale, torch.where(least > 0, least, 1.0))
        if chunk:  # a column that does not vary in the first chunk keeps the unit that y has
            scale = torch.where(still, 1.0, scale)
    g = residuals / scale
    reach = max(_LEAST_REACH, float(g.abs().max()) + 2.0)
    found = replace_targets(rows, g.float())
    if goes_on:
        return found, {name: getattr(model, name) for name in model._of_targets} | {"alpha_": alpha}
    return found, {
        "alpha_": alpha,
        "coef_": coef.cpu().numpy(),
        "intercept_": intercept.cpu().numpy(),
        "residual_scale_": scale.cpu().numpy(),
        "reach_": reach,
        **known,
    }


def need_width(y: torch.Tensor, model: Any) -> None:
    """Refuse other numbers of targets than those of the fitted model."""
    if y.shape[1] != len(model.intercept_):
        raise ValueError(
            f"y has {y.shape[1]} numbers for each row, but the fitted {type(model).__name__} that "
            f"learning continues from has {len(model.intercept_)}: pass as many, or call fit with "
            "warm_start=False."
        )


def _penalty(model: Any, rows: Rows, n_before: float) -> float:
    """``alpha``, or what a few rows of a penalty of their own are worth among these and others."""
    if model.alpha != "auto":
        return float(model.alpha)
    weight = rows.columns.get("weight")
    n_rows = float(len(rows) if weight is None else weight.sum())
    return _ROWS_OF_PENALTY / (n_rows + n_before)


def _residuals(
    rows: Rows, y: torch.Tensor, coef: torch.Tensor, intercept: torch.Tensor
) -> torch.Tensor:
    """y - m(x), (n, m)."""
    found = torch.empty_like(y)
    for part in rows.chunks(3 * rows.shape[1]):
        found[part] = y[part] - torch.addmm(intercept, rows[part].double(), coef.T)
    return found


def _drawn_in(rows: Rows, residuals: torch.Tensor, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Residuals, of which the few gross ones are moved to a limit, and which these are.

    One number that is far from all others would set the units of all of them: what a network sees
    of the others, and the points of its integrals, would be too coarse to learn anything.
    """
    far = torch.zeros_like(residuals, dtype=torch.bool)
    if not model._has_network():  # linear regression, to the last bit
        return residuals, far
    size = residuals.abs()
    ordered, order = size.sort(dim=0)
    weight = rows.columns.get("weight")
    weight = size.new_ones(len(size)) if weight is None else weight.double()
    below = weight[order].cumsum(dim=0)
    # Sums of weights and of repetitions agree but for rounding.
    place = (below < (0.9 - 1e-9) * weight.sum()).sum(dim=0, keepdim=True)
    limit = _FAR * ordered.gather(0, place.clamp(max=len(size) - 1))
    far = (size > limit) & (limit > 0.0)
    far &= _weighted(rows, far.double()) <= _FEW
    return torch.where(far, residuals.sign() * limit, residuals), far


def _weighted(rows: Rows, values: torch.Tensor) -> torch.Tensor:
    """Weighted means of the columns of the values."""
    weight = rows.columns.get("weight")
    return values.mean(dim=0) if weight is None else weight @ values / weight.sum()


def _ridge(rows: Rows, y: torch.Tensor, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Slopes (m, d) and intercepts (m,) of ridge regression on standardised features."""
    scaling = measure_spread(rows).scaling(common=False)
    d, weight = rows.shape[1], rows.columns.get("weight")
    weight = y.new_ones(len(rows)) if weight is None else weight.double()
    offset, scale = (torch.from_numpy(a).to(y.device) for a in (scaling.offset, scaling.scale))
    chunks = rows.chunks(4 * d)
    total, mean = weight.sum(), y.new_zeros(d)
    for part in chunks:
        mean += weight[part] @ ((rows[part].double() - offset) / scale)
    mean = mean / total
    y_mean = weight @ y / total
    gram, cross = y.new_zeros((d, d)), y.new_zeros((d, y.shape[1]))
    for part in chunks:
        u = (rows[part].double() - offset) / scale - mean
        weighted = u * weight[part, None]
        gram += weighted.T @ u
        cross += weighted.T @ (y[part] - y_mean)
    gram = gram / total
    if not bool(torch.isfinite(gram).all() and torch.isfinite(cross).all()):
        raise FloatingPointError(
            "The products of the standardised features and y overflow: values of X or y are near "
            "the largest float. Scale them, for example with StandardScaler."
        )
    # The least eigenvalue that counts: without a penalty, of columns that depend on each other, the
    # shortest solution is taken.
    values, vectors = torch.linalg.eigh(gram)
    kept = values > 1e-12 * values[-1].clamp(min=1e-300)
    inverse = torch.where(kept, 1.0 / (values + alpha).clamp(min=1e-300), 0.0)
    w = vectors @ (inverse[:, None] * (vectors.T @ (cross / total)))
    coef = (w / scale[:, None]).T
    return coef.contiguous(), y_mean - coef @ (offset + scale * mean)


def mode(energy: Any, x: torch.Tensor) -> torch.Tensor:
    """The y of lowest energy for each row, (n, m)."""
    return energy.restore(x, target_density.lowest(energy, energy.inputs(x)))  # type: ignore[no-any-return]


def log_partition(energy: Any, x: torch.Tensor) -> torch.Tensor:
    """log int exp(-F(x, y)) dy of each row, in the units of y."""
    log_z = target_density.log_partition(energy, energy.inputs(x))
    scale: torch.Tensor = energy.residual_scale
    return log_z + scale.log().sum()


def draw_targets(
    model: Any, X: Any, n_samples: int, random_state: RandomState, of_block: Any = None
) -> Any:
    """Draws from p(y | x) by ``of_block``; see ``EnergyRegressor.sample``."""
    of_block = of_block or _of_block
    check_is_fitted(model)
    check_count(n_samples, "n_samples")
    seed = draw_seed(random_state)

    def draw(energy: Any, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        u, place = energy.inputs(x), index[:, 0].long()
        parts = []
        for block in range(int(place[0]) // BLOCK, int(place[-1]) // BLOCK + 1):
            here = place // BLOCK == block
            # The numbers of a whole block, whichever of its rows are there: chunks do not matter.
            generator = make_generator(seed, "draws", index=block, device=x.device)
            parts.append(of_block(energy, u[here], place[here] % BLOCK, n_samples, generator))
        g: torch.Tensor = energy.restore(x, torch.cat(parts))
        return g[:, :, 0] if model.y_dimensions_ == 1 else g

    return model._map_rows(X, draw, "sample", beside=_row_numbers)


def _row_numbers(rows: Rows) -> Rows:
    return Rows(np.arange(len(rows), dtype=np.float64)[:, None], torch.device("cpu"))


def _of_block(
    energy: Any, u: torch.Tensor, place: torch.Tensor, n_samples: int, generator: torch.Generator
) -> torch.Tensor:
    """Draws of g (n, n_samples, m) for the rows at these places of a block."""
    if energy.n_outputs == 1:
        uniform = u.new_empty((BLOCK, n_samples)).uniform_(generator=generator)
        grid = target_density.integrate(energy, u)
        return target_density.draws(grid, uniform[place])[:, :, None]
    rows = u.new_zeros((BLOCK, u.shape[1]))
    rows[place] = u
    rows = rows.repeat_interleave(n_samples, dim=0)
    shape = (len(rows), _CANDIDATES, energy.n_outputs)
    candidates = u.new_empty(shape).normal_(generator=generator)
    # One of them for each chain, by its weight against the linear part that it is drawn from.
    log_weights = 0.5 * candidates.square().sum(dim=2)
    width = _CANDIDATES * (rows.shape[1] + 4 * _widest(energy))
    for part in row_slices(len(rows), width):
        log_weights[part] -= energy.target_energy(rows[part], candidates[part])
    noise = torch.empty_like(log_weights).exponential_(generator=generator).log()
    chosen = (log_weights - noise).nan_to_num(-math.inf).argmax(dim=1)
    g = candidates[torch.arange(len(rows), device=u.device), chosen]
    given, sampler = EnergyGivenRow(energy, rows), MALA(0.3)
    # Each chain has a step size of its own, and none depends on which rows are there.
    state = sampler.resume(g, g.new_full((len(g),), math.log(sampler.step_size)), given)
    state = run(sampler, generator, state, given, _CHAIN_STEPS // 2, _ADAPTATION)
    before = state.position
    state = run(sampler, generator, state, given, _CHAIN_STEPS // 2)
    stuck = (state.position == before).all(dim=1).view(BLOCK, n_samples)[place]
    if bool(stuck.any()):
        warn(
            f"{int(stuck.sum())} of {stuck.numel()} chains took no step in {_CHAIN_STEPS // 2}, so "
            "that their draws are near where they began: the density of y is too steep for them. "
            "Scale the rows or raise alpha.",
            UserWarning,
        )
    found: torch.Tensor = state.position.view(BLOCK, n_samples, -1)[place]
    return found


def _widest(energy: Any) -> int:
    """Numbers of the widest layer of a network, for each row."""
    network = getattr(energy, "network", None)
    shapes = [] if network is None else [int(p.shape[0]) for p in network.parameters() if p.ndim]
    return max([1, *shapes])


def intervals(model: Any, X: Any, level: Any) -> list[Any]:
    """Pieces of the sets of highest density; see ``EnergyRegressor.predict_interval``."""
    if not isinstance(level, Real) or not 0.0 < float(level) < 1.0:
        raise ValueError(f"level={level!r} must be a number between 0 and 1.")
    found: list[Any] = []

    def pieces(energy: Any, x: torch.Tensor) -> torch.Tensor:
        grid = target_density.integrate(energy, energy.inputs(x))
        for row, g in zip(x, target_density.highest_density(grid, float(level)), strict=True):
            ends = energy.restore(row[None], g.reshape(1, -1, 1))
            found.append(ends.reshape(-1, 2).cpu().numpy())
        return x[:, 0]

    model._map_rows(X, pieces, "predict_interval")
    return found
