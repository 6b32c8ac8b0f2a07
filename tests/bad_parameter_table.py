"""Bad values of parameters: what an estimator's constraints exclude, and what only a name tells.

``bad_values(estimator, parameter)`` asks the constraints which of some suspicious values they
exclude, so that a new parameter is tested without a line here. ``BY_NAME`` adds values that a
constraint lets pass ("array-like"), and that the fit has to refuse.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, make_constraint

NAN = math.nan
# The first of these that are excluded are tried, with the ends of intervals.
NUMBERS: tuple[Any, ...] = (0, NAN, -1, 2.5, math.inf, 3, 0.5)
OTHERS: tuple[Any, ...] = ("no such choice", None, [], {}, np.random.default_rng(0))
N_NUMBERS, N_OTHERS = 5, 3

BY_NAME: dict[str, tuple[Any, ...]] = {
    "background": ([],),
    "components_init": ("random", [[0.0]], [[NAN] * 6] * 3, [[-1.0] * 6] * 3),
    "dict_init": ("random", [[0.0]], [[NAN] * 6] * 3, [[0.0] * 6] * 3),
    "dictionary": ("random", [[0.0]], [[NAN] * 6] * 3, [[0.0] * 6] * 3),
    "doc_topic_prior": ([1.0], [0.0, 1.0, 1.0], [NAN] * 3),
    "estimator": ("no such choice", 3, [], None),
    "hidden_sizes": ((0,), (2.5,), (8, -1), 0),
    "init": ([[0.0]], [[NAN] * 6] * 4),
    "inhibition_mask": (NAN, [[1.0]], [[2.0] * 3] * 3),
    "means_init": ("random", [[0.0]], [[NAN] * 6] * 4),
    "n_clusters": (2**31,),
    "n_solver_steps": (5,),
    "precisions_init": ("random", [[0.0]], [[-1.0] * 6] * 4, [[NAN] * 6] * 4),
    "weights_init": ("random", [0.5], [0.5, 0.5, 0.5, -0.5], [NAN] * 4),
}

# Parameters that are tested on their own, with what holds for them.
ELSEWHERE = {"device": "test_containers.py"}

# Read when learning begins, not when it goes on.
STARTS = (
    "components_init",
    "dict_init",
    "init",
    "inhibition_mask",
    "means_init",
    "precisions_init",
    "weights_init",
)

# Values too large for any machine: refused by a check or by the allocator, never half done.
TOO_LARGE = {"n_components": 2**44, "n_clusters": 2**44}


def names_it(parameter: str, error: BaseException) -> bool:
    """Whether the message has the parameter as a word of its own, not within that of a class."""
    return re.search(rf"(?<!\w){re.escape(parameter)}(?!\w)", str(error)) is not None


def bad_values(estimator: Any, parameter: str) -> list[Any]:
    """Values of this parameter that the estimator has to refuse."""
    if parameter in ELSEWHERE:
        return []
    constraints = estimator._parameter_constraints.get(parameter, ())
    tests = [make_constraint(constraint) for constraint in constraints]

    def excluded(values: Any, limit: int) -> list[Any]:
        bad = [v for v in values if not any(test.is_satisfied_by(v) for test in tests)]
        # 0 and 0.0 are one value
        return [v for i, v in enumerate(bad) if not any(v == known for known in bad[:i])][:limit]

    if not tests:
        return [*BY_NAME.get(parameter, ())]
    numbers = [*(end for constraint in constraints for end in _ends(constraint)), *NUMBERS]
    derived = excluded(numbers, N_NUMBERS) + excluded(OTHERS, N_OTHERS)
    return [*derived, *BY_NAME.get(parameter, ())]


def _ends(constraint: Any) -> list[Any]:
    """The values closest to an interval that are not in it."""
    if not isinstance(constraint, Interval):
        return []
    ends = []
    for end, names, step in (
        (constraint.left, ("left", "both"), -1),
        (constraint.right, ("right", "both"), 1),
    ):
        if end is not None and math.isfinite(end):
            ends.append(end + step if constraint.closed in names else end)
    return ends
