r"""log p(x) = log E_{p(z)} p(x | z) >= E_{q(z|x)} log p(x | z) - KL(q(z | x) || p(z))."""

from __future__ import annotations

from typing import Any, Literal

import torch

from sklebm._shell.random import RandomState
from sklebm.autoencoders._variational import VariationalAutoencoder
from sklebm.objectives import Objective
from sklebm.training.schedules import Schedule


class VAE(VariationalAutoencoder):
    r"""Variational auto-encoder: a density with latents that an encoder infers.

    .. math:: E(x, z) = -\log p(x \mid z) - \log p(z),

    .. math:: F(x) = -\log p(x) \le \mathrm{KL}(q(z \mid x) \,\|\, p(z))
              - \mathbb{E}_{q(z \mid x)} \log p(x \mid z) .

    A decoder gives p(x | z), the prior is N(0, I) (or independent bits), and the encoder an
    approximate posterior q(z | x). Training lowers the right-hand side; what keeps F high off
    the data is that a code may not cost many nats.

    Parameters
    ----------
    n_components : int, default=10
        Number of latents.
    hidden_sizes : tuple of int, default=(128,)
        Widths of the encoder's hidden layers, mirrored by the decoder; with ``image_shape`` the
        channels of its convolutions, each of which halves the sides. Empty: affine maps.
    activation : str, default="relu"
        Function of the hidden layers: "relu", "elu", "silu", "softplus", "sigmoid", "tanh",
        "shrink" (soft threshold 0.5), "saturated_linear" (clipped to [0, 1]) or "identity".
    likelihood : {"gaussian", "bernoulli", "categorical"}, default="gaussian"
        p(x | z): normal, independent bits for X in [0, 1], or independent categories for blocks of
        one-hot columns; a block of zeros is a missing feature.
    n_categories : int, sequence of int or None, default=None
        Columns of each block under a categorical likelihood; one number if all have as many.
    noise_scale : {"shared", "learned"} or float, default="shared"
        Standard deviation of the Gaussian likelihood: one learnt number, decoded from z for each
        feature, or fixed. Learnt ones stay above 1e-3 of the data's own.
    posterior : {"diagonal", "full", "bernoulli"}, default="diagonal"
        q(z | x): Gaussian with diagonal or full covariance, or independent bits.
    objective : {"elbo", "iwae", "dreg"} or Objective, default="elbo"
        The bound: evidence lower bound, importance-weighted bound, or the latter with the doubly
        reparametrised gradient.
    n_samples : int or None, default=None
        Draws of z per row and update. None: 1 for "elbo", 10 for "iwae" and "dreg".
    beta : float, default=1.0
        Weight of the divergence in "elbo". Above 1 it prunes latents.
    beta_warmup : int, default=0
        Number of updates over which the weight rises from 0 to ``beta``.
    free_bits : float, default=0.0
        Nats per latent, averaged over the batch, below which the divergence is not pushed.
    binarize : bool, default=False
        Whether X holds probabilities of which binary rows are drawn at every update (dynamic
        binarisation).
    discrete_gradient : {"auto", "enumeration", "score_function", "relaxed"}, default="auto"
        How the encoder of binary latents learns: exactly (up to 12 latents), by antithetic
        draws (DisARM; unbiased), or by relaxed draws (biased). "auto" enumerates up to 8.
    n_importance_samples : int, default=128
        Draws per row in ``score_samples``, ``score`` and ``lower_bound``; powers of 2 are best.
        Read when they are called, so that it can be changed after ``fit``.
    value_range : {"warn", "raise", "clip"}, default="warn"
        What to do with values outside [0, 1] under a Bernoulli likelihood; "warn" uses them as
        they are.
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of a row, for convolutional networks.
    encoder, decoder : callable or None, default=None
        Classes of torch modules to use instead, called as ``encoder(n_features, m)`` and
        ``decoder(n_components, p * n_features)``: m numbers describe a posterior (2 k if it is
        diagonal, k (k + 3) / 2 if full, k if Bernoulli), p is 2 if ``noise_scale="learned"``.
    learning_rate : float, default=0.001
        Step size. A batch of m < ``batch_size`` rows takes m / ``batch_size`` of it.
    batch_size : int, default=128
        Rows per update.
    max_epochs : int, default=50
        Passes over the rows.
    optimizer : str, default="adam"
        Update rule: "adam", "adamw", "sgd", "momentum" (heavy ball), "rmsprop", or, with all rows
        at once, "gradient_descent".
    learning_rate_schedule : str or Schedule, default="cosine"
        Course of the learning rate over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Share of the rows held out; their mean evidence lower bound is recorded after each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the score has not risen by ``tol`` for so many epochs, and keep the best
        parameters. None trains for ``max_epochs``.
    tol : float, default=1e-4
        Least absolute rise that counts.
    warm_start : bool, default=False
        Whether ``fit`` continues from the fitted parameters.
    net_params : dict or None, default=None
        Passed on to the private skorch net: callbacks, iterators, ``optimizer__weight_decay``.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights, batches and draws.
    verbose : int, default=0
        Whether to print a line per epoch.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is the device of X if it is a tensor, else CUDA if there is
        one, else the CPU.
    strategy : {"ddp"} or None, default=None
        "ddp": the processes that ``torchrun`` started fit together, each on rows of its own; see
        :doc:`/user_guide/scale`.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        Parameters of encoder, decoder and likelihood by torch's names, such as
        "encoder.0.weight".
    architecture_ : dict
        What the networks are made of, as plain values.
    latent_variances_ : ndarray of shape (n_components,)
        Variance of each posterior mean over the training rows; a latent below 0.01 is inactive.
        ``fit`` only.
    loss_curve_ : ndarray of shape (n_iter_,)
        Minus the bound (nats per row) of the batches by epoch.
    validation_scores_ : ndarray
        Held-out evidence lower bound by epoch, if ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows, where the decoder starts.
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

    A high density is no proof that a row is typical: simple rows of another kind can have more of
    it than the training rows themselves.

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

    def __init__(
        self,
        n_components: int = 10,
        *,
        hidden_sizes: tuple[int, ...] = (128,),
        activation: str = "relu",
        likelihood: str = "gaussian",
        n_categories: Any = None,
        noise_scale: str | float = "shared",
        posterior: str = "diagonal",
        objective: str | Objective = "elbo",
        n_samples: int | None = None,
        beta: float = 1.0,
        beta_warmup: int = 0,
        free_bits: float = 0.0,
        binarize: bool = False,
        discrete_gradient: str = "auto",
        n_importance_samples: int = 128,
        value_range: str = "warn",
        image_shape: tuple[int, ...] | None = None,
        encoder: Any = None,
        decoder: Any = None,
        learning_rate: float = 0.001,
        batch_size: int = 128,
        max_epochs: int = 50,
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
