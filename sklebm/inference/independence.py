r"""Independence Metropolis-Hastings: x' from q, accepted with min(1, p(x') q(x) / (p(x) q(x'))).

L. Tierney, "Markov chains for exploring posterior distributions", Annals of Statistics 22(4), 1994.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def jump(energy: Any, position: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Let a share of the chains, drawn anew, propose a draw of ``energy.reference``.

    Leaves exp(-F) / Z invariant. Chains change between modes that no short move connects, as long
    as draws of the reference are plausible under the model, hence in few dimensions. Returns new
    positions, (n, d); a proposal whose energy is not finite is refused.
    """
    n_rows = math.ceil(share * len(position))
    rows = torch.randperm(len(position), generator=generator, device=generator.device)[:n_rows]
    rows = rows.to(position.device)
    current, proposal = position[rows], energy.reference.draw(n_rows, generator)
    both = torch.cat([current, proposal])
    log_weight = -energy.free_energy(both) - energy.reference.log_density(both)
    log_ratio = (log_weight[n_rows:] - log_weight[:n_rows]).nan_to_num(nan=-math.inf)
    uniform = torch.empty_like(log_ratio).uniform_(generator=generator)
    accepted = uniform < log_ratio.clamp(max=0.0).exp()
    return position.index_copy(0, rows, torch.where(accepted[:, None], proposal, current))
