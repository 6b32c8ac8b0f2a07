"""log Z of a model and what depends on it: scores, the density check, sampling, chain diagnostics.

Estimators call these functions; none is a base class. The method depends on what the energy offers:

=================================  ============================================================
the energy has                     log Z is
=================================  ============================================================
``weights``, ``visible_field``     summed over the states of the smaller layer, or annealed along
                                   a tempered path by block Gibbs
``tempered_path(base, variance)``  annealed along a path of its own (``inference.tempered_path``)
``couplings``, ``classes``         annealed along one of bits on a graph (``pairwise_path``)
``reference`` and none of those    annealed from that density by Hamiltonian Monte Carlo
``summed_units``                   summed by its ``exact_log_partition()`` over so many units
=================================  ============================================================
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._checks import check_count
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows, resolve_device
from sklebm._shell.state import Array, Scalar, Spec
from sklebm._shell.warning import warn
from sklebm.inference import ais, enumeration, partition
from sklebm.inference.hamiltonian_path import HamiltonianPath, from_nearest, nearest_base
from sklebm.inference.pairwise_path import PairwisePath
from sklebm.inference.partition import Effort, Partition
from sklebm.inference.tempered_path import TemperedPath
from sklebm.summable import alternates, keep, n_summed_units, need_summable
from sklebm.training.diagnosis import warn_of_collapsed_chains, warn_of_disagreement
from sklebm.training.state import import_objective

__all__ = ["alternates", "keep", "n_summed_units", "need_summable"]

METHODS = ("auto", "exact", "ais", "bridge")
PartitionMethod = Literal["auto", "exact", "ais", "bridge"]
#: Up to this many units, ``"auto"`` sums over all their states.
AUTO_EXACT_UNITS = 20
#: State that a model with a normaliser declares in addition to its parameters.
STATE: Spec = {
    "log_partition_": Scalar(float, optional=True),
    "log_partition_interval_": Array("f", (2,), optional=True),
}
# Annealing steps per training row that cost at most half as much as training: block Gibbs in
# double precision, or trajectories of five gradients.
_STEPS_PER_ROW, _TRAJECTORIES_PER_ROW = 0.2, 0.04
# This many multiplications take a fraction of a second, however short training was.
_SMALL_WORK = 1e8
_FEWEST_CHAINS, _FEWEST_TEMPERATURES = 10, 16
_CHECK_ROWS = 2000


class DensityCheck(NamedTuple):
    """Test whether log p can be a normalised log density, using draws from a known density q.

    Averaged over draws from q, no log density exceeds log q (Gibbs' inequality).

    Attributes
    ----------
    mean_log_density : float
        Mean of log p over draws of q (nats).
    reference_log_density : float
        Mean of log q over the same draws (nats).
    standard_error : float
        Standard error of the difference between the two.
    passed : bool
        Whether the difference is at most three standard errors. False proves that log Z is too
        low; True proves nothing.
    """

    mean_log_density: float
    reference_log_density: float
    standard_error: float
    passed: bool


# ---------------------------------------------------------------------- where rows are


def centred_mean(state: Mapping[str, Any]) -> Any:
    """Mean of the training rows in the energy's coordinates."""
    mean, offset = state["feature_means_"], state.get("offset_")
    return mean if offset is None else mean - offset


def set_origin(model: Any, rows: Rows, *, reset: bool) -> Rows:
    """Rows of a fitted model, relative to ``offset_`` as its energy sees them."""
    offset = None if reset else getattr(model, "offset_", None)
    rows.origin = None if offset is None else torch.from_numpy(offset)
    return rows


def training_origin(model: Any, start: Any, *, kept: bool) -> torch.Tensor | None:
    """The offset that training subtracts: the mean of the rows, or that of the fit it continues.

    In single precision a large offset would swamp the rows.
    """
    if not kept:
        return start.means  # type: ignore[no-any-return]
    offset = getattr(model, "offset_", None)
    return None if offset is None else torch.from_numpy(offset)


def from_origin(model: Any, v: torch.Tensor) -> torch.Tensor:
    """Rows in the coordinates of X, from the energy's coordinates."""
    offset = getattr(model, "offset_", None)
    return v if offset is None else (v.double() + torch.from_numpy(offset).to(v.device)).to(v.dtype)


def path_energy(model: Any, energy: Any, state: Mapping[str, Any]) -> tuple[Any, Any]:
    """The energy for log Z and the mean of its visible units: ``_path_energy`` may add layers."""
    mean = centred_mean(state)
    return model._path_energy(energy, mean) if hasattr(model, "_path_energy") else (energy, mean)


# ---------------------------------------------------------------------- what fit ends with


def unknown() -> dict[str, Any]:
    """The attributes if log Z is unknown."""
    return {"log_partition_": None, "log_partition_interval_": None}


def complete(
    model: Any, energy: Any, state: Mapping[str, Any], seed: int, *, learnt: float | None = None
) -> dict[str, Any]:
    """Complete the ``state`` of ``fit``: check the chains, compute log Z as ``log_partition`` asks.

    ``learnt`` is the log Z estimated by the objective; "auto" keeps it if it passes the check.
    """
    energy, mean = path_energy(model, energy, state)
    chains = _chains(model, energy, state, seed)
    if chains is not None:
        # Of the rows alone: ``mean`` may hold the units of deeper layers, too.
        _look_at_chains(type(model).__name__, energy, chains, centred_mean(state))
    method = model.log_partition
    if method is None:
        return {**state, **unknown()}
    if learnt is not None and method == "auto":
        check = _check(energy, mean, learnt, seed)
        if check.passed:
            return {**state, "log_partition_": learnt, "log_partition_interval_": None}
        warn(
            f"{type(model).__name__}: the learnt log Z = {learnt:.4g} is too low for a density, "
            "and is replaced by an annealed estimate: draws from a Gaussian have log p = "
            f"{check.mean_log_density:.4g} on average, above their own log density of "
            f"{check.reference_log_density:.4g}. Call estimate_log_partition() for a better "
            "estimate, or set log_partition=None if you only need transform."
        )
    effort = Effort()
    if method == "auto":
        effort = _affordable(energy, _rows_seen(state))
    return {**state, **compute(model, energy, mean, method, seed, effort, chains)}


def _rows_seen(state: Mapping[str, Any]) -> int:
    """Total number of rows processed in training, over all epochs."""
    return int(state["n_samples_seen_"]) * max(1, int(state["n_iter_"]))


def _affordable(energy: Any, n_rows_seen: int) -> Effort:
    """Annealing effort that costs at most half of the training, or a fraction of a second.

    It is counted in rows, not seconds, so that repeated fits agree.
    """
    standard, by_gradients = Effort(), not alternates(energy)
    work = sum(p.numel() for p in energy.parameters()) * (20 if by_gradients else 2)
    per_row = _TRAJECTORIES_PER_ROW if by_gradients else _STEPS_PER_ROW
    n_moves = max(per_row * n_rows_seen, _SMALL_WORK / work)
    # Forward, backward, the ladders in between, and the pilot runs.
    per_way = n_moves / 4.0
    n_chains = min(standard.n_chains, max(_FEWEST_CHAINS, int(math.sqrt(per_way / 4.0))))
    n_temperatures = min(1000, max(_FEWEST_TEMPERATURES, int(per_way / n_chains)))
    doublings = standard.doublings if n_temperatures == 1000 else 0
    return Effort(n_chains, n_temperatures, standard.n_steps, doublings)


def _chains(model: Any, energy: Any, state: Mapping[str, Any], seed: int) -> Any:
    """Current rows of the objective's persistent chains, if it has any."""
    device = next(energy.parameters()).device
    objective = model._objective(energy)
    kept = import_objective(objective, state["training_state_"], device)
    if not kept:
        return None
    generator = make_generator(seed, "chains", device=device)
    with torch.no_grad():
        return objective.chains(kept, copy.deepcopy(energy).float(), generator)


def _look_at_chains(name: str, energy: Any, chains: Any, mean: Any) -> None:
    """Compare the spread of the chains with that of the rows, if the latter is known."""
    if alternates(energy):
        implied = energy.visible.implied_variance(mean)
        if implied is None:
            return
        of_rows = float(implied.sum())
    else:  # its reference has the covariance of the rows
        of_rows = len(mean) * float(energy.reference.scale().square())
    visible = chains[:, : len(mean)]  # hidden units or deeper layers may follow them
    of_chains = float(visible.double().var(dim=0, correction=0).sum())
    warn_of_collapsed_chains(name, of_chains, of_rows, len(chains))


# ---------------------------------------------------------------------- log Z


def path_to(
    energy: Any, mean: Any, generator: torch.Generator, rows: torch.Tensor | None = None
) -> Any:
    """A path from a known density to the energy, chosen by what the energy offers.

    ``mean`` is that of the training rows; ``rows`` are draws from the model, if available.
    """
    if not alternates(energy):
        return HamiltonianPath(energy, nearest_base(energy, generator, covering=True), generator)
    base = torch.as_tensor(mean, device=generator.device).double()
    on_graph = hasattr(energy, "classes")
    own = partial(PairwisePath.to if on_graph else TemperedPath, energy)
    make = getattr(energy, "tempered_path", own)
    if not hasattr(energy.visible, "log_variance"):
        # Bits have none, and units with covariances keep their precision along the path.
        return make(energy.visible.bias_for(base), None)
    variance = torch.exp(energy.visible.log_variance.detach())
    if rows is None and bool(torch.isfinite(variance).all()):
        # Chains that start with the variance of the units show how far the model extends.
        rows = ais.forward(make(base, None), generator, n_chains=50, n_temperatures=50).rows
    if rows is not None:
        square = (rows.to(base) - base).square().mean(dim=0)
        variance = torch.maximum(variance, square.nan_to_num(0.0))
    return make(base, variance.expand_as(base))


def compute(
    model: Any,
    energy: Any,
    mean: Any,
    method: str,
    seed: int,
    effort: Effort,
    chains: torch.Tensor | None = None,
) -> dict[str, Any]:
    """log Z and its interval in float64, as fitted attributes."""
    double = copy.deepcopy(energy).double().eval()
    n_units = n_summed_units(double)
    if method == "exact" and n_units is None:
        raise ValueError(
            f'{type(model).__name__} has no exact log partition function: use method="ais".'
        )
    if n_units is not None and (
        method == "exact" or (method == "auto" and n_units <= AUTO_EXACT_UNITS)
    ):
        with torch.no_grad():
            two_layers = hasattr(double, "visible_field")  # over more units than a deeper energy
            summed = (
                enumeration.log_partition(double) if two_layers else double.exact_log_partition()
            )
        return _known(float(summed))
    device = next(double.parameters()).device
    generator = make_generator(seed, "annealing", device=device)
    with torch.no_grad():
        path = path_to(double, mean, generator, chains)
        if not math.isfinite(path.log_z0()):
            return _known(math.inf)
        found = partition.estimate(path, generator, effort, method=method, rows=chains)
        found = _raised(found, from_nearest(path, generator), generator)
    if not found.settled:
        number = f"{type(model).__name__}: log Z"
        warn_of_disagreement(number, found.low, found.high, "chains or temperatures")
    return {
        "log_partition_": found.value,
        "log_partition_interval_": np.array([found.low, found.high]),
    }


def _known(value: float) -> dict[str, Any]:
    """The attributes if nothing needs to be estimated."""
    return {"log_partition_": value, "log_partition_interval_": np.array([value, value])}


def _raised(found: Partition, path: Any, generator: torch.Generator) -> Partition:
    """The estimate, raised to the lower bound from Gibbs' inequality if necessary."""
    bound, error = _gibbs_bound(path, generator)
    least = bound - 3.0 * error
    if found.value >= least or not math.isfinite(least):
        return found
    return Partition(bound, min(found.low, least), max(found.high, bound + 3.0 * error), False)


def _gibbs_bound(path: Any, generator: torch.Generator) -> tuple[float, float]:
    """A lower bound on log Z, E_q[log p* - log q] over draws from the base, and its error."""
    x = path.draw_base(_CHECK_ROWS, generator)
    gaps = path.log_z0() + path.log_weight(x, path.observe(x), 0.0, 1.0)
    return float(gaps.mean()), float(gaps.std()) / math.sqrt(len(gaps))


# ---------------------------------------------------------------------- Gibbs' inequality


def check_density(model: Any, random_state: RandomState) -> DensityCheck:
    """Check the density of a fitted model; raise ValueError if log Z is unknown."""
    check_is_fitted(model)
    need_log_partition(model, "check_density compares log densities and")
    energy = model._energy(resolve_device(model.device, None, model._prefers_cuda))
    energy, mean = path_energy(model, energy, vars(model))
    return _check(energy, mean, float(model.log_partition_), draw_seed(random_state))


def _check(energy: Any, mean: Any, log_z: float, seed: int) -> DensityCheck:
    double = copy.deepcopy(energy).double().eval()
    device = next(double.parameters()).device
    generator = make_generator(seed, "density check", device=device)
    with torch.no_grad():
        path = from_nearest(path_to(double, mean, generator), generator)
        x = path.draw_base(_CHECK_ROWS, generator)
        log_q = path.log_base_density(x)
        # States of the path may hold hidden units too; the inequality is then that of all units.
        log_p = log_q + path.log_z0() + path.log_weight(x, path.observe(x), 0.0, 1.0) - log_z
        gaps = log_p - log_q
        error = float(gaps.std()) / math.sqrt(len(gaps))
        passed = bool(float(gaps.mean()) <= 3.0 * error)
        return DensityCheck(float(log_p.mean()), float(log_q.mean()), error, passed)


# ---------------------------------------------------------------------- what methods answer


def need_log_partition(model: Any, what: str) -> None:
    """Raise ValueError if log Z is unknown, and explain how to compute it."""
    if model.log_partition_ is None:
        raise ValueError(
            f"{what} needs the partition function, which is unknown (log_partition=None, "
            "partial_fit changed the parameters, or they were given): call "
            "estimate_log_partition() first, or compare free energies with score_samples."
        )


def score_samples(model: Any, X: Any) -> Any:
    """-F(x) - log Z, or -F(x) while log Z is unknown."""
    check_is_fitted(model)
    log_z = model.log_partition_ or 0.0
    return model._map_rows(X, lambda energy, x: -energy.free_energy(x) - log_z, "score_samples")


def pessimistic_mean(model: Any, X: Any) -> float:
    """Mean log-likelihood at the upper end of the interval of log Z, if there is one."""
    interval = model.log_partition_interval_
    log_z = model.log_partition_ if interval is None else interval[1]
    return -float(model.free_energy(X).mean()) - float(log_z)


def estimate(
    model: Any,
    method: str,
    n_chains: int,
    n_temperatures: int | None,
    n_steps: int,
    random_state: RandomState,
) -> dict[str, Any]:
    """log Z of a fitted model as fitted attributes; arguments are checked."""
    check_is_fitted(model)
    if method not in METHODS:
        names = ", ".join(f'"{name}"' for name in METHODS[:-1])
        raise ValueError(f'method={method!r} must be one of {names} and "{METHODS[-1]}".')
    counts = {"n_chains": n_chains, "n_temperatures": n_temperatures, "n_steps": n_steps}
    for name, value in counts.items():
        if value is not None or name != "n_temperatures":
            # Each half of the chains is a ladder of its own, and two make an error.
            least = 4 if (name, method) == ("n_chains", "bridge") else 2
            check_count(value, name, least=least)
    energy = model._energy(resolve_device(model.device, None, model._prefers_cuda))
    energy, mean = path_energy(model, energy, vars(model))
    seed = draw_seed(random_state)
    chains = _chains(model, energy, vars(model), seed)
    effort = Effort(n_chains, n_temperatures, n_steps)
    return compute(model, energy, mean, method, seed, effort, chains)
