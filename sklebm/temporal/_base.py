"""Base of sequence models: ``groups``, batches of whole sequences, rows streamed in order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.arrays import to_numpy
from sklebm._shell.columns import add_columns
from sklebm._shell.groups import need_side_by_side
from sklebm._shell.private import fit_context
from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.scaling import Scaling, recall_scaling
from sklebm._shell.state import Array, Record, Spec
from sklebm._shell.warning import warn
from sklebm.energies.cells import State
from sklebm.energies.next_step import NextStepEnergy, Walk, lengths_of
from sklebm.energies.standardization import Standardization
from sklebm.gradient import GradientEstimator
from sklebm.objectives import Batch
from sklebm.training.architecture import (
    check_arrays,
    check_record,
    check_resumable,
    export_weights,
    import_weights,
)
from sklebm.training.batches import TrainingRows
from sklebm.training.sequences import SequenceRows
from sklebm.training.start import Start

#: A function of the energy, standardised rows, and their walk.
Answer = Callable[[Any, Tensor, Walk], Tensor]


class SequenceEstimator(GradientEstimator):
    """Base of models whose rows are the steps of sequences, marked by ``groups``.

    A model supplies its networks as a record of plain values, the modules of a record, and their
    initial weights; the scale of the rows; and its public methods.
    """

    _layout = "step"
    _transforms_rows_alone: ClassVar[bool] = False  # ``transform`` takes no ``groups``

    architecture_: dict[str, Any]
    weights_: dict[str, Any]

    @abstractmethod
    def _record(self, n_features: int) -> dict[str, Any]:
        """The networks that the parameters specify, as plain values."""

    @abstractmethod
    def _assemble(self, record: Mapping[str, Any]) -> Any:
        """The energy of a record, on torch's meta device."""

    @abstractmethod
    def _fresh(self, record: Mapping[str, Any], mean: Tensor, generator: torch.Generator) -> Any:
        """The energy of a record before training; ``mean`` is that of the rows."""

    @abstractmethod
    def _scaling(self, rows: Rows) -> Scaling | None:
        """The scale of the rows, after they have been checked; None uses them as they are."""

    @abstractmethod
    def _longest_piece(self) -> int:
        """Longest stretch of a sequence in a batch."""

    def _steps_before(self) -> int:
        """Most steps before a stretch that training needs to see."""
        return self._longest_piece()

    # ------------------------------------------------------------------ training

    def _training_rows(self, rows: Rows) -> TrainingRows:
        return SequenceRows(rows, self._longest_piece(), n_before=self._steps_before())

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> Rows:
        need_contiguous(rows)
        rows = super()._prepare(rows, seed, resume=resume, **data)
        if resume:
            self._check_resumable(rows)  # before the fitted scale meets rows of another width
        scaling = self._scaling(rows)
        return rows.standardized(recall_scaling(self) if resume else scaling)

    def _initial_energy(self, rows: Rows, means: Tensor, generator: torch.Generator) -> Any:
        record = self._record(len(means))
        energy = self._fresh(record, means.float(), generator)
        energy.record, energy.scaling = record, rows.scaling
        return energy

    def _starting_energy(self, start: Start) -> Any:
        energy = super()._starting_energy(start)
        energy.standardization = None  # training rows are scaled already
        return energy.train()

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        check_resumable(self, self._record(rows.shape[1]), self.architecture_)

    # ------------------------------------------------------------------ fitted state

    def _energy(self, device: torch.device) -> Any:
        energy = self._assemble(self.architecture_)
        import_weights(energy, self.weights_, device)
        scaling = recall_scaling(self)
        if scaling is not None:
            numbers = (torch.from_numpy(a).to(device) for a in (scaling.offset, scaling.scale))
            energy.standardization = Standardization(*numbers)
        energy.record, energy.scaling = self.architecture_, scaling
        return energy.to(device).eval()

    def _export(self, energy: Any) -> dict[str, Any]:
        scaling = energy.scaling
        return {
            "architecture_": dict(energy.record),
            "weights_": export_weights(energy, self),
            "offset_": None if scaling is None else scaling.offset.copy(),
            "scale_": None if scaling is None else scaling.scale.copy(),
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
        name = type(self).__name__
        check_record(self._record(self.n_features_in_), self.architecture_, name)
        check_arrays(self._assemble(self.architecture_), self.weights_, name)
        scaling = recall_scaling(self)
        if scaling is not None and not bool((scaling.scale > 0.0).all()):
            raise ValueError(f"{name}.scale_ must be positive numbers.")

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """Make an estimator from given weights, as if a fit had found them.

        Parameters
        ----------
        **parameters : object
            ``weights``, the arrays under their torch names; one of ``feature_means``, ``offset``
            and ``scale``, from which the number of features is read; and constructor parameters,
            including those that determine the networks. Without ``offset`` and ``scale``, rows
            enter the networks unscaled.

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
        parameters = {
            name: value
            for name, value in parameters.items()
            if value is not None or name not in _SIZED
        }
        sizes = [parameters[name] for name in _SIZED if name in parameters]
        if not isinstance(parameters.get("weights"), Mapping) or not sizes:
            raise TypeError(
                f"{cls.__name__}.from_parameters needs weights, a dictionary of the arrays of its "
                "networks under their torch names, and feature_means, the mean row."
            )
        weights = {name: np.array(array) for name, array in parameters["weights"].items()}
        names = set(cls._get_param_names())
        model = cls(**{name: value for name, value in parameters.items() if name in names})
        model._validate_params()
        n_features = len(sizes[0])
        state = {"architecture": model._record(n_features), "feature_means": np.zeros(n_features)}
        return super().from_parameters(**{**state, **parameters, "weights": weights})

    # ------------------------------------------------------------------ learning

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Fit the model to the sequences in X.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of all sequences, one after the other.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as numbers or strings. The steps of a sequence must be adjacent
            rows, in temporal order. None: all steps are one sequence.

        Returns
        -------
        self : object
            The fitted estimator. It is left unchanged by an exception or an interrupt.
        """
        warn_if_ignored(self, y, groups, "fit")
        return self._learn(X, self._fit, columns={"groups": groups})

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Update the energy with one pass over whole sequences.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of the next sequences. A chunk does not continue the sequences of the one
            before it.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.

        Returns
        -------
        self : object
            The updated estimator. It is left unchanged by an exception or an interrupt.
        """
        first = not self._is_fitted()
        warn_if_ignored(self, y, groups, "partial_fit")
        return self._learn(X, self._partial_fit, first=first, columns={"groups": groups})

    def fit_transform(self, X: Any, y: Any = None, groups: Any = None) -> Any:
        """Fit, then transform the same sequences.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of all sequences.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_features_out)
            What ``transform`` returns for these sequences.
        """
        beside = {} if self._transforms_rows_alone else {"groups": groups}
        return self.fit(X, y, groups=groups).transform(X, **beside)

    # ------------------------------------------------------------------ answers

    def _monitor_score(self, X: Any, groups: Any = None) -> float:
        # Not the mean of a batch, whose rows are rounded before they are standardised.
        return float(self.score(X, groups=groups))  # type: ignore[call-arg]

    def _walk(self, X: Any, groups: Any, answer: Answer, what: str) -> Any:
        """Stream ``answer`` over the sequences; a chunk goes on where the one before stopped."""
        return self._map_rows(X, WalkingRows(answer), what, beside=self._places(groups))

    def _places(self, groups: Any) -> Callable[[Rows], Rows]:
        """From the rows of X to the number of the sequence and of the row, beside each of them."""

        def beside(rows: Rows) -> Rows:
            sequence = torch.zeros(len(rows), dtype=torch.float64)
            if groups is not None:
                add_columns(rows, type(self).__name__, groups=groups)
                need_contiguous(rows)
                sequence = rows.columns["groups"].double().cpu()
            numbers = torch.arange(len(rows), dtype=torch.float64)
            return Rows(torch.stack([sequence, numbers], dim=1), torch.device("cpu"))

        return beside


def held_out_mean(
    energy: Any, batch: Batch, stream: Callable[..., Tensor], floats_per_row: int
) -> float:
    """Mean over standardised rows of an answer that a stream gives chunk by chunk."""
    numbers = torch.arange(len(batch), device=batch.x.device)
    sequences = torch.zeros_like(numbers) if batch.groups is None else batch.groups
    places = torch.stack([sequences.double(), numbers.double()], dim=1)
    parts = row_slices(len(batch), floats_per_row, batch.x.device)
    found = (stream(energy, batch.x[part], places[part]).double().sum() for part in parts)
    return sum(map(float, found)) / len(batch)


#: Constraints of what all of them take; several processes cannot share a sequence.
SEQUENCE_CONSTRAINTS: dict[str, list[Any]] = {
    name: constraints
    for name, constraints in GradientEstimator._parameter_constraints.items()
    if name != "strategy"
}
#: Parameters whose length is the number of features.
_SIZED = ("feature_means", "offset", "scale")


def warn_if_ignored(model: Any, y: Any, groups: Any, method: str) -> None:
    """Warn of a y that looks like groups where there are none, as in ``fit(X, groups)``."""
    if y is not None and groups is None and _looks_like_groups(y):
        warn(
            f"{type(model).__name__} ignores y, but this y looks like groups: equal values lie "
            "side by side. If y names the sequence of each row, pass it by name: "
            f"{method}(X, groups=y)."
        )


def _looks_like_groups(y: Any) -> bool:
    """Whether the rows of every value of y lie side by side, two of a value or more on average.

    Most labels for a later step of a pipeline change to and fro.
    """
    try:
        values = to_numpy(y).ravel()
        n_values = len(set(values.tolist()))
        n_runs = 1 + int((values[1:] != values[:-1]).sum())
    except (TypeError, ValueError):  # y is ignored, whatever it is
        return False
    return 1 < n_values == n_runs <= len(values) / 2


class WalkingRows:
    """Walks through chunks of rows, and keeps the state in which a sequence was left.

    The state before the latest chunk is kept as well: it is repeated if memory ran out.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._states: dict[int, tuple[int, State]] = {}  # by the number of the row to come

    def __call__(self, energy: NextStepEnergy, x: Tensor, places: Tensor) -> Tensor:
        sequences, first = places[:, 0].long(), int(places[0, 1])
        before = self._states.get(first)
        begun = before is not None and before[0] == int(sequences[0])
        y = energy.standardized(x)
        lengths = lengths_of(sequences, len(x))
        walk = energy.walk(y, lengths, before[1] if before and begun else None, keep=True)
        found = self._answer(energy, y, walk)
        kept = {} if before is None else {first: before}
        self._states = {**kept, first + len(x): (int(sequences[-1]), walk.state)}
        return found


def need_contiguous(rows: Rows) -> None:
    """Raise ValueError if a sequence begins again after another one."""
    if "groups" in rows.columns:
        need_side_by_side(to_numpy(rows.columns["groups"]))
