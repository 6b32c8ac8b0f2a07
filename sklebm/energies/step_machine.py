r"""A Boltzmann machine per step: E(x_t, u) = -b_t' x - c_t' u - u' W x, with biases from the past.

F(x_t) = -b_t' x - sum_j log(1 + exp(c_tj + w_j' x)), log p(x_t | past) = -F(x_t) - log Z(b_t, c_t).
Up to ``MAX_EXACT`` hidden units, log Z and the mean of x_t sum over all their states; beyond, both
come from chains that are annealed from independent visible units, with the same random numbers for
every row, so that a row's score does not depend on its company.

N. Boulanger-Lewandowski, Y. Bengio and P. Vincent, "Modeling temporal dependencies in
high-dimensional sequences: application to polyphonic music generation and transcription", ICML
2012.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sklebm.energies.step_outputs import StepOutput
from sklebm.energies.units import draw_bits, softplus

#: Most hidden units over whose states log Z sums.
MAX_EXACT = 20
_CHUNK_BITS = 12
#: States times units times rows of one block.
_MAX_ENTRIES = 2**22
_N_CHAINS = 20
_N_TEMPERATURES = 200
_N_SWEEPS = 100  # of a draw, and of a mean beyond ``MAX_EXACT``


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
        return self._by_block(self._enumerated if self.is_exact else self._annealed, parameters)

    def _by_block(self, answer: Callable[[Tensor, Tensor], Tensor], parameters: Tensor) -> Tensor:
        """Answers for a few rows at a time, with ``_MAX_ENTRIES`` values per temporary tensor."""
        n_states = self._states_at_once() if self.is_exact else _N_CHAINS
        block = max(1, _MAX_ENTRIES // (n_states * parameters.shape[1]))
        return torch.cat([answer(*self._biases(part)) for part in torch.split(parameters, block)])

    def _states_at_once(self) -> int:
        n_hidden: int = self.weights.shape[0]
        most = max(1, _MAX_ENTRIES // (self.n_features + n_hidden))
        return min(1 << min(n_hidden, _CHUNK_BITS), most)

    def _weighed(self, b: Tensor, c: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs b + u' W of the visible units and log weights of all u, some states at a time."""
        n_hidden, step = len(self.weights), self._states_at_once()
        shifts = torch.arange(n_hidden, device=b.device)
        for start in range(0, 2**n_hidden, step):
            numbers = torch.arange(start, min(start + step, 2**n_hidden), device=b.device)
            states = ((numbers[:, None] >> shifts) & 1).to(b.dtype)
            inputs = b[:, None] + states @ self.weights
            yield inputs, softplus(inputs).sum(dim=2) + c @ states.T

    def _enumerated(self, b: Tensor, c: Tensor) -> Tensor:
        """log sum_u exp(c' u + sum_i log(1 + exp(b_i + (u' W)_i))). O(2^n_hidden n_features)."""
        total = torch.full_like(b[:, 0], -torch.inf)
        for _, logs in self._weighed(b, c):
            total = torch.logaddexp(total, logs.logsumexp(dim=1))
        return total

    def _annealed(self, b: Tensor, c: Tensor) -> Tensor:
        """Annealed importance sampling from W = 0 to W, where it is known. Too low on average.

        Its gradient is the weighted mean of that of -F over the chains, as that of log Z is the
        mean over the machine: through the draws of the chains themselves there is none.
        """
        with torch.no_grad():
            x, log_weights, _ = self._chains(b, c)
            known = softplus(b).sum(dim=1) + softplus(c).sum(dim=1)
            value = known + log_weights.logsumexp(dim=0) - math.log(_N_CHAINS)
            shares = torch.softmax(log_weights, dim=0)
        if not torch.is_grad_enabled():
            return value
        gains = (x * b).sum(dim=2) + softplus(c + x @ self.weights.T).sum(dim=2)
        slope = (shares * gains).sum(dim=0)
        return value + slope - slope.detach()

    def _chains(self, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Callable[..., Any]]:
        """Chains that W = 0 and then more and more of W have moved, with their log weights.

        Returns states (n_chains, n_rows, n_features), log weights (n_chains, n_rows), and a sweep
        that moves states on and returns the inputs from which they were drawn.

        R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief networks",
        ICML 2008.
        """
        generator = torch.Generator(device=b.device).manual_seed(0)

        def bits(inputs: Tensor) -> Tensor:
            shape = (_N_CHAINS, 1, inputs.shape[-1])
            noise = torch.rand(shape, generator=generator, device=b.device, dtype=torch.float64)
            return (noise.to(b.dtype) < torch.sigmoid(inputs)).to(b.dtype)

        def sweep(seen: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
            inputs = b + share * (bits(c + share * seen) @ self.weights)
            return bits(inputs), inputs

        x = bits(b[None])
        log_weights = b.new_zeros(len(x), len(b))
        for index in range(_N_TEMPERATURES):
            seen = x @ self.weights.T
            low, high = index / _N_TEMPERATURES, (index + 1) / _N_TEMPERATURES
            gain = softplus(c + high * seen) - softplus(c + low * seen)
            log_weights = log_weights + gain.sum(dim=2)
            x, _ = sweep(seen, high)
        return x, log_weights, sweep

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
        """Probability that each visible unit is on: exact where log Z is, otherwise an estimate."""
        with torch.no_grad():
            answer = self._enumerated_mean if self.is_exact else self._annealed_mean
            return self._by_block(answer, parameters)

    def _enumerated_mean(self, b: Tensor, c: Tensor) -> Tensor:
        """sum_u p(u) sigmoid(b + u' W)."""
        log_z, total = self._enumerated(b, c)[:, None], torch.zeros_like(b)
        for inputs, logs in self._weighed(b, c):
            total += (torch.exp(logs - log_z)[:, None] @ torch.sigmoid(inputs))[:, 0]
        return total

    def _annealed_mean(self, b: Tensor, c: Tensor) -> Tensor:
        """Conditional means along further sweeps of the annealed chains, with their weights."""
        x, log_weights, sweep = self._chains(b, c)
        total = torch.zeros_like(x)
        for _ in range(_N_SWEEPS):
            x, inputs = sweep(x @ self.weights.T)
            total += torch.sigmoid(inputs)
        return (torch.softmax(log_weights, dim=0)[:, :, None] * total).sum(dim=0) / _N_SWEEPS
