r"""min_d 1/2 <d, A * d> - <B, d>, |d_k| <= 1: kernels from sums over the codes of images.

A holds sum_p z_k(p) z_l(p + t) for all shifts t of a kernel and B holds sum_p z_k(p) x(p + o) for
all its pixels o: the mean energy depends on the kernels through nothing else, so that neither
images nor codes have to be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sklebm.energies.convolution import ConvolutionGrid

# Consensus: the largest side of a matrix, and steps between two changes of rho.
_LARGEST, _BALANCE_EVERY = 8192, 10


def code_sums(z: Tensor, x: Tensor, grid: ConvolutionGrid) -> tuple[Tensor, Tensor]:
    """A and B over some images, in float64.

    Parameters
    ----------
    z : Tensor of shape (n_rows, n_kernels * map_length)
        Codes.
    x : Tensor of shape (n_rows, n_pixels)
        Images.
    grid : ConvolutionGrid
        Sizes and boundary.

    Returns
    -------
    code_products : Tensor of shape (n_kernels, n_kernels, 2 tall - 1, 2 wide - 1)
        A; shift zero is in the middle.
    row_products : Tensor of shape (n_kernels, n_channels, tall, wide)
        B.

    Notes
    -----
    On the CPU the cost is that of the pairs of neighbouring non-zeros; elsewhere that of the
    Fourier transforms of all pairs of maps.
    """
    maps, images = grid.maps(z).double(), grid.images(x).double()
    tall, wide, k = grid.kernel_height, grid.kernel_width, maps.shape[1]
    if z.device.type == "cpu":
        products = maps.new_zeros(k, k, 2 * tall - 1, 2 * wide - 1)
        windows = maps.new_zeros(k, grid.channels, tall, wide)
        from sklebm.inference.map_descent import pair_sums, window_sums

        for own, image in zip(maps.permute(0, 2, 3, 1), images, strict=True):
            places = own.nonzero()
            values = own[tuple(places.T)].numpy()
            index = places.numpy()
            pair_sums(index, values, *grid.map_shape, grid.circular, products.numpy())
            window_sums(index, values, image.contiguous().numpy(), windows.numpy())
        return products, windows
    return transformed_sums(maps, images, grid)


def transformed_sums(maps: Tensor, images: Tensor, grid: ConvolutionGrid) -> tuple[Tensor, Tensor]:
    """A and B by Fourier transforms of all pairs of maps, on any device; as ``code_sums``.

    Parameters
    ----------
    maps : Tensor of shape (n_rows, n_kernels, map_height, map_width)
        Codes, float64.
    images : Tensor of shape (n_rows, n_channels, height, width)
        Images, float64.
    grid : ConvolutionGrid
        Sizes and boundary.

    Returns
    -------
    code_products, row_products : Tensor
        A and B.
    """
    tall, wide, k = grid.kernel_height, grid.kernel_width, maps.shape[1]
    products = maps.new_zeros(k, k, 2 * tall - 1, 2 * wide - 1)
    windows = maps.new_zeros(k, grid.channels, tall, wide)
    rows = torch.arange(1 - tall, tall, device=maps.device) % grid.height
    columns = torch.arange(1 - wide, wide, device=maps.device) % grid.width
    spectra, image_spectra = grid.spectrum(maps), grid.spectrum(images)
    for one in range(k):
        pairs = grid.plane((spectra[:, one, None].conj() * spectra).sum(dim=0))
        products[one] = pairs[:, rows[:, None], columns]
        near = grid.plane((spectra[:, one, None].conj() * image_spectra).sum(dim=0))
        windows[one] = near[:, :tall, :wide]
    return products, windows


def improve_kernels(
    kernels: Tensor, code_products: Tensor, row_products: Tensor, n_steps: int = 30
) -> Tensor:
    """Lower the quadratic energy by accelerated projected gradient steps; it never rises.

    Parameters
    ----------
    kernels : Tensor of shape (n_kernels, n_channels, tall, wide)
        d, of length at most one each, float64.
    code_products, row_products : Tensor
        A and B, from ``code_sums``.
    n_steps : int, default=30
        Number of steps.

    Returns
    -------
    kernels : Tensor of the same shape
        Better ones. A kernel that no code uses stays.

    Notes
    -----
    A step costs O(k^2) times the pixels of a kernel times four times as many shifts. Steps of a
    kernel are measured in units of its usage, A_kk(0).
    """
    tall, wide = kernels.shape[2:]
    usage = code_products[:, :, tall - 1, wide - 1].diagonal()
    used = usage > 0
    scale = torch.where(used, usage, 1.0)[:, None, None, None]
    weight = code_products.flip(2, 3)

    def curved(d: Tensor) -> Tensor:
        """A * d, each channel by itself."""
        planes = torch.nn.functional.conv2d(d.transpose(0, 1), weight, padding=(tall - 1, wide - 1))
        return planes.transpose(0, 1)

    def energy(d: Tensor, product: Tensor) -> float:
        return float((d * (0.5 * product - row_products)).sum())

    if not bool(used.any()):
        return kernels
    steepest = _largest_ratio(curved, scale, kernels.shape)

    def step(d: Tensor, product: Tensor) -> Tensor:
        """A projected gradient step from d."""
        moved = torch.where(moves, d - (product - row_products) / (steepest * scale), kernels)
        lengths = torch.linalg.vector_norm(moved.flatten(1), dim=1)
        projected: Tensor = moved / lengths.clamp(min=1.0)[:, None, None, None]
        return projected

    moves = used[:, None, None, None]
    now, product, t = kernels, curved(kernels), 1.0
    value = energy(now, product)
    before, product_before = now, product
    # Nothing is decided on the way: rounding must not turn into another path.
    for _ in range(n_steps):
        t_next = 0.5 * (1.0 + (1.0 + 4.0 * t * t) ** 0.5)
        momentum, t = (t - 1.0) / t_next, t_next
        ahead = now + momentum * (now - before)
        moved = step(ahead, product + momentum * (product - product_before))
        before, product_before = now, product
        now, product = moved, curved(moved)
    return now if energy(now, product) <= value else kernels


def consensus_kernels(
    kernels: Tensor, parts: Sequence[tuple[Tensor, Tensor]], n_steps: int = 30
) -> Tensor:
    """Lower the quadratic energy by consensus ADMM over parts of the images; it never rises.

    Every part b has kernels d_b of its own, which come to agree with v: with usages S,

        d_b = argmin 1/2 <d, A_b * d> - <B_b, d> + rho/2 |d - v + u_b|_S^2,
        v = projection of the mean of d_b + u_b,   u_b <- u_b + d_b - v.

    Parameters
    ----------
    kernels : Tensor of shape (n_kernels, n_channels, tall, wide)
        d, of length at most one each, float64.
    parts : sequence of pairs
        A and B of each part, from ``code_sums``.
    n_steps : int, default=30
        Number of steps.

    Returns
    -------
    kernels : Tensor of the same shape
        Better ones. A kernel that no code uses stays.

    Raises
    ------
    ValueError
        If the matrix of a part would be too large.

    Notes
    -----
    With k kernels of s places, a step costs O(k^2 s^2) for each part. Matrices are factorised in
    O(k^3 s^3), again whenever rho changes to balance the residuals.
    """
    check_consensus(kernels)
    k, channels, tall, wide = kernels.shape
    size = k * tall * wide
    usages = [a[:, :, tall - 1, wide - 1].diagonal() for a, _ in parts]
    usage = torch.stack(usages).mean(dim=0)
    used = usage > 0
    if not bool(used.any()):
        return kernels
    scale = torch.where(used, usage, 1.0).repeat_interleave(tall * wide)[:, None]

    def flat(d: Tensor) -> Tensor:
        """One row for each place of each kernel, one column a channel."""
        return d.permute(0, 2, 3, 1).reshape(size, channels)

    def projected(rows: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(rows.reshape(k, -1), dim=1).clamp(min=1.0)
        shorter: Tensor = rows / lengths.repeat_interleave(tall * wide)[:, None]
        return shorter

    def energy(rows: Tensor) -> float:
        return sum(float((rows * (0.5 * (m @ rows) - b)).sum()) for m, b in pairs)

    matrices = [_quadratic_form(a) for a, _ in parts]
    targets = [flat(b) for _, b in parts]
    identity = torch.diag(scale[:, 0])
    rho, v = 1.0, flat(kernels)
    # At the minimum these are the multipliers: a step from there stays.
    pairs = list(zip(matrices, targets, strict=True))
    u = [(b - m @ v) / (rho * scale) for m, b in pairs]
    factors = [torch.linalg.cholesky(m + rho * identity) for m in matrices]
    start = v
    for step in range(1, n_steps + 1):
        own = [
            torch.cholesky_solve(b + rho * scale * (v - dual), factor)
            for b, dual, factor in zip(targets, u, factors, strict=True)
        ]
        agreed = projected(torch.stack([d + dual for d, dual in zip(own, u, strict=True)]).mean(0))
        u = [dual + d - agreed for d, dual in zip(own, u, strict=True)]
        before, v = v, agreed
        if step % _BALANCE_EVERY == 0 and step < n_steps:
            primal = sum(float((scale * (d - v).square()).sum()) for d in own) ** 0.5
            dual_error = rho * (len(own) * float((scale * (v - before).square()).sum())) ** 0.5
            if not primal > 0 or not dual_error > 0:
                continue
            factor = min(max((primal / dual_error) ** 0.5, 0.1), 10.0)
            if 0.5 < factor < 2.0:
                continue
            rho, u = rho * factor, [dual / factor for dual in u]
            factors = [torch.linalg.cholesky(m + rho * identity) for m in matrices]
    if energy(v) > energy(start):
        return kernels
    moved = v.reshape(k, tall, wide, channels).permute(0, 3, 1, 2)
    return torch.where(used[:, None, None, None], moved, kernels)


def check_consensus(kernels: Tensor) -> None:
    """Raise ValueError if a consensus between such kernels would need too large matrices."""
    k, _, tall, wide = kernels.shape
    size = k * tall * wide
    if size > _LARGEST:
        raise ValueError(
            f"consensus needs matrices of {size} x {size} numbers for {k} kernels of {tall} x "
            f'{wide}: use algorithm="batch", whose gradient steps need none.'
        )


def _quadratic_form(code_products: Tensor) -> Tensor:
    """A as a matrix between all places of all kernels."""
    k, tall, wide = len(code_products), *((side + 1) // 2 for side in code_products.shape[2:])
    device = code_products.device
    rows = tall - 1 + torch.arange(tall, device=device)[:, None] - torch.arange(tall, device=device)
    columns = wide - 1 + torch.arange(wide, device=device)[:, None]
    columns = columns - torch.arange(wide, device=device)
    # (k, l, row, row', column, column')
    whole = code_products[:, :, rows[:, :, None, None], columns[None, None]]
    return whole.permute(0, 2, 4, 1, 3, 5).reshape(k * tall * wide, k * tall * wide)


def _largest_ratio(curved: Callable[[Tensor], Tensor], scale: Tensor, shape: torch.Size) -> float:
    """The largest eigenvalue of A in units of ``scale``, by power iteration."""
    root = scale.sqrt()
    # A fixed start without symmetry: the answer must not depend on a generator.
    values = np.random.default_rng(0).standard_normal(tuple(shape))
    v = torch.from_numpy(values).to(scale.device)
    largest = 1.0
    for _ in range(20):
        v = v / v.norm()
        v = curved(v / root) / root
        largest = float(v.norm())
        if not largest:
            return 1.0
    return 1.02 * largest
