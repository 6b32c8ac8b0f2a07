r"""E(x, z) = 1/2 |x - b - z D|^2 + alpha R(z); F(x) = min_z E(x, z), with |d_k| <= 1."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.ranks import ALONE, Ranks
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm.base import EnergyEstimator
from sklebm.coding._coding_estimator import (
    CodingEstimator,
    given_dictionary,
    warn_if_codes_vanish,
)
from sklebm.coding._dictionary import DictionaryLearner, Settings, initial_atoms
from sklebm.coding._penalty import record_penalty, resolve_penalty
from sklebm.energies import Penalty
from sklebm.energies.penalties import PENALTIES


class SparseCoder(CodingEstimator):
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
        "top_k" (L0: the largest entries of the L1 code, fitted again) or "lateral_inhibition"; or
        an object of ``sklebm.energies`` with settings, such as ``GroupL2(group_size=2)``.
    dictionary : array-like of shape (n_components, n_features) or None, default=None
        Atoms to be used as they are, of any length; ``fit`` then learns nothing.
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
        Most passes over the rows.
    tol : float, default=1e-3
        ``fit`` ends when the mean energy falls by no more than this share of itself in a pass; 0
        takes all passes.
    code_tol : float, default=1e-10
        Relative duality gap (or stationarity, where R is not convex) at which a code is final.
    random_state : int, RandomState instance or None, default=None
        Seed of the first atoms and of the order of the rows.
    verbose : int, default=0
        Whether to print a line for each pass: mean energy and seconds.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is the device of X if it is a tensor, else the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": the processes that ``torchrun`` started fit together, each on rows of its own; see
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
    .. [1] B. A. Olshausen and D. J. Field, "Emergence of simple-cell receptive field properties by
       learning a sparse code for natural images", Nature 381, 1996.
    .. [2] J. Mairal, F. Bach, J. Ponce and G. Sapiro, "Online learning for matrix factorization and
       sparse coding", JMLR 11, 2010.
    .. [3] A. Beck and M. Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear
       inverse problems", SIAM Journal on Imaging Sciences 2(1), 2009.

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
        "algorithm": [StrOptions({"online", "gradient", "batch"})],
        "unit_norm": ["boolean"],
        "fit_intercept": ["boolean"],
        "init": [StrOptions({"data", "random"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "code_tol": [Interval(Real, 0, None, closed="left")],
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
        algorithm: Literal["online", "gradient", "batch"] = "online",
        unit_norm: bool = False,
        fit_intercept: bool = False,
        init: Literal["data", "random"] = "data",
        batch_size: int = 512,
        max_iter: int = 20,
        tol: float = 1e-3,
        code_tol: float = 1e-10,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.n_components = n_components
        self.alpha = alpha
        self.penalty = penalty
        self.dictionary = dictionary
        self.algorithm = algorithm
        self.unit_norm = unit_norm
        self.fit_intercept = fit_intercept
        self.init = init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.code_tol = code_tol
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.strategy = strategy

    def _max_steps(self) -> int:
        return self.max_iter if self.dictionary is None else 0

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        if self.dictionary is not None:
            return self._keep(rows)
        x, n_rows = rows.all(), rows.total()
        seed = rows.ranks.first(draw_seed(self.random_state))
        learner = self._start(x, seed, rows.ranks)
        order = make_generator(seed, "batches")
        curve: list[float] = []
        state = partial(self._state, learner, rows, curve, n_rows)
        for _ in range(self.max_iter):
            progress.begin()
            shuffled = torch.randperm(n_rows, generator=order).to(x.device)
            energy, n_nonzero = learner.pass_over(x, shuffled, online=self.algorithm != "batch")
            settled = bool(curve) and 0 < self.tol * abs(curve[-1]) >= curve[-1] - energy
            curve.append(energy)
            if progress.end(state, lambda: {"energy": curve[-1]}) or settled:
                break
        if n_nonzero == 0:
            warn_if_codes_vanish(
                rows, learner.atoms, learner.intercept, learner.settings.penalty, self.alpha
            )
        return state()

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        if self.dictionary is not None:
            return self._keep(rows)
        rows.need_one_process("partial_fit of a dictionary")
        x, fitted = rows.all(), self._is_fitted()
        if fitted and self.n_iter_:  # none: a dictionary that was given, not learnt
            learner = self._resume(rows.device)
        else:
            learner = self._start(x, draw_seed(self.random_state))
        learner.absorb(x)
        curve = [*(self.energy_curve_ if fitted else ()), learner.take_means()[0]]
        seen = self.n_samples_seen_ if fitted else 0
        return self._state(learner, rows, curve, seen + len(x))

    def _settings(self, n_features: int) -> Settings:
        return Settings(
            resolve_penalty(self.penalty, self.n_components or n_features),
            float(self.alpha),
            self.batch_size,
            self.unit_norm,
            self.fit_intercept,
            self.code_tol,
            by_gradient=self.algorithm == "gradient",
        )

    def _start(self, x: torch.Tensor, seed: int, ranks: Ranks = ALONE) -> DictionaryLearner:
        settings = self._settings(x.shape[1])
        intercept = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
        if self.fit_intercept:
            intercept = ranks.sum(x.double().sum(dim=0)) / ranks.total(len(x))
        generator = make_generator(seed, "atoms")
        n_components = self.n_components or x.shape[1]
        atoms = initial_atoms(x, n_components, self.init, intercept, generator, ranks)
        return DictionaryLearner(atoms, intercept, settings, ranks)

    def _resume(self, device: torch.device) -> DictionaryLearner:
        if self.n_components not in (None, len(self.components_)):
            raise ValueError(
                f"n_components={self.n_components} differs from the {len(self.components_)} fitted "
                "atoms: set it back, or call fit to start again."
            )
        settings = self._settings(self.n_features_in_)
        if self.online_state_:
            return DictionaryLearner.restore(self.online_state_, settings, device)
        atoms, intercept = (
            torch.from_numpy(np.array(array)).to(device)
            for array in (self.components_, self.intercept_)
        )
        return DictionaryLearner(atoms, intercept, settings)

    def _keep(self, rows: Rows) -> dict[str, Any]:
        """The state around a given dictionary."""
        atoms = given_dictionary(self.dictionary, self.n_components, rows.shape[1])
        penalty = resolve_penalty(self.penalty, len(atoms))
        intercept = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
        tensor = torch.from_numpy(atoms).to(rows.device)
        warn_if_codes_vanish(rows, tensor, intercept, penalty, self.alpha)
        return {
            "components_": atoms,
            "intercept_": np.zeros(rows.shape[1], atoms.dtype),
            "alpha_": float(self.alpha),
            "penalty_": record_penalty(penalty),
            "energy_curve_": np.empty(0),
            "online_state_": {},
            "n_iter_": 0,
            "n_samples_seen_": rows.total(),
        }

    def _state(
        self, learner: DictionaryLearner, rows: Rows, curve: list[float], n_seen: int
    ) -> dict[str, Any]:
        return {
            "components_": learner.atoms.to(rows.dtype, copy=True).cpu().numpy(),
            "intercept_": learner.intercept.to(rows.dtype, copy=True).cpu().numpy(),
            "alpha_": learner.settings.alpha,
            "penalty_": record_penalty(learner.settings.penalty),
            "energy_curve_": np.asarray(curve),
            "online_state_": learner.export(),
            "n_iter_": len(curve),
            "n_samples_seen_": n_seen,
        }

    def _state_spec(self) -> Spec:
        return {
            **self._dictionary_spec(),
            "intercept_": Array("f", (self.n_features_in_,)),
            "energy_curve_": Array("f", (None,)),
            "online_state_": Record(),
            "n_iter_": Scalar(int, 0),
            "n_samples_seen_": Scalar(int, 1),
        }
