"""The networks of ``LinearizingAutoencoder``, and its answers for rows with a past."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sklebm._shell.arrays import to_numpy
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import Spread
from sklebm._shell.warning import warn
from sklebm.energies.linearizing import LearntLine, LinearizingEnergy, StraightLine
from sklebm.energies.networks import ACTIVATIONS, initialize
from sklebm.energies.phase_pooling import PhasePooling, PhaseShape, PhaseUnpooling
from sklebm.training.architecture import NetworkRecord

_GATE = 0.5  # standard deviation of the initial weights of the latent
# What moves may itself leave a mean frame about as large: of bouncing digits it is 0.4 to 1.1 times
# as large as the changes.
_MOST_STILL = 2.0

#: A function of the energy, codes of each row, of the one before, standardised rows and latents.
Answer = Callable[[LinearizingEnergy, Tensor, Tensor, Tensor], Tensor]


def record_of(estimator: Any, n_features: int) -> dict[str, Any]:
    """The networks that the parameters specify, as plain values."""
    record = NetworkRecord.from_parameters(estimator, n_features, ())
    is_image = len(record.shape) == 3
    pool_size = estimator.pool_size
    if pool_size is None:
        pool_size = 1 if is_image else 4
    window = estimator.window
    if window is not None and not is_image:
        raise ValueError(
            f"window={window!r} is a part of an image: set image_shape as well, or leave it out."
        )
    sides = record.shape[1:] if is_image else (1, 1)
    window = sides if window is None else tuple(window)
    good = len(window) == 2 and all(
        int(w) == w and w >= 1 and side % int(w) == 0
        for w, side in zip(window, sides, strict=False)
    )
    if not good:
        raise ValueError(
            f"window={estimator.window!r} does not divide frames of {sides[0]} x {sides[1]} "
            "pixels: give (height, width) that divide the frame's, or None for all of it."
        )
    return {
        **record.values,
        "pooling": str(estimator.pooling),
        "pool_size": int(pool_size),
        "window": np.array(window, dtype=np.int64),
        "kernel_size": int(estimator.kernel_size),
        "beta": float(estimator.beta),
        "prediction": str(estimator.prediction),
        "n_deltas": int(estimator.n_deltas),
        "n_inner_steps": int(estimator.n_inner_steps),
        "inner_rate": float(estimator.inner_rate),
    }


def warn_of_still_picture(owner: str, values: Mapping[str, Any], spread: Spread) -> None:
    """Warn, with the numbers, if the mean frame varies more over pixels than frames around it."""
    means = spread.mean.reshape(NetworkRecord(dict(values)).n_channels, -1)
    still, moving = float(means.std(axis=1).max()), float(np.sqrt(np.mean(spread.deviation**2)))
    if 0.0 < moving < still / _MOST_STILL:
        warn(
            f"The mean frame varies by {still:.3g} from pixel to pixel, but frames vary around it "
            f"by only {moving:.3g}: to {owner}, what stands still masks what moves. Subtract "
            "the mean frame, X - X.mean(axis=0)."
        )


def phase_shape(values: Mapping[str, Any]) -> PhaseShape:
    """The groups of units."""
    shape = NetworkRecord(dict(values)).shape
    groups = int(values["n_components"]), int(values["pool_size"])
    if len(shape) == 1:
        return PhaseShape(*groups)
    height, width = (int(side) for side in values["window"])
    return PhaseShape(*groups, shape[1], shape[2], (height, width))


def n_codes(values: Mapping[str, Any]) -> int:
    """Numbers in a code."""
    is_pooled = values["pooling"] == "phase"
    return phase_shape(values).n_codes if is_pooled else int(values["n_components"])


def assemble(values: Mapping[str, Any]) -> LinearizingEnergy:
    """The energy of a record, on the meta device."""
    record = NetworkRecord(dict(values))
    if values["pooling"] == "phase":
        shape = phase_shape(values)
        encoder, decoder = _around_pools(record, shape)
        n_magnitudes = shape.n_pools
    else:
        encoder, decoder = record.encoder(record["n_components"]), record.decoder()
        n_magnitudes = 0
    line = StraightLine(n_magnitudes) if values["prediction"] == "linear" else LearntLine()
    n_deltas, gate = int(values["n_deltas"]), None
    if n_deltas:
        gate = nn.Linear(n_deltas, n_codes(values), bias=False, device="meta")
    steps = int(values["n_inner_steps"]), float(values["inner_rate"])
    return LinearizingEnergy(encoder, decoder, line, gate, *steps)


def _around_pools(record: NetworkRecord, shape: PhaseShape) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder with phase pooling between them; of images, maps keep their size."""
    n_units = shape.n_groups * shape.n_features
    n_inputs, is_image = record.shape[0], len(record.shape) == 3
    sizes = [n_inputs, *record["hidden_sizes"].tolist(), n_units]
    kernel = int(record["kernel_size"])

    def layers(sizes: list[int], padding_mode: Literal["zeros", "replicate"]) -> list[nn.Module]:
        steps: list[nn.Module] = []
        for before, after in pairwise(sizes):
            if is_image:
                steps.append(
                    nn.Conv2d(
                        before,
                        after,
                        kernel,
                        padding="same",
                        padding_mode=padding_mode,
                        device="meta",
                    )
                )
            else:
                steps.append(nn.Linear(before, after, device="meta"))
            steps.append(ACTIVATIONS[record["activation"]]())
        return steps[:-1]

    begin: list[nn.Module] = [nn.Unflatten(1, record.shape)] if is_image else []
    # A frame goes on beyond its border as it is there: a border must not look like an edge.
    encoder = [*begin, *layers(sizes, "replicate"), PhasePooling(shape, record["beta"])]
    flat: list[nn.Module] = [] if is_image else [nn.Flatten()]
    end: list[nn.Module] = [nn.Flatten()] if is_image else []
    decoder = [PhaseUnpooling(shape), *flat, *layers(sizes[::-1], "zeros"), *end]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def fresh(values: Mapping[str, Any], generator: torch.Generator) -> LinearizingEnergy:
    """An energy before training: paths go straight on."""
    energy = assemble(values)
    for network in (energy.encoder, energy.decoder):
        initialize(network, generator)
    if isinstance(energy.line, LearntLine):
        energy.line.weights = nn.Parameter(torch.tensor([2.0, -1.0]))
    if energy.gate is not None:
        energy.gate.to_empty(device="cpu")
        with torch.no_grad():
            energy.gate.weight.normal_(0.0, _GATE, generator=generator)
    return energy


def floats_per_row(values: Mapping[str, Any]) -> int:
    """Temporary values per row: all maps twice, the hats of every group, gradients."""
    record = NetworkRecord(dict(values))
    width = record.floats_per_row()
    if values["pooling"] == "phase":
        shape = phase_shape(values)
        n_places = shape.height * shape.width
        hidden = int(sum(record["hidden_sizes"].tolist())) * n_places
        width = 2 * record["n_features"] + hidden
        width += 3 * shape.n_groups * shape.n_features * n_places
    return 4 * width


class PastRows:
    """Streams an answer for rows, each with the two before it in its sequence.

    Before its first row a sequence is taken to stand still. The rows at the end of a chunk are kept
    for the next one, and those before the latest chunk as well: it is repeated if memory ran out.
    """

    def __init__(self, answer: Callable[..., Tensor], n_before: int) -> None:
        self._answer = answer
        self._n_before = n_before
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}  # by the number of the row to come

    def __call__(self, energy: LinearizingEnergy, x: Tensor, places: Tensor) -> Tensor:
        sequences, first = places[:, 0], int(places[0, 1])
        y, own, m = energy.standardized(x), sequences, 0
        if first in self._kept:
            before, names = self._kept[first]
            y, own, m = torch.cat([before, y]), torch.cat([names, sequences]), len(before)
        z = energy.encoder(y)
        rows = torch.arange(m, len(y), device=y.device)
        past = [rows]
        for _ in range(self._n_before):
            back = (past[-1] - 1).clamp(min=0)
            past.append(torch.where(own[back] == own[rows], back, past[-1]))
        found = self._answer(energy, y[rows], *(z[index] for index in past), places[:, 2:])
        kept = {first: self._kept[first]} if first in self._kept else {}
        last = y[-self._n_before :].clone(), own[-self._n_before :].clone()
        self._kept = {**kept, first + len(x): last}
        return found


def surprises(
    energy: LinearizingEnergy, y: Tensor, z: Tensor, z1: Tensor, z2: Tensor, given: Tensor
) -> Tensor:
    """Squared error of each row given the two before it."""
    # Before its first row a sequence stands still, where the row itself is.
    return energy.in_units_of_rows(energy.surprises(z1, z2, y))


def next_frames(
    energy: LinearizingEnergy, y: Tensor, z: Tensor, z1: Tensor, given: Tensor
) -> Tensor:
    """The frame after each row, with the latents that are given."""
    delta = given.to(z.dtype) if given.shape[1] else None
    return energy.restored(energy.decoder(energy.next_code(z, z1, delta)))


def latents(
    energy: LinearizingEnergy, y: Tensor, z: Tensor, z1: Tensor, z2: Tensor, given: Tensor
) -> Tensor:
    """The latent of each row given the two before it."""
    found, _ = energy.infer(z1, z2, y)
    return y[:, :0] if found is None else found


def checked_deltas(deltas: Any, rows: Rows, n_deltas: int) -> Tensor:
    """Latents that were passed with the rows, on the CPU."""
    found = torch.as_tensor(np.asarray(to_numpy(deltas)), dtype=torch.float64)
    if found.shape != (len(rows), n_deltas) or not n_deltas:
        raise ValueError(
            f"deltas has shape {tuple(found.shape)}, but the fitted model takes one row of "
            f"n_deltas={n_deltas} numbers for each of the {len(rows)} rows of X."
        )
    if not torch.isfinite(found).all():
        raise ValueError(
            "deltas contains NaN or infinity: a row without a latent of its own takes zeros."
        )
    return found
