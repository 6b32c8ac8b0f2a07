"""The networks of ``SequenceEnergy``: from parameters to a record, and from it to modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklebm._shell.rows import Rows
from sklebm._shell.scaling import Scaling, measure_spread
from sklebm._shell.value_range import check_bits
from sklebm.energies.cells import initialize_cell, make_cell
from sklebm.energies.next_step import NextStepEnergy, Walk
from sklebm.energies.step_machine import MachineOutput
from sklebm.energies.step_outputs import (
    BernoulliOutput,
    CategoricalOutput,
    GaussianOutput,
    LatentGaussianOutput,
)

_READOUT = 0.1  # share of the usual initial weights: the first guess hardly depends on the past


def record_of(estimator: Any, n_features: int) -> dict[str, Any]:
    """The networks that the parameters specify, as plain values."""
    return {
        "n_features": n_features,
        "n_components": int(estimator.n_components),
        "cell": str(estimator.cell),
        "output": str(estimator.output),
        "n_latents": int(estimator.n_latents),
        "window": int(estimator.window),
    }


def make_output(record: Mapping[str, Any]) -> Any:
    """The density of a step, on the meta device."""
    kind, n_features = record["output"], int(record["n_features"])
    if kind in ("latent", "rbm"):
        with_latents = LatentGaussianOutput if kind == "latent" else MachineOutput
        return with_latents(n_features, int(record["n_latents"]))
    plain = {
        "bernoulli": BernoulliOutput,
        "categorical": CategoricalOutput,
        "gaussian": GaussianOutput,
    }
    return plain[kind](n_features)


def assemble(record: Mapping[str, Any]) -> NextStepEnergy:
    """The energy of a record, on the meta device."""
    n_features, n_components = int(record["n_features"]), int(record["n_components"])
    cell = make_cell(record["cell"], n_features, n_components, int(record["window"]))
    output = make_output(record)
    readout = nn.Linear(n_components, output.n_parameters, device="meta")
    return NextStepEnergy(cell, readout, output)


def fresh(
    record: Mapping[str, Any], mean: Tensor, forget_bias: float, generator: torch.Generator
) -> NextStepEnergy:
    """An energy before training, which expects the mean row at every step."""
    energy = assemble(record)
    initialize_cell(energy.cell, forget_bias, generator)
    readout, output = energy.readout, energy.output
    readout.to_empty(device="cpu")
    output.to_empty(device="cpu")
    output.initialize(generator)
    bound = _READOUT / np.sqrt(record["n_components"])
    with torch.no_grad():
        readout.weight.uniform_(-bound, bound, generator=generator)  # type: ignore[operator]
        readout.bias.copy_(output.start(mean))  # type: ignore[operator]
    return energy


def floats_per_row(record: Mapping[str, Any]) -> int:
    """Temporary values per row: gates and their sums, parameters, factors, twice for padding."""
    n_features, n_components = int(record["n_features"]), int(record["n_components"])
    output = make_output(record)
    own = n_features * int(record["n_latents"]) if record["output"] == "latent" else 0
    layers = int(record["window"]).bit_length() if record["cell"] == "conv" else 6
    return 2 * (layers * n_components + 6 * n_features + 3 * int(output.n_parameters) + 3 * own)


def scaling_of(rows: Rows, output: str) -> Scaling | None:
    """The scale of real features; bits and categories are used as they are."""
    return measure_spread(rows).scaling(common=False) if _is_real(output) else None


def check_rows(model: Any, rows: Rows, output: str) -> None:
    """Refuse negative shares of categories; handle values that are no probabilities of bits."""
    if output == "categorical":
        need_categories(rows, type(model).__name__)
    elif not _is_real(output):
        # Also when a fitted model scores: its score has no upper bound outside [0, 1].
        check_bits(model, rows, "output", learning=True)


def _is_real(output: str) -> bool:
    return output in ("gaussian", "latent")


def need_categories(rows: Rows, owner: str) -> None:
    """Raise ValueError if there is a negative entry."""
    least = min(float(rows[part].min()) for part in rows.chunks(rows.shape[1]))
    if least < 0.0:
        raise ValueError(
            f"Negative values in data passed to {owner} (min={least:.4g}): with "
            'output="categorical" rows are one-hot, or shares or counts of categories.'
        )


# ---------------------------------------------------------------------- answers of a walk


def scores(energy: NextStepEnergy, y: Tensor, walk: Walk) -> Tensor:
    """log p of each step given its past."""
    return energy.log_density_given(y, walk.past)


def features(energy: NextStepEnergy, y: Tensor, walk: Walk) -> Tensor:
    """The state after each step, and what the step adds to its past."""
    latents = energy.latents(y, walk.past)
    return walk.after if latents is None else torch.cat([walk.after, latents], dim=1)


def next_means(energy: NextStepEnergy, y: Tensor, walk: Walk) -> Tensor:
    """The mean of the step after each row."""
    return energy.next_mean(walk.after)
