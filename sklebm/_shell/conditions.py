"""What rows are generated from, besides latents: labels as indicators, or standardised numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sklebm._shell.arrays import to_numpy
from sklebm._shell.labels import encode, read_labels
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import Scaling, measure_spread
from sklebm._shell.state import Array, Labels, Spec
from sklebm._shell.targets import as_table, matching_targets, read_targets

#: Fitted attributes that hold the conditions, and what they are.
CONDITIONS: Spec = {
    "classes_": Labels(optional=True),
    "target_offset_": Array("f", (None,), optional=True),
    "target_scale_": Array("f", (None,), optional=True),
}


@dataclass(frozen=True)
class Conditions:
    """How targets become numbers beside the rows.

    Parameters
    ----------
    classes : ndarray or None
        The labels, each of which has an indicator; None: there are none.
    scaling : Scaling or None
        Offset and scale of numeric targets; None: there are none.
    """

    classes: NDArray[Any] | None = None
    scaling: Scaling | None = None

    @classmethod
    def learnt(cls, y: Any, owner: str, classes: Any = None) -> Self:
        """From training targets: floating-point ones are numbers, all others are labels.

        ``classes`` are the labels that will ever come, if those of y are not all of them.
        """
        if y is None or to_numpy(y).dtype.kind == "f":
            if classes is not None:
                raise ValueError(
                    f"{owner} got classes, but y holds floating-point numbers, which are "
                    "not labels: leave classes out, or convert y to integers."
                )
            rows = Rows(as_table(read_targets(y, owner)), torch.device("cpu"))
            return cls(scaling=measure_spread(rows).scaling(common=False))
        return cls(np.unique(read_labels(y if classes is None else classes, owner)))

    @classmethod
    def recalled(cls, estimator: Any) -> Self:
        """Those of a fitted estimator."""
        offset, scale = estimator.target_offset_, estimator.target_scale_
        return cls(estimator.classes_, None if offset is None else Scaling(offset, scale))

    @property
    def n_given(self) -> int:
        """Numbers beside each row."""
        if self.classes is not None:
            return len(self.classes)
        return 0 if self.scaling is None else len(self.scaling.offset)

    def state(self) -> dict[str, Any]:
        """The fitted attributes."""
        return {
            "classes_": self.classes,
            "target_offset_": None if self.scaling is None else self.scaling.offset.copy(),
            "target_scale_": None if self.scaling is None else self.scaling.scale.copy(),
        }

    def check(self, owner: str) -> None:
        """Raise ValueError unless there are labels, or a scale of every number."""
        if self.scaling is None:
            return
        offset, scale = self.scaling.offset, self.scaling.scale
        if self.classes is not None or offset.shape != scale.shape or not (scale > 0.0).all():
            raise ValueError(
                f"{owner} needs either classes_, or target_offset_ and positive target_scale_ of "
                "the same length."
            )

    def column(self, y: Any, owner: str) -> NDArray[Any]:
        """Targets as they accompany training rows: codes of labels, or numbers, (n, m)."""
        if self.classes is not None:
            return encode(read_labels(y, owner), self.classes, owner)
        scaling = self.scaling or Scaling(np.zeros(self.n_given), np.ones(self.n_given))
        found: NDArray[np.float64] = matching_targets(y, self.n_given, owner) - scaling.offset
        return found / scaling.scale

    def rows(self, y: Any, n_rows: int, owner: str) -> Rows:
        """What networks get beside ``n_rows`` rows, (n_rows, n_given).

        Raises
        ------
        ValueError
            If y is missing, of another length, or was never seen in ``fit``.
        """
        codes = self.column(y, owner)
        if len(codes) != n_rows:
            raise ValueError(
                f"y has {len(codes)} entries, but there are {n_rows} rows: pass one for each row."
            )
        if self.classes is not None:
            codes = np.eye(len(self.classes))[codes]
        return Rows(codes, torch.device("cpu"))

    def repeated(self, y: Any, n_samples: int) -> Any:
        """One label, or the numbers of one row, as those of ``n_samples`` rows; others unchanged.

        Of several entries there are ``n_samples``, or it is 1 and each gets a row.
        """
        if y is None:
            return y
        values = to_numpy(y)
        whole = 1 if self.scaling is not None and self.n_given > 1 else 0
        if values.ndim <= whole:
            return np.repeat(values[None], n_samples, axis=0)
        if n_samples not in (1, len(values)):
            raise ValueError(
                f"n_samples={n_samples}, but y has {len(values)} entries: leave n_samples out, or "
                "pass one entry for all rows."
            )
        return values
