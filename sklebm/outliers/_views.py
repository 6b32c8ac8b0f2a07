r"""How the energies of the default see a table: in robust units, and each feature alone.

In robust units, a feature is divided by its interquartile range. Alone, it is represented by its
normal score :math:`t = \Phi^{-1}(u(x))`, u the share of training rows below x, through the signed
root :math:`\operatorname{sign}(t) \sqrt{|t|}`, whose squared length is the sum of |t|.

The columns of a one-hot block are one variable: they share one scale, which gives the block the
variance of a feature, and alone they count once, by the rank of the category.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

_MAX_QUANTILES = 1000
_NORMAL_RANGE = 1.349  # interquartile range of a standard normal, in standard deviations

Floats = NDArray[np.floating[Any]]


class View(NamedTuple):
    """Robust units and ranks of the features of a training table.

    Attributes
    ----------
    location, scale : ndarray of shape (n_features,)
        Subtracted from each feature, and its divisor.
    quantiles : ndarray of shape (n_features, n_quantiles)
        Sorted training values of each feature.
    blocks : ndarray of shape (n_blocks, 2) or None
        First column of each one-hot block and the one after its last; None in older files.
    categories : ndarray of shape (n_features,) or None
        Root of the normal score of each category, 0 for other columns.
    """

    location: Floats
    scale: Floats
    quantiles: Floats
    blocks: Any = None
    categories: Any = None

    def kind(self, name: str) -> str:
        """What the member with this name sees."""
        return "alone" if name == "marginals" else "together"

    def kinds(self, names: Iterable[str]) -> set[str]:
        """What the members with these names see."""
        return {self.kind(name) for name in names}

    def see(self, kind: str, x: torch.Tensor) -> torch.Tensor:
        """The rows in robust units ("together"), or feature by feature ("alone")."""
        if kind == "together":
            location = torch.from_numpy(self.location).to(x)
            return (x - location) / torch.from_numpy(self.scale).to(x)
        roots = signed_root_scores(x, self.quantiles, self.scale)
        return self._one_each(x, roots) if self.blocks is not None and len(self.blocks) else roots

    def _one_each(self, x: torch.Tensor, roots: torch.Tensor) -> torch.Tensor:
        """The roots, with one value per block in place of one per category."""
        scores = torch.from_numpy(self.categories).to(roots)
        unseen = float(scores.max())  # a category not seen in fit is as rare as the rarest
        for start, stop in self.blocks.tolist():
            chosen = x[:, start:stop].to(roots.dtype)
            known = (chosen * scores[start:stop]).sum(dim=1)
            roots[:, start:stop] = 0.0
            roots[:, start] = known + unseen * (1 - chosen.sum(dim=1)).clamp(min=0.0)
        return roots


def make_view(x: Floats) -> View:
    """Measure a training table.

    Raises
    ------
    FloatingPointError
        If a range overflows.
    """
    location, scale = robust_scale(x)
    blocks = one_hot_blocks(x)
    categories = np.zeros(x.shape[1])
    for start, stop in blocks.tolist():
        shares = x[:, start:stop].mean(axis=0).astype(np.float64)
        location[start:stop] = shares
        variance = float((shares * (1 - shares)).sum())
        scale[start:stop] = _NORMAL_RANGE * np.sqrt(variance or 1.0)
        categories[start:stop] = _category_roots(shares, len(x))
    return View(location, scale, feature_quantiles(x), blocks, categories)


def _category_roots(shares: Floats, n_rows: int) -> Floats:
    """Roots of the normal scores of categories, from values with equally rare two-sided tails."""
    as_rare = np.array([shares[shares <= share].sum() for share in shares])
    # A category missing from the rows is rarer than one that occurs once.
    tail = np.clip(as_rare, 0.5 / (n_rows + 1), 1.0)
    roots: Floats = np.sqrt(np.abs(ndtri(tail / 2)))
    return roots


def one_hot_blocks(x: Floats) -> NDArray[np.int64]:
    """Runs of adjacent columns of 0 and 1 with exactly one 1 in every row: (start, stop) each."""
    binary = ((x == 0) | (x == 1)).all(axis=0) & (x.min(axis=0) != x.max(axis=0))
    found, start = [], 0
    while start < x.shape[1]:
        total, stop = np.zeros(len(x)), start
        while stop < x.shape[1] and binary[stop]:
            total += x[:, stop]
            stop += 1
            if total.max() > 1 or total.min() == 1:
                break
        if stop - start > 1 and total.min() == total.max() == 1:
            found.append((start, stop))
            start = stop
        else:
            start += 1
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def robust_scale(x: Floats) -> tuple[Floats, Floats]:
    """Median and interquartile range of each feature, which outliers hardly affect.

    If the quartiles coincide, the standard deviation is used instead, and 1 for constant features.

    Raises
    ------
    FloatingPointError
        If a range overflows.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        low, location, high = np.percentile(x.astype(np.float64), [25, 50, 75], axis=0)
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


def feature_quantiles(x: Floats) -> Floats:
    """At most 1,000 sorted values of each feature, shape (n_features, n_quantiles)."""
    count = min(len(x), _MAX_QUANTILES)
    # Values that occur rather than interpolated ones, so that tied values stay tied.
    kept = ((np.arange(count) + 0.5) * len(x) / count).astype(np.int64)
    return np.stack([np.sort(column)[kept] for column in x.T]).astype(np.float64)


def signed_root_scores(x: torch.Tensor, quantiles: Floats, scale: Floats) -> torch.Tensor:
    """Signed roots of the normal scores, extrapolated linearly beyond the training values.

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
    # At a training value: the middle of its ties; between two: interpolated. The ends of ties are
    # looked up for the few knots, not for the many values.
    middle = 0.5 * (below + torch.searchsorted(knots, knots, right=True).gather(1, right))
    level = torch.where(columns == high, middle, between)
    scores = torch.special.ndtri(level / count)
    outside = (columns - knots[:, -1:]).clamp(min=0) + (columns - knots[:, :1]).clamp(max=0)
    scores = scores + outside / torch.from_numpy(scale).to(knots)[:, None]
    roots: torch.Tensor = scores.sign() * scores.abs().sqrt()
    return roots.T.to(x.dtype).contiguous()
