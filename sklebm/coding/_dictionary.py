r"""Learning a dictionary from sums: A = sum z z', B = sum z x', and where an intercept goes.

The expected energy over the codes found so far is a quadratic function of D (the surrogate of
Mairal et al., 2010): it needs only the sums, never the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.ranks import ALONE, Ranks
from sklebm.coding._search import CodeSearch
from sklebm.coding._sums import Sums
from sklebm.energies import Penalty, SparseCodingEnergy
from sklebm.inference.atom_update import update_atoms

# How many passes over the rows the sums remember.
_MEMORY = 0.5
# Rows kept from each batch as replacements for dead atoms.
_N_SPARE = 8
# Gradient steps: the initial rate, as a share of the step to the minimum over one atom, and the
# number of steps after which it has halved. Chosen on digits and natural patches.
_RATE, _HALF_LIFE = 0.3, 30.0


@dataclass(frozen=True)
class Settings:
    """How a dictionary is learnt."""

    penalty: Penalty
    alpha: float
    batch_size: int
    unit_norm: bool
    fit_intercept: bool
    search: CodeSearch
    by_gradient: bool
    positive: bool = False


class DictionaryLearner:
    """A dictionary that changes after every ``batch_size`` rows, however the rows arrive.

    Within a batch, all codes are found with the same dictionary and only sums are kept, so the
    result depends neither on how the rows are split into calls of ``absorb`` nor on which rank
    collects them.
    """

    def __init__(
        self, dictionary: Tensor, intercept: Tensor, settings: Settings, ranks: Ranks = ALONE
    ) -> None:
        self.ranks = ranks
        self.atoms = dictionary.double()
        self.intercept = intercept.double()
        self.settings = settings
        self.history, self.pending = self._no_sums(), self._no_sums()
        self.spare = self.atoms.new_zeros(0, dictionary.shape[1])
        self.spare_errors = self.atoms.new_zeros(0)
        self.n_steps = 0
        self.energy, self.n_rows, self.n_nonzero = 0.0, 0, 0

    def _no_sums(self) -> Any:
        """The sums over no rows."""
        return Sums.zero(self.atoms)

    def absorb(self, x: Tensor, **beside: Tensor) -> None:
        """Take in rows, and what ``collect`` is told of each; a step follows every full batch."""
        if int(self.pending.weight) >= self.settings.batch_size:
            self.step()  # batches have become shorter: this one is full
        while len(x):
            room = self.settings.batch_size - int(self.pending.weight)
            part, x = x[:room], x[room:]
            self.collect(part, **{name: values[:room] for name, values in beside.items()})
            beside = {name: values[room:] for name, values in beside.items()}
            if len(part) == room:
                self.step()

    def pass_over(self, x: Tensor, order: Tensor, *, online: bool) -> tuple[float, float]:
        """One pass over the rows of all ranks, in this order; see ``take_means``.

        ``online`` improves the dictionary after every batch rather than after all rows.
        """
        parts = torch.split(order, self.settings.batch_size)
        start = self.ranks.start(len(x))
        for part in parts:
            own = part
            if self.ranks.size > 1:
                own = part[(part >= start) & (part < start + len(x))] - start
            if len(own):
                self.collect(x[own], own)
            if online:
                self.step(memory=_MEMORY * len(parts))
        if not online:
            self.step(memory=1.0, n_sweeps=10)
        return self.take_means()

    def collect(self, x: Tensor, places: Tensor | None = None) -> None:
        """Find the codes of rows and add them to the sums of the batch.

        ``places`` says where the rows stand in X.
        """
        chosen = self.settings
        atoms, centred = self.atoms.to(x.dtype), x
        if chosen.fit_intercept:
            centred = x - self.intercept.to(x.dtype)
        z = chosen.search.solve(centred, atoms, chosen.penalty, chosen.alpha).codes
        self.take(x, centred, z)

    def take(self, x: Tensor, centred: Tensor, z: Tensor) -> None:
        """Add rows, with and without the intercept, and their codes to the sums of the batch."""
        chosen, atoms = self.settings, self.atoms.to(x.dtype)
        energies = SparseCodingEnergy(atoms, chosen.penalty, chosen.alpha).energy(centred, z)
        if not bool(torch.isfinite(energies).all()):
            raise FloatingPointError(
                f"{chosen.search.owner}: the energies of the rows overflow (largest |X|: "
                f"{float(x.abs().max()):.3g}). Scale X, for example with StandardScaler."
            )
        self.pending.add(z, x)
        self.energy += float(energies.double().sum())
        self.n_rows += len(x)
        self.n_nonzero += int((z != 0).sum())
        self._keep_worst(
            torch.cat([self.spare, centred.double()]),
            torch.cat([self.spare_errors, energies.double()]),
        )

    def _keep_worst(self, rows: Tensor, errors: Tensor) -> None:
        """Keep the rows with the highest energy."""
        kept = errors.argsort(descending=True, stable=True)[:_N_SPARE]
        self.spare, self.spare_errors = rows[kept], errors[kept]

    def step(self, memory: float = math.inf, n_sweeps: int = 1) -> None:
        """Fold the batch into the history and improve atoms and intercept.

        Early codes were found with poor dictionaries. The weight of a batch falls with the number
        of batches t since the beginning as s^2 / t^2 (Mairal et al., section 3.4.1), or by a factor
        of e every ``memory`` batches, whichever is faster.
        """
        self.n_steps += 1
        share = max(0.0, 1.0 - max(2.0 / self.n_steps, 1.0 / memory))
        batch, self.pending = self.pending.over(self.ranks), self._no_sums()
        self.history.fade_and_add(share, batch)
        self._improve(batch, n_sweeps)
        self._replace_dead()

    def _improve(self, batch: Any, n_sweeps: int) -> None:
        """Lower the expected energy over atoms and intercept; ``batch`` is part of the history."""
        sums = self.history
        for _ in range(n_sweeps):
            if self.settings.by_gradient:
                self._descend(batch)
            else:
                update_atoms(
                    self.atoms,
                    sums.code_products,
                    self._row_products(sums),
                    unit_norm=self.settings.unit_norm,
                    positive=self.settings.positive,
                )
            if self.settings.fit_intercept:
                self.intercept = (sums.row_sum - sums.code_sum @ self.atoms) / sums.weight

    def _row_products(self, sums: Sums) -> Tensor:
        """sum z (x - b)'."""
        if not self.settings.fit_intercept:
            return sums.row_products
        return sums.row_products - torch.outer(sums.code_sum, self.intercept)

    def _descend(self, batch: Sums) -> None:
        """Move all atoms at once against the gradient of the batch's mean energy.

        The curvature along an atom is the mean square of its code: a step in units of its inverse
        needs no learning rate. Atoms that no recent row uses stay as they are.
        """
        gradient = batch.code_products @ self.atoms - self._row_products(batch)
        curvature = self.history.code_products.diagonal() / self.history.weight
        # A rarely used atom has too little evidence behind it to be moved that far.
        curvature = curvature + 0.01 * curvature.mean()
        rate = _RATE / (1.0 + self.n_steps / _HALF_LIFE)
        step = torch.where(curvature > 0, rate / curvature, 0.0)
        moved = self.atoms - step[:, None] * gradient / batch.weight
        moved = moved.clamp(min=0.0) if self.settings.positive else moved
        lengths = torch.linalg.vector_norm(moved, dim=1, keepdim=True)
        if self.settings.unit_norm:
            # A vanishing atom has no direction: leave it.
            self.atoms = torch.where(lengths > 0, moved / lengths, self.atoms)
        else:
            self.atoms = moved / lengths.clamp(min=1.0)

    def _replace_dead(self) -> None:
        """Replace atoms that no recent row uses by the rows of highest energy in the batch."""
        usage = self.history.usage()
        dead = (usage <= 1e-9 * usage.mean()).nonzero()[:, 0]
        if len(dead):
            self._keep_worst(self.ranks.concat(self.spare), self.ranks.concat(self.spare_errors))
            rows = self.spare.clamp(min=0.0) if self.settings.positive else self.spare
            rows = rows[rows.any(dim=1)]
            dead = dead[: len(rows)]
            self.atoms[dead] = normalise(rows[: len(dead)])
            self.history.forget(dead)
        self.spare, self.spare_errors = self.spare[:0], self.spare_errors[:0]

    def take_means(self) -> tuple[float, float]:
        """Mean energy and mean number of non-zeros of the rows since the last call."""
        total = self.ranks.total
        n_rows = max(total(self.n_rows), 1)
        means = total(self.energy) / n_rows, total(self.n_nonzero) / n_rows
        self.energy, self.n_rows, self.n_nonzero = 0.0, 0, 0
        return means

    def export(self) -> dict[str, Any]:
        """What ``restore`` needs to continue."""
        return {
            **self.history.export("history"),
            **self.pending.export("pending"),
            "spare": self.spare.cpu().numpy().copy(),
            "spare_errors": self.spare_errors.cpu().numpy().copy(),
            "atoms": self.atoms.cpu().numpy().copy(),
            "intercept": self.intercept.cpu().numpy().copy(),
            "n_steps": self.n_steps,
        }

    @classmethod
    def restore(
        cls, state: dict[str, Any], settings: Settings, device: torch.device
    ) -> DictionaryLearner:
        """A learner that continues where ``export`` was called."""
        array = {name: torch.from_numpy(np.array(state[name])).to(device) for name in _ARRAYS}
        learner = cls(array["atoms"], array["intercept"], settings)
        learner.history = learner.history.restore(state, "history", device)
        learner.pending = learner.pending.restore(state, "pending", device)
        learner.spare, learner.spare_errors = array["spare"], array["spare_errors"]
        learner.n_steps = int(state["n_steps"])
        return learner


_ARRAYS = ("atoms", "intercept", "spare", "spare_errors")


def normalise(rows: Tensor) -> Tensor:
    """Rows of length one, whatever their scale; none may be zero."""
    scaled = rows / rows.abs().amax(dim=1, keepdim=True)
    return torch.nn.functional.normalize(scaled, dim=1)


def initial_atoms(
    x: Tensor,
    n_components: int,
    init: str,
    intercept: Tensor,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
    *,
    positive: bool = False,
) -> Tensor:
    """Unit atoms: rows of all ranks, drawn without replacement ("data"), or random directions.

    ``positive`` sets negative entries of rows to zero and takes the absolute values of directions.
    """
    atoms = torch.randn(n_components, x.shape[1], generator=generator, dtype=torch.float64)
    atoms = normalise(atoms.abs() if positive else atoms).to(x.device)
    if init == "data":
        n_rows = int(ranks.total(len(x)))
        order = torch.randperm(n_rows, generator=generator).to(x.device)
        count = 0
        # More than needed, because rows without a direction are skipped.
        for part in torch.split(order, 4 * n_components):
            rows = ranks.take(x, part).double() - intercept
            rows = rows.clamp(min=0.0) if positive else rows
            rows = rows[rows.abs().amax(dim=1) > 0][: n_components - count]
            atoms[count : count + len(rows)] = normalise(rows)
            count += len(rows)
            if count == n_components:
                break
    return atoms
