r"""F(x) = |x - g(f(x))|^2, low where decoder g undoes encoder f; the code is narrow."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from sklebm._shell.random import RandomState
from sklebm.autoencoders._base import RECONSTRUCTION_CONSTRAINTS, BaseAutoencoder
from sklebm.objectives import Objective
from sklebm.objectives.reconstruction import ReconstructionError
from sklebm.training.schedules import Schedule


class Autoencoder(BaseAutoencoder):
    r"""Auto-encoder: a code of few numbers from which the row can be rebuilt.

    .. math:: E(x, z) = \lVert x - g(z) \rVert^2, \qquad
              F(x) = E(x, f(x)) = \lVert x - g(f(x)) \rVert^2 .

    The encoder f finds the latent, the decoder g determines its energy, and training lowers the
    mean of F over the rows. The energy is high elsewhere only because ``n_components`` numbers
    cannot describe everything. With no hidden layer and the identity as activation this is
    principal component analysis.

    Parameters
    ----------
    n_components : int, default=32
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
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of a row, for convolutional networks.
    encoder, decoder : callable or None, default=None
        Torch module classes to use instead, called as ``encoder(n_features, n_components)``
        and ``decoder(n_components, n_features)``.
    learning_rate : float, default=0.003
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=128
        Rows per update.
    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto": enough for 3000 updates, but at least 20 and at most 1000.
    optimizer : str, default="adam"
        Update rule: "adam", "adamw", "sgd", "momentum" (heavy ball), "rmsprop", or, with all rows
        at once, "gradient_descent" and "lbfgs".
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
        Seed for the initial weights and batches.
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
        Mean squared error of the batches by epoch.
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
    PCAWhitener : The linear case in closed form, with a density.

    Notes
    -----
    A step costs O(batch_size P) for P weights. Training runs in float32, row-wise methods in the
    dtype of X. Rows are shifted and divided by a single scale internally, so the units of X do not
    matter; but features should have similar scales, because the error of a large one masks the
    others. A warning is raised if the scales of features differ by a factor of more than 1000. A
    warning reports latents that do not vary across rows.

    References
    ----------
    .. [1] G. E. Hinton and R. R. Salakhutdinov, "Reducing the dimensionality of data with neural
       networks", Science 313, 2006.
    .. [2] P. Baldi and K. Hornik, "Neural networks and principal component analysis: learning
       from examples without local minima", Neural Networks 2(1), 1989.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import Autoencoder
    >>> X = load_digits().data / 16
    >>> model = Autoencoder(8, max_epochs=20, random_state=0).fit(X)
    >>> model.transform(X).shape
    (1797, 8)
    >>> bool(model.free_energy(X).mean() < 0.5 * X.var(axis=0).sum())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = RECONSTRUCTION_CONSTRAINTS

    def __init__(
        self,
        n_components: int = 32,
        *,
        hidden_sizes: tuple[int, ...] | int = (128,),
        activation: str = "relu",
        code_activation: str = "identity",
        output_activation: str = "identity",
        tied: bool = False,
        image_shape: tuple[int, ...] | None = None,
        encoder: Any = None,
        decoder: Any = None,
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
        strategy: Literal["ddp"] | None = None,
    ) -> None:
        self.n_components = n_components
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.code_activation = code_activation
        self.output_activation = output_activation
        self.tied = tied
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
        return ReconstructionError()

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
