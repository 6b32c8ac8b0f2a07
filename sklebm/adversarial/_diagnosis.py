"""Whether samples are like the rows, and whether a game has collapsed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sklebm._shell.random import make_generator
from sklebm._shell.warning import warn
from sklebm.objectives import Batch
from sklebm.objectives.adversarial import energy_distance

#: Samples that vary less than this share of the data's variance are called a collapse.
LEAST_SPREAD = 0.05
_N_PROBES = 1000


def closeness(energy: Any, batch: Batch, seed: int) -> float:
    """Minus the energy distance between standardised rows and as many samples.

    What is given is part of both, so that it matters which rows it was given for.
    """
    x, target = batch.x[:_N_PROBES], batch.target
    given = energy.given(None if target is None else target[:_N_PROBES])
    was_training = energy.training
    energy.eval()
    drawn = _samples(energy, x, given, make_generator(seed, "validation"))
    energy.train(was_training)
    return -energy_distance(*(torch.cat([rows, *given], dim=1) for rows in (x, drawn)))


def diagnose(energy: Any, name: str, seed: int) -> dict[str, Any]:
    """The gap between the critic's means, and the spread of samples, with warnings."""
    rows = energy.rows
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), _N_PROBES)).astype(np.intp)
    x, target = rows[chosen].float(), rows.columns.get("target")
    given = energy.given(None if target is None else target[torch.from_numpy(chosen)])
    given = tuple(part.float() for part in given)
    energy.eval()
    with torch.no_grad():
        drawn = _samples(energy, x, given, make_generator(seed, "diagnosis"))
        real, forged = (energy.judge(part, *given).double() for part in (x, drawn))
        variance = free_variance(x, *given)
        # Of rows that do not vary, no samples are too alike.
        spread = free_variance(drawn, *given) / variance if variance > 1e-12 else 1.0
    gap = float(real.mean() - forged.mean())
    if spread < LEAST_SPREAD:
        warn(
            f"The samples of {name} have collapsed: their variance is {spread:.2g} of "
            f"the data's, below {LEAST_SPREAD:g} (critic's gap {gap:.2g}). Lower "
            "learning_rate, raise critic_steps or max_epochs, or set another random_state."
        )
    both = torch.cat([real, forged])
    if float(both.max() - both.min()) <= 1e-6 * float(both.abs().max()) + 1e-12:
        warn(
            f"The critic of {name} gives all rows the same value (its gap between data and "
            f"samples is {gap:.2g}), so the generator learns nothing. Lower "
            "critic_learning_rate, or check that the rows differ."
        )
    return {"critic_gap_": gap, "sample_spread_": spread}


def free_variance(x: torch.Tensor, *given: torch.Tensor) -> float:
    """Mean variance of the features that no linear function of what is given explains."""
    x = x.double()
    known = torch.cat([x.new_ones(len(x), 1), *(part.double() for part in given)], dim=1)
    # Indicators of all labels add up to the constant: of many solutions, the least is taken.
    explained = known @ (torch.linalg.pinv(known) @ x)
    return float((x - explained).square().mean())


def _samples(
    energy: Any, like: torch.Tensor, given: tuple[torch.Tensor, ...], generator: torch.Generator
) -> torch.Tensor:
    """As many rows of the averaged generator as ``like`` has, in the units of training."""
    z = torch.empty(len(like), energy.n_components).normal_(generator=generator).to(like)
    with torch.no_grad():
        drawn: torch.Tensor = energy.rebuild(z, *given)
    return drawn
