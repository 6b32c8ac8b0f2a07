r"""Maps of maps: by one threshold a layer, layer by layer, or all layers' energy at its minimum.

E(x, z) = sum_l 1/2 |z_{l-1} - D_l * z_l|^2 + alpha_l |z_l|_1 with z_0 = x is one lasso for all
layers, as with dense dictionaries (``sklebm.inference.layered_coding``): its matrix

    M = [D_1  -I       ]
        [     D_2  -I  ]
        [          D_3 ]

is applied by Fourier transforms, and formed only where it is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sklebm.energies.convolution import ConvolutionGrid
from sklebm.energies.penalties import L1, NonNegativeL1
from sklebm.energies.penalty import Penalty
from sklebm.inference import proximal
from sklebm.inference.convolutional import make_convolutional_problem, solve_maps
from sklebm.inference.layered_coding import WeightedL1, solve_layers
from sklebm.inference.sparse import SparseSolution
from sklebm.inference.sparse_problem import SparseProblem, certificate_kind

# Up to this size M is formed; for positive weights its solver reaches such gaps at no cost.
_DENSE, _DENSE_GAP = 2**18, 1e-10


def threshold_maps(
    x: Tensor,
    dictionaries: Sequence[Tensor],
    grids: Sequence[ConvolutionGrid],
    alphas: Sequence[float],
    *,
    positive: bool,
) -> list[Tensor]:
    """Codes of each layer by one soft threshold of the products with all shifted kernels.

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_pixels)
        Images as rows.
    dictionaries : sequence of Tensor of shape (n_kernels, kernel_length)
        Kernels.
    grids : sequence of ConvolutionGrid
        Sizes of each layer.
    alphas : sequence of float
        Thresholds.
    positive : bool
        Whether to keep only positive codes: convolutions and rectified linear units, to the bit.

    Returns
    -------
    codes : list of Tensor of shape (n_rows, n_kernels * map_length)
        Of each layer. O(map_length times the numbers in all kernels) an image and layer.
    """
    codes, below = [], x
    for atoms, grid, alpha in zip(dictionaries, grids, alphas, strict=True):
        bias, images = atoms.new_full((len(atoms),), -alpha), grid.images(below).contiguous()
        if grid.circular:
            ends = (0, grid.kernel_width - 1, 0, grid.kernel_height - 1)
            images = torch.nn.functional.pad(images, ends, mode="circular")
        kernels = grid.kernels(atoms).contiguous()
        if positive:
            maps = torch.relu(torch.nn.functional.conv2d(images, kernels, bias))
        else:
            products = torch.nn.functional.conv2d(images, kernels)
            maps = products.sign() * torch.relu(products.abs() + bias[:, None, None])
        below = maps.flatten(1)
        codes.append(below)
    return codes


def solve_map_layer(
    x: Tensor,
    atoms: Tensor,
    penalty: Penalty,
    alpha: float,
    grid: ConvolutionGrid,
    *,
    tol: float,
    n_steps: int | None = None,
) -> SparseSolution:
    """The code of one layer given what it describes: see ``solve_maps``.

    ``n_steps`` asks for exactly so many steps of FISTA from zero codes instead.
    """
    if n_steps is None:
        return solve_maps(x, atoms, penalty, alpha, grid, tol=tol)
    problem = make_convolutional_problem(x, atoms, penalty, alpha, grid)
    state = proximal.start_fista(problem, proximal.start_at_zero(problem))
    found = proximal.run_steps(problem, proximal.fista_step, state, n_steps)
    codes, certificate, n_iter, converged = found
    return SparseSolution(codes, certificate, certificate_kind(penalty), n_iter, converged)


@dataclass(frozen=True)
class LayeredMapProblem(SparseProblem):
    """Images to encode by all layers at once; M is applied and never formed.

    Parameters
    ----------
    grids : tuple of ConvolutionGrid
        Sizes of each layer.
    transfers : tuple of Tensor
        Spectra of the kernels of each layer.
    widths : tuple of int
        Numbers in the code of each layer.
    scale : Tensor of shape (sum of widths,)
        What codes are multiplied by before the search, so that one weight suits all layers.
    """

    grids: tuple[ConvolutionGrid, ...]
    transfers: tuple[Tensor, ...]
    widths: tuple[int, ...]
    scale: Tensor

    def product(self, z: Tensor) -> Tensor:
        """z times the Gram matrix of M."""
        codes = torch.split(z / self.scale, list(self.widths), dim=1)
        layers = list(zip(self.grids, self.transfers, strict=True))
        errors = [
            grid.synthesise(code, transfer)
            for code, (grid, transfer) in zip(codes, layers, strict=True)
        ]
        errors = [errors[0], *(e - z for e, z in zip(errors[1:], codes[:-1], strict=True))]
        back = [
            grid.analyse(error, transfer)
            for error, (grid, transfer) in zip(errors, layers, strict=True)
        ]
        back = [*(b - e for b, e in zip(back[:-1], errors[1:], strict=True)), back[-1]]
        return torch.cat(back, dim=1) / self.scale


def make_layered_problem(
    x: Tensor,
    dictionaries: Sequence[Tensor],
    grids: Sequence[ConvolutionGrid],
    penalty: Penalty,
    alpha: float,
    weights: Sequence[float],
) -> LayeredMapProblem:
    """Reduce images to their products with all layers.

    ``weights`` multiply the codes of each layer before the search.
    """
    transfers = [grid.transfer(atoms) for atoms, grid in zip(dictionaries, grids, strict=True)]
    widths = [len(d) * grid.map_length for d, grid in zip(dictionaries, grids, strict=True)]
    scale = torch.cat([x.new_full((w,), s) for w, s in zip(widths, weights, strict=True)])
    correlations = x.new_zeros(len(x), sum(widths))
    correlations[:, : widths[0]] = grids[0].analyse(x, transfers[0])
    # |M z| is at most |B n| for the lengths n of the codes, with the norms of the blocks in B.
    norms = torch.zeros(len(widths), len(widths), dtype=torch.float64)
    for layer, (grid, transfer) in enumerate(zip(grids, transfers, strict=True)):
        norms[layer, layer] = grid.largest_eigenvalue(transfer) ** 0.5 / weights[layer]
        if layer:
            norms[layer, layer - 1] = 1.0 / weights[layer - 1]
    curvature = float(torch.linalg.matrix_norm(norms, 2)) ** 2
    return LayeredMapProblem(
        correlations / scale,
        x.square().sum(dim=1),
        x.new_empty(0, 0),
        max(curvature, torch.finfo(x.dtype).tiny),
        penalty,
        alpha,
        tuple(grids),
        tuple(transfers),
        tuple(widths),
        scale,
    )


def solve_map_layers(
    x: Tensor,
    dictionaries: Sequence[Tensor],
    grids: Sequence[ConvolutionGrid],
    alphas: Sequence[float],
    *,
    positive: bool,
    tol: float = 1e-6,
    max_iter: int = 10_000,
    n_steps: int | None = None,
) -> SparseSolution:
    """Find the codes of all layers that minimise their energy together.

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_pixels)
        Images as rows.
    dictionaries : sequence of Tensor of shape (n_kernels, kernel_length)
        Kernels of each layer.
    grids : sequence of ConvolutionGrid
        Sizes of each layer.
    alphas : sequence of float
        Weights of the absolute values in each layer; zero is allowed.
    positive : bool
        Whether codes are held at or above zero.
    tol, max_iter
        As in ``solve_maps``.
    n_steps : int, optional
        Take exactly this many monotone accelerated steps from zero codes instead.

    Returns
    -------
    solution : SparseSolution
        Codes of all layers side by side. Certified by a duality gap if all weights are positive,
        otherwise by the KKT residual.

    Notes
    -----
    With k_l kernels and p_l places in layer l, a step costs O(sum_l k_l p_l (k_{l-1} + log p_l)).
    """
    widths = [len(d) * grid.map_length for d, grid in zip(dictionaries, grids, strict=True)]
    inputs = x.shape[1] + sum(widths[:-1])
    if x.device.type == "cpu" and sum(widths) * inputs <= _DENSE:
        shifts = [grid.toeplitz(d) for d, grid in zip(dictionaries, grids, strict=True)]
        tol = min(tol, _DENSE_GAP) if min(alphas) > 0 else tol
        return solve_layers(
            x, shifts, alphas, positive=positive, tol=tol, max_iter=max_iter, n_steps=n_steps
        )
    largest = max(alphas) or 1.0
    shares = [alpha / largest for alpha in alphas]
    if n_steps is None and min(alphas) > 0:
        # A kernel that is longer by 1 / w has a code that costs w times as much.
        plain: Penalty = NonNegativeL1() if positive else L1()
        problem = make_layered_problem(x, dictionaries, grids, plain, largest, shares)
    else:
        priced = WeightedL1(tuple(shares), tuple(widths), positive)
        problem = make_layered_problem(x, dictionaries, grids, priced, largest, [1.0] * len(widths))
    state = proximal.start_fista(problem, proximal.start_at_zero(problem))
    if n_steps is not None:
        answer = proximal.run_steps(problem, proximal.monotone_step, state, n_steps)
    else:
        answer = proximal.run(problem, proximal.fista_step, state, tol=tol, max_iter=max_iter)
    codes, certificate, n_iter, converged = answer
    kind = certificate_kind(problem.penalty)
    return SparseSolution(codes / problem.scale, certificate, kind, n_iter, converged)
