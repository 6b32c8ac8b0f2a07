r"""E(x, z) = -log p(x | z) - log p(z); F(x) = -log p(x) is its sum over z, here by sampling.

    log p(x) >= E_q log (1/K) sum_k p(x, z_k) / q(z_k | x),    z_k ~ q(z | x),

the importance-weighted bound, rises with K to log p(x); K = 1 is the evidence lower bound
E_q log p(x | z) - KL(q(z | x) || p(z)).

D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014; Y. Burda, R. Grosse and
R. Salakhutdinov, "Importance weighted autoencoders", ICLR 2016.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sklebm.energies.binary_states import binary_states, chunk_of_states
from sklebm.energies.likelihoods import Likelihood
from sklebm.energies.posteriors import (
    BernoulliPosterior,
    DiagonalGaussian,
    FullGaussian,
    GaussianPosterior,
)
from sklebm.energies.standardization import Standardization
from sklebm.energies.units import softplus

_LOG_2PI = math.log(2.0 * math.pi)


class LatentVariableEnergy(nn.Module, ABC):
    """A decoder with a likelihood and a prior, and an encoder that proposes latents.

    Parameters
    ----------
    encoder : Module
        Rows to the parameters of q(z | x).
    decoder : Module
        Latents to the parameters of p(x | z).
    likelihood : BernoulliLikelihood or GaussianLikelihood
        Interpretation of those parameters.
    n_components : int
        Number of latents.

    Attributes
    ----------
    standardization : Standardization or None
        Applied to rows before the networks. None during training, when rows are standardised
        already.
    log_volume : float
        Logarithm of the product of the scales that rows were divided by, so that densities refer to
        the original rows.
    """

    standardization: Standardization | None

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, likelihood: Likelihood, n_components: int
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.n_components = n_components
        self.standardization = None
        self.log_volume = 0.0

    # ------------------------------------------------------------------ of each kind of latent

    @abstractmethod
    def posterior(self, x: Tensor) -> Any:
        """q(z | x) of each row."""

    @abstractmethod
    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), shape (..., n_rows)."""

    @abstractmethod
    def draw_noise(self, *shape: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Noise that a posterior turns into draws, shape (*shape, n_components)."""

    @abstractmethod
    def shape_noise(self, uniform: Tensor) -> Tensor:
        """Noise as a monotone function of numbers in (0, 1)."""

    @abstractmethod
    def draw_prior(self, n_rows: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Latents from p(z), shape (n_rows, n_components)."""

    # ------------------------------------------------------------------ rows and latents

    def standardized(self, x: Tensor) -> Tensor:
        """The networks' view of the rows."""
        y: Tensor = x if self.standardization is None else self.standardization(x)
        return y

    def posterior_parameters(self, x: Tensor) -> Tensor:
        """The encoder's outputs, which describe q(z | x)."""
        outputs: Tensor = self.encoder(self.standardized(x))
        return outputs

    def encode(self, x: Tensor) -> Tensor:
        """Mean of q(z | x), shape (n_rows, n_components)."""
        mean: Tensor = self.posterior(x).mean
        return mean

    def decode(self, z: Tensor) -> Tensor:
        """E[x | z], shape (n_rows, n_features)."""
        return self._in_units_of_rows(self.likelihood.mean(self.decoder(z)))

    def draw(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """A row from p(x | z) for each latent, shape (n_rows, n_features)."""
        return self._in_units_of_rows(self.likelihood.draw(self.decoder(z), generator))

    def _in_units_of_rows(self, y: Tensor) -> Tensor:
        return y if self.standardization is None else self.standardization.restore(y)

    def reconstruct(self, x: Tensor) -> Tensor:
        """E[x | z] at the posterior mean, shape (n_rows, n_features)."""
        return self.decode(self.encode(x))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) for z of shape (..., n_rows, n_components), shape (..., n_rows)."""
        decoded = self.decoder(z.reshape(-1, z.shape[-1])).reshape(*z.shape[:-1], -1)
        return self.likelihood.log_density(self.standardized(x), decoded) - self.log_volume

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) = -log p(x, z), shape (..., n_rows)."""
        return -self.log_likelihood(x, z) - self.log_prior(z)

    # ------------------------------------------------------------------ bounds

    def log_weights(self, x: Tensor, q: Any, z: Tensor) -> Tensor:
        """log p(x, z) - log q(z | x), shape (..., n_rows)."""
        weights: Tensor = self.log_likelihood(x, z) + self.log_prior(z) - q.log_density(z)
        return weights

    def lower_bound(self, x: Tensor, noise: Tensor) -> Tensor:
        """Evidence lower bound of each row, averaged over ``noise``, shape (n_rows,).

        ``noise`` is (n_samples, n_components), the same for all rows, or (n_samples, n_rows,
        n_components); the divergence is exact.
        """
        q = self.posterior(x)
        z = q.draw(noise[:, None] if noise.ndim == 2 else noise)
        bound: Tensor = self.log_likelihood(x, z).mean(dim=0) - q.divergence().sum(dim=1)
        return bound

    def log_marginal(self, x: Tensor, noise: Tensor, block: int) -> Tensor:
        """Importance-weighted log p(x), shape (n_rows,).

        ``noise`` is (n_samples, n_components), the same for all rows, or (n_samples, n_rows,
        n_components); ``block`` samples are decoded at a time.
        """
        shaped = noise[:, None] if noise.ndim == 2 else noise
        return self.importance_sample(x, torch.split(shaped, block))[0]

    def importance_sample(self, x: Tensor, noise: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Importance-weighted log p(x), and its effective number of draws.

        The latter is (sum_k w_k)^2 / sum_k w_k^2 for the weights w_k = p(x, z_k) / q(z_k | x): all
        draws if q is the posterior, and close to 1 if a single one dominates. ``noise`` comes in
        blocks of shape (n_samples, n_rows or 1, n_components). Both shapes (n_rows,).
        """
        q = self.posterior(x)
        total, squares = (x.new_full((len(x),), -math.inf) for _ in range(2))
        n_samples = 0
        for block in noise:
            weights = self.log_weights(x, q, q.draw(block))
            total = torch.logaddexp(total, torch.logsumexp(weights, dim=0))
            squares = torch.logaddexp(squares, torch.logsumexp(2.0 * weights, dim=0))
            n_samples += len(block)
        return total - math.log(n_samples), (2.0 * total - squares).exp()


class GaussianLatentEnergy(LatentVariableEnergy):
    """Latents with the prior N(0, I) and a Gaussian posterior.

    Parameters
    ----------
    encoder, decoder : Module
        See the base class.
    likelihood : BernoulliLikelihood or GaussianLikelihood
        See the base class.
    n_components : int
        Number of latents.
    family : DiagonalGaussian or FullGaussian
        Class of the posterior.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        n_components: int,
        family: type[DiagonalGaussian] | type[FullGaussian] = DiagonalGaussian,
    ) -> None:
        super().__init__(encoder, decoder, likelihood, n_components)
        self.family = family

    def posterior(self, x: Tensor) -> GaussianPosterior:
        """q(z | x) of each row."""
        return self.family.unpack(self.posterior_parameters(x))

    def reparametrize(self, q: GaussianPosterior, noise: Tensor) -> Tensor:
        """Draws that are differentiable in the posterior's parameters."""
        return q.draw(noise)

    def log_prior(self, z: Tensor) -> Tensor:
        """log N(z; 0, I), shape (..., n_rows)."""
        return -0.5 * (z.square() + _LOG_2PI).sum(dim=-1)

    def draw_noise(self, *shape: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Standard normal numbers."""
        return like.new_empty(*shape, self.n_components).normal_(generator=generator)

    def shape_noise(self, uniform: Tensor) -> Tensor:
        """The normal quantiles."""
        quantiles: Tensor = torch.special.ndtri(uniform)
        return quantiles

    def draw_prior(self, n_rows: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Standard normal numbers, shape (n_rows, n_components)."""
        return self.draw_noise(n_rows, generator=generator, like=like)


class BernoulliLatentEnergy(LatentVariableEnergy):
    """Latents in {0, 1}, independent under the prior (learned log odds) and the posterior.

    Parameters
    ----------
    encoder, decoder : Module
        See the base class.
    likelihood : BernoulliLikelihood or GaussianLikelihood
        See the base class.
    n_components : int
        Number of latents.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, likelihood: Likelihood, n_components: int
    ) -> None:
        super().__init__(encoder, decoder, likelihood, n_components)
        self.prior_logits = nn.Parameter(torch.zeros(n_components))

    def posterior(self, x: Tensor) -> BernoulliPosterior:
        """q(z | x) of each row."""
        return BernoulliPosterior(self.posterior_parameters(x), self.prior_logits)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), shape (..., n_rows)."""
        return (z * self.prior_logits - softplus(self.prior_logits)).sum(dim=-1)

    def draw_noise(self, *shape: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1)."""
        return like.new_empty(*shape, self.n_components).uniform_(generator=generator)

    def shape_noise(self, uniform: Tensor) -> Tensor:
        """The numbers themselves."""
        return uniform

    def draw_prior(self, n_rows: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """States from p(z), shape (n_rows, n_components)."""
        noise = self.draw_noise(n_rows, generator=generator, like=like)
        return (noise < torch.sigmoid(self.prior_logits)).to(like.dtype)

    def states(self, like: Tensor) -> Tensor:
        """All states of the latents, shape (2^n_components, n_components)."""
        return chunk_of_states(0, self.n_components, like, 2**self.n_components)

    def exact_log_marginal(self, x: Tensor, block: int) -> Tensor:
        """log p(x), summed over all states, shape (n_rows,). O(2^k n d)."""
        total = x.new_full((len(x),), -math.inf)
        for states in binary_states(self.n_components, x, block):
            table = self.log_likelihood_table(x, states)
            part = torch.logsumexp(table + self.log_prior(states)[:, None], dim=0)
            total = torch.logaddexp(total, part)
        return total

    def log_likelihood_table(self, x: Tensor, states: Tensor) -> Tensor:
        """log p(x_n | z_s) of all rows for all states, shape (n_states, n_rows)."""
        decoded = self.decoder(states)
        table = self.likelihood.log_density_table(self.standardized(x), decoded)
        return table - self.log_volume
