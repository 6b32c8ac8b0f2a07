"""What a row is to a model, and how tables of more than two dimensions become rows."""

from __future__ import annotations

import math
from typing import Any, Literal

from sklebm._shell.warning import warn

#: A row of its own, a step of a sequence, or a pixel of an image; models of steps and pixels, which
#: groups tell apart, have it as ``_layout``.
Layout = Literal["row", "step", "pixel"]
# Channels of pictures: colours and transparency.
_MOST_COLOURS = 4


def advice_on_shape(estimator: Any, shape: tuple[int, ...], *, tensor: bool = False) -> str:
    """The end of a sentence that refuses any but two dimensions: what to pass instead."""
    if len(shape) < 2:
        return (
            ". Reshape your data either using X.reshape(-1, 1) if it has a single feature, or "
            "X.reshape(1, -1) if it is a single sample."
        )
    reshape = "X.reshape({})" if tensor else "np.reshape(X, ({}))"  # of nested lists, too
    rows = reshape.format(f"-1, {shape[-1]}")
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
        grey = " (images of one channel: X[..., None] first)" if len(shape) == 3 else ""
        return f", which takes one row per pixel: pass {rows} with {beside}{grey}."
    single = image_shape is not None and math.prod(image_shape) == math.prod(shape[1:])
    if layout == "step" and not single:
        n_sequences, n_steps = shape[:2]
        if len(shape) > 3:
            rows = reshape.format(f"{n_sequences * n_steps}, -1")
        return (
            f", which takes one row per step: pass {rows} with "
            f"groups=np.repeat(np.arange({n_sequences}), {n_steps})."
        )
    return ": flatten images to rows, X.reshape(len(X), -1)."


def refuse_sequences(estimator: Any, X: Any) -> None:
    """Raise ValueError if X is a list with a table for each sequence."""
    if getattr(estimator, "_layout", "row") != "step" or not isinstance(X, (list, tuple)):
        return
    if X and all(getattr(part, "ndim", 0) == 2 for part in X):
        raise ValueError(
            f"X is a {type(X).__name__} of tables, but {type(estimator).__name__} takes one row "
            f"per step: pass np.concatenate(X) with groups=np.repeat(np.arange({len(X)}), [len(x) "
            "for x in X])."
        )


def warn_of_channels(image_shape: Any, *, last: bool) -> None:
    """Warn of channels where ``image_shape`` has a height or a width.

    It is (height, width, channels) if they come ``last``, else (channels, height, width).
    """
    shape = tuple(int(side) for side in image_shape or ())
    if len(shape) != 3:
        return
    n_channels, height, width = shape if last else (shape[2], *shape[:2])
    # Signals of many channels are as narrow as grey pictures are, but not square.
    coloured = n_channels in (3, 4) or (n_channels == 1 and height == width)
    if not coloured or min(height, width) <= _MOST_COLOURS:
        return
    if last:
        means, place = f"{n_channels} x {height} pixels of {width} channels", "first"
        wanted, order = (height, width, n_channels), (0, 2, 3, 1)
    else:
        means, place = f"{height} channels of {width} x {n_channels} pixels", "last"
        wanted, order = (n_channels, height, width), (0, 3, 1, 2)
    warn(
        f"image_shape={shape} means {means}. If the channels of X come {place}, reorder its "
        f"columns, np.asarray(X).reshape{(-1, *shape)}.transpose{order}.reshape(len(X), -1), and "
        f"pass image_shape={wanted}."
    )
