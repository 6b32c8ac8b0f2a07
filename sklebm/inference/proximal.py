r"""Batched solvers of min_z 1/2 |x - z D|^2 + alpha R(z) on any device.

ISTA: z <- prox(z + (c - z H) / L). FISTA adds momentum, restarted for each row when it points
uphill. Coordinate descent changes, in each row, the coordinate that would move most. Pools that
overlap have no proximal operator and are split by a primal-dual method. Rows that are certified
leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor

from sklebm.energies.penalties import (
    L1,
    LateralInhibition,
    NonNegativeL1,
    ProximalPenalty,
    Topographic,
)
from sklebm.inference.sparse_problem import SparseProblem

#: Codes, their products with H, and whatever else a method carries from step to step.
State = tuple[Tensor, ...]
Step = Callable[[SparseProblem, State], State]

_CHECK_EVERY = 10


def run(
    problem: SparseProblem,
    step: Step,
    state: State,
    *,
    tol: float,
    max_iter: int,
    certify: Callable[[SparseProblem, State], Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Iterate until every row is certified; returns codes, certificates and iterations of each.

    The first entry of a state holds the codes, the second their products with H.
    """
    certify = certify or (lambda p, s: p.certificate(s[0], s[1]))
    n_rows = len(problem.correlations)
    device = problem.correlations.device
    codes = torch.empty_like(problem.correlations)
    certificates = torch.empty_like(problem.squared_norms)
    n_iter = torch.zeros(n_rows, dtype=torch.int64, device=device)
    left = torch.arange(n_rows, device=device)
    for iteration in range(max_iter + 1):
        if iteration % _CHECK_EVERY == 0 or iteration == max_iter:
            value = certify(problem, state)
            # A row that is no number never will be one.
            done = ~(value > problem.rounding(state[0], state[1]).clamp(min=tol))
            if iteration == max_iter:
                done = torch.ones_like(done)
            if bool(done.any()):
                rows = left[done]
                codes[rows], certificates[rows] = state[0][done], value[done]
                n_iter[rows] = iteration
                keep = ~done
                left, problem = left[keep], problem.select(keep)
                state = tuple(part[keep] for part in state)
            if not len(left):
                break
        if iteration < max_iter:
            state = step(problem, state)
    return codes, certificates, n_iter


def start_at_zero(problem: SparseProblem) -> State:
    """Zero codes."""
    zero = torch.zeros_like(problem.correlations)
    return zero, zero.clone()


def start_at(problem: SparseProblem, codes: Tensor) -> State:
    """Given codes."""
    return codes, codes @ problem.gram


def ista_step(problem: SparseProblem, state: State) -> State:
    """One proximal gradient step; the objective never rises."""
    z, product = state
    penalty, step = cast(ProximalPenalty, problem.penalty), 1.0 / problem.lipschitz
    z = penalty.prox(z + step * (problem.correlations - product), step * problem.alpha)
    return z, z @ problem.gram


def start_fista(problem: SparseProblem, state: State) -> State:
    """Codes, products, the same one step before, and the momentum's counter."""
    z, product = state
    return z, product, z, product, torch.ones_like(z[:, :1])


def fista_step(problem: SparseProblem, state: State) -> State:
    """One accelerated step; momentum that points uphill is dropped, row by row.

    The product of the extrapolated code follows from those of the codes: one product a step.
    """
    z, product, z_old, product_old, t = state
    t_next = 0.5 * (1.0 + (1.0 + 4.0 * t.square()).sqrt())
    # The first step, and the first after a restart, has t = 1 and no momentum.
    momentum = torch.where(t > 1.0, (t - 1.0) / t_next, torch.zeros_like(t))
    y = z + momentum * (z - z_old)
    y_product = product + momentum * (product - product_old)
    penalty, step = cast(ProximalPenalty, problem.penalty), 1.0 / problem.lipschitz
    new = penalty.prox(y + step * (problem.correlations - y_product), step * problem.alpha)
    uphill = ((y - new) * (new - z)).sum(dim=1, keepdim=True) > 0
    return new, new @ problem.gram, z, product, torch.where(uphill, torch.ones_like(t), t_next)


def coordinate_step(problem: SparseProblem, state: State) -> State:
    """Minimise each row over its coordinate that would move most; the objective never rises."""
    z, product = state
    moved = problem.coordinate_minimum(z, problem.correlations - product)
    change = moved - z
    chosen = change.abs().argmax(dim=1, keepdim=True)
    amount = change.gather(1, chosen)
    z = z.scatter(1, chosen, moved.gather(1, chosen))
    return z, torch.addcmul(product, amount, problem.gram[chosen[:, 0]])


class PoolSplitting:
    """Primal-dual steps (Condat, 2013) for pools that overlap.

    Every pool gets a copy of its members and a dual vector u_g with |u_g| <= alpha, so that at the
    optimum c - z H = K' u, where K makes the copies.
    """

    def __init__(self, problem: SparseProblem) -> None:
        penalty = cast(Topographic, problem.penalty)
        self.members = penalty.members().to(problem.gram.device)
        # |K|^2 is the number of pools of a component; 1 / tau - sigma |K|^2 >= L / 2.
        self.tau = 1.0 / problem.lipschitz
        self.sigma = 0.5 * problem.lipschitz / penalty.pool_size**2

    def _gather(self, u: Tensor) -> Tensor:
        """K' u: the sum of the copies of each component."""
        out = u.new_zeros(len(u), len(self.members))
        return out.index_add_(1, self.members.flatten(), u.flatten(1))

    def _project(self, u: Tensor, alpha: float) -> Tensor:
        norms = torch.linalg.vector_norm(u, dim=2, keepdim=True)
        return torch.mul(u, alpha / norms.clamp(min=alpha))

    def start(self, problem: SparseProblem, state: State) -> State:
        """Codes, products, and zero dual vectors."""
        z, product = state
        return z, product, z.new_zeros(len(z), *self.members.shape)

    def step(self, problem: SparseProblem, state: State) -> State:
        """One primal and one dual step."""
        z, product, u = state
        slope = problem.correlations - product - self._gather(u)
        new = z + self.tau * slope
        copies = (2.0 * new - z)[:, self.members]
        u = self._project(u + self.sigma * copies, problem.alpha)
        return new, new @ problem.gram, u

    def certify(self, problem: SparseProblem, state: State) -> Tensor:
        """Violation of c - z H = K' u and of u_g = alpha z_g / |z_g|, in units of alpha."""
        z, product, u = state
        slope = problem.correlations - product - self._gather(u)
        kept = self._project(u + self.sigma * z[:, self.members], problem.alpha)
        gap = (kept - u).abs().amax(dim=(1, 2))
        return torch.maximum(slope.abs().amax(dim=1), gap) / problem.alpha


#: Penalties that are quadratic once the signs are known.
FINISHED = (L1, NonNegativeL1, LateralInhibition)


def run_and_finish(
    problem: SparseProblem, codes: Tensor, *, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Iterate, solve exactly on the supports found, and go on with the rows where that failed."""
    descends = isinstance(problem.penalty, LateralInhibition)
    left = torch.arange(len(codes), device=codes.device)
    codes = codes.clone()
    certificates = torch.empty_like(problem.squared_norms)
    n_iter = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
    total, budget = 0, 100
    while len(left) and total < max_iter:
        some = problem.select(left)
        state = start_at(some, codes[left])
        state = state if descends else start_fista(some, state)
        step = coordinate_step if descends else fista_step
        steps = min(budget, max_iter - total)
        z, value, count = run(some, step, state, tol=tol, max_iter=steps)
        certain = some.rounding(z, z @ some.gram).clamp(min=tol)
        if bool((value > certain).any()):
            z = finish(some, z)
            value = some.certificate(z, z @ some.gram)
        codes[left], certificates[left] = z, value
        n_iter[left] += count
        left = left[value > certain]
        total += budget
        budget *= 2
    return codes, certificates, n_iter


def finish(problem: SparseProblem, codes: Tensor) -> Tensor:
    """Solve exactly on the support of each row, where that keeps the signs and improves the code.

    The optimum satisfies H_SS z_S = c_S - alpha sign(z_S), with lateral inhibition added to H.
    O(n s^3) for at most s non-zeros.
    """
    codes = codes.clone()
    for part in _bounded(codes):
        z = codes[part]
        some = problem.select(part)
        size = int((z != 0).sum(dim=1).amax())
        if size == 0:
            continue
        index = (z != 0).to(torch.int8).topk(size, dim=1).indices
        signs = z.gather(1, index).sign()
        target = some.correlations.gather(1, index) - some.alpha * signs
        extra = _inhibition(some, index, signs)
        solved = solve_on(problem.gram, index, signs != 0, target, extra)
        candidate = torch.zeros_like(z).scatter_(1, index, solved)
        same = (candidate.sign() == z.sign()).all(dim=1) & torch.isfinite(candidate).all(dim=1)
        before = some.stationarity(z, z @ problem.gram)
        after = some.stationarity(candidate, candidate @ problem.gram)
        codes[part] = torch.where((same & (after <= before))[:, None], candidate, z)
    return codes


def _inhibition(problem: SparseProblem, index: Tensor, signs: Tensor) -> Tensor | None:
    """alpha strength sign(z_j) sign(z_k) for the pairs of a group, else 0."""
    penalty = problem.penalty
    if not isinstance(penalty, LateralInhibition):
        return None
    group = index // penalty.group_size
    pairs = (group[:, :, None] == group[:, None, :]) & (index[:, :, None] != index[:, None, :])
    weight = problem.alpha * penalty.strength
    return torch.where(pairs, weight * signs[:, :, None] * signs[:, None, :], 0.0)


def _bounded(codes: Tensor, floats: int = 2**24) -> Iterator[Tensor]:
    """Indices of rows with similar numbers of non-zeros, few enough for their Gram matrices."""
    counts = (codes != 0).sum(dim=1)
    order = counts.argsort()
    start = 0
    while start < len(order):
        stop = start + 1
        limit = len(order)
        while stop < limit:
            ahead = min(limit, start + 2 * (stop - start))
            if (ahead - start) * int(counts[order[ahead - 1]]) ** 2 > floats:
                break
            stop = ahead
        yield order[start:stop]
        start = stop


def solve_on(
    gram: Tensor, index: Tensor, used: Tensor, target: Tensor, extra: Tensor | None = None
) -> Tensor:
    """Solve (H + extra)_SS y = target for each row's own S, by batched Cholesky.

    Zero where not ``used``, and for rows whose matrix is not positive definite.
    """
    pairs = used[:, :, None] & used[:, None, :]
    local = gram[index[:, :, None], index[:, None, :]]
    local = torch.where(pairs, local if extra is None else local + extra, 0.0)
    empty = torch.diag_embed((~used).to(local.dtype))
    # Dependent atoms have no unique solution; a rounding error of ridge picks one.
    ridge = 4.0 * torch.finfo(local.dtype).eps * local.diagonal(dim1=1, dim2=2).amax()
    identity = torch.eye(local.shape[1], dtype=local.dtype, device=local.device)
    factor, info = torch.linalg.cholesky_ex(local + empty + ridge * identity)
    solved = torch.cholesky_solve(torch.where(used, target, 0.0)[:, :, None], factor)[:, :, 0]
    return torch.where(used & (info == 0)[:, None], solved, 0.0)
