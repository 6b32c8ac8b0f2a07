r"""F(x) = |x - g(f(x))|^2; g(f(x~)) is pulled to x for corrupted copies x~ of the rows."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Literal

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import Scaling
from sklebm._shell.state import Scalar, Spec
from sklebm.autoencoders._base import RECONSTRUCTION_CONSTRAINTS, BaseAutoencoder
from sklebm.objectives import Objective
from sklebm.objectives.denoising import DenoisingError
from sklebm.training.schedules import Schedule


class DenoisingAutoencoder(BaseAutoencoder):
    r"""Auto-encoder that maps corrupted rows back.

    .. math:: \min \mathbb{E}\, \lVert x - g(f(\tilde x)) \rVert^2, \qquad
              F(x) = \lVert x - g(f(x)) \rVert^2, \qquad
              \nabla \log p_\sigma(x) \approx (g(f(x)) - x) / \sigma^2 .

    Every update draws new corruptions. Points off the data are mapped back to them, so the code may
    be wider than the row. Under Gaussian noise with standard deviation :math:`\sigma` the
    displacement is the gradient of the log density of the noisy data [1]_.

    Parameters
    ----------
    n_components : int, default=64
        Number of latents.
    hidden_sizes : tuple of int or int, default=(128,)
        Widths of the encoder's hidden layers, mirrored in the decoder; with ``image_shape``, the
        channels of its convolutions, each of which halves height and width. Empty: one affine map.
    activation : str, default="relu"
        Activation of the hidden layers: "relu", "elu", "silu", "softplus", "sigmoid", "tanh",
        "shrink" (soft threshold 0.5), "saturated_linear" (clipped to [0, 1]) or "identity".
    code_activation : str, default="identity"
        Activation of the code, from the same list.
    output_activation : {"identity", "sigmoid"}, default="identity"
        Activation of the output; "sigmoid" keeps reconstructions in (0, 1).
    tied : bool, default=False
        Whether the decoder uses the transposed weights of the encoder.
    corruption : {"gaussian", "masking", "salt_pepper"}, default="gaussian"
        Additive noise, entries set to 0, or entries set to 0 or 1.
    corruption_level : float, default=0.3
        Standard deviation of the noise in units of X, or fraction of the entries that are
        overwritten (below 1).
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of a row, for convolutional networks.
    encoder, decoder : callable or None, default=None
        Torch module classes to use instead, called as ``encoder(n_features, n_components)``
        and ``decoder(n_components, n_features)``.
    learning_rate : float, default=0.001
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=128
        Rows per update.
    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto": enough for 3000 updates, but at least 20 and at most 1000.
    optimizer : str, default="adam"
        Update rule: "adam", "adamw", "sgd", "momentum" (heavy ball), "rmsprop", or, with all rows
        at once, "gradient_descent".
    learning_rate_schedule : str or Schedule, default="cosine"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; the negative of their mean squared error is
        recorded after each epoch.
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
        Seed for the initial weights, batches and noise.
    verbose : int, default=0
        If nonzero, print one line per epoch.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise CUDA if available,
        otherwise the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": processes started by ``torchrun`` fit one model together, each on its own rows; see
        :doc:`/user_guide/scale`.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        Parameters of encoder and decoder under their torch names, such as "encoder.0.weight".
    architecture_ : dict
        Description of the networks in plain values.
    offset_, scale_ : ndarray of shape (n_features_in_,) or None
        Mean of each feature, and one scale (root mean variance) for all of them: the networks see
        (x - offset_) / scale_, and losses and scores by epoch are in squared units of ``scale_``.
        None if rows are used unscaled, as with output_activation="sigmoid".
    latent_variances_ : ndarray of shape (n_components,)
        Variance of each latent over the training rows; 0 means a dead latent. Set by ``fit`` only.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean squared error of the batches, reconstructed from corrupted copies, by epoch.
    validation_scores_ : ndarray
        Negative mean squared error on held-out rows by epoch, if ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows, the initial output of the decoder.
    n_samples_seen_ : int
        Number of training rows.
    training_state_ : dict
        Optimiser statistics; see ``drop_training_state``.
    noise_scale_ : float or None
        Standard deviation of the Gaussian noise in the fit; None for other corruptions.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    MaskedAutoencoder : Hides patches and predicts them from the others.
    GaussianEnergy : The linear case by score matching.

    Notes
    -----
    A step costs O(batch_size P) for P weights. Training runs in float32, row-wise
    methods in the dtype of X. A warning reports latents that do not vary across rows.

    References
    ----------
    .. [1] P. Vincent, "A connection between score matching and denoising autoencoders", Neural
       Computation 23(7), 2011.
    .. [2] P. Vincent et al., "Stacked denoising autoencoders", JMLR 11, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import DenoisingAutoencoder
    >>> X = load_digits().data / 16
    >>> model = DenoisingAutoencoder(max_epochs=20, random_state=0).fit(X[:1500])
    >>> noisy = X[1500:] + np.random.default_rng(0).normal(0, 0.3, (297, 64))
    >>> error = ((model.reconstruct(noisy) - X[1500:]) ** 2).sum(axis=1).mean()
    >>> bool(error < 0.6 * 64 * 0.3**2)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **RECONSTRUCTION_CONSTRAINTS,
        "corruption": [StrOptions({"gaussian", "masking", "salt_pepper"})],
        "corruption_level": [Interval(Real, 0, None, closed="neither")],
    }

    noise_scale_: float | None

    def __init__(
        self,
        n_components: int = 64,
        *,
        hidden_sizes: tuple[int, ...] | int = (128,),
        activation: str = "relu",
        code_activation: str = "identity",
        output_activation: str = "identity",
        tied: bool = False,
        corruption: str = "gaussian",
        corruption_level: float = 0.3,
        image_shape: tuple[int, ...] | None = None,
        encoder: Any = None,
        decoder: Any = None,
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
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.n_components = n_components
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.code_activation = code_activation
        self.output_activation = output_activation
        self.tied = tied
        self.corruption = corruption
        self.corruption_level = corruption_level
        self.image_shape = image_shape
        self.encoder = encoder
        self.decoder = decoder
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
        self.strategy = strategy

    def _objective(self, energy: Any) -> Objective:
        if self.corruption != "gaussian" and self.corruption_level >= 1.0:
            raise ValueError(
                f"corruption_level={self.corruption_level} must be below 1: it is the share of the "
                f"entries that corruption={self.corruption!r} overwrites."
            )
        kind: Any = self.corruption
        # The noise has the units of X; the rows of a training step are divided by one scale.
        is_scaled = kind == "gaussian" and energy.scaling is not None
        unit = float(energy.scaling.scale[0]) if is_scaled else 1.0
        return DenoisingError(kind, float(self.corruption_level) / unit)

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        if self.corruption != "gaussian" and self.scale_ is not None:
            raise ValueError(
                f"corruption={self.corruption!r} writes 0 and 1 into rows as they are, but the fit "
                'that learning would continue from standardised them, for "gaussian": set '
                "corruption back, or fit with warm_start=False."
            )

    def _scaling(self, rows: Rows) -> Scaling | None:
        scaling = super()._scaling(rows)  # the other corruptions write 0 and 1 into rows
        return scaling if self.corruption == "gaussian" else None

    def transform(self, X: Any) -> Any:
        """Return the code f(x) of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            The encoder's output.
        """
        return self._map_rows(X, lambda energy, x: energy.encode(x), "transform")

    def inverse_transform(self, X: Any) -> Any:
        """Return the row g(z) that each code decodes to.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            The decoder's output, in the units of X.
        """
        return self._map_rows(
            X, lambda energy, z: energy.decode(z), "inverse_transform", latents=True
        )

    def reconstruct(self, X: Any) -> Any:
        """Return what the code of each row decodes to, g(f(x)).

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode and decode.

        Returns
        -------
        X_reconstructed : array or tensor of shape (n_samples, n_features)
            ``inverse_transform(transform(X))``.
        """
        return self._map_rows(X, lambda energy, x: energy.reconstruct(x), "reconstruct")

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

    def _export(self, energy: Any) -> dict[str, Any]:
        scale = float(self.corruption_level) if self.corruption == "gaussian" else None
        return {**super()._export(energy), "noise_scale_": scale}

    def _state_spec(self) -> Spec:
        return {**super()._state_spec(), "noise_scale_": Scalar(float, 0.0, optional=True)}

    def log_density_gradient(self, X: Any) -> Any:
        r"""Return the gradient of log p at each row, :math:`(g(f(x)) - x) / \sigma^2`.

        p is the density of the data with the training noise. With less noise it is closer to that
        of the data, but harder to learn.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        gradient : array or tensor of shape (n_samples, n_features)
            In nats per unit of X.

        Raises
        ------
        ValueError
            If the model was fitted with a corruption other than "gaussian".
        """
        check_is_fitted(self)
        scale = self.noise_scale_
        if scale is None:
            raise ValueError(
                'log_density_gradient needs a model that was fitted with corruption="gaussian": '
                "only Gaussian noise has this gradient."
            )
        return self._map_rows(
            X, lambda energy, x: (energy.reconstruct(x) - x) / scale**2, "log_density_gradient"
        )
