r"""Groups of one size whose members depend on each other: sum of C_ij within groups, by swaps.

A group of i trades i for j of a group h, and the sum changes by
R_ih + R_jg - R_ig - R_jh - 2 C_ij, with R_ig the sum of C_il over the members l of g but i: the
best trade of all is taken until none helps.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def square_correlations(parts: Iterable[Tensor]) -> Tensor:
    """Correlations of the squares of the columns, (k, k), with a diagonal of 0.

    ``parts`` are the rows, some at a time.
    """
    n_rows, total, products = 0, torch.zeros(()), torch.zeros(())
    for s in parts:
        squares = s.square()
        n_rows, total = n_rows + len(s), total.to(s) + squares.sum(dim=0)
        products = products.to(s) + squares.T @ squares
    scatter = products - torch.outer(total, total) / n_rows
    spans = scatter.diagonal().clamp(min=1e-300).sqrt()
    found: Tensor = scatter / spans / spans[:, None]
    return found.fill_diagonal_(0.0)


def grouped_order(dependence: Tensor, group_size: int) -> Tensor:
    """An order of the k items in which groups of ``group_size`` stand together, (k,).

    Depends on nothing but ``dependence`` (k, k), symmetric, 0 on its diagonal. The last group has
    what is left. O(k^2) for each trade; there are about k of them.
    """
    within = dependence.cpu().numpy()
    n = len(within)
    group = np.arange(n) // group_size
    group = group[np.argsort(_greedy(within, group_size))]
    for _ in range(10 * n):  # far more than are ever needed
        members = group[:, None] == np.arange(group.max() + 1)
        to_group = within @ members
        own = to_group[np.arange(n), group]
        others = to_group[:, group]  # of i to the group of j
        gain = others + others.T - own[:, None] - own - 2.0 * within
        gain[group[:, None] == group] = 0.0
        best = np.unravel_index(gain.argmax(), gain.shape)
        if not gain[best] > 1e-12:
            break
        group[list(best)] = group[list(best[::-1])]
    return torch.from_numpy(np.argsort(group, kind="stable"))


def _greedy(within: np.ndarray, group_size: int) -> np.ndarray:
    """An order: each group opens with the item that depends most on what is left, and grows."""
    left, order = list(range(len(within))), []
    while left:
        group: list[int] = []
        while left and len(group) < group_size:
            strength = within[np.ix_(left, group or left)].sum(axis=1)
            group.append(left.pop(int(strength.argmax())))
        order += group
    return np.array(order)
