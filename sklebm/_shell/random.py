"""Random numbers: one seed per fit, one generator per purpose, no global state.

``random_state`` becomes one integer seed; every purpose (initial values, batches, negatives,
scoring) gets its own generator, so drawing more numbers for one never shifts another.
"""

from __future__ import annotations

import secrets
import zlib

import numpy as np
import torch
from sklearn.utils import check_random_state

RandomState = int | np.random.RandomState | None


def draw_seed(random_state: RandomState) -> int:
    """Turn ``random_state`` into one integer seed below 2**31.

    ``None`` takes fresh entropy from the operating system instead of NumPy's global generator,
    which therefore stays unchanged. An integer always gives the same seed; a ``RandomState``
    is advanced by one draw, as elsewhere in scikit-learn.
    """
    if random_state is None:
        return secrets.randbelow(2**31 - 1)
    return int(check_random_state(random_state).randint(2**31 - 1))


def purpose_seed(seed: int, purpose: str, index: int = 0) -> int:
    """Mix ``seed`` with the name of a purpose (and a restart or rank) into a new seed."""
    entropy = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), index])
    return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_generator(
    seed: int, purpose: str, *, index: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a ``torch.Generator`` on ``device`` for one purpose of one fit."""
    return torch.Generator(device=device).manual_seed(purpose_seed(seed, purpose, index))
