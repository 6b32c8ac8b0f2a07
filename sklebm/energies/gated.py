r"""E(x, y, z) = U(x) + V(y) - d'z - sum_k z_k x'W_k y: hidden units gate products of two views.

Either W is a full tensor, or it is factored,

    sum_k z_k x'W_k y = sum_f (x'u_f) (y'v_f) (z'g_f),

with U(x) = |x - b|^2 / 2 and V(y) = |y - c|^2 / 2 for real-valued views, -b'x and -c'y for bits.
Given any two of x, y and z, the units of the third are independent; given x, the rest is a
restricted Boltzmann machine of y and z with the weights x'W_k. Summed over z,

    F(x, y) = U(x) + V(y) - sum_k log(1 + exp(d_k + x'W_k y)).

R. Memisevic and G. E. Hinton, "Learning to represent spatial transformations with factored
higher-order Boltzmann machines", Neural Computation 22(6), 2010.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from sklebm.energies.binary_states import binary_states
from sklebm.energies.reference import ReferenceGaussian, ReferenceUnits
from sklebm.energies.units import Units

#: Maximum number of units whose states are summed over.
MAX_SUMMED = 16
# States of the hidden units times rows that a sum over them holds at a time.
_CHUNK = 2**20


class Coupling(Protocol):
    """The third-order term as a function of two of its three arguments."""

    n_hidden: int

    def hidden(self, x: Tensor, y: Tensor) -> Tensor:
        """x'W_k y, (n_rows, n_hidden)."""

    def right(self, x: Tensor, z: Tensor) -> Tensor:
        """sum_k z_k W_k'x, (n_rows, n_right)."""

    def left(self, y: Tensor, z: Tensor) -> Tensor:
        """sum_k z_k W_k y, (n_rows, n_left)."""

    def given_left(self, x: Tensor) -> Tensor:
        """W_k'x of each row: the weights between y and z, (n_rows, n_hidden, n_right)."""

    def tensor(self) -> Tensor:
        """W, (n_hidden, n_left, n_right)."""

    def shrink(self, factor: Tensor) -> None:
        """Multiply W by a number, in place."""


class TensorCoupling(nn.Module):
    """A full tensor: every function costs O(n k d_x d_y).

    Parameters
    ----------
    weights : Tensor of shape (n_hidden, n_left, n_right)
        The matrices W_k.
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.n_hidden = len(weights)

    def hidden(self, x: Tensor, y: Tensor) -> Tensor:
        """x'W_k y, (n_rows, n_hidden)."""
        return (self.given_left(x) @ y.unsqueeze(2)).squeeze(2)

    def right(self, x: Tensor, z: Tensor) -> Tensor:
        """sum_k z_k W_k'x, (n_rows, n_right)."""
        return (z.unsqueeze(1) @ self.given_left(x)).squeeze(1)

    def left(self, y: Tensor, z: Tensor) -> Tensor:
        """sum_k z_k W_k y, (n_rows, n_left)."""
        n_hidden, n_left, n_right = self.weights.shape
        pulled = y @ self.weights.view(n_hidden * n_left, n_right).T
        return (z.unsqueeze(1) @ pulled.view(-1, n_hidden, n_left)).squeeze(1)

    def given_left(self, x: Tensor) -> Tensor:
        """W_k'x of each row, (n_rows, n_hidden, n_right)."""
        n_hidden, n_left, n_right = self.weights.shape
        side_by_side = self.weights.transpose(0, 1).reshape(n_left, n_hidden * n_right)
        return (x @ side_by_side).view(-1, n_hidden, n_right)

    def tensor(self) -> Tensor:
        """W, (n_hidden, n_left, n_right)."""
        return self.weights

    def shrink(self, factor: Tensor) -> None:
        """Multiply W by a number, in place."""
        self.weights.data.mul_(factor)


class FactoredCoupling(nn.Module):
    """W_k = sum_f g_fk u_f v_f': three functions cost O(n f (d_x + d_y + k)).

    Parameters
    ----------
    left_factors : Tensor of shape (n_factors, n_left)
        The filters u_f of x.
    right_factors : Tensor of shape (n_factors, n_right)
        The filters v_f of y.
    hidden_factors : Tensor of shape (n_factors, n_hidden)
        The weights g_f of z.
    """

    def __init__(self, left_factors: Tensor, right_factors: Tensor, hidden_factors: Tensor) -> None:
        super().__init__()
        self.left_factors = nn.Parameter(left_factors)
        self.right_factors = nn.Parameter(right_factors)
        self.hidden_factors = nn.Parameter(hidden_factors)
        self.n_hidden = hidden_factors.shape[1]

    def hidden(self, x: Tensor, y: Tensor) -> Tensor:
        """x'W_k y, (n_rows, n_hidden)."""
        product = (x @ self.left_factors.T) * (y @ self.right_factors.T)
        return product @ self.hidden_factors

    def right(self, x: Tensor, z: Tensor) -> Tensor:
        """sum_k z_k W_k'x, (n_rows, n_right)."""
        return ((x @ self.left_factors.T) * (z @ self.hidden_factors.T)) @ self.right_factors

    def left(self, y: Tensor, z: Tensor) -> Tensor:
        """sum_k z_k W_k y, (n_rows, n_left)."""
        return ((y @ self.right_factors.T) * (z @ self.hidden_factors.T)) @ self.left_factors

    def given_left(self, x: Tensor) -> Tensor:
        """W_k'x of each row, (n_rows, n_hidden, n_right). O(n f k d_y)."""
        gains = (x @ self.left_factors.T).unsqueeze(1) * self.hidden_factors.T
        return gains @ self.right_factors

    def tensor(self) -> Tensor:
        """W, (n_hidden, n_left, n_right)."""
        gains = self.hidden_factors.T.unsqueeze(2) * self.left_factors
        return gains.transpose(1, 2) @ self.right_factors

    def shrink(self, factor: Tensor) -> None:
        """Multiply W by a number, in place."""
        self.hidden_factors.data.mul_(factor)


class GatedEnergy(nn.Module):
    """Two views, hidden units, and the third-order term between them.

    Rows v hold both views side by side, [x | y]. The chain of a sampler alternates between [x | y]
    and [z | x]: ``draw_hidden`` draws z and then, unless x is given, x anew; ``draw_visible`` draws
    y. Block Gibbs therefore samples p(x, y, z), or p(y, z | x) if there are no left units.

    Parameters
    ----------
    left : Units or None
        The units of x; None if x is given, for a model of p(y | x).
    right : Units
        The units of y.
    hidden : Bernoulli
        The hidden units.
    coupling : TensorCoupling or FactoredCoupling
        The third-order term.
    n_left : int
        Number of columns of x.
    """

    def __init__(
        self, left: Units | None, right: Units, hidden: Units, coupling: Coupling, n_left: int
    ) -> None:
        super().__init__()
        self.left, self.right, self.hidden = left, right, hidden
        self.coupling = coupling
        self.n_left = n_left
        #: Rows are (X - offset) / scale; no part of the energy, which sees them so.
        self.offset: Tensor | None = None
        self.scale: Tensor | None = None

    @property
    def domain(self) -> str:
        """The kind of rows."""
        return self.right.domain

    @property
    def is_conditional(self) -> bool:
        """True if x is given."""
        return self.left is None

    @property
    def visible(self) -> Units:
        """The units of both views side by side, as a copy without gradients."""
        left, right = self._left(), self.right
        return right.with_bias(torch.cat([left.bias, right.bias]).detach())

    @property
    def reference(self) -> ReferenceUnits | ReferenceGaussian:
        """Both views without any input."""
        units = self.visible
        if self.domain == "binary":
            return ReferenceUnits(units)
        # Annealing follows its gradient.
        return ReferenceGaussian(units.bias, torch.eye(len(units.bias)).to(units.bias))

    def _left(self) -> Units:
        if self.left is None:
            raise AttributeError(
                "x is given in p(y | x), so its units have no density of their own."
            )
        return self.left

    def split(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """x and y of rows [x | y]."""
        return v[:, : self.n_left], v[:, self.n_left :]

    # ------------------------------------------------------------------ conditionals

    def hidden_field(self, v: Tensor) -> Tensor:
        """d_k + x'W_k y, (n_rows, n_hidden)."""
        return self.hidden.bias + self.coupling.hidden(*self.split(v))

    def hidden_mean(self, v: Tensor) -> Tensor:
        """p(z_k = 1 | x, y), (n_rows, n_hidden)."""
        return self.hidden.mean(self.hidden_field(v))

    def right_mean(self, x: Tensor, z: Tensor) -> Tensor:
        """E[y | x, z], (n_rows, n_right)."""
        return self.right.mean(self.right.bias + self.coupling.right(x, z))

    def left_mean(self, y: Tensor, z: Tensor) -> Tensor:
        """E[x | y, z], (n_rows, n_left)."""
        left = self._left()
        return left.mean(left.bias + self.coupling.left(y, z))

    def draw_hidden(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """[z | x]: z given both views, and x anew given y and z unless it is given."""
        x, y = self.split(v)
        z = self.hidden.draw(self.hidden_mean(v), generator)
        if self.left is not None:
            x = self.left.draw(self.left_mean(y, z), generator)
        return torch.cat([z, x], dim=1)

    def draw_visible(self, h: Tensor, generator: torch.Generator) -> Tensor:
        """[x | y] with y drawn given x and z."""
        z, x = h[:, : self.coupling.n_hidden], h[:, self.coupling.n_hidden :]
        return torch.cat([x, self.right.draw(self.right_mean(x, z), generator)], dim=1)

    # ------------------------------------------------------------------ energies

    def energy(self, v: Tensor, z: Tensor) -> Tensor:
        """E(x, y, z), (n_rows,); without U(x) if x is given."""
        return self._visible_energy(v) + self.hidden.energy(z) - self._third(v, z)

    def _third(self, v: Tensor, z: Tensor) -> Tensor:
        return (self.coupling.hidden(*self.split(v)) * z).sum(dim=1)

    def _visible_energy(self, v: Tensor) -> Tensor:
        x, y = self.split(v)
        energy = self.right.energy(y)
        return energy if self.left is None else energy + self.left.energy(x)

    def free_energy(self, v: Tensor, beta: float = 1.0) -> Tensor:
        """F_beta(x, y) = -1/beta log sum_z exp(-beta E), (n_rows,); without U(x) if x is given."""
        gains = self.hidden.cumulant(beta * self.hidden_field(v)).sum(dim=1)
        return self._visible_energy(v) - gains / beta

    # ------------------------------------------------------------------ normalisers

    def log_normaliser(self, x: Tensor) -> Tensor:
        """log sum_z int exp(-V(y) + d'z + sum_k z_k x'W_k y) dy of each x, (n_rows,).

        With it, log p(y | x) = -F(x, y) + U(x) - log Z(x); without left units there is no U(x).
        Exact: O(n 2^k (k + d_y)) for bits, O(n 2^k k) for real values.

        Raises
        ------
        ValueError
            If there are more than ``MAX_SUMMED`` hidden units.
        """
        n_hidden = self.coupling.n_hidden
        check_summed(n_hidden)
        sums = self._quadratic_sums if self.domain == "real" else self._summed_states
        step = max(1, _CHUNK >> n_hidden)
        return torch.cat([sums(self.coupling.given_left(part)) for part in torch.split(x, step)])

    def _summed_states(self, weights: Tensor) -> Tensor:
        """The sum over all z, for the weights of each row."""
        parts = []
        for z in binary_states(len(self.hidden.bias), weights):
            field = self.right.bias + z @ weights
            parts.append(self.right.cumulant(field).sum(dim=2) - self.hidden.energy(z))
        return torch.logsumexp(torch.cat(parts, dim=1), dim=1)

    def _quadratic_sums(self, weights: Tensor) -> Tensor:
        """The same for real values, where the exponent is quadratic in z.

        (|c + sum_k z_k w_k|^2 - |c|^2) / 2 is z'Gz / 2 + z'Wc. Of the two halves of z, either has
        few states, so that only the products between them are computed for all pairs.
        """
        gram = weights @ weights.transpose(1, 2)
        linear = self.hidden.bias + weights @ self.right.bias
        cut = gram.shape[1] // 2
        first, second = (next(binary_states(n, weights)) for n in (cut, gram.shape[1] - cut))
        own = [
            0.5 * ((z @ gram[:, part, part]) * z).sum(dim=2) + linear[:, part] @ z.T
            for z, part in ((first, slice(cut)), (second, slice(cut, None)))
        ]
        crossed = first @ gram[:, :cut, cut:] @ second.T
        exponent = own[0].unsqueeze(2) + own[1].unsqueeze(1) + crossed
        base = self.right.cumulant(self.right.bias).sum()
        return torch.logsumexp(exponent.flatten(1), dim=1) + base

    @property
    def summed_units(self) -> int:
        """Number of units that an exact log Z of both views sums over."""
        n_units = self._n_summed()
        if n_units > MAX_SUMMED:
            raise AttributeError("log Z cannot be summed")
        return n_units

    def _n_summed(self) -> int:
        n_bits = 0 if self.domain == "real" else min(self.n_left, len(self.right.bias))
        return self.coupling.n_hidden + n_bits

    def exact_log_partition(self) -> Tensor:
        """log Z of both views, summed over the hidden units (and the smaller view, of bits).

        O(2^k d^3) for real values, whose integral is Gaussian given z.

        Raises
        ------
        ValueError
            If it sums over more than ``MAX_SUMMED`` units.
        """
        check_summed(self._n_summed())
        parts = (self._integrated if self.domain == "real" else self._enumerated)()
        return torch.logsumexp(torch.cat(list(parts)), dim=0)

    def _integrated(self) -> Iterator[Tensor]:
        """log int exp(-E(x, y, z)) dx dy for all z."""
        left, tensor = self._left(), self.coupling.tensor()
        b, c = left.bias, self.right.bias
        rest = 0.5 * (len(b) + len(c)) * math.log(2.0 * math.pi) - 0.5 * b.square().sum()
        for z in binary_states(len(tensor), b, max(1, _CHUNK // tensor[0].numel())):
            matrices = torch.tensordot(z, tensor, dims=1)
            precision = torch.eye(len(b)).to(b) - matrices @ matrices.transpose(1, 2)
            factor = torch.linalg.cholesky(precision)
            pushed = (b + matrices @ c).unsqueeze(2)
            white = torch.linalg.solve_triangular(factor, pushed, upper=False)
            log_determinant = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
            square = 0.5 * white.square().sum(dim=(1, 2))
            yield rest + square - log_determinant - self.hidden.energy(z)

    def _enumerated(self) -> Iterator[Tensor]:
        """log sum_y exp(-E(x, y, z)) for all x and z, or log sum_x for all y and z."""
        left, right = self._left(), self.right
        of_right = len(left.bias) <= len(right.bias)
        listed, summed = (left, right) if of_right else (right, left)
        push = self.coupling.right if of_right else self.coupling.left
        n_listed = len(listed.bias)
        for both in binary_states(n_listed + self.coupling.n_hidden, left.bias):
            view, z = both[:, :n_listed], both[:, n_listed:]
            cumulant = summed.cumulant(summed.bias + push(view, z)).sum(dim=1)
            yield cumulant - listed.energy(view) - self.hidden.energy(z)

    def norm(self) -> Tensor:
        """sum_k |W_k|_2: real-valued views have a joint density if it is below 1.

        An upper bound, if that is below 1 already: sum_k sqrt(|W_k|_1 |W_k|_inf). O(k d^3).
        """
        tensor = self.coupling.tensor().detach()
        sums = (tensor.abs().sum(dim=axis).amax(dim=1) for axis in (1, 2))
        bound = torch.stack(list(sums)).prod(dim=0).sqrt().sum()
        if bool(bound < 1.0):
            return bound
        norm: Tensor = torch.linalg.matrix_norm(tensor, ord=2).sum()
        return norm


def check_summed(n_units: int) -> None:
    """Raise ValueError if there are too many units for a sum over their states."""
    if n_units > MAX_SUMMED:
        raise ValueError(
            f"An exact log Z sums over 2^{n_units} states, more than 2^{MAX_SUMMED}: anneal "
            "instead, or train with an objective that does not need it."
        )
