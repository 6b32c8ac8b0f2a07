r"""The latent whose row is closest: min over z of |x - g(z)|^2 / d + rho |z|^2, row by row.

Damped least squares, z <- z - (J'J / d + (rho + l) I)^-1 (J'r / d + rho z) with r = g(z) - x and
the slopes J of g at z. Each row has a damping l of its own, which shrinks after a step that lowers
its energy and grows after one that does not, so that no row depends on another. Descent along the
gradient would need more steps, and those at the edge of stability blow rounding errors up.

D. Marquardt, "An algorithm for least-squares estimation of nonlinear parameters", SIAM Journal on
Applied Mathematics 11(2), 1963.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Decoder = Callable[[Tensor], Tensor]


def closest_latents(
    decode: Decoder, x: Tensor, starts: Tensor, *, n_steps: int, weight: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Latents of least energy, (n_rows, k), and these energies. O(s n_steps k) passes.

    ``starts`` of shape (s, k) are the same for all rows; the best end counts. ``weight`` is rho,
    which keeps latents where the generator was trained, and decides between those of equal rows.
    """
    n_starts, n_rows = len(starts), len(x)
    z = starts.to(x).repeat_interleave(n_rows, dim=0)
    z, cost = _descend(decode, x.repeat(n_starts, 1), z, n_steps, weight)
    least, best = cost.reshape(n_starts, n_rows).min(dim=0)
    ends = z.reshape(n_starts, n_rows, -1)
    return ends[best, torch.arange(n_rows, device=x.device)], least


def _descend(
    decode: Decoder, x: Tensor, z: Tensor, n_steps: int, weight: float
) -> tuple[Tensor, Tensor]:
    eye = torch.eye(z.shape[1], dtype=x.dtype, device=x.device)
    damping = torch.full((len(x),), 0.1, dtype=x.dtype, device=x.device)
    errors, cost = _cost(decode, x, z, weight)
    for _ in range(n_steps):
        slopes = _slopes(decode, z)
        hessian = slopes @ slopes.mT / x.shape[1] + (weight + damping)[:, None, None] * eye
        gradient = (slopes @ errors[:, :, None])[:, :, 0] / x.shape[1] + weight * z
        proposal = z - torch.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        new_errors, new_cost = _cost(decode, x, proposal, weight)
        # Costs that differ by rounding are equal: otherwise steps end at half of the digits.
        lower = new_cost <= cost * (1.0 + 1e3 * torch.finfo(cost.dtype).eps)  # false for NaN
        z = torch.where(lower[:, None], proposal, z)
        errors = torch.where(lower[:, None], new_errors, errors)
        cost = torch.where(lower, new_cost, cost)
        damping = torch.where(lower, 0.2 * damping, 5.0 * damping).clamp(1e-6, 1e6)
    return z, cost


def _cost(decode: Decoder, x: Tensor, z: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Errors g(z) - x, and energies."""
    errors = decode(z) - x
    return errors, errors.square().mean(dim=1) + weight * z.square().sum(dim=1)


def _slopes(decode: Decoder, z: Tensor) -> Tensor:
    """Derivatives of each row in its latents, (n_rows, k, d)."""
    columns = []
    for k in range(z.shape[1]):
        tangent = torch.zeros_like(z)
        tangent[:, k] = 1.0
        columns.append(torch.func.jvp(decode, (z,), (tangent,))[1])
    return torch.stack(columns, dim=1)
