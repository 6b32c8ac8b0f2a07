r"""log Z of bits on a graph by messages: a bound, and Bethe's approximation.

Naive mean field: for independent bits with means m, Gibbs' inequality gives

    log Z >= 1/2 m' W m + b' m + sum_i H(m_i),

at its local maximum m_i = sigma(b_i + sum_j W_ij m_j). Bethe: with messages u_ij, the log odds that
unit i adds to those of unit j,

    u_ij = log (1 + e^(t_ij + W_ij)) / (1 + e^t_ij),     t_ij = b_i + sum_{k != j} u_ki,

    log Z ~ sum_i log(1 + e^(b_i + sum_k u_ki)) - sum_{i<j} log(1 + p_ij p_ji (e^W_ij - 1)),

with p_ij = sigma(t_ij). Exact on trees, and at any fixed point a stationary point of Bethe's free
energy, neither an upper nor a lower bound in general.

J. S. Yedidia, W. T. Freeman and Y. Weiss, "Constructing free-energy approximations and generalized
belief propagation algorithms", IEEE Transactions on Information Theory 51(7), 2005.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sklebm.energies.units import softplus
from sklebm.inference.gibbs_sweeps import sweep

# Messages move half of the way where loops make them oscillate; on a tree, any damping converges.
_DAMPING = 0.5


class Approximation(NamedTuple):
    """log Z in nats, the means of the units, and whether the iteration settled."""

    value: float
    means: Tensor
    settled: bool


def entropy(m: Tensor) -> Tensor:
    """Sum over units of -m log m - (1 - m) log(1 - m), for each row."""
    total: Tensor = (torch.special.entr(m) + torch.special.entr(1.0 - m)).sum(dim=-1)
    return total


def mean_field_means(
    couplings: Tensor,
    biases: Tensor,
    classes: Sequence[Tensor],
    start: Tensor,
    held: Tensor | None = None,
    *,
    max_iter: int = 1000,
    tol: float = 1e-10,
) -> tuple[Tensor, bool]:
    """Means that locally maximise the mean-field bound, (n_rows, n_units); whether they settled.

    Each sweep sets every unit to the best mean given the others, so that the bound never falls.
    Units that are ``held`` stay at ``start``.
    """
    m = start.clone()
    moving = torch.arange(len(m), device=m.device)
    for _ in range(max_iter):
        old = m[moving]
        given = None if held is None else held[moving]
        m[moving] = new = sweep(old, couplings, biases, classes, None, given)
        # Rows stop one by one: the means of a row do not depend on the others.
        moving = moving[(new - old).abs().amax(dim=1) > tol]
        if not len(moving):
            return m, True
    return m, False


def mean_field(couplings: Tensor, biases: Tensor, classes: Sequence[Tensor]) -> Approximation:
    """The naive mean-field bound, log Z >= value, from means of one half. O(n_units^2) a sweep."""
    start = torch.full_like(biases, 0.5).unsqueeze(0)
    m, settled = mean_field_means(couplings, biases, classes, start)
    means = m[0]
    value = 0.5 * means @ couplings @ means + biases @ means + entropy(means)
    return Approximation(float(value), means, settled)


def bethe(
    couplings: Tensor, biases: Tensor, *, max_iter: int = 2000, tol: float = 1e-12
) -> Approximation:
    """Bethe's approximation by belief propagation; exact on trees. O(n_units^2) an iteration."""
    coupled = couplings != 0
    messages = torch.zeros_like(couplings)  # from the row's unit to the column's
    settled = False
    for _ in range(max_iter):
        cavity = (biases + messages.sum(dim=0)).unsqueeze(1) - messages.T
        new = (softplus(cavity + couplings) - softplus(cavity)) * coupled
        change = float((new - messages).abs().max())
        messages = torch.lerp(messages, new, _DAMPING)
        if change <= tol:
            settled = True
            break
    total = biases + messages.sum(dim=0)
    cavity = total.unsqueeze(1) - messages.T
    # log(1 - p p' + p p' e^W) by logarithms: 1 - p p' would cancel, and e^W overflow.
    on, off = logsigmoid(cavity), logsigmoid(-cavity)
    both = on + on.T
    pairs = torch.logaddexp(torch.logaddexp(off, on + off.T), both + couplings) * coupled
    value = softplus(total).sum() - 0.5 * pairs.sum()
    return Approximation(float(value), torch.sigmoid(total), settled)
