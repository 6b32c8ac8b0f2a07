"""Methods that some parameters take away, and the message that says which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklebm._shell.private import AvailableIf


class _Available(AvailableIf):  # type: ignore[misc, unused-ignore]
    """scikit-learn's conditional method, whose message gives the reason as well.

    scikit-learn leaves the reason in the cause of the error, above a traceback's last line.
    """

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        try:
            return super().__get__(obj, owner)
        except AttributeError as error:
            reason = error.__cause__
            if reason is None:
                raise
            raise AttributeError(f"{error}: {reason}", name=self.attribute_name, obj=obj) from (
                reason
            )


def available_if(
    check: Callable[[Any], bool], reason: str = ""
) -> Callable[[Callable[..., Any]], Any]:
    """Make a method that estimators have only if ``check`` holds.

    ``reason`` says what the method needs, unless ``check`` itself raises AttributeError with it.
    """

    def explained(estimator: Any) -> bool:
        has_method = bool(check(estimator))
        if not has_method and reason:
            raise AttributeError(reason)
        return has_method

    return lambda method: _Available(method, explained, attribute_name=method.__name__)


def learns_in_parts(estimator: Any) -> bool:
    """Whether an estimator has ``partial_fit``."""
    if hasattr(estimator, "_partial_fit"):
        return True
    raise AttributeError("it needs all rows at once: call fit.")


def keeps_training_state(estimator: Any) -> bool:
    """Whether an estimator has fitted attributes that only further training needs."""
    if estimator._continues_from:
        return True
    raise AttributeError("it keeps nothing that only training needs.")
