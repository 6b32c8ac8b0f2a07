r"""Views of images: shifted, cropped, mirrored, turned, blurred, lit, erased and coloured copies.

One affine map per image, x -> A x + b, serves shift, crop, flip and rotation, so that an image is
interpolated once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from sklebm._checks import check_number, check_share
from sklebm.inference.views import Source, View


@dataclass(frozen=True)
class ImageAugmentation(View):
    """Randomly transformed copies of images; every part can be switched off by 0.

    Pixels beyond the border repeat it. Brightness is in units of the images' standard deviation.

    Parameters
    ----------
    shift : float, default=0.1
        Largest shift, as a share of height and width.
    crop : float, default=0.2
        Largest share of the sides that is cut off before the rest is resized.
    flip : float, default=0.0
        Probability of a mirror image, left to right.
    rotate : float, default=10.0
        Largest angle in degrees.
    blur : float, default=0.5
        Largest standard deviation of a Gaussian blur, in pixels.
    brightness : float, default=0.2
        Largest value added to all pixels.
    contrast : float, default=0.2
        Largest share by which deviations from an image's mean are stretched or shrunk.
    erase : float, default=0.3
        Largest share of the sides of a rectangle that is replaced by the mean of each channel.
    colour : float, default=0.0
        Largest share by which each channel is stretched or shrunk by itself.
    """

    shift: float = 0.1
    crop: float = 0.2
    flip: float = 0.0
    rotate: float = 10.0
    blur: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    erase: float = 0.3
    colour: float = 0.0

    draws_both: ClassVar[bool] = True
    needs_images: ClassVar[bool] = True
    reads_rows: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for field in fields(self):
            check_number(getattr(self, field.name), field.name, self, positive=False)
        for name in ("shift", "crop", "flip", "contrast", "erase", "colour"):
            check_share(getattr(self, name), name, self)
        if self.crop == 1.0:
            raise ValueError("ImageAugmentation: crop=1.0 must be below 1: nothing would be left.")

    def draw(
        self,
        x: Tensor,
        index: Tensor,
        source: Source,
        prepared: dict[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """A transformed copy of each image, flat."""
        images = x.reshape(len(x), *source.shape)
        draw = _Draws(len(x), generator, x)
        if self.shift or self.crop or self.flip or self.rotate:
            images = self._moved(images, draw)
        if self.blur:
            images = blurred(images, self.blur * draw.uniform())
        if self.contrast or self.brightness or self.colour:
            images = self._lit(images, draw)
        if self.erase:
            images = self._erased(images, draw)
        return images.reshape(len(x), -1)

    def _moved(self, images: Tensor, draw: _Draws) -> Tensor:
        """Shift, crop, flip and rotation as one affine map of the grid."""
        height, width = images.shape[2:]
        angle = math.radians(self.rotate) * draw.signed()
        scale = 1.0 - self.crop * draw.uniform()
        mirror = torch.where(draw.uniform() < self.flip, -1.0, 1.0).to(images.dtype)
        # A crop may lie anywhere within the image; coordinates run from -1 to 1.
        free = 1.0 - scale
        across = 2.0 * self.shift * draw.signed() + free * draw.signed()
        down = 2.0 * self.shift * draw.signed() + free * draw.signed()
        cosine, sine = scale * angle.cos(), scale * angle.sin()
        ratio = height / width
        rows = [
            torch.stack([mirror * cosine, -sine * ratio, across], dim=1),
            torch.stack([mirror * sine / ratio, cosine, down], dim=1),
        ]
        grid = functional.affine_grid(
            torch.stack(rows, dim=1), list(images.shape), align_corners=False
        )
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _lit(self, images: Tensor, draw: _Draws) -> Tensor:
        """Contrast about each image's mean, the same or by channel, then brightness."""
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        gain = (1.0 + self.contrast * draw.signed())[:, None, None, None]
        if self.colour:
            gain = gain * (1.0 + self.colour * draw.signed(images.shape[1]))[:, :, None, None]
        light = (self.brightness * draw.signed())[:, None, None, None]
        return torch.addcmul(mean + light, images - mean, gain)

    def _erased(self, images: Tensor, draw: _Draws) -> Tensor:
        """A rectangle of each image takes the mean of each channel."""
        inside = torch.ones((), dtype=torch.bool, device=images.device)
        for axis, side in ((2, images.shape[2]), (3, images.shape[3])):
            extent = self.erase * side * draw.uniform()
            begin = (side - extent) * draw.uniform()
            places = torch.arange(side, device=images.device) + 0.5
            within = (places > begin[:, None]) & (places < (begin + extent)[:, None])
            within = within[:, None, :, None] if axis == 2 else within[:, None, None, :]
            inside = inside & within
        return torch.where(inside, images.mean(dim=(2, 3), keepdim=True), images)


def blurred(images: Tensor, deviations: Tensor) -> Tensor:
    """Images under Gaussian blurs of their own standard deviations, in pixels."""
    reach = max(1, math.ceil(2.0 * float(deviations.max())))
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernels = torch.exp(-0.5 * (offsets / deviations.clamp(min=1e-3)[:, None]).square())
    kernels = (kernels / kernels.sum(dim=1, keepdim=True))[:, :, None, None, None]
    # A sum of shifted images: faster than a convolution with one kernel per image.
    for axis, pads in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
        wide, side = functional.pad(images, pads, mode="replicate"), images.shape[axis]
        images = sum(
            (kernels[:, k] * wide.narrow(axis, k, side) for k in range(2 * reach + 1)),
            torch.zeros_like(images),
        )
    return images


class _Draws:
    """Random numbers, one per image."""

    def __init__(self, n_images: int, generator: torch.Generator, like: Tensor) -> None:
        self.n_images = n_images
        self.generator = generator
        self.like = like

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1)."""
        empty = torch.empty(self.n_images, *shape, dtype=self.like.dtype, device=self.like.device)
        return empty.uniform_(generator=self.generator)

    def signed(self, *shape: int) -> Tensor:
        """In [-1, 1)."""
        return 2.0 * self.uniform(*shape) - 1.0
