r"""E(x, z) = 1/2 |x - L x - sum_k d_k * z_k|^2 + alpha |z|_1; F(x) = min_z E(x, z), |d_k| <= 1."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import torch

from sklebm._shell.available import available_if
from sklebm._shell.gaps import fill_gaps
from sklebm._shell.private import Interval, StrOptions, fit_context
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Spec
from sklebm.base import EnergyEstimator
from sklebm.coding import _kernels
from sklebm.coding._convolution import code_length, map_search, pooling_of
from sklebm.coding._kernels import KernelLearning
from sklebm.coding._learning import Pass
from sklebm.coding._masks import beside_masks, open_images, seen_energies
from sklebm.coding._state import decoded, n_atoms
from sklebm.energies.convolution import ConvolutionalCodingEnergy
from sklebm.iterative import Draw, IterativeEstimator


class ConvSparseCoder(IterativeEstimator[KernelLearning, Pass]):
    r"""Convolutional sparse coding: whole images as sums of a few shifted kernels, learnt or given.

    .. math:: E(x, z) = \tfrac12 \left\|x - L x - \sum_k d_k * z_k\right\|^2 + \alpha \|z\|_1,
              \qquad F(x) = \min_z E(x, z), \qquad \|d_k\| \le 1,

    with one map :math:`z_k` for each kernel; :math:`L x` is a smooth part, see ``low_pass``.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of kernels. None: 16, or as many as the given dictionary has.
    kernel_size : int, tuple of int or None, default=None
        Side or sides of a kernel. None: half of the image's, and at most 9.
    image_shape : tuple of int or None, default=None
        (height, width), (height, width, channels), or (length,): the order of a row. None: signals.
    alpha : float, default=0.1
        Weight of the penalty, in units of X. A code is zero if ``alpha`` exceeds all products of
        the image with shifted kernels.
    penalty : {"l1", "nonnegative"}, default="l1"
        Absolute values, or the same with :math:`z \ge 0`.
    boundary : {"circular", "zero"}, default="circular"
        Whether kernels continue on the opposite side of the image or lie within it.
    low_pass : float, default=0.0
        Weight w of the smooth part :math:`L x = \arg\min_s \|x - s\|^2 + w \|\nabla s\|^2`, which
        sparse codes describe badly. 0: none. 5 suits photographs.
    dictionary, dict_init : array-like of shape (n_components, kernel_length) or None, default=None
        Kernels, flat like rows: to use as they are, or to start from, instead of patches of X.
    algorithm : {"online", "batch", "consensus"}, default="online"
        Update the kernels every ``batch_size`` images ("online"), or after all of them ("batch"),
        by gradient steps; or after all of them by consensus ADMM over up to four parts of the
        images.
    batch_size : int, default=32
        Images between two updates of the kernels.
    max_iter : int, default=20
        Maximum number of passes over the images.
    tol : float, default=1e-3
        ``fit`` stops when a pass lowers the mean energy by no more than this fraction, and moving
        the kernels to the middle of their windows does not lower it either.
    code_tol : float, default=1e-6
        Relative duality gap at which a code is accepted. ``fit`` uses 1e-3, and with
        ``max_iter`` of 10 or more a larger one in the first passes.
    solver : {"auto", "greedy", "fista", "admm"}, default="auto"
        Locally greedy coordinate descent (CPU), FISTA with adaptive restart, or ADMM, which cannot
        use a ``mask``. "auto": on the CPU, a dictionary of all shifted kernels if images are small,
        otherwise "greedy"; on other devices "fista".
    pool : {"max", "mean"} or None, default="max"
        Whether ``transform`` returns the largest or mean magnitude in each block, or (None) full
        codes.
    pool_size : int or tuple of int, default=4
        Side or sides of a block.
    random_state : int, RandomState instance or None, default=None
        Seed for the initial kernels and the order of the images.
    verbose : int, default=0
        If nonzero, print one line per pass, with the mean energy and the time in seconds.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise the CPU.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, kernel_length)
        The kernels, flat.
    alpha_, penalty_, low_pass_, grid_ : float, dict, float, dict
        Weight and name of the penalty, weight of the smooth part and sizes used in the fit.
    energy_curve_ : ndarray of shape (n_iter_,)
        Mean energy in each pass that led to the kernels; each image is evaluated with the kernels
        at that time. Passes with moved kernels that were given up are left out.
    online_state_ : dict
        State from which ``partial_fit`` continues: sums, and up to eight patches of X.
    n_iter_, n_samples_seen_ : int, int
        Number of entries of ``energy_curve_`` (0 for a given dictionary) and of images.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    SparseCoder : The same energy without shifts.

    Notes
    -----
    With k kernels of s pixels, an image of p pixels and m non-zeros, an iteration of the solver
    costs O(k p log p + m s) and holds 12 k p numbers; images are streamed. Learning keeps O(k^2 s)
    sums and, up to 256 MiB, non-zeros of codes. float32 certifies gaps to about 2e-6 of the squared
    length of x. Use ``score`` to compare kernels with the same ``alpha``, ``boundary`` and
    ``low_pass``.

    References
    ----------
    B. Wohlberg, IEEE Transactions on Image Processing 25(1), 2016. T. Moreau et al., ICML 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import ConvSparseCoder
    >>> rng = np.random.default_rng(0)
    >>> wave = np.array([1.0, 2.0, -1.0]) / 6**0.5
    >>> spikes = 3 * rng.random((100, 30)) * (rng.random((100, 30)) < 0.1)
    >>> X = sum(np.roll(spikes, shift, axis=1) * wave[shift] for shift in range(3))
    >>> coder = ConvSparseCoder(1, kernel_size=5, alpha=0.05, random_state=0).fit(X)
    >>> bool(max(abs(coder.components_[0, i : i + 3] @ wave) for i in range(3)) > 0.99)
    True
    """

    _continues_from = "online_state_"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "device": EnergyEstimator._parameter_constraints["device"],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "kernel_size": [Interval(Integral, 1, None, closed="left"), "array-like", None],
        **{key: ["array-like", None] for key in ("image_shape", "dictionary", "dict_init")},
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "penalty": [StrOptions({"l1", "nonnegative"})],
        "boundary": [StrOptions({"circular", "zero"})],
        **{k: [Interval(Real, 0, None, closed="left")] for k in ("low_pass", "tol", "code_tol")},
        "algorithm": [StrOptions({"online", "batch", "consensus"})],
        **{k: [Interval(Integral, 1, None, closed="left")] for k in ("batch_size", "max_iter")},
        "solver": [StrOptions({"auto", "greedy", "fista", "admm"})],
        "pool": [StrOptions({"max", "mean"}), None],
        "pool_size": [Interval(Integral, 1, None, closed="left"), "array-like"],
        **{key: [key] for key in ("random_state", "verbose")},
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        kernel_size: int | tuple[int, ...] | None = None,
        image_shape: tuple[int, ...] | None = None,
        alpha: float = 0.1,
        penalty: Literal["l1", "nonnegative"] = "l1",
        boundary: Literal["circular", "zero"] = "circular",
        low_pass: float = 0.0,
        dictionary: Any = None,
        dict_init: Any = None,
        algorithm: Literal["online", "batch", "consensus"] = "online",
        batch_size: int = 32,
        max_iter: int = 20,
        tol: float = 1e-3,
        code_tol: float = 1e-6,
        solver: Literal["auto", "greedy", "fista", "admm"] = "auto",
        pool: Literal["max", "mean"] | None = "max",
        pool_size: int | tuple[int, ...] = 4,
        random_state: RandomState = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.n_components = n_components
        self.kernel_size = kernel_size
        self.image_shape = image_shape
        self.alpha = alpha
        self.penalty = penalty
        self.boundary = boundary
        self.low_pass = low_pass
        self.dictionary = dictionary
        self.dict_init = dict_init
        self.algorithm = algorithm
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.code_tol = code_tol
        self.solver = solver
        self.pool = pool
        self.pool_size = pool_size
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, *, mask: Any = None) -> Self:
        """Learn kernels whose sparse sums are close to the images.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training images.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        mask : array-like of shape (n_samples, n_features) or None, default=None
            True where a pixel is observed. Other pixels are ignored, and so are those that are NaN,
            here and in all methods; dask arrays and large arrays on disk must not hold NaN.

        Returns
        -------
        self : object
            The fitted coder. An exception or an interrupt leaves it as it was before.
        """
        return self._learn(X, self._fit, mask=fill_gaps(X, mask)[1])

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, *, mask: Any = None) -> Self:
        """Update the kernels with one pass over a chunk of images.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The next chunk of training images.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        mask : array-like of shape (n_samples, n_features) or None, default=None
            True where a pixel is observed.

        Returns
        -------
        self : object
            The updated coder. An exception or an interrupt leaves it as it was before.
        """
        first, seen = not self._is_fitted(), fill_gaps(X, mask)[1]
        return self._learn(X, self._partial_fit, first=first, mask=seen)

    def _open(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Rows:
        # Callbacks of a fit receive X as it was passed; every method is told what is missing.
        return super()._open(fill_gaps(X)[0], probe, reset=reset, min_rows=min_rows)

    def fit_transform(self, X: Any, y: Any = None, *, mask: Any = None) -> Any:
        """Fit the coder, and return ``transform`` of the training images.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training images.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        mask : array-like of shape (n_samples, n_features) or None, default=None
            True where a pixel is observed.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components * pooled_map_length)
            What ``fit(X, mask=mask).transform(X, mask=mask)`` returns.
        """
        return self.fit(X, y, mask=mask).transform(X, mask=mask)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _fit(self, rows: Rows, progress: Progress | None, **data: Any) -> dict[str, Any]:
        if self.dictionary is not None:
            return _kernels.given_kernels(self, rows, **data)
        return super()._fit(rows, progress, **data)

    def _max_steps(self, rows: Rows) -> int:
        return self.max_iter if self.dictionary is None else 0

    def _prepare(self, rows: Rows, **data: Any) -> KernelLearning:
        return _kernels.kernel_learning(self, rows, **data)

    def _start(self, problem: KernelLearning, draw: Draw) -> Pass:
        return problem.start(draw)

    def _step(self, problem: KernelLearning, run: Pass) -> Pass:
        return problem.step(run)

    def _finish(self, problem: KernelLearning, run: Pass, state: dict[str, Any]) -> None:
        problem.finish(run)

    def _advice(self) -> str:
        return ""  # max_iter is a budget: more passes rarely pay

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        if self.dictionary is None:
            return _kernels.learn_images(self, rows, **data)
        n_before = self.n_samples_seen_ if self._is_fitted() else 0
        return _kernels.given_kernels(self, rows, **data, n_before=n_before)

    def _state_spec(self) -> Spec:
        return _kernels.kernel_spec()

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return _kernels.unlearnt_kernels(self, given["components_"], given["n_features_in_"])

    def _check_state(self) -> None:
        super()._check_state()
        if self._is_fitted():
            _kernels.check_kernels(self)

    def _energy(self, device: torch.device) -> ConvolutionalCodingEnergy:
        return _kernels.kernel_energy(self, device)

    def _floats_per_row(self) -> int:
        return 12 * code_length(self)

    @property
    def _code_width(self) -> int:
        return code_length(self)

    @property
    def _n_features_out(self) -> int:
        return n_atoms(self) * pooling_of(self).length

    def transform(self, X: Any, *, mask: Any = None) -> Any:
        """Return the pooled code of each image; see ``pool``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.
        mask : array-like of shape (n_samples, n_features) or None, default=None
            True where a pixel is observed.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_features_out)
            One pooled map after the other. A ConvergenceWarning reports codes that have not
            converged.
        """
        X, seen = open_images(self, X, mask)
        with map_search(self) as search:
            return self._map_rows(X, search.pooled(pooling_of(self)), "transform", beside=seen)

    def codes(self, X: Any, *, mask: Any = None) -> Any:
        """Return the lowest-energy code of each image in full, whatever ``pool`` is.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.
        mask : array-like of shape (n_samples, n_features) or None, default=None
            True where a pixel is observed.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components * map_length)
            One map after the other; the entry at (i, j) is the weight of a kernel whose first pixel
            is there.
        """
        X, seen = open_images(self, X, mask)
        with map_search(self) as search:
            return self._map_rows(X, search.codes, "codes", beside=seen)

    def certificate(self, X: Any, *, mask: Any = None) -> Any:
        """Return the duality gap of each image's code, relative to its energy.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.
        mask : array-like of shape (n_samples, n_features) or None, default=None
            True where a pixel is observed.

        Returns
        -------
        certificate : array or tensor of shape (n_samples,)
            No code can lower the energy by a larger fraction.
        """
        X, seen = open_images(self, X, mask)
        with map_search(self) as search:
            return self._map_rows(X, search.certificates, "certificate", beside=seen)

    def free_energy(self, X: Any, *, mask: Any = None) -> Any:
        r"""Return :math:`F(x) = \min_z E(x, z)`, of the observed pixels if there is a mask.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.
        mask : array-like of shape (n_samples, n_features) or None, default=None
            True where a pixel is observed.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        X, seen = open_images(self, X, mask)
        with map_search(self) as search:
            return self._map_rows(X, search.free_energies, "free_energy", beside=seen)

    def score_samples(self, X: Any, *, mask: Any = None) -> Any:
        """Return -F(x), which is not normalised.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.
        mask : array-like of shape (n_samples, n_features) or None, default=None
            True where a pixel is observed.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Minus the free energy, of the observed pixels if there is a mask, in squared units of X.
            Higher is more typical.
        """
        return -self.free_energy(X, mask=mask)

    def score(self, X: Any, y: Any = None, *, mask: Any = None) -> float:
        """Return the mean of ``score_samples(X, mask=mask)``; higher is better.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Held-out images.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.
        mask : array-like of shape (n_samples, n_features) or None, default=None
            True where a pixel is observed.

        Returns
        -------
        score : float
            Mean over the images, in squared units of X.
        """
        return float(self.score_samples(X, mask=mask).mean())

    def energy(self, X: Any, Z: Any, *, mask: Any = None) -> Any:
        """Return E(x, z) of each image paired with a code in full.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.
        Z : array-like or tensor of shape (n_samples, n_components * map_length)
            Codes, as ``codes`` returns them.
        mask : array-like of shape (n_samples, n_features) or None, default=None
            True where a pixel is observed.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In squared units of X. Infinite for negative codes that ``penalty`` forbids.
        """
        X, seen = open_images(self, X, mask)
        if seen is None:
            return self._pair_energies(X, Z, may_be_infinite=True)
        beside = beside_masks(self._open_latents(Z), seen)
        return self._map_rows(X, seen_energies, "energy", beside=beside, may_be_infinite=True)

    def reconstruct(self, X: Any, *, mask: Any = None) -> Any:
        r"""Return :math:`L x + \sum_k d_k * z_k`: denoised, and complete if there is a mask.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Images.
        mask : array-like of shape (n_samples, n_features) or None, default=None
            True where a pixel is observed.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            Their reconstructions.
        """
        X, seen = open_images(self, X, mask)
        with map_search(self) as search:
            return self._map_rows(X, search.reconstructions, "reconstruct", beside=seen)

    @available_if(
        lambda coder: coder.pool is None, "it needs codes that are not pooled: set pool=None."
    )
    def inverse_transform(self, X: Any) -> Any:
        r"""Return :math:`\sum_k d_k * z_k`, without a smooth part. Needs ``pool=None``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components * map_length)
            Codes in full, as ``codes`` returns them.

        Returns
        -------
        X_decoded : array or tensor of shape (n_samples, n_features)
            Reconstructed images.
        """
        return self._map_rows(X, decoded, "inverse_transform", latents=True)
