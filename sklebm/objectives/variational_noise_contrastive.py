r"""Noise-contrastive estimation of an energy with latent units, through q(z | x).

With phi(x, z) = exp(-E(x, z)) / Z and r rows of noise from p_y for each row of data,

    J(q) = E_x E_{z ~ q} log s(log[phi(x, z) / q(z | x)] - log p_y(x) - log r)
           + r E_y log s(log r + log p_y(y) - log sum_z phi(y, z)),        s(u) = 1 / (1 + e^-u),

is a lower bound on what noise-contrastive estimation maximises, by the concavity of log s(log u).
The gap is an f-divergence between q and the posterior: with the odds o(x) = phi(x) / (r p_y(x)),

    J_NCE - J(q) = E_x sum_z q(z | x) [log(1 + q(z | x) / (p(z | x) o(x))) - log(1 + 1 / o(x))],

which vanishes where q is the posterior p(z | x): phi(x, z) / q(z | x) is then the same for all z.
If the posterior is not available, q has its own parameters, which also maximise J: by
reparametrised draws for real-valued latents, by the score function for bits, with the mean of the
other draws as the baseline of each.

The loss is -J. The inner sum over z is exact, or estimated by importance sampling from q, whose
parameters are held fixed there. The log of an average is low on average, which makes noise look
less likely than it is: J is then biased upward and is not a bound. The bias shrinks with the
number of draws.

B. Rhodes and M. U. Gutmann, "Variational noise-contrastive estimation", AISTATS 2019; W. Kool, H.
van Hoof and M. Welling, "Buy 4 REINFORCE samples, get a baseline for free!", ICLR workshop 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from sklebm._checks import check_choice, check_counts
from sklebm.energies.base import AmortizedPosterior, LatentEnergy, PosteriorEnergy
from sklebm.energies.units import draw_bits
from sklebm.objectives.noise_contrastive import NoiseContrastive

InnerSum = Literal["exact", "sampled"]


def log_ratio(energy: LatentEnergy, x: Tensor, z: Tensor, mean: Tensor) -> Tensor:
    """-E(x, z) - log q(z | x) for latent bits z with the means of q, both (n, K); (n,)."""
    log_q = torch.xlogy(z, mean) + torch.special.xlog1py(1.0 - z, -mean)
    result: Tensor = -energy.energy(x, z) - log_q.sum(dim=1)
    return result


def _given(energy: PosteriorEnergy, x: Tensor, n_draws: int, generator: torch.Generator) -> Tensor:
    """``log_ratio`` of draws from q = ``energy.hidden_mean``, (n_draws, n)."""
    x = x.repeat(n_draws, 1)
    with torch.no_grad():
        # q is held fixed while the energy is updated, like the posterior in a step of EM.
        mean = energy.hidden_mean(x)
        z = draw_bits(mean, generator)
    return log_ratio(energy, x, z, mean).view(n_draws, -1)


def _learnt(
    energy: AmortizedPosterior, x: Tensor, n_draws: int, generator: torch.Generator, *, moves: bool
) -> tuple[Tensor, Tensor]:
    """log phi(x, z) / q(z | x) and log q(z | x) of draws from ``energy.posterior``, (n_draws, n).

    ``moves`` is False if the parameters of q are held fixed.
    """
    q = energy.posterior(x)
    if not moves:
        q = q.detach()
    noise = energy.draw_noise(n_draws, len(x), generator=generator, like=x)
    z = q.draw(noise)
    log_q: Tensor = q.log_density(z)
    rows = x.repeat(n_draws, 1)
    value = -energy.energy(rows, z.flatten(0, 1)).view(n_draws, -1)
    return value - log_q, log_q


@dataclass(frozen=True)
class VariationalNoiseContrastive(NoiseContrastive):
    """Noise-contrastive estimation with draws of the hidden units.

    q(z | x) is ``posterior(x)`` of an energy that learns it, such as an ``AmortizedEnergy``;
    otherwise it is given by ``hidden_mean``. If that is the true posterior, as in restricted
    Boltzmann machines, the loss equals that of ``NoiseContrastive`` and so does its gradient on
    average, plus the noise of the draws: the plain objective is then preferable.

    Parameters
    ----------
    n_noise : int or None, default=None
        Rows of noise for each row of data; None is 5 for machines and 4 for other energies.
    n_draws : int, default=1
        Draws of the hidden units per row; at least 2 for bits whose q is learnt.
    inner_sum : {"exact", "sampled"}, default="exact"
        The sum over hidden states at the noise: by the free energy, or by the same number of draws
        from q, which biases the loss downward if q is not the posterior.
    noise : {"auto", "independent", "tree", "mixture"}, default="auto"
        As in ``NoiseContrastive``.

    References
    ----------
    .. [1] B. Rhodes and M. U. Gutmann, "Variational noise-contrastive estimation", AISTATS 2019.
    """

    n_draws: int = 1
    inner_sum: InnerSum = "exact"

    needs: ClassVar[tuple[str, ...]] = ("energy",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "n_draws")
        check_choice(self.inner_sum, "inner_sum", get_args(InnerSum), self)

    def missing_from(self, energy: Any) -> list[str]:
        """What the plain objective needs if the inner sum is exact, and a posterior."""
        missing = super().missing_from(energy)
        if not hasattr(energy, "posterior") and not hasattr(energy, "hidden_mean"):
            missing.append("hidden_mean")
        if self.inner_sum == "exact" and not hasattr(energy, "free_energy"):
            missing.append("free_energy")
        return list(dict.fromkeys(missing))

    def log_masses(
        self, energy: Any, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """log phi(x, z) / q(z | x) at draws of z, (n_draws, n), and log sum_z phi(y, z), (m,)."""
        learns = hasattr(energy, "posterior")
        log_draws = None
        if learns:
            of_data, log_q = _learnt(energy, x, self.n_draws, generator, moves=True)
            if not energy.is_reparametrized:
                log_draws = log_q
                if self.n_draws < 2:
                    raise ValueError(
                        f"{type(self).__name__}: n_draws={self.n_draws} must be at least 2 for "
                        "latent bits whose posterior is learnt: each draw is compared with others."
                    )
        else:
            of_data = _given(energy, x, self.n_draws, generator)
        if self.inner_sum == "exact":
            return of_data, -energy.free_energy(y), log_draws
        if learns:
            of_noise, _ = _learnt(energy, y, self.n_draws, generator, moves=False)
        else:
            of_noise = _given(energy, y, self.n_draws, generator)
        return of_data, torch.logsumexp(of_noise, dim=0) - math.log(self.n_draws), log_draws


@dataclass(frozen=True)
class VariationalReferenceNoiseContrastive(VariationalNoiseContrastive):
    """``VariationalNoiseContrastive`` for an energy with a reference, under its former name.

    Parameters
    ----------
    n_noise : int, default=4
        Number of noise points for each row.
    n_draws : int, default=1
        Draws of the hidden units for each row.
    inner_sum : {"exact", "sampled"}, default="exact"
        As in ``VariationalNoiseContrastive``.
    noise : {"auto", "independent", "tree", "mixture"}, default="auto"
        Has no effect: the noise is ``energy.reference``.
    """

    n_noise: int = 4

    needs: ClassVar[tuple[str, ...]] = ("energy", "reference", "log_partition")
