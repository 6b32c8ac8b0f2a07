r"""min_D 1/2 tr(D' A D) - tr(D' B), |d_k| <= 1 or = 1: one atom after the other.

A = sum z z' and B = sum z x' summarise everything a dictionary needs from the rows and their codes.
Every update d_k <- d_k + (B_k - A_k D) / A_kk, followed by the projection, is the exact minimum
over d_k, so the objective never rises. The same holds with d_k >= 0, where negative entries are set
to zero before the length is constrained.
"""

from __future__ import annotations

import torch
from torch import Tensor


def update_atoms(
    dictionary: Tensor,
    code_products: Tensor,
    row_products: Tensor,
    *,
    unit_norm: bool,
    positive: bool = False,
    n_sweeps: int = 1,
) -> None:
    """Improve every atom that is used, in place.

    Parameters
    ----------
    dictionary : Tensor of shape (n_components, n_features)
        D, float64.
    code_products : Tensor of shape (n_components, n_components)
        A, float64.
    row_products : Tensor of shape (n_components, n_features)
        B, float64.
    unit_norm : bool
        Whether atoms have length one, instead of at most one.
    positive : bool, default=False
        Whether atoms are held at or above zero.
    n_sweeps : int, default=1
        Passes over the atoms.

    Notes
    -----
    A pass costs O(k^2 d).
    """
    if dictionary.device.type == "cpu":
        from sklebm.inference.row_lasso import sweep_atoms

        arrays = (dictionary.numpy(), code_products.numpy(), row_products.numpy())
        sweep_atoms(*arrays, unit_norm, positive, n_sweeps)
        return
    for _ in range(n_sweeps):
        for k in code_products.diagonal().gt(0).nonzero()[:, 0].tolist():
            atom = (
                dictionary[k]
                + (row_products[k] - code_products[k] @ dictionary) / (code_products[k, k])
            )
            atom = atom.clamp(min=0.0) if positive else atom
            length = atom.norm()
            if unit_norm:
                # A vanishing atom has no direction: it stays.
                dictionary[k] = torch.where(length > 0, atom / length, dictionary[k])
            else:
                dictionary[k] = atom / length.clamp(min=1.0)
