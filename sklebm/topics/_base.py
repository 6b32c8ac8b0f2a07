"""What topic models share: checked counts, and held-out perplexity."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm._shell.rows import Rows
from sklebm._shell.value_range import need_counts
from sklebm.inference.counts import Counts, count_table
from sklebm.iterative import IterativeEstimator, Problem, Run

P = TypeVar("P", bound=Problem[Any])
R = TypeVar("R", bound=Run)


class TopicEstimator(IterativeEstimator[P, R]):
    """Base of models of documents, which are rows of counts."""

    n_components: int
    _accepts_sparse = True
    _computes_in_double = True

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _floats_per_row(self) -> int:
        # A document has as many non-zeros as there are words, at worst.
        return 6 * int(self.n_features_in_) + 8 * len(self.components_)

    def _check_rows(self, rows: Rows, *, learning: bool) -> None:
        method = "fit" if learning else "transform"
        need_counts(rows, f"{type(self).__name__}.{method}")

    def perplexity(self, X: Any, *, given: Any = None) -> float:
        """Return exp(-log likelihood per token), the effective number of equally probable words.

        Parameters
        ----------
        X : array-like, tensor or csr matrix of shape (n_samples, n_features)
            Documents.
        given : array-like, tensor or csr matrix of shape (n_samples, n_features), default=None
            Other words of the same documents, from which their topics are inferred; None infers
            them from X, which favours models of many topics.

        Returns
        -------
        perplexity : float
            All tokens count equally, so that long documents count more than in ``score``; lower is
            better. 1 if there is no token of a known word.
        """
        check_is_fitted(self)
        beside = self._open(X if given is None else given, self, reset=False)
        both = self._map_rows(X, self._score_and_tokens, "perplexity", beside=beside)
        scores, tokens = np.asarray(to_numpy(both), np.float64).T
        weights = tokens / max(float(tokens.max()), np.finfo(np.float64).tiny)
        return math.exp(-float(weights @ scores) / (float(weights.sum()) or 1.0))

    def _score_and_tokens(self, energy: Any, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """Log likelihood of x per token for the topics of ``given``, and tokens, (n, 2)."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags


def read_counts(rows: Rows) -> Counts:
    """The non-zeros of all rows."""
    if scipy.sparse.issparse(rows.source):
        table = rows.source.tocoo()
        kept = table.data > 0
        documents, words = (
            torch.from_numpy(index[kept].astype(np.int64)).to(rows.device)
            for index in (table.row, table.col)
        )
        values = torch.from_numpy(table.data[kept].astype(np.float64)).to(rows.device)
        counts = Counts(documents, words, values, rows.shape)
    else:
        parts = [(part.start, count_table(rows[part])) for part in rows.chunks(rows.shape[1])]
        counts = Counts(
            torch.cat([part.documents + start for start, part in parts]),
            torch.cat([part.words for _, part in parts]),
            torch.cat([part.values for _, part in parts]),
            rows.shape,
        )
    return counts
