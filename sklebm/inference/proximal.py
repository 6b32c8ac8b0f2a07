r"""Batched solvers of min_z 1/2 |x - z D|^2 + alpha R(z) on any device.

ISTA: z <- prox(z + (c - z H) / L). FISTA adds momentum, restarted for each row when it points
uphill. Coordinate descent changes, in each row, the coordinate that would move most. Rows that are
certified leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sklebm.inference.sparse_problem import SparseProblem

#: Codes, their products with H, and whatever else a method carries from step to step.
State = tuple[Tensor, ...]
Step = Callable[[SparseProblem, State], State]

#: The codes that a state amounts to, and their certificates.
Settle = Callable[[SparseProblem, State], tuple[Tensor, Tensor]]

_CHECK_EVERY = 10


def run(
    problem: SparseProblem,
    step: Step,
    state: State,
    *,
    tol: float,
    max_iter: int,
    settle: Settle | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Iterate until every row is certified.

    Returns codes, certificates, iterations, and whether each row is certified. The first entry of a
    state holds the codes, the second their products with H.
    """
    settle = settle or (lambda p, s: (s[0], p.certificate(s[0], s[1])))
    n_rows = len(problem.correlations)
    device = problem.correlations.device
    codes = torch.empty_like(problem.correlations)
    certificates = torch.empty_like(problem.squared_norms)
    n_iter = torch.zeros(n_rows, dtype=torch.int64, device=device)
    certified = torch.zeros(n_rows, dtype=torch.bool, device=device)
    left = torch.arange(n_rows, device=device)
    for iteration in range(max_iter + 1):
        if iteration % _CHECK_EVERY == 0 or iteration == max_iter:
            z, value = settle(problem, state)
            # A row that is no number never will be one.
            good = ~(value > problem.rounding(state[0], state[1]).clamp(min=tol))
            done = torch.ones_like(good) if iteration == max_iter else good
            if bool(done.any()):
                rows = left[done]
                codes[rows], certificates[rows] = z[done], value[done]
                n_iter[rows], certified[rows] = iteration, good[done]
                keep = ~done
                left, problem = left[keep], problem.select(keep)
                state = tuple(part[keep] for part in state)
            if not len(left):
                break
        if iteration < max_iter:
            state = step(problem, state)
    return codes, certificates, n_iter, certified


def run_steps(
    problem: SparseProblem, step: Step, state: State, n_steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Take so many steps with every row, however good its code is; answers as ``run``."""
    for _ in range(n_steps):
        state = step(problem, state)
    n_iter = torch.full_like(state[0][:, 0], n_steps, dtype=torch.int64)
    value = problem.certificate(state[0], state[1])
    return state[0], value, n_iter, torch.ones_like(n_iter, dtype=torch.bool)


def start_at_zero(problem: SparseProblem) -> State:
    """Zero codes."""
    zero = torch.zeros_like(problem.correlations)
    return zero, zero.clone()


def start_at(problem: SparseProblem, codes: Tensor) -> State:
    """Given codes."""
    return codes, problem.product(codes)


def ista_step(problem: SparseProblem, state: State) -> State:
    """One proximal gradient step; the objective never rises."""
    z, product = state
    penalty, step = problem.penalty, 1.0 / problem.lipschitz
    z = penalty.prox(z + step * (problem.correlations - product), step * problem.alpha)
    return z, problem.product(z)


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
    penalty, step = problem.penalty, 1.0 / problem.lipschitz
    new = penalty.prox(y + step * (problem.correlations - y_product), step * problem.alpha)
    uphill = ((y - new) * (new - z)).sum(dim=1, keepdim=True) > 0
    return new, problem.product(new), z, product, torch.where(uphill, torch.ones_like(t), t_next)


def monotone_step(problem: SparseProblem, state: State) -> State:
    """An accelerated step, or a plain one for rows that it would raise; the objective never rises.

    At most two products a step.
    """
    z, product = state[:2]
    fast = fista_step(problem, state)
    before = problem.objective(z, product)
    raised = ~(problem.objective(fast[0], fast[1]) <= before)[:, None]
    if not bool(raised.any()):
        return fast
    plain, plain_product = ista_step(problem, (z, product))
    # A minimum may be left by rounding alone.
    stays = (problem.objective(plain, plain_product) > before)[:, None]
    plain, plain_product = torch.where(stays, z, plain), torch.where(stays, product, plain_product)
    return (
        torch.where(raised, plain, fast[0]),
        torch.where(raised, plain_product, fast[1]),
        z,
        product,
        torch.where(raised, torch.ones_like(fast[4]), fast[4]),
    )


def coordinate_step(problem: SparseProblem, state: State) -> State:
    """Minimise each row over its coordinate that would move most; the objective never rises."""
    z, product = state
    moved = problem.coordinate_minimum(z, problem.correlations - product)
    change = moved - z
    chosen = change.abs().argmax(dim=1, keepdim=True)
    amount = change.gather(1, chosen)
    z = z.scatter(1, chosen, moved.gather(1, chosen))
    return z, torch.addcmul(product, amount, problem.gram[chosen[:, 0]])


def run_and_finish(
    problem: SparseProblem,
    codes: Tensor,
    *,
    tol: float,
    max_iter: int,
    descend: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Iterate, solve exactly on the supports found, and go on with the rows where that failed.

    ``descend`` says to iterate by coordinate descent instead of FISTA. Answers as ``run``.
    """
    left = torch.arange(len(codes), device=codes.device)
    codes = codes.clone()
    certificates = torch.empty_like(problem.squared_norms)
    n_iter = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
    certified = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
    total, budget = 0, 100
    while len(left) and total < max_iter:
        some = problem.select(left)
        state = start_at(some, codes[left])
        state = state if descend else start_fista(some, state)
        step = coordinate_step if descend else fista_step
        steps = min(budget, max_iter - total)
        z, value, count, _ = run(some, step, state, tol=tol, max_iter=steps)
        certain = some.rounding(z, z @ some.gram).clamp(min=tol)
        if bool((value > certain).any()):
            z = finish(some, z)
            value = some.certificate(z, z @ some.gram)
        codes[left], certificates[left] = z, value
        n_iter[left] += count
        left = left[value > certain]
        total += budget
        budget *= 2
    certified[left] = False
    return codes, certificates, n_iter, certified


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
        extra = some.penalty.pair_curvature(index, signs)
        extra = None if extra is None else some.alpha * extra
        solved = solve_on(problem.gram, index, signs != 0, target, extra)
        candidate = torch.zeros_like(z).scatter_(1, index, solved)
        same = (candidate.sign() == z.sign()).all(dim=1) & torch.isfinite(candidate).all(dim=1)
        before = some.stationarity(z, z @ problem.gram)
        after = some.stationarity(candidate, candidate @ problem.gram)
        codes[part] = torch.where((same & (after <= before))[:, None], candidate, z)
    return codes


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
