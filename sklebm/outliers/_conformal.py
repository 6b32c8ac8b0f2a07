r"""p(x) = (1 + #{i : s(x_i) <= s(x)}) / (n + 1) over n held-out rows x_i: conformal p-values.

If x and the x_i are exchangeable, P(p(x) <= a) <= a for any score s, and it exceeds a - 1/(n + 1)
if scores are not tied (Vovk, Gammerman and Shafer, 2005).
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def conformal_p_values(scores: Floats, calibration: Floats) -> Floats:
    """p-values of rows with these scores; ``calibration`` is sorted. O(m log n)."""
    as_low = np.searchsorted(calibration, scores, side="right")
    return np.asarray((1 + as_low) / (len(calibration) + 1), dtype=np.float64)


def benjamini_hochberg(p_values: Floats, level: float) -> NDArray[np.bool_]:
    """True for the k smallest p-values, k the largest with p_(k) <= k level / m. O(m log m)."""
    ascending = np.sort(p_values)
    # A product instead of a quotient: k/m * level has one rounding less.
    passed = ascending * len(ascending) <= level * np.arange(1, len(ascending) + 1)
    if not passed.any():
        return np.zeros(len(p_values), dtype=bool)
    return np.asarray(p_values <= ascending[np.flatnonzero(passed)[-1]])


def check_level(name: str, level: Any, n_calibration: int) -> float:
    """The level as a float; refused if no p-value can be that small."""
    if not isinstance(level, Real) or isinstance(level, bool) or not 0 < float(level) < 1:
        raise ValueError(f"{name}={level!r} must be a number between 0 and 1.")
    checked, smallest = float(level), 1 / (n_calibration + 1)
    if checked < smallest:
        raise ValueError(
            f"{name}={level!r} is below {smallest:.3g}, the smallest p-value that {n_calibration} "
            f"calibration rows can give: no row could be called an outlier. Calibrate on at least "
            f"{math.ceil(1 / checked) - 1} rows, or choose a larger {name}."
        )
    return checked


def calibration_size(n_rows: int, fraction: float) -> int:
    """Number of rows held out: at least one, and at least two remain."""
    size = max(1, round(fraction * n_rows))
    if n_rows - size < 2:
        raise ValueError(
            f"calibration={fraction} of n_samples={n_rows} leaves {n_rows - size} to fit: pass "
            "more rows or a smaller fraction."
        )
    return size
