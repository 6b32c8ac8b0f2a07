r"""Two players: a critic tells data x from generated rows g(z); a generator learns to pass.

A game gives the costs of single rows; ``CriticLoss`` and ``GeneratorLoss`` are their means, one for
each player. An energy offers

- ``generate(n_rows, generator, *given)``: rows from new latents, differentiable;
- ``judge(x, *given)``: the critic's output, one number per row;
- ``encode(x, *given)``: the critic's codes, for the pull-away term, with which ``judge`` can go on;
- ``given(target)``: what accompanies the rows of a conditional model; only needed with targets.

I. Goodfellow et al., "Generative adversarial nets", NeurIPS 2014; X. Mao et al., "Least squares
generative adversarial networks", ICCV 2017; I. Gulrajani et al., "Improved training of Wasserstein
GANs", NeurIPS 2017; L. Mescheder, A. Geiger and S. Nowozin, "Which training methods for GANs do
actually converge?", ICML 2018 (R1); J. Zhao, M. Mathieu and Y. LeCun, "Energy-based generative
adversarial network", ICLR 2017.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

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

    def critic_penalty(
        self, energy: Any, x: Tensor, forged: Tensor, generator: torch.Generator, *given: Tensor
    ) -> Tensor:
        """What the critic pays for its slopes; most games have none."""
        return x.new_zeros(())

    def generator_loss(self, energy: Any, forged: Tensor, *given: Tensor) -> Tensor:
        """The mean cost of the generator, plus what it pays for rows that are alike."""
        return self.generator_costs(energy.judge(forged, *given)).mean()


@dataclass(frozen=True)
class SlopeGame(Game):
    """A game whose critic pays for its slope at the data.

    Parameters
    ----------
    r1 : float, default=1.0
        Weight of half the critic's squared slope at the data.
    """

    r1: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.r1, "r1", self, positive=False)

    def critic_penalty(
        self, energy: Any, x: Tensor, forged: Tensor, generator: torch.Generator, *given: Tensor
    ) -> Tensor:
        """Half the mean squared slope at the data, times its weight."""
        return slope_penalty(self.r1, energy, x, *given)


@dataclass(frozen=True)
class NonSaturating(SlopeGame):
    """Logistic game: the critic's output is the log odds that a row is data.

    The critic pays log(1 + exp(-D(x))) + log(1 + exp(D(g))), the generator log(1 + exp(-D(g))). The
    best critic of a fixed generator has D = log p(x) / q(x).

    Parameters
    ----------
    r1 : float, default=1.0
        Weight of half the critic's squared slope at the data, which lets the game come to rest.
    """

    def critic_costs(self, real: Tensor, forged: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
        """log(1 + exp(-D(x))) and log(1 + exp(D(g)))."""
        return softplus(-real), softplus(forged)

    def generator_costs(self, forged: Tensor) -> Tensor:
        """log(1 + exp(-D(g)))."""
        return softplus(-forged)


@dataclass(frozen=True)
class LeastSquares(SlopeGame):
    """Least-squares game: the critic's output is 1 on data and 0 on generated rows.

    Parameters
    ----------
    r1 : float, default=1.0
        Weight of half the critic's squared slope at the data.
    """

    def critic_costs(self, real: Tensor, forged: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
        """(D(x) - 1)^2 / 2 and D(g)^2 / 2."""
        return 0.5 * (real - 1.0).square(), 0.5 * forged.square()

    def generator_costs(self, forged: Tensor) -> Tensor:
        """(D(g) - 1)^2 / 2."""
        return 0.5 * (forged - 1.0).square()


@dataclass(frozen=True)
class WassersteinPenalty(Game):
    """Wasserstein game: the gap of the critic's means, whose slope is held near 1.

    Parameters
    ----------
    penalty : float, default=10.0
        Weight of (slope - 1)^2 at random points between data and generated rows.
    """

    penalty: float = 10.0

    def __post_init__(self) -> None:
        check_number(self.penalty, "penalty", self, positive=False)

    def critic_costs(self, real: Tensor, forged: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
        """-D(x) and D(g)."""
        return -real, forged

    def generator_costs(self, forged: Tensor) -> Tensor:
        """-D(g)."""
        return -forged

    def critic_penalty(
        self, energy: Any, x: Tensor, forged: Tensor, generator: torch.Generator, *given: Tensor
    ) -> Tensor:
        """The mean squared difference of the slope from 1, times its weight."""
        if self.penalty == 0.0:
            return x.new_zeros(())
        share = torch.empty(len(x), 1, dtype=x.dtype, device=x.device)
        share.uniform_(generator=generator)
        squares = squared_slopes(energy, torch.lerp(x, forged, share), *given)
        # The square root has no slope at 0, where a critic is flat.
        return self.penalty * (squares.clamp(min=1e-12).sqrt() - 1.0).square().mean()


@dataclass(frozen=True)
class MarginGame(Game):
    """Energy-based game: the critic's output is an energy, low on data, up to a margin elsewhere.

    The critic pays E(x) + max(0, m - E(g)), the generator E(g) plus the pull-away term of its rows'
    codes. Without that term, the rows are distributed as the data at the equilibrium.

    Parameters
    ----------
    margin : float, default=1.0
        Energy m from which on generated rows cost nothing, in the units of the energy.
    margin_decay : float, default=1.0
        Factor by which the margin changes in 1000 steps of the critic; at most 1.
    pull_away : float, default=0.1
        Weight of the mean squared cosine between codes of different generated rows; codes of one
        number are always parallel, and are not pulled.
    r1 : float, default=0.0
        Weight of half the energy's squared slope at the data.
    """

    margin: float = 1.0
    margin_decay: float = 1.0
    pull_away: float = 0.1
    r1: float = 0.0

    needs: ClassVar[tuple[str, ...]] = ("generate", "judge", "encode")

    def __post_init__(self) -> None:
        check_number(self.margin, "margin", self)
        check_number(self.margin_decay, "margin_decay", self)
        check_number(self.pull_away, "pull_away", self, positive=False)
        check_number(self.r1, "r1", self, positive=False)
        if self.margin_decay > 1.0:
            raise ValueError(
                f"MarginGame: margin_decay={self.margin_decay!r} must be at most 1: a margin that "
                "grows raises energies without limit."
            )

    def critic_costs(self, real: Tensor, forged: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
        """E(x) and max(0, m - E(g))."""
        margin = self.margin * self.margin_decay ** (step / 1000)
        return real, (margin - forged).clamp(min=0.0)

    def generator_costs(self, forged: Tensor) -> Tensor:
        """E(g)."""
        return forged

    def critic_penalty(
        self, energy: Any, x: Tensor, forged: Tensor, generator: torch.Generator, *given: Tensor
    ) -> Tensor:
        """Half the mean squared slope at the data, times its weight."""
        return slope_penalty(self.r1, energy, x, *given)

    def generator_loss(self, energy: Any, forged: Tensor, *given: Tensor) -> Tensor:
        """Mean of E(g), plus the weighted pull-away term of the codes."""
        if self.pull_away == 0.0:
            return super().generator_loss(energy, forged, *given)
        codes = energy.encode(forged, *given)
        mean = self.generator_costs(energy.judge(forged, *given, codes=codes)).mean()
        # Numbers are all parallel: their term is 1 whatever the generator does.
        return mean if codes.shape[1] == 1 else mean + self.pull_away * pull_away_term(codes)


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
        """Mean costs of data and generated rows, plus the penalty."""
        x, given = batch.x, _given(energy, batch)
        with torch.no_grad():
            forged = energy.generate(len(x), generator, *given)
        both = energy.judge(torch.cat([x, forged]), *(part.repeat(2, 1) for part in given))
        costs = self.game.critic_costs(both[: len(x)], both[len(x) :], int(state["n_steps"]))
        penalty = self.game.critic_penalty(energy, x, forged, generator, *given)
        total = costs[0].mean() + costs[1].mean() + penalty
        return total, {"n_steps": state["n_steps"] + 1}


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
        given = _given(energy, batch)
        forged = energy.generate(len(batch), generator, *given)
        return self.game.generator_loss(energy, forged, *given), state


# ---------------------------------------------------------------------- pieces


def _given(energy: Any, batch: Batch) -> tuple[Tensor, ...]:
    """What networks get beside the rows of the batch."""
    return () if batch.target is None else energy.given(batch.target)


def squared_slopes(energy: Any, x: Tensor, *given: Tensor) -> Tensor:
    """|grad D(x)|^2 of each row, differentiable in the critic's parameters."""
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        total = energy.judge(at, *given).sum()
        # A critic that does not look at the rows has no slope.
        slope = torch.autograd.grad(total, at, create_graph=True, allow_unused=True)[0]
    return x.new_zeros(len(x)) if slope is None else slope.square().sum(dim=1)


def slope_penalty(r1: float, energy: Any, x: Tensor, *given: Tensor) -> Tensor:
    """r1 / 2 times the mean of |grad D(x)|^2; without a weight, no slopes are computed."""
    if r1 == 0.0:
        return x.new_zeros(())
    return 0.5 * r1 * squared_slopes(energy, x, *given).mean()


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
