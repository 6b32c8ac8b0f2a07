r"""F(x) = mean over masks m of |m * (x - g(f(x with m hidden)))|^2: predicting hidden patches.

The masks are fixed: every patch is visible in one of them and hidden in the others.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sklebm.energies.reconstruction import ReconstructionEnergy


def patch_numbers(shape: tuple[int, ...], patch_size: int) -> Tensor:
    """The patch that each entry of a row belongs to, shape (n_features,).

    Images (channels, height, width) are cut into squares, which may be smaller at the border;
    all channels of a pixel belong to one patch. Rows of numbers are cut into runs.
    """
    if len(shape) == 1:
        return torch.arange(shape[0]) // patch_size
    channels, height, width = shape
    n_columns = -(-width // patch_size)
    row = torch.arange(height)[:, None] // patch_size
    column = torch.arange(width)[None, :] // patch_size
    return (row * n_columns + column).flatten().repeat(channels)


class MaskedReconstructionEnergy(ReconstructionEnergy):
    """Squared error of predicting hidden patches from the visible ones.

    Parameters
    ----------
    encoder, decoder : Module
        See ``ReconstructionEnergy``.
    patches : Tensor of shape (n_features,)
        Number of the patch of each entry.
    masked_fraction : float
        Fraction of the patches that are hidden.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, patches: Tensor, masked_fraction: float
    ) -> None:
        super().__init__(encoder, decoder)
        self.n_patches = int(patches.max()) + 1
        most = max(self.n_patches - 1, 1)
        self.n_hidden = min(max(round(masked_fraction * self.n_patches), 1), most)
        # Not part of the state: determined by the architecture.
        self.register_buffer("patches", patches, persistent=False)
        # Replacement for hidden entries: the mean row of the training data.
        self.register_buffer("filling", torch.zeros(len(patches)))

    def draw_hidden_entries(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Hidden patches of each row, as True at their entries, (n_rows, n_features)."""
        patches = self.get_buffer("patches")
        keys = torch.empty(n_rows, self.n_patches, device=patches.device)
        keys.uniform_(generator=generator)
        hidden = keys.argsort(dim=1).argsort(dim=1) < self.n_hidden
        return hidden[:, patches]

    def hide(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Standardised rows with the filling where ``hidden`` is True.

        Visible entries are moved away from it in proportion to the fraction hidden, so that sums in
        the first layer are on average those of a whole row.
        """
        filling = self.get_buffer("filling").to(x.dtype)
        scale = self.n_patches / max(self.n_patches - self.n_hidden, 1)
        return torch.where(hidden, filling, torch.lerp(filling.expand_as(x), x, scale))

    def fixed_masks(self) -> Tensor:
        """The masks of ``free_energy``, True where hidden, (n_masks, n_features)."""
        patches = self.get_buffer("patches")
        if self.n_patches == 1:
            return torch.ones(1, len(patches), dtype=torch.bool, device=patches.device)
        order = torch.randperm(self.n_patches, generator=torch.Generator().manual_seed(0))
        n_visible = self.n_patches - self.n_hidden
        place = torch.empty_like(order)
        place[order] = torch.arange(self.n_patches)
        group = place // n_visible
        masks = [group != number for number in range(math.ceil(self.n_patches / n_visible))]
        return torch.stack(masks).to(patches.device)[:, patches]

    def free_energy(self, x: Tensor) -> Tensor:
        """Squared error of each entry, averaged over the masks that hide it, shape (n_rows,)."""
        masks = self.fixed_masks()
        y = self.standardized(x)
        total = torch.zeros_like(y)
        for hidden in masks:
            errors = (y - self.decoder(self.encoder(self.hide(y, hidden)))).square()
            total = total + errors * hidden
        return self.in_units_of_rows((total / masks.sum(dim=0)).sum(dim=1))
