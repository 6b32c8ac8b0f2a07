r"""Densities of dependent bits that are easy to draw from and to evaluate.

    tree      q(v) = prod_i q(v_i | v_parent(i)),
    mixture   q(v) = sum_k w_k prod_i m_ki^v_i (1 - m_ki)^(1 - v_i),
    blend     q(v) = (q_1(v) + q_2(v)) / 2.

C. K. Chow and C. N. Liu, "Approximating discrete probability distributions with dependence trees",
IEEE Transactions on Information Theory 14(3), 1968.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from torch import Tensor

from sklebm.energies.base import Reference
from sklebm.energies.units import draw_bits


class BitTree:
    """Bits of which each depends on one other, its parent.

    Parameters
    ----------
    parents : Tensor of shape (n_bits,), int64
        The parent of each bit; the root is its own.
    depths : Tensor of shape (n_bits,), int64
        Number of steps to the root.
    odds : Tensor of shape (2, n_bits)
        q(v_i = 1 | parent is 0) and q(v_i = 1 | parent is 1); equal for the root.
    """

    def __init__(self, parents: Tensor, depths: Tensor, odds: Tensor) -> None:
        self.parents, self.depths, self.odds = parents, depths, odds

    def draw(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws, (n_rows, n_bits). One kernel for each depth of the tree."""
        v = self.odds.new_zeros(n_rows, len(self.parents))
        for depth in range(int(self.depths.max()) + 1):
            bits = (self.depths == depth).nonzero().flatten()
            of_parent = v[:, self.parents[bits]]
            mean = torch.lerp(
                self.odds[0, bits].expand_as(of_parent), self.odds[1, bits], of_parent
            )
            v[:, bits] = draw_bits(mean, generator)
        return v

    def log_density(self, x: Tensor) -> Tensor:
        """log q(x) of rows of 0 and 1, (n_rows,)."""
        mean = torch.where(x[:, self.parents] > 0.5, self.odds[1], self.odds[0])
        return torch.where(x > 0.5, mean, 1.0 - mean).log().sum(dim=1)

    def free_energy(self, x: Tensor) -> Tensor:
        """-log q(x)."""
        return -self.log_density(x)

    def scale(self) -> Tensor:
        """1/2, the largest standard deviation of a bit."""
        return self.odds.new_tensor(0.5)


class BitMixture:
    """A mixture of independent bits.

    Parameters
    ----------
    weights : Tensor of shape (n_components,)
        Weights w, which sum to one.
    means : Tensor of shape (n_components, n_bits)
        Means m, between 0 and 1.
    """

    def __init__(self, weights: Tensor, means: Tensor) -> None:
        self.weights, self.means = weights, means

    def draw(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws, (n_rows, n_bits)."""
        uniform = self.weights.new_empty(n_rows).uniform_(generator=generator)
        which = torch.searchsorted(self.weights.cumsum(0), uniform).clamp(max=len(self.weights) - 1)
        return draw_bits(self.means[which], generator)

    def log_joint(self, x: Tensor) -> Tensor:
        """log w_k q_k(x), (n_rows, n_components). O(n d k)."""
        off = torch.log1p(-self.means)
        return self.weights.log() + off.sum(dim=1) + x @ (self.means.log() - off).T

    def log_density(self, x: Tensor) -> Tensor:
        """log q(x) of rows of 0 and 1, (n_rows,)."""
        return torch.logsumexp(self.log_joint(x), dim=1)

    def free_energy(self, x: Tensor) -> Tensor:
        """-log q(x)."""
        return -self.log_density(x)

    def scale(self) -> Tensor:
        """1/2, the largest standard deviation of a bit."""
        return self.means.new_tensor(0.5)


class BitBlend:
    """An equal mixture of two densities.

    Parameters
    ----------
    first, second : Reference
        The densities.
    """

    def __init__(self, first: Reference, second: Reference) -> None:
        self.first, self.second = first, second

    def draw(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws, (n_rows, n_bits)."""
        one, other = self.first.draw(n_rows, generator), self.second.draw(n_rows, generator)
        return torch.where(draw_bits(torch.full_like(one[:, :1], 0.5), generator) > 0, one, other)

    def log_density(self, x: Tensor) -> Tensor:
        """log q(x) of rows of 0 and 1, (n_rows,)."""
        both = torch.logaddexp(self.first.log_density(x), self.second.log_density(x))
        return both - math.log(2.0)

    def free_energy(self, x: Tensor) -> Tensor:
        """-log q(x)."""
        return -self.log_density(x)

    def scale(self) -> Tensor:
        """1/2, the largest standard deviation of a bit."""
        return self.first.scale()


def best_tree(mean: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Parents and depths of the tree with the largest mutual information. O(d^2 log d).

    Parameters
    ----------
    mean : Tensor of shape (n_bits,)
        E[v], strictly between 0 and 1.
    pairs : Tensor of shape (n_bits, n_bits)
        E[v v'].
    """
    one, both = mean.double().cpu().numpy(), pairs.double().cpu().numpy()
    information = np.zeros_like(both)
    for u in (0, 1):
        for v in (0, 1):
            joint = both if u and v else None
            if joint is None:
                left, right = one[:, None] + 0.0 * both, one[None] + 0.0 * both
                joint = {(1, 0): left - both, (0, 1): right - both}.get((u, v))
                joint = 1.0 - left - right + both if joint is None else joint
            product = np.outer(one if u else 1.0 - one, one if v else 1.0 - one)
            joint = np.maximum(joint, 1e-12)
            information += joint * np.log(joint / product)
    # The minimum spanning tree; scipy treats zeros as missing edges, so none is zero.
    distance = np.triu(1.0 + information.max() - information, 1)
    tree = minimum_spanning_tree(distance)
    order, parents = breadth_first_order(tree, 0, directed=False)
    parents[0] = 0
    depths = np.zeros(len(one), dtype=np.int64)
    for bit in order[1:]:
        depths[bit] = depths[parents[bit]] + 1
    to = mean.device
    return torch.from_numpy(parents.astype(np.int64)).to(to), torch.from_numpy(depths).to(to)
