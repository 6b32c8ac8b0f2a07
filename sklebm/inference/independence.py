r"""Independence Metropolis-Hastings: x' from q, accepted with min(1, p(x') q(x) / (p(x) q(x'))).

L. Tierney, "Markov chains for exploring posterior distributions", Annals of Statistics 22(4), 1994.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sklebm.energies.base import ReferencedEnergy
from sklebm.inference.chains import ChainState, energy_and_gradient


def jump(
    generator: torch.Generator,
    position: Tensor,
    log_step: Tensor,
    energy: ReferencedEnergy,
    share: float,
) -> ChainState:
    """Chains of which a share, drawn anew, has proposed to move to a draw of ``energy.reference``.

    Leaves exp(-F) / Z invariant. Chains change between modes that no short move connects, as long
    as draws of the reference are plausible under the model, hence in few dimensions. A proposal
    that is not finite is refused. Costs a gradient for each chain, as resuming it does, and one for
    each proposal, in the same pass.
    """
    n_chains, n_proposals = len(position), math.ceil(share * len(position))
    order = torch.randperm(n_chains, generator=generator, device=generator.device)
    rows = order[:n_proposals].to(position.device)
    both = torch.cat([position, energy.reference.draw(n_proposals, generator)])
    value, gradient = energy_and_gradient(energy, both)
    # log p(x') q(x) - log p(x) q(x'), but for rows that stay where they are
    compared = torch.cat([rows, torch.arange(n_chains, len(both), device=rows.device)])
    log_weight = -value[compared] - energy.reference.log_density(both[compared])
    log_ratio = log_weight[n_proposals:] - log_weight[:n_proposals]
    finite = torch.isfinite(log_ratio + gradient[n_chains:].sum(dim=1))
    uniform = torch.empty_like(log_ratio).uniform_(generator=generator)
    accepted = finite & (uniform < log_ratio.clamp(max=0.0).exp())
    source = torch.arange(n_chains, device=rows.device)
    source[rows] = torch.where(accepted, compared[n_proposals:], rows)
    return ChainState(both[source], value[source], gradient[source], log_step)
