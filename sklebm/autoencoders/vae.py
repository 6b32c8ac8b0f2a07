r"""log p(x) = log E_{p(z)} p(x | z) >= E_{q(z|x)} log p(x | z) - KL(q(z | x) || p(z))."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows, resolve_device, row_slices
from sklebm._shell.scaling import Scaling, measure_spread
from sklebm._shell.state import Scalar, Spec
from sklebm._shell.value_range import apply_value_range
from sklebm.autoencoders import _importance as importance
from sklebm.autoencoders import _variational as variational
from sklebm.autoencoders._base import BaseAutoencoder, sigmoid_bias
from sklebm.autoencoders._categories import block_sizes, check_one_hot
from sklebm.autoencoders._diagnosis import latent_variances, warn_of_collapse
from sklebm.autoencoders._traversal import traverse_latents
from sklebm.objectives import Batch, Objective
from sklebm.training.architecture import NetworkRecord
from sklebm.training.schedules import Schedule
from sklebm.training.start import Start


class VAE(BaseAutoencoder):
    r"""Variational auto-encoder: a density with latents that an encoder infers.

    .. math:: E(x, z) = -\log p(x \mid z) - \log p(z),

    .. math:: F(x) = -\log p(x) \le \mathrm{KL}(q(z \mid x) \,\|\, p(z))
              - \mathbb{E}_{q(z \mid x)} \log p(x \mid z) .

    A decoder gives p(x | z), the prior is N(0, I) (or independent bits), and the encoder an
    approximate posterior q(z | x). Training minimises the right-hand side; F stays high off the
    data because a code can carry only a few nats.

    Parameters
    ----------
    n_components : int, default=20
        Number of latents.
    hidden_sizes : tuple of int or int, default=(128,)
        Widths of the encoder's hidden layers, mirrored in the decoder; with ``image_shape``, the
        channels of its convolutions, each of which halves height and width. Empty: affine maps.
    activation : str, default="relu"
        Activation of the hidden layers: "relu", "elu", "silu", "softplus", "sigmoid", "tanh",
        "shrink" (soft threshold 0.5), "saturated_linear" (clipped to [0, 1]) or "identity".
    likelihood : {"gaussian", "bernoulli", "categorical"}, default="gaussian"
        p(x | z): normal, independent bits for X in [0, 1], or independent categories for blocks of
        one-hot columns; a block of zeros is a missing feature.
    n_categories : int, sequence of int or None, default=None
        Number of columns of each block under a categorical likelihood; a single number if it is the
        same for all.
    noise_scale : {"shared", "learned"} or float, default="shared"
        Standard deviation of the Gaussian likelihood: "shared", one learnt multiple of ``scale_``;
        "learned", decoded from z for each feature; or a fixed number in the units of X. Learnt
        values stay above 1e-3 of the standard deviation of the data.
    posterior : {"diagonal", "full", "bernoulli"}, default="diagonal"
        q(z | x): Gaussian with diagonal or full covariance, or independent bits.
    objective : {"elbo", "iwae", "dreg"} or Objective, default="elbo"
        The bound: evidence lower bound, importance-weighted bound, or the latter with the doubly
        reparametrised gradient.
    n_samples : int or None, default=None
        Draws of z per row and update. None: 1 for "elbo", 10 for "iwae" and "dreg".
    beta : float, default=1.0
        Weight of the divergence in "elbo". Values above 1 prune latents.
    beta_warmup : int or "auto", default="auto"
        Number of updates over which the weight rises from 0 to ``beta``. "auto": with binary
        latents a quarter of all updates (500 in ``partial_fit``), otherwise none.
    free_bits : float, default=0.0
        Nats per latent, averaged over the batch, below which the divergence is not penalised.
    binarize : bool, default=False
        Whether X holds probabilities from which binary rows are drawn at every update (dynamic
        binarisation).
    discrete_gradient : {"auto", "enumeration", "score_function", "relaxed"}, default="auto"
        Gradient for the encoder of binary latents: exact (up to 12 latents), from antithetic draws
        (DisARM; unbiased), or from relaxed draws (biased). "auto" enumerates up to 8 latents.
    n_importance_samples : int, default=128
        Draws per row in ``score_samples``, ``score`` and ``lower_bound``; powers of 2 are best.
        Read at every call, so it can be changed after ``fit``.
    value_range : {"warn", "raise", "clip"}, default="warn"
        What to do with values outside [0, 1] under a Bernoulli likelihood; "warn" uses them
        unchanged.
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of a row, for convolutional networks.
    encoder, decoder : callable or None, default=None
        Torch module classes to use instead, called as ``encoder(n_features, m)`` and
        ``decoder(n_components, p * n_features)``: m numbers describe a posterior (2 k if it is
        diagonal, k (k + 3) / 2 if full, k if Bernoulli), p is 2 if ``noise_scale="learned"``.
    learning_rate : float, default=0.003
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
        Fraction of the rows held out for validation; their mean evidence lower bound is recorded
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
        Seed for the initial weights, batches and draws.
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
        Parameters of encoder, decoder and likelihood under their torch names, such as
        "encoder.0.weight".
    architecture_ : dict
        Description of the networks in plain values.
    offset_, scale_ : ndarray of shape (n_features_in_,) or None
        Mean and scale of each feature under a Gaussian likelihood: networks see
        (x - offset_) / scale_. The scale is the standard deviation, at least a tenth of the largest
        distance from the mean, and the same for all features if ``noise_scale`` is a number. None
        if rows are used unscaled.
    effective_sample_size_ : float or None
        Median over training rows of the effective number of draws as a fraction of 128; see
        ``effective_sample_size``. None if scores are exact. Set by ``fit`` only.
    latent_variances_ : ndarray of shape (n_components,)
        Variance of each posterior mean over the training rows; below 0.01 a latent is inactive.
        Set by ``fit`` only.
    loss_curve_ : ndarray of shape (n_iter_,)
        Minus the bound (nats per row) of the batches by epoch.
    validation_scores_ : ndarray
        Evidence lower bound of the held-out rows by epoch, if ``validation_fraction`` is set.
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
    Autoencoder : Without a density.
    EnergyGaussianMixture : A density whose likelihood is exact.

    Notes
    -----
    A step costs O(batch_size n_samples P) for P weights, ``score_samples``
    O(n_samples n_importance_samples P) for the decoder's. Training runs in float32, row-wise
    methods in the dtype of X. If no latent is active after ``fit``, a warning says so.

    A high density does not prove that a row is typical: simple rows of another kind can have a
    higher density than the training rows themselves.

    References
    ----------
    .. [1] D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014.
    .. [2] Y. Burda, R. Grosse and R. Salakhutdinov, "Importance weighted autoencoders", ICLR 2016.
    .. [3] G. Tucker et al., "Doubly reparameterized gradient estimators for Monte Carlo
       objectives", ICLR 2019.
    .. [4] Z. Dong, A. Mnih and G. Tucker, "DisARM: an antithetic gradient estimator for binary
       latent variables", NeurIPS 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import VAE
    >>> X = load_digits().data / 16
    >>> vae = VAE(5, learning_rate=0.003, max_epochs=20, random_state=0).fit(X[:1500])
    >>> bool(vae.score(X[1500:]) > vae.lower_bound(X[1500:]).mean())  # nats per row
    True
    >>> vae.sample(3, random_state=0).shape
    (3, 64)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = variational.CONSTRAINTS
    # Burda et al.: a latent is active if the variance of its posterior mean exceeds 0.01.
    _least_variance = 0.01

    def __init__(
        self,
        n_components: int = 20,
        *,
        hidden_sizes: tuple[int, ...] | int = (128,),
        activation: str = "relu",
        likelihood: str = "gaussian",
        n_categories: Any = None,
        noise_scale: str | float = "shared",
        posterior: str = "diagonal",
        objective: str | Objective = "elbo",
        n_samples: int | None = None,
        beta: float = 1.0,
        beta_warmup: int | str = "auto",
        free_bits: float = 0.0,
        binarize: bool = False,
        discrete_gradient: str = "auto",
        n_importance_samples: int = 128,
        value_range: str = "warn",
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
        self.likelihood = likelihood
        self.n_categories = n_categories
        self.noise_scale = noise_scale
        self.posterior = posterior
        self.objective = objective
        self.n_samples = n_samples
        self.beta = beta
        self.beta_warmup = beta_warmup
        self.free_bits = free_bits
        self.binarize = binarize
        self.discrete_gradient = discrete_gradient
        self.n_importance_samples = n_importance_samples
        self.value_range = value_range
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

    # ------------------------------------------------------------------ what is learnt

    def _check_rows(self, rows: Rows, *, learning: bool) -> None:
        likelihood = self.likelihood if learning else self.architecture_["likelihood"]
        owner = f'{type(self).__name__} with likelihood="{likelihood}"'
        if likelihood == "bernoulli":
            apply_value_range(rows, self.value_range, owner=owner, learning=learning)
        elif likelihood == "categorical":
            given = self.n_categories if learning else self.architecture_["n_categories"].tolist()
            check_one_hot(rows, block_sizes(given, rows.shape[1]), owner)

    def _scaling(self, rows: Rows) -> Scaling | None:
        if self.likelihood != "gaussian":
            return None
        return measure_spread(rows).scaling(common=variational.has_fixed_noise(self))

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        variational.check_noise(self)

    def _record(self, n_features: int) -> NetworkRecord:
        return variational.variational_record(self, n_features)

    def _assemble(self, record: NetworkRecord) -> Any:
        return variational.variational_energy(record)

    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        energy = super()._initial_energy(rows, means, generator)
        variational.begin(self, energy, rows, means)
        energy.log_volume = variational.log_volume(energy.scaling)
        return energy

    def _output_bias(self, mean: torch.Tensor) -> torch.Tensor:
        if self.likelihood == "categorical":
            return mean.double().clamp(min=1e-3).log().float()
        return sigmoid_bias(mean) if self.likelihood == "bernoulli" else mean

    def _check_networks(self, energy: Any, record: NetworkRecord) -> None:
        n, k = record["n_features"], record["n_components"]
        record.check_module("encoder", energy.encoder, n, variational.n_encoder_outputs(record))
        record.check_module("decoder", energy.decoder, k, energy.likelihood.n_per_feature * n)

    def _energy(self, device: torch.device) -> Any:
        energy = super()._energy(device)
        energy.log_volume = variational.log_volume(energy.scaling)
        return energy

    def _starting_energy(self, start: Start) -> Any:
        energy = super()._starting_energy(start)
        energy.warmup = variational.warmup(self, start)
        return energy

    def _objective(self, energy: Any) -> Objective:
        return variational.variational_objective(self, energy)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        x = batch.x
        energy.eval()
        floats = 2 * energy.record.floats_per_row()
        parts = row_slices(len(x), 8 * floats)
        bounds = (importance.lower_bound(energy, x[part], 8, floats) for part in parts)
        return sum(float(bound.double().sum()) for bound in bounds) / len(x)

    def _diagnose(self, energy: Any, rows: Rows) -> dict[str, Any]:
        name, floats = type(self).__name__, 2 * energy.record.floats_per_row()
        variances = latent_variances(energy, rows, floats)
        warn_of_collapse(variances, self._least_variance, name)
        share = importance.median_share(energy, rows, floats)
        if share is not None:
            importance.warn_if_poor(share, name)
        return {"latent_variances_": variances, "effective_sample_size_": share}

    def _state_spec(self) -> Spec:
        share = Scalar(float, 0.0, optional=True)
        return {**super()._state_spec(), "effective_sample_size_": share}

    # ------------------------------------------------------------------ answers

    def transform(self, X: Any) -> Any:
        """Return the mean of q(z | x) of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            Posterior means; probabilities if latents are binary.
        """
        return self._map_rows(X, lambda energy, x: energy.encode(x), "transform")

    def inverse_transform(self, X: Any) -> Any:
        """Return E[x | z] of each latent.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            Latents.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            Means of p(x | z), in the units of X.
        """
        return self._map_rows(
            X, lambda energy, z: energy.decode(z), "inverse_transform", latents=True
        )

    def reconstruct(self, X: Any) -> Any:
        """Return E[x | z] at the posterior mean of each row.

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
        """Return E(x, z) = -log p(x | z) - log p(z) of each row with its own latent.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_components)
            One latent per row.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._pair_energies(X, Z)

    def score_samples(self, X: Any) -> Any:
        """Return log p(x) of each row, importance-weighted with the encoder's proposals.

        The ``n_importance_samples`` draws of a row are Sobol points scrambled by a hash of its
        content: equal rows have equal scores in any order, and errors average out over rows. The
        estimate is below log p(x) on average, and rises with the number of draws. With at most 12
        binary latents it is exact.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            In nats; higher is more typical. Deterministic.
        """
        return self._map_draws(X, importance.log_marginal, "score_samples")

    def free_energy(self, X: Any) -> Any:
        """Return F(x) = -log p(x), estimated as by ``score_samples``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            ``-score_samples(X)``, in nats.
        """
        return self._map_draws(X, lambda *of: -importance.log_marginal(*of), "free_energy")

    def effective_sample_size(self, X: Any) -> Any:
        """Return the effective number of draws behind the score of each row.

        This is (sum w)^2 / sum w^2 for the importance weights w of the row's draws. If a few draws
        outweigh all others, the encoder misses the posterior and the score is well below log p(x):
        increase ``n_importance_samples``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to examine.

        Returns
        -------
        size : array or tensor of shape (n_samples,)
            Between 1 and ``n_importance_samples``; all of them if the encoder is exact.
        """
        return self._map_draws(X, importance.effective_sample_size, "effective_sample_size")

    def lower_bound(self, X: Any) -> Any:
        """Return the evidence lower bound E_q log p(x|z) - KL(q(z|x) || p(z)) of each row.

        Its gap to ``score_samples`` is the cost of the approximate posterior.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        bound : array or tensor of shape (n_samples,)
            In nats, averaged over ``n_importance_samples`` draws; the divergence is exact.
        """
        return self._map_draws(X, importance.lower_bound, "lower_bound")

    def _map_draws(self, X: Any, function: Any, what: str) -> Any:
        """Stream a function of the rows' importance samples over X."""
        n_samples = self.n_importance_samples
        return self._map_rows(
            X, lambda energy, x: function(energy, x, n_samples, self._floats_per_row()), what
        )

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean held-out log p(x), importance-weighted.

        For the same X it is comparable between any ``n_components``, networks, posteriors and
        objectives, but only at the same ``likelihood`` and ``n_importance_samples``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean of ``score_samples(X)`` in nats.
        """
        return super().score(X)

    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> Any:
        """Draw rows from the model: z from the prior, x from p(x | z).

        ``inverse_transform`` of such latents gives means without the noise of p(x | z).

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Rows, float32; 0 and 1 under a Bernoulli or categorical likelihood.
        """
        n_samples = variational.count("n_samples", n_samples)
        check_is_fitted(self)
        device = resolve_device(self.device, None, self._prefers_cuda)
        generator = make_generator(draw_seed(random_state), "sampling", device=device)
        energy = self._energy(device).float()
        out = np.empty((n_samples, self.n_features_in_), dtype=np.float32)
        with torch.no_grad():
            for part in row_slices(n_samples, self._floats_per_row()):
                z = energy.draw_prior(len(out[part]), generator, torch.zeros(1, device=device))
                out[part] = energy.draw(z, generator).cpu().numpy()
        return out

    def traverse(self, X: Any, *, components: Any = None, values: Any = None) -> Any:
        """Return reconstructions of each row with one latent at a time set to given values.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to start from; their other latents stay at the posterior mean.
        components : array-like of int or None, default=None
            Latents to move; None moves all.
        values : array-like of float or None, default=None
            Values to take; None takes 7 from -3 to 3, or 0 and 1 if latents are binary.

        Returns
        -------
        X_traversed : ndarray of shape (n_samples, n_chosen, n_values, n_features)
            Means of p(x | z).
        """
        codes = self._map_rows(X, lambda energy, x: energy.encode(x), "traverse")
        Z = np.asarray(torch.as_tensor(codes).cpu())
        binary = self.architecture_["posterior"] == "bernoulli"
        default = np.array([0.0, 1.0]) if binary else np.linspace(-3.0, 3.0, 7)
        return traverse_latents(Z, self.inverse_transform, components, values, default)
