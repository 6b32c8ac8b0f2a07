"""Where a run of training begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sklebm._shell.rows import Rows


@dataclass(frozen=True)
class Start:
    """Where a run of training begins."""

    rows: Rows
    means: torch.Tensor  # of the rows, in float64 on the CPU
    seed: int
    resume: bool = False  # from the fitted parameters
    n_calls: int = 0  # of partial_fit, this one included; 0 in fit
    split_seed: int | None = None  # of the rows that are held out; None: ``seed``
