"""Importance-weighted log densities: draws from q(z | x) that belong to the row, and their worth.

Every row has Sobol points of its own, scrambled by a hash of its content: its score depends on
nothing but the row, equal rows have equal scores, and the errors of different rows are independent,
so that they average out in a mean over rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from sklebm._shell.rows import Rows
from sklebm._shell.warning import warn
from sklebm.autoencoders._diagnosis import pick_rows
from sklebm.energies.variational import BernoulliLatentEnergy, LatentVariableEnergy
from sklebm.inference.quasi_monte_carlo import row_keys, row_points, uniform_points
from sklebm.objectives.discrete_evidence import MAX_LATENTS

# Numbers of one block of decoded samples: it stays in the caches.
_BLOCK = 2**19
#: Draws and rows that the diagnosis of the encoder takes.
DIAGNOSED_DRAWS, DIAGNOSED_ROWS = 128, 128
#: Share of the draws that must count for the scores of half the rows.
LEAST_SHARE = 0.02


def block_size(n_rows: int, floats_per_row: int) -> int:
    """Samples of each of ``n_rows`` rows that are decoded at a time."""
    return int(max(1, _BLOCK // (n_rows * floats_per_row)))


def row_noise(
    energy: LatentVariableEnergy, n_samples: int, x: torch.Tensor, block: int
) -> Iterator[torch.Tensor]:
    """The noise that the rows are scored with, in blocks (<= block, n_rows, n_components)."""
    keys = row_keys(x)
    for points in torch.split(uniform_points(n_samples, energy.n_components), block):
        yield energy.shape_noise(row_points(points, keys)).to(x.dtype)


def is_exact(energy: LatentVariableEnergy) -> bool:
    """Whether log p(x) is a sum over few states."""
    return isinstance(energy, BernoulliLatentEnergy) and energy.n_components <= MAX_LATENTS


def log_marginal(energy: Any, x: torch.Tensor, n_samples: int, floats_per_row: int) -> torch.Tensor:
    """log p(x) of each row, summed over all states of few bits, else importance-weighted."""
    block = block_size(len(x), floats_per_row)
    if is_exact(energy):
        exact: torch.Tensor = energy.exact_log_marginal(x, block)
        return exact
    marginal: torch.Tensor
    marginal, _ = energy.importance_sample(x, row_noise(energy, n_samples, x, block))
    return marginal


def effective_sample_size(
    energy: Any, x: torch.Tensor, n_samples: int, floats_per_row: int
) -> torch.Tensor:
    """How many of a row's draws its importance-weighted score rests on, between 1 and all."""
    block = block_size(len(x), floats_per_row)
    size: torch.Tensor
    _, size = energy.importance_sample(x, row_noise(energy, n_samples, x, block))
    return size


def lower_bound(energy: Any, x: torch.Tensor, n_samples: int, floats_per_row: int) -> torch.Tensor:
    """Evidence lower bound of each row, averaged over its draws; the divergence is exact."""
    blocks = row_noise(energy, n_samples, x, block_size(len(x), floats_per_row))
    total = sum(len(noise) * energy.lower_bound(x, noise) for noise in blocks)
    return torch.as_tensor(total / n_samples)


def median_share(energy: Any, rows: Rows, floats_per_row: int) -> float | None:
    """Median over some rows of the share of their draws that count; None if scores are exact."""
    if is_exact(energy):
        return None
    x = rows[pick_rows(rows, DIAGNOSED_ROWS)].float()
    with torch.no_grad():
        sizes = effective_sample_size(energy, x, DIAGNOSED_DRAWS, floats_per_row)
    every = rows.ranks.concat(sizes.double().cpu())
    return float(every.median()) / DIAGNOSED_DRAWS


def warn_if_poor(share: float, owner: str) -> None:
    """Warn if importance weights rest on so few draws that scores are far below log p(x)."""
    if share >= LEAST_SHARE:
        return
    warn(
        f"The encoder of {owner} proposes poor latents: for half of the training rows only "
        f"{share * DIAGNOSED_DRAWS:.2g} of {DIAGNOSED_DRAWS} draws count, so that score_samples is "
        "well below log p(x). Raise n_importance_samples (see effective_sample_size), train "
        'longer, or try posterior="full" or objective="iwae".'
    )
