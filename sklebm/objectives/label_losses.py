r"""Losses on the energies F(x, y) of labels: low at the right answer, high at the others.

With y the right answer and y' the most offending one, of lowest energy among the wrong answers:

    nll                  F(x, y) + 1/beta log sum_k exp(-beta F(x, k))
    perceptron           F(x, y) - min_k F(x, k)
    hinge                max(0, m + F(x, y) - F(x, y'))
    square_exponential   F(x, y)^2 + gamma exp(-F(x, y'))
    nce                  S(-G(x, y)) + k sum_j q_j S(G(x, j)),   G = -beta F - log(k q),

with S(u) = log(1 + e^u): the last tells the label from k labels drawn from a known density q, here
uniform, in expectation over the draws, and so learns energies whose sum of exp(-beta F) is 1.

Y. LeCun, S. Chopra, R. Hadsell, M. Ranzato and F. J. Huang, "A tutorial on energy-based learning",
2006; M. U. Gutmann and A. Hyvarinen, "Noise-contrastive estimation of unnormalized statistical
models", JMLR 13, 2012; W. Grathwohl et al., "Your classifier is secretly an energy based model and
you should treat it like one", ICLR 2020.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sklebm._checks import check_counts, check_number
from sklebm.objectives.base import Batch, Objective, ObjectiveState


def weighted_mean(batch: Batch, values: Tensor) -> Tensor:
    """The mean of the values, each times the weight of its row: weights have a mean of 1.

    Unlike a mean over the weights of the batch, it is unbiased in batches of any size.
    """
    return values.mean() if batch.weight is None else (batch.weight.to(values) * values).mean()


def penalty(network: torch.nn.Module) -> Tensor:
    """Half the sum of the squared weights, without the biases."""
    squares = [p.square().sum() for p in network.parameters() if p.dim() > 1]
    return 0.5 * torch.stack(squares).sum() if squares else torch.zeros(())


@dataclass(frozen=True)
class LabelLoss(Objective):
    """A loss on the energies of the labels of each row."""

    needs: ClassVar[tuple[str, ...]] = ("label_energies",)
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    @abstractmethod
    def values(self, energies: Tensor, y: Tensor, beta: float) -> Tensor:
        """The loss of each row, (n,), given F(x, .), (n, K), and the right answers, (n,)."""

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """The weighted mean of the losses of the rows."""
        values = self.values(energy.label_energies(batch.x), batch.target, energy.beta)  # type: ignore[arg-type]
        return weighted_mean(batch, values), state


def right(energies: Tensor, y: Tensor) -> Tensor:
    """F(x, y), (n,)."""
    return energies.gather(1, y[:, None])[:, 0]


def most_offending(energies: Tensor, y: Tensor) -> Tensor:
    """The lowest energy of a wrong answer, (n,); infinite if there is none."""
    return energies.scatter(1, y[:, None], math.inf).amin(dim=1)


@dataclass(frozen=True)
class ConditionalLikelihood(LabelLoss):
    """Minus the log probability of the label given the row, over beta."""

    def values(self, energies: Tensor, y: Tensor, beta: float) -> Tensor:
        """F(x, y) + 1/beta log sum_k exp(-beta F(x, k))."""
        return right(energies, y) + torch.logsumexp(-beta * energies, dim=1) / beta


@dataclass(frozen=True)
class PerceptronLoss(LabelLoss):
    """The energy of the label minus the lowest energy: no margin, so it can settle anywhere."""

    def values(self, energies: Tensor, y: Tensor, beta: float) -> Tensor:
        """F(x, y) - min_k F(x, k)."""
        return right(energies, y) - energies.amin(dim=1)


@dataclass(frozen=True)
class HingeLoss(LabelLoss):
    """The most offending answer must lie above the label by a margin.

    Parameters
    ----------
    margin : float, default=1.0
        The margin m, in units of the energy.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklebm import EnergyClassifier
    >>> from sklebm.objectives import HingeLoss
    >>> X, y = load_iris(return_X_y=True)
    >>> objective = HingeLoss(margin=2.0)
    >>> model = EnergyClassifier(objective=objective, max_epochs=20, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.9
    True
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.margin, "margin", self)

    def values(self, energies: Tensor, y: Tensor, beta: float) -> Tensor:
        """max(0, m + F(x, y) - F(x, y'))."""
        return torch.relu(self.margin + right(energies, y) - most_offending(energies, y))


@dataclass(frozen=True)
class SquareExponentialLoss(LabelLoss):
    """The label at energy zero, the most offending answer as high as it will go.

    Parameters
    ----------
    gamma : float, default=1.0
        Weight of the most offending answer.
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.gamma, "gamma", self)

    def values(self, energies: Tensor, y: Tensor, beta: float) -> Tensor:
        """F(x, y)^2 + gamma exp(-F(x, y'))."""
        offending = torch.exp(-most_offending(energies, y))
        return right(energies, y).square() + self.gamma * offending


@dataclass(frozen=True)
class LabelNoiseContrastive(LabelLoss):
    """Tell the label from labels drawn at random: the energies learn to be normalised.

    The expectation over the draws is summed, not sampled.

    Parameters
    ----------
    n_noise : int, default=1
        The number k of random labels for each row.
    """

    n_noise: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "n_noise")

    def values(self, energies: Tensor, y: Tensor, beta: float) -> Tensor:
        """S(-G(x, y)) + k sum_j q_j S(G(x, j))."""
        ratios = -beta * energies - math.log(self.n_noise / energies.shape[1])
        return softplus(-right(ratios, y)) + self.n_noise * softplus(ratios).mean(dim=1)


@dataclass(frozen=True)
class PenalizedLoss(Objective):
    """A loss plus alpha / 2 times the sum of the squared weights of the network.

    Parameters
    ----------
    fit : Objective
        The loss.
    alpha : float
        Weight of the penalty.
    """

    fit: Objective
    alpha: float

    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def missing_from(self, energy: Any) -> list[str]:
        """What the loss lacks."""
        return self.fit.missing_from(energy)

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """The loss with its penalty."""
        value, state = self.fit.loss(energy, batch, state, generator)
        return (value + self.alpha * penalty(energy.network) if self.alpha else value), state


@dataclass(frozen=True)
class PenalizedNoisyLoss(PenalizedLoss):
    """The same of a loss that draws random numbers."""

    is_stochastic: ClassVar[bool] = True
    loss_is_comparable: ClassVar[bool] = False


@dataclass(frozen=True)
class JointLoss(PenalizedLoss):
    """A penalised loss on the labels and an objective of the rows, whose energy is F_beta(x).

    Parameters
    ----------
    rows : Objective
        Shapes ``energy.free_energy``.
    weight : float
        Its weight.
    """

    rows: Objective
    weight: float

    is_stochastic: ClassVar[bool] = True
    loss_is_comparable: ClassVar[bool] = False

    def missing_from(self, energy: Any) -> list[str]:
        """What either lacks."""
        return [*self.fit.missing_from(energy), *self.rows.missing_from(energy)]

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """That of the objective of the rows."""
        return self.rows.init_state(energy, batch_size, generator)

    def chains(
        self, state: ObjectiveState, energy: Any = None, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Those of the objective of the rows."""
        return self.rows.chains(state, energy, generator)

    def with_chains_at(
        self, state: ObjectiveState, rows: Tensor, energy: Any, generator: torch.Generator
    ) -> ObjectiveState:
        """That of the objective of the rows."""
        return self.rows.with_chains_at(state, rows, energy, generator)

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """The sum of the two."""
        own, _ = PenalizedLoss.loss(self, energy, batch, {}, generator)
        of_rows, state = self.rows.loss(energy, batch, state, generator)
        return own + self.weight * of_rows, state
