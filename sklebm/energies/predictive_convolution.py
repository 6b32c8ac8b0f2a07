r"""E(x, z) = 1/2 |x - L x - sum_k d_k * z_k|^2 + alpha R(z) + w/2 |z - f(x)|^2: predicted maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklebm.energies.convolution import ConvolutionalCodingEnergy, ConvolutionGrid
from sklebm.energies.penalty import Penalty


class PredictiveConvolutionalEnergy(ConvolutionalCodingEnergy):
    """Convolutional sparse coding with an encoder of images: F(x) = E(x, f(x)).

    Parameters
    ----------
    encoder : Module
        The map f from images without their smooth part, (n_rows, n_pixels), to codes.
    dictionary : Tensor of shape (n_kernels, kernel_length)
        The first kernels; they are learnt.
    penalty : Penalty
        The penalty R on codes.
    alpha : float
        Weight of the penalty.
    weight : float
        Weight w of the distance between a code and its prediction.
    grid : ConvolutionGrid
        Sizes and boundary.
    low_pass : float
        Weight of the smooth part L x, see ``ConvolutionalCodingEnergy``.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dictionary: Tensor,
        penalty: Penalty,
        alpha: float,
        weight: float,
        grid: ConvolutionGrid,
        low_pass: float,
    ) -> None:
        super().__init__(nn.Parameter(dictionary), penalty, alpha, grid, low_pass)
        self.encoder = encoder
        self.weight = weight

    def encode(self, x: Tensor) -> Tensor:
        """f(x), the predicted code of each image, shape (n_rows, n_kernels * map_length)."""
        code: Tensor = self.encoder(self.centre(x))
        return code

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) of each image with its own code, shape (n_rows,)."""
        distance = (z - self.encode(x)).square().sum(dim=1)
        return super().energy(x, z) + 0.5 * self.weight * distance

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x) = E(x, f(x)) of each image, where the last term vanishes, shape (n_rows,)."""
        return ConvolutionalCodingEnergy.energy(self, x, self.encode(x))

    def reconstruct(self, x: Tensor) -> Tensor:
        """What predicted codes decode to, with the smooth part, shape (n_rows, n_pixels)."""
        return self.decode(self.encode(x)) + self.smooth(x)

    def atoms(self) -> Tensor:
        """The kernels, those longer than one scaled back to length one."""
        lengths = torch.linalg.vector_norm(self.dictionary, dim=1, keepdim=True)
        scaled: Tensor = self.dictionary / lengths.clamp(min=1.0)
        return scaled
