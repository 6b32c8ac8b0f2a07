"""What generators with critics answer: rows of latents, latents of rows, outputs of the critic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn import get_config
from sklearn.utils.validation import check_is_fitted

from sklebm._checks import check_count
from sklebm._shell.conditions import Conditions
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows, resolve_device, row_slices
from sklebm.energies.adversarial import WEIGHT_OF_LATENTS
from sklebm.inference.latents import closest_latents


def drawn(model: Any, n_samples: int, y: Any, random_state: RandomState) -> Any:
    """Rows of new latents, (n_samples, n_features), or a row for each entry of y."""
    check_is_fitted(model)
    check_count(n_samples, "n_samples")
    if model.architecture_["conditional"]:
        y = Conditions.recalled(model).repeated(y, n_samples)
        n_samples = n_samples if y is None else len(y)
    given = _given(model, y, n_samples)
    device = resolve_device(model.device, None, model._prefers_cuda)
    energy = model._energy(device).float()
    generator = make_generator(draw_seed(random_state), "sampling")
    out = np.empty((n_samples, model.n_features_in_), dtype=np.float32)
    with torch.no_grad():
        for part in row_slices(n_samples, model._floats_per_row()):
            z = torch.empty(len(out[part]), energy.n_components)
            z = z.normal_(generator=generator).to(device)
            beside = () if given is None else (given[part].to(z),)
            out[part] = energy.decode(z, *beside).cpu().numpy()
    return out


def decoded(model: Any, Z: Any, y: Any, what: str) -> Any:
    """Rows of given latents, in the type of Z."""
    check_is_fitted(model)
    probe = model._twin(model._unfitted_dict())
    rows = model._read(Z, probe, reset=True)
    width = int(model.architecture_["n_components"])
    if rows.shape[1] != width:
        raise ValueError(
            f"Z has {rows.shape[1]} columns, but the generator of {type(model).__name__} takes "
            f"latents of {width} columns: pass what invert returned, or draws of that width."
        )
    energy = model._energy(rows.device).to(rows.dtype)
    return rows.map(
        lambda z, *given: energy.decode(z, *(part.to(z) for part in given)),
        floats_per_row=model._floats_per_row(),
        what=f"{type(model).__name__}.{what}",
        beside=_given(model, y, len(rows)),
    )


def inverted(model: Any, X: Any, y: Any, n_starts: int, n_steps: int, what: str) -> Any:
    """The closest latents, from the same starts for every row."""
    check_count(n_starts, "n_starts")
    check_count(n_steps, "n_steps")
    check_is_fitted(model)
    width = int(model.architecture_["n_components"])
    starts = torch.randn(n_starts, width, generator=make_generator(0, "inversion"))
    starts[0] = 0.0
    # The Hessian and its eigenvectors, and what two derivatives keep of every layer.
    floats = n_starts * (3 * model._floats_per_row() + 3 * width**2)
    # Where not even one row fits, there is one at a time; the chunks around it have said so.
    floats = min(floats, max(1, int(2**17 * get_config()["working_memory"])))

    def invert(energy: Any, x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        energy.requires_grad_(requires_grad=False)
        y = energy.standardized(x)
        parts = [
            closest_latents(
                energy.rebuild,
                y[part],
                starts,
                *(g[part] for g in given),
                n_steps=n_steps,
                weight=WEIGHT_OF_LATENTS,
            )[0]
            for part in row_slices(len(y), floats, y.device)
        ]
        return torch.cat(parts)

    return judged(model, X, y, invert, what)


def judged(
    model: Any,
    X: Any,
    y: Any,
    function: Callable[..., torch.Tensor],
    what: str,
    *,
    latents: bool = False,
) -> Any:
    """Stream ``function(energy, rows, *given)`` over X, or over what ``transform`` returned."""
    check_is_fitted(model)
    if not model.architecture_["conditional"]:
        return model._map_rows(X, function, what, latents=latents)
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    return model._map_rows(
        X,
        lambda energy, x, given: function(energy, x, given.to(x)),
        what,
        latents=latents,
        beside=_given(model, y, n_rows),
    )


def paired(model: Any, X: Any, Z: Any, y: Any) -> Any:
    """E(x, z) of each row with what ``transform`` returned of it, or another latent."""
    check_is_fitted(model)
    beside = model._open_latents(Z)
    widths, given = [beside.shape[1]], _given(model, y, len(beside))
    if given is not None:  # both accompany the rows of X as one table
        widths.append(given.shape[1])
        z = beside.all()
        beside = Rows(torch.cat([z, given.all().to(z)], dim=1), beside.device)
    return model._map_rows(
        X,
        lambda energy, x, both: energy.energy(x, *both.to(x).split(widths, dim=1)),
        "energy",
        beside=beside,
    )


def _given(model: Any, y: Any, n_rows: int) -> Rows | None:
    """What networks get beside the rows of a conditional model; None of any other."""
    if not model.architecture_["conditional"]:
        return None
    owner = f"{type(model).__name__}(conditional=True)"
    return Conditions.recalled(model).rows(y, n_rows, owner)
