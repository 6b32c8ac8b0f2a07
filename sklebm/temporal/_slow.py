"""The networks of ``SlowFeatureAutoencoder``, and its closed form from sums over the rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from sklebm._shell.arrays import to_numpy
from sklebm._shell.rows import Rows
from sklebm.energies.expansions import QuadraticExpansion, expanded_width
from sklebm.energies.networks import initialize, set_input_bias, set_output_bias
from sklebm.energies.reconstruction import ReconstructionEnergy
from sklebm.inference.slow_features import SlowMoments, slow_directions
from sklebm.training.architecture import NetworkRecord

#: Columns of an expansion whose covariance matrices are still solved in a few minutes.
MOST_COLUMNS = 5000


def record_of(estimator: Any, n_features: int) -> dict[str, Any]:
    """The networks that the parameters specify, as plain values."""
    record = NetworkRecord.from_parameters(
        estimator,
        n_features,
        (),
        code_activation=str(estimator.code_activation),
        tied=int(estimator.tied),
        method=str(estimator.method),
        degree=int(estimator.degree),
        pool_size=int(estimator.pool_size),
    )
    return record.values


def assemble(values: Mapping[str, Any]) -> ReconstructionEnergy:
    """The energy of a record, on the meta device."""
    record = NetworkRecord(dict(values))
    if values["method"] == "linear":
        return _linear(values)
    encoder = record.encoder(record["n_components"], record["code_activation"])
    return ReconstructionEnergy(
        encoder, record.decoder(tied_to=encoder if record["tied"] else None)
    )


def _linear(values: Mapping[str, Any]) -> ReconstructionEnergy:
    n_features, n_components = int(values["n_features"]), int(values["n_components"])
    degree = int(values["degree"])
    expansion = nn.Identity() if degree == 1 else QuadraticExpansion(n_features)
    width = expanded_width(n_features, degree)
    encoder = nn.Sequential(expansion, nn.Linear(width, n_components, device="meta"))
    return ReconstructionEnergy(encoder, nn.Linear(n_components, n_features, device="meta"))


def fresh(
    values: Mapping[str, Any], mean: Tensor, generator: torch.Generator
) -> ReconstructionEnergy:
    """An energy before training, which reconstructs the mean row."""
    energy, n_channels = assemble(values), NetworkRecord(dict(values)).n_channels
    for network in (energy.encoder, energy.decoder):
        initialize(network, generator)
    set_input_bias(energy.encoder, mean, n_channels)
    set_output_bias(energy.decoder, mean, n_channels)
    return energy


def floats_per_row(values: Mapping[str, Any]) -> int:
    """Temporary values per row."""
    width = NetworkRecord(dict(values)).floats_per_row()
    if values["method"] == "linear":
        width += 2 * expanded_width(int(values["n_features"]), int(values["degree"]))
    return 2 * width


# ---------------------------------------------------------------------- the closed form


def measured(rows: Rows, degree: int) -> SlowMoments:
    """Moments of the expanded rows, chunk by chunk. O(n D^2) for D columns."""
    n_features = rows.shape[1]
    width = expanded_width(n_features, degree)
    if width > MOST_COLUMNS:
        raise ValueError(
            f"degree={degree} expands {n_features} features to {width} columns, and at most "
            f"{MOST_COLUMNS} can be solved: reduce X first, for example with EnergyPCA, or set "
            "degree=1."
        )
    expand = nn.Identity() if degree == 1 else QuadraticExpansion(n_features)
    groups = rows.columns.get("groups")

    def moments(part: slice) -> SlowMoments:
        first = max(part.start - 1, 0)
        x = expand(rows[first : part.stop].double())
        follows = torch.ones(len(x) - 1, dtype=torch.bool, device=x.device)
        if groups is not None:
            own = groups[first : part.stop]
            follows = own[1:] == own[:-1]
        return SlowMoments.of(x, follows, n_before=part.start - first)

    # Not all of them at once: each holds two matrices.
    return reduce(add, map(moments, rows.chunks(4 * width)))


def solved(moments: SlowMoments, record: Mapping[str, Any]) -> dict[str, Any]:
    """Fitted attributes of the slowest features, and the decoder that reconstructs best."""
    n_features = int(record["n_features"])
    if not moments.n_pairs:
        raise ValueError(
            'method="linear" compares successive steps, but no sequence has more than one: check '
            "groups, which names the sequence of each row. A first chunk for partial_fit needs one "
            "of two steps, too."
        )
    filters, slowness = slow_directions(moments)
    n_components = min(int(record["n_components"]), len(filters))
    if not n_components:
        raise ValueError(
            'X does not vary: method="linear" needs rows that differ, in the first chunk for '
            "partial_fit as well."
        )
    filters, slowness = filters[:n_components], slowness[:n_components]
    # The covariances with codes of unit variance are the best affine decoder.
    decoder = moments.scatter[:n_features] @ filters.T / moments.n_rows
    # The sign of an eigenvector is arbitrary: make the largest entry of its decoder positive.
    largest = decoder.abs().argmax(dim=0)
    signs = torch.where(decoder[largest, torch.arange(n_components)] < 0.0, -1.0, 1.0).to(decoder)
    filters, decoder = filters * signs[:, None], decoder * signs
    weights = {
        "encoder.1.weight": filters,
        "encoder.1.bias": -filters @ moments.mean,
        "decoder.weight": decoder,
        "decoder.bias": moments.mean[:n_features],
    }
    return {
        "architecture_": {**record, "n_components": n_components},
        # Copies: a view would keep all directions alive.
        "weights_": {name: to_numpy(tensor).copy() for name, tensor in weights.items()},
        "slowness_": to_numpy(slowness).copy(),
    }
