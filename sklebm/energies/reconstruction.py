r"""E(x, z) = |x - g(z)|^2 with a decoder g; F(x) = E(x, f(x)) with the encoder f."""

from __future__ import annotations

from torch import Tensor, nn


class ReconstructionEnergy(nn.Module):
    """How far a row is from what its code decodes to.

    Parameters
    ----------
    encoder : Module
        The map f from rows, (n_rows, n_features), to codes, (n_rows, n_components).
    decoder : Module
        The map g from codes to rows.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def encode(self, x: Tensor) -> Tensor:
        """f(x), the code of each row, shape (n_rows, n_components)."""
        code: Tensor = self.encoder(x)
        return code

    def decode(self, z: Tensor) -> Tensor:
        """g(z), the row of each code, shape (n_rows, n_features)."""
        row: Tensor = self.decoder(z)
        return row

    def reconstruct(self, x: Tensor) -> Tensor:
        """g(f(x)), shape (n_rows, n_features)."""
        return self.decode(self.encode(x))

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """|x - g(z)|^2, shape (n_rows,)."""
        return (x - self.decode(z)).square().sum(dim=1)

    def free_energy(self, x: Tensor) -> Tensor:
        """|x - g(f(x))|^2, shape (n_rows,): the encoder stands for the minimum over codes."""
        return self.energy(x, self.encode(x))
