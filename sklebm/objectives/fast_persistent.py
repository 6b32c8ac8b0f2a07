r"""Persistent chains driven apart by a second set of parameters, large but quickly decaying.

    negatives ~ E_{w + f},   w <- w - rate g,   f <- (19/20) f - fast rate g

The fast parameters f raise the energy wherever the chains are, so that they move on; they vanish
where the gradient does.

T. Tieleman and G. E. Hinton, "Using fast weights to improve persistent contrastive divergence",
ICML 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm._checks import check_counts, check_number
from sklebm.energies.base import RetunableEnergy
from sklebm.energies.gradients import Gradients, dense
from sklebm.inference.gibbs import BlockGibbs
from sklebm.inference.samplers import visible_chains
from sklebm.objectives.base import Batch, ObjectiveState
from sklebm.objectives.closed_form import ClosedFormObjective
from sklebm.objectives.contrastive_divergence import CLOSED_FORM

_KEPT = 19 / 20


@dataclass(frozen=True)
class FastPersistentContrastiveDivergence(ClosedFormObjective):
    """Persistent contrastive divergence with fast weights.

    Chains mix much faster than under the model alone, but are no longer draws from it.

    Parameters
    ----------
    n_gibbs_steps : int, default=1
        Gibbs steps of every chain per update.
    n_chains : int or None, default=None
        Number of chains; None uses the batch size.
    fast_learning_rate : float, default=0.02
        Step size of the fast parameters.
    """

    n_gibbs_steps: int = 1
    n_chains: int | None = None
    fast_learning_rate: float = 0.02

    needs: ClassVar[tuple[str, ...]] = (*BlockGibbs.needs, *CLOSED_FORM, "with_parameters")
    domain: ClassVar[str | None] = "binary"
    domain_reason: ClassVar[str] = "gives its fast weights a rate that ignores the units of X"

    def __post_init__(self) -> None:
        check_counts(self, "n_gibbs_steps", optional=("n_chains",))
        check_number(self.fast_learning_rate, "fast_learning_rate", self)

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """Chains at the base rate, and fast parameters of zero."""
        gibbs = BlockGibbs()
        with torch.no_grad():
            state = gibbs.keep(gibbs.start(generator, self.n_chains or batch_size, energy))
        for name, parameter in _parameters(energy).items():
            state[name] = torch.zeros_like(parameter.detach())
        return state

    def chains(
        self, state: ObjectiveState, energy: Any = None, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Visible states of the chains."""
        return visible_chains(state, energy, generator)

    def with_chains_at(
        self, state: ObjectiveState, rows: Tensor, energy: Any, generator: torch.Generator
    ) -> ObjectiveState:
        """``state`` with its chains moved to these rows."""
        gibbs = BlockGibbs()
        return {**state, **gibbs.keep(gibbs.init(generator, rows, energy))}

    def gradients(
        self,
        energy: RetunableEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, Gradients, ObjectiveState]:
        """Mean of F over the batch minus its mean over the chains; F without the fast weights."""
        x = batch.x
        slow = _parameters(energy)
        fast = energy.with_parameters(*(slow[name].detach() + state[name] for name in slow))
        gibbs = BlockGibbs()
        v = gibbs.moved(generator, gibbs.restore(state, fast), fast, self.n_gibbs_steps)
        visible = torch.cat([x, v])
        field = energy.hidden_field(visible)
        mean = energy.hidden.mean(field)
        signs = torch.cat([batch.shares(v), -v.new_full((len(v),), 1.0 / len(v))])
        value, gradients = energy.free_energy_gradients(visible, signs, field, mean)
        new = {"visible": v, "hidden": fast.draw_hidden(v, generator)}
        known = {id(parameter): gradient for parameter, gradient in gradients}
        for name, parameter in slow.items():
            step_down = dense(known[id(parameter)])
            new[name] = torch.add(_KEPT * state[name], step_down, alpha=-self.fast_learning_rate)
        return value, gradients, new


def _parameters(energy: RetunableEnergy) -> dict[str, Tensor]:
    """Parameters that have a fast copy, in the order of ``with_parameters``."""
    return {
        "fast_weights": energy.weights,
        "fast_visible_bias": energy.visible.bias,
        "fast_hidden_bias": energy.hidden.bias,
    }
