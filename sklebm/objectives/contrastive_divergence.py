r"""Push the energy down at the data and up where a few sampling steps lead.

The gradient of -log p(v) is dF(v) - E_model[dF]. Contrastive divergence replaces the model
expectation by k Gibbs steps from the data, its persistent form by chains that are never reset. Real
valued rows may move by Gibbs-Langevin steps instead.

G. E. Hinton, "Training products of experts by minimizing contrastive divergence", Neural
Computation 14(8), 2002; T. Tieleman, "Training restricted Boltzmann machines using approximations
to the likelihood gradient", ICML 2008; R. Liao et al., "Gaussian-Bernoulli RBMs without tears",
arXiv:2210.10318, 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm.energies.gradients import Gradients
from sklebm.inference.gibbs import GibbsState
from sklebm.inference.gibbs_langevin import GibbsLangevin
from sklebm.objectives.base import Batch, ObjectiveState, check_count
from sklebm.objectives.closed_form import ClosedFormObjective

NEEDS = (
    "draw_visible",
    "draw_hidden",
    "hidden_field",
    "hidden",
    "free_energy_gradients",
)


@dataclass(frozen=True)
class _GibbsDivergence(ClosedFormObjective):
    """What both forms share: how many steps the chains take, and of which kind."""

    n_gibbs_steps: int = 1
    sampler: GibbsLangevin | None = field(default=None, kw_only=True)

    needs: ClassVar[tuple[str, ...]] = NEEDS

    def __post_init__(self) -> None:
        check_count(self, "n_gibbs_steps")
        if self.sampler is not None and not isinstance(self.sampler, GibbsLangevin):
            raise ValueError(
                f"{type(self).__name__}: sampler={self.sampler!r} must be a GibbsLangevin(), or "
                "None for block Gibbs."
            )

    def rows_needed(self) -> tuple[str | None, str]:
        """Real-valued rows, if the chains take Langevin steps."""
        if self.sampler is None:
            return super().rows_needed()
        return "real", "moves them by Langevin steps"

    def _moved(self, energy: Any, chains: ObjectiveState, generator: torch.Generator) -> Tensor:
        """Visible states after ``n_gibbs_steps``, the hidden ones of the last not yet drawn."""
        h = chains["hidden"]
        v: Any = chains.get("visible")
        for step in range(self.n_gibbs_steps):
            if step:
                h = energy.draw_hidden(v, generator)
            if self.sampler is None:
                v = energy.draw_visible(h, generator)
            else:
                v, _info = self.sampler.move_visible(generator, GibbsState(v, h), energy)
        moved: Tensor = v
        return moved


@dataclass(frozen=True)
class ContrastiveDivergence(_GibbsDivergence):
    """CD-k: negatives are k block Gibbs steps away from the batch itself.

    Biased: cheap and stable, but it can leave low energy far from the data, where no
    chain ever goes.

    Parameters
    ----------
    n_gibbs_steps : int, default=1
        Number k of Gibbs steps.
    sampler : GibbsLangevin or None, default=None
        How real-valued visible units move; None draws them anew, which is block Gibbs.
    """

    def gradients(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, Gradients, ObjectiveState]:
        """Mean of F over the batch minus its mean over the reconstructions."""
        x = batch.x
        field_data = energy.hidden_field(x)
        mean_data = energy.hidden.mean(field_data)
        h = energy.hidden.draw(mean_data, generator)
        v = self._moved(energy, {"visible": x, "hidden": h}, generator)
        field_model = energy.hidden_field(v)
        fields = torch.cat([field_data, field_model])
        mean = torch.cat([mean_data, energy.hidden.mean(field_model)])
        signs = signs_of(len(x), len(v), x)
        return *energy.free_energy_gradients(torch.cat([x, v]), signs, fields, mean), state


@dataclass(frozen=True)
class PersistentContrastiveDivergence(_GibbsDivergence):
    """Stochastic maximum likelihood: negatives come from chains that go on between steps.

    Asymptotically unbiased if the learning rate falls to zero; the chains must mix faster than
    the parameters move.

    Parameters
    ----------
    n_gibbs_steps : int, default=1
        Gibbs steps of every chain per update.
    n_chains : int or None, default=None
        Number of chains; None takes the batch size.
    sampler : GibbsLangevin or None, default=None
        How real-valued visible units move; None draws them anew, which is block Gibbs.
    """

    n_chains: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_chains is not None:
            check_count(self, "n_chains")

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """Start the chains from the visible units' base rate, so that they hold no row of X."""
        n_chains = self.n_chains or batch_size
        mean = energy.visible.mean(energy.visible.bias.detach()).expand(n_chains, -1).contiguous()
        with torch.no_grad():
            v = energy.visible.draw(mean, generator)
            return self._chains(v, energy.draw_hidden(v, generator))

    def gradients(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, Gradients, ObjectiveState]:
        """Mean of F over the batch minus its mean over the chains."""
        x = batch.x
        v = self._moved(energy, state, generator)
        # Data and chains share one product with the weights, the costly part of a step.
        visible = torch.cat([x, v])
        fields = energy.hidden_field(visible)
        mean = energy.hidden.mean(fields)
        state = self._chains(v, energy.hidden.draw(mean[len(x) :], generator))
        signs = signs_of(len(x), len(v), x)
        return *energy.free_energy_gradients(visible, signs, fields, mean), state

    def chains(
        self, state: ObjectiveState, energy: Any, generator: torch.Generator
    ) -> Tensor | None:
        """Visible states given the hidden ones of the chains."""
        hidden = state.get("hidden")
        return None if hidden is None else energy.draw_visible(hidden, generator)

    def _chains(self, v: Tensor, h: Tensor) -> ObjectiveState:
        """What the next update goes on from: block Gibbs forgets the visible states."""
        return {"hidden": h} if self.sampler is None else {"visible": v, "hidden": h}


def signs_of(n_data: int, n_model: int, like: Tensor) -> Tensor:
    """1/n for each data row, then -1/m for each model row."""
    signs = like.new_full((n_data + n_model,), 1.0 / n_data)
    signs[n_data:] = -1.0 / n_model
    return signs
