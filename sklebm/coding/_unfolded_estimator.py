"""How an unfolded solver is built, which codes it learns to predict, and from which start."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.rows import Rows
from sklebm.coding._coding_estimator import given_dictionary, warn_if_codes_vanish
from sklebm.coding._encoder_estimator import EncoderEstimator
from sklebm.coding._target_codes import CodedRows, fitted_dictionary, given_codes, solver_codes
from sklebm.coding.sparse_coder import SparseCoder
from sklebm.energies import L1
from sklebm.energies.sparse_coding import EncodedSparseCodingEnergy
from sklebm.inference.unfolded import UnfoldedEncoder, Unfolding, strongest_pairs
from sklebm.objectives import Batch, CodePrediction


class UnfoldedEstimator(EncoderEstimator):
    """Base of encoders that unfold a solver and learn from codes; parameters are the subclass's."""

    # ------------------------------------------------------------------ the network

    def _architecture(self, n_features: int, n_components: int) -> dict[str, Any]:
        self._check_choices()
        return {
            "n_features": n_features,
            "n_components": n_components,
            "n_layers": int(self.n_layers),
            "variant": str(self.variant),
            "shared_weights": int(self.shared_weights),
            "selection_rate": float(self.selection_rate),
            "max_selection": float(self.max_selection),
            "inhibition_mask": self._mask_record(),
        }

    def _mask_record(self) -> str | float:
        """What ``inhibition_mask`` is: nothing, a share of the pairs, or an array."""
        if self.inhibition_mask is None:
            return "none"
        return float(self.inhibition_mask) if np.ndim(self.inhibition_mask) == 0 else "given"

    def _check_choices(self) -> None:
        """Refuse parameters that mean nothing for the variant."""
        idle = {
            "init": self.variant == "lcod" and self.init == "analytic",
            "selection_rate": self.variant != "coupled" and self.selection_rate > 0,
            "inhibition_mask": self.variant == "coupled" and self.inhibition_mask is not None,
        }
        for name, is_idle in idle.items():
            if is_idle:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} means nothing for variant={self.variant!r}: "
                    "leave it out, or choose another variant."
                )

    def _blank_encoder(self, architecture: dict[str, Any], dictionary: Tensor) -> UnfoldedEncoder:
        k, d = dictionary.shape
        masked = architecture["inhibition_mask"] != "none"
        return _unfolding(architecture).assemble(
            dictionary,
            torch.empty(k, d, device="meta"),
            torch.empty(k, device="meta"),
            torch.empty(k, k, device="meta"),
            torch.empty(k, k, device="meta") if masked else None,
        )

    def _mask(self, dictionary: Tensor) -> Tensor | None:
        """The parameter ``inhibition_mask`` as zeros and ones."""
        if self.inhibition_mask is None:
            return None
        mask, k = np.asarray(self.inhibition_mask), len(dictionary)
        if mask.ndim == 0:
            return strongest_pairs(dictionary, float(mask))
        if mask.shape != (k, k) or mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
            raise ValueError(
                f"inhibition_mask has shape {mask.shape} and dtype {mask.dtype}: pass true or "
                f"false for each of the ({k}, {k}) pairs of atoms, or a share of them."
            )
        return torch.from_numpy(mask.astype(np.float32))

    def _initial_energy(self, rows: Rows, means: Tensor, generator: torch.Generator) -> Any:
        atoms = cast(CodedRows, rows).atoms.cpu().double()
        architecture = self._architecture(rows.shape[1], len(atoms))
        encoder = _unfolding(architecture).start(
            atoms, float(self.alpha), analytic=self.init == "analytic", mask=self._mask(atoms)
        )
        energy: Any = EncodedSparseCodingEnergy(encoder, atoms, L1(), float(self.alpha))
        energy.architecture = architecture
        return energy.float()

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        if self.architecture_["inhibition_mask"] != "given":
            return
        mask = self._mask(torch.from_numpy(self.components_))
        if mask is None or not np.array_equal(mask.numpy(), self.weights_["mask"]):
            raise ValueError(
                "inhibition_mask differs from the fitted one that training would continue from: "
                "set it back, or fit with warm_start=False."
            )

    def _objective(self, energy: Any) -> CodePrediction:
        for matrix in energy.encoder.matrices():
            matrix.requires_grad_(bool(self.learn_weights))
        return CodePrediction(self.supervised_layers)

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        """Minus half the squared error of the last layer's codes."""
        return -float(CodePrediction().loss(energy, batch, {}, torch.Generator())[0])

    # ------------------------------------------------------------------ targets

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> CodedRows:
        """The rows with dictionary and target codes, of which either may have been given."""
        codes, atoms = data.get("codes"), self._known_atoms(rows, resume)
        if codes is not None:
            width = self.n_components if atoms is None else len(atoms)
            targets = given_codes(codes, rows, width)
            if atoms is None:
                rows.need_one_process("finding a dictionary for given codes")
                atoms = fitted_dictionary(rows, targets)
            return CodedRows(rows, atoms, targets)
        if atoms is None:  # the warnings of the coder are this encoder's too
            coder = SparseCoder(
                self.n_components, alpha=self.alpha, random_state=seed, strategy=self.strategy
            )
            atoms = torch.from_numpy(coder.fit(rows.all()).components_).to(rows.device)
        elif not resume:
            zero = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
            warn_if_codes_vanish(rows, atoms, zero, L1(), self.alpha)
        return CodedRows(rows, atoms, solver_codes(rows, atoms, float(self.alpha)))

    def _known_atoms(self, rows: Rows, resume: bool) -> Tensor | None:
        """The fitted dictionary, or the given one, or none."""
        given = None
        if self.dictionary is not None:
            given = given_dictionary(self.dictionary, self.n_components, rows.shape[1])
        if resume:
            self._check_resumable(rows)
            fitted = self.components_
            if given is not None and not np.array_equal(given.astype(fitted.dtype), fitted):
                raise ValueError(
                    "dictionary differs from the fitted components_ that training would continue "
                    "from: set it back, or fit with warm_start=False."
                )
            given = fitted
        return None if given is None else torch.from_numpy(given).to(rows.device)


def _unfolding(architecture: dict[str, Any]) -> Unfolding:
    return Unfolding(
        architecture["variant"],
        int(architecture["n_layers"]),
        bool(architecture["shared_weights"]),
        float(architecture["selection_rate"]),
        float(architecture["max_selection"]),
    )
