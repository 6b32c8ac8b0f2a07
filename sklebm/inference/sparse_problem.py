r"""min_z 1/2 |x - z D|^2 + alpha R(z) in terms of the Gram matrix: objective and certificates.

With H = D D' (plus a ridge for the elastic net), c = D x and q = c - H z, nothing else depends on
the number of features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sklebm.energies.penalty import Penalty


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

    def product(self, z: Tensor) -> Tensor:
        """z H, of which every iteration needs one."""
        return z @ self.gram

    def objective(self, z: Tensor, product: Tensor) -> Tensor:
        """Energies of the rows, given ``product`` = z H."""
        smooth = 0.5 * self.squared_norms + ((0.5 * product - self.correlations) * z).sum(dim=1)
        return smooth + self.alpha * self.penalty.value(z)

    def certificate(self, z: Tensor, product: Tensor) -> Tensor:
        """How far each row can be from optimal: see ``certificate_kind``."""
        if self.penalty.certificate == "duality gap":
            peak = self.penalty.dual_norm(self.correlations - product)
            return self.relative_gap(z, product, peak)
        return self.stationarity(z, product)

    def relative_gap(self, z: Tensor, product: Tensor, peak: Tensor) -> Tensor:
        """The duality gap in units of the objective.

        ``peak`` is the dual norm of the gradient c - z H, or an upper bound of it: the dual point
        is the residual, shrunk until its dual norm is alpha.
        """
        scale = (self.alpha / peak).clamp(max=1.0)
        explained = (self.correlations * z).sum(dim=1)
        residual = self.squared_norms - 2.0 * explained + (product * z).sum(dim=1)
        objective = 0.5 * residual + self.alpha * self.penalty.value(z)
        dual = scale * (self.squared_norms - explained) - 0.5 * scale.square() * residual
        gap = (objective - dual).clamp(min=0.0)
        return torch.where(objective > 0, gap / objective, gap)

    def rounding(self, z: Tensor, product: Tensor) -> Tensor:
        """What rounding alone may add to the certificate of each row."""
        eps = 16.0 * torch.finfo(z.dtype).eps
        if self.penalty.certificate == "duality gap":
            objective = self.objective(z, product)
            return torch.where(objective > 0, eps * self.squared_norms / objective, eps)
        return eps * (self.correlations.abs() + product.abs()).amax(dim=1) / self.alpha

    def stationarity(self, z: Tensor, product: Tensor) -> Tensor:
        """Largest change that a proximal (or coordinate) step would make, in units of alpha."""
        gradient = self.correlations - product
        if self.penalty.solvers[0] == "coordinate_descent":
            moved = self.coordinate_minimum(z, gradient)
            return ((moved - z).abs() * self.gram.diagonal()).amax(dim=1) / self.alpha
        step = 1.0 / self.lipschitz
        moved = self.penalty.prox(z + step * gradient, step * self.alpha)
        return (moved - z).abs().amax(dim=1) * (self.lipschitz / self.alpha)

    def coordinate_minimum(self, z: Tensor, gradient: Tensor) -> Tensor:
        """For each coordinate the value that minimises the objective, all others held."""
        curvature = self.gram.diagonal()
        target = gradient + curvature * z
        moved = self.penalty.coordinate_minimum(z, target, curvature, self.alpha)
        return torch.where(curvature > 0, moved, torch.zeros_like(moved))

    def best_single(self) -> tuple[Tensor, Tensor]:
        """The best code of at most one non-zero of each row, and its energy.

        For penalties that are not convex, whose searches may end in a worse local minimum.
        """
        zero = torch.zeros_like(self.correlations)
        each = self.coordinate_minimum(zero, self.correlations)
        smooth = (0.5 * self.gram.diagonal() * each - self.correlations) * each
        change, best = (smooth + self.alpha * self.penalty.price_alone(each)).min(dim=1)
        pays, place = (change < 0)[:, None], best[:, None]
        code = zero.scatter(1, place, torch.where(pays, each.gather(1, place), 0.0))
        return code, 0.5 * self.squared_norms + change.clamp(max=0.0)


def certificate_kind(penalty: Penalty) -> str:
    """What certifies codes under this penalty.

    "duality gap", relative to the objective: no code can be better by more. "KKT residual": the
    largest violation of the stationarity conditions, in units of alpha.
    """
    return penalty.certificate


def largest_eigenvalue(dictionary: Tensor) -> float:
    """Of D D', by the smaller of the two Gram matrices. O(m^2 n + m^3), m <= n its sides."""
    tall = dictionary if dictionary.shape[0] < dictionary.shape[1] else dictionary.T
    return float(torch.linalg.eigvalsh(tall @ tall.T)[-1].clamp(min=0.0))


def make_problem(
    x: Tensor, dictionary: Tensor, penalty: Penalty, alpha: float, gram: Tensor | None = None
) -> SparseProblem:
    """Reduce rows to their products with the atoms. O(n k d + k^2 d)."""
    simple, ridge = penalty.without_ridge(), alpha * penalty.ridge
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
