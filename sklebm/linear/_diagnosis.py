"""Warnings about rows in which a covariance is not determined."""

from __future__ import annotations

from typing import Any

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
        f"({len(features)} in dropped_features_). Drop columns, lower n_components, or set ridge "
        "or shrinkage."
    )


def warn_of_few_rows(name: str, state: dict[str, Any]) -> None:
    """Warn if so few rows make all directions but theirs impossible."""
    if "n_components_" not in state:  # the covariance overflowed, of which the shell complains
        return
    n_rows, n_features = state["n_samples_seen_"], len(state["mean_"])
    n_kept = state["n_components_"]
    if n_rows > n_features or n_kept < n_rows - 1 or state["ridge_"] or state["shrinkage_"]:
        return
    warn(
        f"{name} was fitted to {n_rows:.6g} rows of {n_features} features, which vary in {n_kept} "
        "directions only: new rows vary in others too, and their scores are very low. Set "
        'shrinkage="oas" or ridge, pass more rows, or reduce the features.'
    )
