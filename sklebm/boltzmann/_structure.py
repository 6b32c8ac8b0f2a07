"""Which pairs of units of a Boltzmann machine are coupled."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sklebm.training.architecture import check_image_shape

STRUCTURES = ("full", "grid")
_MOST_UNITS = 2**15


def coupled_pairs(
    structure: Any, image_shape: Any, n_visible: int, n_hidden: int, owner: str
) -> torch.Tensor:
    """A symmetric mask over all units, the visible ones first.

    "full" couples all pairs; "grid" couples visible units that are neighbours in a row or column,
    and every hidden unit with all visible ones, but hidden units not with each other. So does a
    mask over the visible units alone.

    Raises
    ------
    ValueError
        If a mask has another shape or is not symmetric, the image has another size, or there are
        too many units.
    """
    if image_shape is not None and not (isinstance(structure, str) and structure == "grid"):
        raise ValueError(
            f'{owner}: image_shape={image_shape!r} applies only to structure="grid": leave it out, '
            "or set the structure."
        )
    n_units = n_visible + n_hidden
    if n_units > _MOST_UNITS:
        raise ValueError(
            f"{owner}: n_components={n_hidden} and {n_visible} features are {n_units} units, more "
            f"than the {_MOST_UNITS} whose pairs fit in memory: use BernoulliRBM, which couples "
            "hidden units to visible ones only."
        )
    if isinstance(structure, str) and structure == "full":
        return ~torch.eye(n_units, dtype=torch.bool)
    if isinstance(structure, str):
        inner = _grid(image_shape, n_visible, owner)
    else:
        inner = np.asarray(structure)
        if inner.shape not in ((n_visible, n_visible), (n_units, n_units)):
            raise ValueError(
                f"{owner}: structure has shape {inner.shape}, but must be a square of "
                f"{n_visible} visible units, or of all {n_units} units, the visible ones first."
            )
        if inner.dtype.kind not in "bui" or not np.isin(inner, (0, 1)).all():
            raise ValueError(
                f"{owner}: structure must hold True or False for each pair of units, not "
                f"{inner.dtype} values."
            )
        if not (inner == inner.T).all():
            raise ValueError(f"{owner}: structure must be symmetric: pass structure | structure.T.")
    mask = torch.ones(n_units, n_units, dtype=torch.bool)
    mask[n_visible:, n_visible:] = False
    mask[: len(inner), : len(inner)] = torch.from_numpy(inner.astype(bool))
    return mask.fill_diagonal_(False)


def _grid(image_shape: Any, n_visible: int, owner: str) -> Any:
    """Neighbours above, below, left and right."""
    height, width = (1, n_visible)
    if image_shape is not None:
        channels, height, width = check_image_shape(image_shape, n_visible)
        if channels > 1:
            raise ValueError(f"{owner}: image_shape={image_shape!r} must be (height, width).")
    row, column = np.divmod(np.arange(height * width), width)
    return np.abs(row[:, None] - row) + np.abs(column[:, None] - column) == 1


def check_couplings(state: Any, owner: str) -> None:
    """Raise ValueError unless the couplings are symmetric, for all units, without a diagonal."""
    couplings, n_hidden = state["couplings_"], state.get("intercept_hidden_")
    n_units = state["n_features_in_"] + (0 if n_hidden is None else len(n_hidden))
    if couplings.shape != (n_units, n_units):
        raise ValueError(
            f"{owner}: couplings_ has shape {couplings.shape}, but there are {n_units} units, "
            "visible and hidden."
        )
    check_pairs(couplings, owner)


def check_pairs(couplings: Any, owner: str) -> None:
    """Raise ValueError unless the couplings are symmetric and zero on the diagonal."""
    if not np.allclose(couplings, np.transpose(couplings), rtol=1e-6, atol=0.0):
        raise ValueError(
            f"{owner}: couplings_ must be symmetric; (W + W.T) / 2 has the same energies."
        )
    if np.any(np.diagonal(couplings)):
        raise ValueError(
            f"{owner}: couplings_ must be zero on the diagonal: add W_ii / 2 to the biases, since "
            "bits equal their squares."
        )
