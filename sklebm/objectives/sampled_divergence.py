"""Former names of contrastive divergence with gradient-based samplers, used in old files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sklebm.inference.hamiltonian import HMC
from sklebm.inference.samplers import Sampler
from sklebm.objectives.contrastive_divergence import (
    ContrastiveDivergence,
    PersistentContrastiveDivergence,
)


@dataclass(frozen=True, init=False)
class SampledContrastiveDivergence(ContrastiveDivergence):
    """``ContrastiveDivergence`` with ``sampler`` first, under its former name.

    Parameters
    ----------
    sampler : HMC, MALA or Langevin, default=HMC(n_leapfrog=5)
        How a chain moves.
    n_steps : int, default=1
        Number k of steps.
    """

    # Its own constructor takes no second name of a setting.
    aliases: ClassVar[dict[str, str]] = {}

    def __init__(self, sampler: Sampler | None = None, n_steps: int = 1) -> None:
        super().__init__(n_steps, sampler=HMC(n_leapfrog=5) if sampler is None else sampler)


@dataclass(frozen=True, init=False)
class SampledPersistentContrastiveDivergence(PersistentContrastiveDivergence):
    """``PersistentContrastiveDivergence`` with ``sampler`` first, under its former name.

    Parameters
    ----------
    sampler : HMC, MALA or Langevin, default=HMC(n_leapfrog=5)
        How a chain moves.
    n_steps : int, default=1
        Steps of a chain each time that it is taken from the buffer.
    n_chains : int or None, default=None
        Chains in the buffer; None uses the batch size.
    restart : float, default=0.0
        Fraction of the chains that restart at each update.
    jump : float or None, default=None
        Fraction of the chains that propose to jump to a draw from the reference at each update.
    reset_above : float or None, default=5.0
        Not used by samplers that follow gradients.
    """

    aliases: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        sampler: Sampler | None = None,
        n_steps: int = 1,
        n_chains: int | None = None,
        restart: float = 0.0,
        jump: float | None = None,
        reset_above: float | None = 5.0,
    ) -> None:
        super().__init__(
            n_steps,
            n_chains,
            restart,
            jump,
            reset_above,
            sampler=HMC(n_leapfrog=5) if sampler is None else sampler,
        )
