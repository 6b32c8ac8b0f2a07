"""Targets with latents: their units, the grid of latents, and where branches start."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._checks import check_count
from sklebm._shell.arrays import to_numpy
from sklebm._shell.columns import replace_targets
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import measure_spread
from sklebm._shell.targets import matching_targets
from sklebm.conditional._targets import BLOCK, draw_targets, need_width, residual_rows
from sklebm.energies.continuous_latents import ContinuousLatentEnergy
from sklebm.energies.latent_targets import LatentTargetEnergy, grid_points
from sklebm.inference.quasi_monte_carlo import uniform_points
from sklebm.inference.seeding import seed_centers
from sklebm.objectives.label_losses import PenalizedLoss, PenalizedNoisyLoss
from sklebm.objectives.latent_losses import FreeEnergyLoss, InferredLatentLoss, NoisyLatentLoss

_MOST_LATENTS = 10_000
N_POINTS = 512  # that stand for real latents


def read_range(given: Any) -> tuple[float, float]:
    """The ends of ``latent_range``."""
    ends = np.asarray(given, dtype=np.float64)
    if ends.shape != (2,) or not np.isfinite(ends).all() or not ends[0] < ends[1]:
        raise ValueError(f"latent_range={given!r} must be two finite numbers, the lower one first.")
    return float(ends[0]), float(ends[1])


def check_latents(model: Any) -> None:
    """Refuse more latents than a minimum over all of them can take, and settings of other kinds."""
    k, n_points = int(model.n_components), int(model.n_points)
    if model.latent == "branches" and k > _MOST_LATENTS:
        raise ValueError(f"n_components={k} branches are more than {_MOST_LATENTS}: lower it.")
    if model.latent != "continuous" and (model.encoder is not False or model.latent_noise > 0.0):
        raise ValueError(
            f"encoder={model.encoder!r} and latent_noise={model.latent_noise} are for real "
            f'latents, but latent={model.latent!r} has finitely many: choose latent="continuous".'
        )
    if model.latent == "grid" and k * math.log(n_points) > math.log(_MOST_LATENTS) + 1e-9:
        raise ValueError(
            f"A grid with n_points={n_points} and n_components={k} has more than {_MOST_LATENTS} "
            "points: lower one of them."
        )


def record_values(model: Any) -> dict[str, Any]:
    """What determines the energy beside its network."""
    low, high = read_range(model.latent_range)
    check_latents(model)
    return {
        "latent": str(model.latent),
        "n_latent": int(model.n_components),
        "n_points": int(model.n_points),
        "low": low,
        "high": high,
        "regularizer": "none" if model.latent == "branches" else str(model.regularizer),
        "regularization": float(model.regularization),
        "beta": float(model.beta) if math.isfinite(model.beta) else 0.0,
        "has_rows": int(model.y_dimensions_ > 0),
        "own_encoder": {False: "none", True: "built in"}.get(model.encoder, "given"),
        "encoder_weight": float(model.encoder_weight),
    }


def floats_per_row(model: Any) -> int:
    """Temporary numbers for all latents of a row."""
    record = model.architecture_
    widest = max((8, *map(int, record["hidden_sizes"])))
    n_latents = int(record["n_latent"])
    if record["latent"] == "grid":
        n_latents = int(record["n_points"]) ** n_latents
    if record["latent"] == "continuous":
        n_latents = N_POINTS
    return n_latents * (2 * widest + 4 * len(model.intercept_) + 4)


def standardised_targets(
    model: Any, rows: Rows, known: dict[str, Any], *, goes_on: bool, chunk: bool
) -> tuple[Rows, dict[str, Any]]:
    """Rows whose targets are g, and what follows from the targets: the linear part, its scale."""
    y = rows.columns.get("target")
    if goes_on:
        if (y is None) != (model.y_dimensions_ == 0):
            now, before = ("without y", "with y") if y is None else ("with y", "without y")
            raise ValueError(
                f"This fit was called {now}, but the fit that learning continues from was called "
                f"{before}: pass y in both or in neither, or set warm_start=False."
            )
        known = {name: getattr(model, name) for name in model._of_targets}
    has_linear_part = bool(model.coef_.size) if goes_on else model.standardize
    if y is not None and has_linear_part:
        found, linear = residual_rows(model, rows, known, goes_on=goes_on, chunk=chunk)
        own = {k: v for k, v in linear.items() if k not in ("reach_", "alpha_")}
        return found, known if goes_on else own
    if goes_on:
        if y is None:
            return rows, known
        need_width(y, model)
        fitted = (model.intercept_, model.residual_scale_)
        middle, unit = (torch.from_numpy(part).to(y.device) for part in fitted)
        return replace_targets(rows, ((y.double() - middle) / unit).float()), known
    m = rows.shape[1] if y is None else y.shape[1]
    offset, scale = np.zeros(m), np.ones(m)
    if y is None and model.standardize:
        scaling = measure_spread(rows).scaling(common=False)
        offset, scale = scaling.offset.copy(), scaling.scale.copy()
    units = {"coef_": np.zeros((m, 0)), "intercept_": offset, "residual_scale_": scale}
    if y is None:
        return rows, {**units, **known}
    return replace_targets(rows, y.float()), {**units, **known}


def cube_points(n_components: int, low: float, high: float) -> torch.Tensor:
    """Points that fill a cube evenly, (N_POINTS, n_components); the first is nearest to zero."""
    points = low + (high - low) * uniform_points(N_POINTS, n_components)
    points[0] = min(max(0.0, low), high)
    return points


def latent_energy(network: Any, record: Any, model: Any) -> LatentTargetEnergy:
    """The energy that a record describes, with the linear part of a model."""
    k, has_branches = int(record["n_latent"]), record["latent"] == "branches"
    linear = (model.coef_, model.intercept_, model.residual_scale_)
    if record["latent"] == "continuous":
        cube = (float(record["low"]), float(record["high"]))
        return ContinuousLatentEnergy(
            network,
            cube_points(k, *cube),
            *(torch.from_numpy(part) for part in linear),
            encoder=encoder_of(record, len(model.intercept_)),
            encoder_weight=float(record["encoder_weight"]),
            cube=cube,
            regularizer=record["regularizer"],
            weight=float(record["regularization"]),
            beta=float(record["beta"]) or math.inf,
            has_rows=bool(record["has_rows"]),
        )
    latents = torch.eye(k, dtype=torch.float64)
    if not has_branches:
        latents = grid_points(k, int(record["n_points"]), record["low"], record["high"])
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


def encoder_of(record: Any, n_outputs: int) -> Any:
    """Enc from rows and targets to latents; None without one."""
    if record["own_encoder"] == "none":
        return None
    k = int(record["n_latent"])
    values = {**record.values, "n_features": int(record["n_features"]) - k + n_outputs}
    return replace(record, values=values).encoder(k, name="encoder")


def check_encoder(energy: Any) -> None:
    """Refuse an encoder of the caller's that does not answer with latents."""
    encoder = getattr(energy, "encoder", None)
    if encoder is not None:
        n_inputs = int(energy.record["n_features"]) - energy.latents.shape[1] + energy.n_outputs
        energy.record.check_module("encoder", encoder, n_inputs, energy.latents.shape[1])


def penalized_loss(model: Any) -> PenalizedLoss:
    """What ``fit`` minimises."""
    if model.latent_noise > 0.0:
        return PenalizedNoisyLoss(NoisyLatentLoss(float(model.latent_noise)), float(model.alpha))
    loss = InferredLatentLoss() if model.latent == "continuous" else FreeEnergyLoss()
    return PenalizedLoss(loss, float(model.alpha))


def beta_of_sums(model: Any) -> float | None:
    """The inverse temperature of sums over latents; None: F is a minimum."""
    is_sum = math.isfinite(model.beta) and model.latent != "continuous"
    return float(model.beta) if is_sum else None


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


def sampled(model: Any, X: Any, n_samples: Any, random_state: RandomState) -> Any:
    """Draws from p(y | x), or rows; see ``LatentVariableRegressor.sample``."""
    check_is_fitted(model)
    if model.y_dimensions_:
        return draw_targets(model, X, n_samples, random_state, _draws_of_block)
    check_count(X, "n_samples")
    energy = model._energy(torch.device("cpu")).double()
    generator = make_generator(draw_seed(random_state), "draws")
    nothing = torch.zeros((1, model.n_features_in_), dtype=torch.float64)
    uniform = nothing.new_empty((1, X)).uniform_(generator=generator)
    noise = nothing.new_empty((1, X, energy.n_outputs)).normal_(generator=generator)
    with torch.no_grad():
        g = _drawn(energy, nothing, uniform, noise)
        return energy.restore(nothing, g)[0].numpy()


def _draws_of_block(
    energy: Any, u: torch.Tensor, place: torch.Tensor, n_samples: int, generator: torch.Generator
) -> torch.Tensor:
    """Draws of g (n, n_samples, m) for the rows at these places of a block."""
    shape = (BLOCK, n_samples)
    uniform = u.new_empty(shape).uniform_(generator=generator)[place]
    noise = u.new_empty((*shape, energy.n_outputs)).normal_(generator=generator)[place]
    return _drawn(energy, u, uniform, noise)


def _drawn(
    energy: Any, u: torch.Tensor, uniform: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """g of latents at these cumulative probabilities (n, n_samples), with noise (.., m)."""
    below = energy.log_prior().exp().cumsum(dim=0).to(u)
    chosen = torch.searchsorted(below, uniform).clamp(max=len(below) - 1)
    answers = energy.answers(u).expand(len(u), -1, -1)
    g: torch.Tensor = answers.gather(1, chosen[:, :, None].expand(-1, -1, energy.n_outputs))
    return g if math.isinf(energy.beta) else g + noise / math.sqrt(energy.beta)


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
