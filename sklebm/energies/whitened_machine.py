r"""A machine with correlated Gaussian units in coordinates in which the rows are white.

With the fixed root S of the covariance of the rows, x = S y, and L = S^-T T T' S^-1 with a free
factor T that is triangular or diagonal, so that L is positive definite whatever T is,

    F(x) = 1/2 |T' (y - a)|^2 - sum_k log(1 + exp(c_k + w_k' T T' y)),
    log Z = log |S| - log |T| + d/2 log 2 pi
            + log sum_h exp(c'h + (|T' (a + W'h)|^2 - |T' a|^2) / 2).

Line searches need such coordinates: in those of x, directions differ in scale by the condition
number of the covariance.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn

from sklebm.energies.binary_states import binary_states
from sklebm.energies.correlated_gaussian import CorrelatedBilinearEnergy, CorrelatedGaussian
from sklebm.energies.units import Bernoulli, softplus


class WhitenedMachine(nn.Module):
    """The machine, and its log Z, as functions of parameters for white rows.

    Parameters
    ----------
    weights : Tensor of shape (n_hidden, n_visible)
        W for rows y.
    visible_bias : Tensor of shape (n_visible,)
        The mean a of y without input.
    hidden_bias : Tensor of shape (n_hidden,)
        Biases c.
    factor : Tensor of shape (n_visible, n_visible)
        T; entries outside ``mask`` are ignored.
    root : Tensor of shape (n_visible, n_visible)
        S, lower triangular; fixed.
    mask : Tensor of bool, shape (n_visible, n_visible)
        The free entries of T: a lower triangle, or the diagonal if S is diagonal too.
    """

    domain = "real"
    root: Tensor
    mask: Tensor

    def __init__(
        self,
        weights: Tensor,
        visible_bias: Tensor,
        hidden_bias: Tensor,
        factor: Tensor,
        root: Tensor,
        mask: Tensor,
    ) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.visible_bias = nn.Parameter(visible_bias)
        self.hidden_bias = nn.Parameter(hidden_bias)
        self.factor = nn.Parameter(factor)
        self.register_buffer("root", root)
        self.register_buffer("mask", mask)

    @classmethod
    def of(cls, machine: CorrelatedBilinearEnergy, root: Tensor, *, diagonal: bool) -> Self:
        """The same density in the coordinates of ``root``, a double, in single precision."""

        def white(rows: Tensor) -> Tensor:
            solved: Tensor = torch.linalg.solve_triangular(root, rows.double().T, upper=False)
            return solved.T

        root = torch.diag(root.square().sum(dim=1).sqrt()) if diagonal else root
        precision = root.T @ machine.visible.precision.detach().double().cpu() @ root
        mask = torch.ones_like(root, dtype=torch.bool).tril()
        if diagonal:
            mask = torch.eye(len(root), dtype=torch.bool)
        weights = white(machine.weights.detach().cpu())
        bias = white(machine.visible.bias.detach().cpu()[None])[0]
        factor, hidden = torch.linalg.cholesky(precision), machine.hidden.bias.detach().cpu()

        def single(part: Tensor) -> Tensor:
            return part.float().clone(memory_format=torch.contiguous_format)

        return cls(
            single(weights), single(bias), single(hidden), single(factor), single(root), mask
        )

    def machine(self) -> CorrelatedBilinearEnergy:
        """The same density in the coordinates of the rows."""
        root, factor = self.root.double(), self.lower().detach().double()
        outer = torch.linalg.solve_triangular(root.T, factor, upper=True)
        like = self.factor.dtype
        units = CorrelatedGaussian(
            (root @ self.visible_bias.detach().double()).to(like), (outer @ outer.T).to(like)
        )
        weights = (self.weights.detach().double() @ root.T).to(like)
        bias = self.hidden_bias.detach().clone()
        return CorrelatedBilinearEnergy(units, Bernoulli(bias), weights)

    def lower(self) -> Tensor:
        """T, with zeros where it is not free."""
        return torch.where(self.mask, self.factor, 0.0)

    def hidden_mean(self, x: Tensor) -> Tensor:
        """E[h | x], (n_rows, n_hidden)."""
        return torch.sigmoid(self._sent(x)[1])

    def _sent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Deviations T' (y - a), and the input of the hidden units."""
        factor = self.lower()
        y = torch.linalg.solve_triangular(self.root, x.T, upper=False).T
        field = torch.addmm(self.hidden_bias, y @ factor, (self.weights @ factor).T)
        return (y - self.visible_bias) @ factor, field

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x), (n_rows,). O(n d (d + k))."""
        gaps, field = self._sent(x)
        return 0.5 * gaps.square().sum(dim=1) - softplus(field).sum(dim=1)

    @property
    def summed_units(self) -> int:
        """Hidden units whose states ``exact_log_partition`` sums over."""
        return len(self.hidden_bias)

    def exact_log_partition(self) -> Tensor:
        """log Z, by all states of the hidden units. O(2^k d (d + k)).

        The volume of the rows is added in float64: in other units it may be far larger than the
        differences that line searches compare.
        """
        factor, d = self.lower(), len(self.visible_bias)
        weights, bias = self.weights @ factor, self.visible_bias @ factor
        parts = [
            torch.logsumexp(
                h @ self.hidden_bias + 0.5 * ((bias + h @ weights).square().sum(dim=1)), dim=0
            )
            for h in binary_states(self.summed_units, self.hidden_bias)
        ]
        total: Tensor = torch.logsumexp(torch.stack(parts), dim=0) - 0.5 * bias.square().sum()
        total = total - factor.diagonal().abs().log().sum()
        return total + self.root.diagonal().double().log().sum() + 0.5 * d * math.log(2.0 * math.pi)
