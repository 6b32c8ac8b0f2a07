r"""A path from a reference density to any smooth energy, followed by Hamiltonian Monte Carlo.

    F_t = (1 - t) F_0 + t F,      exp(-F_0) normalised: log Z_0 = 0.

The step size of every temperature is learnt by a pilot run from the reference to the model and held
from then on, so that the kernels are reversible and weights stay unbiased.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sklebm.inference.chains import GradientSampler, run
from sklebm.inference.hamiltonian import HMC

_BASE_ROWS = 1000  # draws from each candidate for the base
_STRETCHES = (0.25, 0.5, 2.0, 4.0)
_PILOT_STEPS, _PILOT_CHAINS, _PILOT_RATE = 60, 20, 0.3


class _Between:
    """F_t, an energy between the reference and the model; t is a number or one for each row."""

    def __init__(self, energy: Any, reference: Any, t: Any) -> None:
        self.energy, self.reference, self.t = energy, reference, t

    def free_energy(self, x: Tensor) -> Tensor:
        """(1 - t) F_0(x) + t F(x)."""
        start, end = self.reference.free_energy(x), self.energy.free_energy(x)
        value: Tensor = (1.0 - self.t) * start + self.t * end
        return value


def nearest_base(energy: Any, generator: torch.Generator, *, covering: bool) -> Any:
    """The density to test log Z with, or with ``covering`` to anneal from: that of tightest bound.

    log Z >= E_q[-F - log q] for every density q (Gibbs' inequality), and the gap is the divergence
    of the model from q. Candidates are the energy's reference, copies of it that are wider or
    narrower, and the energy's own Gaussian factor: rows need not fill the room that an energy
    leaves. The reference stays unless another one is better beyond the error of the estimate.

    A q inside one of several modes may well be the nearest, but chains that start there miss the
    others. With ``covering``, candidates are at least as wide as the reference.
    """
    reference = energy.reference
    if not hasattr(reference, "stretched"):
        return reference
    candidates = [reference.stretched(factor) for factor in _STRETCHES]
    own = energy.gaussian_factor() if hasattr(energy, "gaussian_factor") else None
    candidates += [own] if own is not None else []
    if covering:
        candidates = [q for q in candidates if bool(q.scale() >= reference.scale())]
    # Draws of their own: those of the path do not depend on how many candidates there are.
    draws = torch.Generator(generator.device).manual_seed(generator.initial_seed() + 1)
    best, (bound, _) = reference, _bound(energy, reference, draws)
    for candidate in candidates:
        found, error = _bound(energy, candidate, draws)
        if found - 3.0 * error > bound:
            best, bound = candidate, found
    return best


def _bound(energy: Any, density: Any, generator: torch.Generator) -> tuple[float, float]:
    """E_q[-F - log q] and its standard error."""
    with torch.no_grad():
        x = density.draw(_BASE_ROWS, generator)
        gaps = density.free_energy(x) - energy.free_energy(x)
    return float(gaps.mean()), float(gaps.std()) / _BASE_ROWS**0.5


class HamiltonianPath:
    """The densities between a reference and an energy.

    Parameters
    ----------
    energy : object
        The energy at t = 1, with a ``free_energy`` that has a gradient.
    reference : object
        The density at t = 0: ``free_energy``, ``draw`` and ``scale``.
    generator : torch.Generator
        Draws of the pilot run.
    sampler : GradientSampler or None
        How chains move; None takes trajectories of five leapfrog steps.
    """

    def __init__(
        self,
        energy: Any,
        reference: Any,
        generator: torch.Generator,
        sampler: GradientSampler | None = None,
    ) -> None:
        self.energy, self.reference = energy, reference
        self.sampler = sampler or HMC(n_leapfrog=5)
        self.like = reference.draw(1, generator)[0]
        # Many paths only compare densities. Draws of its own let the pilot run wait for a move.
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        self._pilot = torch.Generator(generator.device).manual_seed(int(seed))

    @cached_property
    def log_steps(self) -> Tensor:
        """Logarithms of the step sizes at equally spaced temperatures, (_PILOT_STEPS,)."""
        generator = self._pilot
        position = self.reference.draw(_PILOT_CHAINS, generator)
        log_step = (self.sampler.step_size * self.reference.scale()).log()
        steps = []
        for index in range(_PILOT_STEPS):
            between = _Between(self.energy, self.reference, index / (_PILOT_STEPS - 1))
            chains = self.sampler.resume(position, log_step, between)
            chains = run(self.sampler, generator, chains, between, 1, _PILOT_RATE)
            position, log_step = chains.position, chains.log_step
            steps.append(log_step)
        return torch.stack(steps)

    def log_z0(self) -> float:
        """log Z at t = 0."""
        return 0.0

    def draw_base(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws of the reference, (n_rows, d)."""
        draws: Tensor = self.reference.draw(n_rows, generator)
        return draws

    def log_base_density(self, x: Tensor) -> Tensor:
        """log of the reference, (n_rows,)."""
        density: Tensor = -self.reference.free_energy(x)
        return density

    def observe(self, v: Tensor) -> Tensor:
        """F - F_0 of each row, (n_rows,)."""
        with torch.no_grad():
            gap: Tensor = self.energy.free_energy(v) - self.reference.free_energy(v)
        return gap

    def log_weight(self, v: Tensor, seen: Tensor, start: Any, stop: Any) -> Tensor:
        """log p*_stop(v) - log p*_start(v), (n_rows,); ``seen`` is ``observe(v)``."""
        change = stop - start
        weight: Tensor = -(change[:, 0] if isinstance(change, Tensor) else change) * seen
        return weight

    def move(self, v: Tensor, seen: Tensor, t: Any, generator: torch.Generator) -> Tensor:
        """Follow one trajectory at t from every row."""
        if isinstance(t, Tensor):
            t = t[:, 0]
            place = (t * (_PILOT_STEPS - 1)).round().long()
            log_step = self.log_steps[place]
        else:
            log_step = self.log_steps[round(t * (_PILOT_STEPS - 1))]
        between = _Between(self.energy, self.reference, t)
        chains = self.sampler.resume(v, log_step, between)
        position: Tensor = self.sampler.step(generator, chains, between)[0].position
        return position


def from_nearest(path: Any, generator: torch.Generator) -> Any:
    """The path, or one of this kind from the density with the tightest bound on log Z."""
    if not isinstance(path, HamiltonianPath):
        return path
    base = nearest_base(path.energy, generator, covering=False)
    return HamiltonianPath(path.energy, base, generator)
