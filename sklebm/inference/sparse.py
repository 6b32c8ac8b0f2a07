r"""z* = argmin_z 1/2 |x - z D|^2 + alpha R(z): one function, two back ends, and a certificate.

On the CPU the lasso family is solved by a compiled active-set method, one row at a time and to
machine precision. Everywhere else, and for every other penalty, rows are solved in batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sklebm.energies.penalties import L1
from sklebm.energies.penalty import Penalty
from sklebm.inference import proximal
from sklebm.inference.pool_splitting import PoolSplitting
from sklebm.inference.pursuit import pursue, refit_largest
from sklebm.inference.sparse_problem import SparseProblem, certificate_kind, make_problem

Method = Literal["auto", "compiled", "fista", "ista", "coordinate_descent"]

_CHOICES = ("compiled", "fista", "ista", "coordinate_descent")
# Rows of one call of the compiled solver: enough to hide the call, few enough to share evenly.
_BLOCK = 256
# Numbers in the correlations of one chunk of rows, which stay in the cache until they are used.
_CHUNK = 2**19


@dataclass(frozen=True)
class SparseSolution:
    """Codes with certificates of their quality.

    Attributes
    ----------
    codes : Tensor of shape (n_rows, n_components)
        The codes.
    certificate : Tensor of shape (n_rows,)
        Relative duality gap or KKT residual of each row, as ``kind`` says.
    kind : {"duality gap", "KKT residual"}
        Kind of certificate. The gap, relative to the objective, bounds how much better any code
        could be. The residual is the largest violation of the stationarity conditions in units of
        alpha: zero at a minimum, which need not be global if R is not convex.
    n_iter : Tensor of shape (n_rows,)
        Iterations of each row.
    converged : Tensor of shape (n_rows,)
        Whether the certificate of each row reached ``tol`` or the limit of rounding, or is not
        required.
    """

    codes: Tensor
    certificate: Tensor
    kind: str
    n_iter: Tensor
    converged: Tensor


def solve_codes(
    x: Tensor,
    dictionary: Tensor,
    penalty: Penalty,
    alpha: float,
    *,
    method: Method = "auto",
    tol: float = 1e-10,
    max_iter: int = 10_000,
    n_steps: int | None = None,
    gram: Tensor | None = None,
) -> SparseSolution:
    """Find the code of minimum energy for each row.

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_features)
        Rows, float32 or float64, without intercept.
    dictionary : Tensor of shape (n_components, n_features)
        Atoms, of any length.
    penalty : Penalty
        R.
    alpha : float
        Weight of R, positive.
    method : str, default="auto"
        "compiled" (CPU; L1, non-negative L1, elastic net), "fista" with adaptive restart, "ista",
        or "coordinate_descent" (one coordinate of each row in a step). "auto" is the fastest:
        "compiled" where it exists; elsewhere FISTA, or coordinate descent for lateral inhibition,
        with exact solves on the support; a choice of support and a re-fit for ``TopK``; orthogonal
        matching pursuit for ``L0``; primal-dual splitting for ``Topographic``. Penalties that are
        not convex start at the L1 code, and again at the best code of one atom if that is better.
    tol : float, default=1e-10
        A row has converged when its certificate falls to ``tol``, or to the limit set by rounding:
        about 2e-6 of the squared length of a row in float32. 0 continues to machine precision.
    max_iter : int, default=10000
        Maximum number of iterations of a row.
    n_steps : int, optional
        Take exactly this many steps of "fista", "ista" or "coordinate_descent" for every row, and
        certify the code at the end.
    gram : Tensor of shape (n_components, n_components), optional
        Products of the atoms, if they are known.

    Returns
    -------
    solution : SparseSolution
        Codes, certificates and iterations. Rows that overflow have a certificate of NaN.

    Notes
    -----
    With k atoms, d features and s non-zeros, the Gram matrix costs O(k^2 d) once. A row costs
    O(k d) for its products, and then O(k s + s^3) for each of some ten rounds ("compiled"), O(k^2)
    an iteration (ISTA, FISTA) or O(k) a step (coordinate descent). "compiled" forms no Gram matrix
    for a few rows.
    """
    penalty.check_width(len(dictionary))
    choice = _resolve(method, penalty, x.device, n_steps)
    if choice == "compiled":
        answer = _solve_compiled(x, dictionary, penalty, alpha, tol, max_iter, gram)
        return _solution(penalty, answer)
    problem = make_problem(x, dictionary, penalty, alpha, gram)
    if choice == "pursuit":
        return _solution(penalty, pursue(problem, _most_entries(penalty)))
    if penalty.convex:
        start = torch.zeros_like(problem.correlations)
    else:
        # Zero is a stationary point of penalties that are not convex, and rarely a good one.
        first = solve_codes(
            x, dictionary, L1(), alpha, tol=max(tol, 1e-8), max_iter=max_iter, gram=gram
        )
        start = first.codes
    if choice == "refit":
        codes, residual, rounds, final = refit_largest(problem, start, _most_entries(penalty))
        # Codes whose search has not ended may have other largest entries.
        return _solution(penalty, (codes, residual, rounds, final & first.converged))
    if n_steps is not None:
        state, step = _start(problem, choice, start)
        return _solution(penalty, proximal.run_steps(problem, step, state, n_steps))
    answer = _iterate(problem, choice, method, start, tol, max_iter)
    if not penalty.convex:
        answer = _improve(problem, choice, method, answer, tol, max_iter)
    return _solution(penalty, answer)


Answer = tuple[Tensor, Tensor, Tensor, Tensor]


def solve_codes_by_kind(
    x: Tensor,
    kinds: Tensor,
    atoms_of: Callable[[int], Tensor],
    penalty: Penalty,
    alpha: float,
    *,
    tol: float,
    max_iter: int = 10_000,
) -> SparseSolution:
    """Codes of rows that do not all have the same dictionary; see ``solve_codes``.

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_features)
        Rows.
    kinds : Tensor of shape (n_rows, n_marks)
        Rows that are equal here have the same dictionary, which is formed once.
    atoms_of : callable
        From the number of a row to its dictionary, of shape (n_components, n_features).
    penalty, alpha, tol, max_iter
        As in ``solve_codes``.

    Returns
    -------
    solution : SparseSolution
        Codes, certificates and iterations.
    """
    distinct, kind = torch.unique(kinds, dim=0, return_inverse=True)
    parts: list[tuple[Tensor, SparseSolution]] = []
    for index in range(len(distinct)):
        rows = (kind == index).nonzero()[:, 0]
        atoms = atoms_of(int(rows[0]))
        found = solve_codes(x[rows], atoms, penalty, alpha, tol=tol, max_iter=max_iter)
        parts.append((rows, found))
    order = torch.cat([rows for rows, _ in parts]).argsort()
    names = ("codes", "certificate", "n_iter", "converged")
    codes, value, n_iter, good = (
        torch.cat([getattr(found, name) for _, found in parts])[order] for name in names
    )
    return SparseSolution(codes, value, certificate_kind(penalty), n_iter, good)


def _most_entries(penalty: Any) -> int:
    """How many entries of a code the methods "pursuit" and "refit" may use."""
    return int(penalty.n_nonzero)


def _solution(penalty: Penalty, answer: Answer) -> SparseSolution:
    codes, certificate, n_iter, converged = answer
    return SparseSolution(codes, certificate, certificate_kind(penalty), n_iter, converged)


def solve_near(
    x: Tensor,
    dictionary: Tensor,
    prediction: Tensor,
    weight: float,
    penalty: Penalty,
    alpha: float,
    *,
    tol: float = 1e-10,
) -> SparseSolution:
    """Find argmin_z 1/2 |x - z D|^2 + alpha R(z) + weight/2 |z - p|^2 of each row.

    The same problem for rows and atoms with more columns: (x, sqrt(weight) p) and
    (D, sqrt(weight) I).

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_features)
        Rows.
    dictionary : Tensor of shape (n_components, n_features)
        Atoms.
    prediction : Tensor of shape (n_rows, n_components)
        p, which codes are pulled towards.
    weight : float
        Of the distance from p, positive.
    penalty, alpha, tol
        As in ``solve_codes``.

    Returns
    -------
    solution : SparseSolution
        Codes, certificates and iterations.
    """
    root = math.sqrt(weight)
    identity = torch.eye(len(dictionary), dtype=x.dtype, device=x.device)
    rows = torch.cat([x, root * prediction], dim=1)
    atoms = torch.cat([dictionary, root * identity], dim=1)
    gram = dictionary @ dictionary.T + weight * identity
    return solve_codes(rows, atoms, penalty, alpha, tol=tol, gram=gram)


def _resolve(method: Method, penalty: Penalty, device: torch.device, n_steps: int | None) -> str:
    """Resolve "auto"; reject a method that the penalty does not support."""
    known = [name for name in penalty.solvers if name != "compiled" or device.type == "cpu"]
    if n_steps is not None:
        known = [name for name in known if name in _CHOICES[1:]]
    elif method == "auto":
        return known[0]
    if method not in known or method not in _CHOICES:
        choices = ", ".join(repr(name) for name in ["auto", *known] if name in ("auto", *_CHOICES))
        what = type(penalty).__name__ + ("" if n_steps is None else " in a given number of steps")
        raise ValueError(
            f"method={method!r} does not solve {what} on {device.type}: choose one of {choices}."
        )
    return method


def _start(
    problem: SparseProblem, choice: str, codes: Tensor
) -> tuple[proximal.State, proximal.Step]:
    """Where an iterative method begins, and its step."""
    state = proximal.start_at(problem, codes)
    if choice == "coordinate_descent":
        return state, proximal.coordinate_step
    if choice == "ista":
        return state, proximal.ista_step
    return proximal.start_fista(problem, state), proximal.fista_step


def _iterate(
    problem: SparseProblem, choice: str, method: Method, start: Tensor, tol: float, max_iter: int
) -> Answer:
    """Codes, certificates, iterations and convergence by a batched method."""
    if method == "auto" and problem.penalty.quadratic_on_support:
        descend = choice == "coordinate_descent"
        return proximal.run_and_finish(problem, start, tol=tol, max_iter=max_iter, descend=descend)
    if choice == "splitting":
        split = PoolSplitting(problem, problem.penalty.members())
        state = split.start(problem, proximal.start_at(problem, start))
        return proximal.run(
            problem, split.step, state, tol=tol, max_iter=max_iter, settle=split.settle
        )
    state, step = _start(problem, choice, start)
    return proximal.run(problem, step, state, tol=tol, max_iter=max_iter)


def _improve(
    problem: SparseProblem, choice: str, method: Method, found: Answer, tol: float, max_iter: int
) -> Answer:
    """Continue from the best code of one atom (or none) in rows where it beats the code found."""
    start, energy = problem.best_single()
    worse = energy < problem.objective(found[0], found[0] @ problem.gram)
    if not bool(worse.any()):
        return found
    some = problem.select(worse)
    answer = _iterate(some, choice, method, start[worse], tol, max_iter)
    reached = some.objective(answer[0], answer[0] @ some.gram)
    # Both are sums of terms of the size of |x|^2, in different orders.
    least = energy[worse]
    bound = least + 16.0 * torch.finfo(least.dtype).eps * torch.maximum(least.abs(), reached.abs())
    # Momentum may have left the basin, where steps without it cannot.
    lost = reached > bound
    if bool(lost.any()):
        if "ista" in problem.penalty.solvers:
            again = _iterate(some.select(lost), "ista", "ista", start[worse][lost], tol, max_iter)
            for whole, part in zip(answer, again, strict=True):
                whole[lost] = part
        reached = some.objective(answer[0], answer[0] @ some.gram)
        kept = reached <= bound
        codes = torch.where(kept[:, None], answer[0], start[worse])
        product = codes @ some.gram
        certificate = some.certificate(codes, product)
        limit = some.rounding(codes, product).clamp(min=tol)
        converged = torch.where(kept, answer[3], certificate <= limit)
        answer = (codes, certificate, answer[2], converged)
    n_before = found[2][worse]
    for whole, part in zip(found, answer, strict=True):
        whole[worse] = part
    found[2][worse] += n_before
    return found


def _solve_compiled(
    x: Tensor,
    dictionary: Tensor,
    penalty: Penalty,
    alpha: float,
    tol: float,
    max_iter: int,
    gram: Tensor | None,
) -> Answer:
    """Codes, relative duality gaps, iterations and convergence by the compiled solver.

    The products of a chunk of rows with the atoms are one matrix product, after which rows without
    an active atom are done. The others are shared by the threads, block by block.
    """
    from sklebm.inference.row_lasso import screen_rows, solve_rows

    n_rows, n_components = len(x), len(dictionary)
    if gram is None and n_rows * 8 >= n_components:
        gram = dictionary @ dictionary.T
    x, dictionary = x.contiguous(), dictionary.contiguous()
    kind = np.float64 if x.dtype == torch.float64 else np.float32
    # Zeros that nobody writes to cost nothing.
    codes, gaps = np.zeros((n_rows, n_components), kind), np.zeros(n_rows, kind)
    n_iter, active = np.zeros(n_rows, np.int64), np.empty(n_rows, np.int64)
    squared_norms = np.empty(n_rows, kind)
    atoms = dictionary.numpy()
    products = np.empty((0, 0), kind) if gram is None else gram.contiguous().numpy()
    settings = kind(alpha), kind(alpha * penalty.ridge), penalty.non_negative, kind(tol), max_iter
    size = min(n_rows, max(_BLOCK, _CHUNK // n_components))
    buffer = x.new_empty(size, n_components)
    n_workers = min(torch.get_num_threads(), -(-n_rows // _BLOCK))
    # The solver releases the interpreter's lock; a pool of its own survives a fork.
    with ThreadPoolExecutor(max(n_workers, 1)) as workers:
        run = workers.map if n_workers > 1 else map
        for start in range(0, n_rows, size):
            part = slice(start, min(start + size, n_rows))
            rows = x[part]
            correlations = torch.mm(rows, dictionary.T, out=buffer[: len(rows)]).numpy()
            arrays = rows.numpy(), correlations, squared_norms[part]
            out = codes[part], gaps[part]
            n_active = screen_rows(
                arrays[0], correlations, settings[0], settings[2], *out, arrays[2], active
            )
            blocks = np.array_split(active[:n_active], -(-n_active // _BLOCK) or 1)
            solve = partial(_solve_block, solve_rows, arrays, (atoms, products, *settings))
            list(run(partial(solve, (*out, n_iter[part])), blocks))
    count = torch.from_numpy(n_iter)
    return torch.from_numpy(codes), torch.from_numpy(gaps), count, count < max_iter


def _solve_block(solver: Any, arrays: Any, settings: Any, out: Any, block: Any) -> None:
    solver(block, *arrays, *settings, *out)
