r"""F(x) = 1/2 (x - m)' P (x - m), with given zeros in P: a Gaussian graphical model."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.available import available_if
from sklebm._shell.private import Interval, StrOptions, fit_context
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Spec
from sklebm.base import EnergyEstimator
from sklebm.energies import PrecisionEnergy
from sklebm.linear._gaussian_state import OBJECTIVES, STATE, Objective, draw, learn, streams
from sklebm.linear._gaussian_state import untrained_state as follow_from


class GaussianEnergy(EnergyEstimator):
    r"""Quadratic energy whose precision matrix may have zeros by design.

    .. math:: F(x) = \tfrac12 (x - m)^\top P (x - m), \qquad
              \log p(x) = -F(x) - \tfrac12 \left(d \log 2 \pi - \log \det P\right).

    A zero :math:`P_{ij}` means that features i and j are independent given all the others, so the
    structure is a graph and the model a Gaussian Markov random field. With S the covariance of the
    training rows, the four objectives fit the same energy in different ways:

    - "maximum_likelihood": :math:`\min \operatorname{tr}(S P) - \log \det P`. The covariance
      :math:`P^{-1}` then equals S at every free entry (Dempster's covariance selection).
    - "score_matching": :math:`\min \tfrac12 \operatorname{tr}(P S P) - \operatorname{tr} P`, a
      linear system. Needs no normaliser.
    - "noise_contrastive": logistic regression between the rows and ``n_noise`` times as many draws
      of a Gaussian with their mean and Ledoit-Wolf covariance; log Z is learnt as a parameter.
    - "conditional_noise_contrastive": logistic regression between each row and ``n_noise`` copies
      of it with Gaussian noise of that covariance times ``noise_scale`` squared; log Z cancels.

    All are convex. Without zeros, the first two give :math:`P = S^{-1}`. P is positive definite:
    always for maximum likelihood, by a prior with the weight of one row for the contrastive
    objectives, and for score matching by a ridge where its solution would not be a density
    otherwise.

    Parameters
    ----------
    structure : {"full", "diagonal", "banded"} or array of bool, default="full"
        Which entries of the precision may be non-zero: all, the diagonal, those between pixels at
        most ``radius`` rows and columns apart, or those where the symmetric square array is True.
    objective : str, default="maximum_likelihood"
        How the energy is fitted: "maximum_likelihood", "score_matching", "noise_contrastive" or
        "conditional_noise_contrastive".
    image_shape : (height, width) or None, default=None
        Layout of the features for "banded"; None is a single line.
    radius : int, default=1
        Radius of the neighbourhood for "banded".
    ridge : float or "auto", default="auto"
        Added to the variances of S, as a fraction of their mean; for the first two objectives.
        "auto" is 0, or, if score matching then finds no density, the smallest power of 2 with which
        it does.
    n_noise : int, default=10
        Number of noise points per row, for the contrastive objectives.
    noise_scale : float or "auto", default="auto"
        Size of the noise relative to the data, for "conditional_noise_contrastive". "auto" is
        min(1, 2 / sqrt(d)): noise that is too easy to tell from the data is uninformative.
    max_iter : int, default=100
        Maximum number of Newton steps, if there is no closed form.
    tol : float, default=1e-8
        Newton's method stops when no derivative of the objective, with features in units of their
        standard deviation, exceeds this.
    random_state : int, RandomState instance or None, default=None
        Seed for the noise.
    verbose : int, default=0
        If nonzero, print one line per Newton step, with the objective and the time in seconds.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": processes started by ``torchrun`` fit one model together, each on its own rows; see
        :doc:`/user_guide/scale`.

    Attributes
    ----------
    precision_ : ndarray of shape (n_features_in_, n_features_in_)
        P, positive definite, exactly 0 where the structure requires it.
    covariance_ : ndarray of shape (n_features_in_, n_features_in_)
        Its inverse: the covariance of the model.
    location_ : ndarray of shape (n_features_in_,)
        The point m of lowest energy.
    log_partition_ : float
        Exact log Z in nats.
    estimated_log_partition_ : float or None
        log Z as learnt by "noise_contrastive" (near ``log_partition_`` if the model fits), or None.
    sample_covariance_ : ndarray of shape (n_features_in_, n_features_in_)
        S (divisor n), without ridge.
    sample_mean_ : ndarray of shape (n_features_in_,)
        Mean of the training rows; ``location_`` except for the contrastive objectives.
    ridge_ : float
        The amount added to the diagonal of S, in the same units. For a covariance that is singular
        to working precision it is a millionth of the mean variance, even with ``ridge=0``.
    n_iter_ : int
        Number of Newton steps; 1 for a closed form.
    n_samples_seen_ : int
        Number of training rows.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    PCAWhitener : The unconstrained Gaussian in its principal axes.
    sklearn.covariance.GraphicalLasso : Learns which entries are zero.

    Notes
    -----
    S costs O(n d^2) in one pass, and closed forms O(d^3). With more than a hundred features and
    only few free entries, p in all, maximum likelihood costs O(d^3) per Newton step plus O(p d) per
    conjugate-gradient step, and score matching a sparse factorisation; otherwise a step costs
    O(d^3). Contrastive objectives cost O(n n_noise d^2) time, or O(n n_noise p) with few free
    entries, for each of the conjugate-gradient steps, and O(n n_noise d) memory. ``score`` is
    comparable between any parameters on the same rows: every fit is a normalised density.

    References
    ----------
    A. P. Dempster, "Covariance selection", Biometrics 28(1), 1972.
    A. Hyvarinen, "Estimation of non-normalized statistical models by score matching", JMLR 6, 2005.
    M. U. Gutmann and A. Hyvarinen, "Noise-contrastive estimation of unnormalized statistical
    models", JMLR 13, 2012.
    C. Ceylan and M. U. Gutmann, "Conditional noise-contrastive estimation", ICML 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import GaussianEnergy
    >>> X = load_digits().data + np.random.default_rng(0).uniform(size=(1797, 64))
    >>> model = GaussianEnergy("banded", image_shape=(8, 8), radius=1).fit(X)
    >>> free = model.precision_ != 0
    >>> int(free.sum(axis=1).max())  # a pixel and its eight neighbours
    9
    >>> bool(np.allclose(model.covariance_[free], model.sample_covariance_[free]))
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyEstimator._parameter_constraints,
        "structure": [StrOptions({"full", "diagonal", "banded"}), "array-like"],
        "objective": [StrOptions(OBJECTIVES)],
        "image_shape": ["array-like", None],
        "radius": [Interval(Integral, 0, None, closed="left")],
        "ridge": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "n_noise": [Interval(Integral, 1, None, closed="left")],
        "noise_scale": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _min_rows_fit = 2  # a covariance needs two rows
    _computes_in_double = True

    def __init__(
        self,
        structure: Any = "full",
        *,
        objective: Objective = "maximum_likelihood",
        image_shape: tuple[int, int] | None = None,
        radius: int = 1,
        ridge: float | Literal["auto"] = "auto",
        n_noise: int = 10,
        noise_scale: float | Literal["auto"] = "auto",
        max_iter: int = 100,
        tol: float = 1e-8,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.structure = structure
        self.objective = objective
        self.image_shape = image_shape
        self.radius = radius
        self.ridge = ridge
        self.n_noise = n_noise
        self.noise_scale = noise_scale
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.strategy = strategy

    @property
    def _n_features_out(self) -> int:
        return int(self.n_features_in_)

    @available_if(streams)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Add a chunk of rows to the sums; any chunking gives the same result as one ``fit``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The next chunk of training rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        self : object
            The updated estimator. An exception or an interrupt leaves it as it was before.

        Raises
        ------
        AttributeError
            With a contrastive objective, which needs all rows at once.
        """
        return self._learn(X, self._partial_fit, first=not self._is_fitted())

    def transform(self, X: Any) -> Any:
        """Return z = L'(x - m), with the Cholesky factor P = L L'; F(x) = |z|^2 / 2.

        z_i is the part of feature i that the features after it do not predict, in units of its
        standard deviation given them.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to whiten.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_features)
            White coordinates.
        """
        return self._map_rows(X, PrecisionEnergy.whiten, "transform")

    def inverse_transform(self, X: Any) -> Any:
        """Return the rows whose whitened form is X.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            White coordinates.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            Rows.
        """
        return self._map_rows(X, PrecisionEnergy.unwhiten, "inverse_transform", latents=True)

    def free_energy(self, X: Any) -> Any:
        """Return F(x), half the squared Mahalanobis distance to ``location_``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            ``-log p(x) - log Z`` in nats.
        """
        return self._map_rows(X, PrecisionEnergy.free_energy, "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return the log density of each row, exactly normalised for every objective.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_density : array or tensor of shape (n_samples,)
            log p(x) in nats; higher is more typical.
        """
        return self._map_rows(X, PrecisionEnergy.log_density, "score_samples")

    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> Any:
        """Draw independent, exact samples from the model.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Draws, float64.
        """
        check_is_fitted(self)
        return draw(self._energy(torch.device("cpu")), n_samples, random_state)

    def _max_steps(self, rows: Rows) -> int:
        return 1

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        progress.begin()
        state = learn(self, rows, lambda value: progress.write({"objective": value}))
        progress.end(lambda: state)
        return state

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        return learn(self, rows, goes_on=self._is_fitted())

    def _state_spec(self) -> Spec:
        return STATE

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return follow_from(given)

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> PrecisionEnergy:
        factor = torch.linalg.cholesky(parameters["precision_"])
        return PrecisionEnergy(parameters["location_"], factor)
