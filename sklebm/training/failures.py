"""Errors that end a run of training, in words that say what to do."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklebm.training.loop import EnergyTraining
    from sklebm.training.train import TrainingOptions


def guard_loss(
    options: TrainingOptions,
    players: Sequence[EnergyTraining],
    losses: Sequence[float],
    past: Sequence[float],
) -> None:
    """Raise FloatingPointError if the loss of a player is not finite."""
    past = [*options.earlier, *past]
    for player, loss in zip(players, losses, strict=True):
        if math.isfinite(loss):
            continue
        last = f"{past[-1]:.6g}" if len(past) else "none"
        name = type(player.objective).__name__
        raise FloatingPointError(
            f"{options.owner}: the loss of {name} became {loss} in epoch {len(past) + 1} (last "
            f"finite loss: {last}). Lower {options.named_rates()}, or scale X. The estimator was "
            "left unchanged."
        )


@contextlib.contextmanager
def explained(options: TrainingOptions) -> Iterator[None]:
    """Explain two errors of torch: of a step that overflows, and of batch normalisation."""
    try:
        yield
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        raise FloatingPointError(
            f"{options.owner}: a step of {options.named_rules()} overflowed. Lower "
            f"{options.named_rates()}. The estimator was left unchanged."
        ) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            f"{options.owner}: batch normalisation in a given network cannot learn from a batch of "
            f"one row, and with batch_size={options.batch_size} there is one. Choose another "
            "batch_size, or layers that treat every row by itself, such as LayerNorm. The "
            "estimator was left unchanged."
        ) from error
