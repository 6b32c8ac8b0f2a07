r"""min_z 1/2 |m (x - sum_k d_k * z_k)|^2 + alpha |z|_1 over chosen entries of z, compiled.

Coordinate descent that keeps the residual image instead of the products with all kernels: a step
reads and writes one window of the residual, so that it costs as much as the kernel has pixels,
however many kernels there are. Also the sums over codes that a dictionary is learnt from, which
cost as much as there are pairs of neighbouring non-zeros.

This module imports numba, so it is imported where it is used.
"""

from __future__ import annotations

import numpy as np

from sklebm.inference._compiled import REORDER, compiled


@compiled(fastmath=REORDER)
def _product(residual, kernel, top, left):  # type: ignore[no-untyped-def]
    """<kernel, residual at (top, left)>, continued on the opposite side."""
    n_channels, height, width = residual.shape
    tall, wide = kernel.shape[1], kernel.shape[2]
    total = kernel.dtype.type(0)
    for c in range(n_channels):
        for a in range(tall):
            i = top + a
            if i >= height:
                i -= height
            row, weights = residual[c, i], kernel[c, a]
            if left + wide <= width:
                for b in range(wide):
                    total += row[left + b] * weights[b]
            else:
                for b in range(wide):
                    j = left + b
                    total += row[j - width if j >= width else j] * weights[b]
    return total


@compiled(fastmath=REORDER)
def _subtract(residual, kernel, top, left, amount):  # type: ignore[no-untyped-def]
    """Take ``amount`` times the kernel at (top, left) off the residual."""
    n_channels, height, width = residual.shape
    tall, wide = kernel.shape[1], kernel.shape[2]
    for c in range(n_channels):
        for a in range(tall):
            i = top + a
            if i >= height:
                i -= height
            row, weights = residual[c, i], kernel[c, a]
            if left + wide <= width:
                for b in range(wide):
                    row[left + b] -= amount * weights[b]
            else:
                for b in range(wide):
                    j = left + b
                    row[j - width if j >= width else j] -= amount * weights[b]


@compiled(fastmath=REORDER)
def _subtract_observed(residual, kernel, top, left, amount, mask):  # type: ignore[no-untyped-def]
    """``_subtract`` where the mask is one."""
    n_channels, height, width = residual.shape
    for c in range(n_channels):
        for a in range(kernel.shape[1]):
            i = (top + a) % height
            for b in range(kernel.shape[2]):
                j = (left + b) % width
                residual[c, i, j] -= amount * kernel[c, a, b] * mask[c, i, j]


@compiled(fastmath=REORDER)
def _curvature(kernel, top, left, mask):  # type: ignore[no-untyped-def]
    """Squared length of what is observed of the kernel at (top, left)."""
    total = kernel.dtype.type(0)
    for c in range(kernel.shape[0]):
        for a in range(kernel.shape[1]):
            for b in range(kernel.shape[2]):
                seen = mask[c, (top + a) % mask.shape[1], (left + b) % mask.shape[2]]
                total += seen * kernel[c, a, b] * kernel[c, a, b]
    return total


@compiled(fastmath=REORDER)
def descend(z, residual, mask, kernels, places, bounds, alpha, non_negative, tol, n_sweeps):  # type: ignore[no-untyped-def]
    """Minimise over the entries ``places`` of each row's code, in place.

    Parameters
    ----------
    z : ndarray of shape (n_rows, n_kernels, map_height, map_width)
        Codes.
    residual : ndarray of shape (n_rows, n_channels, height, width)
        m (x - sum_k d_k * z_k), kept up to date.
    mask : ndarray of the same shape, or of no rows
        m; without rows, every pixel is observed.
    kernels : ndarray of shape (n_kernels, n_channels, kernel_height, kernel_width)
        d.
    places : integer ndarray of shape (n_entries, 3)
        Kernel, row and column of the entries, those of the first row first.
    bounds : integer ndarray of shape (n_rows + 1,)
        Where the entries of each row begin.
    alpha : float
        Weight of the penalty.
    non_negative : bool
        Whether z >= 0.
    tol : ndarray of shape (n_rows,)
        A row is done when no gradient moves by more in a whole sweep.
    n_sweeps : int
        Maximum number of sweeps.
    """
    masked = len(mask) > 0
    lengths = np.empty(len(kernels), kernels.dtype)
    for k in range(len(kernels)):
        lengths[k] = (kernels[k] * kernels[k]).sum()
    zero = kernels.dtype.type(0)
    for n in range(len(z)):
        own = places[bounds[n] : bounds[n + 1]]
        curvature = np.empty(len(own), kernels.dtype)
        for e in range(len(own)):
            k, i, j = own[e]
            curvature[e] = _curvature(kernels[k], i, j, mask[n]) if masked else lengths[k]
        for _ in range(n_sweeps):
            largest = zero
            for e in range(len(own)):
                k, i, j = own[e]
                if curvature[e] <= 0:
                    continue
                old = z[n, k, i, j]
                target = _product(residual[n], kernels[k], i, j) + curvature[e] * old
                new = zero
                if target > alpha:
                    new = (target - alpha) / curvature[e]
                elif target < -alpha and not non_negative:
                    new = (target + alpha) / curvature[e]
                change = new - old
                if change != 0:
                    z[n, k, i, j] = new
                    if masked:
                        _subtract_observed(residual[n], kernels[k], i, j, change, mask[n])
                    else:
                        _subtract(residual[n], kernels[k], i, j, change)
                    largest = max(largest, abs(change) * curvature[e])
            if not largest > tol[n]:
                break


@compiled()
def pair_sums(places, values, map_height, map_width, circular, sums):  # type: ignore[no-untyped-def]
    """Add sum_p z_k(p) z_l(p + t) of one code to ``sums[k, l, t]`` for all shifts t of a kernel.

    Parameters
    ----------
    places : integer ndarray of shape (n_entries, 3)
        Row, column and kernel of the non-zeros, sorted.
    values : ndarray of shape (n_entries,)
        Their values.
    map_height, map_width : int
        Size of the maps.
    circular : bool
        Whether maps continue on the opposite side.
    sums : ndarray of shape (n_kernels, n_kernels, 2 * tall - 1, 2 * wide - 1)
        Shift zero is in the middle.
    """
    begins = np.zeros(map_height * map_width + 1, np.int64)
    for e in range(len(places)):
        begins[places[e, 0] * map_width + places[e, 1] + 1] += 1
    begins = np.cumsum(begins)
    tall, wide = sums.shape[2] // 2, sums.shape[3] // 2
    for e in range(len(places)):
        row, column, k = places[e]
        for a in range(-tall, tall + 1):
            i = row + a
            if circular:
                i %= map_height
            elif i < 0 or i >= map_height:
                continue
            for b in range(-wide, wide + 1):
                j = column + b
                if circular:
                    j %= map_width
                elif j < 0 or j >= map_width:
                    continue
                pixel = i * map_width + j
                for f in range(begins[pixel], begins[pixel + 1]):
                    sums[k, places[f, 2], a + tall, b + wide] += values[e] * values[f]


@compiled()
def window_sums(places, values, image, sums):  # type: ignore[no-untyped-def]
    """Add sum_p z_k(p) x(p + o) of one code and image to ``sums[k]`` for all pixels o of a kernel.

    ``places`` and ``values`` are those of ``pair_sums``.
    """
    n_channels, height, width = image.shape
    for e in range(len(places)):
        row, column, k = places[e]
        for c in range(n_channels):
            for a in range(sums.shape[2]):
                i = (row + a) % height
                for b in range(sums.shape[3]):
                    sums[k, c, a, b] += values[e] * image[c, i, (column + b) % width]
