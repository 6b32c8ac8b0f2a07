r"""Rotations and invertible matrices U, in coordinates relative to U: U <- exp(A) U, A small.

exp(A) adds a_ij s_j to the output s_i = (U z)_i. With the derivatives M_ij of a loss for that, its
change is tr(M'A), and tr((M - M')'A) / 2 where A' = -A, so that a rotation has a coordinate for
each pair i < j only. The curvature of independent outputs couples nothing but a_ij and a_ji. With
h_ij = E[F_ii] E[s_j^2] it is h_ij a_ij^2 + h_ji a_ji^2 + 2 a_ij a_ji where -log |det U| is part of
the loss, and (h_ij + h_ji - M_ii - M_jj) a_ij^2 for rotations.

P. Ablin, J.-F. Cardoso and A. Gramfort, "Faster independent component analysis by preconditioning
with Hessian approximations", IEEE Transactions on Signal Processing 66(15), 2018; and "Faster ICA
under orthogonal constraint", ICASSP 2018.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# Below this, a curvature says too little of how far to go.
LEAST_CURVATURE = 1e-2


class Local(NamedTuple):
    """A loss at (U, t): its value, its derivatives, and approximate second derivatives.

    ``relative`` (k, k) holds the derivative for s_i += a s_j in row i and column j, but for that of
    -log |det U|; ``curvature`` (k, k) holds h, whose diagonal is exact. ``free`` and
    ``free_curvature`` belong to numbers t beside the matrix.
    """

    loss: float
    relative: Tensor
    curvature: Tensor
    free: Tensor
    free_curvature: Tensor


class MatrixGroup(Protocol):
    """Matrices that products of exp(A) reach, and numbers beside them, as one flat vector."""

    def gradient(self, local: Local) -> Tensor:
        """The derivatives, (n_coordinates,)."""

    def metric(self, local: Local) -> Tensor:
        """The curvature, (n_coordinates,): linear in that of ``local``."""

    def solve(self, metric: Tensor, rest: Tensor, least: float = LEAST_CURVATURE) -> Tensor:
        """The inverse of a metric, its eigenvalues made positive and at least ``least``."""

    def moved(self, matrix: Tensor, free: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
        """exp(A) U and t after a move of all coordinates."""


class Rotations(NamedTuple):
    """Orthogonal matrices: a coordinate for each pair i < j."""

    pairs: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Rotations:
        """Those of the size of ``matrix``."""
        k = len(matrix)
        return cls(torch.triu_indices(k, k, 1, device=matrix.device))

    def gradient(self, local: Local) -> Tensor:
        """Derivatives for rotations of i and j."""
        i, j = self.pairs
        return torch.cat([local.relative[i, j] - local.relative[j, i], local.free])

    def metric(self, local: Local) -> Tensor:
        """Curvatures for rotations of i and j."""
        own = local.relative.diagonal()
        bend = local.curvature + local.curvature.T - own[:, None] - own
        return torch.cat([bend[*self.pairs], local.free_curvature])

    def solve(self, metric: Tensor, rest: Tensor, least: float = LEAST_CURVATURE) -> Tensor:
        """Division: where the loss bends down, the size of the bend is a scale all the same."""
        return rest / metric.abs().clamp(min=least)

    def moved(self, matrix: Tensor, free: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
        """U stays orthogonal."""
        i, j = self.pairs
        rotation = torch.zeros_like(matrix)
        rotation[i, j] = move[: len(i)]
        rotation[j, i] = -move[: len(i)]
        turned = torch.linalg.matrix_exp(rotation) @ matrix
        # One step of Newton's for (M M')^-1/2 M: what is left is the square of rounding.
        turned = 1.5 * turned - 0.5 * turned @ (turned.T @ turned)
        return turned, free + move[len(i) :]


class Invertible(NamedTuple):
    """Invertible matrices: a coordinate for each entry. The loss holds -log |det U|."""

    k: int

    def gradient(self, local: Local) -> Tensor:
        """Derivatives for each entry of A, with that of the determinant."""
        change = local.relative - torch.eye(self.k, dtype=torch.float64, device=local.free.device)
        return torch.cat([change.flatten(), local.free])

    def metric(self, local: Local) -> Tensor:
        """h, row by row."""
        return torch.cat([local.curvature.flatten(), local.free_curvature])

    def solve(self, metric: Tensor, rest: Tensor, least: float = LEAST_CURVATURE) -> Tensor:
        """Blocks of a_ij and a_ji, the smallest eigenvalue raised where it is not positive."""
        n, k = self.k**2, self.k
        h, r = metric[:n].reshape(k, k), rest[:n].reshape(k, k)
        half = 0.5 * (h - h.T)
        lowest = 0.5 * (h + h.T) - (half.square() + 1.0).sqrt()
        h = h + (least - lowest).clamp(min=0.0)
        # The determinant of a diagonal block is not used, and must not be zero.
        determinant = (h * h.T - 1.0).fill_diagonal_(1.0)
        found = (h.T * r - r.T) / determinant
        own = metric[:n].reshape(k, k).diagonal().clamp(min=least)
        found.diagonal().copy_(r.diagonal() / own)
        beside = rest[n:] / metric[n:].abs().clamp(min=least)
        return torch.cat([found.flatten(), beside])

    def moved(self, matrix: Tensor, free: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
        """U stays invertible: log |det U| grows by the trace of A."""
        n = self.k**2
        change = torch.linalg.matrix_exp(move[:n].reshape(self.k, self.k))
        return change @ matrix, free + move[n:]


def symmetric_orthogonal(matrix: Tensor) -> Tensor:
    """The orthogonal matrix closest to a square one, (M M')^-1/2 M."""
    left, _, right = torch.linalg.svd(matrix)
    closest: Tensor = left @ right
    return closest
