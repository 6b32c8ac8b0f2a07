r"""Fine-tuning of a deep belief network by its passes up and down: contrastive wake-sleep.

Wake: draws of q for each row, from which every directed layer learns to predict the layer below.
The top machine learns from the uppermost of them, against persistent chains of its own. Sleep:
these chains are drawn down to the rows, and q learns to infer the states that each came from:

    L = -sum_l E_data log p(h_{l-1} | h_l) + E_data F(h_{L-1}) - E_chains F
        - sum_l E_dream log q(h_l | h_{l-1}).

The first three terms follow the variational bound for the q there is; the last is the other
divergence between q and the posterior, at rows of the model.

G. E. Hinton, S. Osindero and Y.-W. Teh, "A fast learning algorithm for deep belief nets", Neural
Computation 18(7), 2006.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sklebm._checks import check_counts
from sklebm.energies.belief import DeepBeliefEnergy, log_conditional
from sklebm.inference.gibbs import BlockGibbs
from sklebm.inference.samplers import run
from sklebm.objectives.base import Batch, Objective, ObjectiveState


@dataclass(frozen=True)
class UpDown(Objective):
    """Up-down passes with persistent chains of the top machine.

    Parameters
    ----------
    n_steps : int, default=1
        Gibbs steps of the chains at each update; there are as many chains as rows in a batch.
    """

    n_steps: int = 1

    needs: ClassVar[tuple[str, ...]] = ("draw_up", "draw_down", "lower", "top")

    def __post_init__(self) -> None:
        check_counts(self, "n_steps")

    def init_state(
        self, energy: DeepBeliefEnergy, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """Chains of the top machine, from its visible biases."""
        sampler = BlockGibbs()
        with torch.no_grad():
            return sampler.keep(sampler.start(generator, batch_size, energy.top))

    def with_chains_at(
        self,
        state: ObjectiveState,
        rows: Tensor,
        energy: DeepBeliefEnergy,
        generator: torch.Generator,
    ) -> ObjectiveState:
        """Chains of the top machine at these states of its visible units."""
        sampler = BlockGibbs()
        with torch.no_grad():
            return sampler.keep(sampler.init(generator, rows, energy.top))

    def loss(
        self,
        energy: DeepBeliefEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """The loss of the batch, whose value is no measure of quality, and the moved chains."""
        sampler = BlockGibbs()
        with torch.no_grad():
            awake = energy.draw_up(batch.x, generator)
            chains = sampler.restore(state, energy.top)
            chains = run(sampler, generator, chains, energy.top, self.n_steps)
            asleep = energy.draw_down(chains.visible, generator)
        total = batch.mean(energy.top.free_energy(awake[-1]))
        total = total - energy.top.free_energy(chains.visible).mean()
        for index, (machine, layer) in enumerate(energy.lower):
            total = total - batch.mean(layer.log_density(awake[index], awake[index + 1]))
            field = machine.hidden_field(asleep[index])
            total = total - log_conditional(machine.hidden, asleep[index + 1], field).mean()
        return total, sampler.keep(chains)
