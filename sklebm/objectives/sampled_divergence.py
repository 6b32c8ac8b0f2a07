r"""Contrastive divergence for any smooth energy: negatives from chains of any sampler.

The gradient of -log p(x) is dF(x) - E_model[dF]. The expectation is taken over where a few steps of
Langevin or Hamiltonian Monte Carlo lead from the rows, or over chains that are never reset.

G. E. Hinton, "Training products of experts by minimizing contrastive divergence", Neural
Computation 14(8), 2002; T. Tieleman, "Training restricted Boltzmann machines using approximations
to the likelihood gradient", ICML 2008; Y. Du and I. Mordatch, "Implicit generation and modeling
with energy-based models", NeurIPS 2019 (replay buffer).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from sklebm.inference.chains import Sampler, run
from sklebm.inference.hamiltonian import HMC
from sklebm.inference.independence import jump
from sklebm.objectives.base import Batch, Objective, ObjectiveState, check_count

# How fast the step size follows the acceptance: the energy changes at every update, so that a
# burn-in after which it could be held never ends.
_ADAPTATION = 0.05
_OWN_ADAPTATION = 0.1
# Share of the chains that propose a jump at each update, in few dimensions.
_JUMPS = 0.25


def difference(energy: Any, x: Tensor, negatives: Tensor) -> Tensor:
    """Mean of F over the rows minus its mean over the negatives, in one pass."""
    values = energy.free_energy(torch.cat([x, negatives]))
    difference: Tensor = values[: len(x)].mean() - values[len(x) :].mean()
    return difference


def _default_sampler() -> Sampler:
    return HMC(n_leapfrog=5)


def _check_sampler(part: Any) -> None:
    if not isinstance(part.sampler, Sampler):
        raise ValueError(
            f"{type(part).__name__}: sampler={part.sampler!r} must be a sampler, such as HMC()."
        )


@dataclass(frozen=True)
class SampledContrastiveDivergence(Objective):
    """CD-k with any sampler: negatives are k steps away from the batch itself.

    Cheap, and the chains need not find the data; but low energy far from the data, where no chain
    ever goes, stays.

    Parameters
    ----------
    sampler : HMC, MALA or Langevin, default=HMC(n_leapfrog=5)
        How a chain moves. The step size is adapted while training goes on, where the sampler has a
        target acceptance, and starts at its ``step_size``, in units of the root mean variance of
        the features.
    n_steps : int, default=1
        Number k of steps.
    """

    sampler: Sampler = field(default_factory=_default_sampler)
    n_steps: int = 1

    needs: ClassVar[tuple[str, ...]] = ("free_energy", "reference")

    def __post_init__(self) -> None:
        _check_sampler(self)
        check_count(self, "n_steps")

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """The logarithm of the step size."""
        return {"log_step": energy.reference.scale().log() + math.log(self.sampler.step_size)}

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of F over the batch minus its mean over where the chains led."""
        x = batch.x
        chains = self.sampler.resume(x, state["log_step"], energy)
        chains = run(self.sampler, generator, chains, energy, self.n_steps, _ADAPTATION)
        return difference(energy, x, chains.position), {"log_step": chains.log_step}


@dataclass(frozen=True)
class SampledPersistentContrastiveDivergence(SampledContrastiveDivergence):
    """Stochastic maximum likelihood: negatives from a buffer of chains that go on between updates.

    Parameters
    ----------
    sampler : HMC, MALA or Langevin, default=HMC(n_leapfrog=5)
        How a chain moves; its step size is adapted as in ``SampledContrastiveDivergence``.
    n_steps : int, default=1
        Steps of a chain each time that it is taken from the buffer.
    n_chains : int or None, default=None
        Chains in the buffer; None takes the batch size. Of more than that, as many as the batch
        size are drawn for each update.
    restart : float, default=0.0
        Share of the chains that begin anew at each update, from a Gaussian with mean and covariance
        of the data. Chains then reach modes that they could not, but those that have just begun are
        no draws of the model: learning pushes them up without end unless ``n_steps`` are many.
    jump : float or None, default=None
        Share of the chains that propose to jump to such a draw at each update, and do so with the
        probability that leaves the model invariant (Metropolis and Hastings). In few dimensions
        this carries chains between modes; in many, hardly any jump is accepted. None takes a
        quarter, or 4 / n_features if that is less.
    """

    n_chains: int | None = None
    restart: float = 0.0
    jump: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_chains is not None:
            check_count(self, "n_chains")
        for name in ("restart", "jump"):
            share = getattr(self, name)
            if share is None and name == "jump":
                continue
            if not isinstance(share, Real) or not 0.0 <= float(share) <= 1.0:
                raise ValueError(
                    f"{type(self).__name__}: {name}={share!r} must be a share from 0 to 1."
                )

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """Chains at draws of the reference density, so that they hold no row of X."""
        chains = energy.reference.draw(self.n_chains or batch_size, generator)
        # As many numbers as chains move at a time: later batches may have fewer rows.
        active = torch.arange(min(batch_size, len(chains)), device=chains.device)
        step = super().init_state(energy, batch_size, generator)
        # A step size for each: a chain that is stuck on a slope must find its own way out, or the
        # model goes on raising the energy where it stands.
        log_step = step["log_step"].expand(len(chains)).clone()
        return {"position": chains, "active": active, "log_step": log_step}

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean of F over the batch minus its mean over the chains that moved."""
        x = batch.x
        buffer, log_step, active = state["position"], state["log_step"], state["active"]
        whole = len(active) == len(buffer)
        if not whole:
            order = torch.randperm(len(buffer), generator=generator, device=buffer.device)
            active = order[: len(active)]
        start = self._restart(energy, buffer if whole else buffer[active], generator)
        step = log_step if whole else log_step[active]
        share = min(_JUMPS, 4.0 / x.shape[1]) if self.jump is None else self.jump
        if share:
            chains = jump(generator, start, step, energy, share)
        else:
            chains = self.sampler.resume(start, step, energy)
        chains = run(self.sampler, generator, chains, energy, self.n_steps, _OWN_ADAPTATION)
        position, steps = chains.position, chains.log_step
        if not whole:
            buffer = buffer.index_copy(0, active, position)
            steps = log_step.index_copy(0, active, steps)
        state = {"position": position if whole else buffer, "active": active, "log_step": steps}
        return difference(energy, x, position), state

    def chains(
        self, state: ObjectiveState, energy: Any, generator: torch.Generator
    ) -> Tensor | None:
        """Positions of the chains."""
        return state.get("position")

    def _restart(self, energy: Any, position: Tensor, generator: torch.Generator) -> Tensor:
        """A share of the chains at new draws of the reference density."""
        if not self.restart:
            return position
        fresh = energy.reference.draw(len(position), generator)
        uniform = torch.empty_like(position[:, 0]).uniform_(generator=generator)
        return torch.where((uniform < self.restart)[:, None], fresh, position)
