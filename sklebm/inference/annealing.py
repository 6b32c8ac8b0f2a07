r"""Annealed importance sampling of log Z for any smooth energy, from both ends.

Along F_t = (1 - t) F_0 + t F from a reference density exp(-F_0) with Z_0 = 1, chains that start at
the reference and take a Hamiltonian step at each t have weights w with E[w] = Z (Neal, 2001): the
log of their mean is too low on average. Chains that start at the model and go back have weights
with mean 1 / Z (Burda, Grosse and Salakhutdinov, 2015): minus the log of theirs is too high. The
start of the way back is where the way there ended, moved on; it is a draw of the model only as far
as the chains mix.

R. M. Neal, "Annealed importance sampling", Statistics and Computing 11, 2001; Y. Burda, R. Grosse
and R. Salakhutdinov, "Accurate and conservative estimates of MRF log-likelihood using reverse
annealing", AISTATS 2015.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sklebm.inference.ais import PartitionEstimate, summarise
from sklebm.inference.chains import ChainState, GradientSampler, run
from sklebm.inference.hamiltonian import HMC

# The step size of every temperature is learnt by a pilot run and held: weights stay unbiased.
_ADAPTATION = 0.1
_EXTRA_STEPS = 20


class _Between:
    """F_t, an energy between the reference and the model."""

    def __init__(self, energy: Any, reference: Any, t: float) -> None:
        self.energy, self.reference, self.t = energy, reference, t

    def free_energy(self, x: Tensor) -> Tensor:
        """(1 - t) F_0(x) + t F(x)."""
        start, end = self.reference.free_energy(x), self.energy.free_energy(x)
        value: Tensor = (1.0 - self.t) * start + self.t * end
        return value


def log_partition(
    energy: Any,
    reference: Any,
    generator: torch.Generator,
    *,
    n_chains: int = 100,
    n_temperatures: int = 200,
    sampler: GradientSampler | None = None,
) -> PartitionEstimate:
    """Estimate log Z of ``energy``; the interval's ends come from the two directions.

    ``low`` is three standard errors of the mean weight below the estimate there, ``high`` as many
    above the higher of both. Takes 3 n_temperatures steps of all chains. All numbers have the
    reference's floating-point type; pass double precision.
    """
    sampler = sampler or HMC(n_leapfrog=5)
    path = [_Between(energy, reference, i / n_temperatures) for i in range(n_temperatures + 1)]
    start = reference.draw(n_chains, generator)
    log_step = (sampler.step_size * reference.scale()).log()
    _, _, steps = _walk(sampler, generator, path, start, [log_step] * n_temperatures, True)
    start = reference.draw(n_chains, generator)
    rows, there, _ = _walk(sampler, generator, path, start, steps, False)
    forward = summarise(there, 0.0)
    final = sampler.resume(rows, steps[-1], path[-1])
    rows = run(sampler, generator, final, path[-1], _EXTRA_STEPS).position
    back = summarise(_walk_back(sampler, generator, path, rows, steps), 0.0)
    high = max(forward.high, -back.low)
    return PartitionEstimate(forward.value, forward.low, high, there)


def _gap(path: list[_Between], x: Tensor) -> Tensor:
    """(F - F_0) / number of temperatures: what a step along the path adds to the energy."""
    with torch.no_grad():
        ends = path[0].energy.free_energy(x) - path[0].reference.free_energy(x)
    gap: Tensor = ends / (len(path) - 1)
    return gap


def _walk(
    sampler: GradientSampler,
    generator: torch.Generator,
    path: list[_Between],
    position: Tensor,
    steps: list[Tensor],
    adapting: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """From the reference to the model: last positions, log weights, and step sizes used."""
    log_weights = torch.zeros_like(position[:, 0])
    used = []
    log_step = steps[0]
    for index, between in enumerate(path[1:]):
        log_weights = log_weights - _gap(path, position)
        chains = sampler.resume(position, log_step if adapting else steps[index], between)
        chains, info = sampler.step(generator, chains, between)
        if adapting:
            chains = sampler.adapt(chains, info, _ADAPTATION)
            log_step = chains.log_step
        used.append(chains.log_step)
        position = chains.position
    return position, log_weights, used


def _walk_back(
    sampler: GradientSampler,
    generator: torch.Generator,
    path: list[_Between],
    position: Tensor,
    steps: list[Tensor],
) -> Tensor:
    """From the model to the reference: log weights, whose mean weight is 1 / Z."""
    log_weights = torch.zeros_like(position[:, 0])
    for index in range(len(path) - 1, 0, -1):
        chains: ChainState = sampler.resume(position, steps[index - 1], path[index])
        position = sampler.step(generator, chains, path[index])[0].position
        log_weights = log_weights + _gap(path, position)
    return log_weights
