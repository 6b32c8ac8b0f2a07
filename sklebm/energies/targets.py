r"""F(x, y) = |g|^2 / 2 + f(x, g), g = (y - m(x)) / s: a network on top of linear regression.

m(x) is linear and s the scale of its residuals, one for each output. Without a network the energy
is that of a Gaussian with mean m(x). The network grows at most linearly with g, so that the
integral of exp(-F) over y is finite for every x. Everything about y happens in the coordinates g.

J. Ngiam et al. and F. K. Gustafsson et al. use such energies for images and for regression:
"Energy-based models for deep probabilistic regression", ECCV 2020.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sklebm.energies.standardization import Standardization


class TargetEnergy(nn.Module):
    """An energy of rows and real targets.

    Parameters
    ----------
    network : Module or None
        f, from [u, g] of shape (n, d + m), u the standardised row, to (n, 1).
    coef : Tensor of shape (m, d)
        Slopes of m(x), in the units of x and y.
    intercept : Tensor of shape (m,)
        m(0).
    residual_scale : Tensor of shape (m,)
        The scales s.
    reach : float
        Distance in g within which an integral over y looks first.
    """

    domain = "real"
    record: Any
    scaling: Any
    coef: Tensor
    intercept: Tensor
    residual_scale: Tensor

    def __init__(
        self,
        network: nn.Module | None,
        coef: Tensor,
        intercept: Tensor,
        residual_scale: Tensor,
        reach: float,
    ) -> None:
        super().__init__()
        self.network = network
        self.reach = reach
        self.standardization: Standardization | None = None
        for name, value in (
            ("coef", coef),
            ("intercept", intercept),
            ("residual_scale", residual_scale),
        ):
            self.register_buffer(name, value, persistent=False)  # fitted attributes hold them

    @property
    def n_outputs(self) -> int:
        """Number m of numbers in y."""
        return len(self.intercept)

    def inputs(self, x: Tensor) -> Tensor:
        """What the network sees of rows, (n, d)."""
        return x if self.standardization is None else self.standardization(x)

    def mean(self, x: Tensor) -> Tensor:
        """m(x), (n, m)."""
        return torch.addmm(self.intercept, x, self.coef.T)

    def coordinates(self, x: Tensor, y: Tensor) -> Tensor:
        """g of y, (n, ..., m), for rows x (n, d)."""
        centre = self.mean(x).reshape(len(x), *[1] * (y.dim() - 2), -1)
        return (y - centre) / self.residual_scale

    def restore(self, x: Tensor, g: Tensor) -> Tensor:
        """y of the coordinates g, (n, ..., m)."""
        centre = self.mean(x).reshape(len(x), *[1] * (g.dim() - 2), -1)
        return centre + self.residual_scale * g

    def target_energy(self, u: Tensor, g: Tensor) -> Tensor:
        """F of k targets for each row, (n, k), given u (n, d) and g (n, k, m)."""
        square = 0.5 * g.square().sum(dim=-1)
        if self.network is None:
            return square
        n_rows, k, _ = g.shape
        first = self.network[0] if isinstance(self.network, nn.Sequential) else None
        if isinstance(first, nn.Linear):  # the part of the row is the same for all its targets
            d = u.shape[1]
            of_row = torch.addmm(first.bias, u, first.weight[:, :d].T)
            h = of_row[:, None] + g @ first.weight[:, d:].T
            outputs = self.network[1:](h.reshape(n_rows * k, -1))  # type: ignore[index]
        else:
            pairs = torch.cat([u[:, None].expand(-1, k, -1), g], dim=2)
            outputs = self.network(pairs.reshape(n_rows * k, -1))
        return square + outputs.reshape(n_rows, k)  # type: ignore[no-any-return]

    @torch.no_grad()
    def level(self) -> dict[str, float]:
        """f(0, 0), under the name of the bias of the last linear layer; empty without such a layer.

        A constant does not change p(y | x), so that the gradient of this bias is rounding, from
        which Adam makes steps as long as any: its value is arbitrary unless f(0, 0) is taken off.
        """
        name, last = "network", self.network
        if isinstance(last, nn.Sequential):
            name, last = f"network.{len(last) - 1}", last[-1]
        if not isinstance(last, nn.Linear) or last.bias is None:
            return {}
        n_features = self.coef.shape[1]
        u, g = last.bias.new_zeros((1, n_features)), last.bias.new_zeros((1, 1, self.n_outputs))
        return {f"{name}.bias": float(self.target_energy(u, g))}

    def energy(self, x: Tensor, y: Tensor) -> Tensor:
        """F(x, y) of a target for each row, (n,), given y (n, m)."""
        g = self.coordinates(x, y)
        return self.target_energy(self.inputs(x), g[:, None])[:, 0]


class EnergyGivenRow(nn.Module):
    """F(x, .) of fixed rows as an energy of the coordinates g, for samplers and for descent.

    Parameters
    ----------
    energy : TargetEnergy
        The energy.
    u : Tensor of shape (n, d)
        What its network sees of the rows.
    """

    domain = "real"

    def __init__(self, energy: TargetEnergy, u: Tensor) -> None:
        super().__init__()
        self.whole, self.u = energy, u

    def free_energy(self, g: Tensor) -> Tensor:
        """F, (n,), one g (n, m) for each row."""
        return self.whole.target_energy(self.u, g[:, None])[:, 0]
