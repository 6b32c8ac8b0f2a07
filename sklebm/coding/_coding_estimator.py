"""What models with a linear decoder and a sparse code share: codes, energies, reconstructions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError

from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm.base import EnergyEstimator
from sklebm.coding._penalty import recall_penalty
from sklebm.energies import Penalty, SparseCodingEnergy
from sklebm.inference.sparse import solve_codes


class CodingEstimator(EnergyEstimator):
    """Base of models with a dictionary; subclasses say how it and the codes are found."""

    n_components: int | None
    components_: Any
    intercept_: Any
    alpha_: float
    penalty_: dict[str, Any]
    code_tol: float

    def _dictionary_spec(self) -> Spec:
        return {
            "components_": Array("f", (self.n_components, self.n_features_in_)),
            "alpha_": Scalar(float, 0.0),
            "penalty_": Record(),
        }

    def _energy(self, device: torch.device) -> SparseCodingEnergy:
        atoms, intercept = (
            torch.from_numpy(array).to(device) for array in (self.components_, self.intercept_)
        )
        return SparseCodingEnergy(atoms, recall_penalty(self.penalty_), self.alpha_, intercept)

    def _floats_per_row(self) -> int:
        return 4 * int(self.n_features_in_) + 5 * len(self.components_)

    @property
    def _n_features_out(self) -> int:
        if not hasattr(self, "components_"):
            raise NotFittedError(f"This {type(self).__name__} instance is not fitted yet.")
        return len(self.components_)

    def _codes(self, energy: SparseCodingEnergy, x: torch.Tensor) -> torch.Tensor:
        """The codes of least energy."""
        return solve_codes(
            energy.centre(x), energy.dictionary, energy.penalty, energy.alpha, tol=self.code_tol
        ).codes

    def _free_energies(self, energy: SparseCodingEnergy, x: torch.Tensor) -> torch.Tensor:
        """The energy at these codes."""
        return energy.energy(x, self._codes(energy, x))

    def transform(self, X: Any) -> Any:
        """Return the code of least energy of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            z*, sparse in value, dense in storage.
        """
        return self._map_rows(X, self._codes, "transform")

    def free_energy(self, X: Any) -> Any:
        r"""Return :math:`F(x) = \min_z E(x, z)`.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        return self._map_rows(X, self._free_energies, "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return -F(x); the normaliser is not known.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Minus the free energy, in squared units of X. Higher is more typical.
        """
        return self._map_rows(X, lambda energy, x: -self._free_energies(energy, x), "score_samples")

    def inverse_transform(self, Z: Any) -> Any:
        """Return the reconstructions z D + b.

        Parameters
        ----------
        Z : array-like or tensor of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        X : array or tensor of shape (n_samples, n_features)
            Reconstructed rows.
        """
        return self._map_rows(
            Z, lambda energy, z: energy.decode(z), "inverse_transform", latents=True
        )

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each row with its own code.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_components)
            Codes, one for each row.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In squared units of X. Infinite for codes that the penalty forbids.
        """
        return self._pair_energies(X, Z, may_be_infinite=True)


def given_dictionary(dictionary: Any, n_components: int | None, n_features: int) -> Any:
    """The checked parameter ``dictionary`` as a float array.

    Raises
    ------
    ValueError
        If it is no finite table, of another width or height, or holds an atom of length zero.
    """
    atoms = np.asarray(dictionary)
    if atoms.dtype.kind not in "fiub":
        raise ValueError(f"dictionary has dtype {atoms.dtype}, but must hold numbers.")
    atoms = atoms.astype(atoms.dtype if atoms.dtype == np.float32 else np.float64)
    if atoms.ndim != 2 or atoms.shape[1] != n_features or not len(atoms):
        raise ValueError(
            f"dictionary has shape {atoms.shape}, but X has {n_features} features: its rows are "
            f"atoms, so it must have shape (n_components, {n_features})."
        )
    if n_components is not None and len(atoms) != n_components:
        raise ValueError(
            f"n_components={n_components}, but dictionary holds {len(atoms)} atoms: leave "
            "n_components out, or pass as many atoms."
        )
    finite = np.isfinite(atoms).all(axis=1)
    for bad, what in ((~finite, "NaN or infinity"), (finite & ~atoms.any(axis=1), "only zeros")):
        if bad.any():
            places = ", ".join(str(place) for place in np.flatnonzero(bad)[:5])
            raise ValueError(
                f"dictionary holds {what} in {int(bad.sum())} of {len(atoms)} atoms (first: "
                f"{places}): atoms must be finite and not zero, so drop these."
            )
    return atoms


def warn_if_codes_vanish(
    rows: Rows, atoms: torch.Tensor, intercept: torch.Tensor, penalty: Penalty, alpha: float
) -> None:
    """Warn if alpha is so large that the code of every row is zero."""
    largest = 0.0
    for part in rows.chunks(2 * rows.shape[1] + 2 * len(atoms)):
        products = (rows[part].double() - intercept) @ atoms.double().T
        top = penalty.critical_alpha(products, atoms.double().square().sum(dim=1)).max()
        largest = max(largest, float(top))
    if largest <= alpha:
        warnings.warn(
            f"alpha={alpha:.6g} is not below the largest product of a row and an atom "
            f"({largest:.6g}), so that every code is zero. Lower alpha, or scale X.",
            UserWarning,
            stacklevel=5,
        )
