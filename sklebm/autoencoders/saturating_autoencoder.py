r"""F(x) = |x - g(f(x))|^2, with units whose inputs training moves to where they saturate."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Literal

import torch

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState
from sklebm.autoencoders._base import RECONSTRUCTION_CONSTRAINTS, BaseAutoencoder
from sklebm.objectives import Objective
from sklebm.objectives.penalties import (
    COMPLEMENTS,
    SaturatingReconstruction,
    saturation_penalty,
)
from sklebm.training.schedules import Schedule


class SaturatingAutoencoder(BaseAutoencoder):
    r"""Auto-encoder whose units saturate on the data.

    .. math:: \min \mathbb{E}\, \lVert x - g(h(a)) \rVert^2
              + \alpha \sum_j \min_{b : h'(b) = 0} |a_j - b| , \qquad
              F(x) = \lVert x - g(h(a)) \rVert^2 ,

    with the inputs a of the code's units and their activation h. A saturated unit does not respond
    to changes of the row, so reconstruction is poor off the data; only the units needed for a row
    leave their flat region. For "relu" and "shrink" the penalty is the L1 norm of the code.

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
    code_activation : {"saturated_linear", "relu", "shrink"}, default="saturated_linear"
        Activation of the code: flat outside (0, 1), below 0, or between -0.5 and 0.5.
    output_activation : {"identity", "sigmoid"}, default="identity"
        Activation of the output; "sigmoid" keeps reconstructions in (0, 1).
    tied : bool, default=False
        Whether the decoder uses the transposed weights of the encoder.
    alpha : float, default=0.1
        Weight of the penalty, relative to the squared error of rows divided by ``scale_``.
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of a row, for convolutional networks.
    encoder : None, default=None
        The penalty needs the built-in encoder.
    decoder : callable or None, default=None
        Torch module class to use instead, called as ``decoder(n_components, n_features)``.
    learning_rate : float, default=0.001
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
    ContractiveAutoencoder : Penalises the derivative itself.
    SparseAutoencoder : Penalises active units.

    Notes
    -----
    A step costs O(batch_size P) for P weights. Training runs in float32, row-wise
    methods in the dtype of X. A warning reports latents that do not vary across rows.

    References
    ----------
    .. [1] R. Goroshin and Y. LeCun, "Saturating auto-encoders", ICLR 2013.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import SaturatingAutoencoder
    >>> X = load_digits().data / 16
    >>> model = SaturatingAutoencoder(max_epochs=20, random_state=0).fit(X)
    >>> codes = model.transform(X)
    >>> bool(((codes == 0) | (codes == 1)).mean() > 0.5)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **RECONSTRUCTION_CONSTRAINTS,
        "code_activation": [StrOptions(set(COMPLEMENTS))],
        "encoder": [None],  # unit inputs of a user module are not accessible
        "alpha": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int = 128,
        *,
        hidden_sizes: tuple[int, ...] | int = (),
        activation: str = "relu",
        code_activation: str = "saturated_linear",
        output_activation: str = "identity",
        tied: bool = False,
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
        return SaturatingReconstruction(str(self.code_activation), float(self.alpha))

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
        r"""Return the distance of the units from saturation, for each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        penalty : array or tensor of shape (n_samples,)
            Sums over the units, without ``alpha``.
        """
        return self._map_rows(X, _distance, "penalty")


def _distance(energy: Any, x: torch.Tensor) -> torch.Tensor:
    inputs = energy.encoder[:-1](energy.standardized(x))
    return saturation_penalty(inputs, energy.record["code_activation"])
