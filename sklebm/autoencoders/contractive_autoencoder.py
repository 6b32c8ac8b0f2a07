r"""F(x) = |x - g(f(x))|^2, with an encoder f whose Jacobian df/dx is kept small."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Literal

import torch

from sklebm._shell.private import Interval
from sklebm._shell.random import RandomState
from sklebm.autoencoders._base import RECONSTRUCTION_CONSTRAINTS, BaseAutoencoder
from sklebm.objectives import Objective
from sklebm.objectives.penalties import (
    ContractiveReconstruction,
    is_single_layer,
    jacobian_norm,
    single_layer_jacobian_norm,
)
from sklebm.training.schedules import Schedule


class ContractiveAutoencoder(BaseAutoencoder):
    r"""Auto-encoder whose code hardly changes around the data.

    .. math:: \min \mathbb{E}\, \lVert x - g(f(x)) \rVert^2
              + \alpha \, \lVert \partial f / \partial x \rVert_F^2, \qquad
              F(x) = \lVert x - g(f(x)) \rVert^2 .

    A code that ignores small changes of the row can reconstruct only where the data are dense; it
    remains sensitive to the directions in which they vary.

    Parameters
    ----------
    n_components : int, default=128
        Number of latents.
    hidden_sizes : tuple of int or int, default=()
        Widths of the encoder's hidden layers, mirrored in the decoder; with ``image_shape``, the
        channels of its convolutions, each of which halves height and width. Empty: one affine map.
    activation : str, default="relu"
        Activation of the hidden layers: "relu", "elu", "silu", "softplus", "sigmoid", "tanh",
        "shrink" (soft threshold 0.5), "saturated_linear" (clipped to [0, 1]) or "identity".
    code_activation : str, default="sigmoid"
        Activation of the code, from the same list.
    output_activation : {"identity", "sigmoid"}, default="identity"
        Activation of the output; "sigmoid" keeps reconstructions in (0, 1).
    tied : bool, default=True
        Whether the decoder uses the transposed weights of the encoder.
    alpha : float, default=0.1
        Weight of the penalty, relative to the squared error of rows divided by ``scale_``.
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
        Seed for the initial weights, batches and random signs of Hutchinson's estimate.
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
        Mean squared error of the batches plus the penalty by epoch.
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
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    SaturatingAutoencoder : Pushes units to where they are flat.
    DenoisingAutoencoder : Contracts the whole reconstruction, using samples.

    Notes
    -----
    For one affine map with an elementwise activation the penalty has a closed form, at no cost
    beyond the step's O(batch_size P) for P weights. Other encoders need a backward pass for each of
    at most 8 units; wider codes train on Hutchinson's estimate from one pass, which is unbiased.
    Training runs in float32, row-wise methods in the dtype of X. A warning reports latents that
    are the same for all rows.

    References
    ----------
    .. [1] S. Rifai, P. Vincent, X. Muller, X. Glorot and Y. Bengio, "Contractive auto-encoders:
       explicit invariance during feature extraction", ICML 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import ContractiveAutoencoder
    >>> X = load_digits().data / 16
    >>> free, contractive = (
    ...     ContractiveAutoencoder(alpha=alpha, max_epochs=20, random_state=0).fit(X)
    ...     for alpha in (0.0, 0.1)
    ... )
    >>> bool(contractive.penalty(X).mean() < free.penalty(X).mean())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **RECONSTRUCTION_CONSTRAINTS,
        "alpha": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int = 128,
        *,
        hidden_sizes: tuple[int, ...] | int = (),
        activation: str = "relu",
        code_activation: str = "sigmoid",
        output_activation: str = "identity",
        tied: bool = True,
        alpha: float = 0.1,
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
        self.alpha = alpha
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
        return ContractiveReconstruction(float(self.alpha))

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

    def penalty(self, X: Any) -> Any:
        r"""Return :math:`\lVert \partial f / \partial x \rVert_F^2` of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        penalty : array or tensor of shape (n_samples,)
            Exact squared Frobenius norms of the Jacobian of ``transform``, without ``alpha``.
        """
        return self._map_rows(X, _exact_penalty, "penalty")


def _exact_penalty(energy: Any, x: torch.Tensor) -> torch.Tensor:
    y = energy.standardized(x)
    if is_single_layer(energy.encoder):
        norms = single_layer_jacobian_norm(energy.encoder, y)[1].detach()
    else:
        norms = jacobian_norm(energy.encoder, y, None)[1].detach()
    return norms.div(energy.in_units_of_rows(torch.ones_like(norms)))
