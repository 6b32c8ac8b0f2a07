"""The estimators inside a detector: which ones, and what their scores must be."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone

from sklebm._shell.arrays import to_numpy
from sklebm._shell.private import InvalidParameterError

_EXAMPLES = (
    "EnergyKMeans, PCAWhitener, GaussianMixture, IsolationForest, or a Pipeline whose last step "
    "has it"
)


def given_members(estimator: Any, owner: str) -> list[tuple[str, Any]]:
    """Unfitted clones of one estimator, or of a list of (name, estimator), checked."""
    if not isinstance(estimator, list):
        require_instance("estimator", estimator)  # a class has no name of its own
        named = [(type(estimator).__name__.lower(), estimator)]
    elif estimator and all(_is_pair(item) for item in estimator):
        named = [(name, member) for name, member in estimator]
    else:
        raise InvalidParameterError(
            "estimator must be an estimator or a non-empty list of (name, estimator) pairs; got "
            f"{estimator!r}."
        )
    for name, member in named:
        require_scores(name, member, owner)
    return [(name, clone(member)) for name, member in named]


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)


def require_instance(name: str, member: Any) -> None:
    """Refuse a class where an instance is needed."""
    if isinstance(member, type):
        raise InvalidParameterError(
            f"{name!r} is the class {member.__name__}: pass an instance, {member.__name__}()."
        )


def require_scores(name: str, member: Any, owner: str) -> None:
    """Refuse estimators without ``score_samples``, with the reason that the estimator gives."""
    require_instance(name, member)
    for method in ("fit", "score_samples"):
        try:
            getattr(member, method)
        except AttributeError as error:
            # Methods that depend on parameters say why they are missing; others only that they are.
            reason = "" if error.__cause__ is None else f": {str(error.__cause__).rstrip('.')}"
            raise InvalidParameterError(
                f"{owner} ranks rows by score_samples, but {name!r} "
                f"({type(member).__name__}) has no {method}{reason}. Estimators that have it: "
                f"{_EXAMPLES}."
            ) from error


def checked_scores(name: str, member: Any, X: Any, *, finite: bool = False) -> Any:
    """``member.score_samples(X)``, refused if it is not a vector of numbers.

    Minus infinity means that a row cannot occur, and is allowed unless ``finite`` is set.
    """
    return checked_vector(name, member, member.score_samples(X), finite=finite)


def checked_vector(name: str, member: Any, scores: Any, *, finite: bool = False) -> Any:
    """The scores, refused if they are not a vector of numbers."""
    values = to_numpy(scores)
    if values.ndim != 1:
        raise ValueError(
            f"score_samples of {name!r} ({type(member).__name__}) has shape {values.shape}, but "
            "must give one number for each row."
        )
    bad = ~np.isfinite(values) if finite else np.isnan(values)
    if bad.any():
        raise FloatingPointError(
            f"score_samples of {name!r} ({type(member).__name__}) is {values[bad.argmax()]} for "
            f"row {int(bad.argmax())}. Scale X, or choose an estimator with finite scores."
        )
    return scores
