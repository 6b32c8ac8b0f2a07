r"""z = f(x): z_0 = h(W x), z_t = h(W x + S z_{t-1}) for t = 1..T; F(x) = E(x, f(x))."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self, cast

import torch

from sklebm._shell.private import Interval, StrOptions, fit_context
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm.coding._base import EncoderEstimator, encoded, free_energies, reconstructed
from sklebm.coding._state import decoded
from sklebm.coding._target_codes import CodedRows, coded_rows
from sklebm.coding._unfolding import blank_encoder, check_mask, first_energy, unfolding_record
from sklebm.gradient import GradientEstimator
from sklebm.inference.unfolded import UnfoldedEncoder
from sklebm.objectives import Batch, CodePrediction
from sklebm.training.schedules import Schedule


class LISTAEncoder(EncoderEstimator):
    r"""Learnt ISTA: a network of few layers that predicts sparse codes.

    .. math:: z_0 = h_{\theta_0}(W x), \qquad z_t = h_{\theta_t}(W x + S z_{t-1}), \quad
              t = 1, \dots, T,

    .. math:: F(x) = \tfrac12 \|x - z_T D\|^2 + \alpha \|z_T\|_1,

    with the soft threshold h. W, S and the thresholds are initialised as those of a solver, so the
    untrained network performs T + 1 steps of that solver. They are then learnt by backpropagation
    through the layers until :math:`z_T` is close to the optimal codes of the training rows, or to
    codes you supply.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of atoms. None: as many as there are features, or as the dictionary or codes have.
    n_layers : int, default=3
        T, the number of layers after the first shrinkage.
    alpha : float, default=0.1
        Weight of the L1 penalty; see ``SparseCoder``.
    dictionary : array-like of shape (n_components, n_features) or None, default=None
        Atoms. None: learnt from X by ``SparseCoder``, or by least squares if codes are given.
    variant : {"lista", "lcod", "coupled"}, default="lista"
        The solver to unfold: ISTA; coordinate descent, where each layer updates one entry and a
        final shrinkage applies to all; or ISTA with W and S tied, :math:`z_t = h(z_{t-1} + g_t W (x
        - z_{t-1} D))`, which has fewer weights and learns more from few rows.
    shared_weights : bool, default=True
        Whether all layers share W and S. Each layer has its own thresholds (and g).
    learn_weights : bool, default=True
        Whether to learn W and S; if not, only thresholds (and g) are learnt.
    init : {"solver", "analytic"}, default="solver"
        Initial W: that of the solver, or, for "lista" and "coupled", the matrix least coherent with
        the atoms. The latter with "coupled" and ``learn_weights=False`` is ALISTA.
    selection_rate : float, default=0.0
        For "coupled": the fraction of entries, the largest ones, that layer t does not shrink is t
        + 1 times this rate.
    max_selection : float, default=0.08
        Upper limit of that fraction; slightly less than the fraction of non-zeros works best.
    inhibition_mask : float, array-like of shape (n_components, n_components) or None, default=None
        Where S may be non-zero: everywhere (None); for this fraction of the pairs of atoms, those
        with the largest products; or where the array is true.
    supervised_layers : {"last", "all"}, default="last"
        What to minimise: half the squared error of the last layer, or the mean logarithm of the
        relative errors of all layers, which trains deep networks faster.
    learning_rate : float, default=0.001
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=128
        Rows per update.
    max_epochs : int, default=50
        Passes over the rows.
    optimizer : str, default="adam"
        Update rule: "adam", "adamw", "sgd", "momentum" (heavy ball), "rmsprop", or, with all rows
        at once, "gradient_descent" and "lbfgs".
    learning_rate_schedule : str or Schedule, default="cosine"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; the negative of half their squared code error
        is recorded after each epoch.
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
        Seed for the batches, and for the dictionary if one is learnt.
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
    components_ : ndarray of shape (n_components, n_features_in_)
        The atoms D.
    alpha_, penalty_ : float, dict
        Weight and name of the penalty used in the fit.
    weights_ : dict of str to ndarray
        "weights" (W), "lateral" (S) and its "mask", "thresholds", "steps" (g).
    architecture_ : dict
        Description of the network in plain values.
    loss_curve_ : ndarray of shape (n_iter_,)
        The loss that ``supervised_layers`` chooses, by epoch.
    validation_scores_ : ndarray
        Minus half the held-out squared code error by epoch, if ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
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
    SparseCoder : The optimal codes that this network predicts.

    Notes
    -----
    With k atoms and d features, a code costs O(k d + T k^2), with "coupled" O(T k d) and with
    "lcod" O(k d + T k); a training step costs three times as much per row. Training runs in
    float32; scale X so that codes are of order one. ``partial_fit`` keeps the dictionary of its
    first call. Use ``score`` to compare networks with the same dictionary and ``alpha``.

    References
    ----------
    .. [1] K. Gregor and Y. LeCun, "Learning fast approximations of sparse coding", ICML 2010.
    .. [2] X. Chen, J. Liu, Z. Wang and W. Yin, "Theoretical linear convergence of unfolded ISTA and
       its practical weights and thresholds", NeurIPS 2018.
    .. [3] J. Liu, X. Chen, Z. Wang and W. Yin, "ALISTA: analytic weights are as good as learned
       weights in LISTA", ICLR 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import LISTAEncoder, SparseCoder
    >>> X = load_digits().data / 16
    >>> coder = SparseCoder(100, alpha=0.3, random_state=0).fit(X[:1500])
    >>> encoder = LISTAEncoder(dictionary=coder.components_, alpha=0.3, random_state=0)
    >>> Z, Z_test = encoder.fit(X[:1500]).transform(X[1500:]), coder.transform(X[1500:])
    >>> bool(((Z - Z_test) ** 2).sum() < 0.4 * (Z_test**2).sum())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GradientEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "n_layers": [Interval(Integral, 0, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "dictionary": ["array-like", None],
        "variant": [StrOptions({"lista", "lcod", "coupled"})],
        "shared_weights": ["boolean"],
        "learn_weights": ["boolean"],
        "init": [StrOptions({"solver", "analytic"})],
        "selection_rate": [Interval(Real, 0, 1, closed="both")],
        "max_selection": [Interval(Real, 0, 1, closed="both")],
        "inhibition_mask": [Interval(Real, 0, 1, closed="right"), "array-like", None],
        "supervised_layers": [StrOptions({"last", "all"})],
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        n_layers: int = 3,
        alpha: float = 0.1,
        dictionary: Any = None,
        variant: Literal["lista", "lcod", "coupled"] = "lista",
        shared_weights: bool = True,
        learn_weights: bool = True,
        init: Literal["solver", "analytic"] = "solver",
        selection_rate: float = 0.0,
        max_selection: float = 0.08,
        inhibition_mask: Any = None,
        supervised_layers: Literal["last", "all"] = "last",
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
        self.n_layers = n_layers
        self.alpha = alpha
        self.dictionary = dictionary
        self.variant = variant
        self.shared_weights = shared_weights
        self.learn_weights = learn_weights
        self.init = init
        self.selection_rate = selection_rate
        self.max_selection = max_selection
        self.inhibition_mask = inhibition_mask
        self.supervised_layers = supervised_layers
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

    # ------------------------------------------------------------------ learning

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, *, codes: Any = None) -> Self:
        """Learn to predict the codes of the rows of X.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        codes : array-like or tensor of shape (n_samples, n_components) or None, default=None
            Target codes; None computes the optimal ones.

        Returns
        -------
        self : object
            The fitted encoder. An exception or an interrupt leaves it as it was before.
        """
        return self._learn(X, self._fit, codes=codes)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, *, codes: Any = None) -> Self:
        """Continue learning with one pass over a chunk of rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The next chunk of training rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        codes : array-like or tensor of shape (n_samples, n_components) or None, default=None
            Target codes; None computes the optimal ones.

        Returns
        -------
        self : object
            The updated encoder. An exception or an interrupt leaves it as it was before.
        """
        return self._learn(X, self._partial_fit, first=not self._is_fitted(), codes=codes)

    # ------------------------------------------------------------------ the model

    def _architecture(self, n_features: int, n_components: int) -> dict[str, Any]:
        return unfolding_record(self, n_features, n_components)

    def _blank_encoder(
        self, architecture: dict[str, Any], dictionary: torch.Tensor
    ) -> UnfoldedEncoder:
        return blank_encoder(architecture, dictionary)

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> CodedRows:
        return coded_rows(self, rows, seed, resume=resume, **data)

    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        atoms = cast(CodedRows, rows).atoms.cpu().double()
        return first_energy(self, atoms, self._architecture(rows.shape[1], len(atoms)))

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        check_mask(self)

    def _objective(self, energy: Any) -> CodePrediction:
        for matrix in energy.encoder.matrices():
            matrix.requires_grad_(bool(self.learn_weights))
        return CodePrediction(self.supervised_layers)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        """Minus half the squared error of the last layer's codes."""
        return -float(CodePrediction().loss(energy, batch, {}, torch.Generator())[0])

    # ------------------------------------------------------------------ row-wise methods

    def transform(self, X: Any) -> Any:
        """Return the predicted code of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            f(x), the encoder's output.
        """
        return self._map_rows(X, encoded, "transform")

    def inverse_transform(self, X: Any) -> Any:
        """Return the reconstructions z D of codes z.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            Reconstructed rows.
        """
        return self._map_rows(X, decoded, "inverse_transform", latents=True)

    def reconstruct(self, X: Any) -> Any:
        """Return f(x) D, the reconstruction from each row's predicted code.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            Their reconstructions.
        """
        return self._map_rows(X, reconstructed, "reconstruct")

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each row paired with its code.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_components)
            Codes, one for each row.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        return self._pair_energies(X, Z, may_be_infinite=True)

    def free_energy(self, X: Any) -> Any:
        """Return F(x) = E(x, f(x)), an upper bound on the lowest energy over all codes.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        return self._map_rows(X, free_energies, "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return -F(x), which is not normalised.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Minus the free energy, in squared units of X. Higher is more typical.
        """
        return -self.free_energy(X)
