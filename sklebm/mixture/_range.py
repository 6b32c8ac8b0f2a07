"""The range of X that squared distances can take."""

from __future__ import annotations

import torch


def check_range(x: torch.Tensor) -> torch.Tensor:
    """Return ``x``, float64; refuse rows whose squared length overflows.

    A label has no value that says "not finite", so the usual check of results cannot tell.

    Raises
    ------
    FloatingPointError
        Names the largest magnitude and what to do.
    """
    if not torch.isfinite(x.square().sum()):
        lengths = x.square().sum(dim=1)
        if not torch.isfinite(lengths).all():
            raise FloatingPointError(
                f"X holds values of magnitude {float(x.abs().max()):.3g}, whose squares overflow. "
                "Scale X, for example with StandardScaler, and check for outliers."
            )
    return x
