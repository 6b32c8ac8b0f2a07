r"""A Boltzmann machine per step: E(x_t, u) = -b_t' x - c_t' u - u' W x, with biases from the past.

F(x_t) = -b_t' x - sum_j log(1 + exp(c_tj + w_j' x)), log p(x_t | past) = -F(x_t) - log Z(b_t, c_t).
Up to ``MAX_EXACT`` hidden units log Z sums over all their states; beyond, it is annealed from
independent visible units, with the same random numbers for every row, so that a row's score does
not depend on its company.

N. Boulanger-Lewandowski, Y. Bengio and P. Vincent, "Modeling temporal dependencies in
high-dimensional sequences: application to polyphonic music generation and transcription", ICML
2012.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sklebm.energies.step_outputs import StepOutput
from sklebm.energies.units import draw_bits, softplus

#: Most hidden units over whose states log Z sums.
MAX_EXACT = 20
_CHUNK_BITS = 12
#: States times visible units times rows of one block.
_MAX_ENTRIES = 2**22
_N_CHAINS = 20
_N_TEMPERATURES = 200
_N_SWEEPS = 100  # of a draw


class MachineOutput(StepOutput):
    """Bits that depend on each other through hidden units, with biases that depend on the past.

    Parameters
    ----------
    n_features : int
        Visible units.
    n_hidden : int
        Hidden units, summed out.
    """

    def __init__(self, n_features: int, n_hidden: int) -> None:
        super().__init__(n_features)
        self.n_parameters = n_features + n_hidden
        self.is_exact = n_hidden <= MAX_EXACT
        self.weights = nn.Parameter(torch.empty(n_hidden, n_features, device="meta"))

    def initialize(self, generator: torch.Generator) -> None:
        """Small random weights."""
        with torch.no_grad():
            self.weights.normal_(0.0, 0.1, generator=generator)

    def start(self, mean: Tensor) -> Tensor:
        """Log odds of the visible units, hidden biases of 0."""
        odds = torch.logit(mean.clamp(1e-3, 1.0 - 1e-3))
        return torch.cat([odds, odds.new_zeros(len(self.weights))])

    # ------------------------------------------------------------------ energies and log Z

    def free_energy(self, x: Tensor, parameters: Tensor) -> Tensor:
        """F(x_t), (n_rows,)."""
        b, c = self._biases(parameters)
        return -(b * x).sum(dim=1) - softplus(c + x @ self.weights.T).sum(dim=1)

    def _biases(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return parameters[:, : self.n_features], parameters[:, self.n_features :]

    def log_partition(self, parameters: Tensor) -> Tensor:
        """log Z of each row's machine, (n_rows,)."""
        estimate = self._enumerated if self.is_exact else self._annealed
        n_states = min(2 ** len(self.weights), 2**_CHUNK_BITS) if self.is_exact else _N_CHAINS
        block = max(1, _MAX_ENTRIES // (n_states * parameters.shape[1]))
        return torch.cat([estimate(*self._biases(part)) for part in torch.split(parameters, block)])

    def _enumerated(self, b: Tensor, c: Tensor) -> Tensor:
        """log sum_u exp(c' u + sum_i log(1 + exp(b_i + (u' W)_i))). O(2^n_hidden n_features)."""
        n_hidden = len(self.weights)
        total = torch.full_like(b[:, 0], -torch.inf)
        shifts = torch.arange(n_hidden, device=b.device)
        for start in range(0, 2**n_hidden, 2**_CHUNK_BITS):
            stop = min(start + 2**_CHUNK_BITS, 2**n_hidden)
            numbers = torch.arange(start, stop, device=b.device)
            states = ((numbers[:, None] >> shifts) & 1).to(b.dtype)
            inputs = b[:, None] + states @ self.weights
            logs = softplus(inputs).sum(dim=2) + c @ states.T
            total = torch.logaddexp(total, logs.logsumexp(dim=1))
        return total

    def _annealed(self, b: Tensor, c: Tensor) -> Tensor:
        """Annealed importance sampling from W = 0 to W, where it is known. Too low on average.

        R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief networks",
        ICML 2008.
        """
        generator = torch.Generator(device=b.device).manual_seed(0)
        shape = (_N_CHAINS, 1)
        b, c = b[None], c[None]

        def uniform(width: int) -> Tensor:
            return torch.rand(
                *shape, width, generator=generator, device=b.device, dtype=torch.float64
            ).to(b.dtype)

        x = (uniform(self.n_features) < torch.sigmoid(b)).to(b.dtype)
        log_weights = b.new_zeros(x.shape[:2])
        for index in range(_N_TEMPERATURES):
            seen = x @ self.weights.T
            low, high = index / _N_TEMPERATURES, (index + 1) / _N_TEMPERATURES
            gain = softplus(c + high * seen) - softplus(c + low * seen)
            log_weights = log_weights + gain.sum(dim=2)
            hidden = (uniform(c.shape[2]) < torch.sigmoid(c + high * seen)).to(b.dtype)
            inputs = b + high * (hidden @ self.weights)
            x = (uniform(self.n_features) < torch.sigmoid(inputs)).to(b.dtype)
        known = softplus(b[0]).sum(dim=1) + softplus(c[0]).sum(dim=1)
        return known + log_weights.logsumexp(dim=0) - math.log(_N_CHAINS)

    def log_density(self, y: Tensor, parameters: Tensor) -> Tensor:
        """-F - log Z, exact to ``MAX_EXACT`` hidden units."""
        return -self.free_energy(y, parameters) - self.log_partition(parameters)

    # ------------------------------------------------------------------ draws and means

    def sweep(self, x: Tensor, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Hidden units drawn given the visible ones, then the visible ones given these."""
        b, c = self._biases(parameters)
        hidden = draw_bits(torch.sigmoid(c + x @ self.weights.T), generator)
        return draw_bits(torch.sigmoid(b + hidden @ self.weights), generator)

    def draw(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """States of Gibbs chains that start at the visible biases."""
        x = draw_bits(torch.sigmoid(self._biases(parameters)[0]), generator)
        for _ in range(_N_SWEEPS):
            x = self.sweep(x, parameters, generator)
        return x

    def mean(self, parameters: Tensor) -> Tensor:
        """d log Z / d b, exact where log Z is; otherwise by the naive mean-field equations."""
        if self.is_exact:
            with torch.enable_grad():
                inputs = parameters.detach().requires_grad_()
                total = self.log_partition(inputs).sum()
                (gradient,) = torch.autograd.grad(total, inputs)
            return gradient[:, : self.n_features]
        b, c = self._biases(parameters)
        x = torch.sigmoid(b)
        for _ in range(_N_SWEEPS):
            x = torch.sigmoid(b + torch.sigmoid(c + x @ self.weights.T) @ self.weights)
        return x
