r"""E(x, z) = 1/2 |x - D_1 * U_1(D_2 * ... D_L * z)|^2 + alpha |z|_1: layers that see the image."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.available import available_if
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Spec
from sklebm.base import EnergyEstimator
from sklebm.coding import _deconvolution_state as network
from sklebm.coding._convolution import spectra_length
from sklebm.coding._deconvolution import network_search, recall_layers
from sklebm.coding._deconvolution_state import NetworkLearning
from sklebm.coding._layer_state import given_layers
from sklebm.coding._passes import LayersPass
from sklebm.coding._state import decoded, n_atoms
from sklebm.energies.deconvolution import DeconvolutionalEnergy
from sklebm.inference.deconvolution import strongest
from sklebm.iterative import Draw, IterativeEstimator


class DeconvolutionalNetwork(IterativeEstimator[NetworkLearning, LayersPass]):
    r"""Layers of convolutional sparse codes that each reconstruct the image through those below.

    .. math:: E(x, z) = \tfrac12 \|x - D_1 * U_1(D_2 * U_2(\cdots D_L * z))\|^2 + \alpha \|z\|_1,
              \qquad F(x) = \min_z E(x, z), \qquad \|d_{lk}\| \le 1.

    The code of each layer is max-pooled over blocks of neighbouring positions and maps. The
    unpooling :math:`U_l` puts each pooled entry back where the maximum of its block was in this
    image (the switches). Without ``adaptive``, each layer reconstructs the code below, and E is the
    sum over the layers.

    Parameters
    ----------
    hidden_sizes : tuple of int or int, default=(16, 32)
        Number of kernels in each layer, starting with the layer next to the images.
    kernel_sizes : tuple of int, tuple of tuple of int or None, default=None
        Side or sides of the kernels of each layer. None: half of the maps below, and at most 9.
    image_shape : tuple of int or None, default=None
        (height, width), (height, width, channels), or (length,): the order of a row. None: signals.
    alpha : float or sequence of float, default=0.1
        Weight of the penalty, common to all layers or one per layer, in units of X.
    adaptive : bool, default=True
        Whether codes are pooled between the layers, with switches, and every layer reconstructs the
        image. If false, each layer reconstructs the code below, which is not pooled.
    pool_maps : int, default=2
        Number of neighbouring maps in a block.
    pool_size : int or tuple of int, default=2
        Side or sides of a block within a map.
    penalty : {"l1", "nonnegative"}, default="l1"
        Absolute values, or the same with :math:`z \ge 0`.
    boundary : {"circular", "zero"}, default="circular"
        Whether kernels continue on the opposite side or lie within the maps below.
    batch_size : int, default=32
        Images between two updates of the kernels.
    max_iter : int, default=20
        Maximum number of passes over the images.
    tol : float, default=1e-3
        ``fit`` stops when a pass lowers the mean energy by no more than this fraction, and, in an
        adaptive network, changes that of each layer below by no more; or when five passes in a row
        have not lowered it. 0 makes all passes.
    code_tol : float, default=1e-4
        Relative duality gap at which a code is accepted. ``fit`` uses 1e-3.
    max_inference_steps : int or None, default=300
        Maximum number of steps for the code of an adaptive layer above the first (in ``fit``, at
        most 100). It does not apply to small images, whose codes are found exactly. None: until
        ``code_tol``.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial kernels, which are patches, and the order of the images.
    verbose : int, default=0
        If nonzero, print one line per pass, with the mean energy and the time in seconds.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise the CPU.

    Attributes
    ----------
    components_ : ndarray of shape (hidden_sizes[0], kernel_length)
        The kernels of the first layer, flat.
    upper_components_ : dict of ndarray
        "layer2", "layer3", ...: kernels, flat in the order (map below, height, width).
    alpha_, penalty_, architecture_ : ndarray of shape (n_layers,), dict, dict
        Weights and name of the penalty, and sizes of layers and blocks.
    energy_curve_ : ndarray of shape (n_iter_,)
        Mean energy in each pass; each image is evaluated with the kernels at that time. Of an
        adaptive network that of the highest layer. It may rise, since codes and switches below
        change; the kernels of the lowest pass are kept.
    online_state_ : dict
        State from which ``partial_fit`` continues: sums, and up to eight patches for each layer.
    n_iter_, n_samples_seen_ : int, int
        Number of passes, or of ``partial_fit`` calls, and of training images.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features_in_,)
        Number of features seen in ``fit``; their names, if X had string column names.

    See Also
    --------
    ConvSparseCoder : One layer, with more solvers, a smooth part and missing pixels.

    Notes
    -----
    All layers learn in the same passes, each from codes that ignore the layers above. With K_l
    kernels and p_l positions in layer l, a step of inference costs
    O(sum_l K_l p_l (K_{l-1} + log p_l)), and the spectra of the kernels are sum_l K_l K_{l-1} p_l
    numbers, however few images there are. Scale X so that pixels are of order one. There is no
    intercept: ``fit`` warns if the mean of X exceeds its standard deviation.

    References
    ----------
    M. D. Zeiler, G. W. Taylor and R. Fergus, "Adaptive deconvolutional networks for mid and high
    level feature learning", ICCV 2011. M. D. Zeiler et al., "Deconvolutional networks", CVPR 2010.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklebm import DeconvolutionalNetwork
    >>> X = load_digits().data[:40] / 16
    >>> model = DeconvolutionalNetwork(
    ...     (4, 6), (4, 3), image_shape=(8, 8), max_iter=3, alpha=(0.2, 0.05), random_state=0
    ... ).fit(X)
    >>> model.transform(X).shape
    (40, 12)
    >>> bool(((X - model.reconstruct(X)) ** 2).mean() < 0.3 * X.var())
    True
    """

    _continues_from = "online_state_"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "device": EnergyEstimator._parameter_constraints["device"],
        "hidden_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        **{k: ["array-like", None] for k in ("kernel_sizes", "image_shape")},
        "alpha": [Interval(Real, 0, None, closed="neither"), "array-like"],
        "adaptive": ["boolean"],
        "pool_size": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "penalty": [StrOptions({"l1", "nonnegative"})],
        "boundary": [StrOptions({"circular", "zero"})],
        "pool_maps": [Interval(Integral, 1, None, closed="left")],
        **{k: [Interval(Integral, 1, None, closed="left")] for k in ("batch_size", "max_iter")},
        **{k: [Interval(Real, 0, None, closed="left")] for k in ("tol", "code_tol")},
        "max_inference_steps": [Interval(Integral, 1, None, closed="left"), None],
        **{key: [key] for key in ("random_state", "verbose")},
    }

    def __init__(
        self,
        hidden_sizes: tuple[int, ...] | int = (16, 32),
        kernel_sizes: Sequence[Any] | None = None,
        *,
        image_shape: tuple[int, ...] | None = None,
        alpha: float | Sequence[float] = 0.1,
        adaptive: bool = True,
        pool_maps: int = 2,
        pool_size: int | tuple[int, ...] = 2,
        penalty: Literal["l1", "nonnegative"] = "l1",
        boundary: Literal["circular", "zero"] = "circular",
        batch_size: int = 32,
        max_iter: int = 20,
        tol: float = 1e-3,
        code_tol: float = 1e-4,
        max_inference_steps: int | None = 300,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.kernel_sizes = kernel_sizes
        self.image_shape = image_shape
        self.alpha = alpha
        self.adaptive = adaptive
        self.pool_maps = pool_maps
        self.pool_size = pool_size
        self.penalty = penalty
        self.boundary = boundary
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.code_tol = code_tol
        self.max_inference_steps = max_inference_steps
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    def _prepare(self, rows: Rows, **data: Any) -> NetworkLearning:
        return network.network_learning(self, rows)

    def _start(self, problem: NetworkLearning, draw: Draw) -> LayersPass:
        return problem.start(draw)

    def _step(self, problem: NetworkLearning, run: LayersPass) -> LayersPass:
        return problem.step(run)

    def _finish(self, problem: NetworkLearning, run: LayersPass, state: dict[str, Any]) -> None:
        problem.finish(run)

    def _advice(self) -> str:
        return ""  # max_iter is a budget: more passes rarely pay

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        return network.learn_images(self, rows)

    def _state_spec(self) -> Spec:
        return network.network_spec()

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return network.unlearnt_network(self, given["n_features_in_"])

    def _check_state(self) -> None:
        super()._check_state()
        if self._is_fitted():
            network.check_network(self)

    def _energy(self, device: torch.device) -> DeconvolutionalEnergy:
        return network.network_energy(self, device)

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """Make a network from given kernels, as if a fit had found them.

        Parameters
        ----------
        **parameters : object
            ``components``, the kernels of the first layer; ``upper_components``, a list of those of
            the layers above; ``image_shape``, and other constructor parameters.

        Returns
        -------
        estimator : object
            It transforms, scores, can be saved, and keeps learning with ``partial_fit``.

        Raises
        ------
        TypeError, ValueError
            If a parameter is missing or unknown; if the arrays do not fit each other.
        """
        return super().from_parameters(**given_layers(parameters))

    def _floats_per_row(self) -> int:
        grids, _ = recall_layers(self.architecture_)
        kernels = network.kernels_of(self)
        lengths = [grid.map_length * len(own) for grid, own in zip(grids, kernels, strict=True)]
        # One layer is searched at a time. Images share the spectra, but one alone needs them too.
        return 12 * max(lengths) + sum(lengths) + spectra_length(grids, kernels)

    @property
    def _code_width(self) -> int:
        grids, _ = recall_layers(self.architecture_)
        return len(network.kernels_of(self)[-1]) * grids[-1].map_length

    @property
    def _n_features_out(self) -> int:
        n_atoms(self)  # refuses a network that is not fitted
        grids, _ = recall_layers(self.architecture_)
        maps = (len(network.kernels_of(self)[-1]), *grids[-1].map_shape)
        return int(np.prod(network.blocks_of(self).shape(maps)))

    def transform(self, X: Any) -> Any:
        """Return the pooled code of the highest layer: the largest entry in each block.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_features_out)
            Entries of largest magnitude, with signs. A ConvergenceWarning reports unconverged
            codes.
        """
        with network_search(self) as search:
            return self._map_rows(X, search.pooled_top, "transform")

    def codes(self, X: Any) -> Any:
        """Return the code of the highest layer in full.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.

        Returns
        -------
        Z : array or tensor of shape (n_samples, hidden_sizes[-1] * map_length)
            One map after the other.
        """
        with network_search(self) as search:
            return self._map_rows(X, search.top, "codes")

    def reconstruct(self, X: Any, *, layer: int | None = None) -> Any:
        """Return the reconstruction of each image from the code of a layer, through those below.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.
        layer : int or None, default=None
            Number of the layer, from 1. None: the highest.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            Reconstructed images.
        """
        with network_search(self) as search:
            function = search.pictures(self._layer(layer), lambda energy, z: z)
            return self._map_rows(X, function, "reconstruct")

    @available_if(
        network.shows_full_codes,
        "it needs codes in full, and no switches: set pool_maps=1 and pool_size=1, and fit again "
        "if adaptive=True. With switches, use reconstruct or project, which find those of X.",
    )
    def inverse_transform(self, X: Any) -> Any:
        """Return the images that codes decode to. Needs ``pool_maps=1`` and ``pool_size=1``.

        Larger blocks need the switches of an image: ``reconstruct`` and ``project`` find them.
        Without ``adaptive``, only ``transform`` pools, and both can be set after ``fit``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, hidden_sizes[-1] * map_length)
            Codes of the highest layer in full, as ``codes`` returns them.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            Reconstructed images.
        """
        return self._map_rows(X, decoded, "inverse_transform", latents=True)

    def project(self, X: Any, *, unit: int, layer: int | None = None) -> Any:
        """Return, in pixels, what one unit of a layer represents in each image.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.
        unit : int
            Index of a map of the layer, from 0. Only its strongest entry in each image is kept.
        layer : int or None, default=None
            Number of the layer, from 1. None: the highest.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            This entry decoded through all layers below, with the switches of the image.
        """
        chosen = self._layer(layer)
        n_maps = len(network.kernels_of(self)[chosen - 1])
        if not isinstance(unit, Integral) or not 0 <= unit < n_maps:
            raise ValueError(f"unit={unit!r} must be from 0 to {n_maps - 1}, a map of the layer.")
        with network_search(self) as search:
            function = search.pictures(chosen, lambda energy, z: strongest(z, n_maps, int(unit)))
            return self._map_rows(X, function, "project")

    def _layer(self, layer: int | None) -> int:
        check_is_fitted(self)  # before its kernels are counted
        n_layers = len(network.kernels_of(self))
        layer = n_layers if layer is None else layer
        if not isinstance(layer, Integral) or not 1 <= layer <= n_layers:
            raise ValueError(f"layer={layer!r} must be from 1 to {n_layers}, or None.")
        return int(layer)

    def free_energy(self, X: Any) -> Any:
        """Return the energy of each image at the codes found, given the switches found below.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        with network_search(self) as search:
            return self._map_rows(X, search.free_energies, "free_energy")

    def certificate(self, X: Any) -> Any:
        """Return the duality gap of each image's code, relative to its energy.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.

        Returns
        -------
        certificate : array or tensor of shape (n_samples,)
            Given the layers below, no code can lower the energy by a larger fraction.
        """
        with network_search(self) as search:
            return self._map_rows(X, search.certificates, "certificate")

    def score_samples(self, X: Any) -> Any:
        """Return minus the energy at the codes, which is not normalised.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Minus the free energy, in squared units of X. Higher is more typical.
        """
        return -self.free_energy(X)

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each image paired with a code of the highest layer in full.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images. The codes and switches of the layers below are found for them.
        Z : array-like or tensor of shape (n_samples, hidden_sizes[-1] * map_length)
            Codes, as ``codes`` returns them.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In squared units of X. Infinite for negative codes that ``penalty`` forbids.
        """
        check_is_fitted(self)
        with network_search(self) as search:
            beside = self._open_latents(Z)
            return self._map_rows(X, search.energies, "energy", beside=beside, may_be_infinite=True)
