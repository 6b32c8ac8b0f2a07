r"""Codes with at most so many non-zeros: a choice of atoms, then least squares on them.

``refit_largest`` takes the largest entries of a code that is there; ``pursue`` lets the atoms join
one by one (orthogonal matching pursuit).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sklebm.inference.proximal import solve_on
from sklebm.inference.sparse_problem import SparseProblem

#: Codes, stationarity on the support, iterations, and whether each row is final.
Answer = tuple[Tensor, Tensor, Tensor, Tensor]


def refit_largest(problem: SparseProblem, codes: Tensor, n_nonzero: int) -> Answer:
    """Keep the ``n_nonzero`` largest entries of each code and fit them again by least squares."""
    size = min(n_nonzero, codes.shape[1])
    index = codes.abs().topk(size, dim=1).indices
    return _certified(problem, *_fit(problem, index, codes.gather(1, index) != 0), 1)


def pursue(problem: SparseProblem, n_nonzero: int) -> Answer:
    """Let the atom that lowers the error of a row most join, ``n_nonzero`` times.

    The error that one atom removes is q^2 / (2 |d|^2). A row ends early when no atom can lower its
    error by more than rounding.

    Notes
    -----
    O(k s) for the products and O(s^3) for the least squares of each of s rounds and each row.
    """
    correlations, lengths = problem.correlations, problem.gram.diagonal().sqrt()
    n_rows, n_components = correlations.shape
    size = min(n_nonzero, n_components)
    index = torch.zeros(n_rows, size, dtype=torch.int64, device=correlations.device)
    used = torch.zeros_like(index, dtype=torch.bool)
    codes, slope = torch.zeros_like(correlations), correlations
    usable = lengths > 0
    floor = 16.0 * torch.finfo(correlations.dtype).eps * problem.squared_norms.sqrt()
    for round_number in range(size):
        gain = torch.where(usable, slope.abs() / lengths, 0.0)
        gain = torch.where(codes != 0, 0.0, gain)
        best, chosen = gain.max(dim=1)
        index[:, round_number], used[:, round_number] = chosen, best > floor
        if not bool(used[:, round_number].any()):
            break
        codes, _, _ = _fit(problem, index[:, : round_number + 1], used[:, : round_number + 1])
        slope = correlations - codes @ problem.gram
    return _certified(problem, codes, index, used, size)


def _fit(problem: SparseProblem, index: Tensor, used: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of least squared error on the used entries of ``index``; returns all three."""
    target = problem.correlations.gather(1, index)
    solved = torch.empty_like(target)
    rows = torch.arange(len(index), device=index.device)
    for part in torch.split(rows, max(1, 2**24 // index.shape[1] ** 2)):
        solved[part] = solve_on(problem.gram, index[part], used[part], target[part])
    # Entries that are not used may repeat an index that is: they add nothing.
    codes = torch.zeros_like(problem.correlations).scatter_add_(1, index, solved)
    return codes, index, used


def _certified(
    problem: SparseProblem, codes: Tensor, index: Tensor, used: Tensor, n_iter: int
) -> Answer:
    slope = (problem.correlations - codes @ problem.gram).gather(1, index)
    residual = torch.where(used, slope, 0.0).abs().amax(dim=1) / problem.alpha
    count = torch.full_like(residual, n_iter, dtype=torch.int64)
    return codes, residual, count, torch.ones_like(count, dtype=torch.bool)
