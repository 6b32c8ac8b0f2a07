"""What models of neighbouring labels share: labels as codes, scores of labels, row-wise results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm._shell.columns import add_columns
from sklebm._shell.labels import encode, read_labels
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Labels, Spec, refuse_broken
from sklebm._shell.tables import wants_frames
from sklebm.base import EnergyEstimator
from sklebm.energies.linear_scores import LinearScores


class StructuredClassifier(ClassifierMixin, EnergyEstimator):
    """Base of classifiers whose answer for a row depends on the rows next to it."""

    _accepts_sparse = True
    _computes_in_double = True

    classes_: NDArray[Any]
    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]
    transitions_: NDArray[np.float64]

    # ------------------------------------------------------------------ fitted state

    def _state_spec(self) -> Spec:
        return {
            "classes_": Labels(),
            "coef_": Array("f", (None, "n_features_in_"), of="coef"),
            "intercept_": Array("f", (None,), of="intercept"),
        }

    def _check_state(self) -> None:
        super()._check_state()
        if not self._is_fitted():
            return
        n, name = len(self.classes_), type(self).__name__
        for attribute, axes in (("coef_", 1), ("intercept_", 1), ("transitions_", 2)):
            shape = np.shape(getattr(self, attribute))
            if shape[:axes] != (n,) * axes:
                raise ValueError(
                    f"{name}.{attribute} has shape {shape}, but {name}.classes_ has {n} labels."
                )

    @property
    def _n_features_out(self) -> int:
        return len(self.classes_)

    def _floats_per_row(self) -> int:
        return 2 * int(self.n_features_in_) + 6 * len(self.classes_)

    # ------------------------------------------------------------------ answers

    def _answer(
        self, X: Any, what: str, answer: Callable[[Rows, Any, LinearScores], Any], **columns: Any
    ) -> Any:
        """``answer(rows, scores, energy)`` for all rows at once, in the type and dtype of X."""
        check_is_fitted(self)
        refuse_broken(self, what)  # the best of labels would hide it
        self._validate_params()  # how labels are found may have changed after fit
        rows = self._open(X, self, reset=False)
        add_columns(rows, type(self).__name__, **columns)
        energy = self._energy(rows.device).to(torch.float64)
        found = answer(rows, self._scores(rows, energy, what), energy)
        if found.dtype.kind == "f":
            found = found.astype(np.float32 if rows.dtype is torch.float32 else np.float64)
        if not isinstance(X, torch.Tensor) or (what == "transform" and wants_frames(self)):
            return found
        return torch.from_numpy(found).to(X.device)

    def _scores(self, rows: Rows, energy: LinearScores, what: str) -> NDArray[np.float64]:
        """Scores of the labels of all rows, in double precision."""
        if scipy.sparse.issparse(rows.source):  # never made dense: it may be very wide
            product = rows.source @ self.coef_.T.astype(np.float64)
            return np.asarray(product + self.intercept_, np.float64)
        scores = rows.map(
            lambda x: energy.scores(x.double()),
            floats_per_row=self._floats_per_row(),
            what=f"{type(self).__name__}.{what}",
            as_numpy=True,
        )
        return np.asarray(scores, np.float64)

    def _codes(self, y: Any, n_rows: int) -> NDArray[np.int64]:
        """Codes of given labels, one a row."""
        check_is_fitted(self)
        name = type(self).__name__
        codes = encode(read_labels(y, name), self.classes_, name, "fit with rows of all labels")
        if len(codes) != n_rows:
            raise ValueError(f"y has {len(codes)} entries, but X has {n_rows} rows.")
        return codes

    def _accuracy(self, y: Any, predicted: Any, sample_weight: Any) -> float:
        truth, found = to_numpy(y), to_numpy(predicted)
        return float(accuracy_score(truth, found, sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
