"""Input of machines with binary visible units: values in [0, 1], or what to do about others."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from sklebm._private import StrOptions
from sklebm._rows import Rows
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
        if self.value_range == "clip":
            rows.limits = (0.0, 1.0)
        elif self.value_range == "raise" or learning:
            self._check_range(rows)
        return rows

    def _check_range(self, rows: Rows) -> None:
        parts = rows.chunks(rows.shape[1])
        low = min(float(rows[part].min()) for part in parts)
        high = max(float(rows[part].max()) for part in parts)
        if low >= 0.0 and high <= 1.0:
            return
        message = (
            f"X contains values outside [0, 1] (min={low:.4g}, max={high:.4g}): the units of "
            f"{type(self).__name__} are probabilities. Scale with MinMaxScaler, or set "
            'value_range="clip".'
        )
        if self.value_range == "raise":
            raise ValueError(message)
        warnings.warn(message + " They are used as they are.", UserWarning, stacklevel=6)
