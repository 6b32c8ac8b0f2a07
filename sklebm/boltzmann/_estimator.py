"""What restricted Boltzmann machines share: objectives, centring, state, row-wise methods."""

from __future__ import annotations

import math
from inspect import signature
from numbers import Integral, Real
from typing import Any, ClassVar

import torch

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Scalar, Spec
from sklebm.boltzmann._partition import METHODS, no_partition
from sklebm.boltzmann._sampling import SamplingEstimator
from sklebm.energies import BilinearEnergy
from sklebm.gradient import Start
from sklebm.objectives import (
    ContrastiveDivergence,
    DenoisingScoreMatching,
    FastPersistentContrastiveDivergence,
    MaximumLikelihood,
    MinimumProbabilityFlow,
    NoiseContrastive,
    Objective,
    PersistentContrastiveDivergence,
    PseudoLikelihood,
    RatioMatching,
    ScoreMatching,
    TemperedPersistentContrastiveDivergence,
    VariationalNoiseContrastive,
    check_needs,
    resolve_objective,
)
from sklebm.training.centring import Centring
from sklebm.training.transforms import TransformState

OBJECTIVES: dict[str, type[Objective]] = {
    "cd": ContrastiveDivergence,
    "pcd": PersistentContrastiveDivergence,
    "fast_pcd": FastPersistentContrastiveDivergence,
    "tempered_pcd": TemperedPersistentContrastiveDivergence,
    "maximum_likelihood": MaximumLikelihood,
    "pseudo_likelihood": PseudoLikelihood,
    "ratio_matching": RatioMatching,
    "minimum_probability_flow": MinimumProbabilityFlow,
    "noise_contrastive": NoiseContrastive,
    "variational_noise_contrastive": VariationalNoiseContrastive,
    "score_matching": ScoreMatching,
    "denoising_score_matching": DenoisingScoreMatching,
}


def free_energy_gap(energy: Any, held_out: torch.Tensor, sample: torch.Tensor) -> float:
    """Mean F of held-out rows minus that of training rows; log Z is the same in both."""
    means = [energy.free_energy(x).double().mean() for x in (held_out, sample)]
    return float(means[0] - means[1])


class BoltzmannEstimator(SamplingEstimator):
    """Base of the restricted Boltzmann machines."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **SamplingEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "objective": [StrOptions(set(OBJECTIVES)), Objective],
        "n_gibbs_steps": [Interval(Integral, 1, None, closed="left")],
        "centering": ["boolean"],
        "log_partition": [StrOptions(set(METHODS)), None],
    }
    _accepts_sparse = True
    _monitors: ClassVar[dict[str, Any]] = {"free_energy_gap": free_energy_gap}

    # ------------------------------------------------------------------ training

    def _objective(self, energy: Any) -> Objective:
        default = signature(type(self)).parameters["n_gibbs_steps"].default
        options = {} if self.n_gibbs_steps == default else {"n_gibbs_steps": self.n_gibbs_steps}
        objective = resolve_objective(self.objective, OBJECTIVES, options)
        check_needs(objective, energy, [choice() for choice in OBJECTIVES.values()])
        return objective

    def _transforms(self, energy: Any, start: Start) -> tuple[Centring, ...]:
        """Gradients are centred at the means of both layers; those of an earlier fit go on."""
        if not self.centering:
            return ()
        return (Centring(energy, *self._offsets(energy, start)),)

    def _offsets(self, energy: Any, start: Start) -> tuple[torch.Tensor, torch.Tensor]:
        """The means of visible and hidden units that centring begins with."""
        # Without input, the hidden units are on half of the time.
        hidden, means = torch.full_like(energy.hidden.bias.data, 0.5), start.means
        if start.resume:
            means = torch.from_numpy(self.feature_means_)
            if self.hidden_means_ is not None:
                hidden = torch.from_numpy(self.hidden_means_).to(hidden)
        return means.to(hidden), hidden

    def _export_transforms(self, states: list[TransformState]) -> dict[str, Any]:
        return {"hidden_means_": copied(states[0]["hidden_mean"]) if self.centering else None}

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        fitted = self.components_.shape[0]
        if fitted != self.n_components:
            raise ValueError(
                f"n_components={self.n_components} differs from the {fitted} fitted components "
                "that training would continue from: set it back, or fit with warm_start=False."
            )

    def _export(self, energy: Any) -> dict[str, Any]:
        # Any change of the parameters makes an earlier normaliser wrong.
        return {**super()._export(energy), **no_partition()}

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "components_": Array("f", ("n_components", "n_features_in_"), of="weights"),
            "intercept_hidden_": Array("f", ("n_components",), of="hidden.bias"),
            "intercept_visible_": Array("f", ("n_features_in_",), of="visible.bias"),
            "hidden_means_": Array("f", ("n_components",), optional=True),
            "log_partition_": Scalar(float, optional=True),
            "log_partition_interval_": Array("f", (2,), optional=True),
        }

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        # Annealing and chains start from the means that the visible biases stand for.
        visible = self._rebuild({k: torch.as_tensor(v) for k, v in given.items()}).visible
        means = visible.mean(visible.bias.detach()).double().numpy()
        return {**super()._untrained_state(given), "feature_means_": means}

    # ------------------------------------------------------------------ row-wise methods

    def _floats_per_row(self) -> int:
        return 3 * int(self.n_features_in_) + 4 * len(self.components_)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def transform(self, X: Any) -> Any:
        """Return the mean of the hidden units given each row.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        H : array or tensor of shape (n_samples, n_components)
            p(h_k = 1 | x).
        """
        return self._map_rows(X, lambda energy, x: energy.hidden_mean(x), "transform")

    def inverse_transform(self, Z: Any) -> Any:
        """Return the mean of the visible units given hidden units.

        Parameters
        ----------
        Z : array-like or tensor of shape (n_samples, n_components)
            Hidden states or probabilities.

        Returns
        -------
        X : array or tensor of shape (n_samples, n_features)
            p(x_i = 1 | h), or the mean of p(x_i | h) where rows are real-valued.
        """

        def decode(energy: BilinearEnergy, h: torch.Tensor) -> torch.Tensor:
            return energy.visible.mean(energy.visible_field(h))

        return self._map_rows(Z, decode, "inverse_transform", latents=True)

    def free_energy(self, X: Any, beta: float = 1.0) -> Any:
        r"""Return :math:`F_\beta(x) = -\frac1\beta \log \sum_h e^{-\beta E(x, h)}`.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to measure.
        beta : float, default=1.0
            Inverse temperature of the hidden units; the model itself is at 1.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats; at ``beta=1`` it is ``-log p(x) - log Z``.
        """
        if not (isinstance(beta, Real) and 0.0 < beta < math.inf):
            raise ValueError(f"beta={beta!r} must be a positive number.")
        return self._map_rows(X, lambda energy, x: energy.free_energy(x, beta), "free_energy")

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each row with its own hidden state.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Visible states.
        Z : array-like or tensor of shape (n_samples, n_components)
            Hidden states.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._pair_energies(X, Z)


def copied(tensor: torch.Tensor) -> Any:
    """A NumPy copy of a parameter."""
    return tensor.detach().cpu().numpy().copy()
