r"""E(x) = |x - c(x)|^2 / d; critic c lowers E(x) + max(0, m - E(g)), the generator lowers E(g)."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import torch

from sklebm._shell.private import Interval
from sklebm._shell.random import RandomState
from sklebm.adversarial import _answers
from sklebm.adversarial._base import BaseAdversarial
from sklebm.energies.adversarial import AdversarialReconstruction, AveragedNetwork
from sklebm.objectives.adversarial import CriticLoss, MarginGame
from sklebm.training.architecture import NetworkRecord
from sklebm.training.schedules import Schedule


class EnergyGAN(BaseAdversarial):
    r"""Energy-based adversarial network: the critic is an auto-encoder's reconstruction energy.

    .. math:: E(x) = \frac{1}{d} \lVert x - c(x) \rVert^2, \qquad
              L_c = \mathbb{E}_x E(x) + \mathbb{E}_z \max(0, m - E(g(z))), \qquad
              L_g = \mathbb{E}_z E(g(z)) + \alpha P,

    in standardised features. The critic c, an encoder and a decoder, lowers the energy of the data
    and raises that of generated rows up to the margin m; the generator g seeks low energies. The
    pull-away term P is the mean squared cosine between the codes of generated rows; it keeps them
    from being all alike. Without it, generated rows are distributed like the data at the
    equilibrium; with it, the equilibrium is another one.

    Parameters
    ----------
    n_components : int, default=16
        Number of latents of the generator.
    n_codes : int, default=16
        Number of latents of the critic. It may exceed the number of directions in which the data
        varies, since the margin keeps energies high where generated rows are; with 1 the pull-away
        term has no effect.
    margin : float, default=1.0
        Energy m above which generated rows no longer contribute to the critic's loss.
        Reconstructing every row as the mean row gives the energy 1.
    margin_decay : float, default=1.0
        Factor by which the margin changes in 1000 steps of the critic, at most 1.
    pull_away : float, default=0.1
        Weight of the pull-away term.
    r1 : float, default=0.0
        Weight of half the squared gradient of the energy at the data (R1), in standardised
        features, in the critic's loss. It keeps the energy flat at the data, and makes a step
        compute second derivatives.
    conditional : bool, default=False
        Whether rows are generated and judged given y, which ``fit`` and all other methods then
        need: x = g(z, y) and E(x, y) = |x - c(x, y)|^2 / d. Floating-point y are numbers, one or
        several for each row; integers, booleans and strings are labels.
    hidden_sizes : tuple of int or int, default=(128, 128)
        Widths of the hidden layers of the critic's encoder, mirrored in its decoder and in the
        generator; with ``image_shape``, the channels of its convolutions, each of which halves
        height and width.
    activation : str, default="silu"
        Activation of the hidden layers: "relu", "elu", "silu", "softplus", "sigmoid", "tanh",
        "shrink" (soft threshold 0.5), "saturated_linear" (clipped to [0, 1]) or "identity".
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of a row, for convolutional networks.
    generator : callable or None, default=None
        Torch module class to use instead, called as ``generator(n_components, n_features)``; it
        returns rows in standard units.
    encoder, decoder : callable or None, default=None
        Torch module classes of the critic to use instead, called as
        ``encoder(n_features, n_codes)`` and ``decoder(n_codes, n_features)``. With ``conditional``
        the inputs of all three are followed by an indicator of each label, or the numbers.
    spectral_norm : bool, default=False
        Whether weights of the critic, kernels as matrices of one row per channel, are
        divided, after each step, by their largest singular value if it exceeds 1, in addition to
        R1, if ``r1`` sets one.
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
        Passes over the rows. "auto": enough for 4000 updates, but at least 20 and at most 300.
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
    VAE : A decoder with an encoder, and a bound of the log density.
    Autoencoder : The energy of the critic alone, without points where it is pushed up.

    Notes
    -----
    A step costs O(batch_size P) for P weights of both networks; ``spectral_norm`` adds the singular
    values of every weight of the critic, O(m n min(m, n)) for one of shape (m, n). Training runs in
    float32, row-wise methods in the dtype of X. Rows are standardised internally, so that their
    units do not matter.

    References
    ----------
    .. [1] J. Zhao, M. Mathieu and Y. LeCun, "Energy-based generative adversarial network", ICLR
       2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import EnergyGAN
    >>> X = np.random.default_rng(0).normal(size=(600, 2)) @ np.array([[1.0, 0.9], [0.0, 0.2]])
    >>> model = EnergyGAN(2, n_codes=1, hidden_sizes=(32,), max_epochs=30, random_state=0).fit(X)
    >>> energy = model.free_energy([[1.0, 0.9], [1.0, -0.9]])  # along the cloud, and across it
    >>> bool(energy[0] < energy[1])
    True
    >>> model.sample(3, random_state=0).shape
    (3, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAdversarial._parameter_constraints,
        "n_codes": [Interval(Integral, 1, None, closed="left")],
        "margin": [Interval(Real, 0, None, closed="neither")],
        "margin_decay": [Interval(Real, 0, 1, closed="right")],
        "pull_away": [Interval(Real, 0, None, closed="left")],
        "r1": [Interval(Real, 0, None, closed="left")],
        "encoder": [callable, None],
        "decoder": [callable, None],
    }
    _networks = ("generator", "encoder", "decoder")
    _bends_critic = False  # an auto-encoder that starts nearly linear keeps energies apart

    def __init__(
        self,
        n_components: int = 16,
        *,
        n_codes: int = 16,
        margin: float = 1.0,
        margin_decay: float = 1.0,
        pull_away: float = 0.1,
        r1: float = 0.0,
        conditional: bool = False,
        hidden_sizes: tuple[int, ...] | int = (128, 128),
        activation: str = "silu",
        image_shape: tuple[int, ...] | None = None,
        generator: Any = None,
        encoder: Any = None,
        decoder: Any = None,
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
        self.n_codes = n_codes
        self.margin = margin
        self.margin_decay = margin_decay
        self.pull_away = pull_away
        self.r1 = r1
        self.conditional = conditional
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.image_shape = image_shape
        self.generator = generator
        self.encoder = encoder
        self.decoder = decoder
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
        game = MarginGame(
            margin=float(self.margin),
            margin_decay=float(self.margin_decay),
            pull_away=float(self.pull_away),
            r1=float(self.r1),
        )
        return CriticLoss(game)

    def _further_values(self) -> dict[str, Any]:
        return {"n_codes": int(self.n_codes)}

    def _assemble(self, record: NetworkRecord) -> AdversarialReconstruction:
        n_codes = record["n_codes"]
        generator = AveragedNetwork(self._from_latents(record, "generator", record["n_components"]))
        encoder = self._from_rows(record, "encoder", n_codes)
        return AdversarialReconstruction(
            generator, encoder, self._from_latents(record, "decoder", n_codes)
        )

    def _parts(self, energy: Any, record: NetworkRecord) -> Iterator[tuple[str, Any, int, int]]:
        n_features, n_codes, n_given = (
            record[name] for name in ("n_features", "n_codes", "conditional")
        )
        yield "encoder", energy.critic["encoder"], n_features + n_given, n_codes
        yield "decoder", energy.critic["decoder"], n_codes + n_given, n_features

    @property
    def _n_features_out(self) -> int:
        return int(self.architecture_["n_codes"])

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
        """Return the critic's code of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What is given of each row, in a conditional model; ignored otherwise.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_codes)
            The output of the critic's encoder.
        """
        return _answers.judged(
            self, X, y, lambda energy, x, *given: energy.encode(x, *given), "transform"
        )

    def inverse_transform(self, X: Any, y: Any = None) -> Any:
        """Return the row that the critic's decoder makes of each code.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_codes)
            Codes, as ``transform`` returns them.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What is given of each row, in a conditional model; ignored otherwise.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            Rows in the units of X.
        """
        return _answers.judged(
            self,
            X,
            y,
            lambda energy, z, *given: energy.decode_codes(z, *given),
            "inverse_transform",
            latents=True,
        )

    def energy(self, X: Any, Z: Any, y: Any = None) -> Any:
        """Return E(x, z) = |x - c(z)|^2 / d, the error of the row that the critic makes of a code.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_codes)
            One code per row.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What is given of each row, in a conditional model; ignored otherwise.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In standardised features; at ``transform(X)`` it is ``free_energy(X)``.
        """
        return _answers.paired(self, X, Z, y)

    def free_energy(self, X: Any, y: Any = None) -> Any:
        """Return E(x), the critic's mean squared error in standardised features.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What is given of each row, in a conditional model; ignored otherwise.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            1 is the mean error of the mean row.
        """
        return _answers.judged(
            self, X, y, lambda energy, x, *given: energy.judge(x, *given), "free_energy"
        )

    def score_samples(self, X: Any, y: Any = None) -> Any:
        """Return -E(x) of each row: higher is more typical, but it is no log density.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What is given of each row, in a conditional model; ignored otherwise.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            ``-free_energy(X)``. Deterministic.
        """
        return _answers.judged(
            self, X, y, lambda energy, x, *given: -energy.judge(x, *given), "score_samples"
        )

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the critic's mean energy of held-out rows.

        Comparable between settings of training for the same ``n_codes``: a wider code always
        reconstructs better. ``validation_fraction`` records the energy distance between held-out
        rows and samples, which judges the generator.

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
