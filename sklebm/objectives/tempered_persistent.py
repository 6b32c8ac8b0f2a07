"""Persistent negatives from parallel tempering, which visit modes that Gibbs chains miss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm._checks import check_counts
from sklebm.energies.base import TwoLayerEnergy
from sklebm.energies.gradients import Gradients
from sklebm.inference.parallel_tempering import ParallelTempering
from sklebm.inference.samplers import run
from sklebm.objectives.base import Batch, ObjectiveState
from sklebm.objectives.closed_form import ClosedFormObjective
from sklebm.objectives.contrastive_divergence import CLOSED_FORM


@dataclass(frozen=True)
class TemperedPersistentContrastiveDivergence(ClosedFormObjective):
    """Persistent contrastive divergence whose chains exchange states with hotter ones.

    Each chain at the model's own temperature is the cold end of a ladder up to the base rate
    of the visible units. A step costs ``n_temperatures`` times that of persistent chains.

    Parameters
    ----------
    n_temperatures : int, default=10
        Number of temperatures, including the model's own.
    n_gibbs_steps : int, default=1
        Steps of every ladder per update, each of Gibbs steps and exchanges.
    n_chains : int or None, default=None
        Number of ladders; None uses the batch size.

    References
    ----------
    .. [1] G. Desjardins et al., "Tempered Markov chain Monte Carlo for training of restricted
       Boltzmann machines", AISTATS 2010.
    .. [2] K. Cho, T. Raiko and A. Ilin, "Parallel tempering is efficient for learning restricted
       Boltzmann machines", IJCNN 2010.
    """

    n_temperatures: int = 10
    n_gibbs_steps: int = 1
    n_chains: int | None = None

    needs: ClassVar[tuple[str, ...]] = (*ParallelTempering.needs, *CLOSED_FORM)

    def __post_init__(self) -> None:
        check_counts(self, "n_temperatures", "n_gibbs_steps", optional=("n_chains",))
        if self.n_temperatures < 2:
            raise ValueError(
                f"{type(self).__name__}: n_temperatures={self.n_temperatures} must be at least 2; "
                "one temperature is PersistentContrastiveDivergence."
            )

    def chains(
        self, state: ObjectiveState, energy: Any = None, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Visible states of the chains at the model's own temperature."""
        visible = state.get("visible")
        return None if visible is None else visible[0]

    def with_chains_at(
        self, state: ObjectiveState, rows: Tensor, energy: Any, generator: torch.Generator
    ) -> ObjectiveState:
        """``state`` with ladders of which each holds a row at every temperature but the hottest."""
        visible = state["visible"].clone()
        visible[:-1] = rows
        return {**state, "visible": visible}

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """Ladders that start at the visible units' base rate, which remains their hot end."""
        sampler = ParallelTempering(self.n_temperatures)
        with torch.no_grad():
            return sampler.keep(sampler.start(generator, self.n_chains or batch_size, energy))

    def gradients(
        self,
        energy: TwoLayerEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, Gradients, ObjectiveState]:
        """Mean of F over the batch minus its mean over the chains at the model's temperature."""
        sampler = ParallelTempering(self.n_temperatures)
        ladders = sampler.restore(state, energy)
        ladders = run(sampler, generator, ladders, energy, self.n_gibbs_steps)
        v = ladders.position
        visible = torch.cat([batch.x, v])
        field = energy.hidden_field(visible)
        signs = torch.cat([batch.shares(v), -v.new_full((len(v),), 1.0 / len(v))])
        value, gradients = energy.free_energy_gradients(
            visible, signs, field, energy.hidden.mean(field)
        )
        return value, gradients, sampler.keep(ladders)
