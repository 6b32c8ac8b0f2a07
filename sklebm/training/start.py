"""Where a run of training begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sklebm._shell.random import RandomState, draw_seed, purpose_seed
from sklebm._shell.ranks import Ranks
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

    @property
    def held_out_seed(self) -> int:
        """The seed of the rows that are held out, and of what is drawn to score them."""
        return self.seed if self.split_seed is None else self.split_seed


def seeds_of_fit(
    random_state: RandomState, previous: Mapping[str, Any], ranks: Ranks
) -> dict[str, int]:
    """Seeds of a fit that continues from ``previous``, as entries of ``training_state_``.

    A later fit holds out the same rows, so that none of them has been trained on, and draws other
    numbers, as if it were a part of the first.
    """
    drawn = ranks.first(draw_seed(random_state))
    if "seed" not in previous:  # nothing, or the sums of a closed form
        return {"seed": drawn, "split_seed": drawn, "n_fits": 1}
    n_fits = int(previous.get("n_fits", 1)) + 1
    split_seed = int(previous.get("split_seed", previous["seed"]))
    return {"seed": purpose_seed(drawn, "fit", n_fits), "split_seed": split_seed, "n_fits": n_fits}


def kept_seeds(previous: Mapping[str, Any]) -> dict[str, int]:
    """What a chunk leaves unchanged of the seeds of the fits before it."""
    return {name: previous[name] for name in ("split_seed", "n_fits") if name in previous}
