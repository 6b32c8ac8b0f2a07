r"""log p(x) + log Z of a deep belief network: log E_q exp(w), bounded or estimated by paths of q.

The variational bound is E_q w, and the importance-sampled estimate the logarithm of the mean of
exp(w); see ``sklebm.energies.belief``. Each row has draws of its own, which follow from its
content: its value is the same in any company. Few units are summed over instead of drawn.

R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief networks", ICML 2008.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sklebm.energies.belief import DeepBeliefEnergy
from sklebm.energies.binary_states import binary_states
from sklebm.inference.quasi_monte_carlo import row_keys, row_points, uniform_points

#: Up to this many units below the top machine, expectations under q are sums over all states.
MAX_SUMMED_UNITS = 10
#: What ``free_energy`` can compute.
BOUNDS = ("variational", "importance")
# Rows times draws that are computed at once.
_MAX_PATHS = 2**12


def is_summed(energy: DeepBeliefEnergy) -> bool:
    """Whether there are few enough units to sum over all states of q."""
    return sum(energy.widths) <= MAX_SUMMED_UNITS


def free_energy(
    energy: DeepBeliefEnergy, x: Tensor, bound: str = "variational", n_draws: int = 100
) -> Tensor:
    """An upper bound or an estimate of F(x) = -log p(x) - log Z, shape (n_rows,).

    Parameters
    ----------
    energy : DeepBeliefEnergy
        The network.
    x : Tensor of shape (n_rows, d)
        The rows.
    bound : {"variational", "importance"}, default="variational"
        -E_q w, or -log E_q exp(w).
    n_draws : int, default=100
        Draws of q for each row, at evenly spread points of its own; not used where states are
        summed over, as ``is_summed`` says. The bound is then exact, and the estimate exactly F.

    Returns
    -------
    free_energy : Tensor of shape (n_rows,)
        In nats. Without directed layers it is that of the machine.

    Examples
    --------
    >>> import torch
    >>> from sklebm.energies import Bernoulli, BilinearEnergy, DeepBeliefEnergy
    >>> from sklebm.inference.belief_bounds import free_energy
    >>> weights = torch.tensor([[1.0, -2.0, 0.5]])
    >>> first = BilinearEnergy(Bernoulli(torch.zeros(3)), Bernoulli(torch.zeros(1)), weights)
    >>> top = BilinearEnergy(Bernoulli(torch.zeros(1)), Bernoulli(torch.zeros(3)), weights.T)
    >>> stack = DeepBeliefEnergy([first, top])  # the transpose leaves the density as it is
    >>> torch.allclose(free_energy(stack, torch.eye(3)), first.free_energy(torch.eye(3)))
    True
    """
    if not energy.lower:
        return energy.top.free_energy(x)
    if is_summed(energy):
        (states,) = binary_states(sum(energy.widths), x)
        w, log_q = energy.weigh_states(x, states)
        if bound == "importance":
            return -torch.logsumexp(w + log_q, dim=1)
        return -(log_q.exp() * w).sum(dim=1)
    w = _drawn(energy, x, n_draws)
    if bound == "importance":
        return math.log(n_draws) - torch.logsumexp(w, dim=0)
    return -w.mean(dim=0)


def _drawn(energy: DeepBeliefEnergy, x: Tensor, n_draws: int) -> Tensor:
    """w of every draw and row, (n_draws, n_rows)."""
    points, keys, parts = uniform_points(n_draws, sum(energy.widths)), row_keys(x), []
    for block in torch.split(points, max(1, _MAX_PATHS // max(1, len(x)))):
        uniform = row_points(block, keys).flatten(0, 1)
        w = energy.weigh_draws(x.repeat(len(block), 1), uniform)
        parts.append(w.view(len(block), len(x)))
    return torch.cat(parts)
