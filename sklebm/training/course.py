"""One run of training: epochs through skorch, rates, validation, stopping, progress."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sklebm._shell.progress import Progress
from sklebm._shell.random import make_generator
from sklebm.objectives import Objective
from sklebm.training.loop import EnergyTraining, RowDataset, TensorBatches
from sklebm.training.rank_batches import RankBatches
from sklebm.training.ranks import average_buffers, rank_seed
from sklebm.training.state import export_state, import_optimizer

if TYPE_CHECKING:
    from sklebm.gradient import GradientEstimator


#: What skorch calls it, and what to use instead.
_SET_BY_THE_ESTIMATOR = {
    "batch_size": "batch_size",
    "criterion": "objective",
    "dataset": "iterator_train",
    "device": "device",
    "lr": "learning_rate",
    "max_epochs": "max_epochs",
    "module": "the estimator's own parameters",
    "optimizer": "optimizer",
    "optimizer__lr": "learning_rate",
    "train_split": "validation_fraction",
    "verbose": "verbose",
    "warm_start": "warm_start",
}


class Course:
    """One run of training: epochs through skorch, rates, validation, stopping, progress."""

    def __init__(
        self,
        estimator: GradientEstimator,
        training: EnergyTraining,
        held_out: torch.Tensor | None,
        seed: int,
        progress: Progress,
        seen: dict[str, Any],
    ) -> None:
        self.estimator = estimator
        self.training = training
        self.held_out = held_out
        self.seed = seed
        self.progress = progress
        self.seen = seen
        self.optimizer: torch.optim.Optimizer
        self.sample: torch.Tensor
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.monitored: dict[str, list[float]] = {name: [] for name in estimator._monitors}
        self.waited = 0
        self.best_score = -math.inf
        self.best: dict[str, torch.Tensor] | None = None
        self.rate = estimator.learning_rate
        self.schedule = estimator._schedule()
        comparable = held_out is not None or training.objective.loss_is_comparable
        if estimator.n_iter_no_change is not None and not comparable:
            raise ValueError(
                f"n_iter_no_change={estimator.n_iter_no_change} needs validation_fraction: the "
                f"loss of {type(training.objective).__name__} cannot be compared between epochs."
            )

    def run(self, x: Any, device: torch.device) -> None:
        """Train for at most ``max_epochs``."""
        from sklebm.training.net import StopTraining

        if self.monitored and self.held_out is not None:
            self.sample = self._draw_sample(x, len(self.held_out), device)
        net = self._make_net(x, device)
        net.initialize()
        self.optimizer = net.optimizer_
        if self.estimator._resumes():
            import_optimizer(self.optimizer, self.estimator.training_state_)
        net.notify("on_train_begin", X=x, y=None)
        # fit_loop, not fit: that would swallow a KeyboardInterrupt.
        with contextlib.suppress(StopTraining):
            net.fit_loop(x)
        net.notify("on_train_end", X=x, y=None)
        if self.best is not None:
            self.training.energy.load_state_dict(self.best)

    def _make_net(self, x: Any, device: torch.device) -> Any:
        from skorch.callbacks import EpochTimer, PrintLog

        from sklebm.training.net import EnergyNet, EpochBridge, NoCriterion, StopWhenAsked

        estimator, choice = self.estimator, self.estimator._optimizer_choice()
        ranks = self.training.ranks
        options = self._checked_net_params()
        bridge = EpochBridge(self._begin, self._end)
        verbose = int(estimator.verbose) if ranks.rank == 0 else 0
        printing = [EpochTimer(), PrintLog()] if verbose else []
        callbacks = [bridge, *(options.pop("callbacks", None) or []), *printing]
        if "iterator_train" not in options:
            options = self._batches(device) | options
        return EnergyNet(
            self.training,
            criterion=NoCriterion,
            optimizer=choice.factory,
            lr=estimator.learning_rate,
            max_epochs=estimator.max_epochs,
            batch_size=int(ranks.total(x.shape[0])) if choice.full_batch else estimator.batch_size,
            dataset=RowDataset,
            train_split=None,
            callbacks=[*callbacks, StopWhenAsked(bridge)],
            device=str(device),
            verbose=verbose,
            **{f"optimizer__{name}": value for name, value in choice.settings.items()} | options,
        )

    def _batches(self, device: torch.device) -> dict[str, Any]:
        """The part of the net's options that is about batches."""
        ranks = self.training.ranks
        options = {
            "iterator_train": TensorBatches,
            "iterator_train__generator": make_generator(rank_seed(self.seed, ranks), "batches"),
            "iterator_train__device": device,
        }
        if ranks.size > 1:
            options |= {"iterator_train": RankBatches, "iterator_train__ranks": ranks}
        return options

    def _checked_net_params(self) -> dict[str, Any]:
        """A copy of ``net_params``; refuses what the estimator sets itself."""
        options = dict(self.estimator.net_params or {})
        taken = sorted(set(options) & _SET_BY_THE_ESTIMATOR.keys())
        if taken:
            instead = ", ".join(_SET_BY_THE_ESTIMATOR[name] for name in taken)
            raise ValueError(
                f"net_params sets {', '.join(taken)}, which {type(self.estimator).__name__} "
                f"decides: use {instead} instead."
            )
        if self.training.ranks.size > 1 and "iterator_train" in options:
            raise ValueError(
                'net_params sets iterator_train, but with strategy="ddp" every process must take '
                f"equally many batches, which {type(self.estimator).__name__} sees to: leave it "
                "out."
            )
        return options

    def _draw_sample(self, x: Any, n_rows: int, device: torch.device) -> torch.Tensor:
        """Rows to train on, as many as are held out (or all), to compare those with."""
        generator = make_generator(self.seed, "monitors")
        return next(iter(TensorBatches(RowDataset(x), n_rows, generator, device)))

    def _begin(self, net: Any) -> None:
        losses = [-score for score in self.scores]
        rate = self.estimator.learning_rate * self.schedule.factor(
            len(self.losses), self.estimator.max_epochs, losses
        )
        if rate != self.rate:
            # Only on a change, so that a skorch LRScheduler in net_params keeps its say.
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.rate = rate
        self.progress.begin()

    def _end(self, net: Any) -> bool:
        loss = net.history[-1, "train_loss"]
        guard_loss(self.estimator, self.training.objective, len(self.losses) + 1, loss, self.losses)
        average_buffers(self.training.ranks, self.training.energy)
        self.estimator._check_epoch(self.training.energy)
        self.losses.append(loss)
        score = -loss
        if self.held_out is not None:
            with torch.no_grad():
                score = self.estimator._validation_score(
                    self.training.energy, self.held_out, self.seed
                )
            score = self._over_ranks(score, len(self.held_out))
            self.scores.append(score)
            net.history.record("valid_score", score)
            self._monitor(net, self.held_out)
        stop = self._has_settled(score)
        stop = self.progress.end(self.snapshot) or stop
        watched = self.progress.held_out_score()
        if self.held_out is None and watched is not None:
            net.history.record("valid_score", watched)
        return stop

    def _monitor(self, net: Any, held_out: torch.Tensor) -> None:
        """Record what the estimator watches beside its score."""
        for name, function in self.estimator._monitors.items():
            with torch.no_grad():
                value = function(self.training.energy, held_out, self.sample)
            value = self._over_ranks(value, len(held_out))
            self.monitored[name].append(value)
            net.history.record(name, value)

    def _over_ranks(self, value: float, n_rows: int) -> float:
        """The mean over the rows that all ranks hold out, so that all decide the same."""
        ranks = self.training.ranks
        return value if ranks.size == 1 else ranks.total(value * n_rows) / ranks.total(n_rows)

    def _has_settled(self, score: float) -> bool:
        """Early stopping on an absolute improvement, which is right for scores of any sign."""
        patience = self.estimator.n_iter_no_change
        if patience is None:
            return False
        if score > self.best_score + self.estimator.tol:
            self.best_score, self.waited = score, 0
            state = self.training.energy.state_dict()
            self.best = {name: value.detach().clone() for name, value in state.items()}
            return False
        self.waited += 1
        return self.waited >= int(patience)

    def snapshot(self) -> dict[str, Any]:
        """Fitted attributes as of now."""
        return {
            **self.estimator._export(self.training.energy),
            **self.seen,
            "training_state_": export_state(
                self.optimizer,
                self.training.objective,
                self.training.objective_state,
                seed=self.seed,
                n_calls=0,
            ),
            "loss_curve_": np.asarray(self.losses),
            "validation_scores_": np.asarray(self.scores),
            **{f"{name}s_": np.asarray(values) for name, values in self.monitored.items()},
            "n_iter_": len(self.losses),
        }


def guard_loss(
    estimator: GradientEstimator, objective: Objective, epoch: int, loss: float, past: Any
) -> None:
    """Raise FloatingPointError when the loss is no number."""
    if math.isfinite(loss):
        return
    last = f"{past[-1]:.6g}" if len(past) else "none"
    raise FloatingPointError(
        f"{type(estimator).__name__}: the loss of {type(objective).__name__} became {loss} in "
        f"epoch {epoch} (last finite loss: {last}). Lower learning_rate="
        f"{estimator.learning_rate}, or scale X. The estimator was left as it was."
    )


@contextlib.contextmanager
def overflow_is_divergence(estimator: GradientEstimator) -> Iterator[None]:
    """Turn torch's complaint about a step too large for its type into FloatingPointError."""
    try:
        yield
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        raise FloatingPointError(
            f"{type(estimator).__name__}: a step of {estimator.optimizer!r} overflowed. Lower "
            f"learning_rate={estimator.learning_rate}. The estimator was left as it was."
        ) from error
