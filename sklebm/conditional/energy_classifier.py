r"""p(y | x) = exp(-beta F(x, y)) / sum_k exp(-beta F(x, k)), F = -f_y(x): energies of labels."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from sklebm import settling
from sklebm._shell.labels import decode, encode, read_labels, weigh
from sklebm._shell.private import Interval, StrOptions, fit_context
from sklebm._shell.random import RandomState
from sklebm._shell.state import Labels, Scalar, Spec
from sklebm.conditional._base import ConditionalEstimator
from sklebm.energies.labelled import LabelEnergy
from sklebm.inference.langevin import Langevin
from sklebm.objectives import (
    Batch,
    ConditionalLikelihood,
    DenoisingScoreMatching,
    HingeLoss,
    LabelNoiseContrastive,
    Objective,
    PerceptronLoss,
    PersistentContrastiveDivergence,
    SquareExponentialLoss,
    check_needs,
    resolve_objective,
)
from sklebm.objectives.label_losses import JointLoss, LabelLoss, PenalizedLoss
from sklebm.training.architecture import NetworkRecord
from sklebm.training.schedules import Schedule

OBJECTIVES: dict[str, type[LabelLoss]] = {
    "nll": ConditionalLikelihood,
    "perceptron": PerceptronLoss,
    "hinge": HingeLoss,
    "square_exponential": SquareExponentialLoss,
    "nce": LabelNoiseContrastive,
}
ROW_OBJECTIVES = ("denoising_score_matching", "pcd")


class EnergyClassifier(ClassifierMixin, ConditionalEstimator):
    r"""Classifier by energies: one for each label, and the label of lowest energy is the answer.

    .. math:: F(x, y) = -f_y(x), \qquad p(y \mid x) = \frac{e^{-\beta F(x, y)}}
              {\sum_k e^{-\beta F(x, k)}}, \qquad
              F_\beta(x) = -\frac{1}{\beta} \log \sum_y e^{-\beta F(x, y)}

    with the outputs f of a network [1]_. With ``joint`` the free energy :math:`F_\beta(x)` is
    trained too, so that :math:`-F_\beta(x)` is the log density of rows up to a constant [2]_, low
    where no class explains a row. To keep that density finite, :math:`\lVert u \rVert^2 / 2`, with
    u the standardised row, is then added to all F(x, y).

    Parameters
    ----------
    hidden_sizes : tuple of int or int, default=(128,)
        Widths of the hidden layers; with ``image_shape`` the channels of convolutions, each of
        which halves height and width. Empty: f is linear, and the default objective makes it
        logistic regression.
    activation : str, default="silu"
        Activation of the hidden layers: "silu", "relu", "elu", "softplus", "sigmoid", "tanh",
        "shrink", "saturated_linear" or "identity". Use a smooth one with ``joint``.
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of a row, for convolutions.
    network : callable or None, default=None
        A torch module class, called with the numbers of features and of labels, instead of the
        built-in network. None builds one from the parameters above.
    objective : str or Objective, default="nll"
        The loss: "nll", minus the log probability of the correct label; "perceptron", F(x, y) minus
        the lowest energy; "hinge", which asks the wrong label of lowest energy to lie a margin
        above the correct one; "square_exponential", which pulls F(x, y) to 0 and pushes the energy
        of that wrong label up; "nce", which tells labels from random ones and makes exp(-beta F)
        sum to 1 over labels. Or an object with its own settings, such as
        ``sklebm.objectives.HingeLoss(margin=2.0)``.
    beta : float, default=1.0
        Inverse temperature of the probabilities. Must be 1 with ``joint``.
    joint : bool, str or Objective, default=False
        Whether log p(x) is learnt as well. "denoising_score_matching" (also True) or "pcd"
        (persistent Langevin chains), or an object with its own settings, in units of standardised
        rows.
    joint_weight : float, default=1.0
        Weight of the objective of the rows relative to that of the labels. Ignored without
        ``joint``.
    alpha : float, default=1e-4
        Weight of the L2 penalty: alpha / 2 times the sum of the squared weights, not counting
        biases, is added to the mean loss. ``C`` of logistic regression is 1 / (alpha n).
    class_weight : dict, "balanced" or None, default=None
        Weights of the labels, which multiply those of the rows; "balanced": inversely proportional
        to the frequency of the label.
    standardize : bool, default=True
        Whether the network sees features of mean 0 and variance 1. Required by ``joint``.
    learning_rate : float, default=0.01
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=128
        Rows per update.
    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto": 2000 updates, but at least 20 and at most 300 passes.
    optimizer : str, default="adam"
        Update rule: "adam", "adamw", "sgd", "momentum", "rmsprop", or, with all rows at once,
        "gradient_descent" and "lbfgs" (not with ``joint``).
    learning_rate_schedule : str or Schedule, default="cosine"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; minus their loss is recorded after each
        epoch.
    n_iter_no_change : int or None, default=None
        Stop when the validation score has not improved by ``tol`` for this many epochs, and keep
        the best parameters. None trains for ``max_epochs``. The score is that of the labels, also
        with ``joint``: a density learns more slowly, and is best trained with None.
    tol : float, default=1e-4
        Minimum absolute improvement that counts as progress.
    warm_start : bool, default=False
        Whether ``fit`` continues from the fitted parameters; the labels must be the same.
    net_params : dict or None, default=None
        Passed to the internal skorch net: callbacks, iterators, ``optimizer__weight_decay``.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial weights, batches, noise and chains.
    verbose : int, default=0
        If nonzero, print one line per epoch.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise CUDA if available,
        otherwise the CPU.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels in ascending order.
    beta_ : float
        The inverse temperature at the time of ``fit``.
    weights_ : dict of str to ndarray
        Parameters under their torch names: "network.0.weight" and so on.
    architecture_ : dict
        Description of the network in plain values.
    offset_, scale_ : ndarray of shape (n_features_in_,) or None
        The network sees (x - offset_) / scale_. None with ``standardize=False``.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean objective of the batches by epoch, with its penalty.
    validation_scores_ : ndarray
        Minus the loss of the held-out rows by epoch, if ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    n_samples_seen_ : int
        Number of distinct training rows.
    training_state_ : dict
        Optimiser statistics and chains; see ``drop_training_state``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    LogitEnergyScorer : The free energy of any classifier as a score of outliers.
    sklearn.linear_model.LogisticRegression : The linear case.

    Notes
    -----
    A step costs O(batch_size P) for P weights, twice that with ``joint`` by score matching.
    Training runs in float32, row-wise methods in the dtype of X. Features are standardised inside,
    so their units do not matter. ``fit`` merges equal rows with equal labels, so weighting a row
    has the same effect as repeating it, and the order of the rows does not matter; rows of a memory
    map are not merged. Without ``joint`` the level of F(x, .) is arbitrary.

    References
    ----------
    .. [1] Y. LeCun, S. Chopra, R. Hadsell, M. Ranzato and F. J. Huang, "A tutorial on energy-based
       learning", in Predicting Structured Data, 2006.
    .. [2] W. Grathwohl, K.-C. Wang, J.-H. Jacobsen, D. Duvenaud, M. Norouzi and K. Swersky, "Your
       classifier is secretly an energy based model and you should treat it like one", ICLR 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklebm import EnergyClassifier
    >>> X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
    >>> model = EnergyClassifier(max_epochs=30, random_state=0).fit(X, y)
    >>> bool(model.score(X_test, y_test) > 0.95)
    True
    >>> model.energy(X_test, y_test).shape, model.predict_proba(X_test).shape
    ((450,), (450, 10))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ConditionalEstimator._parameter_constraints,
        "image_shape": ["array-like", None],
        "standardize": ["boolean"],
        "objective": [StrOptions(set(OBJECTIVES)), LabelLoss],
        "beta": [Interval(Real, 0, None, closed="neither")],
        "joint": ["boolean", StrOptions(set(ROW_OBJECTIVES)), Objective],
        "joint_weight": [Interval(Real, 0, None, closed="neither")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }
    _of_targets = ("classes_",)
    _settle_chains = settling.settle_chains

    classes_: NDArray[Any]
    beta_: float

    def __init__(
        self,
        hidden_sizes: tuple[int, ...] | int = (128,),
        *,
        activation: str = "silu",
        image_shape: tuple[int, ...] | None = None,
        network: Any = None,
        objective: str | Objective = "nll",
        beta: float = 1.0,
        joint: bool | str | Objective = False,
        joint_weight: float = 1.0,
        alpha: float = 1e-4,
        class_weight: Any = None,
        standardize: bool = True,
        learning_rate: float = 0.01,
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
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.image_shape = image_shape
        self.network = network
        self.objective = objective
        self.beta = beta
        self.joint = joint
        self.joint_weight = joint_weight
        self.alpha = alpha
        self.class_weight = class_weight
        self.standardize = standardize
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

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the model to the rows of X and their labels.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,)
            Labels: integers, booleans or strings.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights of the rows; None weights all equally.

        Returns
        -------
        self : object
            The fitted estimator. It is left unchanged by an exception or an interrupt.
        """
        labels = read_labels(y, type(self).__name__)
        classes = np.unique(labels)
        if self._resumes() and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"y has the labels {classes.tolist()}, but the fitted {type(self).__name__} that "
                f"warm_start continues from has {self.classes_.tolist()}: set warm_start=False."
            )
        return self._learn_labels(X, labels, self._fit, classes, sample_weight)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Update the energy with one pass over a chunk of rows.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            The next chunk of training rows.
        y : array-like of shape (n_samples,)
            Their labels.
        classes : array-like of shape (n_classes,) or None, default=None
            All labels that may occur in any chunk; required in the first call.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights of the rows, relative to a row of weight 1.

        Returns
        -------
        self : object
            The updated estimator. It is left unchanged by an exception or an interrupt.
        """
        self._validate_params()
        owner, first = type(self).__name__, not self._is_fitted()
        labels = read_labels(y, owner)
        if self.class_weight == "balanced":
            raise ValueError(
                'class_weight="balanced" needs the labels of all rows, and partial_fit sees a '
                "chunk: pass a dict of weights by label."
            )
        if classes is None and first:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        known = np.unique(self.classes_ if classes is None else read_labels(classes, owner))
        if not first and not np.array_equal(known, self.classes_):
            raise ValueError(
                f"classes={known.tolist()} are not those of earlier calls, "
                f"{self.classes_.tolist()}: leave classes out."
            )
        return self._learn_labels(X, labels, self._partial_fit, known, sample_weight)

    def _learn_labels(
        self, X: Any, labels: NDArray[Any], step: Any, classes: NDArray[Any], sample_weight: Any
    ) -> Self:
        codes = encode(labels, classes, type(self).__name__)
        weight = weigh(sample_weight, self.class_weight, labels, classes)
        first = step == self._fit or not self._is_fitted()
        columns = {"target": codes, "weight": weight}
        beta = float(self.beta)
        return self._learn(X, step, first=first, columns=columns, classes_=classes, beta_=beta)

    def _objective(self, energy: Any) -> Objective:
        loss = resolve_objective(self.objective, OBJECTIVES, {})
        if self.joint is False:
            return PenalizedLoss(loss, float(self.alpha))
        rows = self._objective_of_rows()
        objective = JointLoss(loss, float(self.alpha), rows, float(self.joint_weight))
        check_needs(objective, energy, [DenoisingScoreMatching, PersistentContrastiveDivergence])
        return objective

    def _objective_of_rows(self) -> Objective:
        """The objective of the free energy, for standardised rows."""
        if self.beta != 1.0 or not self.standardize:
            raise ValueError(
                f"joint={self.joint!r} models log p(x) of standardised rows at beta=1, but beta="
                f"{self.beta} and standardize={self.standardize}: leave both at their defaults."
            )
        if isinstance(self.joint, Objective):
            return self.joint
        if self.joint == "pcd":
            return PersistentContrastiveDivergence(10, sampler=Langevin(0.3), n_chains=1000)
        return DenoisingScoreMatching(0.5)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        energy.eval()
        loss: Any = resolve_objective(self.objective, OBJECTIVES, {})
        values = loss.values(energy.label_energies(batch.x), batch.target, energy.beta)
        return -float(batch.mean(values.double()))

    def _n_outputs(self) -> int:
        return len(self.classes_)

    def _further_values(self) -> dict[str, Any]:
        return {"confined": int(self.joint is not False)}

    def _assemble(self, record: NetworkRecord) -> LabelEnergy:
        network = record.encoder(record["n_components"], name="network")
        beta = getattr(self, "beta_", self.beta)
        return LabelEnergy(network, float(beta), record["n_features"], bool(record["confined"]))

    def _export(self, energy: Any) -> dict[str, Any]:
        return {**super()._export(energy), "beta_": float(energy.beta)}

    def _state_spec(self) -> Spec:
        return {**super()._state_spec(), "classes_": Labels(), "beta_": Scalar(float, minimum=0.0)}

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return {**super()._untrained_state(given), "beta_": float(self.beta)}

    @property
    def _n_features_out(self) -> int:
        return len(self.classes_)

    def _codes(self, y: Any) -> NDArray[np.int64]:
        check_is_fitted(self)
        name = type(self).__name__
        return encode(read_labels(y, name), self.classes_, name)[:, None]

    def predict(self, X: Any) -> Any:
        """Return the label of lowest energy for each row.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray or tensor of shape (n_samples,)
            Labels; a tensor if X is one and the labels are numbers.
        """
        codes = self._map_rows(X, lambda energy, x: energy.logits(x).argmax(dim=1), "predict")
        return decode(codes, self.classes_)

    def predict_proba(self, X: Any) -> Any:
        """Return p(y | x) of every label for each row.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        p : array or tensor of shape (n_samples, n_classes)
            Probabilities in the order of ``classes_``.
        """
        return self._map_rows(X, lambda energy, x: energy.log_posterior(x).exp(), "predict_proba")

    def predict_log_proba(self, X: Any) -> Any:
        """Return log p(y | x) of every label for each row.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_p : array or tensor of shape (n_samples, n_classes)
            In nats, in the order of ``classes_``.
        """
        return self._map_rows(X, lambda energy, x: energy.log_posterior(x), "predict_log_proba")

    def decision_function(self, X: Any) -> Any:
        """Return minus the energies of the labels, up to a term that all labels of a row share.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        f : array or tensor of shape (n_samples, n_classes), or (n_samples,) for two classes
            f_y(x) = -F(x, y); for two classes f_1(x) - f_0(x), positive where ``classes_[1]`` is
            predicted.
        """
        two = len(self.classes_) == 2 if self._is_fitted() else False

        def logits(energy: Any, x: torch.Tensor) -> torch.Tensor:
            f: torch.Tensor = energy.logits(x)
            return f[:, 1] - f[:, 0] if two else f

        return self._map_rows(X, logits, "decision_function")

    def logits(self, X: Any) -> Any:
        """Return minus the energies of all labels, whose free energy is that of the row.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        logits : array or tensor of shape (n_samples, n_classes)
            -F(x, y), including what all labels share: their log-sum-exp is -F(x) at ``beta=1``.
        """
        return self._map_rows(X, lambda energy, x: -energy.label_energies(x), "logits")

    def transform(self, X: Any) -> Any:
        """Return p(y | x): the latent variable of a row is its unknown label.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_classes)
            ``predict_proba(X)``, with the container that ``set_output`` asks for.
        """
        return self._map_rows(X, lambda energy, x: energy.log_posterior(x).exp(), "transform")

    def energy(self, X: Any, y: Any) -> Any:
        """Return F(x, y) of each row with a label.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Labels, each one of ``classes_``.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            Lower is a better match.
        """
        return self._map_with_targets(
            X, self._codes(y), lambda energy, x, y: energy.energy(x, y[:, 0]), "energy"
        )

    def conditional_log_density(self, X: Any, y: Any) -> Any:
        """Return log p(y | x) of each row with a label.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Labels, each one of ``classes_``.

        Returns
        -------
        log_p : array or tensor of shape (n_samples,)
            In nats.
        """

        def log_density(energy: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return energy.log_posterior(x).gather(1, y)[:, 0]  # type: ignore[no-any-return]

        return self._map_with_targets(X, self._codes(y), log_density, "conditional_log_density")

    def free_energy(self, X: Any) -> Any:
        """Return the free energy of each row, summed over the labels.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            F_beta(x); with ``joint``, lower is more typical; without it, the level is arbitrary.
        """
        return self._map_rows(X, lambda energy, x: energy.free_energy(x), "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return -beta F(x): with ``joint`` log p(x) up to a constant.

        Parameters
        ----------
        X : array-like, csr matrix or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            The log of the sum of exp(-beta F(x, y)) over the labels, in nats. Higher is more
            typical. "nce" without ``joint`` pulls them to 0 for all rows.
        """
        return self._map_rows(
            X, lambda energy, x: -energy.beta * energy.free_energy(x), "score_samples"
        )
