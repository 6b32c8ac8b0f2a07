"""The bridge to skorch: an internal net whose epochs cost no more than a bare torch loop."""

from __future__ import annotations

import dis
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer, PrintLog

from sklebm.training.loop import run_batches


class StopTraining(Exception):
    """Raised inside the epoch loop to end it; never leaves the engine.

    skorch itself stops by raising KeyboardInterrupt and swallows all of them, so a user's Ctrl-C
    would end one fit but let the surrounding search continue.
    """


class NoCriterion:
    """Placeholder: the module returns the loss itself. A plain class is not wrapped or compiled."""


class EpochBridge(Callback):
    """Notifies the estimator of epochs; runs before the user's callbacks.

    Parameters
    ----------
    begin : callable
        Called before each epoch with the net.
    end : callable
        Called after each epoch with the net; returns True if training should stop.
    """

    def __init__(
        self, begin: Callable[[NeuralNet], None], end: Callable[[NeuralNet], bool]
    ) -> None:
        self.begin = begin
        self.end = end
        self.should_stop = False

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Pass the epoch on."""
        self.begin(net)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Pass the epoch on, and record whether to stop."""
        self.should_stop = self.end(net)


class StopWhenAsked(Callback):
    """Ends training after every other callback has seen the epoch."""

    def __init__(self, bridge: EpochBridge) -> None:
        self.bridge = bridge

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Raise StopTraining if the bridge was told to."""
        if self.bridge.should_stop:
            raise StopTraining


# Callbacks that do nothing per batch, so the loop need not notify them of batches.
_EPOCH_ONLY = (EpochBridge, StopWhenAsked, EpochTimer, PrintLog)


def _reads_gradients(callback: Callback) -> bool:
    return getattr(type(callback), "on_grad_computed", None) is not Callback.on_grad_computed


class EnergyNet(NeuralNet):
    """skorch's NeuralNet with a lean epoch: one host sync, and batch hooks only if needed.

    Each player has its own optimiser; ``optimizer_`` is that of the first.

    Parameters
    ----------
    players : list of (OptimizerChoice, float)
        The optimiser and the learning rate of each player.
    draws : context manager or None
        Entered for the batches of every epoch: what layers such as dropout draw from.
    """

    optimizer_: Any
    steppers: list[Any]

    def __init__(self, *args: Any, players: Any = (), draws: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.players = players
        self.draws = draws

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        return []

    def get_loss(
        self, y_pred: torch.Tensor, y_true: Any, X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Return the module's output, which is the loss."""
        return y_pred

    def get_dataset(self, X: Any, y: Any = None) -> Any:
        """Return the rows, which already are a dataset."""
        return X

    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> EnergyNet:
        """Create an optimiser for the parameters that each player updates."""
        parts = self._parts()
        if len(parts) == 1 and parts[0].plays_alone:
            super().initialize_optimizer(*args, **kwargs)
            self.steppers = [self.optimizer_]
            return self
        _, settings = self.get_params_for_optimizer("optimizer", [])
        # Settings of the first player's rule are no wish of the user: others may not know them.
        first = self.players[0][0].settings
        asked = {k: v for k, v in settings.items() if k not in first or v != first[k]}
        self.steppers = []
        for part, (choice, rate) in zip(parts, self.players, strict=True):
            own = [p for p in part.moved.parameters() if p.requires_grad]
            options = choice.settings | asked | {"lr": rate}
            self.steppers.append(choice.factory(own, **options))
        self.optimizer_ = self.steppers[0]
        return self

    def _parts(self) -> list[Any]:
        module = self.module_
        return list(module) if isinstance(module, torch.nn.ModuleList) else [module]

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Call the callbacks; a stop request from one of skorch's own ends training cleanly."""
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt as interrupt:
            if not _is_raised_by_skorch(interrupt):
                raise
            raise StopTraining from None

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Train on every batch; record the mean loss with a single transfer from the device."""
        if iterator is None:
            return
        self._set_training(training)
        listening = any(not isinstance(callback, _EPOCH_ONLY) for _, callback in self.callbacks_)
        parts = self._parts()
        with self.draws or nullcontext():
            total, n_rows = run_batches(
                parts,
                self.steppers,
                iterator,
                self.batch_size,
                self.notify if listening else None,
                any(_reads_gradients(callback) for _, callback in self.callbacks_),
            )
        totals = [float(total)] if len(parts) == 1 else total.tolist()
        self.losses = [value / n_rows for value in totals]
        self.history.record(prefix + "_loss", self.losses[0])
        for part, loss in zip(parts[1:], self.losses[1:], strict=True):
            self.history.record(part.name + "_loss", loss)


def _is_raised_by_skorch(interrupt: BaseException) -> bool:
    """Whether a skorch callback raised it, as EarlyStopping does; otherwise it is Ctrl-C."""
    trace = interrupt.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    # Ctrl-C may also arrive while a callback runs, but not by a statement that raises it.
    code, module = trace.tb_frame.f_code.co_code, trace.tb_frame.f_globals.get("__name__", "")
    raised = code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and str(module).startswith("skorch.callbacks")
