"""Shared code of all auto-encoders: networks, the scale of the rows, fitted state, diagnosis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import purpose_seed
from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.scaling import Scaling, measure_spread, recall_scaling
from sklebm._shell.state import Array, Record, Spec
from sklebm.autoencoders._diagnosis import latent_variances, warn_of_dead
from sklebm.energies.networks import ACTIVATIONS, initialize, set_input_bias, set_output_bias
from sklebm.energies.reconstruction import ReconstructionEnergy
from sklebm.energies.standardization import Standardization
from sklebm.gradient import GradientEstimator
from sklebm.objectives import Batch
from sklebm.training.architecture import NetworkRecord, export_weights
from sklebm.training.pace import Pace
from sklebm.training.start import Start

#: Parameters that may hold a user class.
NETWORKS = ("encoder", "decoder")


class BaseAutoencoder(GradientEstimator):
    """Networks, scale, fitted state and diagnosis of auto-encoders.

    By default for models with E(x, z) = |x - g(z)|^2; a VAE replaces the energy. A model supplies
    ``_objective`` and its public methods.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GradientEstimator._parameter_constraints,
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "image_shape": ["array-like", None],
        "encoder": [callable, None],
        "decoder": [callable, None],
    }

    _pace = Pace(n_updates=3000)

    architecture_: dict[str, Any]
    weights_: dict[str, Any]
    offset_: NDArray[np.float64] | None
    scale_: NDArray[np.float64] | None

    # ------------------------------------------------------------------ networks

    def _record(self, n_features: int) -> NetworkRecord:
        """The networks that the parameters specify."""
        if self.tied and (self.encoder is not None or self.decoder is not None):
            raise ValueError(
                "tied=True shares the weights of the built-in encoder with the decoder: leave "
                "encoder and decoder out, or set tied=False."
            )
        return NetworkRecord.from_parameters(
            self,
            n_features,
            NETWORKS,
            code_activation=str(self.code_activation),
            output_activation=str(self.output_activation),
            tied=int(self.tied),
        )

    def _assemble(self, record: NetworkRecord) -> Any:
        """The energy of a record, with built-in networks on the meta device."""
        encoder = record.encoder(record["n_components"], record["code_activation"])
        tied_to = encoder if record["tied"] else None
        decoder = record.decoder(record["output_activation"], tied_to=tied_to)
        return ReconstructionEnergy(encoder, decoder)

    def _output_bias(self, mean: torch.Tensor) -> torch.Tensor:
        """The decoder's final bias, given the mean row."""
        return sigmoid_bias(mean) if self.output_activation == "sigmoid" else mean

    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        mean, record = means.float(), self._record(len(means))
        energy = record.build(self._assemble, purpose_seed(generator.initial_seed(), "modules"))
        for network in (energy.encoder, energy.decoder):
            if any(parameter.is_meta for parameter in network.parameters()):
                initialize(network, generator)
        # The networks need not learn what all rows have in common.
        if not record.is_given("encoder"):
            set_input_bias(energy.encoder, mean, record.n_channels)
        if not record.is_given("decoder"):
            set_output_bias(energy.decoder, self._output_bias(mean), record.n_channels)
        self._check_networks(energy, record)
        energy.record, energy.scaling = record, rows.scaling
        return energy

    def _check_networks(self, energy: Any, record: NetworkRecord) -> None:
        """Raise ValueError unless user modules return the required number of values."""
        record.check_module("encoder", energy.encoder, record["n_features"], record["n_components"])
        record.check_module("decoder", energy.decoder, record["n_components"], record["n_features"])

    # ------------------------------------------------------------------ scale of the rows

    def _scaling(self, rows: Rows) -> Scaling | None:
        """Mean of each feature and one scale for all: the squared error keeps its meaning."""
        spread = measure_spread(rows)
        spread.warn_if_unequal(type(self).__name__)
        return None if self.output_activation == "sigmoid" else spread.scaling(common=True)

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> Rows:
        rows = super()._prepare(rows, seed, resume=resume, **data)
        if resume:
            self._check_resumable(
                rows
            )  # before the fitted scale is applied to rows of another width
        return rows.standardized(recall_scaling(self) if resume else self._scaling(rows))

    def _starting_energy(self, start: Start) -> Any:
        energy = super()._starting_energy(start)
        energy.standardization = None  # training rows are scaled already
        return energy

    # ------------------------------------------------------------------ fitted state

    def _energy(self, device: torch.device) -> Any:
        record = NetworkRecord.of_fitted(self, NETWORKS)
        energy = record.restore(self._assemble, self.weights_, device)
        scaling = recall_scaling(self)
        if scaling is not None:
            offset, scale = (
                torch.from_numpy(a).to(device) for a in (scaling.offset, scaling.scale)
            )
            energy.standardization = Standardization(offset, scale)
        energy.record, energy.scaling = record, scaling
        return energy

    def _export(self, energy: Any) -> dict[str, Any]:
        scaling = energy.scaling
        return {
            "architecture_": dict(energy.record.values),
            "weights_": export_weights(energy, self),
            "offset_": None if scaling is None else scaling.offset.copy(),
            "scale_": None if scaling is None else scaling.scale.copy(),
        }

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """Make an estimator from given weights, as if a fit had found them.

        Parameters
        ----------
        **parameters : object
            ``weights``, the arrays under their torch names; constructor parameters, including those
            that determine the networks; and other fitted attributes without their trailing
            underscore. Without ``offset`` and ``scale``, rows enter the networks unscaled.

        Returns
        -------
        estimator : object
            It transforms, scores, can be saved, and keeps learning with ``partial_fit``.

        Raises
        ------
        TypeError
            If a parameter is missing or its name is unknown.
        ValueError
            If the arrays do not fit the networks that the parameters describe.
        """
        if not isinstance(parameters.get("weights"), Mapping):
            raise TypeError(
                f"{cls.__name__}.from_parameters needs weights: a dictionary of the arrays of its "
                "networks under their torch names, such as encoder.0.weight."
            )
        weights = {name: np.array(array) for name, array in parameters["weights"].items()}
        names = set(cls._get_param_names())
        model = cls(**{name: value for name, value in parameters.items() if name in names})
        model._validate_params()
        n_features = _n_features(model, parameters, weights)
        state = {
            "architecture": dict(model._record(n_features).values),
            "feature_means": np.zeros(n_features),
        }
        return super().from_parameters(**{**state, **parameters, "weights": weights})

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        asked = self._record(rows.shape[1])
        NetworkRecord.of_fitted(self, NETWORKS).check_resumable(asked, self)

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "architecture_": Record(),
            "weights_": Record(),
            "offset_": Array("f", ("n_features_in_",), optional=True),
            "scale_": Array("f", ("n_features_in_",), optional=True),
            "latent_variances_": Array("f", ("n_components",), optional=True),
        }

    def _check_state(self) -> None:
        super()._check_state()
        if not self._is_fitted():
            return
        name, record = type(self).__name__, NetworkRecord.of_fitted(self, NETWORKS)
        record.check_fitted(self._record(self.n_features_in_), name)
        record.check_weights(self._assemble, self.weights_, name)
        scaling = recall_scaling(self)
        if scaling is not None and not bool((scaling.scale > 0.0).all()):
            raise ValueError(f"{name}.scale_ must be positive numbers.")

    # ------------------------------------------------------------------ training and diagnosis

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        x = batch.x
        energy.eval()
        parts = row_slices(len(x), 2 * energy.record.floats_per_row())
        total = sum(float(energy.free_energy(x[part]).double().sum()) for part in parts)
        return -total / len(x)

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        state = super()._fit(rows, progress, **data)
        fitted = self._twin({**self._unfitted_dict(), **state})
        # In the precision of the rows: far from zero, single precision would see them all alike.
        return {**state, **self._diagnose(fitted._energy(rows.device).to(rows.dtype), rows)}

    def _monitor_score(self, X: Any) -> float:
        rows = self._open(X, self, reset=False)
        with torch.no_grad():
            energy = self._energy(rows.device).to(rows.dtype)
            return self._validation_score(energy, Batch(rows.all()), seed=0)

    def _diagnose(self, energy: Any, rows: Rows) -> dict[str, Any]:
        """Fitted attributes that diagnose training, with warnings if it went wrong."""
        variances = latent_variances(energy, rows, 2 * energy.record.floats_per_row())
        warn_of_dead(variances, type(self).__name__)
        return {"latent_variances_": variances}

    # ------------------------------------------------------------------ row-wise methods

    def _floats_per_row(self) -> int:
        return 2 * NetworkRecord.of_fitted(self, NETWORKS).floats_per_row()

    @property
    def _n_features_out(self) -> int:
        return int(self.architecture_["n_components"])

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the mean squared error of the reconstruction of held-out rows.

        Comparable between settings of training (``learning_rate``, ``max_epochs``, ``activation``,
        penalties) for the same ``n_components`` and units of X. A wider code always reconstructs
        better: choose ``n_components`` by a score for the task at hand, such as that of a
        classifier on the codes, or by :func:`sklebm.metrics.make_ood_scorer`.

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


#: Constraints of the models that reconstruct, whose networks have more options.
RECONSTRUCTION_CONSTRAINTS: dict[str, list[Any]] = {
    **BaseAutoencoder._parameter_constraints,
    "code_activation": [StrOptions(set(ACTIVATIONS))],
    "output_activation": [StrOptions({"identity", "sigmoid"})],
    "tied": ["boolean"],
}


def _n_features(model: Any, parameters: Mapping[str, Any], weights: Mapping[str, Any]) -> int:
    """The number of features, from any given array that determines it."""
    for name in ("feature_means", "offset", "scale"):
        if parameters.get(name) is not None:
            return len(parameters[name])
    if model.image_shape is not None:
        return math.prod(model.image_shape)
    first = weights.get("encoder.0.weight")
    if model.encoder is not None or first is None or first.ndim != 2:
        raise TypeError(
            f"{type(model).__name__}.from_parameters cannot infer the number of features from "
            "weights: pass feature_means, the mean row."
        )
    return int(first.shape[1])


def sigmoid_bias(mean: torch.Tensor) -> torch.Tensor:
    """Log odds of a mean in [0, 1], kept away from certainty."""
    return torch.logit(mean.double().clamp(1e-3, 1.0 - 1e-3)).float()
