"""What a row is to a model, and how tables of more than two dimensions become rows."""

from __future__ import annotations

import math
from typing import Any, Literal

#: A row of its own, a step of a sequence, or a pixel of an image.
Layout = Literal["row", "step", "pixel"]


def advice_on_shape(estimator: Any, shape: tuple[int, ...]) -> str:
    """The end of a sentence that refuses any but two dimensions: what to pass instead."""
    if len(shape) < 2:
        return (
            ". Reshape your data either using X.reshape(-1, 1) if it has a single feature, or "
            "X.reshape(1, -1) if it is a single sample."
        )
    layout: Layout = getattr(estimator, "_layout", "row")
    image_shape = getattr(estimator, "image_shape", None)
    if layout == "pixel":
        images = tuple(shape[-3:-1])
        positions = f"np.indices({images}).reshape(2, -1).T"
        if len(shape) == 3:
            beside = f"positions={positions}"
        else:
            n_images = math.prod(shape[:-3])
            beside = (
                f"groups=np.repeat(np.arange({n_images}), {math.prod(images)}) and "
                f"positions=np.tile({positions}, ({n_images}, 1))"
            )
        return f", which takes one row per pixel: pass X.reshape(-1, X.shape[-1]) with {beside}."
    single = image_shape is not None and math.prod(image_shape) == math.prod(shape[1:])
    if layout == "step" and not single:
        n_sequences, n_steps = shape[:2]
        rows = "-1, X.shape[-1]" if len(shape) == 3 else f"{n_sequences * n_steps}, -1"
        return (
            f", which takes one row per step: pass X.reshape({rows}) with "
            f"groups=np.repeat(np.arange({n_sequences}), {n_steps})."
        )
    return ": flatten images to rows, X.reshape(len(X), -1)."


def refuse_sequences(estimator: Any, X: Any) -> None:
    """Raise ValueError if X is a list with a table for each sequence."""
    if getattr(estimator, "_layout", "row") != "step" or not isinstance(X, (list, tuple)):
        return
    if X and all(getattr(part, "ndim", 0) == 2 for part in X):
        raise ValueError(
            f"X is a list of {len(X)} tables, but {type(estimator).__name__} takes one row per "
            f"step: pass np.concatenate(X) with groups=np.repeat(np.arange({len(X)}), [len(x) for "
            "x in X])."
        )
