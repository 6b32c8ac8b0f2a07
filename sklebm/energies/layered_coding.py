r"""E(x, z) = sum_l 1/2 |z_{l-1} - z_l D_l|^2 + alpha_l R(z_l), with z_0 = x: codes of codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sklebm.energies.penalty import Penalty


class LayeredCodingEnergy(nn.Module):
    """Linear decoders on top of each other, with a penalty on every code.

    Parameters
    ----------
    dictionaries : sequence of Tensor of shape (width, width of the layer below)
        The atoms of each layer, those that describe rows first.
    penalty : Penalty
        R.
    alphas : sequence of float
        Its weight in each layer.
    """

    def __init__(
        self, dictionaries: Sequence[Tensor], penalty: Penalty, alphas: Sequence[float]
    ) -> None:
        super().__init__()
        for index, dictionary in enumerate(dictionaries, start=1):
            self.register_buffer(f"dictionary{index}", dictionary)
        self.penalty, self.alphas = penalty, tuple(alphas)

    @property
    def dictionaries(self) -> list[Tensor]:
        """The atoms of each layer."""
        return [self.get_buffer(f"dictionary{i}") for i in range(1, len(self.alphas) + 1)]

    def split(self, z: Tensor) -> tuple[Tensor, ...]:
        """The codes of each layer, out of those of all layers side by side."""
        return torch.split(z, [len(dictionary) for dictionary in self.dictionaries], dim=1)

    def decode(self, z: Tensor) -> Tensor:
        """The reconstruction z_1 D_1, shape (n_rows, n_features)."""
        return self.split(z)[0] @ self.dictionaries[0]

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) of each row with its own codes, shape (n_rows,)."""
        total, below = x.new_zeros(len(x)), x
        for code, atoms, alpha in zip(self.split(z), self.dictionaries, self.alphas, strict=True):
            total = total + 0.5 * (below - code @ atoms).square().sum(dim=1)
            price = self.penalty.value(code)
            # 0 times infinity: a forbidden code stays forbidden where the penalty has no weight.
            total = total + torch.where(torch.isinf(price), price, alpha * price)
            below = code
        return total
