"""The version of sklebm travels in every pickle, and a difference is said aloud on opening."""

from __future__ import annotations

import warnings
from typing import Any

_KEY = "_sklebm_version"


class VersionedPickle:
    """Mixin in front of scikit-learn's ``BaseEstimator``, which records its own classes only."""

    def __getstate__(self) -> dict[str, Any]:
        from sklebm import __version__

        return {**super().__getstate__(), _KEY: __version__}  # type: ignore[dict-item]

    def __setstate__(self, state: dict[str, Any]) -> None:
        from sklebm import __version__

        state = dict(state)
        written_by = state.pop(_KEY, "an unknown version")
        if written_by != __version__:
            warnings.warn(
                f"This {type(self).__name__} was pickled by sklebm {written_by} and is opened by "
                f"{__version__}: pickles hold internals that change between versions, so results "
                "may be invalid. Keep models with sklebm.save.",
                UserWarning,
                stacklevel=2,
            )
        super().__setstate__(state)  # type: ignore[misc]
