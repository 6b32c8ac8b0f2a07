r"""F(x) = 1/2 (x - m)' P (x - m), with given zeros in P: a Gaussian graphical model."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import torch
from sklearn.utils.metaestimators import available_if

from sklebm._shell.private import Interval, StrOptions, fit_context
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm.base import EnergyEstimator
from sklebm.linear._gaussian_fit import Settings, fit_rows, fit_sums
from sklebm.linear._moments import Moments, empty_moments, stream_moments
from sklebm.linear._newton import Observer, ignore
from sklebm.linear._precision_estimator import PrecisionEstimator
from sklebm.linear._structure import Entries, make_mask

_FROM_SUMS = ("maximum_likelihood", "score_matching")


def _streams(estimator: Any) -> bool:
    if estimator.objective in _FROM_SUMS:
        return True
    raise AttributeError(
        f"objective={estimator.objective!r} compares every row with noise, so it needs all rows at "
        'once and there is no partial_fit: call fit, or use objective="maximum_likelihood" or '
        '"score_matching", which need sums only.'
    )


class GaussianEnergy(PrecisionEstimator):
    r"""Quadratic energy whose precision matrix may have zeros by design.

    .. math:: F(x) = \tfrac12 (x - m)^\top P (x - m), \qquad
              \log p(x) = -F(x) - \tfrac12 \left(d \log 2 \pi - \log \det P\right).

    A zero :math:`P_{ij}` says that features i and j are independent given all others, so that a
    structure is a graph, and the model a Gaussian Markov random field. With S the covariance of the
    training rows, the four objectives shape the same energy in different ways:

    - "maximum_likelihood": :math:`\min \operatorname{tr}(S P) - \log \det P`. The covariance
      :math:`P^{-1}` then equals S at every free entry (Dempster's covariance selection).
    - "score_matching": :math:`\min \tfrac12 \operatorname{tr}(P S P) - \operatorname{tr} P`, a
      linear system. Needs no normaliser.
    - "noise_contrastive": logistic regression between the rows and ``n_noise`` times as many draws
      of a Gaussian with their mean and Ledoit-Wolf covariance; log Z is learnt as a parameter.
    - "conditional_noise_contrastive": logistic regression between each row and ``n_noise`` copies
      of it with Gaussian noise of that covariance times ``noise_scale`` squared; log Z cancels.

    All are convex. Without zeros, the first two give :math:`P = S^{-1}`. P is positive definite: by
    itself in maximum likelihood, and through a prior worth one row in the contrastive objectives;
    score matching with zeros has no such guarantee, and raises if its solution is no density.

    Parameters
    ----------
    structure : {"full", "diagonal", "banded"} or array of bool, default="full"
        Which entries of the precision may differ from 0: all, the diagonal, those between pixels at
        most ``radius`` rows and columns apart, or those where the symmetric array of shape
        (n_features, n_features) is True.
    objective : str, default="maximum_likelihood"
        How the energy is shaped: "maximum_likelihood", "score_matching", "noise_contrastive" or
        "conditional_noise_contrastive".
    image_shape : (height, width) or None, default=None
        Layout of the features for "banded"; None is one line.
    radius : int, default=1
        Reach of the neighbourhood for "banded".
    ridge : float, default=0.0
        Added to the variances of S, as a fraction of their mean; for the first two objectives.
    n_noise : int, default=10
        Noise points for each row, for the contrastive objectives.
    noise_scale : float or "auto", default="auto"
        Size of the noise relative to the data, for "conditional_noise_contrastive". "auto" is
        min(1, 2 / sqrt(d)): the same noise in every direction adds up over d features, and noise
        that is told from the data too easily teaches nothing.
    max_iter : int, default=100
        Most Newton steps, where there is no closed form.
    tol : float, default=1e-8
        Newton's method ends when no derivative of the objective, for features in units of their
        standard deviation, is larger.
    random_state : int, RandomState instance or None, default=None
        Seed of the noise.
    verbose : int, default=0
        Whether to print a line for each Newton step, if there is one: objective and seconds.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is the device of X if it is a tensor, else the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": the processes that ``torchrun`` started fit together, each on rows of its own; see
        :doc:`/user_guide/scale`.

    Attributes
    ----------
    precision_ : ndarray of shape (n_features_in_, n_features_in_)
        P, positive definite, exactly 0 where the structure says so.
    covariance_ : ndarray of shape (n_features_in_, n_features_in_)
        Its inverse: the covariance of the model.
    location_ : ndarray of shape (n_features_in_,)
        The point of least energy m.
    log_partition_ : float
        Exact log Z in nats.
    estimated_log_partition_ : float or None
        log Z as "noise_contrastive" learnt it, None otherwise; near ``log_partition_`` if the model
        fits.
    sample_covariance_ : ndarray of shape (n_features_in_, n_features_in_)
        S (divisor n), without ridge.
    sample_mean_ : ndarray of shape (n_features_in_,)
        Mean of the training rows; ``location_`` except for the contrastive objectives.
    ridge_ : float
        What was added to the diagonal of S, in its units. A covariance that is singular to working
        precision gets a millionth of the mean variance, even for ``ridge=0``.
    n_iter_ : int
        Newton steps; 1 for a closed form.
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
    S costs O(n d^2), in one pass. Closed forms then cost O(d^3), maximum likelihood with zeros
    O(d^3) for each step of conjugate gradients within each Newton step, score matching with zeros
    O(d^3) for each step of conjugate gradients. The contrastive objectives cost O(n n_noise d^2)
    for each such step and O(n n_noise d) memory. ``score`` compares any parameters on the same
    rows: every fit is a normalised density.

    References
    ----------
    A. P. Dempster, "Covariance selection", Biometrics 28(1), 1972.
    A. Hyvarinen, "Estimation of non-normalized statistical models by score matching", JMLR 6, 2005.
    M. U. Gutmann and A. Hyvarinen, "Noise-contrastive estimation of unnormalized statistical
    models", JMLR 13, 2012.
    C. Ceylan and M. U. Gutmann, "Conditional noise-contrastive estimation of unnormalised models",
    ICML 2018.

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
    >>> bool(model.score(X[:, ::-1]) < model.score(X))
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyEstimator._parameter_constraints,
        "structure": [StrOptions({"full", "diagonal", "banded"}), "array-like"],
        "objective": [
            StrOptions({*_FROM_SUMS, "noise_contrastive", "conditional_noise_contrastive"})
        ],
        "image_shape": ["array-like", None],
        "radius": [Interval(Integral, 0, None, closed="left")],
        "ridge": [Interval(Real, 0, None, closed="left")],
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
        objective: Literal[
            "maximum_likelihood",
            "score_matching",
            "noise_contrastive",
            "conditional_noise_contrastive",
        ] = "maximum_likelihood",
        image_shape: tuple[int, int] | None = None,
        radius: int = 1,
        ridge: float = 0.0,
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

    @available_if(_streams)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Add a chunk of rows to the sums; any chunks give what one ``fit`` gives.

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

    def _max_steps(self) -> int:
        return 1

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        progress.begin()
        state = self._solve(
            rows,
            empty_moments(rows.shape[1], rows.device),
            lambda value: progress.write({"objective": value}),
        )
        progress.end(lambda: state)
        return state

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        if not self._is_fitted():
            return self._solve(rows, empty_moments(rows.shape[1], rows.device))
        seen = self.n_samples_seen_
        scatter = torch.from_numpy(self.sample_covariance_ * seen).to(rows.device)
        mean = torch.from_numpy(self.sample_mean_).to(rows.device)
        return self._solve(rows, Moments(seen, mean, scatter))

    def _solve(self, rows: Rows, before: Moments, observe: Observer = ignore) -> dict[str, Any]:
        mask = make_mask(self.structure, rows.shape[1], self.image_shape, self.radius)
        settings = Settings(
            self.objective, float(self.ridge), float(self.tol), self.max_iter, observe
        )
        moments = stream_moments(rows, before)
        state = {
            "n_samples_seen_": int(moments.n_rows),
            "sample_mean_": moments.mean.cpu().numpy(),
            "sample_covariance_": (moments.scatter / moments.n_rows).cpu().numpy(),
        }
        if not torch.isfinite(moments.scatter).all():
            return state  # the shell names the cause
        entries = Entries(mask, rows.device)
        if self.objective in _FROM_SUMS:
            return {**state, **fit_sums(moments, entries, settings)}
        rows.need_one_process(f'objective="{self.objective}"')
        seed = draw_seed(self.random_state)
        generator = make_generator(seed, "noise", device=rows.device)
        conditional = self.objective == "conditional_noise_contrastive"
        scale = self._noise_scale(rows.shape[1]) if conditional else None
        learnt = fit_rows(rows, moments, entries, settings, self.n_noise, scale, generator)
        return {**state, **learnt}

    def _noise_scale(self, n_features: int) -> float:
        automatic = self.noise_scale == "auto"
        return min(1.0, 2.0 / n_features**0.5) if automatic else float(self.noise_scale)
