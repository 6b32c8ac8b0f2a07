"""What every display shares: axes, colours that colour-blind eyes tell apart, scores as arrays."""

from __future__ import annotations

from typing import Any

# M. Okabe and K. Ito, "Color universal design", 2008; black comes last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


def new_axes(ax: Any, width: float, height: float) -> Any:
    """The axes given, or those of a new figure of this size in inches."""
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax
