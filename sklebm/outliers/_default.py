"""What ``estimator="auto"`` means: energies of features, of most rows, of groups, of neighbours.

Chosen on tables other than the one being tested, each table in turn:
``benchmarks/bench_ood_choice.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sklebm._shell.rows import Rows
from sklebm._shell.warning import silenced
from sklebm.composite import MemberFits
from sklebm.linear import PCAWhitener
from sklebm.mixture import EnergyGaussianMixture, EnergyKMeans
from sklebm.outliers._ensemble import Ensemble
from sklebm.outliers._views import make_view
from sklebm.outliers.neighbour_energy import NeighbourEnergy

FITTED_ROWS = 10_000  # the most rows the energies are fitted to
_MAX_COMPONENTS = 8
# Training rows per Gaussian, as a multiple of the features. With fewer, a Gaussian fits its own
# rows too closely: any new row surprises it, and its surprise decides.
_ROWS_PER_FEATURE = 5
_EM_PRODUCTS = 2e9  # multiplications of an EM step: wide tables get fewer components
_NEIGHBOURS = 10
_STORED_ROWS = 2_000
_FLOATS_PER_VALUE = 16
_CORE_SHARE = 0.75  # share of the rows that the robust Gaussian is fitted to
_CORE_STEPS = 5

Members = list[tuple[str, Any]]


def default_members(n_rows: int, n_features: int) -> Members:
    """Unfitted energies: single features, a Gaussian of most rows, a mixture, neighbours."""
    rows = min(n_rows, FITTED_ROWS)
    n_components = min(
        _MAX_COMPONENTS,
        rows // (_ROWS_PER_FEATURE * n_features),
        int(_EM_PRODUCTS / (rows * n_features**2)),
    )
    n_components = max(1, n_components)
    mixture = EnergyGaussianMixture(n_components, reg_covar=0.01, max_iter=50, random_state=0)
    n_neighbors = min(_NEIGHBOURS, max(2, rows // 2))  # a row is its own nearest neighbour
    neighbours = NeighbourEnergy(n_neighbors, max_samples=_STORED_ROWS, random_state=0)
    return [
        ("marginals", EnergyKMeans(n_clusters=1, random_state=0)),
        ("core", _core_gaussian()),
        ("mixture", mixture),
        ("neighbours", neighbours),
    ]


def fit_default(rows: Rows, fits: MemberFits) -> Ensemble:
    """Fit the energies to these rows, all of which are read into memory."""
    view = make_view(rows.to_numpy())
    members = dict(default_members(*rows.shape))
    # Advice to lower n_components or drop a column is no help: the user chose neither.
    with silenced():
        for name, member in members.items():
            chunks = rows.chunks(_FLOATS_PER_VALUE * rows.shape[1])
            with torch.no_grad():
                seen = torch.cat([view.see(view.kind(name), rows[part]) for part in chunks])
            fits.fit(name, member, central_rows(seen) if name == "core" else seen)
    return Ensemble(members, view=view)


def central_rows(view: torch.Tensor) -> torch.Tensor:
    """The three quarters of the rows that a narrow Gaussian fits: those closest to it.

    Concentration steps (Rousseeuw and Van Driessen, 1999) from the rows nearest to the median, here
    the origin, so that a group of outliers cannot pull the Gaussian towards itself.
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


def drawn_rows(n_rows: int, limit: int, weights: Any = None) -> Any:
    """Indices of at most ``limit`` rows, ascending; None selects every row once.

    With weights, rows are drawn in proportion to them, evenly spaced along their cumulative sum: an
    integer weight of m draws the row m times, unless there are too many rows.
    """
    if weights is None:
        if n_rows <= limit:
            return None
        return np.sort(np.random.default_rng(0).choice(n_rows, limit, replace=False))
    upto = np.cumsum(weights)
    size = min(limit, max(round(float(upto[-1])), int((weights > 0).sum())))
    places = (np.arange(size) + 0.5) * (float(upto[-1]) / size)
    return np.minimum(np.searchsorted(upto, places, side="right"), n_rows - 1)
