"""alphacsc's learner with its fast solver, for ``bench_conv_sparse_coder``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Enough(Exception):
    """Raised within a callback to end a fit."""


def repair() -> bool:
    """Let solver_z="lgcd" of version 0.4.1 run with NumPy from 2.4 on; whether that was needed.

    Its ``_init_beta`` subtracts an array of one number from a number, which NumPy no longer does.
    A function with the same results takes its place, in memory only.
    """
    try:
        np.zeros(1)[0] = np.ones(1)
    except (TypeError, ValueError):
        from alphacsc.loss_and_gradient import gradient_zi
        from alphacsc.utils import coordinate_descent

        def init_beta(
            Xi: Any, z_hat: Any, D: Any, constants: Any, reg: Any, lengths: Any, tol: Any, sign: Any
        ) -> Any:
            beta = gradient_zi(Xi, z_hat, D=D, reg=None, return_func=False, constants=constants)
            beta = beta - z_hat * lengths
            moved = np.maximum(-beta - reg, 0) if sign else np.clip(beta, -reg, reg) - beta
            return beta, moved / lengths - z_hat, tol * np.std(Xi)

        coordinate_descent._init_beta = init_beta
        return True
    return False


def learn_atoms(
    X: NDArray[Any],
    start: NDArray[Any],
    alpha: float,
    solver: str,
    judge: Callable[[float, NDArray[Any]], bool],
    n_iter: int = 10_000,
) -> None:
    """Learn from the start; ``judge(seconds, atoms)`` looks after each iteration, off the clock.

    The learner divides the signals by their standard deviation first, and so must the penalty.
    """
    from alphacsc import learn_d_z_multi

    judging, begin = 0.0, time.perf_counter()

    def note(encoder: Any, costs: list[float]) -> None:
        nonlocal judging
        now = time.perf_counter()
        if costs and judge(now - begin - judging, encoder.D_hat[:, 0]):
            raise Enough
        judging += time.perf_counter() - now

    try:
        learn_d_z_multi(
            X[:, None], len(start), start.shape[1], reg=alpha / X.std(), n_iter=n_iter, rank1=False,
            solver_z=solver, solver_d="fista", D_init=start[:, None], callback=note,
            random_state=0, verbose=0, raise_on_increase=False,
        )  # fmt: skip
    except Enough:
        return
