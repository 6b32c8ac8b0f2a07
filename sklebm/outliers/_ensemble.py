r"""Several energies on one scale: s = mean of the two lowest of log u_m(s_m(x))."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from sklebm._shell.arrays import to_numpy
from sklebm._shell.rows import Rows, open_rows, resolve_device, row_slices
from sklebm.outliers._composition import MemberComposition
from sklebm.outliers._default import (
    apply_scale,
    default_members,
    feature_quantiles,
    fitting_rows,
    robust_scale,
    signed_root_scores,
)
from sklebm.outliers._members import checked_scores, given_members
from sklebm.outliers._surprise import log_rank, training_quantiles

_FLOATS_PER_VALUE = 16  # temporary numbers of the normal scores and the members, per value
_FLOATS_PER_SCORE = 8  # temporary numbers of the ranks, for each score of a row


class EnergyEnsemble(MemberComposition):
    """Base of detectors: fits the energies, and combines their scores row by row."""

    training_quantiles_: NDArray[np.float64]
    location_: NDArray[Any]
    scale_: NDArray[Any]
    feature_quantiles_: NDArray[Any]

    def _n_members(self) -> int:
        if isinstance(self.estimator, str):
            return len(default_members(2, 1))
        return len(self.estimator) if isinstance(self.estimator, list) else 1

    def _fit_energies(self, X: Any, y: Any, context: Any) -> None:
        """Fit all estimators to these rows, and store the quantiles of the scores they give."""
        if isinstance(self.estimator, str):
            members = self._fit_default(self._open_rows(X, reset=False), context)
        else:
            members = given_members(self.estimator, type(self).__name__)
            self._validate_names([name for name, _ in members])
            self._fit_members(members, X, y, context)
        self.named_estimators_ = dict(members)
        self._adopt_names()
        scores = self._member_scores(X, finite=True)
        self.training_quantiles_ = np.stack([training_quantiles(column) for column in scores.T])

    def _fit_default(self, rows: Rows, context: Any) -> list[tuple[str, Any]]:
        values = rows.to_numpy()
        self.location_, self.scale_ = robust_scale(values)
        self.feature_quantiles_ = feature_quantiles(values)
        members = default_members(*values.shape)
        for name, member in members:
            chunks = rows.chunks(_FLOATS_PER_VALUE * rows.shape[1])
            with torch.no_grad():
                view = torch.cat([self._view(name, rows[part]) for part in chunks])
            with warnings.catch_warnings():
                # "Lower n_components" is no advice to somebody who did not choose it.
                warnings.simplefilter("ignore", ConvergenceWarning)
                self._fit_members([(name, member)], fitting_rows(name, view), None, context)
        return members

    def _view(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """What a member of the default sees of the rows."""
        if name == "marginals":
            return signed_root_scores(x, self.feature_quantiles_, self.scale_)
        return apply_scale(x, self.location_, self.scale_)

    def _open_rows(self, X: Any, *, reset: bool) -> Rows:
        device = resolve_device("auto", X, prefers_cuda=False)
        return open_rows(self, X, device=device, reset=reset, min_rows=2 if reset else 1)

    def _member_scores(self, X: Any, *, finite: bool = False) -> NDArray[Any]:
        """Scores of all members, one column each."""
        if hasattr(self, "location_"):
            return to_numpy(self._map_default(X, lambda scores: scores))
        members = self.named_estimators_.items()
        columns = [to_numpy(checked_scores(k, m, X, finite=finite)) for k, m in members]
        return np.stack(columns, axis=1)

    def _map_default(self, X: Any, function: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
        """``function`` of the scores of the default's members, chunk by chunk, in the kind of X."""
        members = self.named_estimators_.items()

        def score(x: torch.Tensor) -> torch.Tensor:
            x = x.contiguous()  # so that strided rows are summed in the same order
            scores = [member.score_samples(self._view(name, x)) for name, member in members]
            result = function(torch.stack(scores, dim=1).cpu().numpy())
            return torch.from_numpy(result).to(x.device)

        rows = self._open_rows(X, reset=False)
        return rows.map(
            score,
            floats_per_row=_FLOATS_PER_VALUE * rows.shape[1],
            what="EnergyOutlierDetector.score_samples",
        )

    def _combine(self, scores: NDArray[Any]) -> NDArray[Any]:
        """One score a row, in the dtype of the members' scores."""
        if scores.shape[1] == 1:
            return scores[:, 0]
        combined = np.empty(len(scores), scores.dtype)
        for part in row_slices(len(scores), _FLOATS_PER_SCORE * scores.shape[1]):
            columns = zip(scores[part].T.astype(np.float64), self.training_quantiles_, strict=True)
            ranks = np.stack([log_rank(column, quantiles) for column, quantiles in columns])
            combined[part] = np.sort(ranks, axis=0)[:2].mean(axis=0)
        return combined
