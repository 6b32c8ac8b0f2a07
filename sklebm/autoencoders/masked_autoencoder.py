r"""F(x) = mean over masks m of |m * (x - g(f(x with m hidden)))|^2: what patches tell of others."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import torch

from sklebm._shell.private import Interval
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm.autoencoders._base import RECONSTRUCTION_CONSTRAINTS, BaseAutoencoder
from sklebm.energies.masked import MaskedReconstructionEnergy, patch_numbers
from sklebm.objectives import Objective
from sklebm.objectives.denoising import MaskedError
from sklebm.training.architecture import NetworkRecord
from sklebm.training.schedules import Schedule


class MaskedAutoencoder(BaseAutoencoder):
    r"""Auto-encoder that predicts hidden patches from the visible ones.

    .. math:: F(x) = \sum_i \frac{1}{|M_i|} \sum_{m \in M_i} (x_i - g_i(f(x_{\setminus m})))^2 ,

    where :math:`M_i` are those masks of a fixed set that hide entry i. Hidden entries are replaced
    by the mean of the training rows, and the deviations of visible ones from it are scaled up to
    compensate. Every update hides different patches of every row, and only the errors of hidden
    entries count. To predict them, a code must capture how the parts of a row depend on each other.

    Parameters
    ----------
    n_components : int, default=64
        Number of latents.
    hidden_sizes : tuple of int or int, default=(256,)
        Widths of the encoder's hidden layers, mirrored in the decoder; with ``image_shape``, the
        channels of its convolutions, each of which halves height and width. Empty: one affine map.
    activation : str, default="silu"
        Activation of the hidden layers: "relu", "elu", "silu", "softplus", "sigmoid", "tanh",
        "shrink" (soft threshold 0.5), "saturated_linear" (clipped to [0, 1]) or "identity".
    code_activation : str, default="identity"
        Activation of the code, from the same list.
    output_activation : {"identity", "sigmoid"}, default="identity"
        Activation of the output; "sigmoid" keeps reconstructions in (0, 1).
    tied : bool, default=False
        Whether the decoder uses the transposed weights of the encoder.
    masked_fraction : float, default=0.75
        Fraction of the patches to hide; at least one patch is hidden and one visible.
    patch_size : int, default=1
        Side of the square patches of images, or number of neighbouring features in a patch.
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
        Seed for the initial weights, batches and masks.
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
        Mean squared error of hidden entries, scaled to whole rows, by epoch.
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
    DenoisingAutoencoder : Corrupts all entries, and reconstructs all.

    Notes
    -----
    A step costs O(batch_size P) for P weights, ``score_samples`` 1 / (1 - masked_fraction) times
    as much per row. ``transform`` sees whole rows. Training runs in float32, row-wise methods in
    the dtype of X. A warning reports latents that do not vary across rows.

    References
    ----------
    .. [1] K. He et al., "Masked autoencoders are scalable vision learners", CVPR 2022.
    .. [2] D. Pathak et al., "Context encoders: feature learning by inpainting", CVPR 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import MaskedAutoencoder
    >>> X = load_digits().data / 16
    >>> model = MaskedAutoencoder(
    ...     32, masked_fraction=0.5, learning_rate=0.003, max_epochs=30, random_state=0
    ... ).fit(X)
    >>> bool(model.free_energy(X).mean() < 0.7 * X.var(axis=0).sum())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **RECONSTRUCTION_CONSTRAINTS,
        "masked_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int = 64,
        *,
        hidden_sizes: tuple[int, ...] | int = (256,),
        activation: str = "silu",
        code_activation: str = "identity",
        output_activation: str = "identity",
        tied: bool = False,
        masked_fraction: float = 0.75,
        patch_size: int = 1,
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
        self.masked_fraction = masked_fraction
        self.patch_size = patch_size
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

    def _record(self, n_features: int) -> NetworkRecord:
        record = super()._record(n_features)
        fraction, size = float(self.masked_fraction), int(self.patch_size)
        values = {**record.values, "masked_fraction": fraction, "patch_size": size}
        return replace(record, values=values)

    def _assemble(self, record: NetworkRecord) -> MaskedReconstructionEnergy:
        networks = super()._assemble(record)
        patches = patch_numbers(record.shape, record["patch_size"])
        return MaskedReconstructionEnergy(
            networks.encoder, networks.decoder, patches, record["masked_fraction"]
        )

    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        energy = super()._initial_energy(rows, means, generator)
        energy.filling.copy_(means)
        return energy

    def _objective(self, energy: Any) -> Objective:
        return MaskedError()

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
        """Return F(x) = the mean squared error of predicting hidden entries of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            Summed over the features, averaged over the fixed masks that hide them; in squared
            units of X.
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
