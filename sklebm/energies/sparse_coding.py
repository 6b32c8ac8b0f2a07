r"""E(x, z) = 1/2 |x - b - z D|^2 + alpha R(z): a linear decoder with a penalty on its code."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklebm.energies.penalties import Penalty


class SparseCodingEnergy(nn.Module):
    """Squared error of a linear decoder plus a penalty on the code.

    Parameters
    ----------
    dictionary : Tensor or Parameter of shape (n_components, n_features)
        The atoms, rows of D.
    penalty : Penalty
        The penalty R on codes.
    alpha : float
        Weight of the penalty.
    intercept : Tensor of shape (n_features,), optional
        Added to every reconstruction.
    """

    dictionary: Tensor
    intercept: Tensor | None

    def __init__(
        self, dictionary: Tensor, penalty: Penalty, alpha: float, intercept: Tensor | None = None
    ) -> None:
        super().__init__()
        if isinstance(dictionary, nn.Parameter):
            self.dictionary = dictionary
        else:
            self.register_buffer("dictionary", dictionary)
        self.register_buffer("intercept", intercept)
        self.penalty = penalty
        self.alpha = alpha

    def centre(self, x: Tensor) -> Tensor:
        """Rows without the intercept."""
        return x if self.intercept is None else x - self.intercept

    def decode(self, z: Tensor) -> Tensor:
        """The reconstruction z D + b, shape (n_rows, n_features)."""
        decoded = z @ self.dictionary
        return decoded if self.intercept is None else decoded + self.intercept

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) of each row with its own code, shape (n_rows,)."""
        error = (x - self.decode(z)).square().sum(dim=1)
        return 0.5 * error + self.alpha * self.penalty.value(z)


class EncodedSparseCodingEnergy(SparseCodingEnergy):
    """Sparse coding whose codes are predicted: F(x) = E(x, f(x)), never below the minimum over z.

    Parameters
    ----------
    encoder : Module
        The map f from rows, (n_rows, n_features), to codes, (n_rows, n_components).
    dictionary : Tensor of shape (n_components, n_features)
        The atoms, rows of D.
    penalty : Penalty
        The penalty R on codes.
    alpha : float
        Weight of the penalty.
    """

    def __init__(
        self, encoder: nn.Module, dictionary: Tensor, penalty: Penalty, alpha: float
    ) -> None:
        super().__init__(dictionary, penalty, alpha)
        self.encoder = encoder

    def encode(self, x: Tensor) -> Tensor:
        """f(x), the predicted code of each row, shape (n_rows, n_components)."""
        code: Tensor = self.encoder(x)
        return code

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x) = E(x, f(x)) of each row, shape (n_rows,)."""
        # A term for the distance between a code and its prediction would be zero.
        return SparseCodingEnergy.energy(self, x, self.encode(x))


class PredictiveSparseCodingEnergy(EncodedSparseCodingEnergy):
    """E(x, z) = 1/2 |x - z D|^2 + alpha R(z) + weight/2 |z - f(x)|^2: codes that can be predicted.

    Parameters
    ----------
    encoder : Module
        The map f from rows to codes.
    dictionary : Tensor of shape (n_components, n_features)
        The first atoms; they are learnt.
    penalty : Penalty
        The penalty R on codes.
    alpha : float
        Weight of the penalty.
    weight : float
        Weight of the distance between a code and its prediction.
    """

    def __init__(
        self, encoder: nn.Module, dictionary: Tensor, penalty: Penalty, alpha: float, weight: float
    ) -> None:
        super().__init__(encoder, nn.Parameter(dictionary), penalty, alpha)
        self.weight = weight

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) of each row with its own code, shape (n_rows,)."""
        distance = (z - self.encode(x)).square().sum(dim=1)
        return super().energy(x, z) + 0.5 * self.weight * distance

    def atoms(self) -> Tensor:
        """The atoms, those longer than one scaled back to length one."""
        lengths = torch.linalg.vector_norm(self.dictionary, dim=1, keepdim=True)
        scaled: Tensor = self.dictionary / lengths.clamp(min=1.0)
        return scaled
