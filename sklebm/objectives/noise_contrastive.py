r"""Tell data from noise: min E_x softplus(-G(x)) + r E_y softplus(G(y)), y ~ q.

    G(u) = -F(u) - log Z - log q(u) - log r

with r rows of noise for each row of data: a logistic regression whose log odds are the log density
ratio, so that -F - log Z is the log density of the data where the loss is minimal. log Z is one
more unknown, fitted along with the energy.

M. U. Gutmann and A. Hyvarinen, "Noise-contrastive estimation of unnormalized statistical models",
Journal of Machine Learning Research 13, 2012.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sklebm._checks import check_choice, check_counts
from sklebm.energies.base import FreeEnergy, Reference
from sklebm.energies.reference import ReferenceUnits
from sklebm.inference import bit_noise
from sklebm.objectives.base import Batch, Objective, ObjectiveState

# At each step log Z moves this fraction of the way to the best value for the batch.
_RATE = 0.1
Noise = Literal["auto", "independent", "tree", "mixture"]


@dataclass(frozen=True)
class NoiseContrastive(Objective):
    """Logistic regression between rows and noise of a known density.

    Consistent if the data come from the model, as long as the noise reaches wherever the data are;
    the closer it is to them, the less of it is needed. In many dimensions noise is too easy to
    distinguish, and little is learnt.

    An energy with its own ``log_partition``, such as a deep energy, learns it by gradient steps,
    and the noise is its ``reference``. For machines, log Z is part of the objective's state, and
    the noise is learnt from the rows as they arrive. Rows between 0 and 1 are drawn as bits if the
    model is binary.

    Parameters
    ----------
    n_noise : int or None, default=None
        Rows of noise r for each row of data; None is 5 for machines and 4 for other energies.
    noise : {"auto", "independent", "tree", "mixture"}, default="auto"
        For binary machines: "independent" draws independent features with the means of the data;
        the others draw half of the noise in this way and half from a Chow-Liu tree, in which each
        feature depends on one other, or from a mixture of 32 components with independent features.
        "auto" uses the likeliest on rows that it has not yet learnt from, judged by the first
        5,000 of them. Real-valued machines always use normal noise, independent or, if their
        visible units are coupled, with the covariance of the rows. Costs O(n d^2) for n rows unless
        "independent".
    """

    n_noise: int | None = None
    noise: Noise = field(default="auto", kw_only=True)

    needs: ClassVar[tuple[str, ...]] = ("free_energy",)
    learns_log_partition: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, optional=("n_noise",))
        check_choice(self.noise, "noise", get_args(Noise), self)

    def missing_from(self, energy: Any) -> list[str]:
        """Its requirements, and a source of noise: a reference, or layers of units."""
        source = "reference" if hasattr(energy, "log_partition") else "layers"
        return [name for name in (*self.needs, source) if not hasattr(energy, name)]

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """No rows seen, and log Z of units without weights; empty if the energy has both."""
        if hasattr(energy, "log_partition"):
            return {}
        units = energy.layers[0]
        bias = units.bias.detach()
        with torch.no_grad():
            log_z = units.log_partition(bias).sum()
            for layer in list(energy.layers)[1:]:
                log_z = log_z + layer.log_partition(layer.bias.detach()).sum()
        if units.is_discrete and self.noise != "independent":
            return {**bit_noise.init(bias), "log_partition": log_z}
        zero = torch.zeros_like(bias)
        square = units.second_moments(bias.new_zeros(0, len(bias)), bias.new_zeros(0))
        return {"count": zero.sum(), "mean": zero, "square": square, "log_partition": log_z}

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean logistic loss of a data row and its noise rows, in nats."""
        own = hasattr(energy, "log_partition")
        n_noise = self.n_noise or (4 if own else 5)
        with torch.no_grad():
            if own:
                noise: Reference = energy.reference
            else:
                x = energy.layers[0].as_states(batch.x, generator)
                batch = Batch(x, weight=batch.weight)
                state, noise = self._learnt_noise(energy, batch, state)
            y = noise.draw(len(batch) * n_noise, generator)
            log_q = torch.split(noise.log_density(torch.cat([batch.x, y])), [len(batch), len(y)])
        offset = math.log(n_noise) + (energy.log_partition if own else 0.0)
        of_data, of_noise, log_draws = self.log_masses(energy, batch.x, y, generator)
        of_data, of_noise = of_data - log_q[0] - offset, of_noise - log_q[1] - offset
        if not own:
            best = _best_constant(of_data.detach(), of_noise.detach(), batch)
            # The gradient with respect to log Z vanishes at its best value, so it can be held
            # fixed while the energy is updated.
            log_z = torch.lerp(state["log_partition"], best, _RATE)
            of_data, of_noise = of_data - log_z, of_noise - log_z
            state = {**state, "log_partition": log_z}
        return logistic_loss(of_data, of_noise, batch, log_draws), state

    def log_masses(
        self, energy: FreeEnergy, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """log of exp(-F) at rows of data, (n_draws, n), and at noise, (m,), in one pass.

        These are compared with the density of the noise. Objectives with several values per data
        row have several draws, and also return their log q(z | x) if its gradient needs the score
        function.
        """
        values = -energy.free_energy(torch.cat([x, y]))
        return values[None, : len(x)], values[len(x) :], None

    def _learnt_noise(
        self, energy: Any, batch: Batch, state: ObjectiveState
    ) -> tuple[ObjectiveState, Reference]:
        """The state after these rows, and noise to compare them with."""
        if "pairs" in state:
            state = bit_noise.learn(state, batch.x, batch.shares(batch.x))
            kind = bit_noise.best(state) if self.noise == "auto" else self.noise
            return state, bit_noise.density(state, kind)
        count = state["count"] + len(batch)
        share, visible = len(batch) / count, energy.layers[0]
        square = visible.second_moments(batch.x, batch.shares(batch.x))
        state = {
            **state,
            "count": count,
            "mean": state["mean"] + (batch.mean(batch.x) - state["mean"]) * share,
            "square": state["square"] + (square - state["square"]) * share,
        }
        units = visible.fitted(count, state["mean"], state["square"])
        return state, ReferenceUnits(units)


@dataclass(frozen=True)
class ReferenceNoiseContrastive(NoiseContrastive):
    """``NoiseContrastive`` for an energy with a reference, under its former name.

    Parameters
    ----------
    n_noise : int, default=4
        Number of noise points for each row.
    noise : {"auto", "independent", "tree", "mixture"}, default="auto"
        Has no effect: the noise is ``energy.reference``.
    """

    n_noise: int = 4

    needs: ClassVar[tuple[str, ...]] = ("free_energy", "reference", "log_partition")


def logistic_loss(
    of_data: Tensor, of_noise: Tensor, batch: Batch | None = None, log_draws: Tensor | None = None
) -> Tensor:
    """Mean of softplus(-G) over data (n_draws, n), plus the sum of softplus(G) over noise, by n.

    Rows are weighted by ``batch``, if it is given. ``log_draws``, log q of the draws, adds the
    gradient of their probabilities: each draw is compared with the mean of the others.
    """
    values = softplus(-of_data)
    of_rows = values
    if log_draws is not None:
        n_draws = len(values)
        others = (values.sum(dim=0) - values) / (n_draws - 1)
        surrogate = (values - others).detach() * log_draws
        of_rows = values + surrogate - surrogate.detach()
    if batch is None or batch.weight is None:
        mean = of_rows.mean()
    else:
        mean = batch.mean(of_rows.mean(dim=0))
    return mean + softplus(of_noise).sum() / of_data.shape[1]


def _best_constant(of_data: Tensor, of_noise: Tensor, batch: Batch) -> Tensor:
    """log Z at which data mistaken for noise balance noise mistaken for data."""
    low = torch.minimum(of_data.min(), of_noise.min())
    high = torch.maximum(of_data.max(), of_noise.max())
    n_noise = len(of_noise) / of_data.shape[1]
    low, high = low - n_noise - 5.0, high + n_noise + 5.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        # Increases with log Z: a larger log Z lowers G, so more data look like noise.
        missed = torch.sigmoid(middle - of_data).mean(dim=0)
        if batch.weight is not None:
            missed = missed * batch.shares(missed) * len(batch)
        excess = missed.sum() - torch.sigmoid(of_noise - middle).sum()
        low = torch.where(excess < 0, middle, low)
        high = torch.where(excess < 0, high, middle)
    return 0.5 * (low + high)
