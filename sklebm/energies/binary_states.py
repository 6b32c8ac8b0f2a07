"""All states of a number of bits, in the order of the numbers that they write."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def binary_states(n_units: int, like: Tensor, size: int = 2**14) -> Iterator[Tensor]:
    """All 2^n_units states as rows of 0 and 1, in blocks of at most ``size``."""
    for start in range(0, 2**n_units, size):
        yield chunk_of_states(start, n_units, like, size)


def chunk_of_states(start: int, n_units: int, like: Tensor, size: int = 2**14) -> Tensor:
    """The states of ``n_units`` bits with the numbers from ``start`` on, at most ``size`` rows."""
    stop = min(start + size, 2**n_units)
    numbers = torch.arange(start, stop, device=like.device)
    shifts = torch.arange(n_units, device=like.device)
    return ((numbers[:, None] >> shifts) & 1).to(like.dtype)
