"""Points that fill the unit cube evenly: integrals over latents with fewer of them.

Scrambled Sobol points (Owen's nested scrambling): each point alone is uniform, so that estimates
stay unbiased over the scrambling, while their error falls almost as 1/n in few dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: torch's table of direction numbers ends here.
MAX_DIMENSIONS = torch.quasirandom.SobolEngine.MAXDIM
_HALF_CELL = 2.0**-31


def uniform_points(n_points: int, n_dimensions: int) -> Tensor:
    """The same points in (0, 1) at every call, float64, shape (n_points, n_dimensions).

    Beyond ``MAX_DIMENSIONS`` they are pseudo-random.
    """
    if n_dimensions > MAX_DIMENSIONS:
        generator = torch.Generator().manual_seed(0)
        return torch.rand(n_points, n_dimensions, generator=generator, dtype=torch.float64)
    engine = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call]
        n_dimensions, scramble=True, seed=0
    )
    points: Tensor = engine.draw(n_points, dtype=torch.float64)
    return points + _HALF_CELL  # torch's lie on a grid that holds 0


# ---------------------------------------------------------------------- points of a row's own

_BITS = 30  # of torch's Sobol points
_LOW = (1 << _BITS) - 1
# Odd multipliers of a 64-bit mixing function (G. L. Steele, D. Lea and C. H. Flood, "Fast
# splittable pseudorandom number generators", OOPSLA 2014), as signed numbers.
_STEP, _FIRST, _SECOND = (
    value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def row_keys(x: Tensor) -> Tensor:
    """A 64-bit number that follows from the content of each row, int64, shape (n_rows,).

    Rows are compared in single precision, so that a row has the same key whichever float dtype it
    comes in; 0 and -0 are alike. O(n d), on the device of the rows, without a loop over them.
    """
    # One float32 is one 32-bit integer; adding 0 turns -0 into 0.
    bits = (x.detach().float() + 0.0).contiguous().view(torch.int32).long()
    place = torch.arange(1, x.shape[1] + 1, device=x.device) * _STEP
    return _mix(_mix(bits + place).sum(dim=1))


def row_points(points: Tensor, keys: Tensor) -> Tensor:
    """The points once for each row, scrambled by its key, shape (n_points, n_rows, n_dimensions).

    The scrambling flips the same binary digits in one coordinate of all points (a digital shift),
    so that they fill the cube as evenly as before and each alone is uniform. Errors of different
    rows are independent, and their mean falls with the number of rows.
    """
    n_dimensions = points.shape[1]
    place = torch.arange(1, n_dimensions + 1, device=keys.device) * _STEP
    flips = _mix(keys[:, None] + place) & _LOW
    digits = (points.to(keys.device) * 2.0**_BITS).long()
    return ((digits[:, None] ^ flips).double() + 0.5) * 2.0**-_BITS


def _mix(values: Tensor) -> Tensor:
    """64-bit integers whose every bit depends on all bits of the values; wraps around."""
    values = (values ^ _shifted(values, 30)) * _FIRST
    values = (values ^ _shifted(values, 27)) * _SECOND
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, n_bits: int) -> Tensor:
    """Shift to the right that fills with zeros, as torch's of signed numbers does not."""
    return (values >> n_bits) & ((1 << (64 - n_bits)) - 1)
