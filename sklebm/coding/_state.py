"""What models with a dictionary store, and the energy built from it."""

from __future__ import annotations

from typing import Any

from sklearn.exceptions import NotFittedError
from torch import Tensor

from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm.coding._penalty import recall_penalty
from sklebm.energies import SparseCodingEnergy


def dictionary_spec(of: str = "dictionary") -> Spec:
    """The attributes that hold the penalty and the dictionary, found at ``of`` in the energy."""
    return {
        "components_": Array("f", ("n_components", "n_features_in_"), of=of),
        "alpha_": Scalar(float, 0.0),
        "penalty_": Record(),
    }


def coder_spec() -> Spec:
    """The attributes of a dictionary that was learnt from sums, or given."""
    return {
        **dictionary_spec(),
        "intercept_": Array("f", ("n_features_in_",), optional=True, of="intercept"),
        "energy_curve_": Array("f", (None,)),
        "online_state_": Record(),
        "n_iter_": Scalar(int, 0),
        "n_samples_seen_": Scalar(int, 0),
    }


def coding_energy(model: Any, atoms: Tensor, intercept: Tensor | None) -> SparseCodingEnergy:
    """The energy with the penalty used in the fit."""
    return SparseCodingEnergy(atoms, recall_penalty(model.penalty_), model.alpha_, intercept)


def floats_per_row(model: Any) -> int:
    """Temporary numbers needed for the code of a row."""
    return 4 * int(model.n_features_in_) + 5 * len(model.components_)


def n_atoms(model: Any) -> int:
    """The number of atoms; NotFittedError if there are none yet."""
    if not hasattr(model, "components_"):
        raise NotFittedError(f"This {type(model).__name__} instance is not fitted yet.")
    return len(model.components_)


def decoded(energy: Any, z: Tensor) -> Tensor:
    """What codes decode to."""
    x: Tensor = energy.decode(z)
    return x
