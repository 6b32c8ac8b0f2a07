r"""F(x) = |x - g(f(x))|^2, with codes f(x_t) that change slowly from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sklebm._shell.arrays import to_numpy
from sklebm._shell.private import Interval, Options, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.scaling import Scaling, measure_spread
from sklebm._shell.state import Array, Spec
from sklebm.energies.networks import ACTIVATIONS
from sklebm.inference.slow_features import SlowMoments
from sklebm.objectives import Batch, Objective
from sklebm.objectives.slowness import SlowReconstruction, pool_lengths
from sklebm.temporal import _slow
from sklebm.temporal._base import SEQUENCE_CONSTRAINTS, SequenceEstimator
from sklebm.training.architecture import check_resumable
from sklebm.training.pace import Pace
from sklebm.training.schedules import Schedule

_COUNT = Interval(Integral, 1, None, closed="left")
_WEIGHT = Interval(Real, 0, None, closed="left")


class SlowFeatureAutoencoder(SequenceEstimator):
    r"""Sparse auto-encoder whose code changes slowly along a sequence; or slow feature analysis.

    .. math:: \min \mathbb{E}\, \lVert x_t - g(z_t) \rVert^2 + \alpha \lVert z_t \rVert_1
              + \lambda \lVert p(z_t) - p(z_{t-1}) \rVert_1, \qquad z = f(x), \qquad
              F(x) = \lVert x - g(f(x)) \rVert^2 .

    The content of a scene changes more slowly than its pixels. p is the code itself, or the lengths
    of pools of latents, within which a phase may turn quickly while the amplitude stays.
    ``method="linear"`` solves :math:`\min \mathbb{E} (z_t - z_{t-1})^2` for uncorrelated codes of
    unit variance that are affine or quadratic in x, in closed form.

    Parameters
    ----------
    n_components : int, default=64
        Number of latents; for "linear" the slowest ones, in order, at most as many as there are
        directions in which rows vary.
    method : {"autoencoder", "linear"}, default="autoencoder"
        Networks trained by gradients; or slow feature analysis in closed form, which uses
        ``n_components`` and ``degree`` only.
    degree : {1, 2}, default=1
        Codes of "linear" are affine or quadratic in x.
    hidden_sizes : tuple of int or int, default=()
        Widths of the encoder's hidden layers, mirrored in the decoder; with ``image_shape``, the
        channels of its convolutions, each of which halves height and width. Empty: one affine map.
    activation : str, default="relu"
        Activation of the hidden layers: "relu", "elu", "silu", "softplus", "sigmoid", "tanh",
        "shrink" (soft threshold 0.5), "saturated_linear" (clipped to [0, 1]) or "identity".
    code_activation : str, default="relu"
        Activation of the code, from the same list.
    tied : bool, default=True
        Whether the decoder uses the transposed weights of the encoder, which keeps it from scaling
        small, hence slow, codes up again. Otherwise the penalty is that of each latent or pool
        divided by its standard deviation over the batch.
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of a row, for convolutional networks.
    alpha : float, default=0.1
        Weight of the magnitudes of the code, relative to squared errors of rows divided by
        ``scale_``.
    slowness : float, default=0.5
        Weight of the mean change of the code over pairs of successive steps.
    penalty : {"l1", "squared"}, default="l1"
        Penalty of a change: its magnitude or its square.
    pool_size : int, default=1
        Latents in a pool, whose Euclidean length should change slowly. 1: every latent should. The
        last pool is smaller if ``pool_size`` does not divide ``n_components``.
    learning_rate : float, default=0.001
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=128
        Least number of rows in an update; a batch holds stretches of 10 steps or shorter sequences.
    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto": enough for 3000 updates, but at least 20 and at most 1000.
    optimizer : str, default="adam"
        "adam", "adamw", "sgd", "momentum", "rmsprop", or, with all rows at once,
        "gradient_descent" and "lbfgs".
    learning_rate_schedule : str or Schedule, default="cosine"
        "constant", "linear", "cosine", "non_monotone", or a schedule object.
    validation_fraction : float or None, default=None
        Largest fraction of the rows held out, as whole sequences, at least one; of a single
        sequence its end. Minus their mean squared error is recorded after each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress, in squared units of ``scale_``.
    warm_start : bool, default=False
        Whether ``fit`` continues from the fitted parameters; "linear" never does.
    net_params : dict or None, default=None
        Passed to the internal skorch net: callbacks, ``optimizer__weight_decay``.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial weights and the order of stretches.
    verbose : int, default=0
        If nonzero, print one line per epoch.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise CUDA if available.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        Parameters of encoder and decoder under their torch names, such as "encoder.0.weight".
    architecture_ : dict
        Description of the networks in plain values.
    offset_, scale_ : ndarray of shape (n_features_in_,)
        Mean of each feature and one scale for all of them: networks see (x - offset_) / scale_.
    slowness_ : ndarray of shape (n_components,) or None
        Mean squared change of each latent of "linear" over the training pairs; None otherwise.
        :func:`sklebm.metrics.slowness` measures any code.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean loss of the batches by epoch.
    validation_scores_ : ndarray
        Minus the mean squared error of held-out rows by epoch, in squared units of ``scale_``, if
        ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls; 0 for "linear".
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    n_samples_seen_ : int
        Number of training rows.
    training_state_ : dict
        Optimiser statistics, or the sums of "linear"; see ``drop_training_state``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    SparseAutoencoder : The same for rows in any order.
    LinearizingAutoencoder : Codes that move along straight lines instead of standing still.

    Notes
    -----
    A step costs O(batch_size P) for P weights; "linear" O(n D^2 + D^3) for D = n_features columns,
    or n_features (n_features + 3) / 2 of degree 2, of which at most 5000 are accepted. The codes of
    "linear" do not depend on the units of the features, and ``partial_fit`` gives what ``fit``
    gives for all chunks together, after a first chunk of rows that differ, with a sequence of two
    steps. A sequence of one step contributes a row but no change. ``groups`` that are not
    contiguous raise ValueError.

    References
    ----------
    .. [1] L. Wiskott and T. J. Sejnowski, "Slow feature analysis: unsupervised learning of
       invariances", Neural Computation 14, 2002.
    .. [2] R. Goroshin, J. Bruna, J. Tompson, D. Eigen and Y. LeCun, "Unsupervised learning of
       spatiotemporally coherent metrics", ICCV 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import SlowFeatureAutoencoder
    >>> t = np.linspace(0, 2 * np.pi, 2000)
    >>> X = np.column_stack([np.sin(t) + np.cos(11 * t) ** 2, np.cos(11 * t)])
    >>> model = SlowFeatureAutoencoder(1, method="linear", degree=2).fit(X)
    >>> z = model.transform(X)[:, 0]  # the slow sine behind the fast cosine
    >>> bool(abs(np.corrcoef(z, np.sin(t))[0, 1]) > 0.999)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **SEQUENCE_CONSTRAINTS,
        "max_epochs": [_COUNT, StrOptions({"auto"})],
        "n_components": [_COUNT],
        "method": [StrOptions({"autoencoder", "linear"})],
        "degree": [Options(Integral, {1, 2})],
        "hidden_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "code_activation": [StrOptions(set(ACTIVATIONS))],
        "tied": ["boolean"],
        "image_shape": ["array-like", None],
        "alpha": [_WEIGHT],
        "slowness": [_WEIGHT],
        "penalty": [StrOptions({"l1", "squared"})],
        "pool_size": [_COUNT],
    }
    _transforms_rows_alone = True
    _pace = Pace(n_updates=3000)

    slowness_: NDArray[np.float64] | None

    def __init__(
        self,
        n_components: int = 64,
        *,
        method: str = "autoencoder",
        degree: int = 1,
        hidden_sizes: tuple[int, ...] | int = (),
        activation: str = "relu",
        code_activation: str = "relu",
        tied: bool = True,
        image_shape: tuple[int, ...] | None = None,
        alpha: float = 0.1,
        slowness: float = 0.5,
        penalty: str = "l1",
        pool_size: int = 1,
        learning_rate: float = 0.001,
        batch_size: int = 128,
        max_epochs: int | Literal["auto"] = "auto",
        optimizer: str = "adam",
        learning_rate_schedule: str | Schedule = "cosine",
        validation_fraction: float | None = None,
        n_iter_no_change: int | None = None,
        tol: float = 1e-4,
        warm_start: bool = False,
        net_params: dict[str, Any] | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.degree = degree
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.code_activation = code_activation
        self.tied = tied
        self.image_shape = image_shape
        self.alpha = alpha
        self.slowness = slowness
        self.penalty = penalty
        self.pool_size = pool_size
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.optimizer = optimizer
        self.learning_rate_schedule = learning_rate_schedule
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.net_params = net_params
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    # ------------------------------------------------------------------ by gradients

    def _record(self, n_features: int) -> dict[str, Any]:
        record = _slow.record_of(self, n_features)
        found = getattr(self, "slowness_", None)  # a closed form may have found fewer directions
        if self.method == "linear" and found is not None:
            record["n_components"] = min(record["n_components"], len(found))
        return record

    def _assemble(self, record: Mapping[str, Any]) -> Any:
        return _slow.assemble(record)

    def _fresh(self, record: Mapping[str, Any], mean: Any, generator: torch.Generator) -> Any:
        return _slow.fresh(record, mean, generator)

    def _longest_piece(self) -> int:
        return 10

    def _steps_before(self) -> int:
        return 1

    def _scaling(self, rows: Rows) -> Scaling | None:
        spread = measure_spread(rows)
        if self.method == "autoencoder":
            spread.warn_if_unequal(type(self).__name__)
        return spread.scaling(common=True)

    def _objective(self, energy: Any) -> Objective:
        kind: Any = self.penalty
        weights = float(self.alpha), float(self.slowness)
        return SlowReconstruction(*weights, kind, int(self.pool_size), unit_variance=not self.tied)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        parts = row_slices(len(batch), _slow.floats_per_row(energy.record))
        total = sum(float(energy.free_energy(batch.x[part]).double().sum()) for part in parts)
        return -total / len(batch)

    # ------------------------------------------------------------------ in closed form

    @property
    def _min_rows_fit(self) -> int:  # type: ignore[override]
        return 2 if self.method == "linear" else 1

    @property
    def _computes_in_double(self) -> bool:  # type: ignore[override]
        return self.method == "linear"

    def _max_steps(self, rows: Rows) -> int:
        return 0 if self.method == "linear" else super()._max_steps(rows)

    def _monitor_score(self, X: Any) -> float:  # type: ignore[override]
        return self.score(X)  # of rows alone

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        if self.method == "linear":
            return self._analysed(rows, resume=False)
        return {**super()._fit(rows, progress, **data), "slowness_": None}

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        if self.method == "linear":
            return self._analysed(rows, resume=self._is_fitted())
        if self._is_fitted():
            self._check_method()  # before the state of training, which depends on it, is read
        return {**super()._partial_fit(rows, progress, **data), "slowness_": None}

    def _check_resumable(self, rows: Rows) -> None:
        self._check_method()
        super()._check_resumable(rows)

    def _check_method(self) -> None:
        """Raise ValueError if another method was fitted, which explains all other differences."""
        asked = {**self.architecture_, "method": str(self.method)}
        check_resumable(self, asked, self.architecture_)

    def _analysed(self, rows: Rows, *, resume: bool) -> dict[str, Any]:
        """Slow feature analysis of these rows, and of those before them."""
        rows = self._prepare(rows, 0, resume=resume)
        moments = _slow.measured(rows, int(self.degree))
        if resume:
            if "n_pairs" not in self.training_state_:
                raise ValueError(
                    'The sums that method="linear" would add to were dropped: fit again.'
                )
            moments = SlowMoments.from_arrays(self.training_state_).to(rows.device) + moments
        mean = moments.mean[: rows.shape[1]]
        scaling: Any = rows.scaling  # ``_scaling`` always measures one
        return {
            **self._untrained_state({"n_features_in_": rows.shape[1]}),
            **_slow.solved(moments, _slow.record_of(self, rows.shape[1])),
            "offset_": scaling.offset.copy(),
            "scale_": scaling.scale.copy(),
            "feature_means_": to_numpy(rows.in_own_units(mean)).copy(),
            "n_samples_seen_": moments.n_rows,
            "training_state_": moments.arrays(),
        }

    # ------------------------------------------------------------------ fitted state

    def _state_spec(self) -> Spec:
        return {**super()._state_spec(), "slowness_": Array("f", (None,), optional=True)}

    def _floats_per_row(self) -> int:
        return _slow.floats_per_row(self.architecture_)

    @property
    def _n_features_out(self) -> int:
        return int(self.architecture_["n_components"])

    # ------------------------------------------------------------------ answers

    def transform(self, X: Any) -> Any:
        """Return the code f(x) of each row; it does not depend on the steps around it.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            The encoder's output; for "linear" of unit variance over the training rows, slowest
            first.
        """
        return self._map_rows(X, lambda energy, x: energy.encode(x), "transform")

    def pool(self, X: Any) -> Any:
        """Return the length of each pool of the code.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        lengths : array or tensor of shape (n_samples, n_pools)
            What training makes slow; the code itself for ``pool_size=1``.
        """
        return self._map_rows(X, self._pooled, "pool")

    def _pooled(self, energy: Any, x: torch.Tensor) -> torch.Tensor:
        return pool_lengths(energy.encode(x), int(self.architecture_["pool_size"]))

    def inverse_transform(self, X: Any) -> Any:
        """Return the row g(z) that each code decodes to.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            The decoder's output, in the units of X; for "linear" the best affine map of the code.
        """
        return self._map_rows(
            X, lambda energy, z: energy.decode(z), "inverse_transform", latents=True
        )

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) = |x - g(z)|^2 of each row with its own code.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_components)
            One code per row.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            Squared errors, in squared units of X.
        """
        return self._pair_energies(X, Z)

    def free_energy(self, X: Any) -> Any:
        """Return F(x) = |x - g(f(x))|^2 of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            Squared errors, in squared units of X.
        """
        return self._map_rows(X, lambda energy, x: energy.free_energy(x), "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return -F(x) of each row: higher is more typical, but it is no log density.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            ``-free_energy(X)``. Deterministic.
        """
        return self._map_rows(X, lambda energy, x: -energy.free_energy(x), "score_samples")

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the mean squared error of the reconstruction of held-out rows.

        Comparable between any settings of training for the same ``n_components`` and units of X. It
        does not measure how slow the code is: choose ``slowness`` by a score for the task at hand.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean of ``score_samples(X)``.
        """
        return super().score(X)
