"""A pass over the rows in compiled steps, for machines of bits whose steps are short.

The steps are those that the engine takes with torch: same batches, random numbers and sums, up to
rounding (``sklebm.inference.contrast_steps``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sklebm.energies.bilinear import BilinearEnergy
from sklebm.energies.units import Bernoulli
from sklebm.inference.gibbs import BlockGibbs
from sklebm.objectives import ContrastiveDivergence, Objective, PersistentContrastiveDivergence
from sklebm.training.batches import TensorBatches
from sklebm.training.centring import EVERY, RATE, Centring
from sklebm.training.one_thread import one_blas_thread
from sklebm.training.transforms import GradientTransform

# Multiplications of a matrix product above which torch, with its threads, is as fast.
_MOST_WORK = 2**24
# Random numbers of a call: between calls, Ctrl-C is noticed.
_NUMBERS = 2**20


class CompiledPass:
    """The compiled steps of one machine.

    Parameters
    ----------
    energy : BilinearEnergy
        The machine, whose parameters move in place.
    objective : ContrastiveDivergence
        Plain or persistent, by block Gibbs sampling.
    centring : Centring or None
        How gradients are centred.
    """

    def __init__(
        self, energy: BilinearEnergy, objective: ContrastiveDivergence, centring: Centring | None
    ) -> None:
        self.energy = energy
        self.objective = objective
        self.centring = centring
        self.is_persistent = isinstance(objective, PersistentContrastiveDivergence)

    def suits(self, batch_size: int, state: dict[str, torch.Tensor]) -> bool:
        """Whether steps are short, and parameters where compiled steps can work on them."""
        n_chains = len(state["hidden"]) if self.is_persistent else batch_size
        return (batch_size + n_chains) * self.energy.weights.numel() <= _MOST_WORK and all(
            x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous()
            for x in self.energy.parameters()
        )

    def run(
        self,
        training: Any,
        batches: TensorBatches,
        rates: dict[torch.Tensor, float],
    ) -> tuple[float, int]:
        """Take one step per batch; return the sum of losses times rows, and the rows.

        Parameters, chains and offsets move as in ``EnergyTraining.descend``.
        """
        batch_size, order = batches.batch_size, batches.order()
        n_steps = max(1, _NUMBERS // (self._n_chains(training, batch_size) * self._n_numbers()))
        total = 0.0
        for part in torch.split(order, n_steps * batch_size):
            total += self.advance(training, batches.take(part), rates, batch_size)
        return total, len(order)

    def advance(
        self,
        training: Any,
        rows: torch.Tensor,
        rates: dict[torch.Tensor, float],
        batch_size: int,
    ) -> float:
        """Take the steps of some batches; return the sum of losses times rows."""
        from sklebm.inference.contrast_steps import contrast_steps

        energy, (k, d) = self.energy, self.energy.weights.shape
        moved = (energy.weights, energy.visible.bias, energy.hidden.bias)
        n_chains = self._n_chains(training, batch_size)
        visible, hidden = np.empty((n_chains, d), np.float32), np.empty((n_chains, k), np.float32)
        if self.is_persistent:
            hidden[:] = training.objective_state["hidden"].numpy()
        offsets, n_before = self._offsets(training, d, k)
        n_taken = -(-len(rows) // batch_size)
        n_moved = n_taken * n_chains if self.is_persistent else len(rows)
        uniform = torch.empty(n_moved * self._n_numbers()).uniform_(generator=training.generator)
        with one_blas_thread():
            total: float = contrast_steps(
                rows.numpy(),
                batch_size,
                *(parameter.detach().numpy() for parameter in moved),
                visible,
                hidden,
                self.is_persistent,
                self.objective.n_steps,
                uniform.numpy(),
                *offsets,
                self.centring is not None,
                n_before,
                EVERY,
                RATE if self.centring is not None and self.centring.follows else 0.0,
                np.array([rates[parameter] for parameter in moved]),
                batch_size,
            )
        if self.is_persistent:
            kept = {"visible": torch.from_numpy(visible), "hidden": torch.from_numpy(hidden)}
            training.objective_state = kept
        if self.centring is not None:
            mean = torch.from_numpy(offsets[1])
            training.transform_states[0] = {"hidden_mean": mean, "n_steps": n_before + n_taken}
        return total

    def _n_chains(self, training: Any, batch_size: int) -> int:
        return len(training.objective_state["hidden"]) if self.is_persistent else batch_size

    def _n_numbers(self) -> int:
        """Random numbers of a chain in one update."""
        return self.objective.n_steps * sum(self.energy.weights.shape)

    def _offsets(self, training: Any, d: int, k: int) -> tuple[tuple[Any, Any], int]:
        """Offsets of both layers, copies that may be written to, and the number of steps so far."""
        if self.centring is None:
            return (np.zeros(d, np.float32), np.zeros(k, np.float32)), 0
        state = training.transform_states[0]
        visible = self.centring.visible_mean.numpy().astype(np.float32)
        return (visible, state["hidden_mean"].numpy().copy()), int(state["n_steps"])


def compiled_pass(
    energy: Any, objective: Objective, transforms: Sequence[GradientTransform]
) -> CompiledPass | None:
    """Compiled steps, if there are some for this energy, objective and these transforms."""
    kinds = (ContrastiveDivergence, PersistentContrastiveDivergence)  # no further subclass
    if not isinstance(objective, ContrastiveDivergence) or type(objective) not in kinds:
        return None
    if type(energy) is not BilinearEnergy:
        return None
    if any(type(units) is not Bernoulli for units in energy.layers):
        return None
    if type(objective.sampler_for(energy)) is not BlockGibbs or len(transforms) > 1:
        return None
    centring = transforms[0] if transforms else None
    if centring is not None and type(centring) is not Centring:
        return None
    return CompiledPass(energy, objective, centring)
