r"""What ``estimator="auto"`` means: five energies of robustly scaled features.

Four see the features in units of their interquartile range; the fifth sees each feature alone, by
its normal score :math:`t = \Phi^{-1}(u(x))`, u the share of training rows below x, through the
signed root :math:`\operatorname{sign}(t) \sqrt{|t|}`, whose squared length is the sum of |t|.

For tables whose features have units of their own. Chosen among some ninety energies and their
combinations, none tuned per table, by the mean AUROC of ``benchmarks/bench_ood.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklebm.linear import PCAWhitener
from sklebm.mixture import EnergyGaussianMixture, EnergyKMeans

_MAX_COMPONENTS = 8
_ROWS_PER_FEATURE = 2  # training rows of a component, as a multiple of the features
_MAX_CLUSTERS = 64
_ROWS_PER_CLUSTER = 20
_LOCAL_ROWS = 20_000  # what the two energies that iterate are fitted to at most
_EM_PRODUCTS = 2e9  # multiplications of an EM step: wide tables get fewer components
_QUANTILE_ROWS = 100_000  # quantiles of more rows change by less than a hundredth of the range
_MAX_QUANTILES = 1000
_CORE_SHARE = 0.75  # of the rows, which the robust Gaussian is fitted to
_CORE_STEPS = 5
_ITERATIVE: dict[str, Any] = {"max_iter": 50, "random_state": 0}

Floats = NDArray[np.floating[Any]]


def default_members(n_rows: int, n_features: int) -> list[tuple[str, Any]]:
    """Unfitted energies: single features, a Gaussian of all rows or most, a mixture, clusters."""
    rows = min(n_rows, _LOCAL_ROWS)
    n_components = min(
        _MAX_COMPONENTS,
        rows // (_ROWS_PER_FEATURE * n_features),
        int(_EM_PRODUCTS / (rows * n_features**2)),
    )
    n_components = max(1, n_components)
    n_clusters = max(1, min(_MAX_CLUSTERS, rows // _ROWS_PER_CLUSTER))
    return [
        ("marginals", EnergyKMeans(n_clusters=1, random_state=0)),
        ("gaussian", PCAWhitener(ridge=0.1)),
        ("core", _core_gaussian()),
        ("mixture", EnergyGaussianMixture(n_components, reg_covar=0.01, **_ITERATIVE)),
        ("clusters", EnergyKMeans(n_clusters, **_ITERATIVE)),
    ]


def fitting_rows(name: str, view: Any) -> Any:
    """The rows that a member is fitted to: all, a sample for those that iterate, or the core."""
    if name in ("core", "mixture", "clusters") and len(view) > _LOCAL_ROWS:
        chosen = np.random.default_rng(0).choice(len(view), _LOCAL_ROWS, replace=False)
        view = view[np.sort(chosen)]
    return central_rows(view) if name == "core" else view


def central_rows(view: Any) -> Any:
    """Three quarters of the rows, on which a Gaussian is narrow: those least far from it.

    Concentration steps (Rousseeuw and Van Driessen, 1999) from the rows nearest to the median, here
    the origin: a group of outliers cannot bend the Gaussian towards itself.
    """
    size = min(len(view), max(int(_CORE_SHARE * len(view)), view.shape[1] + 2))
    kept = _lowest(view.square().sum(dim=1), size)
    for _ in range(_CORE_STEPS):
        gaussian = _core_gaussian().fit(view[kept])
        closer = _lowest(-gaussian.score_samples(view), size)
        if torch.equal(closer, kept):
            break
        kept = closer
    return view[kept]


def _core_gaussian() -> PCAWhitener:
    return PCAWhitener(ridge=0.01)


def _lowest(values: torch.Tensor, size: int) -> torch.Tensor:
    """Indices of the ``size`` lowest values, ascending."""
    return torch.argsort(values, stable=True)[:size].sort().values


def robust_scale(x: Floats) -> tuple[Floats, Floats]:
    """Median and interquartile range of each feature, which outliers move little.

    A feature whose quartiles coincide takes its standard deviation, a constant one 1.

    Raises
    ------
    FloatingPointError
        If a range overflows.
    """
    some = _some_rows(x)
    with np.errstate(over="ignore", invalid="ignore"):
        low, location, high = np.percentile(some.astype(np.float64), [25, 50, 75], axis=0)
        scale = high - low
        for column in np.flatnonzero(scale == 0):
            values = x[:, column].astype(np.float64)
            scale[column] = 1.0 if values.min() == values.max() else values.std()
    if not np.isfinite(scale).all():
        raise FloatingPointError(
            f"The range of feature {int(np.argmin(np.isfinite(scale)))} overflows (largest |X|: "
            f"{float(np.abs(x).max()):.3g}). Scale X first."
        )
    return location, scale


def apply_scale(x: torch.Tensor, location: Floats, scale: Floats) -> torch.Tensor:
    """The rows in units of the scale, in their own dtype and on their own device."""
    return (x - torch.from_numpy(location).to(x)) / torch.from_numpy(scale).to(x)


def feature_quantiles(x: Floats) -> Floats:
    """At most 1,000 ascending values of each feature, shape (n_features, n_quantiles)."""
    some = _some_rows(x)
    count = min(len(some), _MAX_QUANTILES)
    # Values that occur, not interpolated ones: tied values stay tied.
    kept = ((np.arange(count) + 0.5) * len(some) / count).astype(np.int64)
    return np.stack([np.sort(column)[kept] for column in some.T]).astype(np.float64)


def _some_rows(x: Floats) -> Floats:
    """All rows, or so many that their quantiles hardly differ from those of all."""
    if len(x) <= _QUANTILE_ROWS:
        return x
    return x[np.random.default_rng(0).choice(len(x), _QUANTILE_ROWS, replace=False)]


def signed_root_scores(x: torch.Tensor, quantiles: Floats, scale: Floats) -> torch.Tensor:
    """Signed roots of the normal scores, which go on linearly beyond the training values.

    O(n d log q) for q quantiles.
    """
    knots = torch.from_numpy(quantiles).to(x.device)
    columns = x.T.to(knots.dtype).contiguous()
    below = torch.searchsorted(knots, columns)
    count = knots.shape[1]
    left, right = (below - 1).clamp(min=0), below.clamp(max=count - 1)
    low, high = knots.gather(1, left), knots.gather(1, right)
    share = ((columns - low) / torch.where(high > low, high - low, 1.0)).clamp(0, 1)
    between = left + 0.5 + share * (right - left)
    # On a training value: the middle of its ties; between two: interpolated. Where ties end is
    # looked up for the few knots, not for the many values.
    middle = 0.5 * (below + torch.searchsorted(knots, knots, right=True).gather(1, right))
    level = torch.where(columns == high, middle, between)
    scores = torch.special.ndtri(level / count)
    outside = (columns - knots[:, -1:]).clamp(min=0) + (columns - knots[:, :1]).clamp(max=0)
    scores = scores + outside / torch.from_numpy(scale).to(knots)[:, None]
    roots: torch.Tensor = scores.sign() * scores.abs().sqrt()
    return roots.T.to(x.dtype).contiguous()
