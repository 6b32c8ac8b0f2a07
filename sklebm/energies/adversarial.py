r"""A generator x = g(z) of standard normal z, and a critic: a logit D(x), or an energy E(x).

The energy of a critic that is an auto-encoder c is its mean squared error, |x - c(x)|^2 / d. What
is given of a row, such as its label as an indicator, is a further input of every network:
x = g(z, y), D(x, y), E(x, y) = |x - c(x, y)|^2 / d.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sklebm.energies.standardization import Standardization

#: Of |z|^2, in the energy that decides which latent a row has.
WEIGHT_OF_LATENTS = 1e-3


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
    """Divide weights by their largest singular value where it exceeds 1.

    No affine layer stretches then. Of a convolution, the kernel is bounded as a matrix of one row
    for each channel, which does not bound its map: kernels overlap. O(m n min(m, n)) for a
    weight of shape (m, n).
    """
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() > 1:
            largest = torch.linalg.matrix_norm(weight.flatten(1), 2)
            weight.div_(largest.clamp(min=1.0))


@torch.no_grad()
def widen(network: nn.Module, z: Tensor) -> None:
    """Scale the last weights so that the rows of these latents have a mean variance of 1.

    Standardised data have. A generator that starts in one place has to find the width of the data
    before the critic can tell it more.
    """
    variance = network(z).var(dim=0).mean()
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    if float(variance) > 0.0:
        weights[-1].div_(variance.sqrt())


class AdversarialEnergy(nn.Module):
    """A generator, and a critic that returns one number per row.

    Parameters
    ----------
    generator : AveragedNetwork
        The map from latents, (n_rows, n_components), to standardised rows.
    critic : Module
        The map from standardised rows to (n_rows, 1).

    Attributes
    ----------
    standardization : Standardization or None
        The units of rows; None during training.
    n_components : int
        Number of latents.
    n_given : int
        Numbers that are given beside each row; 0: none are.
    n_pixels : int
        Times that the critic gets each of them: once, or as a plane of an image.
    """

    standardization: Standardization | None
    n_components: int

    def __init__(self, generator: AveragedNetwork, critic: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.critic = critic
        self.standardization = None
        self.n_given = 0
        self.n_pixels = 1

    def standardized(self, x: Tensor) -> Tensor:
        """What the critic sees of a row."""
        y: Tensor = x if self.standardization is None else self.standardization(x)
        return y

    def given(self, target: Tensor | None) -> tuple[Tensor, ...]:
        """What networks get beside rows, if anything: indicators of labels, or the numbers."""
        if target is None or self.n_given == 0:
            return ()
        if target.is_floating_point():
            return (target,)
        like = next(self.generator.network.parameters())
        return (one_hot(target, self.n_given).to(like.dtype),)

    def judge(self, x: Tensor, *given: Tensor) -> Tensor:
        """The critic's output, (n_rows,)."""
        out: Tensor = self.critic(self._seen(self.standardized(x), given))
        return out[:, 0]

    def generate(self, n_rows: int, generator: torch.Generator, *given: Tensor) -> Tensor:
        """Standardised rows of the trained network, from new latents."""
        like = next(self.generator.network.parameters())
        z = torch.empty(n_rows, self.n_components, dtype=like.dtype, device=like.device)
        z.normal_(generator=generator)
        out: Tensor = self.generator(torch.cat([z, *given], dim=1))
        return out

    def rebuild(self, z: Tensor, *given: Tensor) -> Tensor:
        """Standardised rows of the averaged network."""
        row: Tensor = self.generator.average(torch.cat([z, *given], dim=1))
        return row

    def decode(self, z: Tensor, *given: Tensor) -> Tensor:
        """Rows of the averaged network, in units of X."""
        row = self.rebuild(z, *given)
        return row if self.standardization is None else self.standardization.restore(row)

    def energy(self, x: Tensor, z: Tensor, *given: Tensor) -> Tensor:
        """E(x, z) = |x - g(z)|^2 / d + 0.001 |z|^2 of the averaged network, (n_rows,)."""
        errors = self.standardized(x) - self.rebuild(z, *given)
        return errors.square().mean(dim=1) + WEIGHT_OF_LATENTS * z.square().sum(dim=1)

    def _seen(self, y: Tensor, given: tuple[Tensor, ...]) -> Tensor:
        """Standardised rows beside what is given of them."""
        planes = (part.repeat_interleave(self.n_pixels, dim=1) for part in given)
        return torch.cat([y, *planes], dim=1)


class AdversarialReconstruction(AdversarialEnergy):
    """A generator, and a critic that is an auto-encoder, whose mean squared error is an energy.

    Parameters
    ----------
    generator : AveragedNetwork
        The map from latents, (n_rows, n_components), to standardised rows.
    encoder, decoder : Module
        The critic's networks.
    """

    critic: nn.ModuleDict

    def __init__(self, generator: AveragedNetwork, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__(generator, nn.ModuleDict({"encoder": encoder, "decoder": decoder}))

    def encode(self, x: Tensor, *given: Tensor) -> Tensor:
        """The critic's code of each row."""
        code: Tensor = self.critic["encoder"](self._seen(self.standardized(x), given))
        return code

    def energy(self, x: Tensor, z: Tensor, *given: Tensor) -> Tensor:
        """E(x, z) = |x - c(z)|^2 / d, the error of the row that the critic makes of a code."""
        return self.judge(x, *given, codes=z)

    def decode_codes(self, z: Tensor, *given: Tensor) -> Tensor:
        """The rows that the critic makes of codes, in units of X."""
        row: Tensor = self.critic["decoder"](torch.cat([z, *given], dim=1))
        return row if self.standardization is None else self.standardization.restore(row)

    def judge(self, x: Tensor, *given: Tensor, codes: Tensor | None = None) -> Tensor:
        """E(x) = |x - c(x)|^2 / d, (n_rows,); ``codes`` are those of the rows, where known."""
        y = self.standardized(x)
        if codes is None:
            codes = self.critic["encoder"](self._seen(y, given))
        errors = y - self.critic["decoder"](torch.cat([codes, *given], dim=1))
        error: Tensor = errors.square().mean(dim=1)
        return error
