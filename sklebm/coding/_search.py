"""The search for codes as estimators use it: a choice of solver, and a warning if it fell short."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from sklebm._shell.warning import warn
from sklebm.energies.penalty import Penalty
from sklebm.inference.sparse import Method, SparseSolution, solve_codes
from sklebm.inference.sparse_problem import certificate_kind, make_problem

#: The parameter ``solver``, and the method of ``solve_codes`` that it stands for.
SOLVERS: dict[str, Method] = {
    "auto": "auto",
    "ista": "ista",
    "fista": "fista",
    "cd": "coordinate_descent",
}
_MAX_ITER = 10_000


class CodeSearch:
    """Lowest-energy codes, and how many of them are not final.

    As a context manager it warns, on exit, of codes whose certificate stayed above ``tol``.

    Parameters
    ----------
    owner : str
        Class of the estimator, named in messages.
    tol : float
        Certificate at which a code is accepted as final.
    solver : str
        A key of ``SOLVERS``, or "threshold": prox(x D', alpha), the first step of ISTA with step
        size one, which is exact for orthonormal atoms.
    n_steps : int or None
        Take exactly this many steps instead.
    """

    def __init__(
        self, owner: str, tol: float, solver: str = "auto", n_steps: int | None = None
    ) -> None:
        self.owner, self.tol, self.solver, self.n_steps = owner, tol, solver, n_steps
        if n_steps is not None and solver in ("auto", "threshold"):
            raise ValueError(
                f"n_solver_steps={n_steps} does not apply to solver={solver!r}: leave it out, or "
                'choose "ista", "fista" or "cd".'
            )
        self.forget()

    def forget(self) -> None:
        """Start counting from zero."""
        self.n_rows, self.n_open, self.worst, self.kind = 0, 0, 0.0, ""
        self.largest = 0.0  # certificate of any code

    def solve(
        self, x: Tensor, dictionary: Tensor, penalty: Penalty, alpha: float
    ) -> SparseSolution:
        """Codes and certificates of rows from which the intercept was subtracted."""
        if self.solver == "threshold":
            found = _threshold(x, dictionary, penalty, alpha)
        else:
            found = solve_codes(
                x,
                dictionary,
                penalty,
                alpha,
                method=SOLVERS[self.solver],
                tol=self.tol,
                max_iter=_MAX_ITER,
                n_steps=self.n_steps,
            )
        self.count(found)
        return found

    def count(self, found: SparseSolution) -> None:
        """Take note of codes that are not final."""
        self.n_rows += len(found.codes)
        if len(found.codes):
            self.largest = max(self.largest, float(found.certificate.max()))
        if not bool(found.converged.all()):
            self.n_open += int((~found.converged).sum())
            self.worst = max(self.worst, float(found.certificate[~found.converged].max()))
            self.kind = found.kind

    def codes(self, energy: Any, x: Tensor) -> Tensor:
        """The lowest-energy codes."""
        return self._of(energy, x).codes

    def free_energies(self, energy: Any, x: Tensor) -> Tensor:
        """The energy at these codes."""
        energies: Tensor = energy.energy(x, self.codes(energy, x))
        return energies

    def reconstructions(self, energy: Any, x: Tensor) -> Tensor:
        """What these codes decode to."""
        decoded: Tensor = energy.decode(self.codes(energy, x))
        return decoded

    def certificates(self, energy: Any, x: Tensor) -> Tensor:
        """The certificates of these codes."""
        return self._of(energy, x).certificate

    def _of(self, energy: Any, x: Tensor) -> SparseSolution:
        return self.solve(energy.centre(x), energy.dictionary, energy.penalty, energy.alpha)

    def warn(self) -> None:
        """Warn if any codes are not final."""
        if self.n_open:
            warn(
                f"{self.owner}: {self.n_open} of {self.n_rows} codes are not final after "
                f"{_MAX_ITER} iterations: their {self.kind} is up to {self.worst:.2g}, above "
                f"code_tol={self.tol:.2g}. Raise code_tol, or alpha, whose codes have fewer "
                "non-zeros and converge sooner.",
                ConvergenceWarning,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.warn()


def _threshold(x: Tensor, dictionary: Tensor, penalty: Penalty, alpha: float) -> SparseSolution:
    """prox(x D', alpha) with the certificates of these codes."""
    penalty.check_width(len(dictionary))
    problem = make_problem(x, dictionary, penalty, alpha)
    try:
        codes = penalty.prox(problem.correlations, alpha)
    except TypeError as error:
        raise ValueError(f'{error} solver="threshold" needs one: choose "auto".') from error
    value = problem.certificate(codes, codes @ problem.gram)
    one = torch.ones(len(x), dtype=torch.int64, device=x.device)
    return SparseSolution(codes, value, certificate_kind(penalty), one, one.bool())
