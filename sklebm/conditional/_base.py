"""Shared code of conditional energies: networks, the scale of the rows, targets, fitted state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sklebm._shell.merging import merge_repeated, of_positive_weight
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import draw_seed, make_generator, purpose_seed
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import Scaling, measure_spread, recall_scaling
from sklebm._shell.state import Array, Record, Spec
from sklebm.energies.networks import ACTIVATIONS, initialize_spread
from sklebm.energies.standardization import Standardization
from sklebm.gradient import GradientEstimator
from sklebm.training.architecture import (
    NetworkRecord,
    check_image_shape,
    check_sizes,
    export_weights,
)
from sklebm.training.pace import Pace
from sklebm.training.start import Start


class ConditionalEstimator(GradientEstimator):
    """A network of rows, and what is known of the targets, as fitted state.

    A model supplies ``_assemble``, ``_n_outputs``, ``_objective``, ``_validation_score`` and its
    public methods. What follows from the targets alone, such as the labels, is listed in
    ``_of_targets`` and passed to ``_taught``.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{k: v for k, v in GradientEstimator._parameter_constraints.items() if k != "strategy"},
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "hidden_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "network": [callable, None],
        "alpha": [Interval(Real, 0, None, closed="left")],
    }

    _accepts_sparse = True
    _pace = Pace(n_updates=2000, most_epochs=300)
    #: Fitted attributes that follow from the targets, before any training.
    _of_targets: ClassVar[tuple[str, ...]] = ()

    architecture_: dict[str, Any]
    weights_: dict[str, Any]
    offset_: NDArray[np.float64] | None
    scale_: NDArray[np.float64] | None

    # ------------------------------------------------------------------ what a model supplies

    @abstractmethod
    def _assemble(self, record: NetworkRecord) -> Any:
        """The energy of a record, with built-in networks on the meta device."""

    @abstractmethod
    def _n_outputs(self) -> int:
        """Number of outputs of the network."""

    def _n_inputs(self, n_features: int) -> int:
        """Number of inputs of the network."""
        return n_features

    def _further_values(self) -> dict[str, Any]:
        """Values beside the sizes of the network that determine the energy."""
        return {}

    # ------------------------------------------------------------------ learning

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        merged = merge_repeated(rows)
        # A closed form has nothing to continue from.
        goes_on = self._resumes() and self._has_network()
        merged, known = self._read_targets_of(merged, data, goes_on=goes_on)
        learner = self._taught(known)
        if self._has_network():
            return GradientEstimator._fit(learner, merged, progress)
        return learner._without_training(merged)

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        if not self._has_network():
            raise ValueError(
                f"{type(self).__name__} without a network is fitted in closed form to all rows: "
                "use fit, or hidden_sizes with at least one layer."
            )
        rows = of_positive_weight(rows)  # the first chunk decides offsets and scales
        rows, known = self._read_targets_of(rows, data, goes_on=self._is_fitted(), chunk=True)
        return GradientEstimator._partial_fit(self._taught(known), rows, progress)

    def _read_targets_of(
        self, rows: Rows, known: dict[str, Any], *, goes_on: bool, chunk: bool = False
    ) -> tuple[Rows, dict[str, Any]]:
        """The rows with targets as the energy takes them, and all that follows from the targets.

        ``known`` was learnt from y alone; ``goes_on``: the fitted state is kept; ``chunk``: other
        rows may have come before, and others may follow.
        """
        return rows, known

    def _has_network(self) -> bool:
        """Whether there is anything to train; models with a closed form override it."""
        return True

    def _without_training(self, rows: Rows) -> dict[str, Any]:
        """The fitted state of a model without a network."""
        seed = draw_seed(self.random_state)
        rows = self._prepare(rows, seed, resume=False)
        means = torch.zeros(rows.shape[1], dtype=torch.float64)
        energy = self._initial_energy(rows, means, make_generator(seed, "parameters"))
        state = self._untrained_state({"n_features_in_": rows.shape[1]})
        offset = np.zeros(rows.shape[1]) if rows.scaling is None else rows.scaling.offset.copy()
        seen = {"feature_means_": offset, "n_samples_seen_": rows.total()}
        return {**state, **self._export(energy), **seen}

    def _taught(self, of_targets: Mapping[str, Any]) -> Self:
        """A copy of this estimator that knows what follows from the targets."""
        return self._twin({**vars(self), **of_targets})

    def _max_steps(self, rows: Rows) -> int:
        return self._n_epochs(merge_repeated(rows) if isinstance(self.max_epochs, str) else rows)

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> Rows:
        rows = super()._prepare(rows, seed, resume=resume, **data)
        if resume:
            self._check_resumable(rows)
            return rows.standardized(recall_scaling(self))
        return rows.standardized(self._scaling(rows))

    def _scaling(self, rows: Rows) -> Scaling | None:
        return measure_spread(rows).scaling(common=False) if self.standardize else None

    def _starting_energy(self, start: Start) -> Any:
        energy = super()._starting_energy(start)
        energy.standardization = None  # training rows are scaled already
        return energy

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        asked = self._record(rows.shape[1])
        self._fitted_record().check_resumable(asked, self)

    # ------------------------------------------------------------------ the energy and its state

    def _record(self, n_features: int) -> NetworkRecord:
        """The network that the parameters specify."""
        sides = getattr(self, "image_shape", None)
        check_image_shape(sides, n_features)
        shape = () if sides is None else sides
        values = {
            "n_features": self._n_inputs(n_features),
            "n_components": self._n_outputs(),
            "hidden_sizes": np.array(check_sizes(self.hidden_sizes), dtype=np.int64),
            "image_shape": np.array(shape, dtype=np.int64),
            "activation": str(self.activation),
            "own_network": "built in" if self.network is None else "given",
            **self._further_values(),
        }
        return NetworkRecord(values, self._classes())

    def _fitted_record(self) -> NetworkRecord:
        """The network of the fitted state."""
        return NetworkRecord(self.architecture_, self._classes())

    def _classes(self) -> dict[str, Any]:
        """User classes by the names of the networks; None: built in."""
        return {"network": self.network}

    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        record = self._record(len(means))
        energy = record.build(self._assemble, purpose_seed(generator.initial_seed(), "modules"))
        for network in (getattr(energy, name, None) for name in self._classes()):
            if network is not None and any(p.is_meta for p in network.parameters()):
                initialize_spread(network, generator)
        n_inputs, n_outputs = self._n_inputs(len(means)), self._n_outputs()
        record.check_module("network", energy.network, n_inputs, n_outputs)
        energy.record, energy.scaling = record, rows.scaling
        return energy.train()

    def _energy(self, device: torch.device) -> Any:
        record = self._fitted_record()
        energy = record.restore(self._assemble, self.weights_, device)
        scaling = recall_scaling(self)
        if scaling is not None:
            parts = (torch.from_numpy(a).to(device) for a in (scaling.offset, scaling.scale))
            energy.standardization = Standardization(*parts)
        energy.record, energy.scaling = record, scaling
        return energy

    def _export(self, energy: Any) -> dict[str, Any]:
        scaling = energy.scaling
        return {
            "architecture_": dict(energy.record.values),
            "weights_": export_weights(energy, self),
            "offset_": None if scaling is None else scaling.offset.copy(),
            "scale_": None if scaling is None else scaling.scale.copy(),
            **{name: getattr(self, name) for name in self._of_targets},
        }

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "architecture_": Record(),
            "weights_": Record(),
            "offset_": Array("f", ("n_features_in_",), optional=True),
            "scale_": Array("f", ("n_features_in_",), optional=True),
        }

    def _check_state(self) -> None:
        super()._check_state()
        if not self._is_fitted():
            return
        name, record = type(self).__name__, self._fitted_record()
        record.check_fitted(self._record(self.n_features_in_), name)
        record.check_weights(self._assemble, self.weights_, name)
        scaling = recall_scaling(self)
        if scaling is not None and not bool((scaling.scale > 0.0).all()):
            raise ValueError(f"{name}.scale_ must be positive numbers.")

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """Make an estimator from given weights, as if a fit had found them.

        Parameters
        ----------
        **parameters : object
            ``weights``, the arrays under their torch names; what follows from the targets, such as
            ``classes``; parameters of the constructor, including those that determine the network;
            and other fitted attributes without their underscore. Without ``offset`` and ``scale``
            rows enter the network unscaled.

        Returns
        -------
        estimator : object
            It predicts, can be saved, and keeps learning with ``partial_fit``.

        Raises
        ------
        TypeError
            If a parameter is missing or its name is unknown.
        ValueError
            If the arrays do not fit the network that the parameters describe.
        """
        needed = {
            "weights": Mapping,
            **{name.removesuffix("_"): object for name in cls._of_targets},
        }
        for name, kind in needed.items():
            if not isinstance(parameters.get(name), kind) or parameters.get(name) is None:
                raise TypeError(
                    f"{cls.__name__}.from_parameters needs {', '.join(needed)}: pass the arrays of "
                    "the network under their torch names as weights."
                )
        parameters["weights"] = {k: np.array(v) for k, v in parameters["weights"].items()}
        of_targets = cls._read_of_targets(parameters)
        names = set(cls._get_param_names())
        model = cls(**{name: value for name, value in parameters.items() if name in names})
        model._validate_params()
        model = model._taught(of_targets)
        n_features = model._given_width(parameters)
        state = {
            "architecture": dict(model._record(n_features).values),
            "feature_means": np.zeros(n_features),
            **parameters,
            **{name.removesuffix("_"): value for name, value in of_targets.items()},
        }
        return super().from_parameters(**state)

    @classmethod
    def _read_of_targets(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What ``from_parameters`` was given of the targets, as fitted attributes."""
        given = {name: parameters[name.removesuffix("_")] for name in cls._of_targets}
        return {k: v if isinstance(v, (int, float)) else np.array(v) for k, v in given.items()}

    def _given_width(self, parameters: Mapping[str, Any]) -> int:
        """Number of features of a row, from any given array that determines it."""
        for name in ("feature_means", "offset", "scale"):
            if parameters.get(name) is not None:
                return len(parameters[name])
        first = parameters["weights"].get("network.0.weight")
        if self.network is not None or first is None or first.ndim != 2:
            raise TypeError(
                f"{type(self).__name__}.from_parameters cannot infer the number of features from "
                "weights: pass feature_means, the mean row."
            )
        return int(first.shape[1]) - self._n_inputs(0)

    # ------------------------------------------------------------------ row-wise methods

    def _floats_per_row(self) -> int:
        return 2 * self._fitted_record().floats_per_row()

    def _map_with_targets(
        self, X: Any, y: NDArray[Any], function: Callable[..., torch.Tensor], what: str
    ) -> Any:
        """Stream ``function(energy, rows, targets)`` over X with targets of shape (n, m)."""
        beside = Rows(y, torch.device("cpu"))
        n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
        if n_rows != len(beside):
            raise ValueError(f"y has {len(beside)} entries, but X has {n_rows} rows.")
        return self._map_rows(X, function, what, beside=beside)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
