r"""The latent whose row is closest: min over z of f(z) = |x - g(z)|^2 / d + rho |z|^2, row by row.

Damped Newton steps, z <- z - V (|D| + l)^-1 V' f'(z) with the eigenvalues D and vectors V of the
Hessian, so that steps lead down where it is indefinite as well. Each row has a damping l of its
own, which shrinks after a step that lowers its energy and grows after one that does not, and
descends until its steps are roundings or its energy no longer falls, so that no row depends on
another. With J'J in place of the Hessian, as in Gauss's method, the descent would not settle where
a row is far from every g(z), and rounding would decide where it stops.

Y. Dauphin, R. Pascanu, C. Gulcehre, K. Cho, S. Ganguli and Y. Bengio, "Identifying and attacking
the saddle point problem in high-dimensional non-convex optimization", NeurIPS 2014.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: The rows of latents; further arguments, one entry per latent, are what accompanies them.
Decoder = Callable[..., Tensor]

# Less damping than the least changes no step by more than roundings of its energy, but would have
# to grow through many refused steps where a descent comes upon a kink.
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 0.1, 1e-8, 1e6
# A step below this many roundings of the latent ends its descent.
_SETTLED = 8.0
# So do this many rounds in which the energy has not fallen by this share: at a kink, as of "relu",
# steps never become small.
_PATIENCE, _PROGRESS = 10, 1e-4


def closest_latents(
    decode: Decoder,
    x: Tensor,
    starts: Tensor,
    *beside: Tensor,
    n_steps: int,
    weight: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Latents of least energy, (n_rows, k), and these energies. O(s n_steps k) passes at most.

    ``starts`` of shape (s, k) are the same for all rows; the best end counts. ``weight`` is rho,
    which keeps latents where the generator was trained, and decides between those of equal rows.
    Entries ``beside`` the rows are passed to ``decode``. Latents of rows whose energy overflows
    from every start are NaN.
    """
    n_starts, n_rows = len(starts), len(x)
    z = starts.to(x).repeat_interleave(n_rows, dim=0)
    others = [part.repeat(n_starts, 1) for part in beside]
    z, cost = _descend(decode, x.repeat(n_starts, 1), z, others, n_steps, weight)
    # NaN would be the least of all.
    costs = cost.nan_to_num(nan=torch.inf, posinf=torch.inf).reshape(n_starts, n_rows)
    least, best = costs.min(dim=0)
    ends = z.reshape(n_starts, n_rows, -1)[best, torch.arange(n_rows, device=x.device)]
    return ends.masked_fill(least.isinf()[:, None], torch.nan), least


def _descend(
    decode: Decoder, x: Tensor, z: Tensor, beside: list[Tensor], n_steps: int, weight: float
) -> tuple[Tensor, Tensor]:
    """The latents where the descents from z end, and their energies."""

    def cost_of(z: Tensor, rows: Tensor) -> Tensor:
        errors = decode(z, *(part[rows] for part in beside)) - x[rows]
        return errors.square().mean(dim=1) + weight * z.square().sum(dim=1)

    eps = torch.finfo(x.dtype).eps
    damping = torch.full((len(x),), _FIRST_DAMPING, dtype=x.dtype, device=x.device)
    active = torch.arange(len(x), device=x.device)  # rows that still move
    with torch.no_grad():
        cost = cost_of(z, active)
    mark, waited = cost.clone(), torch.zeros_like(active)
    slope, values, vectors = _curves(cost_of, z, active)
    for _ in range(n_steps):
        along = (vectors.mT @ slope[:, :, None])[:, :, 0]
        along = along / (values.abs() + damping[active, None]).clamp(min=weight)
        step = (vectors @ along[:, :, None])[:, :, 0]
        here = z[active]
        moving = step.abs().amax(dim=1) > _SETTLED * eps * (1.0 + here.abs().amax(dim=1))
        active, proposal = active[moving], (here - step)[moving]
        if not len(active):
            break
        with torch.no_grad():
            proposed = cost_of(proposal, active)
        # Costs that differ by rounding are equal: otherwise steps end at half of the digits.
        lower = proposed <= cost[active] * (1.0 + 1e3 * eps)  # false for NaN
        lower &= proposed.isfinite()  # infinity is no progress from infinity
        taken = active[lower]
        z, cost = (
            z.index_copy(0, taken, proposal[lower]),
            cost.index_copy(0, taken, proposed[lower]),
        )
        factor = torch.where(lower, 0.1, 10.0).to(damping)
        damping[active] = (factor * damping[active]).clamp(_LEAST_DAMPING, _MOST_DAMPING)
        fallen = cost < mark * (1.0 - _PROGRESS)
        mark, waited = torch.where(fallen, cost, mark), torch.where(fallen, 0, waited + 1)
        active = active[waited[active] < _PATIENCE]
        if not len(active):
            break
        slope, values, vectors = _curves(cost_of, z[active], active)
    return z, cost


def _curves(
    cost_of: Callable[[Tensor, Tensor], Tensor], z: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes of the energies, and eigenvalues and vectors of their Hessians."""
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        # The derivative of a sum over rows: that of each row.
        slope = torch.autograd.grad(cost_of(at, rows).sum(), at, create_graph=True)[0]
        columns = [
            torch.autograd.grad(part.sum(), at, retain_graph=True)[0] for part in slope.unbind(1)
        ]
    hessian = torch.stack(columns, dim=2)
    # Where numbers have overflowed, eigenvalues would raise; such steps are refused anyway.
    hessian = torch.nan_to_num(0.5 * (hessian + hessian.mT))
    values, vectors = torch.linalg.eigh(hessian)
    return slope.detach(), values, vectors
