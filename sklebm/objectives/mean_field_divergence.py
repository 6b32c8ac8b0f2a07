r"""Maximum likelihood of several layers: mean field at the data, chains for the model.

    L = E_data [E(x, m(x))] - E_chains [E(v, h)],

with m(x) the means that maximise the bound on log p(x) for independent hidden units: its gradient
is that of the bound, up to the error of the chains, because the bound is stationary in m. Chains
are persistent, or start at the rows and draws of their mean fields in every update. The layers at
odd places enter at their means given the even ones, which takes noise out of both terms.

R. Salakhutdinov and G. Hinton, "Deep Boltzmann machines", AISTATS 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm._checks import check_counts
from sklebm.energies.gradients import Gradients
from sklebm.energies.layered import LayeredEnergy
from sklebm.energies.units import draw_bits
from sklebm.inference.gibbs import BlockGibbs
from sklebm.inference.samplers import run, visible_chains
from sklebm.objectives.aliases import with_aliases
from sklebm.objectives.base import Batch, ObjectiveState
from sklebm.objectives.closed_form import ClosedFormObjective

# Means that still move by less than this hardly change a gradient.
_TOLERANCE = 1e-3


@with_aliases
@dataclass(frozen=True)
class MeanFieldContrastiveDivergence(ClosedFormObjective):
    """Persistent contrastive divergence for layers whose posterior is not known in closed form.

    Parameters
    ----------
    n_steps : int, default=1
        Gibbs steps of the chains at each update, each of all even and then all odd layers; also
        called ``n_gibbs_steps``.
    n_chains : int or None, default=None
        Number of chains; None uses the batch size.
    n_mean_field_steps : int, default=10
        Maximum number of mean-field steps for a batch. One layer needs none.
    """

    n_steps: int = 1
    n_chains: int | None = None
    n_mean_field_steps: int = 10

    needs: ClassVar[tuple[str, ...]] = ("mean_field", "energy_gradients", "draw_hidden")
    domain: ClassVar[str | None] = "binary"
    domain_reason: ClassVar[str] = "sums over the states of units"
    aliases: ClassVar[dict[str, str]] = {"n_gibbs_steps": "n_steps"}

    def __post_init__(self) -> None:
        check_counts(self, "n_steps", "n_mean_field_steps", optional=("n_chains",))

    def init_state(
        self, energy: LayeredEnergy, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """Chains that start at draws of the visible units without input."""
        sampler = BlockGibbs()
        with torch.no_grad():
            state = sampler.start(generator, self.n_chains or batch_size, energy)
            # The even layers above the rows are drawn, too.
            return sampler.keep(sampler.step(generator, state, energy)[0])

    def chains(
        self, state: ObjectiveState, energy: Any = None, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Current states of all even layers, rows first."""
        return visible_chains(state, energy, generator)

    def with_chains_at(
        self, state: ObjectiveState, rows: Tensor, energy: Any, generator: torch.Generator
    ) -> ObjectiveState:
        """``state`` with its chains at these states of all even layers."""
        sampler = BlockGibbs()
        return {**state, **sampler.keep(sampler.init(generator, rows, energy))}

    def gradients(
        self,
        energy: LayeredEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, Gradients, ObjectiveState]:
        """Mean energy of the rows at their mean field minus that of the chains."""
        sampler = BlockGibbs()
        means = energy.mean_field(batch.x, self.n_mean_field_steps, _TOLERANCE)
        chains = run(sampler, generator, sampler.restore(state, energy), energy, self.n_steps)
        n_chains = len(chains.visible)
        shares = means.new_full((n_chains,), 1.0 / n_chains)
        return *_contrast(energy, batch, means, chains.visible, shares), sampler.keep(chains)


@with_aliases
@dataclass(frozen=True)
class MeanFieldShortChains(ClosedFormObjective):
    """Contrastive divergence for layers whose posterior is not known in closed form.

    Chains start at the rows, with hidden units drawn from their mean fields, and take a few steps.
    Biased: low energy far from the rows, where no chain goes, is left there.

    Parameters
    ----------
    n_steps : int, default=1
        Gibbs steps of the chains, each of all odd and then all even layers; also called
        ``n_gibbs_steps``.
    n_mean_field_steps : int, default=10
        Maximum number of mean-field steps for a batch. One layer needs none.
    """

    n_steps: int = 1
    n_mean_field_steps: int = 10

    needs: ClassVar[tuple[str, ...]] = MeanFieldContrastiveDivergence.needs
    domain: ClassVar[str | None] = "binary"
    domain_reason: ClassVar[str] = "sums over the states of units"
    aliases: ClassVar[dict[str, str]] = {"n_gibbs_steps": "n_steps"}

    def __post_init__(self) -> None:
        check_counts(self, "n_steps", "n_mean_field_steps")

    def gradients(
        self,
        energy: LayeredEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, Gradients, ObjectiveState]:
        """Mean energy of the rows at their mean field minus that of chains that leave them."""
        means = energy.mean_field(batch.x, self.n_mean_field_steps, _TOLERANCE)
        further = torch.cat(energy.split(means)[1::2], dim=1) if len(energy.layers) > 2 else None
        rows = energy.layers[0].as_states(batch.x, generator)
        even = rows if further is None else torch.cat([rows, draw_bits(further, generator)], dim=1)
        for _ in range(self.n_steps):
            even = energy.draw_visible(energy.draw_hidden(even, generator), generator)
        return *_contrast(energy, batch, means, even, batch.shares(means)), state


def _contrast(
    energy: LayeredEnergy, batch: Batch, means: Tensor, even: Tensor, shares: Tensor
) -> tuple[Tensor, Gradients]:
    """Energies of the rows at their means minus those of chains, and the gradients of both."""
    of_model = energy.with_odd_means(even)
    of_data = [batch.x, *energy.split(means)]
    states = [torch.cat(pair) for pair in zip(of_data, of_model, strict=True)]
    return energy.energy_gradients(states, torch.cat([batch.shares(means), -shares]))
