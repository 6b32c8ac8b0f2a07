r"""E(x_{t+1} | x_t, x_{t-1}) = |x_{t+1} - g(z')|^2: codes z that move along straight lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from sklebm._shell.arrays import to_numpy
from sklebm._shell.columns import weighted_mean
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import Scaling, measure_spread
from sklebm.energies.networks import ACTIVATIONS
from sklebm.objectives import Batch, Objective
from sklebm.objectives.linearization import LinearPrediction
from sklebm.temporal import _linearizing
from sklebm.temporal._base import (
    SEQUENCE_CONSTRAINTS,
    SequenceEstimator,
    held_out_mean,
    warn_if_ignored,
)
from sklebm.training.pace import Pace
from sklebm.training.schedules import Schedule

_COUNT = Interval(Integral, 1, None, closed="left")
_NATURAL = Interval(Integral, 0, None, closed="left")
_POSITIVE = Interval(Real, 0, None, closed="neither")


class LinearizingAutoencoder(SequenceEstimator):
    r"""Codes of frames that move along straight lines, so that the next frame can be predicted.

    .. math:: E(x_{t+1}, \delta \mid x_t, x_{t-1}) = \lVert x_{t+1} - g(z') \rVert^2, \qquad
              z' = z_t + (1 + W \delta) \odot \bigl( e(z_t, z_{t-1}) - z_t \bigr), \qquad z = f(x),

    trained together with :math:`-\lambda \cos(z_{t+1} - z_t, z_t - z_{t-1})`. Phase pooling splits
    a code into what is present (the soft maximum m of each group of units) and where it is (the
    soft position p of that maximum); the extrapolation e averages m over the last two frames and
    continues the motion of p. A low-dimensional latent :math:`\delta`, inferred by gradient steps,
    represents what the past does not determine, such as a turn.

    Parameters
    ----------
    n_components : int, default=16
        Number of groups of units, or of latents if there is no pooling.
    pooling : {"phase", "none"}, default="phase"
        Whether a code consists of the magnitudes m and positions p of the groups, or is the output
        of the encoder.
    pool_size : int or None, default=None
        Features in a group, along which a position can move. None: 1 for images, whose positions
        are pixels, otherwise 4.
    window : tuple of int or None, default=None
        (height, width) of the part of an image that a group covers. None: all of it.
    beta : float, default=3.0
        Sharpness of the soft maximum; as it grows, m and p approach the maximum and its position.
    prediction : {"linear", "learned"}, default="linear"
        The extrapolation e: :math:`m' = (m_t + m_{t-1}) / 2, p' = 2 p_t - p_{t-1}` (without pooling
        :math:`2 z_t - z_{t-1}`), or :math:`a_1 z_t + a_2 z_{t-1}` with learnt numbers a.
    n_deltas : int, default=0
        Dimension of :math:`\delta`. 0: the next frame is determined by the two before it.
    n_inner_steps : int, default=5
        Gradient steps that infer :math:`\delta`, starting at 0. A step that would raise the error
        of its row counts, but is not taken.
    inner_rate : float, default=5.0
        Step size of this inference, for mean squared errors of rows divided by ``scale_``. A row's
        steps are shortened once one of them would raise its error.
    unroll : bool, default=False
        Whether the gradient of the loss goes through the inner steps, at the sizes that they had.
        Otherwise the inferred :math:`\delta` counts as given, as in [1]_, which is exact where it
        minimises the error, costs less, and is more stable.
    curvature : float, default=1.0
        Weight :math:`\lambda` of the cosine between successive changes of the code, relative to
        squared errors of rows divided by ``scale_``.
    hidden_sizes : tuple of int or int, default=(32,)
        Widths of the encoder's hidden layers, or channels of its convolutions, mirrored in the
        decoder. Convolutions keep height and width with phase pooling, and halve them without it.
    kernel_size : int, default=5
        Height and width of the convolutions around phase pooling.
    activation : str, default="relu"
        Activation of the hidden layers: "relu", "elu", "silu", "softplus", "sigmoid", "tanh",
        "shrink" (soft threshold 0.5), "saturated_linear" (clipped to [0, 1]) or "identity".
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of a row, for convolutional networks.
    learning_rate : float, default=0.003
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
        sequence its end, which is scored as a new sequence. Minus their mean squared error, in
        squared units of ``scale_``, is recorded after each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress, in squared units of ``scale_``.
    warm_start : bool, default=False
        Whether ``fit`` continues from the fitted parameters.
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
        Parameters under their torch names, such as "encoder.0.weight", "gate.weight" (W) and
        "line.weights" (a).
    architecture_ : dict
        Description of the networks in plain values.
    offset_, scale_ : ndarray of shape (n_features_in_,)
        Networks see (x - offset_) / scale_. The offset is the mean of each feature, or for images
        the mean of all pixels; the scale is the same for all features.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean loss of the batches by epoch.
    validation_scores_ : ndarray
        Minus the mean squared error of held-out rows by epoch, in squared units of ``scale_``, if
        ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    n_samples_seen_ : int
        Number of training rows.
    training_state_ : dict
        Optimiser statistics; see ``drop_training_state``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    SlowFeatureAutoencoder : Codes that stand still instead of moving along lines.
    SequenceEnergy : Densities of the next step, given all those before it.

    Notes
    -----
    A step costs O(batch_size P) for P weights, times the number of inner steps with ``n_deltas``.
    Before its first row a sequence is assumed to be constant: the first row is scored by how well
    its own code decodes (times :math:`a_1 + a_2` if "learned"), and the second as if nothing had
    moved. Sequences of one or two steps train only the reconstruction of their first row.
    ``groups`` that are not contiguous raise ValueError. Training runs in float32, answers are
    computed in the dtype of X. In images, a constant background hides what moves: a warning reports
    a mean frame that varies more than twice as much from pixel to pixel as the frames vary around
    it.

    References
    ----------
    .. [1] R. Goroshin, M. Mathieu and Y. LeCun, "Learning to linearize under uncertainty", NIPS
       2015.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import LinearizingAutoencoder
    >>> place = 3 + np.arange(20)[:, None] % 7 + 0.3 * np.arange(10)  # bumps move to the right
    >>> X = np.exp(-((np.arange(16) - place.reshape(-1, 1)) ** 2) / 2)
    >>> groups = np.repeat(np.arange(20), 10)
    >>> settings = {"image_shape": (1, 16), "hidden_sizes": (), "learning_rate": 0.02}
    >>> model = LinearizingAutoencoder(1, **settings, max_epochs=40, random_state=0)
    >>> model = model.fit(X, groups=groups)
    >>> errors = model.free_energy(X, groups=groups)
    >>> copied = ((X[2:10] - X[1:9]) ** 2).sum(axis=1)  # errors of the last frame
    >>> bool(errors[2:10].mean() < 0.5 * copied.mean())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **SEQUENCE_CONSTRAINTS,
        "max_epochs": [_COUNT, StrOptions({"auto"})],
        "n_components": [_COUNT],
        "pooling": [StrOptions({"phase", "none"})],
        "pool_size": [_COUNT, None],
        "window": ["array-like", None],
        "beta": [_POSITIVE],
        "prediction": [StrOptions({"linear", "learned"})],
        "n_deltas": [_NATURAL],
        "n_inner_steps": [_NATURAL],
        "inner_rate": [_POSITIVE],
        "unroll": ["boolean"],
        "curvature": [Interval(Real, 0, None, closed="left")],
        "hidden_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "kernel_size": [_COUNT],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "image_shape": ["array-like", None],
    }
    _transforms_rows_alone = True
    _pace = Pace(n_updates=3000)

    def __init__(
        self,
        n_components: int = 16,
        *,
        pooling: str = "phase",
        pool_size: int | None = None,
        window: tuple[int, int] | None = None,
        beta: float = 3.0,
        prediction: str = "linear",
        n_deltas: int = 0,
        n_inner_steps: int = 5,
        inner_rate: float = 5.0,
        unroll: bool = False,
        curvature: float = 1.0,
        hidden_sizes: tuple[int, ...] | int = (32,),
        kernel_size: int = 5,
        activation: str = "relu",
        image_shape: tuple[int, ...] | None = None,
        learning_rate: float = 0.003,
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
        self.pooling = pooling
        self.pool_size = pool_size
        self.window = window
        self.beta = beta
        self.prediction = prediction
        self.n_deltas = n_deltas
        self.n_inner_steps = n_inner_steps
        self.inner_rate = inner_rate
        self.unroll = unroll
        self.curvature = curvature
        self.hidden_sizes = hidden_sizes
        self.kernel_size = kernel_size
        self.activation = activation
        self.image_shape = image_shape
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

    # ------------------------------------------------------------------ training

    def _record(self, n_features: int) -> dict[str, Any]:
        return _linearizing.record_of(self, n_features)

    def _assemble(self, record: Mapping[str, Any]) -> Any:
        return _linearizing.assemble(record)

    def _fresh(self, record: Mapping[str, Any], mean: Any, generator: torch.Generator) -> Any:
        return _linearizing.fresh(record, generator)

    def _longest_piece(self) -> int:
        return 10

    def _steps_before(self) -> int:
        return 2

    def _scaling(self, rows: Rows) -> Scaling | None:
        spread = measure_spread(rows)
        scaling = spread.scaling(common=True)
        if self.image_shape is None:
            spread.warn_if_unequal(type(self).__name__)
            return scaling
        record = self._record(rows.shape[1])
        _linearizing.warn_of_still_picture(type(self).__name__, record, spread)
        # A picture that differs from pixel to pixel would not move with what is in a frame.
        return replace(scaling, offset=np.full_like(scaling.offset, scaling.offset.mean()))

    def _objective(self, energy: Any) -> Objective:
        return LinearPrediction(float(self.curvature), bool(self.unroll))

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        stream = _linearizing.PastRows(_linearizing.surprises, 2)
        return -held_out_mean(energy, batch, stream, _linearizing.floats_per_row(energy.record))

    def _floats_per_row(self) -> int:
        return _linearizing.floats_per_row(self.architecture_)

    @property
    def _n_features_out(self) -> int:
        return _linearizing.n_codes(self.architecture_)

    def _with_past(
        self, X: Any, groups: Any, answer: Callable[..., Any], n_before: int, what: str, given: Any
    ) -> Any:
        """Stream ``answer`` over the rows, each with its past and numbers ``given`` with it."""
        places = self._places(groups)

        def beside(rows: Rows) -> Rows:
            found = places(rows)
            if given is None:
                return found
            numbers = _linearizing.checked_deltas(given, rows, int(self.architecture_["n_deltas"]))
            return Rows(torch.cat([found.all(), numbers], dim=1), torch.device("cpu"))

        return self._map_rows(X, _linearizing.PastRows(answer, n_before), what, beside=beside)

    # ------------------------------------------------------------------ answers

    def transform(self, X: Any) -> Any:
        """Return the code f(x) of each row; it does not depend on the steps around it.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_codes)
            With phase pooling, the magnitudes of all groups, then their positions along each axis
            that is longer than 1 (features, rows, columns), in cells from the centre of the window.
        """
        return self._map_rows(
            X, lambda energy, x: energy.encoder(energy.standardized(x)), "transform"
        )

    def inverse_transform(self, X: Any) -> Any:
        """Return the row g(z) that each code decodes to.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_codes)
            Codes.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            The decoder's output, in the units of X.
        """
        return self._map_rows(
            X,
            lambda energy, z: energy.restored(energy.decoder(z)),
            "inverse_transform",
            latents=True,
        )

    def predict(self, X: Any, groups: Any = None, deltas: Any = None) -> Any:
        """Return the row after each one, given it and the one before it.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of all sequences.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.
        deltas : array-like of shape (n_samples, n_deltas) or None, default=None
            Latent of the step after each row. None: 0, which gives the plain extrapolation.

        Returns
        -------
        X_next : array or tensor of shape (n_samples, n_features)
            Row t predicts row t + 1. At the first row of a sequence, no motion is assumed.
        """
        return self._with_past(X, groups, _linearizing.next_frames, 1, "predict", deltas)

    def infer_deltas(self, X: Any, groups: Any = None) -> Any:
        """Return the latent of each row: how it departs from the extrapolation of the past.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of all sequences.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.

        Returns
        -------
        deltas : array or tensor of shape (n_samples, n_deltas)
            Found by ``n_inner_steps`` gradient steps on the squared error of the row. To predict
            row t + 1, pass its latent to ``predict`` at row t.
        """
        return self._with_past(X, groups, _linearizing.latents, 2, "infer_deltas", None)

    def interpolate(self, x0: Any, x1: Any, n: int = 10) -> Any:
        """Return rows between two given ones, decoded from a straight line between their codes.

        Parameters
        ----------
        x0, x1 : array-like of shape (n_features,)
            First and last row; those of a data frame keep the names of its columns.
        n : int, default=10
            Number of rows, at least 2, including both ends.

        Returns
        -------
        X : ndarray of shape (n, n_features)
            The decoded rows; the ends are reconstructions.
        """
        if not isinstance(n, Integral) or isinstance(n, bool) or n < 2:
            raise ValueError(f"n={n!r} must be a whole number of rows, at least 2 for both ends.")
        # Arrays, also where ``set_output`` makes tables of codes.
        ends = [to_numpy(self.transform(_as_table(row)))[0] for row in (x0, x1)]
        way = np.linspace(0.0, 1.0, int(n))[:, None]
        return self.inverse_transform(((1.0 - way) * ends[0] + way * ends[1]).astype(ends[0].dtype))

    def free_energy(self, X: Any, groups: Any = None) -> Any:
        """Return the squared error of each row, predicted from the two before it.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of all sequences.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            E(x_t | x_{t-1}, x_{t-2}) with the inferred latent, in squared units of X. At most that
            with latent 0, and not increasing in ``n_inner_steps``.
        """
        return self._with_past(X, groups, _linearizing.surprises, 2, "free_energy", None)

    def score_samples(self, X: Any, groups: Any = None) -> Any:
        """Return minus the squared error of each row: higher is more typical of its past.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of all sequences.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            ``-free_energy(X, groups)``; not a log density. Deterministic.
        """
        return -self.free_energy(X, groups)

    def score(self, X: Any, y: Any = None, groups: Any = None, sample_weight: Any = None) -> float:
        """Return minus the mean squared error of the rows, each predicted from the two before it.

        Comparable between models for the same units of X, whatever their other parameters, but only
        at the same ``n_deltas`` and ``n_inner_steps``: the latent is inferred from the row that is
        predicted.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The steps of held-out sequences.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each step, as in ``fit``.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weight of each step in the mean.

        Returns
        -------
        score : float
            Mean over all steps, the first ones included.
        """
        warn_if_ignored(self, y, groups, "score")
        scores = self.score_samples(X, groups)
        return weighted_mean(scores, sample_weight, type(self).__name__)


def _as_table(row: Any) -> Any:
    """A table of one row; a row of a pandas frame keeps its names."""
    is_named = hasattr(row, "to_frame") and hasattr(row, "index")
    return row.to_frame().T if is_named else to_numpy(row)[None]
