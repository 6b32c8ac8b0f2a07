"""One run of training: epochs through skorch, rates, validation, stopping, progress.

``train`` does not depend on the model. It receives players (an energy or parts of one, each with an
objective), rows, options and functions to call after each epoch; it can be called again for the
next layer of a stack, and once for each chunk of a stream.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sklebm._shell.progress import Progress
from sklebm._shell.random import make_generator
from sklebm.objectives import Batch
from sklebm.training.batches import RankBatches, TrainingRows
from sklebm.training.failures import explained, guard_loss
from sklebm.training.loop import EnergyTraining
from sklebm.training.module_draws import draws_of_layers
from sklebm.training.optimizers import OPTIMIZERS, OptimizerChoice, keep_levels
from sklebm.training.ranks import average_buffers, rank_seed
from sklebm.training.schedules import ConstantRate, Schedule
from sklebm.training.state import export_state, import_optimizer

#: skorch's names, and what to use instead.
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


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training run, named like the parameters of the estimators."""

    owner: str  # named in messages
    learning_rate: float
    batch_size: int
    max_epochs: int = 1
    optimizer: str = "sgd"
    schedule: Schedule = field(default_factory=ConstantRate)
    n_iter_no_change: int | None = None
    tol: float = 0.0
    net_params: Mapping[str, Any] | None = None
    verbose: int = 0
    shuffle: bool = True
    seed: int = 0
    n_calls: int = 0  # of partial_fit, this one included
    #: Entries of the state that a later run needs beside those that are learnt.
    kept: Mapping[str, int] = field(default_factory=dict)
    #: Losses of earlier runs that this one continues, for messages.
    earlier: tuple[float, ...] = ()
    #: Learning rates of players that have their own, by name.
    rates: Mapping[str, float] = field(default_factory=dict)
    #: Optimisers of players that have their own, by name.
    optimizers: Mapping[str, str] = field(default_factory=dict)

    def choice(self, name: str = "") -> OptimizerChoice:
        """The optimiser of a player."""
        return OPTIMIZERS[self.optimizers.get(name, self.optimizer)]

    def named_rates(self) -> str:
        """The learning rates, the highest first: losses do not tell which of them was too high."""
        rates = {f"{name}_learning_rate": rate for name, rate in self.rates.items()}
        rates["learning_rate"] = self.learning_rate
        highest = sorted(rates.items(), key=lambda item: -item[1])
        return " or ".join(f"{name}={rate}" for name, rate in highest)

    def named_rules(self) -> str:
        """The optimisers as they are set, without repetition."""
        rules = dict.fromkeys([*self.optimizers.values(), self.optimizer])
        return " or ".join(repr(rule) for rule in rules)


@dataclass(frozen=True)
class Watch:
    """What is evaluated after each epoch; every part is optional."""

    #: Held-out rows, and their score; higher is better.
    held_out: Batch | None = None
    score: Callable[[Batch], float] | None = None
    #: Functions of the held-out rows and an equal number of training rows, by name.
    monitors: Mapping[str, Callable[[Batch, Batch], float]] = field(default_factory=dict)
    #: Raises FloatingPointError if the model has become invalid.
    check: Callable[[], None] | None = None
    progress: Progress | None = None
    #: Current fitted attributes, for callbacks that score the model.
    snapshot: Callable[[Course], dict[str, Any]] | None = None


def train(
    players: EnergyTraining | Sequence[EnergyTraining],
    rows: TrainingRows,
    options: TrainingOptions,
    watch: Watch | None = None,
    *,
    device: torch.device,
    previous: Mapping[str, Any] | None = None,
) -> Course:
    """Train one player, or several against each other, for at most ``max_epochs``.

    Parameters
    ----------
    players : EnergyTraining or sequence of EnergyTraining
        What to train; several players take their steps on every batch in turn.
    rows : TrainingRows
        The rows with their accompanying columns.
    options : TrainingOptions
        How to train.
    watch : Watch or None, default=None
        What to evaluate after each epoch.
    device : torch.device
        Device of the players.
    previous : mapping or None, default=None
        ``Course.state()`` of an earlier run whose optimisers are continued.

    Returns
    -------
    course : Course
        Losses, scores and the state that a later run can continue from.
    """
    course = Course(players, options, watch or Watch())
    with explained(options):
        course.run(rows, device, previous or {})
    return course


class Course:
    """One run of training: the work of ``train``, and its results."""

    def __init__(
        self,
        players: EnergyTraining | Sequence[EnergyTraining],
        options: TrainingOptions,
        watch: Watch,
    ) -> None:
        self.players = [players] if isinstance(players, EnergyTraining) else list(players)
        self.training = self.players[0]
        self.options = options
        self.watch = watch
        self.optimizers: list[torch.optim.Optimizer] = []
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.monitored: dict[str, list[float]] = {name: [] for name in watch.monitors}
        self._ranks = self.training.ranks
        self._sample: Batch
        self._waited = 0
        self._best_score = -math.inf
        self._best: list[Any] | None = None
        self._rate = 1.0
        self._own_rates: list[list[float]] = []  # of the groups of parameters, before any schedule
        comparable = watch.held_out is not None or self.training.objective.loss_is_comparable
        if options.n_iter_no_change is not None and not comparable:
            raise ValueError(
                f"n_iter_no_change={options.n_iter_no_change} needs validation_fraction: the "
                f"loss of {type(self.training.objective).__name__} cannot be compared between "
                "epochs."
            )

    def run(self, rows: TrainingRows, device: torch.device, previous: Mapping[str, Any]) -> None:
        """Train for at most ``max_epochs``."""
        from sklebm.training.net import StopTraining

        if self.monitored and self.watch.held_out is not None:
            self._sample = self._draw_sample(rows, len(self.watch.held_out), device)
        for player in self.players:
            player.train()
            for parameter in player.parameters():
                parameter.grad = None  # a gradient left by an earlier run would move a frozen layer
        net = self._make_net(rows, device)
        net.initialize()
        self.optimizers = net.steppers
        for optimizer in self.optimizers:
            keep_levels(optimizer)
        self._own_rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        if previous:
            import_optimizer(self.players, self.optimizers, previous)
        net.notify("on_train_begin", X=rows.X, y=None)
        # fit_loop, not fit: that would swallow a KeyboardInterrupt.
        with contextlib.suppress(StopTraining):
            net.fit_loop(rows)
        net.notify("on_train_end", X=rows.X, y=None)
        if self._best is not None:
            for player, (numbers, states) in zip(self.players, self._best, strict=True):
                player.energy.load_state_dict(numbers)
                player.transform_states = states

    def state(self, *, seed: int, n_calls: int = 0) -> dict[str, Any]:
        """State that a later run continues from: optimiser statistics and chains."""
        learnt = export_state(self.players, self.optimizers, seed=seed, n_calls=n_calls)
        return {**learnt, **self.options.kept}

    # ------------------------------------------------------------------ the net

    def _make_net(self, rows: TrainingRows, device: torch.device) -> Any:
        from skorch.callbacks import EpochTimer, PrintLog

        from sklebm.training.net import EnergyNet, EpochBridge, NoCriterion, StopWhenAsked

        options, choice = self.options, self.options.choice(self.training.name)
        net_params = self._checked_net_params()
        bridge = EpochBridge(self._begin, self._end)
        verbose = int(options.verbose) if self._ranks.rank == 0 else 0
        own = ["valid_loss", "valid_loss_best"]  # the score is printed
        printing = [EpochTimer(), PrintLog(keys_ignored=own)] if verbose else []
        callbacks = [bridge, *(net_params.pop("callbacks", None) or []), *printing]
        if "iterator_train" not in net_params:
            net_params = self._batches(rows, device) | net_params
        n_rows = int(self._ranks.total(len(rows))) if choice.full_batch else options.batch_size
        return EnergyNet(
            self.players[0] if len(self.players) == 1 else torch.nn.ModuleList(self.players),
            criterion=NoCriterion,
            optimizer=choice.factory,
            lr=options.rates.get(self.training.name, options.learning_rate),
            max_epochs=options.max_epochs,
            batch_size=n_rows,
            dataset=TrainingRows,
            train_split=None,
            callbacks=[*callbacks, StopWhenAsked(bridge)],
            device=str(device),
            verbose=verbose,
            players=self._player_settings(),
            draws=draws_of_layers(
                self.players, rank_seed(options.seed, self._ranks), options.n_calls, device
            ),
            **{f"optimizer__{name}": value for name, value in choice.settings.items()} | net_params,
        )

    def _player_settings(self) -> list[tuple[OptimizerChoice, float]]:
        """The optimiser and the rate of each player."""
        options = self.options
        return [
            (options.choice(player.name), options.rates.get(player.name, options.learning_rate))
            for player in self.players
        ]

    def _batches(self, rows: TrainingRows, device: torch.device) -> dict[str, Any]:
        """The net's options that concern batches."""
        ranks, generator = self._ranks, None
        if self.options.shuffle:
            generator = make_generator(rank_seed(self.options.seed, ranks), "batches")
        options: dict[str, Any] = {
            "iterator_train": rows.batches,
            "iterator_train__generator": generator,
            "iterator_train__device": device,
        }
        if ranks.size > 1:
            options |= {"iterator_train": RankBatches, "iterator_train__ranks": ranks}
        return options

    def _checked_net_params(self) -> dict[str, Any]:
        """A copy of ``net_params``; rejects settings that the estimator controls itself."""
        options, owner = dict(self.options.net_params or {}), self.options.owner
        taken = sorted(set(options) & _SET_BY_THE_ESTIMATOR.keys())
        if taken:
            instead = ", ".join(_SET_BY_THE_ESTIMATOR[name] for name in taken)
            raise ValueError(
                f"net_params sets {', '.join(taken)}, which {owner} sets: use {instead} instead."
            )
        if self._ranks.size > 1 and "iterator_train" in options:
            raise ValueError(
                'net_params sets iterator_train, but with strategy="ddp" every process must take '
                f"the same number of batches, which {owner} ensures: leave it out."
            )
        return options

    def _draw_sample(self, rows: TrainingRows, n_rows: int, device: torch.device) -> Batch:
        """Training rows, as many as are held out (or all), for comparison."""
        generator = make_generator(self.options.seed, "monitors")
        return next(iter(rows.batches(rows, n_rows, generator, device)))

    # ------------------------------------------------------------------ epochs

    def _begin(self, net: Any) -> None:
        losses = [-score for score in self.scores]
        factor = self.options.schedule.factor(len(self.losses), self.options.max_epochs, losses)
        if factor != self._rate:
            # Only on a change, so that a skorch LRScheduler in net_params still takes effect.
            for optimizer, rates in zip(self.optimizers, self._own_rates, strict=True):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * factor
            self._rate = factor
        if self.watch.progress is not None:
            self.watch.progress.begin()

    def _end(self, net: Any) -> bool:
        loss = net.history[-1, "train_loss"]
        guard_loss(self.options, self.players, net.losses, self.losses)
        for player in self.players:
            average_buffers(self._ranks, player.energy)
        if self.watch.check is not None:
            self.watch.check()
        self.losses.append(loss)
        score, held_out = -loss, self.watch.held_out
        if held_out is not None and self.watch.score is not None:
            with torch.no_grad():
                score = self._over_ranks(self.watch.score(held_out), len(held_out))
            self.scores.append(score)
            _record_score(net, score)
            self._monitor(net, held_out)
        stop = self._has_settled(score)
        progress, snapshot = self.watch.progress, self.watch.snapshot
        if progress is not None and snapshot is not None:
            stop = progress.end(lambda: snapshot(self)) or stop
            watched = progress.held_out_score()
            if held_out is None and watched is not None:
                net.history.record("valid_score", watched)
        return stop

    def _monitor(self, net: Any, held_out: Batch) -> None:
        """Record what is watched in addition to the score."""
        for name, function in self.watch.monitors.items():
            with torch.no_grad():
                value = self._over_ranks(function(held_out, self._sample), len(held_out))
            self.monitored[name].append(value)
            net.history.record(name, value)

    def _over_ranks(self, value: float, n_rows: int) -> float:
        """The mean over the held-out rows of all ranks, so that all make the same decision."""
        ranks = self._ranks
        return value if ranks.size == 1 else ranks.total(value * n_rows) / ranks.total(n_rows)

    def _has_settled(self, score: float) -> bool:
        """Early stopping on absolute improvement, which works for scores of either sign."""
        patience = self.options.n_iter_no_change
        if patience is None:
            return False
        if score > self._best_score + self.options.tol:
            self._best_score, self._waited = score, 0
            self._best = [(_copies(player), player.transform_states[:]) for player in self.players]
            return False
        self._waited += 1
        return self._waited >= int(patience)

    def curves(self) -> dict[str, Any]:
        """What was recorded for every epoch, as fitted attributes."""
        return {
            "loss_curve_": np.asarray(self.losses),
            "validation_scores_": np.asarray(self.scores),
            **{f"{name}s_": np.asarray(values) for name, values in self.monitored.items()},
            "n_iter_": len(self.losses),
        }


def _copies(player: EnergyTraining) -> dict[str, torch.Tensor]:
    state = player.energy.state_dict()
    return {name: value.detach().clone() for name, value in state.items()}


def _record_score(net: Any, score: float) -> None:
    """Record the score, and what skorch's callbacks expect: a loss and whether it is the best."""
    earlier = [row["valid_loss"] for row in net.history[:-1] if "valid_loss" in row]
    net.history.record("valid_score", score)
    net.history.record("valid_loss", -score)
    net.history.record("valid_loss_best", all(-score < loss for loss in earlier))
