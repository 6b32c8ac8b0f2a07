r"""Noise-contrastive estimation of an energy with latent units, through q(z | x).

With phi(x, z) = exp(-E(x, z)) / Z and r rows of noise from p_y for each row of data,

    J(q) = E_x E_{z ~ q} log s(log[phi(x, z) / q(z | x)] - log p_y(x) - log r)
           + r E_y log s(log r + log p_y(y) - log sum_z phi(y, z)),        s(u) = 1 / (1 + e^-u),

is a lower bound of what noise-contrastive estimation maximises, by the concavity of log s(log u),
and equal to it where q is the posterior p(z | x): phi(x, z) / q(z | x) is then the same for all z.
What is minimised here is -J. The inner sum over z is exact, or estimated by importance sampling
from q. log of an average is low on average, which takes noise for less likely than it is: J is then
biased upward, is no bound, and the less so the more draws there are.

B. Rhodes and M. U. Gutmann, "Variational noise-contrastive estimation", AISTATS 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from sklebm._checks import check_choice, check_counts
from sklebm.energies.units import draw_bits
from sklebm.objectives.noise_contrastive import MarginalMasses, NoiseContrastive
from sklebm.objectives.reference_contrastive import ReferenceNoiseContrastive

InnerSum = Literal["exact", "sampled"]


def log_ratio(energy: Any, x: Tensor, z: Tensor, mean: Tensor) -> Tensor:
    """-E(x, z) - log q(z | x) for latent bits z with the means of q, both (n, K); (n,)."""
    log_q = torch.xlogy(z, mean) + torch.special.xlog1py(1.0 - z, -mean)
    result: Tensor = -energy.energy(x, z) - log_q.sum(dim=1)
    return result


def _draw_log_ratios(energy: Any, x: Tensor, n_draws: int, generator: torch.Generator) -> Tensor:
    """``log_ratio`` of draws from q = ``energy.hidden_mean``, (n_draws, n)."""
    x = x.repeat(n_draws, 1)
    with torch.no_grad():
        # q stands still while the energy moves, as the posterior does in a step of EM.
        mean = energy.hidden_mean(x)
        z = draw_bits(mean, generator)
    return log_ratio(energy, x, z, mean).view(n_draws, -1)


@dataclass(frozen=True)
class VariationalMasses(MarginalMasses):
    """What both variational objectives put in the place of the free energy."""

    n_draws: int = 1
    inner_sum: InnerSum = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "n_draws")
        check_choice(self.inner_sum, "inner_sum", get_args(InnerSum), self)

    def log_masses(
        self, energy: Any, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """log phi(x, z) / q(z | x) at draws of z, (n_draws, n), and log sum_z phi(y, z), (m,)."""
        of_data = _draw_log_ratios(energy, x, self.n_draws, generator)
        if self.inner_sum == "exact":
            return of_data, -energy.free_energy(y)
        of_noise = _draw_log_ratios(energy, y, self.n_draws, generator)
        return of_data, torch.logsumexp(of_noise, dim=0) - math.log(self.n_draws)


@dataclass(frozen=True)
class VariationalNoiseContrastive(VariationalMasses, NoiseContrastive):
    """Noise-contrastive estimation by draws of hidden units, against independent features.

    q(z | x) is ``hidden_mean`` of the energy. Where that is the posterior, as in restricted
    Boltzmann machines, the loss is the one of ``NoiseContrastive`` and its gradient the same on
    average, with the noise of the draws: there the plain objective is to be preferred. An
    energy of one's own may have a ``hidden_mean`` that only comes close.

    Parameters
    ----------
    n_noise : int, default=5
        Rows of noise for each row of data.
    n_draws : int, default=1
        Draws of the hidden units for each row.
    inner_sum : {"exact", "sampled"}, default="exact"
        The sum over hidden states at the noise: by the free energy, or by the same number of draws
        from q, which biases the loss downward where q is not the posterior.

    References
    ----------
    .. [1] B. Rhodes and M. U. Gutmann, "Variational noise-contrastive estimation", AISTATS 2019.
    """

    needs: ClassVar[tuple[str, ...]] = (*NoiseContrastive.needs, "energy", "hidden_mean")


@dataclass(frozen=True)
class VariationalReferenceNoiseContrastive(VariationalMasses, ReferenceNoiseContrastive):
    """The same against a Gaussian with the mean and covariance of the data; learns log Z.

    Parameters
    ----------
    n_noise : int, default=4
        Number of noise points for each row.
    n_draws : int, default=1
        Draws of the hidden units for each row.
    inner_sum : {"exact", "sampled"}, default="exact"
        As in ``VariationalNoiseContrastive``.

    References
    ----------
    .. [1] B. Rhodes and M. U. Gutmann, "Variational noise-contrastive estimation", AISTATS 2019.
    """

    needs: ClassVar[tuple[str, ...]] = (*ReferenceNoiseContrastive.needs, "energy", "hidden_mean")
