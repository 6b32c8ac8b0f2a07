"""Persistent negatives from parallel tempering, which visit modes that Gibbs chains miss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm.energies.gradients import Gradients
from sklebm.inference import parallel_tempering
from sklebm.inference.tempered_path import TemperedPath
from sklebm.objectives.base import Batch, ObjectiveState, check_count
from sklebm.objectives.closed_form import ClosedFormObjective
from sklebm.objectives.contrastive_divergence import NEEDS, signs_of


@dataclass(frozen=True)
class TemperedPersistentContrastiveDivergence(ClosedFormObjective):
    """Persistent contrastive divergence whose chains exchange states with hotter ones.

    Each chain at the model's own temperature is the end of a ladder down to the base rate
    of the visible units. A step costs ``n_temperatures`` times that of persistent chains.

    Parameters
    ----------
    n_temperatures : int, default=10
        Number of temperatures, the model's own included.
    n_gibbs_steps : int, default=1
        Steps of every ladder per update, each of Gibbs steps and exchanges.
    n_chains : int or None, default=None
        Number of ladders; None takes the batch size.

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

    needs: ClassVar[tuple[str, ...]] = NEEDS

    def __post_init__(self) -> None:
        check_count(self, "n_temperatures")
        check_count(self, "n_gibbs_steps")
        if self.n_chains is not None:
            check_count(self, "n_chains")
        if self.n_temperatures < 2:
            raise ValueError(
                f"{type(self).__name__}: n_temperatures={self.n_temperatures} must be at least 2; "
                "one temperature is PersistentContrastiveDivergence."
            )

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """Ladders that start at the visible units' base rate, which stays their hot end."""
        base = energy.visible.bias.detach().clone()
        n_ladders = self.n_chains or batch_size
        with torch.no_grad():
            path = TemperedPath(energy, base)
            start = parallel_tempering.init(generator, path, self.n_temperatures, n_ladders)
        return {"base": base, "visible": start.visible, "parity": torch.tensor(start.parity)}

    def chains(
        self, state: ObjectiveState, energy: Any, generator: torch.Generator
    ) -> Tensor | None:
        """Visible states at the model's own temperature."""
        return state["visible"][0] if state else None

    def gradients(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, Gradients, ObjectiveState]:
        """Mean of F over the batch minus its mean over the chains at the model's temperature."""
        x = batch.x
        path = TemperedPath(energy, state["base"])
        ladders = parallel_tempering.TemperingState(state["visible"], int(state["parity"]))
        for _ in range(self.n_gibbs_steps):
            ladders, _info = parallel_tempering.step(generator, ladders, path)
        v = ladders.visible[0]
        visible = torch.cat([x, v])
        field = energy.hidden_field(visible)
        signs = signs_of(len(x), len(v), x)
        value, gradients = energy.free_energy_gradients(
            visible, signs, field, energy.hidden.mean(field)
        )
        parity = torch.tensor(ladders.parity)
        return value, gradients, {**state, "visible": ladders.visible, "parity": parity}
