r"""Noise for binary rows, learnt as rows arrive: independent, a tree, or a mixture.

Moments are running means over all rows, E[v] and E[v v'], towards 1/2 and 1/4 by ten rows more. The
tree is found anew whenever the number of rows has doubled. The mixture follows stepwise expectation
maximisation: with the responsibilities r of a batch, s <- (1 - rate) s + rate mean(r (1, v)), at
rates that fall as (t + 2)^-0.6.

Half of the noise consists of independent bits. Without these, a machine may keep mass in regions
that noise near the data never reaches. (On bars of 3 x 3 bits a mixture alone ends at
-5.9 nats a row, half of it with independent bits at -3.0, and these alone at -3.3.)

Which of the three is nearest to the data is told by their log densities at rows that they have not
learnt from yet: every batch is scored first (prequential likelihood).

O. Cappe and E. Moulines, "On-line expectation-maximization algorithm for latent data models",
Journal of the Royal Statistical Society B 71(3), 2009; A. P. Dawid, "Present position and potential
developments: some personal views: statistical theory: the prequential approach", Journal of the
Royal Statistical Society A 147(2), 1984.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sklebm.energies.base import Reference
from sklebm.energies.bit_densities import BitBlend, BitMixture, BitTree, best_tree
from sklebm.energies.reference import ReferenceUnits
from sklebm.energies.units import Bernoulli

KINDS = ("independent", "tree", "mixture")
_N_COMPONENTS = 32
#: Rows after which the choice is fixed: rows of later passes have already been learnt from.
_N_JUDGED = 5000
_FORGET = 0.9
_PRIOR_ROWS = 10.0
_FLOOR = 1e-3

State = dict[str, Tensor]


def init(like: Tensor) -> State:
    """The state before any row, for bits in the shape of ``like``, (n_bits,)."""
    zero = torch.zeros_like(like)
    bits = len(like)
    return {
        "count": zero.sum(),
        "mean": zero,
        "pairs": zero.new_zeros(bits, bits),
        "parents": torch.zeros(bits, dtype=torch.int64, device=like.device),
        "depths": (torch.arange(bits, device=like.device) > 0).long(),
        "next_tree": zero.sum(),
        "mass": zero.new_full((_N_COMPONENTS,), 1.0 / _N_COMPONENTS),
        "centres": zero.new_full((_N_COMPONENTS, bits), 0.5 / _N_COMPONENTS),
        "n_batches": zero.sum(),
        "scores": zero.new_zeros(len(KINDS)),
    }


def learn(state: State, x: Tensor, shares: Tensor) -> State:
    """Score the rows x under every kind of noise, then learn from them.

    ``shares`` are the weights of the rows, which sum to one. O(n d (d + n_components)).
    """
    scores = state["scores"]
    if state["n_batches"] > 0 and state["count"] <= _N_JUDGED:
        found = torch.stack([shares @ estimate(state, kind).log_density(x) for kind in KINDS])
        scores = _FORGET * scores + found
    count = state["count"] + len(x)
    part = len(x) / count
    weighted = x * shares[:, None]
    state = {
        **state,
        "scores": scores,
        "count": count,
        "mean": torch.lerp(state["mean"], weighted.sum(dim=0), part),
        "pairs": torch.lerp(state["pairs"], weighted.T @ x, part),
    }
    if count >= state["next_tree"]:
        state["parents"], state["depths"] = best_tree(*_moments(state))
        state["next_tree"] = 2.0 * count
    return {**state, **_step_mixture(state, x, shares)}


def _step_mixture(state: State, x: Tensor, shares: Tensor) -> State:
    """One step of expectation maximisation; the first batch gives the components' places."""
    n_batches = state["n_batches"]
    if n_batches == 0:
        rows = x[torch.arange(_N_COMPONENTS, device=x.device) % len(x)]
        base = _moments(state)[0]
        # Copies of one row differ by the bits that they take from the base rate.
        centres = torch.lerp(rows, base.expand_as(rows), 0.3)
        return {
            "centres": centres * state["mass"][:, None],
            "n_batches": n_batches + 1.0,
        }
    mixture = _mixture(state)
    responsibility = torch.softmax(mixture.log_joint(x), dim=1) * shares[:, None]
    rate = (n_batches + 2.0) ** -0.6
    return {
        "mass": torch.lerp(state["mass"], responsibility.sum(dim=0), rate),
        "centres": torch.lerp(state["centres"], responsibility.T @ x, rate),
        "n_batches": n_batches + 1.0,
    }


def best(state: State) -> str:
    """The kind of noise under which rows yet to be learnt were likeliest."""
    return KINDS[int(state["scores"].argmax())]


def density(state: State, kind: str) -> Reference:
    """The noise of this kind: half the estimate, half independent bits."""
    independent = estimate(state, "independent")
    if kind == "independent":
        return independent
    return BitBlend(estimate(state, kind), independent)


def estimate(state: State, kind: str) -> Reference:
    """The density of this kind, as learnt so far."""
    if kind == "tree":
        mean, pairs = _moments(state)
        parents = state["parents"]
        of_pair = pairs.gather(1, parents[:, None])[:, 0]
        of_parent = mean[parents]
        odds = torch.stack([(mean - of_pair) / (1.0 - of_parent), of_pair / of_parent])
        root = state["depths"] == 0
        odds = torch.where(root, mean, odds)
        return BitTree(parents, state["depths"], odds.clamp(1e-6, 1.0 - 1e-6))
    if kind == "mixture":
        return _mixture(state)
    return ReferenceUnits(Bernoulli(torch.logit(_moments(state)[0])))


def _moments(state: State) -> tuple[Tensor, Tensor]:
    """E[v] and E[v v'], as if ten more rows had been uniform."""
    n, prior = state["count"], _PRIOR_ROWS
    mean = (n * state["mean"] + 0.5 * prior) / (n + prior)
    pairs = (n * state["pairs"] + 0.25 * prior) / (n + prior)
    pairs = torch.where(torch.eye(len(mean), device=mean.device).bool(), mean, pairs)
    return mean, pairs


def _mixture(state: State) -> BitMixture:
    """The components, each towards the base rate by the mass of ten rows over all of them."""
    base = _moments(state)[0]
    prior = _PRIOR_ROWS / ((state["count"] + _PRIOR_ROWS) * _N_COMPONENTS)
    mass = state["mass"] + prior
    means = (state["centres"] + prior * base) / mass[:, None]
    return BitMixture(mass / mass.sum(), means.clamp(_FLOOR, 1.0 - _FLOOR))
