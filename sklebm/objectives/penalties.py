r"""Reconstruction with a penalty on the code: sparse, contractive, saturating.

    sparse       alpha |f(x)|_1,   or   alpha sum_j KL(rho || mean of f_j over the batch)
    contractive  alpha |df/dx|_F^2
    saturating   alpha sum_j distance of the input of unit j to where its function is flat

M. Ranzato et al., "Efficient learning of sparse representations with an energy-based model", NIPS
2006; S. Rifai et al., "Contractive auto-encoders", ICML 2011; R. Goroshin and Y. LeCun,
"Saturating auto-encoders", ICLR 2013.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sklebm.energies.base import Reconstructing
from sklebm.energies.derivatives import is_plain
from sklebm.energies.networks import ACTIVATIONS
from sklebm.objectives.base import Batch, Objective, ObjectiveState
from sklebm.objectives.reconstruction import squared_error

#: The Jacobian of codes of at most this many units is exact; for larger ones it is estimated.
EXACT_UNITS = 8
_EPSILON = 1e-6


# ---------------------------------------------------------------------- sparse


@dataclass(frozen=True)
class SparseReconstruction(Objective):
    """Squared error plus a penalty on active units.

    Parameters
    ----------
    penalty : {"l1", "kl"}, default="l1"
        The sum of magnitudes, or the divergence of each unit's mean over the batch from
        ``target``; the latter needs units in (0, 1).
    alpha : float, default=0.1
        Weight of the penalty.
    target : float, default=0.05
        Target mean activity for "kl".
    """

    penalty: Literal["l1", "kl"] = "l1"
    alpha: float = 0.1
    target: float = 0.05

    needs: ClassVar[tuple[str, ...]] = ("encode", "decode")
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self,
        energy: Reconstructing,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of |x - g(z)|^2 + alpha times the penalty of z = f(x)."""
        z = energy.encode(batch.x)
        if self.penalty == "l1":
            price = batch.mean(l1_penalty(z))
        else:
            price = kl_penalty(batch.mean(z), self.target)
        return squared_error(batch, energy.decode(z)) + self.alpha * price, state


def l1_penalty(z: Tensor) -> Tensor:
    """|z|_1 of each row."""
    return z.abs().sum(dim=1)


def kl_penalty(mean: Tensor, target: float) -> Tensor:
    """sum_j KL(target || mean_j) for the means over rows of units in (0, 1)."""
    mean = mean.clamp(_EPSILON, 1.0 - _EPSILON)
    on = target * (target / mean).log()
    off = (1.0 - target) * ((1.0 - target) / (1.0 - mean)).log()
    return (on + off).sum()


# ---------------------------------------------------------------------- contractive


@dataclass(frozen=True)
class ContractiveReconstruction(Objective):
    """Squared error plus the squared Frobenius norm of the encoder's Jacobian.

    Parameters
    ----------
    alpha : float, default=0.1
        Weight of the penalty.
    """

    alpha: float = 0.1

    needs: ClassVar[tuple[str, ...]] = ("encode", "decode", "encoder")

    def loss(
        self,
        energy: Reconstructing,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of |x - g(f(x))|^2 + alpha |df/dx|_F^2."""
        x = batch.x
        if is_single_layer(energy.encoder):
            z, penalty = single_layer_jacobian_norm(energy.encoder, x)
        else:
            z, penalty = jacobian_norm(energy.encode, x, generator)
        return squared_error(batch, energy.decode(z)) + self.alpha * batch.mean(penalty), state


def is_single_layer(encoder: nn.Module) -> bool:
    """Whether the encoder is an affine map followed by an elementwise function."""
    if not isinstance(encoder, nn.Sequential) or not is_plain(encoder, nn.Sequential):
        return False
    if not 1 <= len(encoder) <= 2:
        return False
    elementwise = all(isinstance(step, tuple(ACTIVATIONS.values())) for step in list(encoder)[1:])
    return is_plain(encoder[0], nn.Linear) and elementwise


def single_layer_jacobian_norm(encoder: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The code, and sum_j h'(a_j)^2 |w_j|^2 of each row, for z = h(W x + b). O(k d) for all."""
    a = encoder[0](x)
    lengths = encoder[0].weight.square().sum(dim=1)
    if len(encoder) == 1:
        return a, lengths.sum().expand(len(x))
    if isinstance(encoder[1], nn.Sigmoid):
        z = torch.sigmoid(a)
        return z, (z * (1.0 - z)).square() @ lengths
    with torch.enable_grad():
        if not a.requires_grad:
            a = a.detach().requires_grad_()
        z = encoder[1](a)
        (slope,) = torch.autograd.grad(z.sum(), a, create_graph=True)
    return z, slope.square() @ lengths


def jacobian_norm(
    encode: Callable[[Tensor], Tensor], x: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """The code, and |df/dx|_F^2 of each row by backward passes.

    One pass per unit for codes of at most ``EXACT_UNITS``, or without a generator; otherwise
    Hutchinson's estimate from one pass: |J' v|^2 with random signs v has this mean.
    """
    learning = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        z = encode(x)
        if generator is not None and z.shape[1] > EXACT_UNITS:
            uniform = torch.empty_like(z).uniform_(generator=generator)
            directions = [torch.where(uniform < 0.5, -1.0, 1.0).to(z.dtype)]
        else:
            directions = [unit.expand_as(z) for unit in torch.eye(z.shape[1]).to(z)]
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for direction in directions:
            (row,) = torch.autograd.grad(
                z,
                x,
                direction,
                retain_graph=True,
                create_graph=learning,
                materialize_grads=True,
            )
            total = total + row.square().sum(dim=1)
    return z, total


# ---------------------------------------------------------------------- saturating

#: Distance of a unit's input from the nearest point where its activation is flat.
COMPLEMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,  # flat below 0
    "shrink": lambda a: nn.functional.softshrink(a).abs(),  # flat between the thresholds
    "saturated_linear": lambda a: (0.5 - (a - 0.5).abs()).clamp(min=0.0),  # flat outside (0, 1)
}


@dataclass(frozen=True)
class SaturatingReconstruction(Objective):
    """Squared error plus the distance of the code's units from saturation.

    Parameters
    ----------
    function : {"relu", "shrink", "saturated_linear"}, default="saturated_linear"
        The activation of the code's units.
    alpha : float, default=0.1
        Weight of the penalty.
    """

    function: str = "saturated_linear"
    alpha: float = 0.1

    needs: ClassVar[tuple[str, ...]] = ("encoder", "decode")
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self,
        energy: Reconstructing,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of |x - g(z)|^2 + alpha sum_j distance of a_j from saturation, z = h(a)."""
        a = energy.encoder[:-1](batch.x)
        price = batch.mean(saturation_penalty(a, self.function))
        reconstruction = energy.decode(energy.encoder[-1](a))
        return squared_error(batch, reconstruction) + self.alpha * price, state


def saturation_penalty(a: Tensor, function: str) -> Tensor:
    """Sum over units of the distance of their inputs ``a`` from saturation, shape (n_rows,)."""
    return COMPLEMENTS[function](a).sum(dim=1)
