"""f_ = f(other fitted attributes): attributes computed on access and never stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Derived:
    """A fitted attribute that follows from others: computed on access, never stored.

    An estimator loaded from a file that contains the attribute returns the stored value.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, estimator: Any, owner: type) -> Any:
        if estimator is None:
            return self
        if not estimator._is_fitted():
            raise AttributeError(f"{owner.__name__} has no {self.name} before fit.")
        held = vars(estimator).get(self.name)
        return self.function(estimator) if held is None else held

    def __set__(self, estimator: Any, value: Any) -> None:
        vars(estimator)[self.name] = value
