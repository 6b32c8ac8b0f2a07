"""Common parts of models with a dictionary and a learnt encoder: the network in their state."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import nn

from sklebm._shell.rows import Rows
from sklebm._shell.state import Record, Spec
from sklebm.coding._penalty import recall_penalty, record_penalty, resolve_penalty
from sklebm.coding._state import dictionary_spec, floats_per_row, n_atoms
from sklebm.energies.sparse_coding import EncodedSparseCodingEnergy, SparseCodingEnergy
from sklebm.gradient import GradientEstimator
from sklebm.training.architecture import NetworkRecord, export_weights


class EncoderEstimator(GradientEstimator):
    """Base of models with an encoder: codes are predicted instead of optimised.

    A model supplies ``_architecture`` (the values of the record that defines its encoder) and
    ``_blank_encoder`` (the module, its parameters not yet initialised).
    """

    n_components: int | None
    alpha: float
    components_: Any
    alpha_: float
    penalty_: dict[str, Any]
    architecture_: dict[str, Any]
    weights_: dict[str, Any]

    @abstractmethod
    def _architecture(self, n_features: int, n_components: int) -> dict[str, Any]:
        """The encoder as plain values, from checked parameters."""

    @abstractmethod
    def _blank_encoder(self, architecture: dict[str, Any], dictionary: torch.Tensor) -> nn.Module:
        """The encoder with parameters on the meta device."""

    def _record(self) -> NetworkRecord:
        """The encoder that the model was fitted with."""
        return NetworkRecord(self.architecture_)

    def _wrap(self, encoder: nn.Module, dictionary: torch.Tensor) -> SparseCodingEnergy:
        """The energy around the fitted encoder and dictionary."""
        penalty = recall_penalty(self.penalty_)
        return EncodedSparseCodingEnergy(encoder, dictionary, penalty, self.alpha_)

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> Any:
        dictionary = parameters["components_"]
        encoder = self._record().restore(
            lambda record: self._blank_encoder(record.values, dictionary),
            self.weights_,
            dictionary.device,
        )
        energy: Any = self._wrap(encoder, dictionary)
        energy.architecture = self.architecture_
        return energy

    def _export(self, energy: Any) -> dict[str, Any]:
        return {
            **super()._export(energy),
            "alpha_": energy.alpha,
            "penalty_": record_penalty(energy.penalty),
            "architecture_": dict(energy.architecture),
            "weights_": export_weights(energy.encoder, self),
        }

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        asked = self._architecture(rows.shape[1], self.n_components or len(self.components_))
        fitted = NetworkRecord({**self.architecture_, "alpha": self.alpha_})
        fitted.check_resumable(NetworkRecord({**asked, "alpha": float(self.alpha)}), self)

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            **dictionary_spec(),
            "architecture_": Record(),
            "weights_": Record(),
        }

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        penalty = resolve_penalty(getattr(self, "penalty", "l1"), self.n_components or 1)
        n_components = self.n_components or 1
        return {
            **super()._untrained_state(given),
            "alpha_": float(self.alpha),
            "penalty_": record_penalty(penalty),
            "architecture_": self._architecture(given["n_features_in_"], n_components),
        }

    def _check_state(self) -> None:
        super()._check_state()
        if not self._is_fitted():
            return
        self._check_sizes()
        name, dictionary = type(self).__name__, torch.from_numpy(self.components_)
        asked = NetworkRecord(self._architecture(self.n_features_in_, len(dictionary)))
        self._record().check_fitted(asked, name)
        self._record().check_weights(
            lambda record: self._blank_encoder(record.values, dictionary), self.weights_, name
        )

    def _check_sizes(self) -> None:
        """Raise ValueError if atoms and rows do not fit each other beyond what is declared."""

    def _monitor_score(self, X: Any) -> float:
        return self.score(X)  # rows without target codes

    def _floats_per_row(self) -> int:
        n_layers = int(self.architecture_["n_layers"])
        return floats_per_row(self) + 2 * n_layers * len(self.components_)

    @property
    def _n_features_out(self) -> int:
        return n_atoms(self)


def encoded(energy: Any, x: torch.Tensor) -> torch.Tensor:
    """The predicted codes."""
    z: torch.Tensor = energy.encode(x)
    return z


def reconstructed(energy: Any, x: torch.Tensor) -> torch.Tensor:
    """What the predicted codes decode to."""
    decoded: torch.Tensor = energy.decode(energy.encode(x))
    return decoded


def free_energies(energy: Any, x: torch.Tensor) -> torch.Tensor:
    """F(x) = E(x, f(x))."""
    value: torch.Tensor = energy.free_energy(x)
    return value
