r"""E(x, z) = |f(x) - z|^2 / s^2, F(x) = min_k E(x, w_k): low near prototypes w_k of embeddings f.

s^2 is the mean squared distance of training embeddings from their mean, so that F is the share of
their spread that the prototypes do not explain, whatever the scale of f.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sklebm.energies.prototypes import PrototypeEnergy
from sklebm.energies.standardization import Standardization


class EmbeddingEnergy(nn.Module):
    """An encoder with projection heads, and prototypes of its embeddings.

    Parameters
    ----------
    encoder : Module
        The map from rows, (n_rows, n_features), to codes, (n_rows, n_components).
    heads : sequence of Module
        Maps from codes to what the objective compares; the identity if there is none.
    unit_length : bool
        Whether embeddings and projections are divided by their length.
    keep_head : bool
        Whether the embedding includes the first head.

    Attributes
    ----------
    standardization : Standardization or None
        Applied to rows before the encoder; None during training.
    prototypes : PrototypeEnergy or None
        The prototypes w_k; None during training.
    spread : float
        s^2.
    views : PairedViews or None
        Where the objective gets its pairs from; None outside training.
    held_out_views : PairedViews or None
        Where those of rows come from by which training is judged.
    """

    views: Any
    held_out_views: Any
    n_rows: int
    n_projected: int
    standardization: Standardization | None
    prototypes: PrototypeEnergy | None

    def __init__(
        self, encoder: nn.Module, heads: Sequence[nn.Module], *, unit_length: bool, keep_head: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(heads)
        self.unit_length = unit_length
        self.keep_head = keep_head
        self.standardization = None
        self.prototypes = None
        self.spread = 1.0
        self.views = self.held_out_views = None
        self.n_rows = 0

    def forward(self, x: Tensor) -> Tensor:
        """``project(x)``."""
        return self.project(x)

    def project(self, x: Tensor, head: int = 0) -> Tensor:
        """What the objective compares, (n_rows, n_projected)."""
        out: Tensor = self.heads[head](self.encoder(x))
        return to_unit_length(out) if self.unit_length else out

    def pairs(self, batch: Any, generator: torch.Generator, *, keep_first: bool = False) -> Any:
        """Two views of each row."""
        return self.views.pairs(batch, generator, keep_first=keep_first)

    def embed(self, x: Tensor) -> Tensor:
        """f(x), (n_rows, n_components), or the width of the head."""
        y = x if self.standardization is None else self.standardization(x)
        out: Tensor = self.encoder(y)
        if self.keep_head:
            out = self.heads[0](out)
        return to_unit_length(out) if self.unit_length else out

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z), (n_rows,)."""
        return (self.embed(x) - z).square().sum(dim=1) / self.spread

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x), (n_rows,)."""
        assert self.prototypes is not None  # noqa: S101
        return self.prototypes.free_energy(self.embed(x)) / self.spread


def to_unit_length(z: Tensor) -> Tensor:
    """Rows divided by their length.

    A row of zeros, such as one for which all units of a layer are off, stays as it is, and lengths
    below 0.001 count as 0.001: the gradient of a direction is one over the length.
    """
    # Squares of large numbers overflow, and a row over infinity would be one of zeros.
    largest = z.detach().abs().amax(dim=1, keepdim=True)
    is_huge = largest > torch.finfo(z.dtype).max ** 0.25
    return nn.functional.normalize(z / torch.where(is_huge, largest, 1.0), dim=1, eps=1e-3)


def effective_rank(embeddings: Tensor) -> float:
    """exp of the entropy of the eigenvalues of the covariance, as shares; 0 without variance.

    O. Roy and M. Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO
    2007.
    """
    z = embeddings.double()
    centred = z - z.mean(dim=0)
    # A variance below the rounding of single precision is none.
    if float(centred.square().mean()) <= 1e-10 * float(z.square().mean()):
        return 0.0
    shares = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0.0)
    shares = shares / shares.sum()
    return float(torch.special.entr(shares).sum().exp())
