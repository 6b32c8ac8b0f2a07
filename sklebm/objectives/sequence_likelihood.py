r"""Shape the energy of each step given its past: by likelihood, or by contrast with Gibbs draws.

Maximum likelihood lowers -log p(x_t | x_1 ... x_{t-1}), row by row. Where log p needs a sum over
many states, contrastive divergence lowers F(x_t) - F(v_t) instead, with v_t drawn by a few Gibbs
steps that start at x_t.

Both may leave out a random share of the past in every update (dropout), of its values and of the
features made of them, which keeps a network from leaning on single ones.

N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever and R. Salakhutdinov, "Dropout: a simple way
to prevent neural networks from overfitting", Journal of Machine Learning Research 15, 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm.energies.next_step import lengths_of
from sklebm.objectives.base import Batch, Objective, ObjectiveState


@dataclass(frozen=True)
class SequenceLikelihood(Objective):
    """Mean of -log p(x_t | past) over the rows.

    Parameters
    ----------
    dropout : float, default=0.0
        Share of the features of the past that are left out, and half of it of the values of its
        steps.
    """

    dropout: float = 0.0

    needs: ClassVar[tuple[str, ...]] = ("walk", "log_density_given")
    is_stochastic: ClassVar[bool] = False
    loss_is_comparable: ClassVar[bool] = True

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Rows of weight 0 only prepare the state."""
        y = energy.standardized(batch.x)
        past = remembered(energy, y, batch.groups, self.dropout, generator)
        return -batch.mean(energy.log_density_given(y, past)), state

    def varies_on(self, x: Tensor) -> bool:
        """Only features that are left out change the loss of a row."""
        return self.dropout > 0.0


@dataclass(frozen=True)
class SequenceContrast(Objective):
    """Mean of F(x_t) - F(v_t), with v_t by ``n_steps`` Gibbs steps from x_t.

    Rows between 0 and 1 are drawn as bits for the machine; the past is seen as it is.

    Parameters
    ----------
    n_steps : int, default=10
        Gibbs steps.
    dropout : float, default=0.0
        Share of the features of the past that are left out, and half of it of the values of its
        steps.
    """

    n_steps: int = 10
    dropout: float = 0.0

    needs: ClassVar[tuple[str, ...]] = ("walk", "readout", "output")

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """The difference of free energies; its value measures nothing."""
        past = remembered(energy, batch.x, batch.groups, self.dropout, generator)
        parameters = energy.readout(past)
        machine = energy.output
        with torch.no_grad():
            v = torch.empty_like(batch.x).uniform_(generator=generator).lt_(batch.x)
            given = parameters.detach()
            for _ in range(self.n_steps):
                v = machine.sweep(v, given, generator)
        gaps = machine.free_energy(batch.x, parameters) - machine.free_energy(v, parameters)
        return batch.mean(gaps), state


def remembered(
    energy: Any, y: Tensor, groups: Tensor | None, dropout: float, generator: torch.Generator
) -> Tensor:
    """Features of the past of each row, of which a share is left out, and half of it of its values.

    Values that are left out are gone for all later steps, features for one.
    """
    seen = with_dropout(y, 0.5 * dropout, generator)
    past = energy.walk(seen, lengths_of(groups, len(y))).past
    return with_dropout(past, dropout, generator)


def with_dropout(features: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Features of which a share is 0, and the others larger, so that their mean stays."""
    if share == 0.0:
        return features
    kept = torch.empty_like(features).uniform_(generator=generator).ge_(share)
    return features * (kept / (1.0 - share))
