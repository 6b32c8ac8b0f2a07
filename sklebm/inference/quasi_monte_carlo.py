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
