r"""Several energies on one scale: s = mean of the two lowest of log u_m(s_m(x))."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklebm._shell.arrays import to_numpy
from sklebm._shell.rows import Rows, row_slices
from sklebm.outliers._members import checked_scores
from sklebm.outliers._surprise import log_rank, training_quantiles
from sklebm.outliers._views import View

_FLOATS_PER_VALUE = 16  # temporary numbers of the views and the members, per value
_FLOATS_PER_SCORE = 8  # temporary numbers of the ranks, for each score of a row

Scores = NDArray[Any]


class Ensemble:
    """Fitted energies, and the scale on which their scores are compared.

    Parameters
    ----------
    members : dict of str to estimator
        The fitted energies.
    quantiles : ndarray of shape (n_members, n_quantiles) or None
        Quantiles of their training scores; None until ``with_scale`` computes them.
    view : View or None
        How the members of the default see the rows; X is then ``Rows``. None: X itself.
    """

    def __init__(
        self, members: dict[str, Any], quantiles: Any = None, view: View | None = None
    ) -> None:
        self.members = members
        self.quantiles = quantiles
        self.view: Any = view

    def with_scale(self, X: Any, weights: Any = None) -> Ensemble:
        """The same energies, compared by their scores of the rows of X."""
        columns = self.member_scores(X, finite=True).T
        quantiles = np.stack([training_quantiles(column, weights) for column in columns])
        return Ensemble(self.members, quantiles, self.view)

    def member_scores(self, X: Any, *, finite: bool = False) -> Scores:
        """Scores of all members, one column each."""
        if self.view is not None:
            return to_numpy(self._map(X, lambda scores: scores))
        columns = [
            to_numpy(checked_scores(name, member, X, finite=finite))
            for name, member in self.members.items()
        ]
        return np.stack(columns, axis=1)

    def scores(self, X: Any, *, finite: bool = False) -> Any:
        """One score per row, as the kind of X; a single energy keeps its own scores."""
        if self.view is not None:
            return self._map(X, self.combine)  # without a matrix of all members' scores
        if len(self.members) == 1:
            ((name, member),) = self.members.items()
            return checked_scores(name, member, X, finite=finite)
        combined = self.combine(self.member_scores(X, finite=finite))
        return torch.from_numpy(combined).to(X.device) if isinstance(X, torch.Tensor) else combined

    def combine(self, scores: Scores) -> Scores:
        """One score per row, in the precision of the members' scores."""
        if scores.shape[1] == 1:
            return scores[:, 0]
        single = scores.dtype == np.float32
        combined = np.empty(len(scores), np.float32 if single else np.float64)
        for part in row_slices(len(scores), _FLOATS_PER_SCORE * scores.shape[1]):
            columns = zip(scores[part].T.astype(np.float64), self.quantiles, strict=True)
            ranks = np.stack([log_rank(column, quantiles) for column, quantiles in columns])
            combined[part] = np.sort(ranks, axis=0)[:2].mean(axis=0)
        return combined

    def _map(self, rows: Rows, function: Any) -> Any:
        """``function`` of the members' scores, chunk by chunk, as the kind of the rows."""
        view = self.view

        def score(x: torch.Tensor) -> torch.Tensor:
            x = x.contiguous()  # so that strided rows are summed in the same order
            seen = {kind: view.see(kind, x) for kind in view.kinds(self.members)}
            columns = [
                member.score_samples(seen[view.kind(name)]) for name, member in self.members.items()
            ]
            result = function(torch.stack(columns, dim=1).cpu().numpy())
            return torch.from_numpy(result).to(x.device)

        return rows.map(
            score,
            floats_per_row=_FLOATS_PER_VALUE * rows.shape[1],
            what="EnergyOutlierDetector.score_samples",
        )
