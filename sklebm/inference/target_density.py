r"""Integrals over y, the y of lowest energy, draws and intervals, for each row on its own.

For one number y the integral of exp(-F) is the trapezoidal rule on a grid of g: for a smooth
function that vanishes at both ends its error falls exponentially with the number of points. A row
whose density does not vanish at the ends gets a grid twice as wide, and so on; one whose density
vanishes but in a small part gets a grid of that part. For several numbers
it is an importance-weighted mean over the same evenly spread points for all rows.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sklebm.inference.quasi_monte_carlo import uniform_points

N_POINTS = 513  # odd: one of them is the mean of the linear part
_N_IMPORTANCE = 4096
_IMPORTANCE_SCALE = 1.5
# With fewer effective points, others are drawn around the mode: this much wider than the density.
_FEW_POINTS, _HALVINGS, _WIDER, _ROUNDS = 200.0, 14, 1.4, 4
_NEGLIGIBLE = -25.0  # log of a density, relative to the highest
_DOUBLINGS = 8
_NARROWINGS, _SMALL_PART = 4, 1 / 8
_MOST_ROUNDS = 50
_STARTS, _STEPS = 8, 300


class Grid(NamedTuple):
    """For each row: points g (n, k), F there (n, k), the spacing (n,) and log Z (n,) in g."""

    points: Tensor
    energies: Tensor
    spacing: Tensor
    log_z: Tensor


def n_energies(n_outputs: int) -> int:
    """Number of energies that an integral over y takes for each row."""
    return N_POINTS if n_outputs == 1 else _N_IMPORTANCE


def integrate(energy: Any, u: Tensor) -> Grid:
    """The grid of each row, as wide as its own density needs. O(n k P) for P weights."""
    steps = torch.linspace(-1.0, 1.0, N_POINTS, dtype=u.dtype, device=u.device)
    width = u.new_full((len(u),), energy.reach)
    points = width[:, None] * steps
    energies = energy.target_energy(u, points[:, :, None])
    for _ in range(_DOUBLINGS):
        lowest = energies.amin(dim=1)
        ends = torch.minimum(energies[:, 0], energies[:, -1])
        (open_,) = (lowest - ends > _NEGLIGIBLE).nonzero(as_tuple=True)
        if not len(open_):
            break
        width[open_] *= 2.0
        points[open_] = width[open_, None] * steps
        energies[open_] = energy.target_energy(u[open_], points[open_][:, :, None])
    spacing = 2.0 * width / (N_POINTS - 1)
    for _ in range(_NARROWINGS):
        seen = energies - energies.amin(dim=1, keepdim=True) < -_NEGLIGIBLE
        first = seen.to(torch.uint8).argmax(dim=1) - 1
        last = N_POINTS - seen.flip(1).to(torch.uint8).argmax(dim=1)
        (small,) = (last - first < _SMALL_PART * N_POINTS).nonzero(as_tuple=True)
        if not len(small):
            break
        left = points[small, first[small].clamp(min=0)]
        spacing[small] *= (last - first)[small] / (N_POINTS - 1)
        places = torch.arange(N_POINTS, dtype=u.dtype, device=u.device)
        points[small] = left[:, None] + spacing[small, None] * places
        energies[small] = energy.target_energy(u[small], points[small][:, :, None])
    return Grid(points, energies, spacing, spacing.log() + torch.logsumexp(-energies, dim=1))


def log_partition(energy: Any, u: Tensor) -> Tensor:
    """log int exp(-F(x, g)) dg of each row, (n,)."""
    if energy.n_outputs == 1:
        return integrate(energy, u).log_z
    points = _even_normals(energy.n_outputs, u)
    log_q = (-0.5 * points.square() - 0.5 * math.log(2 * math.pi)).sum(dim=1)
    g = (_IMPORTANCE_SCALE * points).expand(len(u), -1, -1)
    log_q = log_q - energy.n_outputs * math.log(_IMPORTANCE_SCALE)
    log_weights = -energy.target_energy(u, g) - log_q
    log_z = torch.logsumexp(log_weights, dim=1) - math.log(len(points))
    n_effective = _effective(log_weights)
    (narrow,) = (n_effective < _FEW_POINTS).nonzero(as_tuple=True)
    if len(narrow):
        found, n_found = _around_the_mode(energy, u[narrow])
        log_z[narrow] = torch.where(n_found > n_effective[narrow], found, log_z[narrow])
    return log_z


def _effective(log_weights: Tensor) -> Tensor:
    """Number of points that carry the weight of each row."""
    twice = torch.logsumexp(2.0 * log_weights, dim=1)
    return torch.exp(2.0 * torch.logsumexp(log_weights, dim=1) - twice).nan_to_num(0.0)


def _around_the_mode(energy: Any, u: Tensor) -> tuple[Tensor, Tensor]:
    """log Z of rows whose density is much narrower than the linear part's, and effective points.

    A normal density around the mode, of the width that gives the most effective points, tells the
    mean and covariance of another one; half of the points are drawn from that, half from the wide
    density, and weighed by the mixture of both. These tell the next mean and covariance.
    """
    centre, normals, m = lowest(energy, u), _even_normals(energy.n_outputs, u), energy.n_outputs
    few = normals[: len(normals) // 8]
    rest = 0.5 * m * math.log(2 * math.pi)
    best, cloud, weights = u.new_zeros(len(u)), centre[:, None] + few, u.new_zeros(len(u), len(few))
    for halvings in range(_HALVINGS):
        scale = 0.5**halvings
        g = centre[:, None] + scale * few
        log_q = -0.5 * few.square().sum(dim=1) - rest - m * math.log(scale)
        log_weights = -energy.target_energy(u, g) - log_q
        found = _effective(log_weights)
        better = found > best
        best = torch.where(better, found, best)
        cloud = torch.where(better[:, None, None], g, cloud)
        weights = torch.where(better[:, None], torch.softmax(log_weights, dim=1), weights)
    half = len(normals) // 2
    wide = (_IMPORTANCE_SCALE * normals[:half]).expand(len(u), -1, -1)
    log_z, most = u.new_full((len(u),), -math.inf), u.new_zeros(len(u))
    for _ in range(_ROUNDS):
        mean = (weights[:, :, None] * cloud).sum(dim=1)
        gaps = ((cloud - mean[:, None]) * weights.sqrt()[:, :, None]).double()
        covariance = _WIDER**2 * gaps.mT @ gaps
        floor = 1e-6 * covariance.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-30)
        factor, failed = torch.linalg.cholesky_ex(
            covariance + floor[:, None, None] * torch.eye(m).to(covariance)
        )
        factor = torch.where((failed == 0)[:, None, None], factor, torch.eye(m).to(factor)).to(u)
        cloud = torch.cat([wide, mean[:, None] + normals[half:] @ factor.mT], dim=1)
        away = torch.linalg.solve_triangular(factor, (cloud - mean[:, None]).mT, upper=False)
        volume = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        log_narrow = -0.5 * away.square().sum(dim=1) - volume[:, None]
        log_wide = -0.5 * (cloud / _IMPORTANCE_SCALE).square().sum(dim=2)
        log_wide = log_wide - m * math.log(_IMPORTANCE_SCALE)
        log_q = torch.logaddexp(log_wide, log_narrow) - math.log(2.0) - rest
        log_weights = -energy.target_energy(u, cloud) - log_q
        weights = torch.softmax(log_weights, dim=1).nan_to_num(0.0)
        found = _effective(log_weights)
        value = torch.logsumexp(log_weights, dim=1) - math.log(cloud.shape[1])
        log_z, most = torch.where(found > most, value, log_z), torch.maximum(found, most)
    return log_z, most


def _even_normals(m: int, like: Tensor) -> Tensor:
    """Standard normal numbers that fill the space evenly, (k, m); the same at every call."""
    normals = torch.special.ndtri(uniform_points(_N_IMPORTANCE, m))
    return normals.to(like.device, like.dtype)  # type: ignore[no-any-return]


def lowest(energy: Any, u: Tensor) -> Tensor:
    """The g of lowest energy for each row, (n, m): from a grid, or from the best of many starts."""
    if energy.n_outputs > 1:
        return _descended(energy, u)
    grid = integrate(energy, u)
    place = grid.energies.argmin(dim=1, keepdim=True)
    best = grid.points.gather(1, place)
    found = _stationary(energy, u, best, grid.spacing[:, None])
    both = energy.target_energy(u, torch.stack([best, found], dim=1))
    return torch.where(both[:, 1:] < both[:, :1], found, best)


def _stationary(energy: Any, u: Tensor, start: Tensor, radius: Tensor) -> Tensor:
    """Where dF/dg changes its sign within ``radius`` of the start, (n, 1), to rounding.

    Newton's steps; half the bracket where one leaves it, as at a kink or a maximum, or is more than
    half of the step before the last, as in a cycle.
    """
    rounding = torch.finfo(start.dtype).eps
    left, right, g = start - radius, start + radius, start
    before_last = last = 2.0 * radius
    done = torch.zeros_like(g, dtype=torch.bool)
    for _ in range(_MOST_ROUNDS):
        first, second = _slope_and_curvature(energy, u, g)
        uphill = first > 0
        left, right = torch.where(uphill, left, g), torch.where(uphill, g, right)
        newton = torch.where(first == 0, g, g - first / second)
        shrinks = (newton - g).abs() <= 0.5 * before_last
        trusted = (newton >= left) & (newton <= right) & shrinks
        new = torch.where(trusted, newton, 0.5 * (left + right))
        before_last, last = last, (new - g).abs()
        small = rounding * (1.0 + g.abs())
        g = torch.where(done, g, new)
        done |= last <= small
        if bool(done.all()):
            break
    return g


def slope(energy: Any, u: Tensor, g: Tensor) -> Tensor:
    """dF/dg, (n, m)."""
    with torch.enable_grad():
        g = g.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy.target_energy(u, g[:, None]).sum(), g)
    return gradient


def _slope_and_curvature(energy: Any, u: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """dF/dg and d^2F/dg^2 of one number, (n, 1)."""
    with torch.enable_grad():
        g = g.detach().requires_grad_()
        total = energy.target_energy(u, g[:, None]).sum()
        (first,) = torch.autograd.grad(total, g, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), g)
    return first.detach(), second


def _descended(energy: Any, u: Tensor) -> Tensor:
    """Gradient descent from the best points of each row, with a step size for each start."""
    points = torch.cat([u.new_zeros((1, energy.n_outputs)), _even_normals(energy.n_outputs, u)])
    points = points[:N_POINTS]
    energies = energy.target_energy(u, points.expand(len(u), -1, -1))
    chosen = energies.topk(_STARTS, dim=1, largest=False).indices
    g = points[chosen].reshape(-1, energy.n_outputs)
    rows = u.repeat_interleave(_STARTS, dim=0)
    value = energy.target_energy(rows, g[:, None])[:, 0]
    step = u.new_full((len(g), 1), 0.1)
    for _ in range(_STEPS):
        moved = g - step * slope(energy, rows, g)
        new = energy.target_energy(rows, moved[:, None])[:, 0]
        better = (new < value)[:, None]
        g, step = torch.where(better, moved, g), torch.where(better, 1.5 * step, 0.5 * step)
        value = torch.minimum(new, value)
    best = value.view(-1, _STARTS).argmin(dim=1)
    return g.view(-1, _STARTS, energy.n_outputs)[torch.arange(len(u), device=u.device), best]


def cumulative(grid: Grid) -> Tensor:
    """Probability below each point of the grid, (n, k), by the trapezoidal rule; ends at 1."""
    density = torch.exp(grid.energies.amin(dim=1, keepdim=True) - grid.energies)
    pieces = 0.5 * (density[:, 1:] + density[:, :-1])
    mass = torch.cat([torch.zeros_like(pieces[:, :1]), pieces.cumsum(dim=1)], dim=1)
    return mass / mass[:, -1:]


def draws(grid: Grid, uniform: Tensor) -> Tensor:
    """The g below which a share ``uniform`` (n, n_draws) of the probability of each row lies.

    Between two points the density is taken to be constant.
    """
    below = cumulative(grid)
    place = torch.searchsorted(below, uniform).clamp(1, below.shape[1] - 1)
    low, high = below.gather(1, place - 1), below.gather(1, place)
    share = (uniform - low) / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    return grid.points.gather(1, place - 1) + share.clamp(0.0, 1.0) * grid.spacing[:, None]


def highest_density(grid: Grid, level: float) -> list[Tensor]:
    """For each row the pieces (n_pieces, 2) of the smallest set of g that holds ``level``."""
    below = cumulative(grid)
    pieces = below.diff(dim=1)
    order = pieces.argsort(dim=1, descending=True)
    held = pieces.gather(1, order).cumsum(dim=1)
    n_taken = (held < level).sum(dim=1) + 1
    taken = torch.zeros_like(pieces, dtype=torch.bool)
    ranks = torch.arange(pieces.shape[1], device=pieces.device).expand_as(order)
    taken.scatter_(1, order, ranks < n_taken[:, None])
    edges = torch.nn.functional.pad(taken.to(torch.int8), (1, 1)).diff(dim=1)
    found = []
    for row, points in zip(edges, grid.points, strict=True):
        starts, ends = (row == 1).nonzero()[:, 0], (row == -1).nonzero()[:, 0]
        found.append(torch.stack([points[starts], points[ends]], dim=1))
    return found
