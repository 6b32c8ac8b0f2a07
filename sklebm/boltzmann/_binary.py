"""Input of machines with binary visible units: values in [0, 1], or what to do about others."""

from __future__ import annotations

from typing import Any, ClassVar

from sklebm._shell.private import StrOptions
from sklebm._shell.random import make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.value_range import apply_value_range
from sklebm.boltzmann._estimator import BoltzmannEstimator
from sklebm.objectives import Batch
from sklebm.objectives.pseudo_likelihood import pseudo_log_likelihood


class BinaryVisible(BoltzmannEstimator):
    """A machine whose rows are bits, or probabilities of bits."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BoltzmannEstimator._parameter_constraints,
        "value_range": [StrOptions({"warn", "raise", "clip"})],
    }
    _visible_range = (0.0, 1.0)
    value_range: str

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        # The same bits in every epoch: what moves the score is the model alone.
        generator = make_generator(seed, "pseudo-likelihood")
        return float(pseudo_log_likelihood(energy, batch.x, generator).double().mean())

    def _open(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Rows:
        rows = super()._open(X, probe, reset=reset, min_rows=min_rows)
        learning = reset or probe is not self
        owner = type(self).__name__
        apply_value_range(rows, self.value_range, owner=owner, learning=learning)
        return rows
