r"""F(x) = sum_g f(|W_g (x - m)|^2 / b_g^2): independent components, subspaces and their maps."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.available import available_if
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm.energies import IndependentSubspaceEnergy
from sklebm.energies.source_densities import DensityName, SourceDensity
from sklebm.iterative import Draw, IterativeEstimator
from sklebm.linear._sources import (
    Grouping,
    Search,
    SourceProblem,
    build,
    make_problem,
    untrained,
)


def _is_normalised(estimator: Any) -> bool:
    fitted = getattr(estimator, "architecture_", None)
    shape = Grouping.of_record(fitted).topography if fitted else estimator.topography
    if shape is None:
        return True
    raise AttributeError(
        f"topography={shape} has pools that overlap, so that its density has no "
        "closed normaliser and no exact samples: use group_size instead."
    )


class SubspaceICA(IterativeEstimator[SourceProblem, Search]):
    r"""Independent component analysis, with groups of sources that depend on each other.

    Filters W give the sources :math:`s = W (x - m)`, of variance 1 and, with ``orthogonal``,
    uncorrelated. The energy of a row is the sum over groups g of filters

    .. math:: F(x) = \sum_g f\bigl(\lVert s_g \rVert^2 / b_g^2\bigr), \qquad
              f(q) = \sqrt{\epsilon + q} \quad \text{for density="laplace"},

    which is low where few groups are active. It depends only on the norm of each group, not on how
    this norm is divided among the sources (the phase). ``group_size=1`` is ICA, by maximum
    likelihood under the density of the sources. Larger groups are independent subspaces. In both
    cases the density is normalised, with a scale :math:`b_g` learnt for each group:

    .. math:: \log p(x) = -F(x) + \log |\det W| - \sum_g \left(|g| \log b_g + \log c_g\right).

    Directions that the filters leave out are Gaussian noise, whose energy is part of F. With
    ``topography`` the filters lie on a torus, and each pool consists of a filter and its
    neighbours: nearby filters learn to be active together. The normaliser is unknown for
    overlapping pools.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of filters k. None: as many as there are directions in which X varies, or cells in
        ``topography``.
    group_size : int, default=1
        Filters in a group; the last group takes the remainder. Not used with ``topography``.
    topography : (rows, columns) or None, default=None
        Shape of a torus of filters, row by row, with a pool of 3 x 3 around each.
    density : {"laplace", "log_cosh", "student_t", "logistic"}, default="laplace"
        The function f of the squared norm q of a group of g sources: :math:`\sqrt{\epsilon + q}`,
        :math:`\log \cosh \sqrt q`, :math:`\frac{v + g}{2} \log(1 + q / v)`, or
        :math:`2 \log \cosh (\sqrt q / 2)`, each with its constant for every g.
    eps : float, default=0.001
        :math:`\epsilon` of "laplace", which rounds off its tip; at most 1.
    degrees_of_freedom : float, default=3.0
        Degrees of freedom v of "student_t".
    orthogonal : bool, default=True
        Whether filters are orthogonal for white rows, so that sources are uncorrelated. False
        maximises the likelihood among all W: it fits the training rows at least as well, with
        about twice as many parameters.
    batch_size : int or None, default=None
        Rows in a random batch. None: every step is an L-BFGS step on all rows. A number: training
        begins with passes over random batches, as long as a pass improves the objective more than
        such a step would. The possible optima are the same, often reached in fewer passes; rows are
        whitened batch by batch instead of being kept in memory.
    n_init : int, default=1
        Number of random starts; the one with the lowest objective is kept, since there are local
        minima.
    max_iter : int, default=500
        Maximum number of L-BFGS steps, or of passes over batches. The search for single components
        that precedes groups has up to 100 of its own.
    tol : float, default=1e-6
        Training stops when no derivative of the objective exceeds this: with respect to a rotation
        of two filters, the log of a scale, or, without ``orthogonal``, the share of one source that
        is added to another.
    random_state : int, RandomState instance or None, default=None
        Seed of the first filters.
    verbose : int, default=0
        Whether to print a line for each step: objective and seconds.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is the device of X if it is a tensor, else the CPU.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_features_in_)
        The filters W, group after group.
    mixing_ : ndarray of shape (n_features_in_, n_components_)
        A: column k is the row that one unit of source k adds, and ``components_ @ mixing_`` is the
        identity. The largest entry of each column, in units of ``scale_``, is positive.
    mean_ : ndarray of shape (n_features_in_,)
        Mean m of the training rows.
    scale_ : ndarray of shape (n_features_in_,)
        Standard deviations of the features, in which noise is measured.
    group_scales_ : ndarray of shape (n_groups_,)
        b, for sources of variance 1. With ``topography`` all are equal: 1 if ``orthogonal``.
    noise_variance_ : float
        Variance in each direction that the filters do not span, for features divided by ``scale_``;
        at least 1e-6, or 0 if there is no such direction.
    log_partition_ : float or None
        Exact log Z in nats; None with ``topography``.
    architecture_ : dict
        Density, group size and topography at the time of ``fit``.
    objective_ : float or None
        What was minimised: the mean over the training rows of the energy of the groups, plus
        :math:`\sum_g |g| \log b_g`, minus log of abs(det) of the filters for white rows.
    n_components_ : int
        Number of filters.
    n_groups_ : int
        Number of groups or pools.
    n_iter_ : int
        Steps of the start that was kept.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    PCAWhitener : White coordinates without a choice of rotation.
    sklearn.decomposition.FastICA : ``group_size=1`` by fixed points, without a density.

    Notes
    -----
    Columns are first divided by their standard deviations, so their units do not matter. A step
    costs O(n k^2 + k^3) time, whitening O(n d^2 + d^3). White rows are held in float64, O(n k)
    memory, unless there is a ``batch_size`` or X is on disk (a memory map or dask array larger than
    scikit-learn's ``working_memory``), which is read anew in each pass. Without ``orthogonal``,
    sources have variance 1 only on average over their group, or over the map. Sources with lighter
    tails than the density are not separated, whereas FastICA finds those too.

    References
    ----------
    A. Hyvarinen and P. Hoyer, "Emergence of phase- and shift-invariant features by decomposition of
    natural images into independent feature subspaces", Neural Computation 12(7), 2000.
    A. Hyvarinen, P. Hoyer and M. Inki, "Topographic independent component analysis", Neural
    Computation 13(7), 2001.
    P. Ablin, J.-F. Cardoso and A. Gramfort, "Faster ICA under orthogonal constraint", ICASSP 2018;
    and "Faster independent component analysis by preconditioning with Hessian approximations", IEEE
    Transactions on Signal Processing 66(15), 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import SubspaceICA
    >>> rng = np.random.default_rng(0)
    >>> sources = rng.laplace(size=(2000, 2))
    >>> mixing = np.array([[2.0, 1.0], [1.0, 1.0]])
    >>> model = SubspaceICA(random_state=0).fit(sources @ mixing.T)
    >>> gains = np.abs(model.components_ @ mixing)  # one entry for each row and column
    >>> bool((np.sort(gains, axis=1)[:, 0] < 0.1 * gains.max(axis=1)).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "group_size": [Interval(Integral, 1, None, closed="left")],
        "topography": [tuple, list, None],
        "density": [StrOptions({"laplace", "log_cosh", "student_t", "logistic"})],
        "eps": [Interval(Real, 0, 1, closed="right")],
        "degrees_of_freedom": [Interval(Real, 0, None, closed="neither")],
        "orthogonal": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "device": [str, torch.device],
    }
    _min_rows_fit = 2  # a covariance needs two rows
    _computes_in_double = True

    def __init__(
        self,
        n_components: int | None = None,
        *,
        group_size: int = 1,
        topography: tuple[int, int] | None = None,
        density: DensityName = "laplace",
        eps: float = 1e-3,
        degrees_of_freedom: float = 3.0,
        orthogonal: bool = True,
        batch_size: int | None = None,
        n_init: int = 1,
        max_iter: int = 500,
        tol: float = 1e-6,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.n_components = n_components
        self.group_size = group_size
        self.topography = topography
        self.density = density
        self.eps = eps
        self.degrees_of_freedom = degrees_of_freedom
        self.orthogonal = orthogonal
        self.batch_size = batch_size
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    # ------------------------------------------------------------------ learning

    def _cost(self, state: Any) -> float:
        return float(state["objective_"])

    def _prepare(self, rows: Rows, **data: Any) -> SourceProblem:
        return make_problem(
            rows,
            self.n_components,
            self._grouping(),
            float(self.tol),
            type(self).__name__,
            orthogonal=self.orthogonal,
            batch_size=self.batch_size,
        )

    def _start(self, problem: SourceProblem, draw: Draw) -> Search:
        return problem.start(draw)

    def _step(self, problem: SourceProblem, run: Search) -> Search:
        return problem.step(run)

    def _grouping(self) -> Grouping:
        density = SourceDensity(self.density, float(self.eps), float(self.degrees_of_freedom))
        if self.topography is None:
            return Grouping(density, int(self.group_size), None)
        cells = list(self.topography)
        whole = all(isinstance(n, Integral) and not isinstance(n, bool) for n in cells)
        if len(cells) != 2 or not whole or min(cells) < 1:
            raise ValueError(
                f"topography={self.topography!r} must be two positive integers, (rows, columns)."
            )
        return Grouping(density, 1, (int(cells[0]), int(cells[1])))

    # ------------------------------------------------------------------ fitted state

    def _state_spec(self) -> Spec:
        kept, width = "n_components_", "n_features_in_"
        return {
            "mean_": Array("f", (width,), of="mean"),
            "components_": Array("f", (kept, width), of="filters"),
            "mixing_": Array("f", (width, kept), of="mixing"),
            "scale_": Array("f", (width,), of="feature_scales"),
            "group_scales_": Array("f", ("n_groups_",), of="group_scales"),
            "n_components_": Scalar(int, 1),
            "n_groups_": Scalar(int, 1),
            "noise_variance_": Scalar(float, 0.0),
            "architecture_": Record(),
            "log_partition_": Scalar(float, optional=True),
            "objective_": Scalar(float, optional=True),
            "n_iter_": Scalar(int, 0),
        }

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return untrained(given, self._grouping())

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> IndependentSubspaceEnergy:
        arrays = parameters.values()  # as _state_spec names them
        return build(arrays, Grouping.of_record(self.architecture_), self.noise_variance_)

    # ------------------------------------------------------------------ what it answers

    def transform(self, X: Any) -> Any:
        """Return the sources s = W (x - m) of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        S : array or tensor of shape (n_samples, n_components_)
            Sources, in units of their standard deviations in the training rows.
        """
        return self._map_rows(X, IndependentSubspaceEnergy.sources, "transform")

    def inverse_transform(self, X: Any) -> Any:
        """Return the rows m + A s that have the sources X.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components_)
            Sources, as ``transform`` returns them.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            Rows, without noise in the directions that the filters leave out.
        """
        return self._map_rows(X, IndependentSubspaceEnergy.mix, "inverse_transform", latents=True)

    def pool(self, X: Any) -> Any:
        """Return the energy f of each group: how active it is, whatever its phase.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.

        Returns
        -------
        energies : array or tensor of shape (n_samples, n_groups_)
            Non-negative. They add up to the free energy, except for that of the noise.
        """
        return self._map_rows(X, IndependentSubspaceEnergy.pooled, "pool")

    def free_energy(self, X: Any) -> Any:
        """Return F(x), the sum of the energies of the groups and of the noise.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            ``-log p(x) - log Z`` in nats. The sources are functions of x, so no latent is
            integrated out.
        """
        return self._map_rows(X, IndependentSubspaceEnergy.free_energy, "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return the log density of each row; exact. With ``topography``, -F(x).

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_density : array or tensor of shape (n_samples,)
            log p(x) in nats; higher is more typical. The normaliser of overlapping pools has no
            closed form: with ``topography`` this is -F(x), equal to log p(x) up to an unknown
            constant, and not comparable between models.
        """
        check_is_fitted(self)
        log_z = self.log_partition_ or 0.0
        return self._map_rows(X, lambda energy, x: -energy.free_energy(x) - log_z, "score_samples")

    @available_if(_is_normalised)
    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> Any:
        """Draw rows from the density; exact and independent.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Draws, float64.

        Raises
        ------
        AttributeError
            With ``topography``, whose normaliser has no closed form.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r} must be a positive integer.")
        generator = make_generator(draw_seed(random_state), "sample")
        return self._energy(torch.device("cpu")).sample(int(n_samples), generator).numpy()
