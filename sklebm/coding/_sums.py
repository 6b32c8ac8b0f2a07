r"""Sums over rows x and their codes z: A = sum z z', B = sum z x', and those for an intercept."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.ranks import Ranks


class Totals:
    """Fields that are sums over rows, in float64; a dataclass derives from it."""

    def over(self, ranks: Ranks) -> Self:
        """Sums over the rows of all ranks."""
        return type(self)(*ranks.sum_each(getattr(self, field.name) for field in _fields(self)))

    def fade_and_add(self, share: float, other: Self) -> None:
        """Keep this ``share`` of the sums and add others."""
        for field in _fields(self):
            getattr(self, field.name).mul_(share).add_(getattr(other, field.name))

    def export(self, prefix: str) -> dict[str, Any]:
        """As a flat dictionary of arrays."""
        return {
            f"{prefix}.{field.name}": getattr(self, field.name).cpu().numpy().copy()
            for field in _fields(self)
        }

    @classmethod
    def restore(cls, state: dict[str, Any], prefix: str, device: torch.device) -> Self:
        """A copy of what ``export`` returned."""
        return cls(
            *(
                torch.from_numpy(np.array(state[f"{prefix}.{field.name}"])).to(device)
                for field in _fields(cls)
            )
        )


def _fields(totals: Any) -> tuple[Field[Any], ...]:
    return fields(totals)


@dataclass
class Sums(Totals):
    """Sums over rows and their codes, in float64."""

    code_products: Tensor
    row_products: Tensor
    code_sum: Tensor
    row_sum: Tensor
    weight: Tensor

    @classmethod
    def zero(cls, atoms: Tensor) -> Sums:
        """The sums over no rows."""
        n_components, n_features = atoms.shape
        shapes: tuple[tuple[int, ...], ...] = (
            (n_components, n_components),
            (n_components, n_features),
            (n_components,),
            (n_features,),
            (),
        )
        return cls(
            *(torch.zeros(shape, dtype=torch.float64, device=atoms.device) for shape in shapes)
        )

    def add(self, z: Tensor, x: Tensor) -> None:
        """Add rows with their codes."""
        z, x = z.double(), x.double()
        self.code_products.addmm_(z.T, z)
        self.row_products.addmm_(z.T, x)
        self.code_sum += z.sum(dim=0)
        self.row_sum += x.sum(dim=0)
        self.weight += len(x)

    def usage(self) -> Tensor:
        """Sum of squares of the codes of each atom."""
        return self.code_products.diagonal()

    def forget(self, atoms: Tensor) -> None:
        """Remove what was summed for atoms that are being replaced."""
        self.code_products[atoms] = 0.0
        self.code_products[:, atoms] = 0.0
        self.row_products[atoms] = 0.0
        self.code_sum[atoms] = 0.0
