"""Networks, players, samples and fitted state of EnergyGAN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch

from sklebm._checks import check_count
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState, draw_seed, make_generator, purpose_seed
from sklebm._shell.rows import Rows, resolve_device, row_slices
from sklebm._shell.scaling import measure_spread, recall_scaling
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm._shell.warning import warn
from sklebm.energies.adversarial import AdversarialReconstruction, AveragedNetwork, bound_slopes
from sklebm.energies.networks import ACTIVATIONS, initialize, make_decoder
from sklebm.energies.standardization import Standardization
from sklebm.gradient import GradientEstimator, Start
from sklebm.inference.latents import closest_latents
from sklebm.objectives import Batch
from sklebm.objectives.adversarial import GeneratorLoss, energy_distance
from sklebm.training.architecture import (
    NetworkRecord,
    build_user_module,
    export_weights,
)
from sklebm.training.batches import training_rows
from sklebm.training.optimizers import OPTIMIZERS
from sklebm.training.pace import Pace

#: Optimisers that take a step per batch; a game has no loss that a line search could follow.
RULES = {name for name, choice in OPTIMIZERS.items() if not choice.uses_closure}
#: Samples that vary less than this share of the data's variance are called a collapse.
LEAST_SPREAD = 0.05
NETWORKS = ("generator", "encoder", "decoder")
_N_PROBES = 1000
# Both players train in one process.
_CONSTRAINTS = {
    k: v for k, v in GradientEstimator._parameter_constraints.items() if k != "strategy"
}


class BaseAdversarial(GradientEstimator):
    """A generator and a critic that train against each other."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **_CONSTRAINTS,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_codes": [Interval(Integral, 1, None, closed="left")],
        "margin": [Interval(Real, 0, None, closed="neither")],
        "margin_decay": [Interval(Real, 0, 1, closed="right")],
        "pull_away": [Interval(Real, 0, None, closed="left")],
        "hidden_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "image_shape": ["array-like", None],
        **{name: [callable, None] for name in NETWORKS},
        "spectral_norm": ["boolean"],
        "average_decay": [Interval(Real, 0, 1, closed="left")],
        "critic_learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "critic_steps": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [StrOptions(RULES)],
        "critic_optimizer": [StrOptions(RULES), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }
    _pace = Pace(n_updates=4000, most_epochs=300)

    architecture_: dict[str, Any]
    weights_: dict[str, Any]

    # ------------------------------------------------------------------ networks and rows

    def _record(self, n_features: int) -> NetworkRecord:
        further = {"n_codes": int(self.n_codes)}
        return NetworkRecord.from_parameters(self, n_features, NETWORKS, **further)

    def _assemble(self, record: NetworkRecord) -> AdversarialReconstruction:
        """The energy of a record, with built-in networks on the meta device."""

        def make(name: str, n_inputs: int) -> torch.nn.Module:
            given = record.classes.get(name)
            if given is not None:
                return build_user_module(given, name, n_inputs, record["n_features"])
            sizes, activation = record["hidden_sizes"].tolist(), record["activation"]
            return make_decoder(n_inputs, sizes, record.shape, activation, "identity")

        n_codes = record["n_codes"]
        own = AveragedNetwork(make("generator", record["n_components"]))
        return AdversarialReconstruction(own, record.encoder(n_codes), make("decoder", n_codes))

    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        record = self._record(len(means))
        energy = record.build(self._assemble, purpose_seed(generator.initial_seed(), "modules"))
        for network in (energy.generator.network, *energy.critic.values()):
            if any(parameter.is_meta for parameter in network.parameters()):
                initialize(network, generator)
        n_features, n_codes = record["n_features"], record["n_codes"]
        own, critic = energy.generator.network, energy.critic
        record.check_module("generator", own, record["n_components"], n_features)
        record.check_module("encoder", critic["encoder"], n_features, n_codes)
        record.check_module("decoder", critic["decoder"], n_codes, n_features)
        energy.generator.restart()
        return self._equipped(energy, record, rows.scaling)

    @staticmethod
    def _equipped(energy: Any, record: NetworkRecord, scaling: Any) -> Any:
        energy.n_components = record["n_components"]
        energy.record, energy.scaling = record, scaling
        return energy

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> Rows:
        rows = super()._prepare(rows, seed, resume=resume, **data)
        if resume:
            self._check_resumable(rows)
            return rows.standardized(recall_scaling(self))
        # Features of a table have units of their own; pixels have one.
        common = self.image_shape is not None
        return rows.standardized(measure_spread(rows).scaling(common=common))

    def _starting_energy(self, start: Start) -> Any:
        energy = super()._starting_energy(start)
        energy.standardization = None  # training rows are scaled already
        energy.rows = start.rows
        return energy

    # ------------------------------------------------------------------ the game

    def _players(self, energy: Any, start: Start) -> list[Any]:
        loss: Any = self._objective(energy)
        critic = self._player(
            energy,
            loss,
            start,
            moved=energy.critic,
            name="critic",
            n_steps=int(self.critic_steps),
        )
        own = self._player(
            energy, GeneratorLoss(loss.game), start, moved=energy.generator, name="generator"
        )
        return [critic, own]

    def _projections(self, energy: Any) -> Any:
        if isinstance(energy, AveragedNetwork):
            return (lambda: energy.follow(float(self.average_decay)),)
        return (lambda: bound_slopes(energy),) if self.spectral_norm else ()

    def _options(self, seed: int) -> Any:
        rate, rule = self.critic_learning_rate, self.critic_optimizer
        return replace(
            super()._options(seed),
            rates={} if rate is None else {"critic": float(rate)},
            optimizers={} if rule is None else {"critic": rule},
        )

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        """Minus the energy distance between held-out rows and as many samples."""
        energy.eval()
        x = batch.x[:_N_PROBES]
        generator = make_generator(seed, "validation", device=x.device)
        z = torch.empty(len(x), energy.n_components, device=x.device).normal_(generator=generator)
        score = -energy_distance(x, energy.generator.average(z))
        energy.train()
        return score

    def _monitor_score(self, X: Any) -> float:
        rows = self._open(X, self, reset=False).standardized(recall_scaling(self))
        with torch.no_grad():
            batch = training_rows(rows).batch(rows.device)
            return self._validation_score(self._energy(rows.device).float(), batch, seed=0)

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        """The gap between the critic's means, and the spread of samples, with warnings."""
        rows, name = energy.rows, type(self).__name__
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), _N_PROBES)).astype(np.intp)
        x = rows[chosen].float()
        generator = make_generator(seed, "diagnosis", device=x.device)
        energy.eval()
        with torch.no_grad():
            z = torch.empty(_N_PROBES, energy.n_components, device=x.device)
            drawn = energy.generator.average(z.normal_(generator=generator))
            real, forged = energy.judge(x).double(), energy.judge(drawn).double()
            spread = drawn.double().var(dim=0).mean() / rows_variance(x)
        gap = float(real.mean() - forged.mean())
        if float(spread) < LEAST_SPREAD:
            warn(
                f"The samples of {name} have collapsed: their variance is {float(spread):.2g} of "
                f"the data's, below {LEAST_SPREAD:g} (critic's gap {gap:.2g}). Lower "
                "learning_rate, raise critic_steps or max_epochs, or set another random_state."
            )
        both = torch.cat([real, forged])
        if float(both.max() - both.min()) <= 1e-6 * float(both.abs().max()) + 1e-12:
            warn(
                f"The critic of {name} says the same of all rows (its gap between data and samples "
                f"is {gap:.2g}), so that the generator learns nothing. Lower "
                "critic_learning_rate, or check that the rows differ."
            )
        return {**state, "critic_gap_": gap, "sample_spread_": float(spread)}

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
        return self._equipped(energy, record, scaling)

    def _export(self, energy: Any) -> dict[str, Any]:
        scaling = energy.scaling
        return {
            "architecture_": dict(energy.record.values),
            "weights_": export_weights(energy, self),
            "offset_": None if scaling is None else scaling.offset.copy(),
            "scale_": None if scaling is None else scaling.scale.copy(),
        }

    def _trained(self, course: Any, seed: int, seen: Any, n_calls: int = 0) -> dict[str, Any]:
        state = super()._trained(course, seed, seen, n_calls)
        return {**state, "critic_gap_": None, "sample_spread_": None}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """Make an estimator from given weights, as if a fit had found them.

        Parameters
        ----------
        **parameters : object
            ``weights``, the arrays under their torch names; ``feature_means``, or ``offset`` and
            ``scale``, without which rows are unscaled; parameters of the constructor, including
            those that determine the networks; and other fitted attributes without their underscore.

        Returns
        -------
        estimator : object
            It samples, scores, can be saved, and keeps learning with ``partial_fit``.

        Raises
        ------
        TypeError
            If a parameter is missing or its name is unknown.
        ValueError
            If the arrays do not fit the networks that the parameters describe.
        """
        weights = parameters.get("weights")
        given = [parameters.get(name) for name in ("feature_means", "offset", "scale")]
        known = next((len(value) for value in given if value is not None), None)
        if not isinstance(weights, Mapping) or known is None:
            raise TypeError(
                f"{cls.__name__}.from_parameters needs weights, a dictionary of the arrays of its "
                "networks under their torch names, and feature_means, the mean row."
            )
        names = set(cls._get_param_names())
        model = cls(**{name: value for name, value in parameters.items() if name in names})
        model._validate_params()
        state = {
            "architecture": dict(model._record(known).values),
            "feature_means": np.zeros(known),
        }
        arrays = {name: np.array(array) for name, array in weights.items()}
        return super().from_parameters(**{**state, **parameters, "weights": arrays})

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
            "critic_gap_": Scalar(float, optional=True),
            "sample_spread_": Scalar(float, 0.0, optional=True),
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

    # ------------------------------------------------------------------ what it answers

    @property
    def _n_features_out(self) -> int:
        return int(self.architecture_["n_codes"])

    def _floats_per_row(self) -> int:
        return 4 * NetworkRecord.of_fitted(self, NETWORKS).floats_per_row()

    def _drawn(self, n_samples: int, random_state: RandomState) -> Any:
        """Rows of new latents."""
        check_count(n_samples, "n_samples")
        device = resolve_device(self.device, None, self._prefers_cuda)
        energy = self._energy(device).float()
        generator = make_generator(draw_seed(random_state), "sampling")
        out = np.empty((n_samples, self.n_features_in_), dtype=np.float32)
        with torch.no_grad():
            for part in row_slices(n_samples, self._floats_per_row()):
                z = torch.empty(len(out[part]), energy.n_components)
                z.normal_(generator=generator)
                out[part] = energy.decode(z.to(device)).cpu().numpy()
        return out

    def _decoded(self, Z: Any, what: str) -> Any:
        """Rows of given latents."""
        probe = self._twin(self._unfitted_dict())
        rows = self._read(Z, probe, reset=True)
        width = int(self.architecture_["n_components"])
        if rows.shape[1] != width:
            raise ValueError(
                f"Z has {rows.shape[1]} columns, but the generator of {type(self).__name__} takes "
                f"latents of {width} columns, such as those that invert returns."
            )
        energy = self._energy(rows.device).to(rows.dtype)
        return rows.map(
            energy.decode,
            floats_per_row=self._floats_per_row(),
            what=f"{type(self).__name__}.{what}",
        )

    def _inverted(self, X: Any, n_starts: int, n_steps: int, what: str) -> Any:
        """The closest latents, from the same starts for every row."""
        check_count(n_starts, "n_starts")
        check_count(n_steps, "n_steps")
        width = int(self.architecture_["n_components"])
        starts = torch.randn(n_starts, width, generator=make_generator(0, "inversion"))
        starts[0] = 0.0
        slopes = width * (self.n_features_in_ + width)
        floats = n_starts * (self._floats_per_row() + slopes)

        def invert(energy: Any, x: torch.Tensor) -> torch.Tensor:
            energy.requires_grad_(requires_grad=False)
            decode = energy.generator.average
            y = energy.standardized(x)
            parts = [
                closest_latents(decode, y[part], starts, n_steps=n_steps)[0]
                for part in row_slices(len(y), floats, y.device)
            ]
            return torch.cat(parts)

        return self._map_rows(X, invert, what)


def rows_variance(x: torch.Tensor) -> float:
    """Mean variance of the features; 1 if rows do not vary."""
    variance = float(x.double().var(dim=0).mean()) if len(x) > 1 else 0.0
    return variance or 1.0
