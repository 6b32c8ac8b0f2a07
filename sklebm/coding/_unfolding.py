"""How the parameters of a ``LISTAEncoder`` define an unfolded solver."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm.energies import L1
from sklebm.energies.sparse_coding import EncodedSparseCodingEnergy
from sklebm.inference.unfolded import UnfoldedEncoder, Unfolding, strongest_pairs


def unfolding_record(model: Any, n_features: int, n_components: int) -> dict[str, Any]:
    """The network as plain values; refuses parameters that the variant does not use."""
    _check_choices(model)
    return {
        "n_features": n_features,
        "n_components": n_components,
        "n_layers": int(model.n_layers),
        "variant": str(model.variant),
        "shared_weights": int(model.shared_weights),
        "selection_rate": float(model.selection_rate),
        "max_selection": float(model.max_selection),
        "inhibition_mask": _mask_record(model.inhibition_mask),
    }


def _mask_record(mask: Any) -> str | float:
    """What kind ``inhibition_mask`` is: none, a share of the pairs, or an array."""
    if mask is None:
        return "none"
    return float(mask) if np.ndim(mask) == 0 else "given"


def _check_choices(model: Any) -> None:
    idle = {
        "init": model.variant == "lcod" and model.init == "analytic",
        "selection_rate": model.variant != "coupled" and model.selection_rate > 0,
        "inhibition_mask": model.variant == "coupled" and model.inhibition_mask is not None,
    }
    for name, is_idle in idle.items():
        if is_idle:
            raise ValueError(
                f"{name}={getattr(model, name)!r} does not apply to variant={model.variant!r}: "
                "leave it out, or choose another variant."
            )


def unfolding_of(architecture: dict[str, Any]) -> Unfolding:
    """The solver to unfold, and how many layers of it."""
    return Unfolding(
        architecture["variant"],
        int(architecture["n_layers"]),
        bool(architecture["shared_weights"]),
        float(architecture["selection_rate"]),
        float(architecture["max_selection"]),
    )


def blank_encoder(architecture: dict[str, Any], dictionary: Tensor) -> UnfoldedEncoder:
    """The network with parameters on the meta device."""
    k, d = dictionary.shape
    masked = architecture["inhibition_mask"] != "none"
    return unfolding_of(architecture).assemble(
        dictionary,
        torch.empty(k, d, device="meta"),
        torch.empty(k, device="meta"),
        torch.empty(k, k, device="meta"),
        torch.empty(k, k, device="meta") if masked else None,
    )


def first_energy(model: Any, atoms: Tensor, architecture: dict[str, Any]) -> Any:
    """The energy whose encoder is the solver itself, float32."""
    encoder = unfolding_of(architecture).start(
        atoms,
        float(model.alpha),
        analytic=model.init == "analytic",
        mask=inhibition_mask(model.inhibition_mask, atoms),
    )
    energy: Any = EncodedSparseCodingEnergy(encoder, atoms, L1(), float(model.alpha))
    energy.architecture = architecture
    return energy.float()


def inhibition_mask(parameter: Any, dictionary: Tensor) -> Tensor | None:
    """The parameter ``inhibition_mask`` as zeros and ones."""
    if parameter is None:
        return None
    mask, k = np.asarray(parameter), len(dictionary)
    if mask.ndim == 0:
        return strongest_pairs(dictionary, float(mask))
    if mask.shape != (k, k) or mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"inhibition_mask has shape {mask.shape} and dtype {mask.dtype}: pass true or "
            f"false for each of the ({k}, {k}) pairs of atoms, or a fraction of them."
        )
    return torch.from_numpy(mask.astype(np.float32))


def check_mask(model: Any) -> None:
    """Refuse to continue from weights that were learnt under another given mask."""
    if model.architecture_["inhibition_mask"] != "given":
        return
    mask = inhibition_mask(model.inhibition_mask, torch.from_numpy(model.components_))
    if mask is None or not np.array_equal(mask.numpy(), model.weights_["mask"]):
        raise ValueError(
            "inhibition_mask differs from the fitted one that training would continue from: "
            "set it back, or fit with warm_start=False."
        )
