r"""E(x, z) = 1/2 |x - z D|^2 + alpha R(z) + w/2 |z - f(x)|^2, |d_k| <= 1; F(x) = E(x, f(x))."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import warn_of_unequal_spans
from sklebm._shell.state import Spec
from sklebm.coding._base import EncoderEstimator, encoded, free_energies, reconstructed
from sklebm.coding._dictionary import initial_atoms
from sklebm.coding._penalty import recall_penalty, record_penalty, resolve_penalty
from sklebm.coding._state import decoded, dictionary_spec
from sklebm.energies import Penalty, PredictiveSparseCodingEnergy
from sklebm.energies.penalties import PENALTIES
from sklebm.gradient import GradientEstimator
from sklebm.inference.linear_tanh import LinearTanhEncoder
from sklebm.inference.unfolded import Unfolding
from sklebm.objectives import Batch, PredictiveDecomposition
from sklebm.training.schedules import Schedule


class PredictiveSparseDecomposition(EncoderEstimator):
    r"""Sparse coding with an encoder learnt together with the dictionary.

    .. math:: E(x, z) = \tfrac12 \|x - z D\|^2 + \alpha R(z) + \tfrac{w}{2} \|z - f(x)\|^2, \qquad
              F(x) = E(x, f(x)), \qquad \|d_k\| \le 1.

    For each batch, the codes of lowest energy are found first; the last term pulls them towards the
    prediction of the encoder f. Dictionary and encoder then take a gradient step with these codes
    held fixed. After training, the encoder alone computes the code of a row.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of atoms. None: as many as there are features.
    alpha : float, default=0.1
        Weight of the penalty; see ``SparseCoder``.
    penalty : str or Penalty, default="l1"
        R: "l1", "elastic_net", "group", "topographic" (neighbours on a torus are active together),
        "lq" or "lateral_inhibition"; or an object of ``sklebm.energies`` with its own settings,
        such as ``Topographic(grid=(16, 16), pool_size=3)``.
    encoder : {"lista", "shrink", "linear_tanh"}, default="lista"
        f: unfolded ISTA with ``n_layers`` layers after the first shrinkage; a soft threshold of W
        x, which is "lista" without these further layers; or g tanh(W x + b), whose codes are not
        sparse.
    n_layers : int, default=3
        Number of layers of "lista".
    prediction_weight : float, default=1.0
        Weight w. Larger values give codes that are easier to predict but reconstruct less well.
    learning_rate : float, default=0.005
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=128
        Rows per update.
    max_epochs : int, default=20
        Passes over the rows.
    optimizer : str, default="adam"
        Update rule: "adam", "adamw", "sgd", "momentum" (heavy ball), "rmsprop", or, with all rows
        at once, "gradient_descent" and "lbfgs".
    learning_rate_schedule : str or Schedule, default="cosine"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; the negative of their mean minimum energy is
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
        Seed for the initial atoms, which are rows of X, and for the batches.
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
        Weight, name and settings of the penalty used in the fit.
    weights_ : dict of str to ndarray
        Parameters of the encoder: "weights" (W), and "lateral" and "thresholds", or "bias" and
        "gains".
    architecture_ : dict
        Description of the encoder, and the weight w, in plain values.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean minimum energy of the batches by epoch.
    validation_scores_ : ndarray
        Minus the held-out mean minimum energy by epoch, if ``validation_fraction`` is set.
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
    SparseCoder : Optimal codes, and a dictionary that is learnt faster.
    LISTAEncoder : An encoder for an existing dictionary.

    Notes
    -----
    With k atoms and d features, the codes of lowest energy of a batch cost O(k (d + k)) per row
    with the default penalty and O(k^2) for each of hundreds of iterations with the others; a
    predicted code costs O(k d + T k^2). Training runs in float32; scale X so that rows have a
    length of order one. Use ``score`` to compare models with the same ``alpha`` and ``penalty`` on
    the same features.

    References
    ----------
    .. [1] K. Kavukcuoglu, M. Ranzato and Y. LeCun, "Fast inference in sparse coding algorithms
       with applications to object recognition", 2008.
    .. [2] K. Kavukcuoglu, M. Ranzato, R. Fergus and Y. LeCun, "Learning invariant features through
       topographic filter maps", CVPR 2009.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import PredictiveSparseDecomposition, SparseCoder
    >>> X = load_digits().data / 16
    >>> model = PredictiveSparseDecomposition(64, alpha=0.2, random_state=0).fit(X[:1500])
    >>> optimal = SparseCoder(dictionary=model.components_, alpha=0.2).fit(X[:1500])
    >>> bool(model.score(X[1500:]) > 1.2 * optimal.score(X[1500:]))  # energies are negative scores
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GradientEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "penalty": [
            StrOptions({k for k, v in PENALTIES.items() if v.finite}),
            Penalty,
        ],
        "encoder": [StrOptions({"lista", "shrink", "linear_tanh"})],
        "n_layers": [Interval(Integral, 0, None, closed="left")],
        "prediction_weight": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        alpha: float = 0.1,
        penalty: str | Penalty = "l1",
        encoder: Literal["lista", "shrink", "linear_tanh"] = "lista",
        n_layers: int = 3,
        prediction_weight: float = 1.0,
        learning_rate: float = 0.005,
        batch_size: int = 128,
        max_epochs: int = 20,
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
        self.alpha = alpha
        self.penalty = penalty
        self.encoder = encoder
        self.n_layers = n_layers
        self.prediction_weight = prediction_weight
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

    # ------------------------------------------------------------------ the model

    def _architecture(self, n_features: int, n_components: int) -> dict[str, Any]:
        return {
            "n_features": n_features,
            "n_components": n_components,
            "encoder": str(self.encoder),
            "n_layers": int(self.n_layers) if self.encoder == "lista" else 0,
            "prediction_weight": float(self.prediction_weight),
        }

    def _blank_encoder(self, architecture: dict[str, Any], dictionary: Tensor) -> nn.Module:
        k, d = dictionary.shape
        weights, vector = torch.empty(k, d, device="meta"), torch.empty(k, device="meta")
        if architecture["encoder"] == "linear_tanh":
            return LinearTanhEncoder(weights, vector, vector.clone())
        lateral = torch.empty(k, k, device="meta")
        unfolding = Unfolding("lista", int(architecture["n_layers"]))
        return unfolding.assemble(dictionary, weights, vector, lateral)

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> Rows:
        if not resume:
            warn_of_unequal_spans(type(self).__name__, rows)
        return rows

    def _state_spec(self) -> Spec:
        return {**super()._state_spec(), **dictionary_spec(of="atoms")}  # of length at most one

    def _initial_energy(self, rows: Rows, means: Tensor, generator: torch.Generator) -> Any:
        k = self.n_components or rows.shape[1]
        penalty = self._resolved_penalty(k)
        architecture = self._architecture(rows.shape[1], k)
        zero = torch.zeros(rows.shape[1], dtype=torch.float64)
        atoms = initial_atoms(rows.all().cpu(), k, "data", zero, generator, rows.ranks)
        encoder: nn.Module = LinearTanhEncoder.start(atoms)
        if self.encoder != "linear_tanh":
            encoder = Unfolding("lista", architecture["n_layers"]).start(atoms, float(self.alpha))
        energy: Any = PredictiveSparseCodingEnergy(
            encoder, atoms, penalty, float(self.alpha), float(self.prediction_weight)
        )
        energy.architecture = architecture
        return energy.float()

    def _wrap(self, encoder: nn.Module, dictionary: Tensor) -> PredictiveSparseCodingEnergy:
        penalty, weight = recall_penalty(self.penalty_), self.architecture_["prediction_weight"]
        return PredictiveSparseCodingEnergy(encoder, dictionary, penalty, self.alpha_, weight)

    def _resolved_penalty(self, n_components: int) -> Penalty:
        penalty = resolve_penalty(self.penalty, n_components)
        # Soft-threshold encoders can guarantee neither fixed signs nor a fixed number of non-zeros.
        if not penalty.finite:
            raise ValueError(
                f"penalty={self.penalty!r} rules out codes that an encoder predicts: use "
                '"l1", or another penalty that is finite everywhere.'
            )
        return penalty

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        asked = record_penalty(self._resolved_penalty(len(self.components_)))
        if asked != self.penalty_:
            raise ValueError(
                f"penalty={self.penalty!r} differs from the fitted {self.penalty_} that training "
                "would continue from: set it back, or fit with warm_start=False."
            )

    # ------------------------------------------------------------------ learning

    def _objective(self, energy: Any) -> PredictiveDecomposition:
        return PredictiveDecomposition()

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        """Minus the mean minimum energy of held-out rows."""
        return -float(PredictiveDecomposition().loss(energy, batch, {}, torch.Generator())[0])

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
