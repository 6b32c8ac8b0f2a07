"""Store the version of sklebm in every pickle, and warn on loading if it differs.

scikit-learn's ``BaseEstimator`` records only its own version, for its own classes.
"""

from __future__ import annotations

import warnings
from typing import Any

_KEY = "_sklebm_version"


def pickled(state: dict[str, Any]) -> dict[str, Any]:
    """The state, with the version that writes it."""
    from sklebm import __version__

    return {**state, _KEY: __version__}


def unpickled(estimator: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The state without the version; warns if a different version wrote it."""
    from sklebm import __version__

    state = dict(state)
    written_by = state.pop(_KEY, "an unknown version")
    if written_by != __version__:
        warnings.warn(
            f"This {type(estimator).__name__} was pickled by sklebm {written_by} and is loaded by "
            f"{__version__}: pickles hold internals that change between versions, so results "
            "may be invalid. Keep models with sklebm.save.",
            UserWarning,
            stacklevel=3,
        )
    return state


class VersionedPickle:
    """The same for classes that do not inherit from ``EnergyEstimator``."""

    def __getstate__(self) -> dict[str, Any]:
        return pickled(super().__getstate__())  # type: ignore[arg-type]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(unpickled(self, state))  # type: ignore[misc]
