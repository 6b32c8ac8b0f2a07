r"""min over g, max over D: E_x log S(D(x)) + E_z log(1 - S(D(g(z)))); rows are x = g(z)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch

from sklebm._shell.private import StrOptions
from sklebm._shell.random import RandomState
from sklebm.adversarial import _answers
from sklebm.adversarial._base import BaseAdversarial
from sklebm.energies.adversarial import AdversarialEnergy, AveragedNetwork
from sklebm.objectives.adversarial import (
    CriticLoss,
    Game,
    LeastSquares,
    NonSaturating,
    WassersteinPenalty,
)
from sklebm.training.architecture import NetworkRecord
from sklebm.training.pace import Pace
from sklebm.training.schedules import Schedule

GAMES: dict[str, type[Game]] = {
    "non_saturating": NonSaturating,
    "least_squares": LeastSquares,
    "wasserstein_gp": WassersteinPenalty,
}


class GAN(BaseAdversarial):
    r"""Generative adversarial network: new rows from a generator that a critic cannot tell apart.

    .. math:: \min_g \max_D \; \mathbb{E}_x \log S(D(x)) + \mathbb{E}_z \log (1 - S(D(g(z)))),
              \qquad z \sim \mathcal{N}(0, I), \quad S(u) = 1 / (1 + e^{-u}).

    The critic D raises its output at the data and lowers it at generated rows; the generator g
    follows the gradient of the critic. The best critic of a fixed generator is the log ratio of the
    densities of data and generated rows, :math:`D(x) = \log p(x) / q(x)`.

    Parameters
    ----------
    n_components : int, default=16
        Number of latents. Two suffice for rows in the plane: with more, most latents are mapped to
        regions between the modes.
    objective : str or Game, default="non_saturating"
        The losses: "non_saturating" or "least_squares", each with an R1 penalty on the critic's
        gradient at the data; "wasserstein_gp", which keeps the norm of the gradient near 1 between
        data and samples; or an object with its own settings, such as ``NonSaturating(r1=0.1)``.
    conditional : bool, default=False
        Whether rows are generated and judged given y, which ``fit`` and all other methods then
        need: x = g(z, y) and D(x, y). Floating-point y are numbers, one or several for each row;
        integers, booleans and strings are labels.
    hidden_sizes : tuple of int or int, default=(128, 128, 128)
        Widths of the hidden layers of the critic, mirrored in the generator; with ``image_shape``,
        the channels of its convolutions, each of which halves height and width.
    activation : str, default="relu"
        Activation of the hidden layers: "relu", "elu", "silu", "softplus", "sigmoid", "tanh",
        "shrink" (soft threshold 0.5), "saturated_linear" (clipped to [0, 1]) or "identity". Smooth
        ones take longer to separate the modes.
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of a row, for convolutional networks.
    generator : callable or None, default=None
        Torch module class to use instead, called as ``generator(n_components, n_features)``; it
        returns rows in standard units.
    critic : callable or None, default=None
        Torch module class to use instead, called as ``critic(n_features, 1)``. With ``conditional``
        the inputs of both are followed by an indicator of each label, or the numbers.
    spectral_norm : bool, default=False
        Whether weights of the critic, kernels as matrices of one row per channel, are
        divided, after each step, by their largest singular value if it exceeds 1, in addition to
        the penalty of the objective: set ``NonSaturating(r1=0)`` to replace it.
    average_decay : float, default=0.99
        Decay per step of the running average of the generator's weights, which ``sample`` uses. 0:
        no average.
    learning_rate : float, default=0.001
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    critic_learning_rate : float or None, default=None
        Step size of the critic; None: that of the generator.
    critic_steps : int, default=1
        Steps of the critic for each step of the generator.
    batch_size : int, default=128
        Rows per update; as many rows are generated for it.
    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto": enough for 12,000 updates, but at least 20 and at most 300.
    optimizer : str, default="rmsprop"
        Update rule: "rmsprop", "adam", "adamw", "sgd", "momentum" (heavy ball), or, with all rows
        at once, "gradient_descent". Momentum tends to make the two networks oscillate.
    critic_optimizer : str or None, default=None
        Update rule of the critic; None: that of the generator.
    learning_rate_schedule : str or Schedule, default="cosine"
        How both learning rates change over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; minus the energy distance between them and
        samples is recorded after each epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters. None trains for ``max_epochs``.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    warm_start : bool, default=False
        Whether ``fit`` continues from the fitted parameters of both networks.
    net_params : dict or None, default=None
        Passed to the internal skorch net: callbacks, iterators, ``optimizer__weight_decay``.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial weights, batches and latents.
    verbose : int, default=0
        If nonzero, print one line per epoch.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise CUDA if available,
        otherwise the CPU.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        Parameters under their torch names: those of "critic", "generator.network" and its running
        average, "generator.average".
    architecture_ : dict
        Description of the networks in plain values.
    offset_, scale_ : ndarray of shape (n_features_in_,) or None
        Both networks see (x - offset_) / scale_: mean and standard deviation of each feature, with
        ``image_shape`` one scale for all. None if ``from_parameters`` was given none.
    critic_gap_ : float or None
        Mean of the critic's output on training rows minus that on samples. None after
        ``partial_fit``.
    sample_spread_ : float or None
        Variance of samples over that of training rows; a warning is raised if it is below 0.05.
        With ``conditional``, the variance that y explains is left out of both. None after
        ``partial_fit``.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean loss of the critic by epoch.
    validation_scores_ : ndarray
        Score of the held-out rows by epoch, if ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    classes_ : ndarray of shape (n_classes,) or None
        The labels of a conditional model.
    target_offset_, target_scale_ : ndarray of shape (n_targets,) or None
        Mean and standard deviation of numeric targets of a conditional model.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    n_samples_seen_ : int
        Number of training rows.
    training_state_ : dict
        Optimiser statistics of both networks; see ``drop_training_state``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    EnergyGAN : A critic that is an auto-encoder, with an energy.
    VAE : A decoder with an encoder, and a bound of the log density.

    Notes
    -----
    A step costs O(batch_size P) for P weights of both networks, about twice as much with a gradient
    penalty; ``spectral_norm`` adds the singular values of every weight of the critic, O(m n min(m,
    n)) for one of shape (m, n). ``transform`` descends from 3 starts, in at most 100 steps, each of
    O(n_components) passes through the generator plus O(n_components^3). Training runs in float32,
    row-wise methods in the dtype of X. Rows are standardised internally, so that their units do not
    matter. Scores are not densities: a critic compares data with the samples that it has seen, and
    says little about rows far from both.

    References
    ----------
    .. [1] I. Goodfellow, J. Pouget-Abadie, M. Mirza, B. Xu, D. Warde-Farley, S. Ozair, A. Courville
       and Y. Bengio, "Generative adversarial nets", NeurIPS 2014.
    .. [2] L. Mescheder, A. Geiger and S. Nowozin, "Which training methods for GANs do actually
       converge?", ICML 2018.
    .. [3] I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin and A. Courville, "Improved training of
       Wasserstein GANs", NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import GAN
    >>> X = np.random.default_rng(0).normal([3.0, -1.0], [2.0, 0.5], size=(1000, 2))
    >>> model = GAN(2, hidden_sizes=(32,), max_epochs=60, random_state=0).fit(X)
    >>> samples = model.sample(1000, random_state=0)
    >>> bool(np.abs(samples.mean(axis=0) - [3.0, -1.0]).max() < 0.7)
    True
    >>> model.invert(X[:2]).shape
    (2, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAdversarial._parameter_constraints,
        "objective": [StrOptions(set(GAMES)), *GAMES.values()],
        "critic": [callable, None],
    }
    _networks = ("generator", "critic")
    _bends_critic = True
    _pace = Pace(n_updates=12_000, most_epochs=300)

    def __init__(
        self,
        n_components: int = 16,
        *,
        objective: str | Game = "non_saturating",
        conditional: bool = False,
        hidden_sizes: tuple[int, ...] | int = (128, 128, 128),
        activation: str = "relu",
        image_shape: tuple[int, ...] | None = None,
        generator: Any = None,
        critic: Any = None,
        spectral_norm: bool = False,
        average_decay: float = 0.99,
        learning_rate: float = 0.001,
        critic_learning_rate: float | None = None,
        critic_steps: int = 1,
        batch_size: int = 128,
        max_epochs: int | Literal["auto"] = "auto",
        optimizer: str = "rmsprop",
        critic_optimizer: str | None = None,
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
        self.objective = objective
        self.conditional = conditional
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.image_shape = image_shape
        self.generator = generator
        self.critic = critic
        self.spectral_norm = spectral_norm
        self.average_decay = average_decay
        self.learning_rate = learning_rate
        self.critic_learning_rate = critic_learning_rate
        self.critic_steps = critic_steps
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.optimizer = optimizer
        self.critic_optimizer = critic_optimizer
        self.learning_rate_schedule = learning_rate_schedule
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.net_params = net_params
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    def _objective(self, energy: Any) -> CriticLoss:
        given = self.objective
        return CriticLoss(GAMES[given]() if isinstance(given, str) else given)

    def _assemble(self, record: NetworkRecord) -> AdversarialEnergy:
        generator = AveragedNetwork(self._from_latents(record, "generator", record["n_components"]))
        return AdversarialEnergy(generator, self._from_rows(record, "critic", 1))

    def _parts(self, energy: Any, record: NetworkRecord) -> Iterator[tuple[str, Any, int, int]]:
        yield "critic", energy.critic, record["n_features"] + record["conditional"], 1

    @property
    def _n_features_out(self) -> int:
        return int(self.architecture_["n_components"])

    def sample(self, n_samples: int = 1, random_state: RandomState = None, *, y: Any = None) -> Any:
        """Draw latents, and return the rows that the averaged generator makes of them.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.
        y : label, number or array-like, default=None
            Targets of the rows that a conditional model generates: one for all, or an array with
            one per row, in which case ``n_samples`` may be omitted. Ignored otherwise.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows, float32.
        """
        return _answers.drawn(self, n_samples, y, random_state)

    def generate(self, Z: Any, y: Any = None) -> Any:
        """Return the row that the averaged generator makes of each latent.

        Parameters
        ----------
        Z : array-like or tensor of shape (n_samples, n_components)
            Latents.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What each row of a conditional model is generated from; ignored otherwise.

        Returns
        -------
        X : array or tensor of shape (n_samples, n_features)
            Rows in the units of X.
        """
        return _answers.decoded(self, Z, y, "generate")

    def invert(self, X: Any, y: Any = None, *, n_starts: int = 5, n_steps: int = 100) -> Any:
        """Return the latent of each row: the one whose generated row is closest.

        It minimises |x - g(z)|^2 / d + 0.001 |z|^2 in standardised features: the second term keeps
        latents where the generator was trained, and decides between those of equal rows. Damped
        Newton steps lead from the same starts for every row until a step is of the size of rounding
        errors, or ten steps together have lowered the sum by less than 0.01 %. Deterministic. It
        takes at most O(n_starts n_steps n_components) passes through the generator.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What each row of a conditional model was generated from; ignored otherwise.
        n_starts : int, default=5
            Number of starts: the mean latent, then random ones. The best result is kept.
        n_steps : int, default=100
            Maximum number of steps from each start.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            Latents.
        """
        return _answers.inverted(self, X, y, n_starts, n_steps, "invert")

    def transform(self, X: Any, y: Any = None) -> Any:
        """Return the latent of each row, as ``invert`` with 3 starts and at most 100 steps.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What each row of a conditional model was generated from; ignored otherwise.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            Latents whose generated rows are close to those of X. Deterministic.
        """
        return _answers.inverted(self, X, y, 3, 100, "transform")

    def inverse_transform(self, X: Any, y: Any = None) -> Any:
        """Return the row of each latent, as ``generate``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            Latents.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What each row of a conditional model is generated from; ignored otherwise.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            Rows in the units of X.
        """
        return _answers.decoded(self, X, y, "inverse_transform")

    def energy(self, X: Any, Z: Any, y: Any = None) -> Any:
        """Return E(x, z) = |x - g(z)|^2 / d + 0.001 |z|^2, which ``invert`` minimises over z.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_components)
            One latent per row.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What is given of each row, in a conditional model; ignored otherwise.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In standardised features, of which there are d.
        """
        return _answers.paired(self, X, Z, y)

    def score_samples(self, X: Any, y: Any = None) -> Any:
        """Return the critic's output D(x) of each row: higher is more like data than samples are.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What is given of each row, in a conditional model; ignored otherwise.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            A log ratio in nats for "non_saturating"; not a log density. Deterministic.
        """
        return _answers.judged(
            self, X, y, lambda energy, x, *given: energy.judge(x, *given), "score_samples"
        )

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean output of the critic on held-out rows.

        It compares rows under one model, not models: the better the generator, the less its critic
        can tell apart. ``validation_fraction`` records the energy distance between held-out rows
        and samples.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Held-out rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What is given of each row, in a conditional model; ignored otherwise.

        Returns
        -------
        score : float
            Mean of ``score_samples(X, y)``.
        """
        return float(self.score_samples(X, y).mean())
