"""A generator x = g(z) of standard normal z, and a critic, an auto-encoder, with an energy E(x)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sklebm.energies.standardization import Standardization


class AveragedNetwork(nn.Module):
    """A network and the running average of its parameters, which gets no gradient.

    Parameters
    ----------
    network : Module
        The network that is trained.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.average = copy.deepcopy(network).requires_grad_(requires_grad=False)

    def forward(self, z: Tensor) -> Tensor:
        """What the trained network returns."""
        out: Tensor = self.network(z)
        return out

    @torch.no_grad()
    def restart(self) -> None:
        """Make the average equal to the network."""
        self.average = copy.deepcopy(self.network).requires_grad_(requires_grad=False)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average: a <- decay a + (1 - decay) p; other buffers are copied."""
        for a, p in zip(self.average.parameters(), self.network.parameters(), strict=True):
            a.lerp_(p, 1.0 - decay)
        for b, q in zip(self.average.buffers(), self.network.buffers(), strict=True):
            b.copy_(q)


@torch.no_grad()
def bound_slopes(network: nn.Module) -> None:
    """Divide weights by their largest singular value where it exceeds 1: no layer stretches."""
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() > 1:
            largest = torch.linalg.matrix_norm(weight.flatten(1), 2)
            weight.div_(largest.clamp(min=1.0))


class AdversarialReconstruction(nn.Module):
    """A generator, and a critic that is an auto-encoder, whose mean squared error is an energy.

    Parameters
    ----------
    generator : AveragedNetwork
        The map from latents, (n_rows, n_components), to standardised rows.
    encoder, decoder : Module
        The critic's networks.

    Attributes
    ----------
    standardization : Standardization or None
        The units of rows; None during training.
    """

    standardization: Standardization | None
    n_components: int

    def __init__(self, generator: AveragedNetwork, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.critic = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        self.standardization = None

    def standardized(self, x: Tensor) -> Tensor:
        """What the critic sees."""
        y: Tensor = x if self.standardization is None else self.standardization(x)
        return y

    def encode(self, x: Tensor) -> Tensor:
        """The critic's code of each row."""
        code: Tensor = self.critic["encoder"](self.standardized(x))
        return code

    def judge(self, x: Tensor) -> Tensor:
        """E(x) = |x - c(x)|^2 / d, (n_rows,)."""
        y = self.standardized(x)
        errors = y - self.critic["decoder"](self.critic["encoder"](y))
        error: Tensor = errors.square().mean(dim=1)
        return error

    def generate(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Standardised rows of the trained network, from new latents."""
        like = next(self.generator.network.parameters())
        z = torch.empty(n_rows, self.n_components, dtype=like.dtype, device=like.device)
        out: Tensor = self.generator(z.normal_(generator=generator))
        return out

    def decode(self, z: Tensor) -> Tensor:
        """Rows of the averaged network, in units of X."""
        row: Tensor = self.generator.average(z)
        return row if self.standardization is None else self.standardization.restore(row)
