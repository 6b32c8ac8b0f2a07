"""Base of adversarial models: networks of generator and critic, training, fitted state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch

from sklebm._shell.conditions import CONDITIONS, Conditions
from sklebm._shell.private import Interval, StrOptions, fit_context
from sklebm._shell.progress import Progress
from sklebm._shell.random import purpose_seed
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import measure_spread, recall_scaling
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm.adversarial import _diagnosis
from sklebm.energies import networks
from sklebm.energies.adversarial import AdversarialEnergy, bound_slopes, widen
from sklebm.energies.standardization import Standardization
from sklebm.gradient import GradientEstimator
from sklebm.objectives import Batch
from sklebm.objectives.adversarial import CriticLoss, GeneratorLoss
from sklebm.training.architecture import NetworkRecord, build_user_module, export_weights
from sklebm.training.batches import training_rows
from sklebm.training.optimizers import OPTIMIZERS
from sklebm.training.pace import Pace
from sklebm.training.start import Start

#: Optimisers that take a step per batch; a game has no loss that a line search could follow.
RULES = {name for name, choice in OPTIMIZERS.items() if not choice.uses_closure}
# Both players train in one process.
_CONSTRAINTS = {
    k: v for k, v in GradientEstimator._parameter_constraints.items() if k != "strategy"
}


class BaseAdversarial(GradientEstimator):
    """A generator and a critic that train against each other."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **_CONSTRAINTS,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "conditional": ["boolean"],
        "hidden_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(networks.ACTIVATIONS))],
        "image_shape": ["array-like", None],
        "generator": [callable, None],
        "spectral_norm": ["boolean"],
        "average_decay": [Interval(Real, 0, 1, closed="left")],
        "critic_learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "critic_steps": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [StrOptions(RULES)],
        "critic_optimizer": [StrOptions(RULES), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }
    _pace = Pace(n_updates=4000, most_epochs=300)

    #: Parameters that may hold a user class.
    _networks: ClassVar[tuple[str, ...]]
    #: Whether critics start with bends all over the data. Generators do: a smooth network of two
    #: latents would start as a linear map, and cover one mode of several.
    _bends_critic: ClassVar[bool]

    architecture_: dict[str, Any]
    weights_: dict[str, Any]

    # ------------------------------------------------------------------ what a model supplies

    @abstractmethod
    def _objective(self, energy: Any) -> CriticLoss:
        """The game, as the critic's loss."""

    @abstractmethod
    def _assemble(self, record: NetworkRecord) -> AdversarialEnergy:
        """The energy of a record, with built-in networks on the meta device."""

    @abstractmethod
    def _parts(self, energy: Any, record: NetworkRecord) -> Iterator[tuple[str, Any, int, int]]:
        """Name, network, and numbers of inputs and outputs of each part of the critic."""

    def _further_values(self) -> dict[str, Any]:
        """Values beside the sizes of the networks that determine the energy."""
        return {}

    # ------------------------------------------------------------------ networks and rows

    def _record(self, n_features: int) -> NetworkRecord:
        n_given = Conditions.recalled(self).n_given if self.conditional else 0
        further = {**self._further_values(), "conditional": n_given}
        return NetworkRecord.from_parameters(self, n_features, self._networks, **further)

    def _from_latents(self, record: NetworkRecord, name: str, n_latents: int) -> torch.nn.Module:
        """A network from latents, and what is given, to rows."""
        given, n_inputs = record.classes.get(name), n_latents + record["conditional"]
        if given is not None:
            return build_user_module(given, name, n_inputs, record["n_features"])
        sizes, activation = record["hidden_sizes"].tolist(), record["activation"]
        return networks.make_decoder(n_inputs, sizes, record.shape, activation, "identity")

    def _from_rows(self, record: NetworkRecord, name: str, n_outputs: int) -> torch.nn.Module:
        """A network from rows, and what is given, to numbers."""
        given, n_given = record.classes.get(name), record["conditional"]
        if given is not None:
            return build_user_module(given, name, record["n_features"] + n_given, n_outputs)
        sizes, activation = record["hidden_sizes"].tolist(), record["activation"]
        shape = (record.shape[0] + n_given, *record.shape[1:])  # planes of an image
        return networks.make_encoder(shape, sizes, n_outputs, activation, "identity")

    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        record = self._record(len(means))
        energy = record.build(self._assemble, purpose_seed(generator.initial_seed(), "modules"))
        n_inputs = record["n_components"] + record["conditional"]
        own = ("generator", energy.generator.network, n_inputs, record["n_features"])
        for name, network, n_in, n_out in (own, *self._parts(energy, record)):
            if any(parameter.is_meta for parameter in network.parameters()):
                bends = name == "generator" or self._bends_critic
                (networks.initialize_spread if bends else networks.initialize)(network, generator)
            record.check_module(name, network, n_in, n_out)
        if not record.is_given("generator"):
            widen(energy.generator.network, torch.randn(1000, n_inputs, generator=generator))
        energy.generator.restart()
        return self._equipped(energy, record, rows.scaling)

    def _equipped(self, energy: Any, record: NetworkRecord, scaling: Any) -> Any:
        energy.n_components, energy.n_given = record["n_components"], record["conditional"]
        is_image = len(record.shape) == 3 and not record.is_given(self._networks[1])
        energy.n_pixels = record["n_features"] // record.n_channels if is_image else 1
        energy.record, energy.scaling = record, scaling
        energy.conditions = {name: getattr(self, name, None) for name in CONDITIONS}
        return energy

    # ------------------------------------------------------------------ fit

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the generator and the critic on the rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            With ``conditional=True``, the targets on which generation is conditioned:
            floating-point numbers, or labels of any other type. Ignored otherwise.

        Returns
        -------
        self : object
            The fitted estimator. It is left unchanged by an exception or an interrupt.
        """
        return self._learn_given(X, y, None, self._fit, goes_on=self._resumes())

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, classes: Any = None) -> Self:
        """Update generator and critic with one pass over a chunk of rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The next chunk of training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of the rows, as in ``fit``; ignored unless ``conditional=True``.
        classes : array-like of shape (n_classes,), default=None
            All labels that may occur in any chunk; None: those of the first chunk. Ignored in later
            calls and unless ``conditional=True``.

        Returns
        -------
        self : object
            The updated estimator. It is left unchanged by an exception or an interrupt.
        """
        self._validate_params()
        return self._learn_given(X, y, classes, self._partial_fit, goes_on=self._is_fitted())

    def _learn_given(self, X: Any, y: Any, classes: Any, step: Any, *, goes_on: bool) -> Self:
        """Learn from rows with what is given of them."""
        first = step == self._fit or not self._is_fitted()
        if not self.conditional:
            return self._learn(X, step, first=first, conditions=Conditions())
        owner = f"{type(self).__name__}(conditional=True)"
        if goes_on and self.architecture_["conditional"]:
            conditions = Conditions.recalled(self)
        else:
            conditions = Conditions.learnt(y, owner, classes)
        columns = {"target": conditions.column(y, owner)}
        return self._learn(X, step, first=first, columns=columns, conditions=conditions)

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        learner = self._twin({**vars(self), **data["conditions"].state()})
        return GradientEstimator._fit(learner, rows, progress)

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        learner = self._twin({**vars(self), **data["conditions"].state()})
        return GradientEstimator._partial_fit(learner, rows, progress)

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
        loss = self._objective(energy)
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
        if hasattr(energy, "follow"):
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
        return _diagnosis.closeness(energy, batch, seed)

    def _monitor_score(self, X: Any) -> float:
        if self.architecture_["conditional"]:
            raise ValueError(
                f"{type(self).__name__}(conditional=True) is judged by rows and their y, but a "
                "monitor passes X alone: set validation_fraction, or pass the monitor a score."
            )
        rows = self._open(X, self, reset=False).standardized(recall_scaling(self))
        energy = self._energy(rows.device).float()
        return _diagnosis.closeness(energy, training_rows(rows).batch(rows.device), seed=0)

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        return {**state, **_diagnosis.diagnose(energy, type(self).__name__, seed)}

    # ------------------------------------------------------------------ fitted state

    def _energy(self, device: torch.device) -> Any:
        record = NetworkRecord.of_fitted(self, self._networks)
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
            **energy.conditions,
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
            ``scale``, without which rows are unscaled; with ``conditional=True`` either ``classes``
            or ``target_offset`` and ``target_scale``; constructor parameters, including those that
            determine the networks; and other fitted attributes without their trailing underscore.

        Returns
        -------
        estimator : object
            A fitted estimator, which can be saved and trained further with ``partial_fit``.

        Raises
        ------
        TypeError
            If a parameter is missing or its name is unknown.
        ValueError
            If the arrays do not fit the networks that the parameters describe.
        """
        weights = parameters.get("weights")
        sizes = [parameters.get(name) for name in ("feature_means", "offset", "scale")]
        known = next((len(value) for value in sizes if value is not None), None)
        if not isinstance(weights, Mapping) or known is None:
            raise TypeError(
                f"{cls.__name__}.from_parameters needs weights, a dictionary of the arrays of its "
                "networks under their torch names, and feature_means, the mean row."
            )
        names = set(cls._get_param_names())
        model = cls(**{name: value for name, value in parameters.items() if name in names})
        model._validate_params()
        of_targets = {name: parameters.get(name.removesuffix("_")) for name in CONDITIONS}
        given = {k: None if v is None else np.array(v) for k, v in of_targets.items()}
        model = model._twin({**vars(model), **given})
        if model.conditional and Conditions.recalled(model).n_given == 0:
            raise TypeError(
                f"{cls.__name__}.from_parameters with conditional=True needs classes, the labels, "
                "or target_offset and target_scale, by which numbers are standardised."
            )
        state = {
            "architecture": dict(model._record(known).values),
            "feature_means": np.zeros(known),
            **parameters,
            **{k.removesuffix("_"): v for k, v in given.items() if v is not None},
            "weights": {name: np.array(array) for name, array in weights.items()},
        }
        return super().from_parameters(**state)

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        asked = self._record(rows.shape[1])
        NetworkRecord.of_fitted(self, self._networks).check_resumable(asked, self)

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "architecture_": Record(),
            "weights_": Record(),
            "offset_": Array("f", ("n_features_in_",), optional=True),
            "scale_": Array("f", ("n_features_in_",), optional=True),
            **CONDITIONS,
            "critic_gap_": Scalar(float, optional=True),
            "sample_spread_": Scalar(float, 0.0, optional=True),
        }

    def _check_state(self) -> None:
        super()._check_state()
        if not self._is_fitted():
            return
        name, record = type(self).__name__, NetworkRecord.of_fitted(self, self._networks)
        record.check_fitted(self._record(self.n_features_in_), name)
        record.check_weights(self._assemble, self.weights_, name)
        scaling = recall_scaling(self)
        if scaling is not None and not bool((scaling.scale > 0.0).all()):
            raise ValueError(f"{name}.scale_ must be positive numbers.")
        if self.conditional:
            Conditions.recalled(self).check(name)

    # ------------------------------------------------------------------ what it answers

    def _floats_per_row(self) -> int:
        record = NetworkRecord.of_fitted(self, self._networks)
        planes = record["conditional"] * record["n_features"]  # at most; of an image
        return int(4 * (record.floats_per_row() + planes))

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Fit the estimator, and return ``transform`` of the training rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            As in ``fit``.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_features_out)
            What ``fit(X, y).transform(X, y)`` returns.
        """
        return self.fit(X, y).transform(X, y)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = bool(self.conditional)
        return tags
