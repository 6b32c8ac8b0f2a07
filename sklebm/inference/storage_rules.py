r"""Couplings of an associative memory from patterns p in {-1, +1}^d, one at a time.

    Hebb:            W += p p' / d
    Storkey:         W_ij += (p_i p_j - p_i h_ji - h_ij p_j) / d,   h_ij = sum_{k != i, j} W_ik p_k
    pseudo-inverse:  W += r r' / |r|^2,   r = p - W p

The last is the projection onto the span of all patterns, of which each is a fixed point. All are
computed in double precision, and patterns in chunks give the same couplings as at once.

D. O. Hebb, "The organization of behavior", 1949; A. Storkey, "Increasing the capacity of a Hopfield
network without sacrificing functionality", ICANN 1997; L. Personnaz, I. Guyon and G. Dreyfus,
"Collective computational properties of neural networks: new learning mechanisms", Physical Review A
34, 1986.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A pattern this close to the span of the others, relative to its length, lies in it.
_IN_SPAN = 1e-9


def hebb(couplings: Tensor, patterns: Tensor) -> Tensor:
    """The couplings after these patterns too, with their diagonal. O(n d^2)."""
    return couplings + patterns.T @ patterns / patterns.shape[1]


def storkey(couplings: Tensor, patterns: Tensor) -> Tensor:
    """The couplings after these patterns too; the diagonal stays zero. O(n d^2)."""
    couplings, n_units = couplings.clone(), patterns.shape[1]
    for p in patterns:
        received = couplings @ p
        # h_ij lacks the term of unit j; that of unit i itself is zero.
        h = received.unsqueeze(1) - couplings * p
        step = torch.outer(p, p) - p.unsqueeze(1) * h.T - h * p
        couplings += step.fill_diagonal_(0.0) / n_units
    return couplings


def pseudo_inverse(couplings: Tensor, patterns: Tensor) -> Tensor:
    """The projection onto the span of these patterns too. O(n d^2)."""
    couplings = couplings.clone()
    for p in patterns:
        r = p - couplings @ p
        if float(r.norm()) > _IN_SPAN * float(p.norm()):
            r = r - couplings @ r  # a second time, against rounding
            couplings += torch.outer(r, r) / r.square().sum()
    return couplings


RULES = {"hebb": hebb, "storkey": storkey, "pseudo_inverse": pseudo_inverse}
