r"""F(x, y) = -f_y(x): one output of a network for each label y, and what follows from all of them.

    p(y | x) = exp(-beta F(x, y)) / sum_k exp(-beta F(x, k)),
    F_beta(x) = -1/beta log sum_y exp(-beta F(x, y)).

An energy of labels alone leaves the level of F(x, .) open. One that is a density of rows as well
adds |u|^2 / 2, with u the standardised row, to the energies of all labels: the outputs of a network
grow at most linearly, so that Z is finite, and the posterior does not change.

W. Grathwohl et al., "Your classifier is secretly an energy based model and you should treat it like
one", ICLR 2020.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sklebm.energies.standardization import Standardization


class StandardNormal(nn.Module):
    """The standard normal density of ``n_features`` numbers, where chains start.

    Parameters
    ----------
    n_features : int
        Length of a row.
    """

    mean: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features), persistent=False)

    def draw(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws, (n_rows, d)."""
        return self.mean.new_empty((n_rows, len(self.mean))).normal_(generator=generator)

    def log_density(self, x: Tensor) -> Tensor:
        """log q(x), (n,)."""
        return -0.5 * (x.square() + math.log(2 * math.pi)).sum(dim=1)

    def free_energy(self, x: Tensor) -> Tensor:
        """-log q(x), (n,)."""
        return -self.log_density(x)

    def scale(self) -> Tensor:
        """Root of the mean variance of a feature, a scalar."""
        return self.mean.new_ones(())


class LabelEnergy(nn.Module):
    """A network with one output for each label.

    Parameters
    ----------
    network : Module
        From rows (n, d) to minus the energies of the labels, (n, K).
    beta : float
        Inverse temperature.
    n_features : int
        Length of a row.
    confined : bool
        Whether |u|^2 / 2 is added.
    """

    domain = "real"
    #: How the network was specified; set by the estimator that built it.
    record: Any
    scaling: Any

    def __init__(self, network: nn.Module, beta: float, n_features: int, confined: bool) -> None:
        super().__init__()
        self.network = network
        self.beta = beta
        self.confined = confined
        self.reference = StandardNormal(n_features) if confined else None
        self.standardization: Standardization | None = None

    def _inputs(self, x: Tensor) -> Tensor:
        return x if self.standardization is None else self.standardization(x)

    def logits(self, x: Tensor) -> Tensor:
        """f(x), (n, K): minus the energies, up to what all labels share."""
        outputs: Tensor = self.network(self._inputs(x))
        return outputs

    def label_energies(self, x: Tensor) -> Tensor:
        """F(x, y) of every label, (n, K)."""
        u = self._inputs(x)
        energies: Tensor = -self.network(u)
        return energies + 0.5 * u.square().sum(dim=1, keepdim=True) if self.confined else energies

    def energy(self, x: Tensor, y: Tensor) -> Tensor:
        """F(x, y) of a label for each row, (n,)."""
        return self.label_energies(x).gather(1, y[:, None])[:, 0]

    def free_energy(self, x: Tensor) -> Tensor:
        """F_beta(x), (n,)."""
        energies = self.label_energies(x)
        free: Tensor = -torch.logsumexp(-self.beta * energies, dim=1) / self.beta
        return free

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(y | x) of every label, (n, K)."""
        return torch.log_softmax(self.beta * self.logits(x), dim=1)
