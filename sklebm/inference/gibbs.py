r"""Block Gibbs sampling: v ~ p(v | h), then h ~ p(h | v); leaves exp(-E(v, h)) / Z invariant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sklebm.energies.base import AlternatingEnergy
from sklebm.inference.samplers import Sampler, StepInfo


class GibbsState(NamedTuple):
    """One state of every chain: visible (n_chains, d) and hidden (n_chains, k)."""

    visible: Tensor
    hidden: Tensor

    @property
    def position(self) -> Tensor:
        """The visible states."""
        return self.visible


@dataclass(frozen=True)
class BlockGibbs(Sampler):
    """Draw all visible units given the hidden ones, then all hidden units given the visible ones.

    Every draw is accepted. An energy of several layers counts the layers at odd places as hidden.

    Examples
    --------
    >>> import torch
    >>> from sklebm.energies import Bernoulli, BilinearEnergy
    >>> from sklebm.inference.gibbs import BlockGibbs
    >>> machine = BilinearEnergy(
    ...     Bernoulli(torch.zeros(2)), Bernoulli(torch.zeros(1)), torch.tensor([[50.0, -50.0]])
    ... )
    >>> generator = torch.Generator().manual_seed(0)
    >>> sampler = BlockGibbs()
    >>> with torch.no_grad():
    ...     state = sampler.init(generator, torch.tensor([[1.0, 0.0]]), machine)
    ...     state, info = sampler.step(generator, state, machine)
    >>> state.visible
    tensor([[1., 0.]])
    """

    needs: ClassVar[tuple[str, ...]] = ("draw_visible", "draw_hidden")
    alternates: ClassVar[bool] = True

    def init(
        self, generator: torch.Generator, position: Tensor, energy: AlternatingEnergy
    ) -> GibbsState:
        """Start chains at the given visible states, with hidden ones drawn given them."""
        return GibbsState(position, energy.draw_hidden(position, generator))

    def step(
        self, generator: torch.Generator, state: GibbsState, energy: AlternatingEnergy
    ) -> tuple[GibbsState, StepInfo]:
        """Move the visible states given the hidden ones, then draw these. O(n_chains d k)."""
        visible, info = self.move_visible(generator, state, energy)
        return GibbsState(visible, energy.draw_hidden(visible, generator)), info

    def move_visible(
        self,
        generator: torch.Generator,
        state: GibbsState,
        energy: Any,
        known: Tensor | None = None,
    ) -> tuple[Tensor, StepInfo]:
        """Visible states drawn anew given the hidden ones; those where ``known`` is true stay."""
        visible = energy.draw_visible(state.hidden, generator)
        if known is not None:
            visible = torch.where(known, state.visible, visible)
        return visible, _always(len(visible), visible)

    def moved(
        self,
        generator: torch.Generator,
        state: GibbsState,
        energy: AlternatingEnergy,
        n_steps: int,
        known: Tensor | None = None,
    ) -> Tensor:
        """Visible states after ``n_steps``, the hidden ones of the last step not yet drawn.

        Computing the input of the hidden units is the expensive part of drawing them, and callers
        that continue with the visible states often need it anyway.
        """
        v, h = state
        for index in range(n_steps):
            if index:
                h = energy.draw_hidden(v, generator)
            v, _info = self.move_visible(generator, GibbsState(v, h), energy, known)
        return v

    def keep(self, state: GibbsState) -> dict[str, Tensor]:
        """Hidden states, of which the next visible ones are drawn, and the visible ones."""
        return {"visible": state.visible, "hidden": state.hidden}

    def restore(self, kept: dict[str, Tensor], energy: AlternatingEnergy) -> GibbsState:
        """Chains with the states that were kept; older files hold the hidden ones only."""
        hidden = kept["hidden"]
        return GibbsState(kept.get("visible", hidden[:, :0]), hidden)


def _always(n_chains: int, like: Tensor) -> StepInfo:
    """Transition info for steps in which every draw is accepted."""
    certain = like.new_ones(()).expand(n_chains)
    return StepInfo(certain, certain.bool())


def init(generator: torch.Generator, visible: Tensor, energy: AlternatingEnergy) -> GibbsState:
    """``BlockGibbs().init``."""
    return BlockGibbs().init(generator, visible, energy)


def step(generator: torch.Generator, state: GibbsState, energy: AlternatingEnergy) -> GibbsState:
    """``BlockGibbs().step`` without its record of acceptance."""
    return BlockGibbs().step(generator, state, energy)[0]
