"""Rows held out of a fit, and answers with an error rate: p-values and what follows from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing

from sklebm._shell.arrays import count_rows, to_numpy
from sklebm._shell.random import draw_seed
from sklebm._shell.rows import Rows
from sklebm._shell.tables import LazyTable
from sklebm.outliers._conformal import benjamini_hochberg, calibration_size, conformal_p_values

Indices = NDArray[np.int64]


def labels_of(inlier: Any) -> Any:
    """1 where True, else -1; an array or a tensor, as given."""
    if isinstance(inlier, torch.Tensor):
        return torch.where(inlier, 1, -1)
    return np.where(inlier, 1, -1)


def p_values_of(scores: Any, calibration: NDArray[np.float64]) -> Any:
    """Conformal p-values of rows with these scores, on the device of the scores."""
    values = conformal_p_values(to_numpy(scores).astype(np.float64), calibration)
    on_tensor = isinstance(scores, torch.Tensor)
    return torch.from_numpy(values).to(scores.device) if on_tensor else values


def discoveries(p_values: Any, fdr: float) -> Any:
    """-1 for the rows found by the Benjamini-Hochberg procedure, otherwise 1."""
    inlier = ~benjamini_hochberg(to_numpy(p_values), fdr)
    on_tensor = isinstance(p_values, torch.Tensor)
    return labels_of(torch.from_numpy(inlier).to(p_values.device) if on_tensor else inlier)


def split_rows(
    X: Any, calibration: float | None, random_state: Any
) -> tuple[Indices | None, Indices | None]:
    """Indices of the rows to fit and of those held out, ascending; None, None if all are fitted.

    The held-out rows are drawn from ``random_state``.
    """
    if calibration is None:
        return None, None
    n_rows = count_rows(X)
    size = calibration_size(n_rows, calibration)
    order = np.random.default_rng(draw_seed(random_state)).permutation(n_rows)
    return np.sort(order[size:]), np.sort(order[:size])


def take_rows(X: Any, chosen: Indices | None) -> Any:
    """Select rows of an array, frame, tensor, sparse matrix or list; None returns it unchanged."""
    if X is None or chosen is None:
        return X
    if isinstance(X, Rows):
        return Rows(take_rows(X.source, chosen), X.device)
    if isinstance(X, LazyTable):
        return X[chosen]
    if scipy.sparse.issparse(X):
        return X.tocsr()[chosen]
    if isinstance(X, torch.Tensor):
        return X[torch.from_numpy(chosen).to(X.device)]
    if not (isinstance(X, list) or hasattr(X, "__getitem__")):
        X = np.asarray(X)  # it can be turned into an array, but not indexed
    return _safe_indexing(X, chosen)
