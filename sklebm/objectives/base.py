"""What an objective is, what it may need of an energy, and how a name becomes one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one step, with what stands beside them; every tensor has one entry a row.

    Attributes
    ----------
    x : Tensor of shape (n_rows, ...)
        The rows.
    target : Tensor of shape (n_rows, ...) or None
        What a conditional energy compares with, such as labels, real values or codes.
    weight : Tensor of shape (n_rows,) or None
        How much each row counts; None counts them alike.
    groups : Tensor of shape (n_rows,) or None
        Which sequence or image each row belongs to.
    """

    x: Tensor
    target: Tensor | None = None
    weight: Tensor | None = None
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of one value a row, weighted if rows have weights."""
        if self.weight is None:
            return values.mean()
        weight = self.weight.to(values.dtype)
        return (weight @ values) / weight.sum()


#: Tensors that an objective carries from one step to the next, such as persistent chains.
ObjectiveState = dict[str, Tensor]


@dataclass(frozen=True)
class Objective(ABC):
    """A way to shape an energy: a frozen record of scalars with two pure functions.

    Subclasses list in ``needs`` the methods an energy must have.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    #: "binary" or "real", if the loss only makes sense for such rows; and why.
    domain: ClassVar[str | None] = None
    domain_reason: ClassVar[str] = ""
    #: False if the loss of a row is the same at every call; see ``varies_on``.
    is_stochastic: ClassVar[bool] = True
    #: True if the loss of one epoch can be compared with that of another.
    loss_is_comparable: ClassVar[bool] = False
    #: True if log Z is one of the parameters that the objective fits.
    learns_log_partition: ClassVar[bool] = False

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """Return the state before the first step; most objectives have none."""
        return {}

    def rows_needed(self) -> tuple[str | None, str]:
        """The kind of rows it is for, if for one only, and why."""
        return self.domain, self.domain_reason

    def varies_on(self, x: Tensor) -> bool:
        """True if the loss of the rows x changes between calls, which no line search can bear."""
        return self.is_stochastic

    def chains(
        self, state: ObjectiveState, energy: Any, generator: torch.Generator
    ) -> Tensor | None:
        """Rows of the model where persistent chains are, (n_chains, d); None if there are none."""
        return None

    @abstractmethod
    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Return the mean loss of the batch, whose gradient is followed downhill, and new state."""


def check_choice(part: Objective, name: str, choices: tuple[str, ...]) -> None:
    """Refuse a setting that is none of the choices."""
    value = getattr(part, name)
    if value not in choices:
        raise ValueError(
            f"{type(part).__name__}: {name}={value!r} must be one of "
            f"{', '.join(map(repr, choices))}."
        )


def check_count(part: Objective, name: str) -> None:
    """Refuse a setting that is no positive integer."""
    value = getattr(part, name)
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{type(part).__name__}: {name}={value!r} must be a positive integer.")


def check_needs(objective: Objective, energy: Any, choices: Iterable[Objective]) -> None:
    """Refuse an objective that needs what the energy lacks; name the ones that would work."""
    choices = list(choices)
    able = ", ".join(type(choice).__name__ for choice in choices if _fits(choice, energy)) or "none"
    rows = getattr(energy, "domain", None)
    if not _has_domain(objective, energy):
        needed, reason = objective.rows_needed()
        raise ValueError(
            f"{type(objective).__name__} needs {needed} rows, because it {reason}; those of "
            f"{type(energy).__name__} are {rows}. Objectives that work with it: {able}."
        )
    missing = [name for name in objective.needs if not hasattr(energy, name)]
    if missing:
        raise ValueError(
            f"{type(objective).__name__} needs {', '.join(missing)} of the energy, which "
            f"{type(energy).__name__} does not have. Objectives that work with it: {able}."
        )


def _has_domain(objective: Objective, energy: Any) -> bool:
    needed, _ = objective.rows_needed()
    return needed in (None, getattr(energy, "domain", needed))


def _fits(objective: Objective, energy: Any) -> bool:
    has_needs = all(hasattr(energy, name) for name in objective.needs)
    return has_needs and _has_domain(objective, energy)


def resolve_objective(
    objective: str | Objective, choices: Mapping[str, type[Objective]], options: Mapping[str, Any]
) -> Objective:
    """Turn a name and the estimator's flat parameters into an objective; pass objects through.

    ``options`` holds the flat parameters that differ from their defaults; they belong to names
    only, so that no setting is silently ignored.
    """
    if isinstance(objective, str):
        chosen = choices[objective]
        fields = chosen.__dataclass_fields__
        unused = sorted(name for name in options if name not in fields)
        if unused:
            raise ValueError(
                f"{', '.join(unused)} has no meaning for objective={objective!r}: leave it out."
            )
        return chosen(**options)
    if options:
        raise ValueError(
            f"objective={objective!r} brings its own settings, so {', '.join(sorted(options))} "
            "must be set on it instead of on the estimator."
        )
    return objective
