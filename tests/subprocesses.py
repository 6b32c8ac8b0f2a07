"""Fresh interpreters, in which tests see imports, memory and seeds from the start."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# For measurements of memory: the C library gives freed blocks back at once, so that the peak is
# what was in use at one time. By default it learns from what is freed which blocks to keep.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def run_python(code, *arguments, **environment):
    """Run code in a fresh interpreter that can import ``tests``; return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def global_states():
    """Digests of the global generators of random, NumPy and torch."""
    import hashlib
    import random

    import numpy as np
    import torch

    of_numpy = np.random.get_state()  # noqa: NPY002 (the global generator is what is watched)
    states = [random.getstate(), of_numpy, torch.get_rng_state().tolist()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state().tolist())
    return [hashlib.sha256(repr(state).encode()).hexdigest() for state in states]
