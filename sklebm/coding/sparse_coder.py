r"""E(x, z) = 1/2 |x - b - z D|^2 + alpha R(z); F(x) = min_z E(x, z), with |d_k| <= 1."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import torch

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Spec
from sklebm.base import EnergyEstimator
from sklebm.coding._learning import (
    Learning,
    Pass,
    given_state,
    learn_on,
    learning_of,
    search_for,
    unlearnt_state,
)
from sklebm.coding._search import SOLVERS
from sklebm.coding._state import coder_spec, coding_energy, decoded, floats_per_row, n_atoms
from sklebm.energies import Penalty, SparseCodingEnergy
from sklebm.energies.penalties import PENALTIES
from sklebm.iterative import Draw, IterativeEstimator


class SparseCoder(IterativeEstimator[Learning, Pass]):
    r"""Sparse coding: rows as combinations of few atoms of a dictionary, learnt or given.

    .. math:: E(x, z) = \tfrac12 \|x - b - z D\|^2 + \alpha R(z), \qquad
              F(x) = \min_z E(x, z), \qquad \|d_k\| \le 1.

    ``transform`` finds the exact minimum: with the default penalty, an active-set method gives
    codes that are optimal to machine precision.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of atoms. None: as many as there are features, or as the given dictionary has.
    alpha : float, default=0.1
        Weight of the penalty, in units of X if atoms have length one. A row's code is zero if
        ``alpha`` exceeds all its products with the atoms.
    penalty : str or Penalty, default="l1"
        R: "l1", "nonnegative" (L1 with z >= 0), "elastic_net", "group" (Euclidean norms of
        consecutive groups), "topographic" (norms of overlapping pools on a torus), "lq" (0 < q <
        1), "top_k" (the largest entries of the L1 code, refitted), "l0" (orthogonal matching
        pursuit) or "lateral_inhibition"; or an object of ``sklebm.energies`` with its own settings,
        such as ``GroupL2(group_size=2)``.
    dictionary : array-like of shape (n_components, n_features) or None, default=None
        Atoms to use unchanged, of any length; ``fit`` then learns nothing.
    dict_init : array-like of shape (n_components, n_features) or None, default=None
        Initial atoms, instead of ``init``; those longer than one are scaled to length one.
    positive_dict : bool, default=False
        Whether to keep the atoms non-negative.
    algorithm : {"online", "gradient", "batch"}, default="online"
        Update the dictionary every ``batch_size`` rows, from sums over earlier codes ("online") or
        by a projected gradient step ("gradient"); or after all rows ("batch"), in which case the
        mean energy can rise only where atoms are replaced.
    unit_norm : bool, default=False
        Whether atoms have length exactly one, rather than at most one.
    fit_intercept : bool, default=False
        Whether to learn the intercept b.
    init : {"data", "random"}, default="data"
        Initial atoms: rows of X or random directions, scaled to length one.
    batch_size : int, default=512
        Rows between two updates of the dictionary.
    max_iter : int, default=20
        Maximum number of passes over the rows.
    tol : float, default=1e-3
        ``fit`` stops when a pass lowers the mean energy by no more than this fraction; 0 makes all
        passes.
    code_tol : float, default=1e-10
        Relative duality gap (or stationarity, if R is not convex) at which a code is accepted.
    solver : {"auto", "ista", "fista", "cd", "threshold"}, default="auto"
        How to find codes: "auto", the fastest method; a textbook method ("cd" updates one
        coordinate of each row per step); or "threshold", a single soft threshold of the products
        with the atoms, which is exact if the atoms are orthonormal.
    n_solver_steps : int or None, default=None
        Take exactly this many steps of "ista", "fista" or "cd", whether or not codes have
        converged.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial atoms and the order of the rows.
    verbose : int, default=0
        If nonzero, print one line per pass, with the mean energy and the time in seconds.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": processes started by ``torchrun`` fit one model together, each on its own rows; see
        :doc:`/user_guide/scale`.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features_in_)
        The atoms D.
    intercept_ : ndarray of shape (n_features_in_,)
        b; zero without ``fit_intercept``.
    alpha_ : float
        Weight of the penalty used in the fit.
    penalty_ : dict
        Name and settings of the penalty used in the fit.
    energy_curve_ : ndarray of shape (n_iter_,)
        Mean energy in each pass; each row is evaluated with the dictionary at that time.
    online_state_ : dict
        Sums over codes and rows that ``partial_fit`` continues from. After a ``partial_fit`` that
        ends within a batch, it also holds up to eight rows of the batch, to replace atoms that fall
        out of use; ``drop_training_state`` removes them.
    n_iter_ : int
        Number of passes over the rows, or of ``partial_fit`` calls; 0 for a given dictionary.
    n_samples_seen_ : int
        Number of training rows.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    sklearn.decomposition.MiniBatchDictionaryLearning : The same energy, without certificates.

    Notes
    -----
    With k atoms, d features and s non-zeros, a code costs O(k d) for its products with the atoms
    and O(k s + s^3) for each of about ten rounds; other penalties cost O(k^2) for each of hundreds
    of iterations. Updating the dictionary costs O(k^2 d), with "gradient" in a single product.
    Atoms that no recent row uses are replaced by the rows of highest energy. ``partial_fit`` counts
    ``batch_size`` across calls, so chunk sizes do not matter. Use ``score`` to compare dictionaries
    with the same ``alpha`` and ``penalty`` on the same features.

    References
    ----------
    B. A. Olshausen and D. J. Field, Nature 381, 1996. J. Mairal, F. Bach, J. Ponce and G. Sapiro,
    "Online learning for matrix factorization and sparse coding", JMLR 11, 2010. A. Beck and
    M. Teboulle, SIAM Journal on Imaging Sciences 2(1), 2009.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import SparseCoder
    >>> X = load_digits().data / 16
    >>> coder = SparseCoder(100, alpha=0.3, penalty="nonnegative", random_state=0).fit(X)
    >>> Z = coder.transform(X)
    >>> bool((Z > 0).sum(axis=1).mean() < 15)
    True
    >>> error = ((X - coder.inverse_transform(Z)) ** 2).mean()
    >>> bool(error < 0.2 * X.var())
    True
    """

    _continues_from = "online_state_"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "penalty": [StrOptions(set(PENALTIES)), Penalty],
        "dictionary": ["array-like", None],
        "dict_init": ["array-like", None],
        "positive_dict": ["boolean"],
        "algorithm": [StrOptions({"online", "gradient", "batch"})],
        "unit_norm": ["boolean"],
        "fit_intercept": ["boolean"],
        "init": [StrOptions({"data", "random"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "code_tol": [Interval(Real, 0, None, closed="left")],
        "solver": [StrOptions({*SOLVERS, "threshold"})],
        "n_solver_steps": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        alpha: float = 0.1,
        penalty: str | Penalty = "l1",
        dictionary: Any = None,
        dict_init: Any = None,
        positive_dict: bool = False,
        algorithm: Literal["online", "gradient", "batch"] = "online",
        unit_norm: bool = False,
        fit_intercept: bool = False,
        init: Literal["data", "random"] = "data",
        batch_size: int = 512,
        max_iter: int = 20,
        tol: float = 1e-3,
        code_tol: float = 1e-10,
        solver: Literal["auto", "ista", "fista", "cd", "threshold"] = "auto",
        n_solver_steps: int | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.n_components = n_components
        self.alpha = alpha
        self.penalty = penalty
        self.dictionary = dictionary
        self.dict_init = dict_init
        self.positive_dict = positive_dict
        self.algorithm = algorithm
        self.unit_norm = unit_norm
        self.fit_intercept = fit_intercept
        self.init = init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.code_tol = code_tol
        self.solver = solver
        self.n_solver_steps = n_solver_steps
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.strategy = strategy

    def _fit(self, rows: Rows, progress: Progress | None, **data: Any) -> dict[str, Any]:
        if self.dictionary is not None:
            return given_state(self, rows)
        return super()._fit(rows, progress, **data)

    def _max_steps(self, rows: Rows) -> int:
        return self.max_iter if self.dictionary is None else 0

    def _prepare(self, rows: Rows, **data: Any) -> Learning:
        return learning_of(self, rows)

    def _start(self, problem: Learning, draw: Draw) -> Pass:
        return problem.start(draw)

    def _step(self, problem: Learning, run: Pass) -> Pass:
        return problem.step(run)

    def _finish(self, problem: Learning, run: Pass, state: dict[str, Any]) -> None:
        problem.finish(run)

    def _advice(self) -> str:
        return ""  # max_iter is a budget: more passes rarely pay

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        if self.dictionary is None:
            return learn_on(self, rows)
        n_before = self.n_samples_seen_ if self._is_fitted() else 0
        return given_state(self, rows, n_before=n_before)

    def _state_spec(self) -> Spec:
        return coder_spec()

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return unlearnt_state(self, given["components_"]) if "components_" in given else {}

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> SparseCodingEnergy:
        return coding_energy(self, parameters["components_"], parameters.get("intercept_"))

    def _floats_per_row(self) -> int:
        return floats_per_row(self)

    @property
    def _n_features_out(self) -> int:
        return n_atoms(self)

    def transform(self, X: Any) -> Any:
        """Return the lowest-energy code of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            z*, sparse but stored densely. A ConvergenceWarning reports codes that have not
            converged.
        """
        with search_for(self) as search:
            return self._map_rows(X, search.codes, "transform")

    def certificate(self, X: Any) -> Any:
        """Return how far each row's code can be from the optimal one.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        certificate : array or tensor of shape (n_samples,)
            The duality gap relative to E(x, z*): no code can lower the energy by a larger fraction.
            If R is not convex, the largest violation of stationarity, in units of alpha.
        """
        with search_for(self) as search:
            return self._map_rows(X, search.certificates, "certificate")

    def free_energy(self, X: Any) -> Any:
        r"""Return :math:`F(x) = \min_z E(x, z)`.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        with search_for(self) as search:
            return self._map_rows(X, search.free_energies, "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return -F(x), which is not normalised.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Minus the free energy, in squared units of X. Higher is more typical.
        """
        return -self.free_energy(X)

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each row paired with its code.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_components)
            Codes, one for each row.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In squared units of X. Infinite for codes that the penalty forbids.
        """
        return self._pair_energies(X, Z, may_be_infinite=True)

    def reconstruct(self, X: Any) -> Any:
        """Return z* D + b, the reconstruction from each row's code.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            Their reconstructions.
        """
        with search_for(self) as search:
            return self._map_rows(X, search.reconstructions, "reconstruct")

    def inverse_transform(self, X: Any) -> Any:
        """Return the reconstructions z D + b of codes z.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            Reconstructed rows.
        """
        return self._map_rows(X, decoded, "inverse_transform", latents=True)
