"""What models with a dictionary and a learnt encoder share: fitted state, and answers by it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import nn

from sklebm._shell.rows import Rows
from sklebm._shell.state import Record, Spec
from sklebm.coding._coding_estimator import CodingEstimator
from sklebm.coding._penalty import recall_penalty, record_penalty
from sklebm.energies.sparse_coding import EncodedSparseCodingEnergy
from sklebm.gradient import GradientEstimator
from sklebm.training.architecture import (
    check_arrays,
    check_record,
    check_resumable,
    export_weights,
    import_weights,
)


class EncoderEstimator(CodingEstimator, GradientEstimator):
    """Base of models with an encoder: codes are predicted, not searched for.

    A model supplies ``_architecture`` (the record that its encoder follows from) and
    ``_blank_encoder`` (the module, with numbers yet to come).
    """

    architecture_: dict[str, Any]
    weights_: dict[str, Any]

    @abstractmethod
    def _architecture(self, n_features: int, n_components: int) -> dict[str, Any]:
        """The encoder as plain values, from checked parameters."""

    @abstractmethod
    def _blank_encoder(self, architecture: dict[str, Any], dictionary: torch.Tensor) -> nn.Module:
        """The encoder with parameters on the meta device."""

    def _energy(self, device: torch.device) -> Any:
        dictionary = torch.from_numpy(self.components_).to(device)
        encoder = self._blank_encoder(self.architecture_, dictionary)
        import_weights(encoder, self.weights_, device)
        energy: Any = self._wrap(encoder, dictionary)
        energy.architecture = self.architecture_
        return energy

    def _wrap(self, encoder: nn.Module, dictionary: torch.Tensor) -> EncodedSparseCodingEnergy:
        """The energy around the fitted encoder and dictionary."""
        penalty = recall_penalty(self.penalty_)
        return EncodedSparseCodingEnergy(encoder, dictionary, penalty, self.alpha_)

    def _export(self, energy: Any) -> dict[str, Any]:
        weights = export_weights(energy.encoder, self)
        return {
            "components_": energy.dictionary.detach().cpu().numpy().copy(),
            "alpha_": energy.alpha,
            "penalty_": record_penalty(energy.penalty),
            "architecture_": dict(energy.architecture),
            "weights_": weights,
        }

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        asked = self._architecture(rows.shape[1], self.n_components or len(self.components_))
        asked["alpha"] = float(self.alpha)
        check_resumable(self, asked, {**self.architecture_, "alpha": self.alpha_})

    # ------------------------------------------------------------------ state

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            **self._dictionary_spec(),
            "architecture_": Record(),
            "weights_": Record(),
        }

    def _check_state(self) -> None:
        super()._check_state()
        if not self._is_fitted():
            return
        asked = self._architecture(self.n_features_in_, len(self.components_))
        check_record(asked, self.architecture_, type(self).__name__)
        blank = self._blank_encoder(self.architecture_, torch.from_numpy(self.components_))
        check_arrays(blank, self.weights_, type(self).__name__)

    def _monitor_score(self, X: Any) -> float:
        return self.score(X)  # rows without target codes

    # ------------------------------------------------------------------ row-wise methods

    def _floats_per_row(self) -> int:
        n_layers = int(self.architecture_["n_layers"])
        return super()._floats_per_row() + 2 * n_layers * len(self.components_)

    def _codes(self, energy: Any, x: torch.Tensor) -> torch.Tensor:
        codes: torch.Tensor = energy.encode(x)
        return codes

    def _free_energies(self, energy: Any, x: torch.Tensor) -> torch.Tensor:
        free_energies: torch.Tensor = energy.free_energy(x)
        return free_energies

    def transform(self, X: Any) -> Any:
        """Return the predicted code of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            f(x), the encoder's output.
        """
        return super().transform(X)

    def free_energy(self, X: Any) -> Any:
        """Return F(x) = E(x, f(x)), an upper bound of the least energy over all codes.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        return super().free_energy(X)
