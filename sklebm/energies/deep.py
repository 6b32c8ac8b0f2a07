r"""F(x) = |x|^2 / 2 s^2 - b'x - sum_k S(f_k(x)), S(u) = log(1 + e^u): a deep energy.

The fields f(x) = W g(x) + c are the outputs of a network. F is the free energy of hidden units z in
{0, 1}^K with E(x, z) = |x|^2 / 2 s^2 - b'x - z'f(x), so that p(z_k = 1 | x) = S'(f_k(x)). With
g(x) = x it is a Gaussian restricted Boltzmann machine.

Without hidden units, any function H of a row takes their place: F(x) = |x|^2 / 2 s^2 - b'x - H(x),
or F(x) = -H(x).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from sklebm.energies.derivatives import expand, is_expandable
from sklebm.energies.reference import ReferenceGaussian
from sklebm.energies.units import softplus


class ReferencedFactor(nn.Module):
    """A Gaussian factor, a reference density and log Z: what deep energies share.

    Parameters
    ----------
    visible_bias : Tensor of shape (d,) or None
        Linear term b; None without a Gaussian factor.
    log_sigma : Tensor of shape () or None
        log s; None without a Gaussian factor.
    reference : ReferenceGaussian
        A density that covers the data: noise, start of chains, start of annealing.
    log_partition : Tensor of shape ()
        log Z in nats, learnt by objectives that compare with a known density.
    """

    #: The kind of rows, checked by objectives.
    domain = "real"
    #: The record that determines the network, set by the estimator that built it.
    record: Any
    # Parameters, or both None without a Gaussian factor.
    visible_bias: Any
    log_sigma: Any

    def __init__(
        self,
        visible_bias: Tensor | None,
        log_sigma: Tensor | None,
        reference: ReferenceGaussian,
        log_partition: Tensor,
    ) -> None:
        super().__init__()
        self.visible_bias = None if visible_bias is None else nn.Parameter(visible_bias)
        self.log_sigma = None if log_sigma is None else nn.Parameter(log_sigma)
        self.log_partition = nn.Parameter(log_partition)
        self.reference = reference

    def _gaussian(self, x: Tensor) -> Tensor:
        """|x|^2 / 2 s^2 - b'x, or 0 without a Gaussian factor, (n,)."""
        if self.log_sigma is None:
            return x.new_zeros(len(x))
        precision = torch.exp(-2.0 * self.log_sigma)
        total: Tensor = 0.5 * precision * x.square().sum(dim=1) - x @ self.visible_bias
        return total


class DeepEnergy(ReferencedFactor):
    """A Gaussian factor and one expert for each output of a network.

    Parameters
    ----------
    network : Module
        The fields f, from (n, d) to (n, K).
    visible_bias : Tensor of shape (d,)
        Linear term b.
    log_sigma : Tensor of shape ()
        log s.
    reference : ReferenceGaussian
        A density that covers the data: noise, start of chains, start of annealing.
    log_partition : Tensor of shape ()
        log Z in nats, learnt by objectives that compare with a known density.
    """

    def __init__(
        self,
        network: nn.Module,
        visible_bias: Tensor,
        log_sigma: Tensor,
        reference: ReferenceGaussian,
        log_partition: Tensor,
    ) -> None:
        super().__init__(visible_bias, log_sigma, reference, log_partition)
        self.network = network

    def features(self, x: Tensor) -> Tensor:
        """p(z_k = 1 | x), (n, K)."""
        return self.hidden_mean(x)

    def hidden_mean(self, x: Tensor) -> Tensor:
        """p(z_k = 1 | x), (n, K)."""
        mean: Tensor = torch.sigmoid(self.network(x))
        return mean

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x), (n,), in nats."""
        total: Tensor = self._gaussian(x) - softplus(self.network(x)).sum(dim=1)
        return total

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z), (n,), in nats."""
        total: Tensor = self._gaussian(x) - (z * self.network(x)).sum(dim=1)
        return total

    @property
    def has_closed_derivatives(self) -> bool:
        """Whether ``gradient_and_laplacian`` supports the network."""
        return is_expandable(self.network)

    def gradient_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (n, d) and Laplacian (n,) of F. O(n d P) for P weights, O(n d K) if g(x) = x.

        With h = p(z | x) and the Jacobian J and Laplacian L of the fields,
        dF = x / s^2 - b - h'J and lap F = d / s^2 - sum_k h_k L_k + h_k (1 - h_k) |J_k|^2.
        """
        precision = torch.exp(-2.0 * self.log_sigma)
        field = expand(self.network, x)
        mean, jacobian = torch.sigmoid(field.value), cast(Tensor, field.jacobian)
        bend = mean * (1.0 - mean) * jacobian.square().sum(dim=-1)
        if field.laplacian is not None:
            bend = bend + mean * field.laplacian
        if jacobian.dim() == 2:
            pull = mean @ jacobian
        else:
            pull = torch.einsum("nk,nkd->nd", mean, jacobian)
        gradient = precision * x - self.visible_bias - pull
        return gradient, precision * x.shape[1] - bend.sum(dim=1)


class LogFactorEnergy(ReferencedFactor):
    """A Gaussian factor or none, and exp(H(x)) for any function H of a row.

    There are no hidden units: z of ``hidden_mean`` and ``energy`` has no entries.

    Parameters
    ----------
    log_factor : Module
        H, from (n, d) to (n, 1) or (n,).
    visible_bias, log_sigma : Tensor or None
        Both None: log p(x) = H(x) - log Z.
    reference : ReferenceGaussian
        A density that covers the data: noise, start of chains, start of annealing.
    log_partition : Tensor of shape ()
        log Z in nats, learnt by objectives that compare with a known density.
    """

    def __init__(
        self,
        log_factor: nn.Module,
        visible_bias: Tensor | None,
        log_sigma: Tensor | None,
        reference: ReferenceGaussian,
        log_partition: Tensor,
    ) -> None:
        super().__init__(visible_bias, log_sigma, reference, log_partition)
        self.log_factor = log_factor

    def features(self, x: Tensor) -> Tensor:
        """H(x), (n, 1)."""
        value: Tensor = self.log_factor(x)
        return value.reshape(len(x), 1)

    def hidden_mean(self, x: Tensor) -> Tensor:
        """The mean of no hidden unit, (n, 0)."""
        return x.new_zeros(len(x), 0)

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x), (n,), in nats."""
        return self._gaussian(x) - self.features(x)[:, 0]

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """F(x), (n,), in nats, as z has no entries."""
        return self.free_energy(x)
