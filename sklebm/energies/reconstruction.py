r"""E(x, z) = |x - g(z)|^2 with a decoder g; F(x) = E(x, f(x)) with the encoder f."""

from __future__ import annotations

from torch import Tensor, nn

from sklebm.energies.standardization import Standardization


class ReconstructionEnergy(nn.Module):
    """Squared distance between a row and its decoded code.

    Parameters
    ----------
    encoder : Module
        The map f from rows, (n_rows, n_features), to codes, (n_rows, n_components).
    decoder : Module
        The map g from codes to rows.

    Attributes
    ----------
    standardization : Standardization or None
        Applied to rows before the encoder and inverted after the decoder; with one scale for all
        features. None during training, when rows are standardised already.
    """

    standardization: Standardization | None

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.standardization = None

    def standardized(self, x: Tensor) -> Tensor:
        """The encoder's view of the rows."""
        y: Tensor = x if self.standardization is None else self.standardization(x)
        return y

    def in_units_of_rows(self, errors: Tensor) -> Tensor:
        """Squared errors of rows from those of standardised rows."""
        if self.standardization is None:
            return errors
        return errors * self.standardization.unit().square()

    def encode(self, x: Tensor) -> Tensor:
        """f(x), the code of each row, shape (n_rows, n_components)."""
        code: Tensor = self.encoder(self.standardized(x))
        return code

    def decode(self, z: Tensor) -> Tensor:
        """g(z), the row of each code, shape (n_rows, n_features)."""
        row: Tensor = self.decoder(z)
        return row if self.standardization is None else self.standardization.restore(row)

    def reconstruct(self, x: Tensor) -> Tensor:
        """g(f(x)), shape (n_rows, n_features)."""
        return self.decode(self.encode(x))

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """|x - g(z)|^2, shape (n_rows,)."""
        errors = (self.standardized(x) - self.decoder(z)).square().sum(dim=1)
        return self.in_units_of_rows(errors)

    def free_energy(self, x: Tensor) -> Tensor:
        """|x - g(f(x))|^2, shape (n_rows,): the encoder replaces the minimum over codes."""
        return self.energy(x, self.encode(x))
