"""Random numbers of modules that users write: initial weights and dropout.

torch's own layers draw from its global generator only. While such a module is built or trained, the
generator follows a seed of the estimator; afterwards it has its earlier state.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from sklebm._shell.random import purpose_seed

_lock = threading.RLock()  # of the global generator


def _begin_in_child() -> None:
    """A forked process has none of the threads that may have held the lock."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


@contextlib.contextmanager
def seeded(seed: int | None, device: torch.device | None = None) -> Iterator[None]:
    """Let modules draw from a seed (None: from anywhere); torch's generator is unchanged after it.

    A lock keeps fits in other threads from drawing in between.
    """
    cuda = device if device is not None and device.type == "cuda" else None
    with _lock, torch.random.fork_rng([] if cuda is None else [cuda]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            if cuda is not None:
                with torch.cuda.device(cuda):
                    torch.cuda.manual_seed(seed)
        yield


@contextlib.contextmanager
def seeded_layers(
    modules: Iterable[nn.Module], seed: int, previous: Mapping[str, Any], device: torch.device
) -> Iterator[None]:
    """Let layers such as dropout draw from the seed of a run that continues from ``previous``.

    Nothing is locked if no module can draw.
    """
    if not any(_may_draw(layer) for module in modules for layer in module.modules()):
        yield
        return
    n_calls = int(previous.get("n_calls", 0)) + 1 if previous else 0
    with seeded(purpose_seed(seed, "layers", n_calls), device):
        yield


def _may_draw(layer: nn.Module) -> bool:
    """Whether a layer may draw from the global generator in training; ours never do."""
    library = type(layer).__module__.partition(".")[0]
    if library == "sklebm":
        return False
    if library != "torch" or isinstance(
        layer, nn.RReLU | nn.FractionalMaxPool2d | nn.FractionalMaxPool3d
    ):
        return True
    return bool(getattr(layer, "p", 0) or getattr(layer, "dropout", 0))
