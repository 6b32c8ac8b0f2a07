"""Targets with latents: their units, the grid of latents, and where branches start."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._checks import check_count
from sklebm._shell.arrays import to_numpy
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import measure_spread
from sklebm._shell.targets import matching_targets
from sklebm.conditional._targets import residual_rows
from sklebm.energies.latent_targets import LatentTargetEnergy, grid_points
from sklebm.inference.seeding import seed_centers

_MOST_LATENTS = 10_000


def read_range(given: Any) -> tuple[float, float]:
    """The ends of ``latent_range``."""
    ends = np.asarray(given, dtype=np.float64)
    if ends.shape != (2,) or not np.isfinite(ends).all() or not ends[0] < ends[1]:
        raise ValueError(f"latent_range={given!r} must be two finite numbers, the lower one first.")
    return float(ends[0]), float(ends[1])


def need_few_latents(model: Any) -> None:
    """Refuse more latents than a minimum over all of them can take."""
    k, n_points = int(model.n_components), int(model.n_points)
    if model.latent == "branches" and k > _MOST_LATENTS:
        raise ValueError(f"n_components={k} branches are more than {_MOST_LATENTS}: lower it.")
    if model.latent == "grid" and k * math.log(n_points) > math.log(_MOST_LATENTS) + 1e-9:
        raise ValueError(
            f"A grid with n_points={n_points} and n_components={k} has more than {_MOST_LATENTS} "
            "points: lower one of them."
        )


def record_values(model: Any) -> dict[str, Any]:
    """What determines the energy beside its network."""
    low, high = read_range(model.latent_range)
    need_few_latents(model)
    return {
        "latent": str(model.latent),
        "n_latent": int(model.n_components),
        "n_points": int(model.n_points),
        "low": low,
        "high": high,
        "regularizer": str(model.regularizer) if model.latent == "grid" else "none",
        "regularization": float(model.regularization),
        "beta": float(model.beta) if math.isfinite(model.beta) else 0.0,
        "has_rows": int(model.y_dimensions_ > 0),
    }


def floats_per_row(model: Any) -> int:
    """Temporary numbers for all latents of a row."""
    record = model.architecture_
    widest = max((8, *map(int, record["hidden_sizes"])))
    n_latents = int(record["n_latent"])
    if record["latent"] == "grid":
        n_latents = int(record["n_points"]) ** n_latents
    return n_latents * (2 * widest + 4 * len(model.intercept_) + 4)


def standardised_targets(
    model: Any, rows: Rows, known: dict[str, Any], *, goes_on: bool
) -> tuple[Rows, dict[str, Any]]:
    """Rows whose targets are g, and what follows from the targets: the linear part, its scale."""
    y = rows.columns.get("target")
    if goes_on:
        if (y is None) != (model.y_dimensions_ == 0):
            given = "is no y" if y is None else "is y"
            raise ValueError(
                f"There {given}, but there was {'y' if y is None else 'none'} in the fit that "
                "learning continues from: pass the same, or set warm_start=False."
            )
        known = {name: getattr(model, name) for name in model._of_targets}
    if y is not None and (model.standardize or goes_on):
        if goes_on and not model.coef_.size:
            model = copy.copy(model)  # without a linear part, as one with slopes of zero
            model.coef_ = np.zeros((len(model.intercept_), rows.shape[1]))
        found, linear = residual_rows(model, rows, known, goes_on=goes_on)
        return found, known if goes_on else {k: v for k, v in linear.items() if k != "reach_"}
    if goes_on:
        return rows, known
    m = rows.shape[1] if y is None else y.shape[1]
    offset, scale = np.zeros(m), np.ones(m)
    if y is None and model.standardize:
        scaling = measure_spread(rows).scaling(common=False)
        offset, scale = scaling.offset.copy(), scaling.scale.copy()
    units = {"coef_": np.zeros((m, 0)), "intercept_": offset, "residual_scale_": scale}
    if y is None:
        return rows, {**units, **known}
    found = copy.copy(rows)
    found.columns = {**rows.columns, "target": y.float()}
    return found, {**units, **known}


def latent_energy(network: Any, record: Any, model: Any) -> LatentTargetEnergy:
    """The energy that a record describes, with the linear part of a model."""
    k, has_branches = int(record["n_latent"]), record["latent"] == "branches"
    latents = torch.eye(k, dtype=torch.float64)
    if not has_branches:
        latents = grid_points(k, int(record["n_points"]), record["low"], record["high"])
    linear = (model.coef_, model.intercept_, model.residual_scale_)
    return LatentTargetEnergy(
        network,
        latents,
        *(torch.from_numpy(part) for part in linear),
        regularizer=record["regularizer"],
        weight=float(record["regularization"]),
        beta=float(record["beta"]) or math.inf,
        has_branches=has_branches,
        has_rows=bool(record["has_rows"]),
    )


@torch.no_grad()
def seed_branches(energy: Any, rows: Rows, generator: torch.Generator) -> Any:
    """Start the branches at targets that lie far from each other, as k-means++ does."""
    last = energy.network[-1] if isinstance(energy.network, torch.nn.Sequential) else None
    if not energy.has_branches or not isinstance(last, torch.nn.Linear) or last.bias is None:
        return energy
    target = rows.columns.get("target")
    source = rows if target is None else Rows(target.cpu().numpy(), torch.device("cpu"))
    weight = rows.columns.get("weight")
    weight = torch.ones(len(rows)) if weight is None else weight.cpu()
    parts = source.chunks(3 * source.shape[1])
    centres = seed_centers(source, weight.double(), len(energy.latents), parts, generator)
    last.weight *= 0.1
    last.bias.copy_(centres.flatten())
    return energy


def read_latents(z: Any, X: Any, n_latent: int) -> Rows:
    """One latent for each row of X, in double precision."""
    latents = to_numpy(z).astype(np.float64)
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    if latents.shape == (n_latent,):
        latents = np.tile(latents, (n_rows, 1))
    if latents.shape != (n_rows, n_latent) or not np.isfinite(latents).all():
        raise ValueError(
            f"Latents have shape {latents.shape}, but must be finite numbers of shape "
            f"({n_rows}, {n_latent}), one for each row, or ({n_latent},), one for all."
        )
    return Rows(latents, torch.device("cpu"))


def mean_answer(energy: Any, x: torch.Tensor) -> torch.Tensor:
    """The mean answer over p(z), (n, m); of rows that are explained, that of their own latent."""
    u = energy.inputs(x)
    if energy.has_rows:
        g = torch.einsum("j,njm->nm", energy.log_prior().exp(), energy.answers(u))
    else:
        g = energy.decode(u, explanations(energy, u, u)[:, None])[:, 0]
    found: torch.Tensor = energy.restore(x, g)
    return found


def explanations(energy: Any, u: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """The latent of lowest energy, (n, k)."""
    found: torch.Tensor = energy.explain(u, g).to(u.dtype)
    return found


def with_targets(model: Any, X: Any, y: Any, function: Any, what: str) -> Any:
    """``function(energy, u, g)`` of rows with their targets; without y rows are their own."""
    check_is_fitted(model)
    name = type(model).__name__
    if not model.y_dimensions_:
        if y is not None:
            raise ValueError(f"{name} was fitted without y: {what} takes X alone.")
        return model._map_rows(X, lambda e, x: function(e, e.inputs(x), e.inputs(x)), what)
    targets = matching_targets(y, len(model.intercept_), name)
    return model._map_with_targets(
        X, targets, lambda e, x, y: function(e, e.inputs(x), e.coordinates(x, y.to(x.dtype))), what
    )


def predicted(model: Any, X: Any, z: Any) -> Any:
    """Mean answers, or those of given latents; see ``LatentVariableRegressor.predict``."""
    check_is_fitted(model)
    if z is None:
        return model._map_rows(X, mean_answer, "predict")
    latents = read_latents(z, X, int(model.architecture_["n_latent"]))

    def decoded(energy: Any, x: torch.Tensor, z: torch.Tensor) -> Any:
        return energy.restore(x, energy.decode(energy.inputs(x), z.to(x.dtype)[:, None])[:, 0])

    return model._map_rows(X, decoded, "predict", beside=latents)


def predicted_sets(model: Any, X: Any, n_answers: int | None) -> Any:
    """Answers of several latents; see ``LatentVariableRegressor.predict_set``."""
    check_is_fitted(model)
    if n_answers is not None:
        check_count(n_answers, "n_answers")

    def answers(energy: Any, x: torch.Tensor) -> Any:
        found = energy.answers(energy.inputs(x)).expand(len(x), -1, -1)
        n_latents = found.shape[1]
        if n_answers is not None:
            if n_answers > n_latents:
                raise ValueError(
                    f"n_answers={n_answers} is more than the {n_latents} latents that there are: "
                    "ask for as many at most."
                )
            place = torch.linspace(0, n_latents - 1, n_answers).round().long()
            found = found[:, place.to(found.device)]
        return energy.restore(x, found)

    return model._map_rows(X, answers, "predict_set")


def transformed(model: Any, X: Any) -> Any:
    """Latents of rows, or mean answers; see ``LatentVariableRegressor.transform``."""
    check_is_fitted(model)
    if model.y_dimensions_:
        return model._map_rows(X, mean_answer, "transform")
    return with_targets(model, X, None, explanations, "transform")


def energies(model: Any, X: Any, Z: Any, y: Any) -> Any:
    """E at given latents; see ``LatentVariableRegressor.energy``."""
    check_is_fitted(model)
    k = int(model.architecture_["n_latent"])
    latents = read_latents(Z, X, k)
    if not model.y_dimensions_:
        return model._map_rows(
            X,
            lambda e, x, z: e.energy(e.inputs(x), e.inputs(x), z.to(x.dtype)),
            "energy",
            beside=latents,
        )
    targets = matching_targets(y, len(model.intercept_), type(model).__name__)
    both = np.hstack([latents.to_numpy(), targets])

    def of_pair(e: Any, x: torch.Tensor, both: torch.Tensor) -> Any:
        z, y = both[:, :k].to(x.dtype), both[:, k:].to(x.dtype)
        return e.energy(e.inputs(x), e.coordinates(x, y), z)

    return model._map_with_targets(X, both, of_pair, "energy")


def row_scores(model: Any, X: Any) -> Any:
    """What is known of rows alone; see ``LatentVariableRegressor.score_samples``."""
    check_is_fitted(model)
    beta = model.beta_
    if model.y_dimensions_:
        return model._map_rows(X, lambda e, x: -(beta or 1.0) * e.integrated(x), "score_samples")

    def score(energy: Any, u: torch.Tensor, g: torch.Tensor) -> Any:
        return energy.log_density(u, g) if beta else -energy.target_free_energy(u, g)

    return with_targets(model, X, None, score, "score_samples")
