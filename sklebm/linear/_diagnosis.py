"""Warnings about rows in which a covariance is not determined."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

from sklebm._shell.rows import Rows
from sklebm._shell.scaling import column_name
from sklebm._shell.warning import warn


def warn_of_dropped(n_directions: int, features: Any, names: Any) -> None:
    """Warn of directions without variance, and name the columns that cause them."""
    if not len(features):
        return
    named = ", ".join(column_name(i, names) for i in features[:10].tolist())
    named += ", ..." if len(features) > 10 else ""
    one, single = n_directions == 1, len(features) == 1
    warn(
        f"{n_directions} direction{'' if one else 's'} without variance {'is' if one else 'are'} "
        f"left out of codes: column{'' if single else 's'} {named} of X "
        f"{'is constant or a combination' if single else 'are constant or combinations'} of others "
        f"(see dropped_features_). Drop columns, lower n_components, or set ridge "
        "or shrinkage."
    )


def warn_of_few_rows(model: Any, rows: Rows, state: dict[str, Any]) -> None:
    """Warn if so few rows make all directions but theirs impossible."""
    if "components_" not in state or state["ridge_"] or state["shrinkage_"]:
        return  # without components the covariance overflowed, of which the shell complains
    n_features, rank = rows.shape[1], int(np.count_nonzero(state["explained_variance_"] > 0))
    # Columns of many rows that are combinations of others do not vary in new rows either.
    if rows.total() > n_features or rank == n_features:
        return
    wanted = model.n_components
    if wanted is not None and not (
        isinstance(wanted, Integral) and int(wanted) >= rows.total() - 1
    ):
        return  # the noise around fewer components is known
    remedy = " or ridge" if "ridge" in model.get_params(deep=False) else ""
    warn(
        f"{type(model).__name__} was fitted to {rows.total()} rows of {n_features} features, which "
        f"vary in only {rank} direction{'' if rank == 1 else 's'}. New rows vary in other "
        f'directions too, so their scores will be very low. Set shrinkage="oas"{remedy}, pass more '
        "rows, or reduce the number of features."
    )
