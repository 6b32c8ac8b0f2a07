"""Auto-encoders whose code is a function of the row: F(x) = |x - g(f(x))|^2."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from sklebm._shell.private import StrOptions
from sklebm.autoencoders._estimator import AutoencoderEstimator, sigmoid_bias
from sklebm.energies.networks import ACTIVATIONS
from sklebm.energies.reconstruction import ReconstructionEnergy
from sklebm.objectives import Objective
from sklebm.objectives.reconstruction import ReconstructionError


class DeterministicAutoencoder(AutoencoderEstimator):
    """Base of the auto-encoders that reconstruct; their objectives differ."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **AutoencoderEstimator._parameter_constraints,
        "code_activation": [StrOptions(set(ACTIVATIONS))],
        "output_activation": [StrOptions({"identity", "sigmoid"})],
        "tied": ["boolean"],
    }

    def _architecture(self, n_features: int) -> dict[str, Any]:
        if self.tied and (self.encoder is not None or self.decoder is not None):
            raise ValueError(
                "tied=True shares the weights of the built-in encoder with the decoder: leave "
                "encoder and decoder out, or set tied=False."
            )
        return {
            **super()._architecture(n_features),
            "code_activation": str(self.code_activation),
            "output_activation": str(self.output_activation),
            "tied": int(self.tied),
        }

    def _assemble(self, architecture: dict[str, Any]) -> ReconstructionEnergy:
        encoder = self._make_encoder(
            architecture, architecture["n_components"], architecture["code_activation"]
        )
        tied_to = encoder if architecture["tied"] else None
        decoder = self._make_decoder(
            architecture, architecture["output_activation"], tied_to=tied_to
        )
        return ReconstructionEnergy(encoder, decoder)

    def _output_bias(self, mean: torch.Tensor) -> torch.Tensor:
        return sigmoid_bias(mean) if self.output_activation == "sigmoid" else mean

    def _objective(self, energy: Any) -> Objective:
        return ReconstructionError()

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) = |x - g(z)|^2 of each row with a code of its own.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_components)
            A code for each row.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            Squared errors, in squared units of X.
        """
        return self._pair_energies(X, Z)

    def free_energy(self, X: Any) -> Any:
        """Return F(x) = |x - g(f(x))|^2, the squared error of the reconstruction.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            Squared errors, summed over the features, in squared units of X.
        """
        return self._map_rows(X, lambda energy, x: energy.free_energy(x), "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return the negative squared error of the reconstruction; higher is more typical.

        It is no log density: a model that copies everything gives every row the best score.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            ``-free_energy(X)``. Deterministic.
        """
        return self._map_rows(X, lambda energy, x: -energy.free_energy(x), "score_samples")

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the mean squared error of the reconstruction of held-out rows.

        Comparable over everything about training (``learning_rate``, ``max_epochs``,
        ``activation``, penalties) at the same ``n_components`` and input scale. A wider code
        always reconstructs better: choose ``n_components`` by a score of what the codes or scores
        are for, such as a classifier's, or by :func:`sklebm.metrics.make_ood_scorer`.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean of ``score_samples(X)``.
        """
        return super().score(X)
