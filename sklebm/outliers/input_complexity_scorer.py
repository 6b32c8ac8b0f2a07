r"""s(x) = log p(x) + L(x) log 2, L the bits that a lossless compressor needs for x."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Record, Spec
from sklebm.composite import MemberFits
from sklebm.outliers._base import EnergyScorer
from sklebm.outliers._complexity import COMPRESSORS, code_lengths, quantise


class InputComplexityScorer(EnergyScorer):
    r"""Score rows by their density relative to how simple they are.

    .. math:: s(x) = \log p(x) + L(x) \log 2,

    where L(x) is the length, in bits, of a lossless code of the row. Image densities are high
    wherever an image is simple, whether or not it resembles the training images. A general-purpose
    compressor measures only this simplicity: the sum is the log likelihood ratio of the density to
    the compressor, read as a model with probabilities :math:`2^{-L(x)}` [1]_.

    Parameters
    ----------
    estimator : "auto" or estimator, default="auto"
        Any estimator whose ``score_samples`` is a log density or log probability in nats; minus an
        energy without its constant gives the same ranking. "auto" is a Gaussian,
        :class:`~sklebm.PCAWhitener`.
    image_shape : tuple of int or None, default=None
        (height, width) or (height, width, channels) of images whose pixels are the features, in
        row-major order. Images are coded as in PNG, with the shortest of five filters; if None, a
        row is a plain sequence of values.
    compressor : {"zlib", "bz2", "lzma"}, default="zlib"
        A compressor from Python's standard library.
    n_levels : int, default=256
        Number of levels, from 2 to 256, to which values are rounded for the code; the estimator
        sees the original values. The levels divide the range of all training values evenly, so
        features must share one unit, as pixels do.

    Attributes
    ----------
    range_ : ndarray of shape (2,)
        Lowest and highest training value. Values outside are coded as the nearer of the two.
    code_ : dict
        Settings of the code: compressor, n_levels and image_shape at the time of ``fit``.
    estimator_ : estimator
        The fitted estimator.
    named_estimators_ : dict
        The same under the name "estimator".
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    LikelihoodRatioScorer : Compares with a second model instead of a compressor.

    Notes
    -----
    Codes are whole bytes, so L is known to 8 bits, 5.5 nats: too coarse for rows of a few values.
    "bz2" adds the constant length of its file header. Pixels quantised in steps of h have the
    probabilities :math:`p(x) h^d`; the constant d log h is left out.

    Cost: that of the estimator, plus O(d) per row and filter, some tens of microseconds for 28 x 28
    images.

    References
    ----------
    .. [1] J. Serra, D. Alvarez, V. Gomez, O. Slizovskaia, J. F. Nunez and J. Luque, "Input
       complexity and out-of-distribution detection with likelihood-based generative models",
       ICLR 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import InputComplexityScorer
    >>> textures = np.random.default_rng(0).normal(size=(2000, 16 * 16))
    >>> scorer = InputComplexityScorer(image_shape=(16, 16)).fit(textures)
    >>> blank = np.zeros((1, 16 * 16))
    >>> density = scorer.estimator_.score_samples  # a blank image is more probable than any texture
    >>> bool(density(blank) > density(textures).max())
    True
    >>> bool(scorer.score_samples(blank) < scorer.score_samples(textures).min())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyScorer._parameter_constraints,
        "image_shape": ["array-like", None],
        "compressor": [StrOptions(set(COMPRESSORS))],
        "n_levels": [Interval(Integral, 2, 256, closed="both")],
    }

    range_: Any
    code_: dict[str, Any]

    def __init__(
        self,
        estimator: Any = "auto",
        *,
        image_shape: tuple[int, ...] | None = None,
        compressor: Literal["zlib", "bz2", "lzma"] = "zlib",
        n_levels: int = 256,
    ) -> None:
        self.estimator = estimator
        self.image_shape = image_shape
        self.compressor = compressor
        self.n_levels = n_levels

    @property
    def _reads_numbers(self) -> bool:
        return True

    def _fit(self, X: Rows, members: MemberFits, **data: Any) -> dict[str, Any]:
        member = self._density()
        self._check_image_shape(X.shape[1])
        values = X.to_numpy()
        code: dict[str, Any] = {"compressor": self.compressor, "n_levels": int(self.n_levels)}
        if self.image_shape is not None:
            code["image_shape"] = np.array(self.image_shape, dtype=np.int64)
        return {
            "named_estimators_": {"estimator": members.fit("estimator", member, values, data["y"])},
            "range_": np.array([values.min(), values.max()], dtype=np.float64),
            "code_": code,
        }

    def _check_image_shape(self, width: int) -> None:
        shape = self.image_shape
        if shape is None:
            return
        whole = all(isinstance(size, Integral) and size > 0 for size in shape)
        if len(shape) not in (2, 3) or not whole or math.prod(shape) != width:
            raise ValueError(
                f"image_shape={shape!r} must be (height, width) or (height, width, channels), and "
                f"their product the number of features, {width}."
            )

    def complexity(self, X: Any) -> Any:
        """Return the length of each row's code.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        bits : array or tensor of shape (n_samples,)
            In bits, a multiple of 8.
        """
        return self._map_values(X, self._bits)

    def score_samples(self, X: Any) -> Any:
        """Return the log density of each row plus the length of its code.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            In nats; higher is more typical.
        """
        return self._map_values(
            X,
            lambda values: self._scores_of("estimator", values) + math.log(2) * self._bits(values),
        )

    def _bits(self, values: Any) -> Any:
        host = values if isinstance(values, np.ndarray) else values.cpu().numpy()
        low, high = self.range_.tolist()
        shape = self.code_.get("image_shape")
        levels = quantise(host, low, high, self.code_["n_levels"])
        return code_lengths(levels, self.code_["compressor"], shape)

    def _state_spec(self) -> Spec:
        return {"range_": Array("f", (2,)), "code_": Record()}
