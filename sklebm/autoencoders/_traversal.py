"""Reconstructions as one latent at a time takes given values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def traverse_latents(
    Z: NDArray[Any],
    decode: Callable[[NDArray[Any]], NDArray[Any]],
    components: Any,
    values: Any,
    default: NDArray[Any],
) -> NDArray[Any]:
    """Decoded codes of shape (n_samples, n_chosen, n_values, n_features).

    ``components`` of None moves all latents, and ``values`` of None takes ``default``.

    Raises
    ------
    ValueError
        If a component or a value is invalid.
    """
    steps = default if values is None else np.asarray(values, dtype=Z.dtype)
    chosen = np.arange(Z.shape[1]) if components is None else np.asarray(components)
    if steps.ndim != 1 or not steps.size or not np.isfinite(steps).all():
        raise ValueError(f"values={values!r} must be a list of finite numbers.")
    if chosen.ndim != 1 or not np.isin(chosen, np.arange(Z.shape[1])).all():
        raise ValueError(
            f"components={components!r} must be a list of latents from 0 to {Z.shape[1] - 1}."
        )
    moved = np.repeat(Z[:, None], len(chosen) * len(steps), axis=1)
    moved = moved.reshape(len(Z), len(chosen), len(steps), -1)
    for index, component in enumerate(chosen):
        moved[:, index, :, component] = steps
    decoded = decode(moved.reshape(-1, Z.shape[1]))
    return decoded.reshape(*moved.shape[:3], -1)
