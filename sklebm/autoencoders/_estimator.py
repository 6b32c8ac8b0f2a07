"""What all auto-encoders share: networks, fitted state, row-wise methods, diagnosis."""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import purpose_seed
from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.state import Array, Record, Spec
from sklebm.energies.networks import (
    ACTIVATIONS,
    initialize,
    make_decoder,
    make_encoder,
    n_activations,
    set_input_bias,
    set_output_bias,
)
from sklebm.gradient import GradientEstimator
from sklebm.objectives import Batch
from sklebm.training.architecture import (
    build_user_module,
    check_arrays,
    check_image_shape,
    check_record,
    check_resumable,
    check_sizes,
    check_user_module,
    export_weights,
    import_weights,
    seeded,
)

#: Rows that the diagnosis after training looks at, at most.
_MAX_DIAGNOSED = 2_000


class AutoencoderEstimator(GradientEstimator):
    """Base of the auto-encoders.

    A model supplies ``_architecture`` (the record that its networks follow from), ``_assemble``
    (the energy around them), ``_objective``, and what to make of ``latent_variances_``.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GradientEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "image_shape": ["array-like", None],
        "encoder": [callable, None],
        "decoder": [callable, None],
    }
    #: A code whose variance over the training rows is at most this is dead.
    _least_variance: ClassVar[float] = 0.0

    architecture_: dict[str, Any]
    weights_: dict[str, Any]

    # ------------------------------------------------------------------ networks

    def _architecture(self, n_features: int) -> dict[str, Any]:
        """The networks as plain values, from checked parameters; models extend it."""
        check_image_shape(self.image_shape, n_features)
        shape = () if self.image_shape is None else self.image_shape
        return {
            "n_features": n_features,
            "n_components": int(self.n_components),
            "hidden_sizes": np.array(check_sizes(self.hidden_sizes), dtype=np.int64),
            "image_shape": np.array(shape, dtype=np.int64),
            "activation": str(self.activation),
            "own_encoder": "built in" if self.encoder is None else "given",
            "own_decoder": "built in" if self.decoder is None else "given",
        }

    def _build(self, architecture: dict[str, Any], seed: int | None) -> Any:
        """``_assemble``, around which torch's generator stays as it was."""
        if self.encoder is None and self.decoder is None:
            return self._assemble(architecture)  # draws nothing, and needs no lock
        with seeded(seed):
            return self._assemble(architecture)

    @abstractmethod
    def _assemble(self, architecture: dict[str, Any]) -> Any:
        """Return the energy; built-in networks are on the meta device."""

    def _make_encoder(self, architecture: dict[str, Any], n_outputs: int, last: str) -> nn.Module:
        if self.encoder is not None:
            return build_user_module(self.encoder, "encoder", architecture["n_features"], n_outputs)
        shape, sizes = row_shape(architecture), architecture["hidden_sizes"].tolist()
        return make_encoder(shape, sizes, n_outputs, architecture["activation"], last)

    def _make_decoder(
        self,
        architecture: dict[str, Any],
        last: str,
        *,
        n_per_feature: int = 1,
        tied_to: Any = None,
    ) -> nn.Module:
        n_inputs, n_features = architecture["n_components"], architecture["n_features"]
        if self.decoder is not None:
            return build_user_module(self.decoder, "decoder", n_inputs, n_per_feature * n_features)
        return make_decoder(
            n_inputs,
            architecture["hidden_sizes"].tolist(),
            row_shape(architecture),
            architecture["activation"],
            last,
            n_per_feature=n_per_feature,
            tied_to=tied_to,
        )

    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        mean = means.float()
        architecture = self._architecture(len(mean))
        seed = purpose_seed(generator.initial_seed(), "modules")
        energy = self._build(architecture, seed)
        for network in (energy.encoder, energy.decoder):
            if any(parameter.is_meta for parameter in network.parameters()):
                initialize(network, generator)
        # The networks need not learn what is the same in all rows.
        n_channels = row_shape(architecture)[0] if len(architecture["image_shape"]) else 1
        if self.encoder is None:
            set_input_bias(energy.encoder, mean, n_channels)
            self._prepare_encoder(energy)
        if self.decoder is None:
            set_output_bias(energy.decoder, self._output_bias(mean), n_channels)
        self._check_user_modules(energy, architecture)
        energy.architecture = architecture
        return energy

    def _prepare_encoder(self, energy: Any) -> None:
        """Change the first weights of a built-in encoder; most models leave them as they are."""

    def _output_bias(self, mean: torch.Tensor) -> torch.Tensor:
        """What the decoder adds last, given the mean row."""
        return mean

    def _check_user_modules(self, energy: Any, architecture: dict[str, Any]) -> None:
        n_features, n_codes = architecture["n_features"], architecture["n_components"]
        if self.encoder is not None:
            check_user_module(energy.encoder, "encoder", n_features, self._n_encoder_outputs())
        if self.decoder is not None:
            check_user_module(
                energy.decoder, "decoder", n_codes, self._n_per_feature() * n_features
            )

    def _n_encoder_outputs(self) -> int:
        return int(self.n_components)

    def _n_per_feature(self) -> int:
        return 1

    def _energy(self, device: torch.device) -> Any:
        energy = self._build(self.architecture_, None)
        import_weights(energy, self.weights_, device)
        energy.architecture = self.architecture_
        return energy.to(device).eval()

    def _export(self, energy: Any) -> dict[str, Any]:
        weights = export_weights(energy, self)
        return {"architecture_": dict(energy.architecture), "weights_": weights}

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        check_resumable(self, self._architecture(rows.shape[1]), self.architecture_)

    # ------------------------------------------------------------------ state

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "architecture_": Record(),
            "weights_": Record(),
            "latent_variances_": Array("f", (self.n_components,), optional=True),
        }

    def _check_state(self) -> None:
        super()._check_state()
        if not self._is_fitted():
            return
        name = type(self).__name__
        check_record(self._architecture(self.n_features_in_), self.architecture_, name)
        energy = self._build(self.architecture_, None)
        check_arrays(energy, self.weights_, name)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        x = batch.x
        energy.eval()
        parts = row_slices(len(x), self._floats_of(energy.architecture))
        total = sum(float(energy.free_energy(x[part]).double().sum()) for part in parts)
        return -total / len(x)

    # ------------------------------------------------------------------ diagnosis

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        state = super()._fit(rows, progress, **data)
        variances = self._latent_variances(rows, state)
        self._warn_of_dead(variances)
        return {**state, "latent_variances_": variances}

    def _latent_variances(self, rows: Rows, state: dict[str, Any]) -> Any:
        """Variance of each code over the training rows, of which it takes evenly spaced ones."""
        probe = copy.copy(self)
        probe.__dict__ = {**self._unfitted_dict(), **state}
        energy = probe._energy(rows.device)
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), _MAX_DIAGNOSED)).astype(np.intp)
        parts = row_slices(len(chosen), self._floats_of(energy.architecture))
        with torch.no_grad():
            parts_of = [energy.encode(rows[chosen[part]].float()).double().cpu() for part in parts]
        codes, ranks = torch.cat(parts_of), rows.ranks
        n_codes = ranks.total(len(codes))
        mean = ranks.sum(codes.sum(dim=0)) / n_codes
        return (ranks.sum((codes - mean).square().sum(dim=0)) / n_codes).numpy()

    def _warn_of_dead(self, variances: Any) -> None:
        n_dead = int((variances <= self._least_variance).sum())
        if not n_dead:
            return
        if n_dead == len(variances):
            warnings.warn(self._collapse_message(n_dead), UserWarning, stacklevel=6)
        elif self._least_variance == 0.0:
            warnings.warn(
                f"{n_dead} of {len(variances)} latents of {type(self).__name__} are dead: they "
                "are the same for all training rows. Lower learning_rate or n_components.",
                UserWarning,
                stacklevel=6,
            )

    def _collapse_message(self, n_latents: int) -> str:
        return (
            f"The code of {type(self).__name__} has collapsed: none of its {n_latents} latents "
            "differs between the training rows. Check that the rows differ, lower learning_rate, "
            "or raise max_epochs."
        )

    # ------------------------------------------------------------------ row-wise methods

    def _floats_of(self, architecture: dict[str, Any]) -> int:
        hidden = n_activations(row_shape(architecture), architecture["hidden_sizes"].tolist())
        return 2 * int(hidden + architecture["n_components"] + architecture["n_features"])

    def _floats_per_row(self) -> int:
        return self._floats_of(self.architecture_)

    @property
    def _n_features_out(self) -> int:
        return int(self.architecture_["n_components"])

    def transform(self, X: Any) -> Any:
        """Return the code of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            Codes, the encoder's output.
        """
        return self._map_rows(X, lambda energy, x: energy.encode(x), "transform")

    def inverse_transform(self, Z: Any) -> Any:
        """Return the row that each code decodes to.

        Parameters
        ----------
        Z : array-like or tensor of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        X : array or tensor of shape (n_samples, n_features)
            The decoder's output; a mean where the decoder defines a distribution.
        """
        return self._map_rows(
            Z, lambda energy, z: energy.decode(z), "inverse_transform", latents=True
        )

    def reconstruct(self, X: Any) -> Any:
        """Return what the code of each row decodes to.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode and decode.

        Returns
        -------
        X_reconstructed : array or tensor of shape (n_samples, n_features)
            ``inverse_transform(transform(X))``.
        """
        return self._map_rows(X, lambda energy, x: energy.reconstruct(x), "reconstruct")


def row_shape(architecture: dict[str, Any]) -> tuple[int, ...]:
    """(n_features,), or (channels, height, width) of a row."""
    sides = architecture["image_shape"].tolist()
    return check_image_shape(sides or None, int(architecture["n_features"]))


def sigmoid_bias(mean: torch.Tensor) -> torch.Tensor:
    """Log odds of a mean in [0, 1], kept away from certainty."""
    return torch.logit(mean.double().clamp(1e-3, 1.0 - 1e-3)).float()


def count(name: str, value: Any) -> int:
    """A positive integer, or ValueError."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer.")
    return int(value)
