"""Random numbers of modules that users write: initial weights and dropout.

torch's own layers draw from its global generator only. While such a module is built or trained, the
generator follows a seed of the estimator; afterwards it has its earlier state.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
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
def seeded(seed: int | None) -> Iterator[None]:
    """Let modules draw their weights from a seed (None: from anywhere).

    A lock keeps fits in other threads from drawing in between.
    """
    with _lock, torch.random.fork_rng([]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield


class LayerDraws:
    """What layers draw from in training: entered again, it goes on where it was left.

    Between epochs the generator is the program's, and other threads may build their modules.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        self._own: list[torch.Tensor] | None = None  # states, while no epoch runs
        self._inside: contextlib.ExitStack

    def __enter__(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_lock)
            on_cuda = self.device.type == "cuda"
            stack.enter_context(torch.random.fork_rng([self.device] if on_cuda else []))
            generators = self._generators()
            if self._own is None:
                for generator in generators:
                    generator.manual_seed(self.seed)
            else:
                for generator, state in zip(generators, self._own, strict=True):
                    generator.set_state(state)
            self._inside = stack.pop_all()

    def __exit__(self, *error: object) -> None:
        self._own = [generator.get_state() for generator in self._generators()]
        self._inside.close()

    def _generators(self) -> list[torch.Generator]:
        if self.device.type != "cuda":
            return [torch.default_generator]
        index = self.device.index
        place = torch.cuda.current_device() if index is None else index
        return [torch.default_generator, torch.cuda.default_generators[place]]


def draws_of_layers(
    modules: Iterable[nn.Module], seed: int, n_calls: int, device: torch.device
) -> contextlib.AbstractContextManager[Any]:
    """A ``LayerDraws`` for this call, or nothing if no layer can draw."""
    if not any(_may_draw(layer) for module in modules for layer in module.modules()):
        return contextlib.nullcontext()
    return LayerDraws(purpose_seed(seed, "layers", n_calls), device)


def _may_draw(layer: nn.Module) -> bool:
    """Whether a layer may draw from the global generator in training; ours never do."""
    library = type(layer).__module__.partition(".")[0]
    if library == "sklebm":
        return False
    if library != "torch" or isinstance(layer, _DRAWING) or _is_compiled(layer):
        return True
    shares = (getattr(layer, name, 0) for name in ("p", "dropout"))
    return any(isinstance(share, float | int) and share > 0 for share in shares)


_DRAWING = (nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)


def _is_compiled(layer: nn.Module) -> bool:
    """Whether what is inside cannot be told: scripted or traced modules."""
    return type(layer).__module__.startswith(("torch.jit", "torch.fx"))
