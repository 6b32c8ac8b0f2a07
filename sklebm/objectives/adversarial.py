r"""Two players: a critic tells data x from generated rows g(z); a generator learns to pass.

A game gives the costs of single rows; ``CriticLoss`` and ``GeneratorLoss`` are their means, one for
each player. An energy offers

- ``generate(n_rows, generator)``: rows from new latents, differentiable;
- ``judge(x)``: the critic's output, one number per row.

J. Zhao, M. Mathieu and Y. LeCun, "Energy-based generative adversarial network", ICLR 2017.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sklebm._checks import check_number
from sklebm.objectives.base import Batch, Objective, ObjectiveState


@dataclass(frozen=True)
class Game(ABC):
    """What both players pay, as a frozen dataclass of scalars."""

    #: Attributes that the energy must have.
    needs: ClassVar[tuple[str, ...]] = ("generate", "judge")

    @abstractmethod
    def critic_costs(self, real: Tensor, forged: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
        """Costs of the critic, from its outputs on data and on generated rows."""

    @abstractmethod
    def generator_costs(self, forged: Tensor) -> Tensor:
        """Costs of the generator, from the critic's outputs on its rows."""

    def generator_penalty(self, energy: Any, forged: Tensor) -> Tensor:
        """What the generator pays for rows that are alike; most games have none."""
        return forged.new_zeros(())


@dataclass(frozen=True)
class MarginGame(Game):
    """Energy-based game: the critic's output is an energy, low on data, up to a margin elsewhere.

    The critic pays E(x) + max(0, m - E(g)), the generator E(g) plus the pull-away term of its rows'
    codes. At the equilibrium the rows are distributed as the data.

    Parameters
    ----------
    margin : float, default=1.0
        Energy m from which on generated rows cost nothing, in the units of the energy.
    margin_decay : float, default=1.0
        Factor by which the margin changes in 1000 steps of the critic; at most 1.
    pull_away : float, default=0.1
        Weight of the mean squared cosine between codes of different generated rows; codes of one
        number are always parallel, and are not pulled.
    """

    margin: float = 1.0
    margin_decay: float = 1.0
    pull_away: float = 0.1

    needs: ClassVar[tuple[str, ...]] = ("generate", "judge", "encode")

    def __post_init__(self) -> None:
        check_number(self.margin, "margin", self)
        check_number(self.margin_decay, "margin_decay", self)
        check_number(self.pull_away, "pull_away", self, positive=False)
        if self.margin_decay > 1.0:
            raise ValueError(
                f"MarginGame: margin_decay={self.margin_decay!r} must be at most 1: a margin that "
                "grows drives energies up for ever."
            )

    def critic_costs(self, real: Tensor, forged: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
        """E(x) and max(0, m - E(g))."""
        margin = self.margin * self.margin_decay ** (step / 1000)
        return real, (margin - forged).clamp(min=0.0)

    def generator_costs(self, forged: Tensor) -> Tensor:
        """E(g)."""
        return forged

    def generator_penalty(self, energy: Any, forged: Tensor) -> Tensor:
        """The pull-away term of the codes, times its weight."""
        if self.pull_away == 0.0:
            return forged.new_zeros(())
        codes = energy.encode(forged)
        # Numbers are all parallel: their term is 1 whatever the generator does.
        if codes.shape[1] == 1:
            return forged.new_zeros(())
        return self.pull_away * pull_away_term(codes)


# ---------------------------------------------------------------------- the players' losses


@dataclass(frozen=True)
class CriticLoss(Objective):
    """What the critic minimises.

    Parameters
    ----------
    game : Game
        The costs.
    """

    game: Game

    weighs_rows: ClassVar[bool] = False

    def missing_from(self, energy: Any) -> list[str]:
        """What the game needs and this energy lacks."""
        return [name for name in self.game.needs if not hasattr(energy, name)]

    def init_state(self, energy: Any, batch_size: int, generator: torch.Generator) -> Any:
        """The number of steps so far."""
        return {"n_steps": torch.zeros((), dtype=torch.int64)}

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean costs of data and generated rows."""
        x = batch.x
        with torch.no_grad():
            forged = energy.generate(len(x), generator)
        both = energy.judge(torch.cat([x, forged]))
        costs = self.game.critic_costs(both[: len(x)], both[len(x) :], int(state["n_steps"]))
        return costs[0].mean() + costs[1].mean(), {"n_steps": state["n_steps"] + 1}


@dataclass(frozen=True)
class GeneratorLoss(Objective):
    """What the generator minimises.

    Parameters
    ----------
    game : Game
        The costs.
    """

    game: Game

    weighs_rows: ClassVar[bool] = False

    def missing_from(self, energy: Any) -> list[str]:
        """What the game needs and this energy lacks."""
        return [name for name in self.game.needs if not hasattr(energy, name)]

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean cost of as many new rows as the batch has, plus the penalty."""
        forged = energy.generate(len(batch), generator)
        costs = self.game.generator_costs(energy.judge(forged))
        return costs.mean() + self.game.generator_penalty(energy, forged), state


# ---------------------------------------------------------------------- pieces


def pull_away_term(codes: Tensor) -> Tensor:
    """Mean squared cosine between different rows of codes: 0 for orthogonal ones, at most 1."""
    unit, n_rows = normalize(codes, dim=1, eps=1e-3), len(codes)
    cosines = unit @ unit.T
    total = cosines.square().sum() - cosines.diagonal().square().sum()
    return total / max(n_rows * (n_rows - 1), 1)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| between two samples: 0 for equal distributions.

    G. Szekely and M. Rizzo, "Energy statistics: a class of statistics based on distances", Journal
    of Statistical Planning and Inference 143(8), 2013.
    """
    x, y = x.double(), y.double()
    within = [torch.cdist(z, z).sum() / max(len(z) * (len(z) - 1), 1) for z in (x, y)]
    return float(2.0 * torch.cdist(x, y).mean() - within[0] - within[1])
