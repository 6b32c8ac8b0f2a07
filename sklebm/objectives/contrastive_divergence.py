r"""Push the energy down at the data and up where a few sampling steps lead.

The gradient of -log p(x) is dF(x) - E_model[dF]. Contrastive divergence replaces the model
expectation by k steps of any sampler from the data, its persistent form by chains that are never
reset.

G. E. Hinton, "Training products of experts by minimizing contrastive divergence", Neural
Computation 14(8), 2002; T. Tieleman, "Training restricted Boltzmann machines using approximations
to the likelihood gradient", ICML 2008; Y. Du and I. Mordatch, "Implicit generation and modeling
with energy-based models", NeurIPS 2019 (replay buffer); R. Liao et al., "Gaussian-Bernoulli RBMs
without tears", arXiv:2210.10318, 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm._checks import check_counts, check_number, check_share
from sklebm.energies.base import FreeEnergy, ReferencedEnergy, TwoLayerEnergy
from sklebm.energies.gradients import Gradients
from sklebm.inference.gibbs import BlockGibbs, GibbsState
from sklebm.inference.gibbs_sweeps import GibbsSweeps
from sklebm.inference.hamiltonian import HMC
from sklebm.inference.independence import jump
from sklebm.inference.samplers import Sampler, run, visible_chains
from sklebm.objectives.aliases import with_aliases
from sklebm.objectives.base import Batch, ObjectiveState
from sklebm.objectives.closed_form import ClosedFormObjective

# How fast the step size follows the acceptance rate. The energy changes at every update, so
# adaptation never ends.
_ADAPTATION = 0.05
_OWN_ADAPTATION = 0.1
# Fraction of the chains that propose a jump at each update, in few dimensions.
_JUMPS = 0.25
_MOST_ROWS = 0.9  # the share of the rows below which a chain's free energy should be
#: What an energy must provide for gradients in closed form.
CLOSED_FORM = ("hidden_field", "hidden", "free_energy_gradients")


def default_sampler(energy: Any) -> Sampler:
    """Gibbs sampling by what the units allow: in two blocks, or class by class; otherwise HMC."""
    if all(hasattr(energy, name) for name in GibbsSweeps.needs):
        return GibbsSweeps()
    smooth = hasattr(energy, "free_energy") and hasattr(energy, "reference")
    return HMC(n_leapfrog=5) if smooth and not hasattr(energy, "draw_visible") else BlockGibbs()


@with_aliases
@dataclass(frozen=True)
class ContrastiveDivergence(ClosedFormObjective):
    """CD-k: negatives are k steps of a sampler away from the batch itself.

    Biased: cheap and stable, but it can leave low energy far from the data, where no chain ever
    goes.

    Parameters
    ----------
    n_steps : int, default=1
        Number k of steps; for Boltzmann machines also called ``n_gibbs_steps``.
    sampler : Sampler or None, default=None
        How a chain moves: ``BlockGibbs()``, ``GibbsLangevin()``, ``HMC()``, ``MALA()`` or
        ``Langevin()``. None is block Gibbs for machines whose units can be drawn in turns,
        ``GibbsSweeps()`` for those on any other graph, and ``HMC(n_leapfrog=5)`` for other
        energies. If the sampler has a target acceptance rate, step sizes are adapted during
        training, starting from its ``step_size`` in units of the root mean variance of
        ``energy.reference``.
    """

    n_steps: int = 1
    sampler: Sampler | None = field(default=None, kw_only=True)

    aliases: ClassVar[dict[str, str]] = {"n_gibbs_steps": "n_steps"}

    def __post_init__(self) -> None:
        check_counts(self, "n_steps")
        if self.sampler is not None and not isinstance(self.sampler, Sampler):
            raise ValueError(
                f"{type(self).__name__}: sampler={self.sampler!r} must be a sampler, such as "
                "HMC() or GibbsLangevin(), or None to choose one that suits the energy."
            )

    # ------------------------------------------------------------------ what it needs

    def rows_needed(self) -> tuple[str | None, str]:
        """The rows that the sampler moves."""
        if self.sampler is None:
            return super().rows_needed()
        return self.sampler.domain, self.sampler.domain_reason

    def missing_from(self, energy: Any) -> list[str]:
        """The sampler's requirements, a free energy, and a reference that sets its scale."""
        sampler = self.sampler_for(energy)
        needs = [*sampler.needs, "free_energy"]
        if not sampler.alternates:
            needs.append("reference")
        return [name for name in dict.fromkeys(needs) if not hasattr(energy, name)]

    def sampler_for(self, energy: Any) -> Sampler:
        """The sampler, or the default for the energy."""
        return default_sampler(energy) if self.sampler is None else self.sampler

    def knows_gradients(self, energy: Any) -> bool:
        """True for machines with free-energy gradients in closed form."""
        return all(hasattr(energy, name) for name in CLOSED_FORM)

    def continues(self, kind: str) -> bool:
        """True for its own states, and for those stored under this objective's former settings."""
        former = f"ContrastiveDivergence(n_gibbs_steps={self.n_steps}, sampler={self.sampler!r})"
        sampled = (
            f"SampledContrastiveDivergence(sampler={self.sampler or HMC(n_leapfrog=5)!r}, "
            f"n_steps={self.n_steps})"
        )
        return kind in (repr(self), former, sampled)

    # ------------------------------------------------------------------ negatives

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """The logarithm of the step size, if there is one."""
        sampler = self.sampler_for(energy)
        log_step = getattr(sampler, "log_step_for", None)
        return {} if log_step is None else {"log_step": log_step(energy)}

    def negatives(
        self,
        energy: ReferencedEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """End points of the chains, (n, d), and the new state."""
        sampler = self.sampler_for(energy)
        if "log_step" not in state:
            chains = sampler.init(generator, batch.x, energy)
            chains = run(sampler, generator, chains, energy, self.n_steps)
            return rows_of(chains.position, batch), state
        chains = sampler.restore({"position": batch.x, **state}, energy)
        chains = run(sampler, generator, chains, energy, self.n_steps, _ADAPTATION)
        return chains.position, {"log_step": chains.log_step}

    def negative_shares(self, batch: Batch, negatives: Tensor) -> Tensor:
        """Weight of each negative in the model expectation: that of the row it starts from."""
        return batch.shares(negatives)

    # ------------------------------------------------------------------ losses

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of F over the batch minus its mean over the negatives."""
        if self.knows_gradients(energy):
            return super().loss(energy, batch, state, generator)
        negatives, state = self._detached(energy, batch, state, generator)
        return difference(energy, batch, negatives, self.negative_shares(batch, negatives)), state

    def _detached(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        with torch.no_grad():
            return self.negatives(energy, batch, state, generator)

    def gradients(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, Gradients, ObjectiveState]:
        """Mean of F over the batch minus its mean over the negatives."""
        sampler = self.sampler_for(energy)
        if isinstance(sampler, BlockGibbs):
            return self._gibbs_gradients(sampler, energy, batch, state, generator)
        v, state = self.negatives(energy, batch, state, generator)
        visible = torch.cat([batch.x, v])
        fields = energy.hidden_field(visible)
        signs = torch.cat([batch.shares(v), -self.negative_shares(batch, v)])
        mean = energy.hidden.mean(fields)
        return *energy.free_energy_gradients(visible, signs, fields, mean), state

    def _gibbs_gradients(
        self,
        sampler: BlockGibbs,
        energy: TwoLayerEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, Gradients, ObjectiveState]:
        """The same with one matrix product fewer: the fields of the rows are used twice."""
        x = batch.x
        field_data = energy.hidden_field(x)
        mean_data = energy.hidden.mean(field_data)
        h = energy.hidden.draw(mean_data, generator)
        v = sampler.moved(generator, GibbsState(x, h), energy, self.n_steps)
        field_model = energy.hidden_field(v)
        fields = torch.cat([field_data, field_model])
        mean = torch.cat([mean_data, energy.hidden.mean(field_model)])
        shares = batch.shares(x)
        signs = torch.cat([shares, -shares])
        return *energy.free_energy_gradients(torch.cat([x, v]), signs, fields, mean), state


@with_aliases
@dataclass(frozen=True)
class PersistentContrastiveDivergence(ContrastiveDivergence):
    """Stochastic maximum likelihood: negatives come from chains that persist between updates.

    Asymptotically unbiased if the learning rate falls to zero and no chain is reset; the chains
    must mix faster than the parameters move.

    Parameters
    ----------
    n_steps : int, default=1
        Steps of a chain each time that it moves; for Boltzmann machines also called
        ``n_gibbs_steps``.
    n_chains : int or None, default=None
        Number of chains; None uses the batch size. Block Gibbs and parallel tempering move all of
        them at every update. Samplers that follow gradients, which cost more, move only as many as
        the batch size, drawn from the buffer.
    restart : float, default=0.0
        Fraction of the chains that restart at each update, from draws of ``energy.reference``.
        Chains can then reach otherwise inaccessible modes, but restarted chains are not draws from
        the model: learning raises their energy without end unless ``n_steps`` is large.
    jump : float or None, default=None
        Fraction of the chains that propose to jump to such a draw at each update; acceptance leaves
        the model invariant (Metropolis-Hastings). In few dimensions this carries chains between
        modes; in many, hardly any jump is accepted. None uses a quarter, or 4 / n_features if that
        is less, for samplers that follow gradients. Block Gibbs and parallel tempering, whose
        chains move far without jumps, cannot restart or jump.
    reset_above : float or None, default=5.0
        For block Gibbs on real-valued rows: a chain whose free energy exceeds that of nine in ten
        rows of the batch by more than this, in nats, continues from one of them. Chains that fall
        behind the parameters push these in one direction until they overflow. None: never.
    sampler : Sampler or None, default=None
        How a chain moves; see ``ContrastiveDivergence``. ``ParallelTempering()`` also works.
    """

    n_chains: int | None = None
    restart: float = 0.0
    jump: float | None = None
    reset_above: float | None = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, optional=("n_chains",))
        check_share(self.restart, "restart", self)
        if self.jump is not None:
            check_share(self.jump, "jump", self)
        if self.reset_above is not None:
            check_number(self.reset_above, "reset_above", self, positive=False)

    def continues(self, kind: str) -> bool:
        """True for its own states, and for those stored under this objective's former settings."""
        former = (
            f"PersistentContrastiveDivergence(n_gibbs_steps={self.n_steps}, "
            f"sampler={self.sampler!r}, n_chains={self.n_chains})"
        )
        sampled = (
            f"SampledPersistentContrastiveDivergence(sampler="
            f"{self.sampler or HMC(n_leapfrog=5)!r}, n_steps={self.n_steps}, "
            f"n_chains={self.n_chains}, restart={self.restart}, jump={self.jump})"
        )
        without_reset = repr(replace(self, reset_above=None)).replace(", reset_above=None", "")
        return kind in (repr(self), without_reset, former, sampled)

    def chains(
        self, state: ObjectiveState, energy: Any = None, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Visible states or positions of the chains."""
        return visible_chains(state, energy, generator)

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """Chains that start at draws from the reference density, so they hold no row of X."""
        sampler, n_chains = self.sampler_for(energy), self.n_chains or batch_size
        with torch.no_grad():
            kept = sampler.keep(sampler.start(generator, n_chains, energy))
        if "position" not in kept:
            if self.restart or self.jump:
                raise ValueError(
                    f"{type(self).__name__}: restart={self.restart} and jump={self.jump} are for "
                    f"samplers that follow gradients, such as HMC(); leave them out with "
                    f"{type(sampler).__name__}()."
                )
            return kept
        # One per chain that moves at a time: later batches may have fewer rows.
        active = torch.arange(min(batch_size, n_chains), device=kept["position"].device)
        return {**kept, "active": active}

    def with_chains_at(
        self, state: ObjectiveState, rows: Tensor, energy: Any, generator: torch.Generator
    ) -> ObjectiveState:
        """``state`` with its chains moved to these rows; they keep their step sizes."""
        sampler = self.sampler_for(energy)
        kept = sampler.keep(sampler.init(generator, rows, energy))
        return {**kept, **{name: state[name] for name in ("log_step", "active") if name in state}}

    def negatives(
        self,
        energy: ReferencedEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, ObjectiveState]:
        """Rows of the chains that moved, (n, d), and the new state."""
        sampler = self.sampler_for(energy)
        if "position" not in state:
            chains = sampler.restore(state, energy)
            chains = run(sampler, generator, chains, energy, self.n_steps)
            return rows_of(chains.position, batch), sampler.keep(chains)
        buffer, log_step, active = state["position"], state["log_step"], state["active"]
        whole = len(active) == len(buffer)
        if not whole:
            order = torch.randperm(len(buffer), generator=generator, device=buffer.device)
            active = order[: len(active)]
        start = self._restarted(energy, buffer if whole else buffer[active], generator)
        step = log_step if whole else log_step[active]
        share = min(_JUMPS, 4.0 / batch.x.shape[1]) if self.jump is None else self.jump
        if share:
            chains = jump(generator, start, step, energy, share)
        else:
            chains = sampler.restore({"position": start, "log_step": step}, energy)
        chains = run(sampler, generator, chains, energy, self.n_steps, _OWN_ADAPTATION)
        position, steps = chains.position, chains.log_step
        if not whole:
            buffer = buffer.index_copy(0, active, position)
            steps = log_step.index_copy(0, active, steps)
        kept = {"position": position if whole else buffer, "active": active, "log_step": steps}
        return position, kept

    def negative_shares(self, batch: Batch, negatives: Tensor) -> Tensor:
        """All chains are weighted equally."""
        return negatives.new_full((len(negatives),), 1.0 / len(negatives))

    def _restarted(
        self, energy: ReferencedEnergy, position: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Restart a fraction of the chains at new draws from the reference density."""
        if not self.restart:
            return position
        fresh = energy.reference.draw(len(position), generator)
        uniform = torch.empty_like(position[:, 0]).uniform_(generator=generator)
        return torch.where((uniform < self.restart)[:, None], fresh, position)

    def _gibbs_gradients(
        self,
        sampler: BlockGibbs,
        energy: TwoLayerEnergy,
        batch: Batch,
        state: ObjectiveState,
        generator: torch.Generator,
    ) -> tuple[Tensor, Gradients, ObjectiveState]:
        """Data and chains share one product with the weights, the most expensive part of a step."""
        x = batch.x
        v = sampler.moved(generator, sampler.restore(state, energy), energy, self.n_steps)
        visible = torch.cat([x, v])
        fields = energy.hidden_field(visible)
        mean = energy.hidden.mean(fields)
        of_chains, source = mean[len(x) :], None
        if self.reset_above is not None and energy.visible.domain == "real":
            free_energy = energy.visible.energy(visible) - energy.hidden.cumulant(fields).sum(dim=1)
            source = caught_up(batch, free_energy, self.reset_above, generator)
            of_chains = mean[source]
        h = energy.hidden.draw(of_chains, generator)
        if "visible" in state and source is not None:  # new draws: a state holds no row of X
            v = torch.where((source < len(x))[:, None], energy.draw_visible(h, generator), v)
        kept = sampler.keep(GibbsState(v, h))
        signs = torch.cat([batch.shares(v), -self.negative_shares(batch, v)])
        return *energy.free_energy_gradients(visible, signs, fields, mean), kept


def caught_up(batch: Batch, free: Tensor, margin: float, generator: torch.Generator) -> Tensor:
    """Where chains go on, among rows and chains: those above most rows by ``margin`` at a row."""
    n_rows, n_chains = len(batch), len(free) - len(batch)
    of_rows, of_chains = free[:n_rows], free[n_rows:]
    shares = batch.shares(of_rows)
    counted = of_rows if batch.weight is None else of_rows[shares > 0]
    high = counted.kthvalue(math.ceil(_MOST_ROWS * len(counted))).values
    rows = torch.multinomial(shares, n_chains, replacement=True, generator=generator)
    return torch.where(of_chains > high + margin, rows, torch.arange(n_chains).to(rows) + n_rows)


def rows_of(position: Tensor, batch: Batch) -> Tensor:
    """The visible part of units that a chain draws together: deeper layers follow it."""
    return position[:, : batch.x.shape[1]]


def difference(energy: FreeEnergy, batch: Batch, negatives: Tensor, shares: Tensor) -> Tensor:
    """Mean of F over the rows minus that over negatives weighted by ``shares``, in one pass."""
    values = energy.free_energy(torch.cat([batch.x, negatives]))
    of_data, of_model = values[: len(batch)], values[len(batch) :]
    if batch.weight is None:
        return of_data.mean() - of_model.mean()
    return batch.mean(of_data) - shares @ of_model
