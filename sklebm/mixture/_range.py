"""Check that squared distances of X do not overflow."""

from __future__ import annotations

import torch


def check_range(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` as float64; refuse rows whose squared length overflows.

    Labels have no value for "not finite", so the usual check of results cannot catch this.

    Raises
    ------
    FloatingPointError
        Names the largest magnitude and the remedy.
    """
    if not torch.isfinite(x.square().sum()):
        lengths = x.square().sum(dim=1)
        if not torch.isfinite(lengths).all():
            raise FloatingPointError(
                f"X holds values of magnitude {float(x.abs().max()):.3g}, whose squares overflow. "
                "Scale X, for example with StandardScaler, and check for outliers."
            )
    return x
