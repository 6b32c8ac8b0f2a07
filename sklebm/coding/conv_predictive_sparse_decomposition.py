r"""E(x, z) = 1/2 |x - sum_k d_k * z_k|^2 + alpha |z|_1 + w/2 |z - f(x)|^2; F(x) = E(x, f(x))."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sklebm._shell.available import available_if
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Record, Spec
from sklebm.coding._base import EncoderEstimator, encoded, free_energies
from sklebm.coding._convolution import code_length, grid_of, pooling_of, recall_grid, record_grid
from sklebm.coding._image_checks import check_images
from sklebm.coding._kernels import N_KERNELS, check_kernels, need_same_sizes
from sklebm.coding._map_encoders import blank_encoder, decomposition_of, first_energy
from sklebm.coding._penalty import recall_penalty
from sklebm.coding._state import decoded, n_atoms
from sklebm.energies.predictive_convolution import PredictiveConvolutionalEnergy
from sklebm.gradient import GradientEstimator
from sklebm.objectives import Batch, ConvolutionalDecomposition
from sklebm.training.schedules import Schedule


class ConvPredictiveSparseDecomposition(EncoderEstimator):
    r"""Convolutional sparse coding with an encoder learnt together with the kernels.

    .. math:: E(x, z) = \tfrac12 \left\|x - L x - \sum_k d_k * z_k\right\|^2 + \alpha \|z\|_1
              + \tfrac{w}{2} \|z - f(x)\|^2, \qquad F(x) = E(x, f(x)), \qquad \|d_k\| \le 1.

    For each batch of images, the maps of lowest energy are found first; the last term pulls them
    towards the prediction of the encoder f. Kernels and encoder then take a gradient step with
    these maps held fixed. After training, the encoder alone computes the code of an image.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of kernels. None: 16.
    kernel_size : int, tuple of int or None, default=None
        Side or sides of a kernel. None: half of the image's, and at most 9.
    image_shape : tuple of int or None, default=None
        (height, width), (height, width, channels), or (length,): the order of a row. None: signals.
    alpha : float, default=0.1
        Weight of the penalty, in units of X; see ``ConvSparseCoder``.
    boundary : {"circular", "zero"}, default="circular"
        Whether kernels continue on the opposite side of the image or lie within it.
    low_pass : float, default=0.0
        Weight of the smooth part :math:`L x` that is subtracted first; see ``ConvSparseCoder``.
    encoder : {"lista", "shrink", "linear_tanh"}, default="lista"
        f: unfolded ISTA with ``n_layers`` layers after the first soft threshold; a convolution with
        a soft threshold; or g tanh(W x + b), whose codes are not sparse.
    n_layers : int, default=3
        Number of layers of "lista".
    prediction_weight : float, default=10.0
        Weight w. Larger values give codes that are easier to predict but reconstruct less well. The
        reconstruction term has curvatures of up to tens or hundreds along a code, so w = 1 has
        little effect.
    pool : {"max", "mean"} or None, default="max"
        Whether ``transform`` returns the largest or mean magnitude in each block, or (None) full
        codes.
    pool_size : int or tuple of int, default=4
        Side or sides of a block.
    learning_rate : float, default=0.005
        Step size. For a batch of m < ``batch_size`` images it is scaled by m / ``batch_size``.
    batch_size : int, default=16
        Images per update.
    max_epochs : int, default=20
        Passes over the rows.
    optimizer : str, default="adam"
        Update rule, as in ``PredictiveSparseDecomposition``.
    learning_rate_schedule : str or Schedule, default="cosine"
        How the learning rate changes over ``max_epochs``, as in that model.
    validation_fraction : float or None, default=None
        Fraction of the images held out for validation; minus their mean minimum energy is recorded
        after each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters. None trains for ``max_epochs``.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    warm_start : bool, default=False
        Whether ``fit`` continues from the fitted parameters.
    net_params : dict or None, default=None
        Passed to the internal skorch net: callbacks, iterators, ``optimizer__weight_decay``.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial kernels, which are patches of X, and for the batches.
    verbose : int, default=0
        If nonzero, print one line per epoch.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise CUDA if available,
        otherwise the CPU.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, kernel_length)
        The kernels, flat.
    alpha_, penalty_, grid_ : float, dict, dict
        Weight and name of the penalty, and sizes used in the fit.
    weights_, architecture_ : dict, dict
        Parameters of the encoder; its kind, the weight w and ``low_pass`` as plain values.
    loss_curve_, validation_scores_ : ndarray, ndarray
        Mean minimum energy of the batches by epoch; minus that of the images held out, if any.
    n_iter_, n_samples_seen_ : int, int
        Number of epochs, or of ``partial_fit`` calls, and of training images.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training images.
    training_state_ : dict
        Optimiser statistics; see ``drop_training_state``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if X had string column names.

    See Also
    --------
    ConvSparseCoder : Optimal codes, and kernels that are learnt faster.
    PredictiveSparseDecomposition : The same without shifts.

    Notes
    -----
    With k kernels and p pixels, a predicted code costs O(T k p log p), and the maps of lowest
    energy of a batch tens of times as much; images are streamed, and a batch is divided where its
    maps would exceed scikit-learn's ``working_memory``. The scale of X does not matter if ``alpha``
    is scaled with it; but where values are below 0.01, Adam's constant eps matters: pass
    ``net_params={"optimizer__eps": 1e-14}``. Training runs in float32. Compare scores at the same
    ``alpha``, ``boundary`` and ``low_pass``.

    References
    ----------
    K. Kavukcuoglu et al., "Learning convolutional feature hierarchies for visual recognition",
    NIPS 2010. H. Sreter and R. Giryes, "Learned convolutional sparse coding", ICASSP 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import ConvPredictiveSparseDecomposition, ConvSparseCoder
    >>> rng = np.random.default_rng(0)
    >>> spikes = 3 * rng.random((100, 30)) * (rng.random((100, 30)) < 0.1)
    >>> X = spikes + 2 * np.roll(spikes, 1, axis=1)
    >>> model = ConvPredictiveSparseDecomposition(
    ...     1, kernel_size=3, learning_rate=0.02, random_state=0
    ... ).fit(X)
    >>> optimal = ConvSparseCoder(dictionary=model.components_, kernel_size=3).fit(X)
    >>> bool(model.score(X) > 1.1 * optimal.score(X))  # energies are negative scores
    True
    """

    _channels_last = True  # of image_shape

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{k: v for k, v in GradientEstimator._parameter_constraints.items() if k != "strategy"},
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "kernel_size": [Interval(Integral, 1, None, closed="left"), "array-like", None],
        "image_shape": ["array-like", None],
        **{k: [Interval(Real, 0, None, closed="neither")] for k in ("alpha", "prediction_weight")},
        "boundary": [StrOptions({"circular", "zero"})],
        "low_pass": [Interval(Real, 0, None, closed="left")],
        "encoder": [StrOptions({"lista", "shrink", "linear_tanh"})],
        "n_layers": [Interval(Integral, 0, None, closed="left")],
        "pool": [StrOptions({"max", "mean"}), None],
        "pool_size": [Interval(Integral, 1, None, closed="left"), "array-like"],
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        kernel_size: int | tuple[int, ...] | None = None,
        image_shape: tuple[int, ...] | None = None,
        alpha: float = 0.1,
        boundary: Literal["circular", "zero"] = "circular",
        low_pass: float = 0.0,
        encoder: Literal["lista", "shrink", "linear_tanh"] = "lista",
        n_layers: int = 3,
        prediction_weight: float = 10.0,
        pool: Literal["max", "mean"] | None = "max",
        pool_size: int | tuple[int, ...] = 4,
        learning_rate: float = 0.005,
        batch_size: int = 16,
        max_epochs: int = 20,
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
        self.kernel_size = kernel_size
        self.image_shape = image_shape
        self.alpha = alpha
        self.boundary = boundary
        self.low_pass = low_pass
        self.encoder = encoder
        self.n_layers = n_layers
        self.prediction_weight = prediction_weight
        self.pool = pool
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

    def _architecture(self, n_features: int, n_components: int) -> dict[str, Any]:
        return {
            "n_features": n_features,
            "n_components": n_components,
            "encoder": str(self.encoder),
            "n_layers": int(self.n_layers) if self.encoder == "lista" else 0,
            "prediction_weight": float(self.prediction_weight),
            "low_pass": float(self.low_pass),
        }

    def _blank_encoder(self, architecture: dict[str, Any], dictionary: Tensor) -> nn.Module:
        return blank_encoder(architecture, dictionary, recall_grid(self.grid_))

    def _wrap(self, encoder: nn.Module, dictionary: Tensor) -> PredictiveConvolutionalEnergy:
        return PredictiveConvolutionalEnergy(
            encoder,
            dictionary,
            recall_penalty(self.penalty_),
            self.alpha_,
            self.architecture_["prediction_weight"],
            recall_grid(self.grid_),
            self.architecture_["low_pass"],
        )

    def _energy(self, device: torch.device) -> Any:
        return self._rebuild({"components_": torch.from_numpy(self.components_).to(device)})

    def _initial_energy(self, rows: Rows, means: Tensor, generator: torch.Generator) -> Any:
        architecture = self._architecture(rows.shape[1], self.n_components or N_KERNELS)
        grid = grid_of(self, rows.shape[1])
        return first_energy(architecture, float(self.alpha), grid, rows, generator)

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> Rows:
        if not resume:
            check_images(self, rows)
        return rows

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        need_same_sizes(self, record_grid(grid_of(self, rows.shape[1])), self.grid_)

    def _state_spec(self) -> Spec:
        kernels = Array("f", ("n_components", None))
        return {**super()._state_spec(), "components_": kernels, "grid_": Record()}

    def _export(self, energy: Any) -> dict[str, Any]:
        components = energy.atoms().detach().cpu().numpy().copy()
        grid = record_grid(energy.grid)
        return {**super()._export(energy), "components_": components, "grid_": grid}

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        grid = record_grid(grid_of(self, given["n_features_in_"]))
        return {**super()._untrained_state(given), "grid_": grid}

    def _check_sizes(self) -> None:
        check_kernels(self)

    def _objective(self, energy: Any) -> ConvolutionalDecomposition:
        return decomposition_of(energy)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        """Minus the mean minimum energy of held-out images."""
        return -float(decomposition_of(energy).loss(energy, batch, {}, torch.Generator())[0])

    # ------------------------------------------------------------------ row-wise methods

    def _floats_per_row(self) -> int:
        return 12 * code_length(self)

    @property
    def _code_width(self) -> int:
        return code_length(self)

    @property
    def _n_features_out(self) -> int:
        return n_atoms(self) * pooling_of(self).length

    def transform(self, X: Any) -> Any:
        """Return the pooled predicted code of each image; see ``pool``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_features_out)
            One pooled map after the other.
        """
        pooling = pooling_of(self)
        return self._map_rows(
            X, lambda energy, x: pooling.apply(energy.grid.maps(encoded(energy, x))), "transform"
        )

    def codes(self, X: Any) -> Any:
        """Return the predicted code of each image in full, whatever ``pool`` is.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components * map_length)
            One map after the other, as those of ``ConvSparseCoder.codes``.
        """
        return self._map_rows(X, encoded, "codes")

    def reconstruct(self, X: Any) -> Any:
        r"""Return :math:`L x + \sum_k d_k * f_k(x)`.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            Their reconstructions.
        """
        return self._map_rows(X, lambda energy, x: energy.reconstruct(x), "reconstruct")

    @available_if(
        lambda model: model.pool is None, "it needs codes that are not pooled: set pool=None."
    )
    def inverse_transform(self, X: Any) -> Any:
        r"""Return :math:`\sum_k d_k * z_k`, without a smooth part. Needs ``pool=None``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components * map_length)
            Codes in full, as ``codes`` returns them.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            Reconstructed images.
        """
        return self._map_rows(X, decoded, "inverse_transform", latents=True)

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each image paired with a code in full.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.
        Z : array-like or tensor of shape (n_samples, n_components * map_length)
            Codes, as ``codes`` returns them.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        return self._pair_energies(X, Z)

    def free_energy(self, X: Any) -> Any:
        """Return F(x) = E(x, f(x)), an upper bound on the lowest energy over all codes.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        return self._map_rows(X, free_energies, "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return -F(x), which is not normalised.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Minus the free energy, in squared units of X. Higher is more typical.
        """
        return -self.free_energy(X)
