r"""F(x) = |x|^2 / 2 s^2 - b'x - sum_k log(1 + exp(w_k' g(x) + c_k)), log p(x) = -F(x) - log Z."""

from __future__ import annotations

from typing import Any, Literal

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood
from sklebm._shell.random import RandomState
from sklebm.deep import _chains
from sklebm.deep._base import DeepEnergyEstimator
from sklebm.objectives import Objective
from sklebm.training.schedules import Schedule


class DeepEnergyModel(DeepEnergyEstimator):
    r"""Deep energy model: experts on the features of a network, times a Gaussian.

    .. math:: F(x) = \frac{\lVert x \rVert^2}{2 \sigma^2} - b^\top x -
              \sum_k \log\left(1 + e^{w_k^\top g(x) + c_k}\right), \qquad
              \log p(x) = -F(x) - \log Z,

    where x denotes the row minus ``offset_``, the mean of the rows of the first fit.

    Hidden units with :math:`p(z_k = 1 \mid x) = 1 / (1 + e^{-w_k^\top g(x) - c_k})` are summed out.
    With no hidden layer, g(x) = x, this is a Gaussian restricted Boltzmann machine. With
    ``log_factor``, an arbitrary function H(x) replaces the sum over k.

    Parameters
    ----------
    n_components : int, default=64
        Number of experts (the hidden units).
    hidden_sizes : tuple of int or int, default=(64, 64)
        Widths of the layers of g; with ``image_shape``, the channels of its convolutions, each of
        which halves height and width. Empty: g(x) = x.
    activation : {"tanh", "sigmoid", "softplus", "silu"}, default="tanh"
        Activation of the layers of g. A "sigmoid" network is a "tanh" network with other weights.
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of a row, for a convolutional g.
    network : callable or None, default=None
        Torch module class that computes all of w_k' g(x) + c_k, called as
        ``network(n_features, n_components)``. It must be smooth, and must not grow faster than
        ``|x|^2 / 2 sigma^2``.
    log_factor : callable or None, default=None
        Torch module class for H(x), called as ``log_factor(n_features, 1)``, which returns one
        number per row: log p(x) = -|x|^2 / 2 sigma^2 + b'x + H(x) - log Z. It must be smooth.
        ``n_components``, ``hidden_sizes``, ``activation`` and ``image_shape`` have no effect then.
    layer_training : {"joint", "greedy"}, default="joint"
        "joint" trains all layers of g at once. "greedy" trains one after the other, each for
        ``max_epochs`` as the experts of a shallower model, and then freezes it. With
        ``warm_start``, "greedy" adds a layer to a fitted model, whose ``hidden_sizes`` followed by
        its ``n_components`` must be the new ``hidden_sizes``; "joint" continues training all of its
        layers.
    sigma : float, "auto" or None, default="auto"
        Width of the Gaussian factor; "auto" is the root mean variance of the features. None, with
        ``log_factor`` only: no Gaussian factor, log p(x) = H(x) - log Z.
    learn_sigma : bool, default=False
        Whether sigma is learnt, starting from this value.
    objective : str or Objective, default="noise_contrastive"
        How the energy is trained: "noise_contrastive" (which learns log Z), "pcd" or "cd" with
        Hamiltonian Monte Carlo, "score_matching", "sliced_score_matching",
        "denoising_score_matching", "conditional_noise_contrastive",
        "variational_noise_contrastive", or an object with its own settings, such as a sampler.
    learning_rate : float, default=0.005
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=128
        Rows per update, and number of persistent chains.
    max_epochs : int, default=50
        Passes over the rows.
    optimizer : str, default="rmsprop"
        Update rule: "rmsprop", "sgd", "adam", "adamw", "momentum" (heavy ball), or, with all rows
        at once, "gradient_descent" and "lbfgs"; "lbfgs" needs ``objective="score_matching"``. With
        momentum the parameters change faster than the chains of "pcd" can follow.
    learning_rate_schedule : str or Schedule, default="cosine"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; the negative of their objective (for "cd" and
        "pcd", of sliced score matching) is recorded after each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters. None trains for ``max_epochs``.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    log_partition : {"auto", "ais"} or None, default="auto"
        How ``fit`` computes log Z at the end. "auto": keep the log Z learnt by the objective if it
        passes ``check_density``, otherwise anneal for at most half as long as training took; "ais":
        anneal with the effort of ``estimate_log_partition``; None: leave it unknown.
    warm_start : bool, default=False
        Whether ``fit`` continues from the fitted parameters.
    net_params : dict or None, default=None
        Passed to the internal skorch net: callbacks, iterators, ``optimizer__weight_decay``.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial weights, batches, negatives and annealing.
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
        Parameters under their torch names: "visible_bias" (b), "log_sigma", "network.0.weight" and
        so on, the last of which are W and c, or "log_factor.*" of H; "reference.mean" and
        "reference.factor" of the Gaussian from which noise and chains are drawn; "log_partition".
    architecture_ : dict
        Description of the network in plain values.
    sigma_ : float or None
        Width of the Gaussian factor, if there is one.
    log_partition_ : float or None
        log Z in nats; None if unknown. ``partial_fit`` clears it unless the objective learns it.
    log_partition_interval_ : ndarray of shape (2,) or None
        After annealing: the forward and backward estimates plus and minus three standard errors.
        None if log Z was learnt or is unknown.
    offset_ : ndarray of shape (n_features_in_,) or None
        Mean of the rows of the first fit; the network sees rows relative to it.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean objective of the batches by epoch; for "cd" and "pcd" the mean energy of the batches
        minus that of the negatives.
    validation_scores_ : ndarray
        Score of the held-out rows by epoch, if ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    n_samples_seen_ : int
        Number of training rows.
    training_state_ : dict
        Optimiser statistics and chains; see ``drop_training_state``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    GaussianEnergy : One Gaussian with a structured precision, by some of the same objectives.

    Notes
    -----
    For P weights a step costs O(batch_size P) times 1 + ``n_noise`` ("noise_contrastive"), times
    the leapfrog steps ("cd", "pcd") or times d ("score_matching"). The reference Gaussian adds
    O(d^3) once. Training runs in float32, annealing in float64, row-wise methods in the dtype of X.
    Features should have similar scales. If the energy decreases without bound far from the data,
    ``fit`` raises FloatingPointError after the epoch in which this began.

    References
    ----------
    .. [1] J. Ngiam, Z. Chen, P. W. Koh and A. Y. Ng, "Learning deep energy models", ICML 2011.
    .. [2] M. U. Gutmann and A. Hyvarinen, "Noise-contrastive estimation of unnormalized statistical
       models, with applications to natural image statistics", Journal of Machine Learning
       Research 13, 2012.
    .. [3] A. Hyvarinen, "Estimation of non-normalized statistical models by score matching",
       Journal of Machine Learning Research 6, 2005.
    .. [4] Y. Du and I. Mordatch, "Implicit generation and modeling with energy-based models",
       NeurIPS 2019.

    Examples
    --------
    >>> from sklebm import DeepEnergyModel
    >>> from sklebm.datasets import Rings
    >>> ring = Rings(noise=0.2)
    >>> X = ring.sample(2000, random_state=0)
    >>> model = DeepEnergyModel(32, hidden_sizes=(32,), max_epochs=40, random_state=0).fit(X)
    >>> bool(model.score(X) > -2.0)  # nats a row; a Gaussian has -2.2
    True
    >>> model.sample(3, random_state=0).shape
    (3, 2)
    """

    def __init__(
        self,
        n_components: int = 64,
        *,
        hidden_sizes: tuple[int, ...] | int = (64, 64),
        activation: str = "tanh",
        image_shape: tuple[int, ...] | None = None,
        network: Any = None,
        log_factor: Any = None,
        layer_training: Literal["joint", "greedy"] = "joint",
        sigma: float | str = "auto",
        learn_sigma: bool = False,
        objective: str | Objective = "noise_contrastive",
        learning_rate: float = 0.005,
        batch_size: int = 128,
        max_epochs: int = 50,
        optimizer: str = "rmsprop",
        learning_rate_schedule: str | Schedule = "cosine",
        validation_fraction: float | None = None,
        n_iter_no_change: int | None = None,
        tol: float = 1e-4,
        log_partition: str | None = "auto",
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
        self.image_shape = image_shape
        self.network = network
        self.log_factor = log_factor
        self.layer_training = layer_training
        self.sigma = sigma
        self.learn_sigma = learn_sigma
        self.objective = objective
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.optimizer = optimizer
        self.learning_rate_schedule = learning_rate_schedule
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.log_partition = log_partition
        self.warm_start = warm_start
        self.net_params = net_params
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.strategy = strategy

    def _objective(self, energy: Any) -> Objective:
        return self._shaped_by(energy)

    def transform(self, X: Any) -> Any:
        """Return the probability that each hidden unit is on, or H(x) of a ``log_factor``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            p(z_k = 1 | x); with ``log_factor`` one column, H(x).
        """
        return self._map_rows(X, lambda energy, x: energy.features(x), "transform")

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each row with its hidden state.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_components)
            Hidden states, one per row.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats.

        Raises
        ------
        ValueError
            If the model has a ``log_factor``, and so no hidden units.
        """
        if self.log_factor is not None:
            raise ValueError(
                "DeepEnergyModel with log_factor has no hidden units: free_energy(X) is its energy."
            )
        return self._pair_energies(X, Z)

    def score_samples(self, X: Any) -> Any:
        """Return log p(x) where log Z is known, else the unnormalised -F(x).

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            ``-F(x) - log_partition_`` in nats, or ``-F(x)`` if ``log_partition_`` is None. Higher
            is more typical. Deterministic. After noise-contrastive estimation log Z is learnt and
            has no error bar; otherwise it is annealed, with ``log_partition_interval_``.
        """
        return likelihood.score_samples(self, X)

    def sample(
        self, n_samples: int = 1, *, n_steps: int = 200, random_state: RandomState = None
    ) -> Any:
        """Draw rows from the model, with one Hamiltonian Monte Carlo chain per row.

        The chains start at a Gaussian with the mean and covariance of the training rows; the step
        size is adapted during the first half of the steps. Draws are exact in the limit of many
        steps, but a chain can stay in one of several separated modes for a very long time.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        n_steps : int, default=200
            Trajectories of every chain, of ten leapfrog steps.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows, float32.
        """
        check_is_fitted(self)
        return _chains.drawn(self, n_samples, n_steps, random_state)

    def modes(self, X: Any, *, max_iter: int = 1000, tol: float = 1e-3) -> Any:
        """Climb log p from each row to a local maximum.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to start from: data, samples, or noise.
        max_iter : int, default=1000
            Maximum number of steps of gradient descent on F, with a step size for each row.
        tol : float, default=1e-3
            A row has converged when the norm of the gradient of F, times the root mean variance of
            the features, is at most this.

        Returns
        -------
        X_modes : array or tensor of shape (n_samples, n_features)
            Points of (locally) highest density, one for each row; equal modes are not merged.
        """
        return _chains.climbed(self, X, max_iter, tol)
