r"""z* = argmin_z 1/2 |x - z D|^2 + alpha R(z): one function, two back ends, and a certificate.

On the CPU the lasso family is solved by a compiled active-set method, one row at a time and to
machine precision. Everywhere else, and for every other penalty, rows are solved in batches.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sklebm.energies.penalties import (
    L1,
    ElasticNet,
    LateralInhibition,
    Lq,
    NonNegativeL1,
    Penalty,
    TopK,
    Topographic,
)
from sklebm.inference import proximal
from sklebm.inference.sparse_problem import (
    SparseProblem,
    certificate_kind,
    make_problem,
    split_ridge,
)

Method = Literal["auto", "compiled", "fista", "ista", "coordinate_descent"]

_COMPILED = (L1, NonNegativeL1, ElasticNet)
# Rows of one call of the compiled solver: enough to hide the call, few enough to share evenly.
_BLOCK = 256


@dataclass(frozen=True)
class SparseSolution:
    """Codes and how good they are.

    Attributes
    ----------
    codes : Tensor of shape (n_rows, n_components)
        The codes.
    certificate : Tensor of shape (n_rows,)
        Relative duality gap or KKT residual of each row, as ``kind`` says.
    kind : {"duality gap", "KKT residual"}
        What the certificate is. The gap, relative to the objective, bounds how much better any code
        could be. The residual is the largest violation of the stationarity conditions in units of
        alpha: zero at a minimum, which need not be the least where R is not convex.
    n_iter : Tensor of shape (n_rows,)
        Iterations of each row.
    """

    codes: Tensor
    certificate: Tensor
    kind: str
    n_iter: Tensor


def solve_codes(
    x: Tensor,
    dictionary: Tensor,
    penalty: Penalty,
    alpha: float,
    *,
    method: Method = "auto",
    tol: float = 1e-10,
    max_iter: int = 10_000,
    gram: Tensor | None = None,
) -> SparseSolution:
    """Find the code of least energy of each row.

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
        with exact solves on the support; a choice of support and a re-fit for ``TopK``; primal-dual
        splitting for ``Topographic``. Penalties that are not convex start at the L1 code.
    tol : float, default=1e-10
        A row ends when its certificate falls to ``tol``, or to what rounding may add to it: about
        2e-6 of the squared length of a row in float32. 0 goes on to machine precision.
    max_iter : int, default=10000
        Most iterations of a row.
    gram : Tensor of shape (n_components, n_components), optional
        Products of the atoms, if they are known.

    Returns
    -------
    solution : SparseSolution
        Codes, certificates and iterations. Rows that overflow have a certificate that is no number.

    Notes
    -----
    With k atoms, d features and s non-zeros, the Gram matrix costs O(k^2 d) once. A row costs
    O(k d) for its products, and then O(k s + s^3) for each of some ten rounds ("compiled"), O(k^2)
    an iteration (ISTA, FISTA) or O(k) a step (coordinate descent). "compiled" forms no Gram matrix
    for a few rows.
    """
    penalty.check_width(len(dictionary))
    kind = certificate_kind(penalty)
    choice = _resolve(method, penalty, x.device)
    if choice == "compiled":
        found = _solve_compiled(x, dictionary, penalty, alpha, tol, max_iter, gram)
        return SparseSolution(*found[:2], kind, found[2])
    problem = make_problem(x, dictionary, penalty, alpha, gram)
    if penalty.convex:
        state = proximal.start_at_zero(problem)
    else:
        # Zero is a stationary point of penalties that are not convex, and rarely a good one.
        first = solve_codes(x, dictionary, L1(), alpha, tol=max(tol, 1e-8), gram=gram)
        if isinstance(penalty, TopK):
            return _refit_largest(problem, penalty, first)
        state = proximal.start_at(problem, first.codes)
    codes, certificate, n_iter = _iterate(problem, choice, state, tol, max_iter)
    return SparseSolution(codes, certificate, kind, n_iter)


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
        p, which codes are drawn to.
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


def _resolve(method: Method, penalty: Penalty, device: torch.device) -> str:
    """The method that "auto" stands for; refuses one that the penalty does not have."""
    compiled = isinstance(penalty, _COMPILED) and device.type == "cpu"
    if method == "auto":
        return "compiled" if compiled else "auto"
    proximal_too = not isinstance(penalty, (TopK, Topographic, LateralInhibition))
    known = {
        "compiled": compiled,
        "fista": proximal_too,
        "ista": proximal_too,
        "coordinate_descent": isinstance(penalty, (*_COMPILED, Lq, LateralInhibition)),
    }
    if not known.get(method, False):
        choices = ", ".join(repr(name) for name in ["auto", *(n for n in known if known[n])])
        raise ValueError(
            f"method={method!r} does not solve {type(penalty).__name__} on {device.type}: choose "
            f"one of {choices}."
        )
    return method


def _iterate(
    problem: SparseProblem, method: str, state: proximal.State, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, certificates and iterations by a batched method."""
    certify = None
    if method == "coordinate_descent":
        step: proximal.Step = proximal.coordinate_step
    elif method == "ista":
        step = proximal.ista_step
    elif isinstance(problem.penalty, Topographic):
        split = proximal.PoolSplitting(problem)
        state = split.start(problem, state)
        step, certify = split.step, split.certify
    elif method == "auto" and isinstance(problem.penalty, proximal.FINISHED):
        return proximal.run_and_finish(problem, state[0], tol=tol, max_iter=max_iter)
    else:
        state, step = proximal.start_fista(problem, state), proximal.fista_step
    return proximal.run(problem, step, state, tol=tol, max_iter=max_iter, certify=certify)


def _refit_largest(problem: SparseProblem, penalty: TopK, first: SparseSolution) -> SparseSolution:
    """Keep the largest entries of the L1 codes and fit them again by least squares."""
    kept = penalty.prox(first.codes, 1.0)
    size = min(penalty.n_nonzero, kept.shape[1])
    index = kept.abs().topk(size, dim=1).indices
    used = kept.gather(1, index) != 0
    target = problem.correlations.gather(1, index)
    solved = torch.empty_like(target)
    rows = torch.arange(len(index), device=index.device)
    for part in torch.split(rows, max(1, 2**24 // size**2)):
        solved[part] = proximal.solve_on(problem.gram, index[part], used[part], target[part])
    codes = torch.zeros_like(kept).scatter_(1, index, solved)
    slope = (problem.correlations - codes @ problem.gram).gather(1, index)
    residual = torch.where(used, slope, 0.0).abs().amax(dim=1) / problem.alpha
    return SparseSolution(codes, residual, certificate_kind(penalty), first.n_iter)


def _solve_compiled(
    x: Tensor,
    dictionary: Tensor,
    penalty: Penalty,
    alpha: float,
    tol: float,
    max_iter: int,
    gram: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, relative duality gaps and iterations by the compiled solver, block by block."""
    from sklebm.inference.row_lasso import solve_rows

    n_rows, n_components = len(x), len(dictionary)
    ridge = split_ridge(penalty, alpha)[1]
    if gram is None and n_rows * 8 >= n_components:
        gram = dictionary @ dictionary.T
    x, dictionary = x.contiguous(), dictionary.contiguous()
    codes = x.new_zeros(n_rows, n_components)
    gaps = x.new_zeros(n_rows)
    n_iter = torch.zeros(n_rows, dtype=torch.int64)
    kind = np.float64 if x.dtype == torch.float64 else np.float32
    atoms = dictionary.numpy()
    products = np.empty((0, 0), kind) if gram is None else gram.contiguous().numpy()
    rows, out = x.numpy(), (codes.numpy(), gaps.numpy(), n_iter.numpy())
    settings = kind(alpha), kind(ridge), penalty.non_negative, kind(tol), max_iter

    def solve(start: int) -> None:
        part = slice(start, start + _BLOCK)
        answers = (array[part] for array in out)
        solve_rows(rows[part], atoms, products, *settings, *answers)

    starts = range(0, n_rows, _BLOCK)
    n_workers = min(torch.get_num_threads(), len(starts))
    if n_workers > 1:
        # The solver releases the interpreter's lock; a pool of its own survives a fork.
        with ThreadPoolExecutor(n_workers) as workers:
            list(workers.map(solve, starts))
    else:
        for start in starts:
            solve(start)
    return codes, gaps, n_iter
