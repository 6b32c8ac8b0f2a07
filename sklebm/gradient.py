"""The shell for models trained by following the gradient of an objective.

A model supplies ``_initial_energy``, ``_export``, ``_energy``, ``_objective`` and
``_validation_score``; this module handles batches, optimiser, schedule, validation, stopping,
callbacks and the state that ``partial_fit`` continues from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, NoReturn

import numpy as np
import scipy.sparse
import torch

from sklebm._shell.layouts import warn_of_channels
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm.base import EnergyEstimator
from sklebm.objectives import Batch, Objective
from sklebm.training.batches import TrainingRows, feature_means, hold_out, training_rows
from sklebm.training.loop import EnergyTraining
from sklebm.training.optimizers import OPTIMIZERS, OptimizerChoice
from sklebm.training.pace import Pace, n_learnt
from sklebm.training.ranks import rank_seed, share_parameters
from sklebm.training.schedules import SCHEDULES, ConstantRate, Schedule, as_schedule
from sklebm.training.start import Start, kept_seeds, seeds_of_fit
from sklebm.training.state import import_objective
from sklebm.training.train import Course, TrainingOptions, Watch, train
from sklebm.training.transforms import GradientTransform, Projection, TransformState

Monitor = Callable[[Any, torch.Tensor, torch.Tensor], float]

_POSITIVE = Interval(Real, 0, None, closed="neither")
_COUNT = Interval(Integral, 1, None, closed="left")


class GradientEstimator(EnergyEstimator):
    """Base class of estimators trained by gradient steps; see the module docstring."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyEstimator._parameter_constraints,
        "learning_rate": [_POSITIVE],
        "batch_size": [_COUNT],
        "max_epochs": [_COUNT],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "learning_rate_schedule": [StrOptions(set(SCHEDULES)), Schedule],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "n_iter_no_change": [_COUNT, None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "net_params": [dict, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _prefers_cuda = True
    _step_name, _channels_last = "epoch", False  # where image_shape has channels
    _settle_chains: ClassVar[Any] = None  # where chains of a trained energy begin; see settling.py
    _continues_from = "training_state_"
    _own_to_each_rank = ("training_state_",)  # chains; the optimiser's part is the same on all
    #: Recorded with the validation score of every epoch, in attributes that end in ``s_``:
    #: functions of the energy, the held-out rows and an equal number of training rows.
    _monitors: ClassVar[dict[str, Monitor]] = {}
    #: The meaning of ``max_epochs="auto"``, in models that accept it.
    _pace: ClassVar[Pace] = Pace(n_updates=5000)

    training_state_: dict[str, Any]

    # ------------------------------------------------------------------ what a model supplies

    @abstractmethod
    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        """Return the energy before training, on the CPU; ``means`` are those of the rows."""

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> Rows:
        """The rows to train on, given what was passed to ``fit`` with X; models extend it."""
        return rows

    def _training_rows(self, rows: Rows) -> TrainingRows:
        """The rows, as batches are drawn from them; models of sequences keep these whole."""
        return training_rows(rows)

    def _split(
        self, energy: Any, start: Start, *, whole: bool
    ) -> tuple[TrainingRows, Batch | None]:
        """The rows that are learnt from, and, unless these are a chunk, those held out of them."""
        rows = self._training_rows(start.rows)
        if not whole or self.validation_fraction is None:
            return rows, None
        return hold_out(rows, self.validation_fraction, start.held_out_seed, start.rows.device)

    def _export_transforms(self, states: list[TransformState]) -> dict[str, Any]:
        """State learnt by gradient transforms, as fitted attributes; most models have none."""
        return {}

    @abstractmethod
    def _objective(self, energy: Any) -> Objective:
        """Return the objective, checked against the energy."""

    def _transforms(self, energy: Any, start: Start) -> Sequence[GradientTransform]:
        """Transforms applied to gradients before a step; most models have none."""
        return ()

    def _projections(self, energy: Any) -> Sequence[Projection]:
        """Projections applied to parameters after a step; most models have none."""
        return ()

    @abstractmethod
    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        """Return a score of held-out rows that can be compared between epochs; higher is better."""

    def _monitor_score(self, X: Any) -> float:
        rows = self._open(X, self, reset=False)
        with torch.no_grad():
            batch = self._training_rows(rows).batch(rows.device)
            return self._validation_score(self._energy(rows.device).float(), batch, seed=0)

    def _check_epoch(self, energy: Any) -> None:
        """Raise FloatingPointError if the energy has become invalid; called after every epoch."""

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        """Add attributes that are computed once after training, such as a normaliser."""
        return state

    # ------------------------------------------------------------------ fit

    def _max_steps(self, rows: Rows) -> int:
        return self._n_epochs(rows)

    def _n_epochs(self, rows: Rows) -> int:
        """Number of passes over the rows: ``max_epochs``, or the value that "auto" resolves to."""
        if not isinstance(self.max_epochs, str):
            return int(self.max_epochs)
        n_rows, choice = self._n_learnt(rows), self._optimizer_choice()
        return self._pace.epochs(n_rows, self.batch_size, choice)

    def _n_learnt(self, rows: Rows) -> int:
        """Number of rows that ``fit`` does not hold out."""
        return n_learnt(rows.total(), self.validation_fraction)

    def _resumes(self) -> bool:
        """Whether ``fit`` continues from the fitted parameters."""
        return bool(self.warm_start) and self._is_fitted()

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        resume = self._resumes()
        # Seeds also go on where the parameters do not, as those of a model that grows.
        previous = self.training_state_ if self.warm_start and self._is_fitted() else {}
        kept = seeds_of_fit(self.random_state, previous, rows.ranks)
        seed = kept.pop("seed")
        rows = self._prepare(rows, seed, resume=resume, **data)
        means = feature_means(rows)
        start = Start(rows, means, seed, resume=resume, split_seed=kept["split_seed"])
        energy = self._starting_energy(start)
        self._check_completion(energy)
        seen = {"feature_means_": rows.in_own_units(means).numpy(), "n_samples_seen_": rows.total()}
        options = replace(self._options(seed), max_epochs=self._n_epochs(rows), kept=kept)
        course = self._train(energy, start, options, progress, seen)
        return self._complete(energy, self._trained(course, seed, seen), seed)

    def _check_completion(self, energy: Any) -> None:
        """Refuse, before training, what ``_complete`` cannot compute after it."""

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        fitted = self._is_fitted()
        previous = getattr(self, "training_state_", {}) if fitted else {}
        seed = rows.ranks.first(int(previous["seed"]) if previous else draw_seed(self.random_state))
        n_calls = int(previous.get("n_calls", 0)) + 1
        if self._optimizer_choice().uses_closure:
            raise ValueError(
                f"optimizer={self.optimizer!r} needs all rows at every step and cannot learn from "
                'chunks: use fit, or another optimizer such as "sgd".'
            )
        rows = self._prepare(rows, seed, resume=fitted, **data)
        means = feature_means(rows)
        start = Start(rows, means, seed, resume=fitted, n_calls=n_calls)
        energy = self._starting_energy(start)
        options = replace(
            self._options_of_a_chunk(seed), n_calls=n_calls, kept=kept_seeds(previous)
        )
        course = self._train(energy, start, options)
        n_rows, earlier = rows.total(), int(getattr(self, "n_samples_seen_", 0))
        mean = rows.in_own_units(means).numpy()
        if earlier:
            share = n_rows / (earlier + n_rows)
            mean = self.feature_means_ + (mean - self.feature_means_) * share
        seen = {"feature_means_": mean, "n_samples_seen_": earlier + n_rows}
        state = self._trained(course, seed, seen, n_calls)
        curve = getattr(self, "loss_curve_", np.empty(0))
        state["loss_curve_"] = np.append(curve, course.losses)
        state["n_iter_"] = int(getattr(self, "n_iter_", 0)) + 1
        return state

    def _train(
        self,
        energy: Any,
        start: Start,
        options: TrainingOptions,
        progress: Progress | None = None,
        seen: dict[str, Any] | None = None,
        *,
        whole: bool | None = None,
    ) -> Course:
        """Train an energy in place; ``progress`` gets every epoch, ``seen`` is state that stays.

        ``whole``: these are all rows, of which some may be held out; None: with ``progress``.
        """
        rows, device = start.rows, start.rows.device
        whole = progress is not None if whole is None else whole
        choice = options.choice()
        if rows.is_lazy and choice.full_batch:
            raise ValueError(
                f"optimizer={self.optimizer!r} needs all rows at every step, and X of shape "
                f"{rows.shape} is larger than scikit-learn's working_memory: use another "
                'optimizer such as "sgd", or raise working_memory if X fits.'
            )
        kept, held_out = self._split(energy, start, whole=whole)
        players = self._players(energy, start)
        if choice.uses_closure:
            for player in players:
                self._check_line_search(player.objective, kept.X)

        def snapshot(course: Course) -> dict[str, Any]:
            return self._trained(course, start.seed, seen or {})

        def monitored(function: Monitor) -> Callable[[Batch, Batch], float]:
            return lambda held_out, sample: function(energy, held_out.x, sample.x)

        watch = Watch(
            held_out,
            lambda batch: self._validation_score(energy, batch, start.held_out_seed),
            {name: monitored(f) for name, f in self._monitors.items()} if whole else {},
            lambda: self._check_epoch(energy),
            progress,
            snapshot,
        )
        previous = self.training_state_ if start.resume else {}
        return train(players, kept, options, watch, device=device, previous=previous)

    def _trained(
        self, course: Course, seed: int, seen: dict[str, Any], n_calls: int = 0
    ) -> dict[str, Any]:
        """Fitted attributes during or after training."""
        return {
            **self._export(course.training.energy),
            **self._export_transforms(course.training.transform_states),
            **seen,
            "training_state_": course.state(seed=seed, n_calls=n_calls),
            **{f"{name}s_": np.empty(0) for name in self._monitors},
            **course.curves(),
        }

    def _state_spec(self) -> Spec:
        """Declarations common to every trained model; models add their own."""
        return {
            "feature_means_": Array("f", ("n_features_in_",)),
            "loss_curve_": Array("f", (None,)),
            "validation_scores_": Array("f", (None,)),
            **{f"{name}s_": Array("f", (None,)) for name in self._monitors},
            "n_iter_": Scalar(int, 0),
            "n_samples_seen_": Scalar(int, 0),
            "training_state_": Record(),
        }

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return {
            "feature_means_": np.zeros(given["n_features_in_"]),
            "loss_curve_": np.empty(0),
            "validation_scores_": np.empty(0),
            **{f"{name}s_": np.empty(0) for name in self._monitors},
            "n_iter_": 0,
            "n_samples_seen_": 0,
            "training_state_": {},
        }

    # ------------------------------------------------------------------ pieces

    def _options(self, seed: int) -> TrainingOptions:
        """The parameters that control training."""
        return TrainingOptions(
            owner=type(self).__name__,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            schedule=self._schedule(),
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
            net_params=self.net_params,
            verbose=int(self.verbose),
            seed=seed,
        )

    def _options_of_a_chunk(self, seed: int) -> TrainingOptions:
        """One pass in the order of the rows, at the unscheduled learning rate."""
        return replace(
            self._options(seed),
            max_epochs=1,
            schedule=ConstantRate(),
            n_iter_no_change=None,
            verbose=0,
            shuffle=False,
            earlier=tuple(getattr(self, "loss_curve_", ())),
        )

    def _starting_energy(self, start: Start) -> Any:
        """The energy at the start of training: new, or a copy of the fitted one."""
        device = start.rows.device
        if start.resume:
            self._check_resumable(start.rows)
            # A copy: the optimiser writes in place, and the fitted arrays must not change.
            energy = self._energy(device).float()
            for tensor in (*energy.parameters(), *energy.buffers()):
                tensor.data = tensor.data.clone()
        else:
            if not self._channels_last:
                warn_of_channels(getattr(self, "image_shape", None), last=False)
            generator = make_generator(start.seed, "parameters")
            energy = self._initial_energy(start.rows, start.means, generator).to(device)
        share_parameters(start.rows.ranks, energy)
        return energy

    def _players(self, energy: Any, start: Start) -> list[EnergyTraining]:
        """The players: the whole energy with one objective; adversarial models have several."""
        return [self._player(energy, self._objective(energy), start)]

    def _player(
        self,
        energy: Any,
        objective: Objective,
        start: Start,
        *,
        moved: torch.nn.Module | None = None,
        name: str = "train",
        n_steps: int = 1,
    ) -> EnergyTraining:
        """An energy, or the part of it listed in ``moved``, with its own objective."""
        if self._optimizer_choice().uses_closure and objective.is_stochastic:
            self._refuse_line_search(f"{type(objective).__name__} samples")
        ranks, device = start.rows.ranks, start.rows.device
        prefix = "" if name == "train" else f"{name}/"
        negatives = make_generator(
            rank_seed(start.seed, ranks), prefix + "negatives", index=start.n_calls, device=device
        )
        previous = self.training_state_ if start.resume else {}
        state = import_objective(objective, previous, device, prefix)
        if not state:
            state = objective.init_state(energy, -(-self.batch_size // ranks.size), negatives)
            if self._settle_chains is not None:
                state = self._settle_chains(objective, state, energy, start, negatives)
        alone = moved is None
        return EnergyTraining(
            energy,
            objective,
            state,
            negatives,
            ranks,
            transforms=self._transforms(energy, start) if alone else (),
            projections=self._projections(energy if moved is None else moved),
            moved=moved,
            name=name,
            n_steps=n_steps,
        )

    def _check_line_search(self, objective: Objective, x: Any) -> None:
        """Reject a line search if repeated evaluation changes the loss."""
        if objective.varies_on(torch.from_numpy(x.data) if scipy.sparse.issparse(x) else x):
            self._refuse_line_search(f"{type(objective).__name__} draws bits for values in (0, 1)")

    def _refuse_line_search(self, reason: str) -> NoReturn:
        raise ValueError(
            f"optimizer={self.optimizer!r} needs a loss that does not change between calls, but "
            f'{reason}: use another optimizer, such as "sgd".'
        )

    def _check_resumable(self, rows: Rows) -> None:
        """Reject fitted parameters of a different shape; models extend it."""
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[1]} features, but the fitted {type(self).__name__} that "
                f"warm_start continues from has {self.n_features_in_}: set warm_start=False."
            )

    def _optimizer_choice(self) -> OptimizerChoice:
        return OPTIMIZERS[self.optimizer]

    def _schedule(self) -> Schedule:
        schedule = as_schedule(self.learning_rate_schedule)
        if schedule.needs_validation and self.validation_fraction is None:
            raise ValueError(
                f"learning_rate_schedule={self.learning_rate_schedule!r} follows the validation "
                "loss: set validation_fraction, for example to 0.1."
            )
        return schedule
