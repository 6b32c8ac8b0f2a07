"""Importance-weighted log densities from row-specific draws of q(z | x), and their reliability.

Every row has its own Sobol points, scrambled by a hash of its content: its score depends only on
the row, equal rows have equal scores, and the errors of different rows are independent, so they
average out in a mean over rows.
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

# Values in one block of decoded samples, which stays in the caches.
_BLOCK = 2**19
#: Numbers of draws and rows for the diagnosis of the encoder.
DIAGNOSED_DRAWS, DIAGNOSED_ROWS = 128, 128
#: Minimum effective share of the draws, for the scores of half the rows.
LEAST_SHARE = 0.02


def block_size(n_rows: int, floats_per_row: int) -> int:
    """Number of samples of each of ``n_rows`` rows to decode at a time."""
    return int(max(1, _BLOCK // (n_rows * floats_per_row)))


def row_noise(
    energy: LatentVariableEnergy, n_samples: int, x: torch.Tensor, block: int
) -> Iterator[torch.Tensor]:
    """The noise for scoring the rows, in blocks (<= block, n_rows, n_components)."""
    keys = row_keys(x)
    for points in torch.split(uniform_points(n_samples, energy.n_components), block):
        yield energy.shape_noise(row_points(points, keys)).to(x.dtype)


def is_exact(energy: LatentVariableEnergy) -> bool:
    """Whether log p(x) is a sum over a small number of states."""
    return isinstance(energy, BernoulliLatentEnergy) and energy.n_components <= MAX_LATENTS


def log_marginal(energy: Any, x: torch.Tensor, n_samples: int, floats_per_row: int) -> torch.Tensor:
    """log p(x) of each row: summed over all states of few bits, else importance-weighted."""
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
    """Effective number of draws behind a row's importance-weighted score, from 1 to all."""
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
    """Median over some rows of the effective share of draws; None if scores are exact."""
    if is_exact(energy):
        return None
    x = rows[pick_rows(rows, DIAGNOSED_ROWS)]
    with torch.no_grad():
        sizes = effective_sample_size(energy, x, DIAGNOSED_DRAWS, floats_per_row)
    every = rows.ranks.concat(sizes.double().cpu())
    return float(every.median()) / DIAGNOSED_DRAWS


def warn_if_poor(share: float, owner: str) -> None:
    """Warn if so few draws dominate the importance weights that scores are far too low."""
    if share >= LEAST_SHARE:
        return
    warn(
        f"The encoder of {owner} proposes poor latents: for half of the training rows only "
        f"{share * DIAGNOSED_DRAWS:.2g} of {DIAGNOSED_DRAWS} draws carry weight, so "
        "score_samples is well below log p(x). Raise n_importance_samples (see "
        'effective_sample_size), train longer, or try posterior="full" or objective="iwae".'
    )
