r"""L = min_z E(x, z), E = 1/2 |x - z D|^2 + alpha R(z) + weight/2 |z - f(x)|^2: joint inference.

At the minimum over z, the derivative of L by atoms and encoder is that of E with z held fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm.inference.predicted_maps import solve_maps_near
from sklebm.inference.sparse import solve_near
from sklebm.inference.sparse_problem import certificate_kind
from sklebm.objectives.base import Batch, Objective, ObjectiveState
from sklebm.objectives.closed_form import known_gradients


@dataclass(frozen=True)
class PredictiveDecomposition(Objective):
    """The mean over rows of the energy minimised over codes.

    Parameters
    ----------
    tol : float or None, default=None
        Certificate at which a code is accepted; see ``solve_codes``. None: 1e-4 for a duality gap
        and 1e-2 for a KKT residual, whose square enters the energy.
    """

    tol: float | None = None

    needs: ClassVar[tuple[str, ...]] = ("atoms", "encode", "penalty", "alpha", "weight")
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of E(x, z) at the best codes."""
        x = energy.centre(batch.x)
        atoms, prediction = energy.atoms(), energy.encode(batch.x)
        with torch.no_grad():
            z = self._solve(energy, x, atoms.detach(), prediction.detach())
            price = energy.alpha * energy.penalty.value(z)
        error = (x - self._decode(energy, z, atoms)).square().sum(dim=1)
        distance = (z - prediction).square().sum(dim=1)
        return batch.mean(0.5 * error + price + 0.5 * energy.weight * distance), state

    def _solve(self, energy: Any, x: Tensor, atoms: Tensor, prediction: Tensor) -> Tensor:
        """The best codes."""
        tol = self.tol
        if tol is None:
            tol = 1e-4 if certificate_kind(energy.penalty) == "duality gap" else 1e-2
        return solve_near(
            x, atoms, prediction, energy.weight, energy.penalty, energy.alpha, tol=tol
        ).codes

    def _decode(self, energy: Any, z: Tensor, atoms: Tensor) -> Tensor:
        """What codes decode to."""
        return z @ atoms


@dataclass(frozen=True)
class ConvolutionalDecomposition(PredictiveDecomposition):
    """The same for images and maps: the mean over images of the energy minimised over codes.

    Parameters
    ----------
    tol : float or None, default=None
        Relative duality gap at which a code is accepted. None: 1e-3.
    images_at_once : int or None, default=None
        A larger batch is divided: only so many images have their maps in memory. None: all.
    """

    images_at_once: int | None = field(default=None, repr=False, compare=False)

    needs: ClassVar[tuple[str, ...]] = (*PredictiveDecomposition.needs, "grid")

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of E(x, z) at the best codes; of a divided batch, its gradients are known."""
        size = self.images_at_once or len(batch)
        if len(batch) <= size:
            return super().loss(energy, batch, state, generator)
        parameters = [p for p in energy.parameters() if p.requires_grad]
        total = batch.x.new_zeros(())
        slopes = [torch.zeros_like(p) for p in parameters]
        shares = batch.shares(total)
        for start in range(0, len(batch), size):
            rows = slice(start, start + size)
            weight = None if batch.weight is None else batch.weight[rows]
            share = shares[rows].sum()
            if not bool(share):
                continue
            value, _ = super().loss(
                energy, replace(batch, x=batch.x[rows], weight=weight), state, generator
            )
            total = total + share * value.detach()
            if torch.is_grad_enabled():
                for slope, part in zip(
                    slopes, torch.autograd.grad(share * value, parameters), strict=True
                ):
                    slope += part
        return known_gradients(total, list(zip(parameters, slopes, strict=True))), state

    def _solve(self, energy: Any, x: Tensor, atoms: Tensor, prediction: Tensor) -> Tensor:
        return solve_maps_near(
            x,
            atoms,
            prediction,
            energy.weight,
            energy.penalty,
            energy.alpha,
            energy.grid,
            tol=1e-3 if self.tol is None else self.tol,
        ).codes

    def _decode(self, energy: Any, z: Tensor, atoms: Tensor) -> Tensor:
        decoded: Tensor = energy.grid.synthesise(z, energy.grid.transfer(atoms))
        return decoded
