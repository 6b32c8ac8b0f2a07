r"""z_0 = h(W x), z_t = h(W x + S z_{t-1}) for t = 1..T: solvers of sparse codes as networks.

h is the soft threshold. With the weights of a solver every layer is one of its steps; learnt
weights need far fewer.

K. Gregor and Y. LeCun, "Learning fast approximations of sparse coding", ICML 2010; X. Chen et al.,
"Theoretical linear convergence of unfolded ISTA and its practical weights and thresholds", NeurIPS
2018; J. Liu et al., "ALISTA: analytic weights are as good as learned weights in LISTA", ICLR 2019.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sklebm.inference.sparse_problem import largest_eigenvalue

Variant = Literal["lista", "lcod", "coupled"]


def shrink(v: Tensor, threshold: Tensor) -> Tensor:
    """Soft threshold; a learnt threshold that became negative counts by its size."""
    # Clamping between two tensors takes twice as long: its gradient has a mask for each of them.
    return torch.sign(v.detach()) * torch.relu(v.abs() - threshold.abs())


def _each(stack: Tensor) -> list[Tensor]:
    """The entries of the first axis, at once: single ones each have a gradient of the full size."""
    return [stack.squeeze(0)] if len(stack) == 1 else list(stack.unbind())


class UnfoldedEncoder(nn.Module, ABC):
    """Base of encoders that unfold a solver; ``forward(x)`` is the code of each row.

    Parameters
    ----------
    weights : Tensor of shape (n_matrices, n_components, n_features)
        W: one matrix for all layers, or one for each.
    thresholds : Tensor of shape (n_layers + 1, n_components) or (n_layers + 1, 1)
        Thresholds of the first shrink and of each layer.
    """

    def __init__(self, weights: Tensor, thresholds: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.thresholds = nn.Parameter(thresholds)

    def forward(self, x: Tensor) -> Tensor:
        """Codes after the last layer, shape (n_rows, n_components)."""
        return self.layers(x)[-1]

    @abstractmethod
    def layers(self, x: Tensor) -> list[Tensor]:
        """Codes after the first shrink and after each of the T layers."""

    def matrices(self) -> list[nn.Parameter]:
        """The weights that are no thresholds."""
        return [self.weights]

    def _drives(self, x: Tensor) -> list[Tensor]:
        """W x for each layer; the same tensor where the layers share W."""
        products = [x @ matrix.T for matrix in _each(self.weights)]
        return products * (len(self.thresholds) if len(products) == 1 else 1)


class _LateralEncoder(UnfoldedEncoder):
    """Base of encoders with a matrix S between the entries of the code.

    Parameters
    ----------
    weights : Tensor of shape (n_matrices, n_components, n_features)
        W: one matrix for all layers, or one for each.
    thresholds : Tensor of shape (n_layers + 1, n_components)
        Thresholds of the first shrink and of each layer.
    lateral : Tensor of shape (n_matrices, n_components, n_components)
        S: one matrix for all layers, or one for each but the first shrink.
    mask : Tensor of shape (n_components, n_components), optional
        1 where S may differ from zero, else 0.
    """

    mask: Tensor | None

    def __init__(
        self, weights: Tensor, thresholds: Tensor, lateral: Tensor, mask: Tensor | None = None
    ) -> None:
        super().__init__(weights, thresholds)
        self.lateral = nn.Parameter(lateral)
        self.register_buffer("mask", mask)

    def matrices(self) -> list[nn.Parameter]:
        """The weights that are no thresholds."""
        return [self.weights, self.lateral]

    def _laterals(self) -> list[Tensor]:
        """S of each layer after the first shrink."""
        masked = self.lateral if self.mask is None else self.lateral * self.mask
        return _each(masked) * ((len(self.thresholds) - 1) if len(masked) == 1 else 1)


class ListaEncoder(_LateralEncoder):
    """z_t = h_t(W_t x + S_t z_{t-1}): unfolded ISTA."""

    def layers(self, x: Tensor) -> list[Tensor]:
        """Codes after the first shrink and after each of the T layers."""
        drives, thresholds = self._drives(x), _each(self.thresholds)
        codes = [shrink(drives[0], thresholds[0])]
        for t, matrix in enumerate(self._laterals(), start=1):
            codes.append(shrink(torch.addmm(drives[t], codes[-1], matrix.T), thresholds[t]))
        return codes


class LcodEncoder(_LateralEncoder):
    """Unfolded coordinate descent: T moves of one entry each, then a shrink of all.

    In each row a layer moves the entry that would move most, and adds its change times a column of
    S to the inputs of the other entries.
    """

    def layers(self, x: Tensor) -> list[Tensor]:
        """Codes of the closing shrink after 0, 1, ..., T moves."""
        inputs, thresholds = x @ self.weights[0].T, _each(self.thresholds)
        z = torch.zeros_like(inputs)
        codes = [shrink(inputs, thresholds[0])]
        for t, matrix in enumerate(self._laterals(), start=1):
            change = codes[-1] - z
            chosen = change.detach().abs().argmax(dim=1, keepdim=True)
            z = z.scatter(1, chosen, codes[-1].gather(1, chosen))
            inputs = inputs + change.gather(1, chosen) * matrix.T[chosen[:, 0]]
            codes.append(shrink(inputs, thresholds[t]))
        return codes


class CoupledEncoder(UnfoldedEncoder):
    """z_t = h_t(z_{t-1} + g_t W_t (x - z_{t-1} D)): W and S are tied through the dictionary.

    Any network of this kind that recovers codes has weights that obey the tie in the end. Entries
    that are surely in the support need no threshold (Chen et al., 2018).

    Parameters
    ----------
    weights : Tensor of shape (n_matrices, n_components, n_features)
        W: one matrix for all layers, or one for each.
    thresholds : Tensor of shape (n_layers + 1, n_components) or (n_layers + 1, 1)
        Thresholds of the first shrink and of each layer.
    steps : Tensor of shape (n_layers + 1,)
        g.
    dictionary : Tensor of shape (n_components, n_features)
        D, held fixed.
    selection_rate : float
        Share of the entries that the first shrink lets pass as they are, the largest ones; t + 1
        times as many in layer t.
    max_selection : float
        Largest such share.
    """

    dictionary: Tensor

    def __init__(
        self,
        weights: Tensor,
        thresholds: Tensor,
        steps: Tensor,
        dictionary: Tensor,
        selection_rate: float = 0.0,
        max_selection: float = 0.0,
    ) -> None:
        super().__init__(weights, thresholds)
        self.steps = nn.Parameter(steps)
        # The energy keeps it too: one copy is enough in files.
        self.register_buffer("dictionary", dictionary, persistent=False)
        self.selection_rate = selection_rate
        self.max_selection = max_selection

    def layers(self, x: Tensor) -> list[Tensor]:
        """Codes after the first shrink and after each of the T layers."""
        z = x.new_zeros(len(x), len(self.dictionary))
        codes: list[Tensor] = []
        for t in range(len(self.thresholds)):
            residual = torch.addmm(x, z, self.dictionary, alpha=-1.0) if codes else x
            matrix = self.weights[t % len(self.weights)]
            v = z + self.steps[t] * (residual @ matrix.T)
            share = min(self.selection_rate * (t + 1), self.max_selection)
            z = _shrink_all_but_largest(v, self.thresholds[t], int(share * v.shape[1]))
            codes.append(z)
        return codes


def _shrink_all_but_largest(v: Tensor, threshold: Tensor, n_kept: int) -> Tensor:
    """Soft threshold; the ``n_kept`` largest entries of a row pass whole if they pass at all."""
    z = shrink(v, threshold)
    if not n_kept:
        return z
    largest = v.detach().abs().topk(n_kept, dim=1).indices
    passes = torch.zeros_like(v, dtype=torch.bool).scatter_(1, largest, True) & (z != 0)
    return torch.where(passes, v, z)


# ---------------------------------------------------------------------- first weights


@dataclass(frozen=True)
class Unfolding:
    """Which solver is unfolded, and how far.

    Parameters
    ----------
    variant : {"lista", "lcod", "coupled"}
        The solver: ISTA, coordinate descent, or ISTA with W and S tied through the dictionary.
    n_layers : int
        T, the layers after the first shrink.
    shared : bool
        Whether all layers have the same matrices. Thresholds are each layer's own.
    selection_rate, max_selection : float
        Of ``CoupledEncoder``.
    """

    variant: Variant
    n_layers: int
    shared: bool = True
    selection_rate: float = 0.0
    max_selection: float = 0.0

    def start(
        self,
        dictionary: Tensor,
        alpha: float,
        *,
        analytic: bool = False,
        mask: Tensor | None = None,
    ) -> UnfoldedEncoder:
        """The encoder whose layers are steps of the solver for this dictionary and alpha.

        With ``analytic``, W is the matrix of least coherence instead, and steps have length one.
        """
        if self.variant == "lcod":
            curvature = dictionary.square().sum(dim=1, keepdim=True)
            weights = dictionary / curvature
            lateral = -(weights @ dictionary.T)
            lateral.fill_diagonal_(0.0)
            return self.assemble(dictionary, weights, alpha / curvature[:, 0], lateral, mask)
        if analytic:
            weights, step = analytic_weights(dictionary), 1.0
        else:
            tiny = torch.finfo(dictionary.dtype).tiny
            step = 1.0 / max(largest_eigenvalue(dictionary), tiny)
            weights = step * dictionary
        lateral = -(weights @ dictionary.T)
        lateral.diagonal().add_(1.0)
        threshold = dictionary.new_full((len(dictionary),), step * alpha)
        return self.assemble(dictionary, weights, threshold, lateral, mask)

    def assemble(
        self,
        dictionary: Tensor,
        weights: Tensor,
        threshold: Tensor,
        lateral: Tensor,
        mask: Tensor | None = None,
    ) -> UnfoldedEncoder:
        """The encoder all of whose layers have these matrices and thresholds."""
        thresholds = threshold.repeat(self.n_layers + 1, 1)
        if self.variant == "coupled":
            return CoupledEncoder(
                self._copies(weights, self.n_layers + 1),
                thresholds,
                dictionary.new_ones(self.n_layers + 1),
                dictionary,
                self.selection_rate,
                self.max_selection,
            )
        # Coordinate descent computes W x once: there is no second W to learn.
        kind, n_weights = {
            "lista": (ListaEncoder, self.n_layers + 1),
            "lcod": (LcodEncoder, 1),
        }[self.variant]
        copies = self._copies(weights, n_weights), self._copies(lateral, self.n_layers)
        return kind(copies[0], thresholds, copies[1], None if mask is None else mask.to(lateral))

    def _copies(self, matrix: Tensor, count: int) -> Tensor:
        return matrix.repeat(min(1, count) if self.shared else count, 1, 1)


def analytic_weights(dictionary: Tensor) -> Tensor:
    """W of least coherence with the atoms: argmin sum_j (w_k'd_j)^2 with w_k'd_k = 1, row by row.

    In closed form w_k is C^-1 d_k, scaled, with C = D'D (Liu et al., 2019, solve it by descent).
    O(d^2 k + d^3).
    """
    moments = dictionary.T @ dictionary
    directions = dictionary @ torch.linalg.pinv(moments, hermitian=True)
    weights: Tensor = directions / (directions * dictionary).sum(dim=1, keepdim=True)
    return weights


def strongest_pairs(dictionary: Tensor, share: float) -> Tensor:
    """A mask of the ``share`` of pairs of atoms with the largest products, and of all diagonals.

    The codes of other pairs hardly compete for the same part of a row.
    """
    products = (dictionary @ dictionary.T).abs()
    n_components = len(products)
    above = torch.triu_indices(n_components, n_components, offset=1, device=products.device)
    n_kept = round(share * above.shape[1])
    kept = above[:, products[above[0], above[1]].argsort(descending=True, stable=True)[:n_kept]]
    mask = torch.eye(n_components, dtype=dictionary.dtype, device=dictionary.device)
    mask[kept[0], kept[1]] = 1.0
    mask[kept[1], kept[0]] = 1.0
    return mask
