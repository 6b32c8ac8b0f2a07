"""Input of machines with binary visible units: values in [0, 1], or what to do about others."""

from __future__ import annotations

from typing import Any, ClassVar

from sklebm._private import StrOptions
from sklebm._rows import Rows
from sklebm._value_range import apply_value_range
from sklebm.boltzmann._estimator import BoltzmannEstimator


class BinaryVisible(BoltzmannEstimator):
    """A machine whose rows are bits, or probabilities of bits."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BoltzmannEstimator._parameter_constraints,
        "value_range": [StrOptions({"warn", "raise", "clip"})],
    }
    value_range: str

    def _open(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Rows:
        rows = super()._open(X, probe, reset=reset, min_rows=min_rows)
        learning = reset or probe is not self
        owner = type(self).__name__
        apply_value_range(rows, self.value_range, owner=owner, learning=learning, stacklevel=6)
        return rows
