"""The shell for models trained by following the gradient of an objective.

A model supplies ``_initial_energy``, ``_export``, ``_energy``, ``_objective`` and
``_validation_score``; batches, optimiser, schedule, validation, stopping, callbacks and the
state that ``partial_fit`` continues from are dealt with here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, NoReturn

import numpy as np
import scipy.sparse
import torch

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm.base import EnergyEstimator
from sklebm.objectives import Objective
from sklebm.training.course import Course, guard_loss, overflow_is_divergence
from sklebm.training.loop import EnergyTraining, RowDataset, TensorBatches, run_batches
from sklebm.training.optimizers import OPTIMIZERS, OptimizerChoice
from sklebm.training.rank_batches import RankBatches
from sklebm.training.ranks import average_buffers, rank_seed, share_parameters
from sklebm.training.schedules import SCHEDULES, Schedule
from sklebm.training.state import export_state, import_objective, import_optimizer
from sklebm.training.streamed_rows import StreamedRows

_POSITIVE = Interval(Real, 0, None, closed="neither")
_COUNT = Interval(Integral, 1, None, closed="left")


class GradientEstimator(EnergyEstimator):
    """Base of estimators trained by gradient steps; see the module's docstring."""

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
    _step_name = "epoch"
    _continues_from = "training_state_"
    _own_to_each_rank = ("training_state_",)  # chains; the optimiser's part is the same on all
    #: What is recorded beside the validation score of every epoch, in attributes that end in
    #: ``s_``: functions of the energy, held-out rows and as many rows to train on.
    _monitors: ClassVar[dict[str, Callable[[Any, torch.Tensor, torch.Tensor], float]]] = {}

    training_state_: dict[str, Any]

    # ------------------------------------------------------------------ what a model supplies

    @abstractmethod
    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        """Return the energy before training, on the CPU; ``means`` are those of the rows."""

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> Rows:
        """The rows to train on, given what ``fit`` was passed beside X; models extend it."""
        return rows

    @abstractmethod
    def _export(self, energy: Any) -> dict[str, Any]:
        """Return the energy's parameters as fitted NumPy attributes (copies)."""

    @abstractmethod
    def _objective(self, energy: Any) -> Objective:
        """Return the objective, checked against the energy."""

    @abstractmethod
    def _validation_score(self, energy: Any, x: torch.Tensor, seed: int) -> float:
        """Return a score of held-out rows that can be compared between epochs; higher is better."""

    def _monitor_score(self, X: Any) -> float:
        rows = self._open(X, self, reset=False)
        with torch.no_grad():
            return self._validation_score(self._energy(rows.device), rows.all().float(), seed=0)

    def _check_epoch(self, energy: Any) -> None:
        """Raise FloatingPointError if the energy has gone astray; called after every epoch."""

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        """Add what is computed once after training, such as a normaliser."""
        return state

    # ------------------------------------------------------------------ fit

    def _max_steps(self) -> int:
        return int(self.max_epochs)

    def _resumes(self) -> bool:
        """Whether ``fit`` goes on from the fitted parameters."""
        return bool(self.warm_start) and self._is_fitted()

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        seed = rows.ranks.first(draw_seed(self.random_state))
        resume = self._resumes()
        rows = self._prepare(rows, seed, resume=resume, **data)
        means = _feature_means(rows)
        training = self._start(rows, means, seed, resume=resume)
        if rows.is_lazy and self._optimizer_choice().full_batch:
            raise ValueError(
                f"optimizer={self.optimizer!r} needs all rows at every step, and X of shape "
                f"{rows.shape} is larger than scikit-learn's working_memory: use another "
                'optimizer such as "sgd", or raise working_memory if X fits.'
            )
        x, held_out = self._split(self._training_rows(rows), seed, rows.device)
        if self._optimizer_choice().uses_closure:
            values = torch.from_numpy(x.data) if scipy.sparse.issparse(x) else x
            if training.objective.varies_on(values):
                name = type(training.objective).__name__
                self._refuse_line_search(f"{name} draws bits for values between 0 and 1")
        seen = {
            "feature_means_": rows.in_own_units(means).numpy(),
            "n_samples_seen_": rows.total(),
        }
        course = Course(self, training, held_out, seed, progress, seen)
        with overflow_is_divergence(self):
            course.run(x, rows.device)
        return self._complete(training.energy, course.snapshot(), seed)

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        fitted = self._is_fitted()
        previous = getattr(self, "training_state_", {}) if fitted else {}
        seed = int(previous["seed"]) if previous else draw_seed(self.random_state)
        seed = rows.ranks.first(seed)
        n_calls = int(previous.get("n_calls", 0)) + 1
        rows = self._prepare(rows, seed, resume=fitted, **data)
        means = _feature_means(rows)
        training = self._start(rows, means, seed, resume=fitted, n_calls=n_calls)
        choice = self._optimizer_choice()
        if choice.uses_closure:
            raise ValueError(
                f"optimizer={self.optimizer!r} needs all rows at every step and cannot learn from "
                'chunks: use fit, or another optimizer such as "sgd".'
            )
        settings = {"lr": self.learning_rate, **choice.settings, **self._net_options("optimizer__")}
        optimizer = choice.factory(training.parameters(), **settings)
        import_optimizer(optimizer, previous)
        dataset = RowDataset(self._training_rows(rows))
        batches = TensorBatches(dataset, self.batch_size, device=rows.device)
        if rows.ranks.size > 1:
            batches = RankBatches(dataset, self.batch_size, rows.ranks, device=rows.device)
        training.train()
        with overflow_is_divergence(self):
            total, n_rows = run_batches(training, optimizer, batches, self.batch_size)
        average_buffers(rows.ranks, training.energy)
        loss = float(total) / n_rows
        curve = getattr(self, "loss_curve_", np.empty(0))
        guard_loss(self, training.objective, len(curve) + 1, loss, curve)
        self._check_epoch(training.energy)
        seen = int(getattr(self, "n_samples_seen_", 0))
        mean = rows.in_own_units(means).numpy()
        if seen:
            mean = self.feature_means_ + (mean - self.feature_means_) * (n_rows / (seen + n_rows))
        return {
            **self._export(training.energy),
            "loss_curve_": np.append(curve, loss),
            "validation_scores_": np.empty(0),
            **{f"{name}s_": np.empty(0) for name in self._monitors},
            "n_iter_": int(getattr(self, "n_iter_", 0)) + 1,
            "training_state_": export_state(
                optimizer,
                training.objective,
                training.objective_state,
                seed=seed,
                n_calls=n_calls,
            ),
            "feature_means_": mean,
            "n_samples_seen_": seen + n_rows,
        }

    def _state_spec(self) -> Spec:
        """What every trained model has; models add their own."""
        return {
            "feature_means_": Array("f", (self.n_features_in_,)),
            "loss_curve_": Array("f", (None,)),
            "validation_scores_": Array("f", (None,)),
            **{f"{name}s_": Array("f", (None,)) for name in self._monitors},
            "n_iter_": Scalar(int, 1),
            "n_samples_seen_": Scalar(int, 1),
            "training_state_": Record(),
        }

    # ------------------------------------------------------------------ pieces

    def _start(
        self, rows: Rows, means: torch.Tensor, seed: int, *, resume: bool, n_calls: int = 0
    ) -> EnergyTraining:
        """The energy (fresh, or a copy of the fitted one) with its objective, on the device."""
        device = rows.device
        if resume:
            self._check_resumable(rows)
            # A copy: the optimiser writes in place, and the fitted arrays must stay as they are.
            energy = self._energy(device).float()
            for tensor in (*energy.parameters(), *energy.buffers()):
                tensor.data = tensor.data.clone()
        else:
            generator = make_generator(seed, "parameters")
            energy = self._initial_energy(rows, means, generator).to(device)
        ranks = rows.ranks
        share_parameters(ranks, energy)
        objective = self._objective(energy)
        if self._optimizer_choice().uses_closure and objective.is_stochastic:
            self._refuse_line_search(f"{type(objective).__name__} samples")
        own = rank_seed(seed, ranks)
        negatives = make_generator(own, "negatives", index=n_calls, device=device)
        state = import_objective(objective, self.training_state_, device) if resume else {}
        if not state:
            n_own = -(-self.batch_size // ranks.size)
            state = objective.init_state(energy, n_own, negatives)
        return EnergyTraining(energy, objective, state, negatives, ranks)

    def _refuse_line_search(self, reason: str) -> NoReturn:
        raise ValueError(
            f"optimizer={self.optimizer!r} needs a loss that does not change between calls, but "
            f'{reason}: use another optimizer, such as "sgd".'
        )

    def _check_resumable(self, rows: Rows) -> None:
        """Refuse to go on from parameters of another shape; models extend it."""
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[1]} features, but the fitted {type(self).__name__} that "
                f"warm_start continues from has {self.n_features_in_}: set warm_start=False."
            )

    def _training_rows(self, rows: Rows) -> Any:
        """All rows as float32 on the device; a csr matrix stays one, and large files on disk."""
        if rows.is_lazy:
            return StreamedRows(rows)
        if scipy.sparse.issparse(rows.source):
            if rows.limits is None:
                return rows.source
            clipped = rows.source.copy()
            clipped.data = clipped.data.clip(*rows.limits)
            return clipped
        return rows.all().float()

    def _split(self, x: Any, seed: int, device: torch.device) -> tuple[Any, torch.Tensor | None]:
        """Hold ``validation_fraction`` of the rows out, drawn at random."""
        if self.validation_fraction is None:
            return x, None
        n_rows = x.shape[0]
        n_held_out = math.ceil(self.validation_fraction * n_rows)
        if n_held_out >= n_rows:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} leaves no training row of "
                f"n_samples={n_rows}: lower it or pass more rows."
            )
        order = torch.randperm(n_rows, generator=make_generator(seed, "validation"))
        held, kept = order[:n_held_out], order[n_held_out:]
        if isinstance(x, StreamedRows):
            return x.hold_out(held.numpy())
        if scipy.sparse.issparse(x):
            dense = torch.from_numpy(x[held.numpy()].toarray())
            return x[kept.numpy()], dense.to(device, torch.float32)
        return x[kept.to(x.device)], x[held.to(x.device)]

    def _optimizer_choice(self) -> OptimizerChoice:
        return OPTIMIZERS[self.optimizer]

    def _schedule(self) -> Schedule:
        schedule = self.learning_rate_schedule
        if isinstance(schedule, str):
            schedule = SCHEDULES[schedule]()
        if schedule.needs_validation and self.validation_fraction is None:
            raise ValueError(
                f"learning_rate_schedule={self.learning_rate_schedule!r} follows the validation "
                "loss: set validation_fraction, for example to 0.1."
            )
        return schedule  # type: ignore[no-any-return]

    def _net_options(self, prefix: str) -> dict[str, Any]:
        """Entries of ``net_params`` that start with ``prefix``, without it."""
        options = self.net_params or {}
        return {k.removeprefix(prefix): v for k, v in options.items() if k.startswith(prefix)}


def _feature_means(rows: Rows) -> torch.Tensor:
    """Mean of each feature in float64, on the host."""
    # Blocks that stay in the cache: turned into float64 as a whole, rows take ten times as long.
    block = max(1, 2**18 // rows.shape[1]) if rows.device.type == "cpu" else len(rows)
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in rows.chunks(floats_per_row=2 * rows.shape[1]):
        for x in torch.split(rows[part], block):
            total += x.double().sum(dim=0)
    return rows.ranks.sum(total).cpu() / rows.total()
