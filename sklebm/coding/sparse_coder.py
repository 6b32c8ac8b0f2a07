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

    ``transform`` finds the minimum exactly: with the default penalty by an active-set method whose
    codes are optimal to machine precision.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of atoms; None is as many as features, or as the given dictionary has.
    alpha : float, default=0.1
        Weight of the penalty, in units of X if atoms have length one. Codes are zero where it
        exceeds all products of a row and the atoms.
    penalty : str or Penalty, default="l1"
        R: "l1", "nonnegative" (L1 with z >= 0), "elastic_net", "group" (Euclidean norms of
        consecutive groups), "topographic" (of overlapping pools on a torus), "lq" (0 < q < 1),
        "top_k" (the largest entries of the L1 code, fitted again), "l0" (orthogonal matching
        pursuit) or "lateral_inhibition"; or an object of ``sklebm.energies`` with settings, such as
        ``GroupL2(group_size=2)``.
    dictionary : array-like of shape (n_components, n_features) or None, default=None
        Atoms to be used as they are, of any length; ``fit`` then learns nothing.
    dict_init : array-like of shape (n_components, n_features) or None, default=None
        First atoms, instead of ``init``; longer ones are shortened to length one.
    positive_dict : bool, default=False
        Whether atoms are held at or above zero.
    algorithm : {"online", "gradient", "batch"}, default="online"
        Improve the dictionary every ``batch_size`` rows, by sums over earlier codes or a projected
        gradient step; or after all, which raises the mean energy by replacing atoms at most.
    unit_norm : bool, default=False
        Whether atoms have length one, instead of at most one.
    fit_intercept : bool, default=False
        Whether to learn the intercept b.
    init : {"data", "random"}, default="data"
        First atoms: rows of X, or random directions, of length one.
    batch_size : int, default=512
        Rows between two improvements.
    max_iter : int, default=20
        Maximum number of passes over the rows.
    tol : float, default=1e-3
        ``fit`` ends when the mean energy falls by no more than this share of itself in a pass; 0
        takes all passes.
    code_tol : float, default=1e-10
        Relative duality gap (or stationarity, where R is not convex) at which a code is final.
    solver : {"auto", "ista", "fista", "cd", "threshold"}, default="auto"
        How codes are found: the fastest way; a textbook method ("cd": one coordinate of each row in
        a step); or one soft threshold of the products with the atoms, exact for orthonormal ones.
    n_solver_steps : int or None, default=None
        Take exactly so many steps of "ista", "fista" or "cd", whatever the codes' certificates.
    random_state : int, RandomState instance or None, default=None
        Seed of the first atoms and of the order of the rows.
    verbose : int, default=0
        Whether to print a line for each pass: mean energy and seconds.
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
        Weight of the penalty at the fit.
    penalty_ : dict
        Name and settings of the penalty at the fit.
    energy_curve_ : ndarray of shape (n_iter_,)
        Mean energy of the rows in each pass, each with the dictionary at its turn.
    online_state_ : dict
        Sums over codes and rows, from which ``partial_fit`` goes on. After a ``partial_fit`` that
        ends within a batch it holds up to eight of the batch's rows, for atoms that may die;
        ``drop_training_state`` removes them.
    n_iter_ : int
        Passes over the rows, or calls of ``partial_fit``; 0 for a given dictionary.
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
    With k atoms, d features and s non-zeros, a code costs O(k d) for its products with the atoms,
    and O(k s + s^3) for each of some ten rounds; other penalties O(k^2) for each of hundreds of
    iterations. An improvement of the dictionary costs O(k^2 d), by "gradient" in one product.
    Atoms that no recent row uses are pointed at the rows of highest energy. ``partial_fit`` counts
    ``batch_size`` rows over all calls, so that chunks change nothing.
    ``score`` compares dictionaries at the same ``alpha`` and ``penalty``, on the same features.

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
        return learn_on(self, rows) if self.dictionary is None else given_state(self, rows)

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
        """Return the code of least energy of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            z*, sparse in value, dense in storage. A ConvergenceWarning tells of codes that are not
            final.
        """
        with search_for(self) as search:
            return self._map_rows(X, search.codes, "transform")

    def certificate(self, X: Any) -> Any:
        """Return how far the code of each row can be from the best one.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        certificate : array or tensor of shape (n_samples,)
            The duality gap relative to E(x, z*), so that no code can lower the energy by a larger
            share; where R is not convex, the largest violation of stationarity in units of alpha.
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
        """Return -F(x); the normaliser is not known.

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
        """Return E(x, z) of each row with its own code.

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
        """Return z* D + b, what the code of each row decodes to.

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
