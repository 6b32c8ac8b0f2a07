r"""Tell data from noise: min E_x softplus(-G(x)) + r E_y softplus(G(y)), y ~ q.

    G(u) = -F(u) - log Z - log q(u) - log r

with r rows of noise for each row of data. log Z is one more unknown, fitted beside the energy; the
noise q has the marginals of the data and no dependence: independent bits, or normal variables.

M. U. Gutmann and A. Hyvarinen, "Noise-contrastive estimation of unnormalized statistical models",
Journal of Machine Learning Research 13, 2012.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sklebm._checks import check_counts
from sklebm.energies.units import Bernoulli, Gaussian
from sklebm.objectives.base import Batch, Objective, ObjectiveState

# log Z follows the energy by this share of the way to the best value for the batch.
_RATE = 0.1


class MarginalMasses(Objective):
    """log of exp(-F) at data, (1, n), and at noise, (m,): what is compared with the noise density.

    Objectives that know more than one value for a row of data have more rows.
    """

    n_noise: int

    def __post_init__(self) -> None:
        check_counts(self, "n_noise")

    def log_masses(
        self, energy: Any, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """At rows x of data and y of noise, in one pass."""
        values = -energy.free_energy(torch.cat([x, y]))
        return values[None, : len(x)], values[len(x) :]


def logistic_loss(of_data: Tensor, of_noise: Tensor) -> Tensor:
    """Mean of softplus(-G) over data (n_draws, n), plus the sum of softplus(G) over noise, by n."""
    return softplus(-of_data).mean() + softplus(of_noise).sum() / of_data.shape[1]


@dataclass(frozen=True)
class NoiseContrastive(MarginalMasses):
    """Logistic regression between the rows and rows with independent features.

    Consistent if the data come from the model; the noise sees dependence only as well as
    it happens to produce it, so that data of many features need much of it. Rows between 0
    and 1 are drawn as bits where the model is binary.

    Parameters
    ----------
    n_noise : int, default=5
        Rows of noise for each row of data.
    """

    n_noise: int = 5

    needs: ClassVar[tuple[str, ...]] = ("free_energy", "visible")

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """No rows seen; log Z that of independent units."""
        bias = energy.visible.bias.detach()
        with torch.no_grad():
            log_z = energy.visible.log_partition(bias).sum()
            log_z = log_z + softplus(energy.hidden.bias.detach()).sum()
        zero = torch.zeros_like(bias)
        return {"count": zero.sum(), "mean": zero, "square": zero, "log_partition": log_z}

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean logistic loss of a row of data and its rows of noise, in nats."""
        x = batch.x
        with torch.no_grad():
            if energy.domain == "binary":
                x = energy.visible.draw(x, generator)
            state = _count(state, x)
            noise = _noise(energy, state)
            mean = noise.mean(noise.bias).expand(len(x) * self.n_noise, -1).contiguous()
            y = noise.draw(mean, generator)
            log_q = [-noise.energy(u) - noise.log_partition(noise.bias).sum() for u in (x, y)]
        offset = math.log(self.n_noise)
        of_data, of_noise = self.log_masses(energy, x, y, generator)
        of_data, of_noise = of_data - log_q[0] - offset, of_noise - log_q[1] - offset
        best = _best_constant(of_data.detach(), of_noise.detach())
        # The gradient with respect to log Z vanishes at its best value, so that it may be held
        # fixed while the energy moves.
        log_z = torch.lerp(state["log_partition"], best, _RATE)
        loss = logistic_loss(of_data - log_z, of_noise - log_z)
        return loss, {**state, "log_partition": log_z}


def _count(state: ObjectiveState, x: Tensor) -> ObjectiveState:
    """First and second moments of the features over all rows so far."""
    count = state["count"] + len(x)
    share = len(x) / count
    return {
        **state,
        "count": count,
        "mean": state["mean"] + (x.mean(dim=0) - state["mean"]) * share,
        "square": state["square"] + (x.square().mean(dim=0) - state["square"]) * share,
    }


def _noise(energy: Any, state: ObjectiveState) -> Bernoulli | Gaussian:
    """Independent units with the marginals so far, drawn to a broad guess by ten rows more."""
    n = state["count"]
    if energy.domain == "binary":
        return Bernoulli(torch.logit((n * state["mean"] + 5.0) / (n + 10.0)))
    variance = (state["square"] - state["mean"].square()).clamp(min=0.0)
    broad = torch.exp(energy.visible.log_variance.detach())
    variance = (n * variance + 10.0 * broad) / (n + 10.0)
    return Gaussian(state["mean"], variance.log())


def _best_constant(of_data: Tensor, of_noise: Tensor) -> Tensor:
    """log Z with as much weight on data taken for noise as on noise taken for data."""
    low = torch.minimum(of_data.min(), of_noise.min())
    high = torch.maximum(of_data.max(), of_noise.max())
    n_noise = len(of_noise) / of_data.shape[1]
    low, high = low - n_noise - 5.0, high + n_noise + 5.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        # Rises with log Z: the more it takes away from G, the more data look like noise.
        missed = torch.sigmoid(middle - of_data).mean(dim=0).sum()
        excess = missed - torch.sigmoid(of_noise - middle).sum()
        low = torch.where(excess < 0, middle, low)
        high = torch.where(excess < 0, high, middle)
    return 0.5 * (low + high)
