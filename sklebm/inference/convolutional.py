r"""z* = argmin_z 1/2 |m (x - sum_k d_k * z_k)|^2 + alpha R(z), with a duality gap as certificate.

"greedy": locally greedy coordinate descent. Each round computes the products with all shifted
kernels by fast Fourier transforms, takes in the kernel that violates optimality most at every
place, and descends over the entries in use in compiled code. "fista" and "admm" iterate
over all entries, on any device; the linear system of "admm" has one unknown a channel at each
frequency (Sherman-Morrison).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sklebm.energies.convolution import ConvolutionGrid
from sklebm.energies.penalty import Penalty
from sklebm.inference import proximal
from sklebm.inference.sparse import SparseSolution, solve_codes, solve_codes_by_kind
from sklebm.inference.sparse_problem import SparseProblem, certificate_kind

MapMethod = Literal["auto", "greedy", "fista", "admm"]

_CHECK_EVERY = 10
# Up to this size the dictionary of all shifts is formed: its solver reaches such gaps at no cost.
_DENSE, _DENSE_GAP = 2**18, 1e-10
# The same where each mask has a dictionary of its own.
_DENSE_MASKED = 2**15
# ADMM: over-relaxation, and how far the residuals may differ before their balance is restored.
_RELAXATION, _IMBALANCE = 1.8, 2.0
# Greedy: sweeps over the entries in use in one round.
_SWEEPS = 20
# Greedy: the gap at which codes to start from, which may be zero, are accepted as they are.
_UNTOUCHED = 1e-3
# Greedy: rounds between two exact solutions on the support, and the largest matrix for one.
_EXACT_EVERY, _EXACT_SIZE = 10, 2**22


@dataclass(frozen=True)
class ConvolutionalProblem(SparseProblem):
    """Images to encode: the Gram matrix of all shifted kernels is applied, and never formed.

    Parameters
    ----------
    grid : ConvolutionGrid
        Sizes and boundary.
    transfer : Tensor
        Spectra of the kernels.
    mask : Tensor of shape (n_rows, n_pixels) or None
        One where a pixel is observed, zero elsewhere.
    """

    grid: ConvolutionGrid
    transfer: Tensor
    mask: Tensor | None

    def select(self, rows: Tensor) -> ConvolutionalProblem:
        """The problem of some of the rows."""
        return replace(
            self,
            correlations=self.correlations[rows],
            squared_norms=self.squared_norms[rows],
            mask=None if self.mask is None else self.mask[rows],
        )

    def product(self, z: Tensor) -> Tensor:
        """z times the Gram matrix: synthesis and analysis."""
        if self.mask is not None:
            decoded = self.grid.synthesise(z, self.transfer) * self.mask
            return self.grid.analyse(decoded, self.transfer)
        spectra = self.grid.spectrum(self.grid.maps(z))
        mixed = torch.einsum("nkhw,kchw->nchw", spectra, self.transfer)
        back = torch.einsum("nchw,kchw->nkhw", mixed, self.transfer.conj())
        return self.grid.crop(self.grid.plane(back)).flatten(1)


def make_convolutional_problem(
    x: Tensor,
    atoms: Tensor,
    penalty: Penalty,
    alpha: float,
    grid: ConvolutionGrid,
    mask: Tensor | None = None,
) -> ConvolutionalProblem:
    """Reduce images to their products with the shifted kernels."""
    transfer = grid.transfer(atoms)
    x = x if mask is None else x * mask
    return ConvolutionalProblem(
        grid.analyse(x, transfer),
        x.square().sum(dim=1),
        x.new_empty(0, 0),
        max(grid.largest_eigenvalue(transfer), torch.finfo(x.dtype).tiny),
        penalty,
        alpha,
        grid,
        transfer,
        mask,
    )


def solve_maps(
    x: Tensor,
    atoms: Tensor,
    penalty: Penalty,
    alpha: float,
    grid: ConvolutionGrid,
    *,
    method: MapMethod = "auto",
    tol: float = 1e-6,
    max_iter: int = 10_000,
    mask: Tensor | None = None,
    start: Tensor | None = None,
) -> SparseSolution:
    """Find the convolutional code of minimum energy for each image.

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_pixels)
        Images as rows, float32 or float64.
    atoms : Tensor of shape (n_kernels, kernel_length)
        Kernels.
    penalty : Penalty
        ``L1`` or ``NonNegativeL1``.
    alpha : float
        Weight of the penalty.
    grid : ConvolutionGrid
        Sizes and boundary.
    method : {"auto", "greedy", "fista", "admm"}, default="auto"
        "greedy" needs the CPU; "admm" needs all pixels. "auto" is "greedy" on the CPU (for small
        images the compiled solver with the dictionary of all shifts) and "fista" elsewhere.
    tol : float, default=1e-6
        Relative duality gap at which a code is final, or the limit of rounding if that is higher.
    max_iter : int, default=10000
        Maximum number of iterations, or of rounds.
    mask : Tensor of shape (n_rows, n_pixels), optional
        One where a pixel is observed, zero elsewhere.
    start : Tensor of shape (n_rows, n_kernels * map_length), optional
        Codes to start from; zero by default.

    Returns
    -------
    solution : SparseSolution
        Codes, certificates and iterations.

    Raises
    ------
    ValueError
        If the method does not suit the device or the mask.

    Notes
    -----
    With k kernels on p pixels, an iteration of "fista" or "admm" and a round of "greedy" cost
    O(k p log p); a sweep of "greedy" over s entries costs O(s) times the pixels of a kernel.
    """
    on_cpu = x.device.type == "cpu"
    n_codes = len(atoms) * grid.map_length
    most = _DENSE if mask is None else min(_DENSE, _DENSE_MASKED)
    if method == "auto" and on_cpu and n_codes * grid.n_pixels <= most:
        shifts, tol = grid.toeplitz(atoms), min(tol, _DENSE_GAP)
        if mask is None:
            return solve_codes(x, shifts, penalty, alpha, tol=tol, max_iter=max_iter)
        return solve_codes_by_kind(
            mask * x,
            mask,
            lambda row: mask[row] * shifts,
            penalty,
            alpha,
            tol=tol,
            max_iter=max_iter,
        )
    if method == "auto":
        method = "greedy" if on_cpu else "fista"
    problem = make_convolutional_problem(x, atoms, penalty, alpha, grid, mask)
    codes = torch.zeros_like(problem.correlations) if start is None else start.clone()
    if method == "fista":
        state = proximal.start_fista(problem, proximal.start_at(problem, codes))
        answer = proximal.run(problem, proximal.fista_step, state, tol=tol, max_iter=max_iter)
    elif method == "admm":
        if mask is not None:
            raise ValueError('"admm" needs all pixels: with a mask, use "fista" or "greedy".')
        answer = _admm(problem, x, codes, tol, max_iter)
    else:
        if not on_cpu:
            raise ValueError(
                f'"greedy" is compiled for the CPU, and X is on {x.device}: use "fista".'
            )
        answer = _greedy(problem, x, atoms, codes, tol, max_iter)
    codes, certificate, n_iter, converged = answer
    return SparseSolution(codes, certificate, certificate_kind(penalty), n_iter, converged)


Answer = tuple[Tensor, Tensor, Tensor, Tensor]


def solve_in_frequency(v: Tensor, rho: Tensor, transfer: Tensor) -> Tensor:
    """Solve (D' D + rho) y = v for the spectra of maps, at each frequency.

    (D'D + rho)^-1 = (1 - D' (D D' + rho)^-1 D) / rho, where D D' has one row a channel.

    Parameters
    ----------
    v : Tensor of shape (n_rows, n_kernels, height, n_frequencies)
        Spectra of the right-hand sides.
    rho : Tensor of shape (n_rows, 1, 1, 1)
        Positive weights.
    transfer : Tensor of shape (n_kernels, n_channels, height, n_frequencies)
        Spectra of the kernels.
    """
    mixed = torch.einsum("nkhw,kchw->nchw", v, transfer)
    if transfer.shape[1] == 1:
        mixed = mixed / (transfer.abs().square().sum(dim=0) + rho)
    else:
        products = torch.einsum("kchw,kdhw->hwcd", transfer, transfer.conj())
        identity = torch.eye(transfer.shape[1], dtype=products.dtype, device=v.device)
        system = products + rho[..., None] * identity
        mixed = torch.linalg.solve(system, mixed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return (v - torch.einsum("nchw,kchw->nkhw", mixed, transfer.conj())) / rho


def _admm(
    problem: ConvolutionalProblem, x: Tensor, codes: Tensor, tol: float, max_iter: int
) -> Answer:
    """y = argmin 1/2 |x - D y|^2 + rho/2 |y - z + u|^2, z = prox(y + u), u <- u + y - z."""
    grid, penalty, alpha = problem.grid, problem.penalty, problem.alpha
    # All maps cover the whole grid here; with "zero", z is held at zero where no kernel fits.
    whole = replace(grid, circular=True)
    inside = x.new_zeros(grid.height, grid.width)
    grid.crop(inside)[...] = 1.0
    target = whole.maps(whole.analyse(x, problem.transfer))
    z, u = torch.zeros_like(target), torch.zeros_like(target)
    grid.crop(z)[...] = grid.maps(codes)
    out = torch.empty_like(codes)
    value = torch.empty_like(problem.squared_norms)
    n_iter = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
    certified = torch.zeros_like(n_iter, dtype=torch.bool)
    left = torch.arange(len(codes), device=codes.device)
    rho = torch.full_like(value, problem.lipschitz / 10.0)[:, None, None, None]
    for iteration in range(1, max_iter + 1):
        right = grid.spectrum(target + rho * (z - u))
        y = grid.plane(solve_in_frequency(right, rho, problem.transfer))
        relaxed = _RELAXATION * y + (1.0 - _RELAXATION) * z
        old, z = z, penalty.prox(relaxed + u, alpha / rho) * inside
        u = u + relaxed - z
        if iteration % _CHECK_EVERY and iteration != max_iter:
            continue
        flat = grid.crop(z).flatten(1)
        product = problem.product(flat)
        gap = problem.certificate(flat, product)
        good = ~(gap > problem.rounding(flat, product).clamp(min=tol))
        done = good | (iteration == max_iter)
        rows = left[done]
        out[rows], value[rows], n_iter[rows] = flat[done], gap[done], iteration
        certified[rows] = good[done]
        keep = ~done
        if not bool(keep.any()):
            break
        primal = (y - z).square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        dual = rho * (z - old).square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        ratio = (primal / dual.clamp(min=torch.finfo(z.dtype).tiny)).sqrt().clamp(0.1, 10.0)
        uneven = (ratio > _IMBALANCE) | (ratio < 1.0 / _IMBALANCE)
        factor = torch.where(uneven, ratio, 1.0)
        rho, u = (rho * factor)[keep], (u / factor)[keep]
        z, target, left, problem = z[keep], target[keep], left[keep], problem.select(keep)
    return out, value, n_iter, certified


def _greedy(
    problem: ConvolutionalProblem,
    x: Tensor,
    atoms: Tensor,
    codes: Tensor,
    tol: float,
    max_iter: int,
) -> Answer:
    """Rounds of: products with all kernels, the best new entries, descent over those in use."""
    grid, alpha = problem.grid, problem.alpha
    value = torch.empty_like(problem.squared_norms)
    n_iter = torch.zeros(len(codes), dtype=torch.int64)
    certified = torch.zeros(len(codes), dtype=torch.bool)
    left = torch.arange(len(codes))
    kernels = grid.kernels(atoms).contiguous()
    least = torch.finfo(x.dtype).eps * alpha
    for iteration in range(max_iter + 1):
        z = codes[left]
        residual = x[left] - grid.synthesise(z, problem.transfer)
        if problem.mask is not None:
            residual = residual * problem.mask
        gradient = grid.analyse(residual, problem.transfer)
        product = problem.correlations - gradient
        gap = problem.certificate(z, product)
        enough = tol if iteration else min(tol, _UNTOUCHED)
        good = ~(gap > problem.rounding(z, product).clamp(min=enough))
        done = good | (iteration == max_iter)
        rows = left[done]
        value[rows], n_iter[rows], certified[rows] = gap[done], iteration, good[done]
        keep = ~done
        if not bool(keep.any()):
            break
        left, problem, z, gradient = left[keep], problem.select(keep), z[keep], gradient[keep]
        violation = (_pull(problem.penalty, gradient) - alpha).clamp(min=0.0)
        violation = torch.where(z == 0, violation, 0.0)
        used = _strongest(grid, violation) | (z != 0)
        tolerance = (0.1 * violation.amax(dim=1)).clamp(min=least)
        _descend_on(grid, problem, z, residual[keep], kernels, used, tolerance)
        if iteration % _EXACT_EVERY == _EXACT_EVERY - 1:
            for row in range(len(z)):
                _solve_on_support(problem.select(torch.tensor([row])), z[row])
        codes[left] = z
    return codes, value, n_iter, certified


def _pull(penalty: Penalty, gradient: Tensor) -> Tensor:
    """How strongly each entry is drawn away from zero."""
    return gradient if penalty.non_negative else gradient.abs()


def _solve_on_support(problem: ConvolutionalProblem, z: Tensor) -> None:
    """Go towards the minimum over the non-zeros of one code, up to the first change of sign.

    Coordinate descent is slow where shifted kernels are almost parallel. The matrix of the kernels
    in use must fit in memory: larger codes are left to it.
    """
    index = z.nonzero()[:, 0]
    if not 0 < len(index) * len(z) <= _EXACT_SIZE:
        return
    unit = z.new_zeros(len(index), len(z))
    unit[torch.arange(len(index)), index] = 1.0
    rows = problem.grid.synthesise(unit, problem.transfer)
    rows = (rows if problem.mask is None else rows * problem.mask).double()
    now = z[index].double()
    target = problem.correlations[0, index].double() - problem.alpha * now.sign()
    gram = rows @ rows.T
    solved = torch.linalg.lstsq(gram, target[:, None], driver="gelsd").solution[:, 0]
    direction = solved - now
    # Dependent kernels may leave no minimum with these signs.
    if not bool(direction @ (gram @ now - target) < 0):
        return
    limits = torch.where(direction * now < 0, -now / direction, torch.inf)
    step, first = limits.min(dim=0)
    moved = now + min(1.0, float(step)) * direction
    if float(step) <= 1.0:
        moved[first] = 0.0
    z[index] = torch.where(moved * now > 0, moved, 0.0).to(z.dtype)


def _strongest(grid: ConvolutionGrid, violation: Tensor) -> Tensor:
    """At each place the kernel that violates optimality most, if one does, as a mask over codes."""
    maps = grid.maps(violation)
    return ((maps >= maps.amax(dim=1, keepdim=True)) & (maps > 0)).flatten(1)


def _descend_on(
    grid: ConvolutionGrid,
    problem: ConvolutionalProblem,
    z: Tensor,
    residual: Tensor,
    kernels: Tensor,
    used: Tensor,
    tolerance: Tensor,
) -> None:
    """Coordinate descent over the entries ``used``, in place; images are shared by threads."""
    from sklebm.inference.map_descent import descend

    places = grid.maps(used).nonzero()
    bounds = np.concatenate([[0], np.cumsum(used.sum(dim=1).numpy())])
    images = grid.images(residual).contiguous().numpy()
    mask = images[:0] if problem.mask is None else grid.images(problem.mask).contiguous().numpy()
    maps, index = grid.maps(z).numpy(), places[:, 1:].contiguous().numpy()
    kind = images.dtype.type
    alpha, non_negative = kind(problem.alpha), problem.penalty.non_negative
    limits = tolerance.numpy()

    def share(rows: Any) -> None:
        part = slice(rows[0], rows[-1] + 1)
        own = bounds[rows[0]], bounds[rows[-1] + 1]
        descend(
            maps[part],
            images[part],
            mask if problem.mask is None else mask[part],
            kernels.numpy(),
            index[own[0] : own[1]],
            bounds[rows[0] : rows[-1] + 2] - own[0],
            alpha,
            non_negative,
            limits[part],
            _SWEEPS,
        )

    n_workers = min(torch.get_num_threads(), len(z))
    blocks = np.array_split(np.arange(len(z)), n_workers)
    # Compiled code releases the interpreter's lock; a pool of its own survives a fork.
    with ThreadPoolExecutor(n_workers) as workers:
        list((workers.map if n_workers > 1 else map)(share, blocks))
