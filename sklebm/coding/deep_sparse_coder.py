r"""E(x, z) = sum_l 1/2 |z_{l-1} - z_l D_l|^2 + alpha_l |z_l|_1 with z_0 = x, and |d_k| <= 1."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.available import available_if
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Spec
from sklebm.base import EnergyEstimator
from sklebm.coding import _layer_state as network
from sklebm.coding._convolution import spectra_length
from sklebm.coding._layer_state import LayeredLearning, layered_search
from sklebm.coding._layers import INFERENCES
from sklebm.coding._passes import LayersPass
from sklebm.coding._state import decoded
from sklebm.energies.layered_coding import LayeredCodingEnergy
from sklebm.iterative import Draw, IterativeEstimator


class DeepSparseCoder(IterativeEstimator[LayeredLearning, LayersPass]):
    r"""Sparse codes of sparse codes: every layer describes the code below by few of its atoms.

    .. math:: E(x, z_1, \dots, z_L) = \sum_{l=1}^{L} \tfrac12 \|z_{l-1} - z_l D_l\|^2
              + \alpha_l \|z_l\|_1, \qquad z_0 = x, \qquad \|d_{lk}\| \le 1,

    and the free energy is E at the codes that ``inference`` finds: the minimum over the codes of
    all layers with "multilayer_fista", otherwise an upper bound of it.

    Parameters
    ----------
    hidden_sizes : tuple of int or int, default=(128, 64)
        Number of atoms, or kernels, in each layer, starting with the layer next to the rows.
    alpha : float or sequence of float, default=0.1
        Weight of the penalty, common to all layers or one per layer, in units of X if atoms have
        length one. Zero is allowed except for "layered_fista".
    penalty : {"l1", "nonnegative"}, default="l1"
        Absolute values, or the same with :math:`z \ge 0`.
    inference : str, default="layered_fista"
        "layered_fista": the exact minimum for each layer given the code below.
        "layered_thresholding": one soft threshold of the products with the atoms in each layer;
        with "nonnegative", a network of rectified linear units. "multilayer_fista": the exact
        minimum over all layers together.
    learning : {"layerwise", "joint"}, default="layerwise"
        Codes from which dictionaries are learnt: "layerwise", codes that ignore the layers above,
        computed by thresholds for ``inference="layered_thresholding"``; "joint", codes that
        minimise the energy of all layers.
    output : {"all", "last"}, default="all"
        Whether ``transform`` returns the codes of all layers side by side or those of the last.
        ``energy`` takes those of all layers, not pooled: see ``codes``.
    kernel_sizes : tuple of int, of tuple of int or of None, or None, default=None
        For convolutional layers, side or sides of the kernels of each layer; None within the tuple
        is half of the maps below, and at most 9. None: dense layers.
    image_shape : tuple of int or None, default=None
        With ``kernel_sizes``, the order of a row: (height, width), (height, width, channels), or
        (length,). None: signals.
    boundary : {"circular", "zero"}, default="circular"
        Whether kernels continue on the opposite side or lie within the maps below.
    pool : {"max", "mean"} or None, default="max"
        Whether ``transform`` returns the largest or mean magnitude in each block of a map, or
        (None) codes in full. No effect on dense layers.
    pool_size : int or tuple of int, default=4
        Side or sides of a block.
    init : {"data", "random"}, default="data"
        Initial atoms: rows of X (patches for kernels) and their codes, or random directions, scaled
        to length one.
    batch_size : int, default=512
        Rows between two updates of the dictionaries.
    max_iter : int, default=20
        Maximum number of passes over the rows.
    tol : float, default=1e-3
        ``fit`` stops when a pass lowers the mean energy by no more than this fraction, or when five
        passes in a row have not lowered it; 0 makes all passes.
    code_tol : float or None, default=None
        Relative duality gap (or stationarity, where an alpha is zero) at which a code is accepted.
        None: 1e-10, or 1e-6 for kernels, with 1e-3 in ``fit``.
    n_inference_steps : int or None, default=None
        Take exactly this many steps of FISTA in each layer, or, over all layers together, of its
        monotone variant, which never raises the energy.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial atoms and the order of the rows.
    verbose : int, default=0
        If nonzero, print one line per pass, with the mean energy and the time in seconds.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise the CPU.

    Attributes
    ----------
    components_ : ndarray of shape (hidden_sizes[0], n_features_in_)
        The atoms of the first layer, or its kernels, of shape (hidden_sizes[0], kernel_length).
    upper_components_ : dict of ndarray
        "layer2", "layer3", ...: atoms of shape (atoms of the layer, atoms of the layer below), or
        kernels, flat in the order (map below, height, width).
    alpha_ : ndarray of shape (n_layers,)
        Weights of the penalty used in the fit.
    penalty_, inference_ : dict, dict
        Names of the penalty and of the inference used in the fit.
    architecture_ : dict or None
        Sizes of convolutional layers.
    energy_curve_ : ndarray of shape (n_iter_,)
        Mean energy in each pass; each row is evaluated with the dictionaries at that time. It may
        rise, above all with ``learning="layerwise"``; those of the lowest pass are kept.
    online_state_ : dict
        Sums over codes and rows that ``partial_fit`` continues from, and up to eight rows;
        ``drop_training_state`` removes them.
    n_iter_, n_samples_seen_ : int, int
        Number of passes over the rows, or of ``partial_fit`` calls, and of training rows.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    SparseCoder, ConvSparseCoder : One layer, with more penalties and solvers.
    DeconvolutionalNetwork : Layers of kernels that see the image through pooled layers.

    Notes
    -----
    With K atoms in all layers, thresholds cost O(d K) a row, and a step over all layers O(K^2).
    Learning costs, and keeps in memory, what :class:`SparseCoder` needs for each layer, or, with
    kernels, the sums of :class:`ConvSparseCoder`; all layers learn in the same passes. Kernels are
    used as spectra, of as many numbers as kernels times numbers in the maps below. There is no
    intercept: centre rows whose mean is far from zero. Codes shrink from layer to layer, so upper
    layers may need a smaller ``alpha``; ``fit`` warns if a layer's codes are all zero.
    "layered_thresholding" suits atoms that overlap little: similar atoms all explain the same part
    of a row, so the energy may be many times that of zero codes.

    References
    ----------
    V. Papyan, Y. Romano and M. Elad, "Convolutional neural networks analyzed via convolutional
    sparse coding", JMLR 18, 2017. A. Aberdam, J. Sulam and M. Elad, "Multi-layer sparse coding: the
    holistic way", SIAM Journal on Mathematics of Data Science 1(1), 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import DeepSparseCoder
    >>> X = load_digits().data / 16
    >>> coder = DeepSparseCoder((60, 30), (0.2, 0.1), penalty="nonnegative", random_state=0).fit(X)
    >>> Z = coder.transform(X)
    >>> Z.shape
    (1797, 90)
    >>> error = ((X - coder.inverse_transform(Z)) ** 2).mean()
    >>> bool(error < 0.2 * X.var())
    True
    """

    _continues_from = "online_state_"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "device": EnergyEstimator._parameter_constraints["device"],
        "hidden_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left"), "array-like"],
        "penalty": [StrOptions({"l1", "nonnegative"})],
        "inference": [StrOptions(set(INFERENCES))],
        "learning": [StrOptions({"layerwise", "joint"})],
        "output": [StrOptions({"all", "last"})],
        **{key: ["array-like", None] for key in ("kernel_sizes", "image_shape")},
        "boundary": [StrOptions({"circular", "zero"})],
        "pool": [StrOptions({"max", "mean"}), None],
        "pool_size": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "init": [StrOptions({"data", "random"})],
        **{k: [Interval(Integral, 1, None, closed="left")] for k in ("batch_size", "max_iter")},
        "tol": [Interval(Real, 0, None, closed="left")],
        "code_tol": [Interval(Real, 0, None, closed="left"), None],
        "n_inference_steps": [Interval(Integral, 1, None, closed="left"), None],
        **{key: [key] for key in ("random_state", "verbose")},
    }

    def __init__(
        self,
        hidden_sizes: tuple[int, ...] | int = (128, 64),
        alpha: float | Sequence[float] = 0.1,
        *,
        penalty: Literal["l1", "nonnegative"] = "l1",
        inference: Literal[
            "layered_fista", "layered_thresholding", "multilayer_fista"
        ] = "layered_fista",
        learning: Literal["layerwise", "joint"] = "layerwise",
        output: Literal["all", "last"] = "all",
        kernel_sizes: Sequence[Any] | None = None,
        image_shape: tuple[int, ...] | None = None,
        boundary: Literal["circular", "zero"] = "circular",
        pool: Literal["max", "mean"] | None = "max",
        pool_size: int | tuple[int, ...] = 4,
        init: Literal["data", "random"] = "data",
        batch_size: int = 512,
        max_iter: int = 20,
        tol: float = 1e-3,
        code_tol: float | None = None,
        n_inference_steps: int | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.alpha = alpha
        self.penalty = penalty
        self.inference = inference
        self.learning = learning
        self.output = output
        self.kernel_sizes = kernel_sizes
        self.image_shape = image_shape
        self.boundary = boundary
        self.pool = pool
        self.pool_size = pool_size
        self.init = init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.code_tol = code_tol
        self.n_inference_steps = n_inference_steps
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    def _prepare(self, rows: Rows, **data: Any) -> LayeredLearning:
        return network.layered_learning(self, rows)

    def _start(self, problem: LayeredLearning, draw: Draw) -> LayersPass:
        return problem.start(draw)

    def _step(self, problem: LayeredLearning, run: LayersPass) -> LayersPass:
        return problem.step(run)

    def _finish(self, problem: LayeredLearning, run: LayersPass, state: dict[str, Any]) -> None:
        problem.finish(run)

    def _advice(self) -> str:
        return ""  # max_iter is a budget: more passes rarely pay

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        return network.learn_layers(self, rows)

    def _state_spec(self) -> Spec:
        return network.layered_spec(self)

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return network.unlearnt_layers(self, given["n_features_in_"])

    def _check_state(self) -> None:
        super()._check_state()
        if self._is_fitted():
            network.check_layers(self)

    def _energy(self, device: torch.device) -> LayeredCodingEnergy:
        return network.layered_energy(self, device)

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """Make a coder from given dictionaries, as if a fit had found them.

        Parameters
        ----------
        **parameters : object
            ``components``, the atoms or kernels of the first layer; ``upper_components``, a list of
            those of the layers above; and constructor parameters, for kernels ``kernel_sizes`` and
            ``image_shape``.

        Returns
        -------
        estimator : object
            It transforms, scores, can be saved, and keeps learning with ``partial_fit``.

        Raises
        ------
        TypeError
            If a parameter is missing or its name is unknown.
        ValueError
            If the arrays do not fit each other.
        """
        return super().from_parameters(**network.given_layers(parameters))

    def _floats_per_row(self) -> int:
        grids, length = network.grids_of(self), int(self.n_features_in_) + self._code_width
        if grids is None:
            return 6 * length
        return 12 * length + spectra_length(grids, network.dictionaries_of(self))

    @property
    def _code_width(self) -> int:
        return sum(network.widths_of(self))

    @property
    def _n_features_out(self) -> int:
        return network.features_of(self)[0]

    def transform(self, X: Any) -> Any:
        """Return the codes of all layers, or of the last; see ``output`` and ``pool``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_features_out)
            Codes, or pooled maps, one after the other, starting with the first layer. A
            ConvergenceWarning reports codes that have not converged.

        Raises
        ------
        ValueError
            If ``pool_size`` is not a positive integer, or one for each side of an image.
        """
        check_is_fitted(self)
        shown = network.features_of(self)[1]
        with layered_search(self) as search:
            return self._map_rows(X, lambda energy, x: shown(search.codes(energy, x)), "transform")

    def codes(self, X: Any) -> Any:
        """Return the codes of all layers in full, whatever ``output`` and ``pool`` are.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, code_length)
            Codes of all layers, side by side; of kernels, one map after the other in each layer.
        """
        with layered_search(self) as search:
            return self._map_rows(X, search.codes, "codes")

    def free_energy(self, X: Any) -> Any:
        """Return the energy of each row at the codes that ``inference`` finds.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        with layered_search(self) as search:
            return self._map_rows(X, search.free_energies, "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return minus the energy at the codes, which is not normalised.

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

    @available_if(
        lambda coder: network.inference_of(coder) != "layered_thresholding",
        'inference="layered_thresholding" solves for no optimum: set another and fit again.',
    )
    def certificate(self, X: Any) -> Any:
        """Return how far the codes of each row can be from optimal.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        certificate : array or tensor of shape (n_samples,)
            The duality gap relative to the energy: no other codes can lower it by a larger
            fraction. With "layered_fista", the largest of the layers, each given the code below.
            With an ``alpha`` of zero in "multilayer_fista", the KKT residual.
        """
        with layered_search(self) as search:
            return self._map_rows(X, search.certificates, "certificate")

    def reconstruct(self, X: Any) -> Any:
        """Return z_1 D_1, the rows as the codes of their first layer describe them.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            Reconstructed rows.
        """
        with layered_search(self) as search:
            return self._map_rows(X, search.reconstructions, "reconstruct")

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each row paired with codes of all layers.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, code_length)
            Codes of all layers, as ``codes`` returns them.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In squared units of X. Infinite for codes that the penalty forbids.
        """
        return self._pair_energies(X, Z, may_be_infinite=True)

    @available_if(
        lambda self: self.output == "all" and (self.kernel_sizes is None or self.pool is None),
        'it needs the codes of all layers, not pooled: set output="all" and pool=None.',
    )
    def inverse_transform(self, X: Any) -> Any:
        """Return the reconstructions z_1 D_1 of codes.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, code_length)
            Codes of all layers, as ``codes`` returns them.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            Reconstructed rows.
        """
        return self._map_rows(X, decoded, "inverse_transform", latents=True)
