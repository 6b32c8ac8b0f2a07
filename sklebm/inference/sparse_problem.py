r"""min_z 1/2 |x - z D|^2 + alpha R(z) in terms of the Gram matrix: objective and certificates.

With H = D D' (plus a ridge for the elastic net), c = D x and q = c - H z, nothing else depends on
the number of features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sklebm.energies.penalties import (
    L1,
    ElasticNet,
    GroupL2,
    LateralInhibition,
    NonNegativeL1,
    Penalty,
    ProximalPenalty,
)


@dataclass(frozen=True)
class SparseProblem:
    """Rows to encode, reduced to their products with the atoms.

    Parameters
    ----------
    correlations : Tensor of shape (n_rows, n_components)
        c, products of rows and atoms.
    squared_norms : Tensor of shape (n_rows,)
        Squared lengths of the rows.
    gram : Tensor of shape (n_components, n_components)
        H, with the ridge of an elastic net on its diagonal.
    lipschitz : float
        Largest eigenvalue of H.
    penalty : Penalty
        R, without the squares of an elastic net.
    alpha : float
        Weight of R.
    """

    correlations: Tensor
    squared_norms: Tensor
    gram: Tensor
    lipschitz: float
    penalty: Penalty
    alpha: float

    def select(self, rows: Tensor) -> SparseProblem:
        """The problem of some of the rows."""
        return replace(
            self, correlations=self.correlations[rows], squared_norms=self.squared_norms[rows]
        )

    def objective(self, z: Tensor, product: Tensor) -> Tensor:
        """Energies of the rows, given ``product`` = z H."""
        smooth = 0.5 * self.squared_norms + ((0.5 * product - self.correlations) * z).sum(dim=1)
        return smooth + self.alpha * self.penalty.value(z)

    def certificate(self, z: Tensor, product: Tensor) -> Tensor:
        """How far each row can be from optimal: see ``certificate_kind``."""
        if isinstance(self.penalty, (L1, NonNegativeL1, GroupL2)):
            return self._relative_gap(z, product)
        return self.stationarity(z, product)

    def _relative_gap(self, z: Tensor, product: Tensor) -> Tensor:
        gradient = self.correlations - product
        if isinstance(self.penalty, GroupL2):
            peak = self.penalty.norms(gradient).amax(dim=1)
        elif self.penalty.non_negative:
            peak = gradient.amax(dim=1).clamp(min=0.0)
        else:
            peak = gradient.abs().amax(dim=1)
        scale = (self.alpha / peak).clamp(max=1.0)  # the residual, shrunk until dual feasible
        explained = (self.correlations * z).sum(dim=1)
        residual = self.squared_norms - 2.0 * explained + (product * z).sum(dim=1)
        objective = 0.5 * residual + self.alpha * self.penalty.value(z)
        dual = scale * (self.squared_norms - explained) - 0.5 * scale.square() * residual
        gap = (objective - dual).clamp(min=0.0)
        return torch.where(objective > 0, gap / objective, gap)

    def rounding(self, z: Tensor, product: Tensor) -> Tensor:
        """What rounding alone may add to the certificate of each row."""
        eps = 16.0 * torch.finfo(z.dtype).eps
        if isinstance(self.penalty, (L1, NonNegativeL1, GroupL2)):
            objective = self.objective(z, product)
            return torch.where(objective > 0, eps * self.squared_norms / objective, eps)
        return eps * (self.correlations.abs() + product.abs()).amax(dim=1) / self.alpha

    def stationarity(self, z: Tensor, product: Tensor) -> Tensor:
        """Largest change that a proximal (or coordinate) step would make, in units of alpha."""
        gradient = self.correlations - product
        if isinstance(self.penalty, ProximalPenalty):
            step = 1.0 / self.lipschitz
            moved = self.penalty.prox(z + step * gradient, step * self.alpha)
            return (moved - z).abs().amax(dim=1) * (self.lipschitz / self.alpha)
        moved = self.coordinate_minimum(z, gradient)
        return ((moved - z).abs() * self.gram.diagonal()).amax(dim=1) / self.alpha

    def coordinate_minimum(self, z: Tensor, gradient: Tensor) -> Tensor:
        """For each coordinate the value that minimises the objective, all others held."""
        curvature = self.gram.diagonal()
        target = gradient + curvature * z
        if isinstance(self.penalty, LateralInhibition):
            threshold = self.alpha * (1.0 + self.penalty.inhibition(z))
            moved = target.sign() * (target.abs() - threshold).clamp(min=0.0) / curvature
        elif isinstance(self.penalty, ProximalPenalty):
            moved = self.penalty.prox(target / curvature, self.alpha / curvature)
        else:
            raise TypeError(f"{type(self.penalty).__name__} has no coordinate minimum.")
        return torch.where(curvature > 0, moved, torch.zeros_like(moved))


def certificate_kind(penalty: Penalty) -> str:
    """What certifies codes under this penalty.

    "duality gap", relative to the objective: no code can be better by more. "KKT residual": the
    largest violation of the stationarity conditions, in units of alpha.
    """
    exact = isinstance(penalty, (L1, NonNegativeL1, ElasticNet, GroupL2))
    return "duality gap" if exact else "KKT residual"


def split_ridge(penalty: Penalty, alpha: float) -> tuple[Penalty, float]:
    """The penalty without its squares, and what they add to the diagonal of the Gram matrix."""
    if isinstance(penalty, ElasticNet):
        return L1(), alpha * penalty.l2_ratio
    return penalty, 0.0


def largest_eigenvalue(dictionary: Tensor) -> float:
    """Of D D', by the smaller of the two Gram matrices. O(m^2 n + m^3), m <= n its sides."""
    tall = dictionary if dictionary.shape[0] < dictionary.shape[1] else dictionary.T
    return float(torch.linalg.eigvalsh(tall @ tall.T)[-1].clamp(min=0.0))


def make_problem(
    x: Tensor, dictionary: Tensor, penalty: Penalty, alpha: float, gram: Tensor | None = None
) -> SparseProblem:
    """Reduce rows to their products with the atoms. O(n k d + k^2 d)."""
    simple, ridge = split_ridge(penalty, alpha)
    gram = dictionary @ dictionary.T if gram is None else gram
    if ridge:
        gram = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    tiny = torch.finfo(x.dtype).tiny
    return SparseProblem(
        x @ dictionary.T,
        x.square().sum(dim=1),
        gram,
        max(largest_eigenvalue(dictionary) + ridge, tiny),
        simple,
        alpha,
    )
