"""Store the version of sklebm in every pickle, and warn on loading if it differs.

scikit-learn's ``BaseEstimator`` records its own version, and for its own classes only. Parameters
that came after a pickle was written have their defaults when it is opened, as in files.
"""

from __future__ import annotations

import inspect
from typing import Any

from sklebm._shell.warning import warn

_KEY = "_sklebm_version"


def pickled(state: dict[str, Any]) -> dict[str, Any]:
    """The state, with the version that writes it."""
    from sklebm import __version__

    return {**state, _KEY: __version__}


def unpickled(estimator: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The state without the version, with all parameters; warns if another version wrote it."""
    from sklebm import __version__

    state = dict(state)
    written_by = state.pop(_KEY, "an unknown version")
    if written_by != __version__:
        warn(
            f"This {type(estimator).__name__} was pickled by sklebm {written_by} and is opened by "
            f"{__version__}: pickles hold internals that change between versions, so results "
            "may be invalid. Store models with sklebm.save.",
        )
    known = inspect.signature(type(estimator).__init__).parameters.values()
    defaults = {p.name: p.default for p in known if p.default is not p.empty}
    return {**defaults, **state}
