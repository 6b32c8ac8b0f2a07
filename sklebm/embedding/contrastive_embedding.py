r"""D(f(x), f(x')) low for pairs that belong together, else high; F(x) = min_k |f(x) - w_k|^2."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from scipy.spatial.distance import cdist
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm._shell.private import fit_context
from sklebm._shell.random import RandomState
from sklebm.embedding._base import OBJECTIVES, BaseEmbedding
from sklebm.objectives import Objective, check_needs
from sklebm.training.schedules import Schedule


class ContrastiveEmbedding(BaseEmbedding):
    r"""Contrastive embedding: pairs that belong together are close, others far apart.

    .. math:: E(x, z) = \frac{\lVert f(x) - z \rVert^2}{s^2}, \qquad
              F(x) = \min_k E(x, w_k).

    The encoder f is trained on pairs: views of one thing get a small distance, views of different
    things a large one. ``views`` defines which rows form a pair: two corrupted or transformed
    copies of a row (the default, which needs no labels), near neighbours, rows of one class, or
    successive steps of a sequence. The prototypes :math:`w_k` are found afterwards by k-means among
    the embeddings; :math:`s^2` is their mean squared distance from their mean.

    Parameters
    ----------
    n_components : int, default=32
        Number of outputs of the encoder.
    objective : str or Objective, default="info_nce"
        How the encoder is trained on pairs: "info_nce" (the other view among all views of the
        batch, as in SimCLR), "margin" (Siamese), "triplet" (with mining), "nce_memory_bank" (PIRL:
        two heads, and a remembered embedding of every row), "momentum_queue" (MoCo: a slow copy of
        the encoder, and a queue of its keys), or an object with its own settings, such as
        ``InfoNCE(0.5)``.
    views : str, View or callable, default="augment"
        Which rows belong together: "augment" (two views of a row by ``FeatureCorruption()`` for
        tables, or by ``ImageAugmentation()`` with ``image_shape``), "neighbours" (the five nearest
        in the input), "labels" (rows of one class, by y), "groups" (steps of one sequence that
        follow each other), an object with its own settings, or a function of a tensor of rows in
        units of X (images with ``image_shape``) and a torch generator that returns a view of each
        row.
    hidden_sizes : tuple of int or int, default=(128,)
        Widths of the encoder's hidden layers; with ``image_shape``, the channels of its
        convolutions, each of which halves height and width. Empty: one affine map.
    activation : str, default="relu"
        Activation of the hidden layers: "relu", "elu", "silu", "softplus", "sigmoid", "tanh",
        "shrink" (soft threshold 0.5), "saturated_linear" (clipped to [0, 1]) or "identity".
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of a row, for a convolutional encoder and for
        views of images.
    encoder : callable or None, default=None
        Torch module class to use instead, called as ``encoder(n_features, n_components)``.
    head_sizes : tuple of int or int, default=(64, 32)
        Widths of the layers of the projection head that follows the encoder. The objective compares
        the outputs of the head. Empty: no head, it compares those of the encoder.
    keep_head : bool, default=False
        Whether embeddings are the outputs of the head. By default they are those of the encoder,
        which keep more of the information that the views discard.
    unit_length : bool, default=True
        Whether embeddings, and what the objective compares, are divided by their length. "margin"
        and "triplet" also work without it, for instance to map rows to the plane; the others
        compare cosines anyway.
    n_prototypes : int, default=32
        Number of prototypes; at most one for each distinct row.
    learning_rate : float, default=0.002
        Step size. For a batch of m < ``batch_size`` rows it is scaled by m / ``batch_size``.
    batch_size : int, default=256
        Rows per update; they serve as negatives for each other.
    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto": enough for 2000 updates, but at least 20 and at most 1000.
    optimizer : str, default="adam"
        Update rule: "adam", "adamw", "sgd", "momentum" (heavy ball), "rmsprop", or, with all rows
        at once, "gradient_descent".
    learning_rate_schedule : str or Schedule, default="cosine"
        How the learning rate changes over ``max_epochs``: "constant", "linear", "cosine",
        "non_monotone", or a schedule object with its own settings.
    validation_fraction : float or None, default=None
        Fraction of the rows held out for validation; minus their objective, with the same views
        every time, is recorded after each epoch. InfoNCE is recorded instead for objectives with a
        memory and for those of other classes. Views that are other rows are drawn from the
        remaining rows in training, where "groups" counts steps among these, and from all rows in
        validation. Prototypes are found among all rows.
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
        Seed for the initial weights, batches, views and prototypes.
    verbose : int, default=0
        If nonzero, print one line per epoch.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise CUDA if available,
        otherwise the CPU.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        Parameters of encoder and heads under their torch names, such as "encoder.0.weight".
    architecture_ : dict
        Description of the networks in plain values.
    offset_, scale_ : ndarray of shape (n_features_in_,) or None
        The networks see (x - offset_) / scale_: mean and standard deviation of each feature, or,
        for images, the mean of each channel and one scale. None if ``from_parameters`` was given
        none.
    prototypes_ : ndarray of shape (n_prototypes, n_features_out)
        Prototypes of the embeddings.
    prototype_counts_ : ndarray of shape (n_prototypes,)
        Number of training rows closest to each prototype, among the at most 20,000 evenly spaced
        rows, of a fit or of each chunk, that prototypes are found from.
    embedding_mean_ : ndarray of shape (n_features_out,)
        Mean of the training embeddings.
    embedding_spread_ : float
        Mean squared distance of the training embeddings from their mean, s^2.
    effective_rank_ : float or None
        exp of the entropy of the normalised eigenvalues of the embeddings' covariance: the number
        of directions in which they vary. A warning is raised if it is below a tenth of the number
        of their components, or below 1.1 of several; and, with ``unit_length``, if
        ``embedding_spread_`` is below 0.01. None after ``partial_fit``.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean objective of the batches by epoch.
    validation_scores_ : ndarray
        Score of the held-out rows by epoch, if ``validation_fraction`` is set.
    n_iter_ : int
        Number of epochs, or of ``partial_fit`` calls.
    feature_means_ : ndarray of shape (n_features_in_,)
        Mean of the training rows.
    n_samples_seen_ : int
        Number of training rows.
    training_state_ : dict
        Optimiser statistics, queue and slow copy; see ``drop_training_state``.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    Autoencoder : Codes from which rows can be rebuilt, in every detail.
    EnergyKMeans : Prototypes in the input itself.

    Notes
    -----
    A step costs O(batch_size P) for P weights, twice, and O(batch_size^2) for the pairs. With
    ``views="neighbours"`` it also costs O(k batch_size^2), to see which rows are among the k
    neighbours of others, and O(n^2 d) are spent once. Training runs in float32, row-wise methods in
    the dtype of X. Features are standardised internally, so that their units do not matter.
    Prototypes are found among the embeddings of at most 20,000 rows. Views that come from other
    rows need all rows in memory, and "nce_memory_bank" needs an embedding of each row.

    References
    ----------
    .. [1] R. Hadsell, S. Chopra and Y. LeCun, "Dimensionality reduction by learning an invariant
       mapping", CVPR 2006.
    .. [2] T. Chen, S. Kornblith, M. Norouzi and G. Hinton, "A simple framework for contrastive
       learning of visual representations", ICML 2020.
    .. [3] I. Misra and L. van der Maaten, "Self-supervised learning of pretext-invariant
       representations", CVPR 2020.
    .. [4] K. He, H. Fan, Y. Wu, S. Xie and R. Girshick, "Momentum contrast for unsupervised visual
       representation learning", CVPR 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import ContrastiveEmbedding
    >>> X, y = load_digits(return_X_y=True)
    >>> model = ContrastiveEmbedding(16, max_epochs=10, random_state=0).fit(X)
    >>> model.transform(X).shape
    (1797, 16)
    >>> similarity = model.similarity(X[:200], X[200:400])
    >>> same = y[:200, None] == y[200:400]
    >>> bool(similarity[same].mean() > similarity[~same].mean() + 0.2)
    True
    """

    def __init__(
        self,
        n_components: int = 32,
        *,
        objective: str | Objective = "info_nce",
        views: Any = "augment",
        hidden_sizes: tuple[int, ...] | int = (128,),
        activation: str = "relu",
        image_shape: tuple[int, ...] | None = None,
        encoder: Any = None,
        head_sizes: tuple[int, ...] | int = (64, 32),
        keep_head: bool = False,
        unit_length: bool = True,
        n_prototypes: int = 32,
        learning_rate: float = 0.002,
        batch_size: int = 256,
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
        self.n_components = n_components
        self.objective = objective
        self.views = views
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.image_shape = image_shape
        self.encoder = encoder
        self.head_sizes = head_sizes
        self.keep_head = keep_head
        self.unit_length = unit_length
        self.n_prototypes = n_prototypes
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

    def _objective(self, energy: Any) -> Objective:
        objective = self._chosen_objective()
        check_needs(objective, energy, OBJECTIVES.values())
        if "pairs" not in objective.needs:
            names = ", ".join(f'"{name}"' for name in OBJECTIVES)
            raise ValueError(
                f"{type(objective).__name__} compares no views, and the free energy of rows comes "
                f"from prototypes, which are found after training. Use objective={names}, or an "
                'object that names "pairs" among its needs.'
            )
        return objective

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, *, groups: Any = None) -> Self:
        """Train the encoder on pairs, and find prototypes of its embeddings.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or None, default=None
            Classes of the rows, as numbers or strings; used with ``views="labels"`` only.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row, for ``views="groups"``; rows of a sequence are in temporal order.

        Returns
        -------
        self : object
            The fitted estimator. It is left unchanged by an exception or an interrupt.
        """
        return self._learn(X, self._fit, columns=self._columns(y, groups, whole=True))

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, *, groups: Any = None) -> Self:
        """Update the encoder and the prototypes with one pass over a chunk of rows.

        Views come from the rows of the chunk. Prototypes become running means of the rows closest
        to them.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The next chunk of training rows.
        y : array-like of shape (n_samples,) or None, default=None
            Classes of the rows, as numbers or strings; used with ``views="labels"`` only.
        groups : array-like of shape (n_samples,) or None, default=None
            Sequence of each row, for ``views="groups"``.

        Returns
        -------
        self : object
            The updated estimator. It is left unchanged by an exception or an interrupt.
        """
        columns = self._columns(y, groups, whole=False)
        return self._learn(X, self._partial_fit, first=not self._is_fitted(), columns=columns)

    def transform(self, X: Any) -> Any:
        """Return the embedding f(x) of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to embed.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_features_out)
            Embeddings, of unit length unless ``unit_length=False``.
        """
        return self._map_rows(X, lambda energy, x: energy.embed(x), "transform")

    def similarity(self, X: Any, Y: Any) -> Any:
        """Return how similar each row of X is to each row of Y.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Y : array-like or tensor of shape (n_others, n_features)
            Rows to compare with.

        Returns
        -------
        similarity : ndarray of shape (n_samples, n_others)
            Cosine of the embeddings; with ``unit_length=False`` minus their Euclidean distance.
        """
        check_is_fitted(self)
        u, v = to_numpy(self._plain(X)), to_numpy(self._plain(Y))
        return u @ v.T if self.architecture_["unit_length"] else -cdist(u, v)

    def _plain(self, X: Any) -> Any:
        return self._map_rows(X, lambda energy, x: energy.embed(x), "similarity")

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) = |f(x) - z|^2 / s^2 of each row with its own embedding.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_features_out)
            One embedding per row.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            Squared distances, relative to ``embedding_spread_``.
        """
        return self._pair_energies(X, Z)

    def free_energy(self, X: Any) -> Any:
        """Return F(x), the squared distance of f(x) to the closest prototype, over s^2.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            Relative to ``embedding_spread_``: 1 is as far as embeddings are from their mean.
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

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the share of the embeddings' spread that the prototypes leave unexplained.

        Comparable between settings of training (``learning_rate``, ``max_epochs``) for the same
        ``n_components``, ``n_prototypes`` and views. To judge how useful an embedding is, score the
        task at hand, such as a classifier on the embeddings, or use
        :func:`sklebm.metrics.make_ood_scorer`.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean of ``score_samples(X)``.
        """
        return super().score(X)
