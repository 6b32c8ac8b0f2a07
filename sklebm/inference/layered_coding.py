r"""Codes of codes: by one threshold a layer, or the minimum of all layers' energy at once.

With y = (x, 0, ..., 0), z = (z_1, ..., z_L) and

    M = [D_1  -I       ]
        [     D_2  -I  ]
        [          D_3 ],

sum_l 1/2 |z_{l-1} - z_l D_l|^2 = 1/2 |y - z M|^2: all layers together are one lasso.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sklebm.energies.penalties import L1, NonNegativeL1
from sklebm.energies.penalty import Penalty
from sklebm.inference import proximal
from sklebm.inference.sparse import SparseSolution, solve_codes
from sklebm.inference.sparse_problem import certificate_kind, make_problem


@dataclass(frozen=True)
class WeightedL1(Penalty):
    """R(z) = sum_k w_k |z_k|, where some weights may be zero.

    Parameters
    ----------
    weights : tuple of float
        w, one for each layer.
    counts : tuple of int
        Entries of each layer, which share its weight.
    positive : bool, default=False
        Whether codes are held at or above zero.
    """

    weights: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    positive: bool = False
    certificate: ClassVar[Literal["duality gap", "KKT residual"]] = "KKT residual"

    def _each(self, z: Tensor) -> Tensor:
        """The weight of each entry of a code."""
        counts = torch.tensor(self.counts, device=z.device)
        return z.new_tensor(self.weights).repeat_interleave(counts)

    def value(self, z: Tensor) -> Tensor:
        """R(z) of each row, shape (n_rows,)."""
        return z.abs() @ self._each(z)

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """Soft threshold, or rectified shrinkage."""
        threshold = step * self._each(v)
        if self.positive:
            return (v - threshold).clamp(min=0.0)
        return v.sign() * (v.abs() - threshold).clamp(min=0.0)


def threshold_layers(
    x: Tensor, dictionaries: Sequence[Tensor], alphas: Sequence[float], *, positive: bool
) -> list[Tensor]:
    """Codes of each layer by one soft threshold: z_l = S(z_{l-1} D_l', alpha_l).

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_features)
        Rows.
    dictionaries : sequence of Tensor of shape (width, width of the layer below)
        Atoms.
    alphas : sequence of float
        Thresholds.
    positive : bool
        Whether to keep only positive codes: a network of rectified linear units, to the bit.

    Returns
    -------
    codes : list of Tensor of shape (n_rows, width)
        Of each layer. O(k d) a row and layer.
    """
    codes, below = [], x
    for atoms, alpha in zip(dictionaries, alphas, strict=True):
        bias = atoms.new_full((len(atoms),), -alpha)
        if positive:
            below = torch.relu(torch.nn.functional.linear(below, atoms, bias))
        else:
            products = below @ atoms.T
            below = products.sign() * torch.relu(products.abs() + bias)
        codes.append(below)
    return codes


def stacked_dictionary(dictionaries: Sequence[Tensor]) -> Tensor:
    """M: shape (sum of widths, n_features + sum of all widths but the last)."""
    widths = [dictionaries[0].shape[1], *(len(atoms) for atoms in dictionaries)]
    whole = dictionaries[0].new_zeros(sum(widths[1:]), sum(widths[:-1]))
    top = left = 0
    for atoms in dictionaries:
        tall, wide = atoms.shape
        whole[top : top + tall, left : left + wide] = atoms
        if left + wide < whole.shape[1]:
            whole[top : top + tall, left + wide : left + wide + tall].fill_diagonal_(-1.0)
        top, left = top + tall, left + wide
    return whole


def solve_layers(
    x: Tensor,
    dictionaries: Sequence[Tensor],
    alphas: Sequence[float],
    *,
    positive: bool,
    tol: float = 1e-10,
    max_iter: int = 10_000,
    n_steps: int | None = None,
) -> SparseSolution:
    """Find the codes of all layers that minimise their energy together.

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_features)
        Rows.
    dictionaries : sequence of Tensor of shape (width, width of the layer below)
        Atoms.
    alphas : sequence of float
        Weights of the absolute values in each layer; zero is allowed.
    positive : bool
        Whether codes are held at or above zero.
    tol, max_iter
        As in ``solve_codes``.
    n_steps : int, optional
        Take exactly this many monotone accelerated steps from zero codes instead.

    Returns
    -------
    solution : SparseSolution
        Codes of all layers side by side. Certified by a duality gap if all weights are positive,
        otherwise by the KKT residual.

    Notes
    -----
    With K units in all layers, a step costs O(K^2) a row, and the products of atoms O(K^3) once.
    """
    atoms = stacked_dictionary(dictionaries)
    rows = torch.cat([x, x.new_zeros(len(x), atoms.shape[1] - x.shape[1])], dim=1)
    largest = max(alphas) or 1.0
    counts = [len(part) for part in dictionaries]
    shares = [alpha / largest for alpha in alphas]
    if n_steps is None and min(alphas) > 0:
        # An atom that is longer by 1 / w has a code that costs w times as much.
        scale = x.new_tensor(shares).repeat_interleave(torch.tensor(counts, device=x.device))
        plain = NonNegativeL1() if positive else L1()
        found = solve_codes(
            rows, atoms / scale[:, None], plain, largest, tol=tol, max_iter=max_iter
        )
        return SparseSolution(
            found.codes / scale, found.certificate, found.kind, found.n_iter, found.converged
        )
    penalty = WeightedL1(tuple(shares), tuple(counts), positive)
    problem = make_problem(rows, atoms, penalty, largest)
    state = proximal.start_fista(problem, proximal.start_at_zero(problem))
    if n_steps is not None:
        answer = proximal.run_steps(problem, proximal.monotone_step, state, n_steps)
    else:
        answer = proximal.run(problem, proximal.fista_step, state, tol=tol, max_iter=max_iter)
    codes, certificate, n_iter, converged = answer
    return SparseSolution(codes, certificate, certificate_kind(penalty), n_iter, converged)
