"""Isolation from torch's global settings: they never change an estimator's results.

Default dtype, default device, autocasting, ``no_grad`` and ``inference_mode`` are set by the
calling program for its own code. An estimator uses its own settings: single precision by default,
the CPU unless a device is given, gradients enabled, no autocasting.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from types import FunctionType
from typing import Any

import torch

_lock = threading.Lock()
_default_dtype: Any = None  # of the program, while at least one call has set it aside
_n_inside = 0


def _begin_in_child() -> None:
    """A forked process has none of the threads that may have been inside, or held the lock."""
    global _lock, _n_inside
    if _n_inside:
        torch.set_default_dtype(_default_dtype)
    _lock, _n_inside = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


def sheltered(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, run under the library's own settings."""

    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        if _is_plain():
            return method(*args, **kwargs)
        with _own_surroundings():
            return method(*args, **kwargs)

    run.is_sheltered = True  # type: ignore[attr-defined]
    return run


def shelter_methods(cls: type) -> None:
    """Isolate the public methods that a class defines."""
    for name, value in list(vars(cls).items()):
        if name.startswith("_"):
            continue
        if isinstance(value, FunctionType) and not hasattr(value, "is_sheltered"):
            setattr(cls, name, sheltered(value))
        elif isinstance(value, classmethod) and not hasattr(value.__func__, "is_sheltered"):
            setattr(cls, name, classmethod(sheltered(value.__func__)))
        elif hasattr(value, "check") and not hasattr(value.fn, "is_sheltered"):  # available_if
            value.fn = sheltered(value.fn)


def _is_plain() -> bool:
    """Whether the program has left torch's defaults unchanged."""
    with _lock:  # another thread may have set the program's default aside, and restores it
        is_single = _n_inside == 0 and torch.get_default_dtype() is torch.float32
    return (
        is_single
        and torch.is_grad_enabled()
        and not torch.is_inference_mode_enabled()
        and not _autocasts()
        and torch._C._len_torch_function_stack() == 0
    )


def _autocasts() -> bool:
    return bool(torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"))


@contextlib.contextmanager
def _own_surroundings() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_single_precision())
        yield


@contextlib.contextmanager
def _single_precision() -> Iterator[None]:
    """Override the default dtype. All threads share it, so the last call to finish restores it."""
    global _default_dtype, _n_inside
    with (lock := _lock):
        if _n_inside == 0:
            _default_dtype = torch.get_default_dtype()
        _n_inside += 1
        if torch.get_default_dtype() is not torch.float32:
            torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        with _lock:
            if lock is _lock:  # otherwise a forked process, which has begun anew
                _n_inside -= 1
                if _n_inside == 0 and _default_dtype is not torch.get_default_dtype():
                    torch.set_default_dtype(_default_dtype)
