r"""E(x, z) = 1/2 |x - L x - sum_k d_k * z_k|^2 + alpha R(z): images as sums of shifted kernels.

Both boundaries are one circular convolution. With "circular", a kernel may stand at every pixel
and continues on the opposite side; with "zero", it must lie within the image, so that its map is
smaller than the image by the kernel's size minus one, and zero elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sklebm.energies.penalty import Penalty
from sklebm.energies.sparse_coding import SparseCodingEnergy


@dataclass(frozen=True)
class ConvolutionGrid:
    """Sizes of images, kernels and maps, and the convolutions between them.

    Images are flat rows in the order (height, width, channels), or (channels, height, width)
    without ``channels_last``. Kernels are flat in the same order. Codes are flat in the order
    (n_kernels, map_height, map_width); the entry of a map at (i, j) weighs the kernel whose first
    pixel lies at (i, j).

    Parameters
    ----------
    height, width, channels : int
        Size of the images; signals have height 1.
    kernel_height, kernel_width : int
        Size of the kernels.
    circular : bool, default=True
        Whether kernels may cross the boundary.
    channels_last : bool, default=True
        Order of the numbers in rows and kernels.
    """

    height: int
    width: int
    channels: int
    kernel_height: int
    kernel_width: int
    circular: bool = True
    channels_last: bool = True

    @property
    def n_pixels(self) -> int:
        """Numbers in an image."""
        return self.height * self.width * self.channels

    @property
    def kernel_length(self) -> int:
        """Numbers in a kernel."""
        return self.kernel_height * self.kernel_width * self.channels

    @property
    def map_shape(self) -> tuple[int, int]:
        """Height and width of a map."""
        if self.circular:
            return self.height, self.width
        return self.height - self.kernel_height + 1, self.width - self.kernel_width + 1

    @property
    def map_length(self) -> int:
        """Numbers in a map."""
        return self.map_shape[0] * self.map_shape[1]

    def images(self, x: Tensor) -> Tensor:
        """Rows as images, (n_rows, channels, height, width)."""
        return self._planes(x, self.height, self.width)

    def rows(self, images: Tensor) -> Tensor:
        """Images as rows, (n_rows, n_pixels)."""
        return (images.permute(0, 2, 3, 1) if self.channels_last else images).flatten(1)

    def kernels(self, atoms: Tensor) -> Tensor:
        """Kernels of shape (n_kernels, channels, kernel_height, kernel_width)."""
        return self._planes(atoms, self.kernel_height, self.kernel_width)

    def maps(self, z: Tensor) -> Tensor:
        """Codes as maps, (n_rows, n_kernels, map_height, map_width)."""
        return z.view(len(z), -1, *self.map_shape)

    def _planes(self, flat: Tensor, height: int, width: int) -> Tensor:
        if self.channels_last:
            return flat.reshape(len(flat), height, width, self.channels).permute(0, 3, 1, 2)
        return flat.reshape(len(flat), self.channels, height, width)

    def spectrum(self, planes: Tensor) -> Tensor:
        """The real Fourier transform on the image's grid, of planes that may be smaller."""
        found: Tensor = torch.fft.rfft2(planes, s=(self.height, self.width))
        return found

    def plane(self, spectrum: Tensor) -> Tensor:
        """The inverse of ``spectrum``, on the whole grid."""
        found: Tensor = torch.fft.irfft2(spectrum, s=(self.height, self.width))
        return found

    def transfer(self, atoms: Tensor) -> Tensor:
        """Spectra of the kernels, (n_kernels, channels, height, width // 2 + 1)."""
        return self.spectrum(self.kernels(atoms))

    def synthesise(self, z: Tensor, transfer: Tensor) -> Tensor:
        """sum_k d_k * z_k as rows, (n_rows, n_pixels)."""
        mixed = torch.einsum("nkhw,kchw->nchw", self.spectrum(self.maps(z)), transfer)
        return self.rows(self.plane(mixed))

    def analyse(self, x: Tensor, transfer: Tensor) -> Tensor:
        """The adjoint of ``synthesise``: products of rows with every shifted kernel, as codes."""
        mixed = torch.einsum("nchw,kchw->nkhw", self.spectrum(self.images(x)), transfer.conj())
        return self.crop(self.plane(mixed)).flatten(1)

    def crop(self, planes: Tensor) -> Tensor:
        """The part of the grid that maps cover."""
        height, width = self.map_shape
        return planes[..., :height, :width]

    def largest_eigenvalue(self, transfer: Tensor) -> float:
        """The largest eigenvalue of ``synthesise`` after its adjoint; with "zero", a bound."""
        if self.channels == 1:
            return float(transfer.abs().square().sum(dim=0).amax())
        products = torch.einsum("kchw,kdhw->hwcd", transfer, transfer.conj())
        return float(torch.linalg.eigvalsh(products).amax())

    def toeplitz(self, atoms: Tensor) -> Tensor:
        """The dictionary of all shifts as a matrix, (n_kernels * map_length, n_pixels).

        Row i is the image of a code whose only entry is a one at i.
        """
        identity = torch.eye(len(atoms) * self.map_length, dtype=atoms.dtype, device=atoms.device)
        return self.synthesise(identity, self.transfer(atoms))


class ConvolutionalCodingEnergy(SparseCodingEnergy):
    r"""Squared error of a sum of convolutions plus a penalty on the maps.

    Parameters
    ----------
    dictionary : Tensor of shape (n_kernels, kernel_length)
        The kernels, flat.
    penalty : Penalty
        The penalty R on codes.
    alpha : float
        Weight of the penalty.
    grid : ConvolutionGrid
        Sizes and boundary.
    low_pass : float, default=0.0
        Weight w of the smooth part L x, which is no part of the model:
        argmin_s |x - s|^2 + w |grad s|^2, taken off every image. 0: nothing is taken off.
    """

    def __init__(
        self,
        dictionary: Tensor,
        penalty: Penalty,
        alpha: float,
        grid: ConvolutionGrid,
        low_pass: float = 0.0,
    ) -> None:
        super().__init__(dictionary, penalty, alpha)
        self.grid = grid
        self.low_pass = low_pass

    def smooth(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """L x, the smooth part of each row; of the pixels where ``mask`` is one, if it is given."""
        if not self.low_pass:
            return torch.zeros_like(x)
        observed = None if mask is None else self.grid.images(mask)
        return self.grid.rows(smooth_part(self.grid.images(x), self.low_pass, observed))

    def centre(self, x: Tensor) -> Tensor:
        """Rows without their smooth part."""
        return x - self.smooth(x) if self.low_pass else x

    def decode(self, z: Tensor) -> Tensor:
        """sum_k d_k * z_k, shape (n_rows, n_pixels): the reconstruction without a smooth part."""
        return self.grid.synthesise(z, self.grid.transfer(self.dictionary))

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) of each row with its own code, shape (n_rows,)."""
        return super().energy(self.centre(x), z)

    def masked_energy(self, x: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        """E(x, z) of the pixels where ``mask`` is one, shape (n_rows,)."""
        error = mask * (x - self.smooth(x, mask) - self.decode(z))
        return 0.5 * error.square().sum(dim=1) + self.alpha * self.penalty.value(z)


def smooth_part(images: Tensor, weight: float, mask: Tensor | None = None) -> Tensor:
    """argmin_s |mask (x - s)|^2 + weight |grad s|^2, with differences of neighbouring pixels.

    Nothing is assumed beyond the boundary. Without a mask the solution is closed, in the cosines
    that diagonalise the differences; with one, conjugate gradients start from it.

    Parameters
    ----------
    images : Tensor of shape (n_rows, channels, height, width)
        x.
    weight : float
        Weight of the squared differences.
    mask : Tensor of the same shape, optional
        One where a pixel is observed, zero elsewhere.
    """
    tall, rough_tall = _cosines(images.shape[2], images)
    wide, rough_wide = _cosines(images.shape[3], images)
    roughness = rough_tall[:, None] + rough_wide

    def filtered(planes: Tensor, gain: Tensor) -> Tensor:
        return tall.T @ (gain * (tall @ planes @ wide.T)) @ wide

    shrink = 1.0 / (1.0 + weight * roughness)
    if mask is None:
        return filtered(images, shrink)
    axes = (1, 2, 3)

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(dim=axes, keepdim=True)

    eps, tiny = torch.finfo(images.dtype).eps, torch.finfo(images.dtype).tiny
    target = mask * images
    share = mask.mean(dim=axes, keepdim=True).clamp(min=eps)
    # The observed mean is the smoothest guess; what is left is solved for.
    found = (target.mean(dim=axes, keepdim=True) / share).expand_as(images).clone()
    residual = target - mask * found
    goal = eps * inner(target, target).sqrt()
    condition = 1.0 / (share + weight * roughness)
    direction = near = filtered(residual, condition)
    power = inner(residual, near)
    for _ in range(500):
        left = inner(residual, residual).sqrt() > goal
        if not bool(left.any()):
            break
        moved = mask * direction + weight * filtered(direction, roughness)
        # Rows that are done stay, so that no row depends on those beside it.
        step = torch.where(left, power / inner(direction, moved).clamp(min=tiny), 0.0)
        found, residual = found + step * direction, residual - step * moved
        near = filtered(residual, condition)
        power, before = inner(residual, near), power
        direction = near + power / before.clamp(min=tiny) * direction
    return found


def _cosines(n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal cosines on n points, one a row, and their squared differences."""
    order = torch.arange(n, dtype=torch.float64, device=like.device)
    table = (torch.pi / n * order[:, None] * (order + 0.5)).cos() * (2.0 / n) ** 0.5
    table[0] *= 0.5**0.5
    rough = (torch.pi / (2 * n) * order).sin().square() * 4.0
    return table.to(like.dtype), rough.to(like.dtype)
