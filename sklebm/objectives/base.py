"""The protocol of objectives, their requirements on an energy, and how names are resolved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one step with their accompanying columns; every tensor has one entry per row.

    Attributes
    ----------
    x : Tensor of shape (n_rows, ...)
        The rows.
    target : Tensor of shape (n_rows, ...) or None
        Targets of a conditional energy, such as labels, real values or codes.
    weight : Tensor of shape (n_rows,) or None
        Weight of each row; None weights all rows equally.
    groups : Tensor of shape (n_rows,) or None
        Sequence or image that each row belongs to.
    """

    x: Tensor
    target: Tensor | None = None
    weight: Tensor | None = None
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over rows of ``values``, (n_rows, ...), weighted if rows have weights."""
        if self.weight is None:
            return values.mean(dim=0) if values.dim() > 1 else values.mean()
        weight = self.weight.to(values.dtype)
        total: Tensor = torch.tensordot(weight, values, dims=1)
        return total / weight.sum()

    def shares(self, like: Tensor) -> Tensor:
        """Share of each row in a mean, (n_rows,): 1 / n_rows, or its share of the weights."""
        if self.weight is None:
            return like.new_full((len(self),), 1.0 / len(self))
        weight = self.weight.to(like)
        return weight / weight.sum()


#: Tensors that an objective carries from one step to the next, such as persistent chains.
ObjectiveState = dict[str, Tensor]


@dataclass(frozen=True)
class Objective(ABC):
    """A way to shape an energy: a frozen dataclass of scalars with two pure functions.

    Subclasses list in ``needs`` the methods an energy must have.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    #: "binary" or "real" if the loss only makes sense for such rows, and why.
    domain: ClassVar[str | None] = None
    domain_reason: ClassVar[str] = ""
    #: Whether repeated evaluation changes the loss of a row; see ``varies_on``.
    is_stochastic: ClassVar[bool] = True
    #: True if losses of different epochs are comparable.
    loss_is_comparable: ClassVar[bool] = False
    #: True if the objective fits log Z as a parameter.
    learns_log_partition: ClassVar[bool] = False
    #: True if ``batch.weight`` is used: the loss is a weighted mean over the data rows.
    weighs_rows: ClassVar[bool] = True
    #: Other names of settings, such as those in files from older versions.
    aliases: ClassVar[dict[str, str]] = {}

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """Return the state before the first step; most objectives have none."""
        return {}

    def with_chains_at(
        self, state: ObjectiveState, rows: Tensor, energy: Any, generator: torch.Generator
    ) -> ObjectiveState:
        """``state`` with its ``chains`` moved to as many rows; unchanged unless overridden."""
        return state

    def rows_needed(self) -> tuple[str | None, str]:
        """The kind of rows that it is restricted to, if any, and why."""
        return self.domain, self.domain_reason

    def missing_from(self, energy: Any) -> list[str]:
        """Names of required attributes that this energy lacks."""
        return [name for name in self.needs if not hasattr(energy, name)]

    def varies_on(self, x: Tensor) -> bool:
        """Whether repeated evaluation changes the loss of x, which rules out a line search."""
        return self.is_stochastic

    def knows_gradients(self, energy: Any) -> bool:
        """True if ``gradients`` gives the gradients for this energy without autograd."""
        return False

    def chains(
        self, state: ObjectiveState, energy: Any = None, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Current rows of the chains in ``state``, (n_chains, d); None without chains.

        ``energy`` and ``generator`` serve states from older versions, without visible units.
        """
        return None

    def continues(self, kind: str) -> bool:
        """True if this objective can continue the state of an objective whose repr is ``kind``."""
        return kind == repr(self)

    @abstractmethod
    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Return the mean loss of the batch, which is minimised, and the new state."""


def check_weights(objective: Objective) -> None:
    """Reject an objective that cannot weight rows; to be called if rows have weights.

    Raises
    ------
    ValueError
        If ``objective.weighs_rows`` is False.
    """
    if not objective.weighs_rows:
        raise ValueError(
            f"{type(objective).__name__} weights all rows equally and cannot use sample_weight: "
            "leave sample_weight out, or choose another objective."
        )


def check_needs(
    objective: Objective, energy: Any, choices: Iterable[Objective | type[Objective]]
) -> None:
    """Reject an objective that needs what the energy lacks; name the ones that would work.

    ``choices`` are objectives or their classes; classes are only instantiated to report an error.
    """
    if not _has_domain(objective, energy):
        needed, reason = objective.rows_needed()
        raise ValueError(
            f"{type(objective).__name__} needs {needed} rows, because it {reason}; those of "
            f"{type(energy).__name__} are {energy.domain}. Objectives that work with it: "
            f"{_able(choices, energy)}."
        )
    missing = objective.missing_from(energy)
    if missing:
        raise ValueError(
            f"{type(objective).__name__} needs {', '.join(missing)} of the energy, which "
            f"{type(energy).__name__} does not provide. Objectives that work with it: "
            f"{_able(choices, energy)}."
        )


def _able(choices: Iterable[Objective | type[Objective]], energy: Any) -> str:
    """Names of the choices that work with the energy."""
    made = [choice() if isinstance(choice, type) else choice for choice in choices]
    fitting = (c for c in made if _has_domain(c, energy) and not c.missing_from(energy))
    return ", ".join(type(choice).__name__ for choice in fitting) or "none"


def _has_domain(objective: Objective, energy: Any) -> bool:
    needed, _ = objective.rows_needed()
    return needed in (None, getattr(energy, "domain", needed))


def resolve_objective(
    objective: str | Objective, choices: Mapping[str, type[Objective]], options: Mapping[str, Any]
) -> Objective:
    """Turn a name and the estimator's flat parameters into an objective; pass objects through.

    ``options`` holds the flat parameters that differ from their defaults; they apply to names
    only, so that no setting is silently ignored.
    """
    if isinstance(objective, str):
        chosen = choices[objective]
        settings = {field.name for field in fields(chosen)} | set(chosen.aliases)
        unused = sorted(name for name in options if name not in settings)
        if unused:
            raise ValueError(
                f"{', '.join(unused)} does not apply to objective={objective!r}: leave it out."
            )
        return chosen(**options)
    if options:
        raise ValueError(
            f"objective={objective!r} brings its own settings, so {', '.join(sorted(options))} "
            "must be set on it instead of on the estimator."
        )
    return objective
