r"""Parallel tempering: chains at several temperatures that exchange their states.

Every ladder holds one state at each of t_1 = 1 > t_2 > ... > t_m = 0 of a tempered path. A step is
one of block Gibbs at every temperature, then an exchange of neighbours, accepted with probability

    min(1, exp(log p*_a(y) + log p*_b(x) - log p*_a(x) - log p*_b(y)))

for the states x at t_a and y at t_b; even and odd pairs take turns. The joint distribution of the
ladder stays invariant. At t = 0 a state is drawn anew at every step, so that the chains at t = 1
visit modes that Gibbs steps alone would not reach.

G. Desjardins et al., "Tempered Markov chain Monte Carlo for training of restricted Boltzmann
machines", AISTATS 2010; K. Cho, T. Raiko and A. Ilin, "Parallel tempering is efficient for
learning restricted Boltzmann machines", IJCNN 2010.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sklebm._checks import check_count
from sklebm.energies.base import TwoLayerEnergy
from sklebm.inference.samplers import Sampler, StepInfo
from sklebm.inference.tempered_path import Path, TemperedPath


class TemperingState(NamedTuple):
    """Visible states (n_temperatures, n_ladders, d), the first at t = 1; and whose turn it is."""

    visible: Tensor
    parity: int


class TemperingInfo(NamedTuple):
    """Share of accepted exchanges between neighbours, NaN for pairs that had no turn."""

    acceptance: Tensor


def temperatures(n_temperatures: int, like: Tensor) -> Tensor:
    """Equally spaced t from 1 down to 0."""
    return torch.linspace(1.0, 0.0, n_temperatures, dtype=like.dtype, device=like.device)


def init(
    generator: torch.Generator, path: Path, n_temperatures: int, n_ladders: int
) -> TemperingState:
    """Start every chain at the base of the path."""
    v = path.draw_base(n_temperatures * n_ladders, generator)
    return TemperingState(v.view(n_temperatures, n_ladders, -1), 0)


def step(
    generator: torch.Generator, state: TemperingState, path: Path
) -> tuple[TemperingState, TemperingInfo]:
    """One step of the path's kernel at every temperature, then exchanges."""
    n_temperatures, n_ladders, n_visible = state.visible.shape
    each = temperatures(n_temperatures, state.visible).repeat_interleave(n_ladders).unsqueeze(1)
    v = state.visible.reshape(-1, n_visible)
    v = path.move(v, path.observe(v), each, generator)
    v = v.view(n_temperatures, n_ladders, n_visible)
    v, info = _exchange(generator, v, path, state.parity)
    return TemperingState(v, 1 - state.parity), info


def _exchange(
    generator: torch.Generator, v: Tensor, path: Path, parity: int
) -> tuple[Tensor, TemperingInfo]:
    n_temperatures, n_ladders, n_visible = v.shape
    t = temperatures(n_temperatures, v)
    acceptance = torch.full_like(t[1:], torch.nan)
    hot = torch.arange(parity + 1, n_temperatures, 2, device=v.device)
    if len(hot) == 0:
        return v, TemperingInfo(acceptance)
    cold = hot - 1
    pairs = torch.cat([cold, hot])
    rows = v[pairs].reshape(-1, n_visible)
    to_hot = t[hot].repeat(2).repeat_interleave(n_ladders).unsqueeze(1)
    to_cold = t[cold].repeat(2).repeat_interleave(n_ladders).unsqueeze(1)
    # log p*_cold - log p*_hot of the cold states, then of the hot ones
    gain = path.log_weight(rows, path.observe(rows), to_hot, to_cold)
    of_cold, of_hot = gain.view(2, len(hot), n_ladders)
    uniform = torch.empty_like(of_cold).uniform_(generator=generator)
    accept = uniform.log() < of_hot - of_cold
    acceptance[cold] = accept.to(v.dtype).mean(dim=1)
    swapped = v.clone()
    swapped[cold] = torch.where(accept.unsqueeze(2), v[hot], v[cold])
    swapped[hot] = torch.where(accept.unsqueeze(2), v[cold], v[hot])
    return swapped, TemperingInfo(acceptance)


class LadderState(NamedTuple):
    """Ladders as the state of a sampler: chains, whose turn it is, and the hot end's biases."""

    visible: Tensor
    parity: int
    base: Tensor

    @property
    def position(self) -> Tensor:
        """Visible states at the model's own temperature, (n_ladders, d)."""
        return self.visible[0]


@dataclass(frozen=True)
class ParallelTempering(Sampler):
    """Chains of a bilinear energy that exchange states with hotter ones.

    The chain of each ladder at the model's own temperature is where the others help it to. The hot
    end is the visible units without hidden ones, as they are when the chains start; it stays.

    Parameters
    ----------
    n_temperatures : int, default=10
        Number of temperatures, the model's own included; at least 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import BernoulliRBM
    >>> from sklebm.inference.parallel_tempering import ParallelTempering
    >>> from sklebm.objectives import PersistentContrastiveDivergence
    >>> X = np.repeat([[0, 0, 1, 1], [1, 1, 0, 0]], 50, axis=0)
    >>> objective = PersistentContrastiveDivergence(sampler=ParallelTempering(5))
    >>> rbm = BernoulliRBM(2, objective=objective, max_epochs=50, random_state=0).fit(X)
    >>> rbm.free_energy([[0, 0, 1, 1]]) < rbm.free_energy([[0, 1, 0, 1]])
    array([ True])
    """

    n_temperatures: int = 10

    needs: ClassVar[tuple[str, ...]] = ("visible", "hidden", "hidden_field", "weights")

    def __post_init__(self) -> None:
        check_count(self.n_temperatures, "n_temperatures", self, least=2)

    def init(
        self, generator: torch.Generator, position: Tensor, energy: TwoLayerEnergy
    ) -> LadderState:
        """Ladders that are at ``position`` at every temperature."""
        visible = position.expand(self.n_temperatures, *position.shape).clone()
        return LadderState(visible, 0, energy.visible.bias.detach().clone())

    def start(
        self, generator: torch.Generator, n_chains: int, energy: TwoLayerEnergy
    ) -> LadderState:
        """Ladders whose every chain starts at a draw of its own of the hot end."""
        base = energy.visible.bias.detach().clone()
        ladders = init(generator, TemperedPath(energy, base), self.n_temperatures, n_chains)
        return LadderState(ladders.visible, ladders.parity, base)

    def step(
        self, generator: torch.Generator, state: LadderState, energy: TwoLayerEnergy
    ) -> tuple[LadderState, StepInfo]:
        """A Gibbs step at every temperature, then exchanges. O(n_temperatures n_chains d k)."""
        before = TemperingState(state.visible, state.parity)
        after, _shares = step(generator, before, TemperedPath(energy, state.base))
        certain = after.visible.new_ones(()).expand(after.visible.shape[1])
        info = StepInfo(certain, certain.bool())
        return LadderState(after.visible, after.parity, state.base), info

    def keep(self, state: LadderState) -> dict[str, Tensor]:
        """All chains, whose turn it is, and the hot end."""
        parity = torch.tensor(state.parity)
        return {"base": state.base, "visible": state.visible, "parity": parity}

    def restore(self, kept: dict[str, Tensor], energy: TwoLayerEnergy) -> LadderState:
        """Ladders that go on from where they were."""
        return LadderState(kept["visible"], int(kept["parity"]), kept["base"])
