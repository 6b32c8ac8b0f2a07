"""Several dictionaries, each of the codes of the one below: their search and learner."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm.coding._dictionary import DictionaryLearner, Settings, initial_atoms
from sklebm.coding._penalty import resolve_penalty
from sklebm.coding._search import CodeSearch
from sklebm.energies.layered_coding import LayeredCodingEnergy
from sklebm.inference.layered_coding import solve_layers, threshold_layers
from sklebm.inference.sparse import SparseSolution
from sklebm.training.architecture import positive_integers

# Passes over the rows that the sums remember, as for a single dictionary.
_MEMORY = 0.5
#: Ways to find the codes of all layers.
INFERENCES = ("layered_fista", "layered_thresholding", "multilayer_fista")
# Certificate at which a code is final, by default.
_CODE_TOL = 1e-10
# Rows encoded for each initial atom of an upper layer: enough to find distinct ones.
_PER_ATOM = 8


class LayeredSearch(CodeSearch):
    """Codes of all layers side by side, found as the parameter ``inference`` says."""

    def __init__(self, owner: str, tol: float, inference: str, n_steps: int | None) -> None:
        solver = "threshold" if inference == "layered_thresholding" else "auto"
        by_layer = inference == "layered_fista" and n_steps is not None
        super().__init__(owner, tol, "fista" if by_layer else solver, n_steps if by_layer else None)
        self.inference, self.n_joint_steps = inference, n_steps

    def codes(self, energy: LayeredCodingEnergy, x: Tensor) -> Tensor:
        """The codes of all layers, side by side."""
        dictionaries, alphas = energy.dictionaries, energy.alphas
        positive = energy.penalty.non_negative
        if self.inference == "layered_thresholding":
            found = threshold_layers(x, dictionaries, alphas, positive=positive)
            return torch.cat(found, dim=1)
        return torch.cat([part.codes for part in self._solutions(energy, x)], dim=1)

    def _solutions(self, energy: LayeredCodingEnergy, x: Tensor) -> list[SparseSolution]:
        """The codes of each layer, or of all of them at once, with their certificates."""
        if self.inference == "multilayer_fista":
            whole = solve_layers(
                x,
                energy.dictionaries,
                energy.alphas,
                positive=energy.penalty.non_negative,
                tol=self.tol,
                n_steps=self.n_joint_steps,
            )
            self.count(whole)
            return [whole]
        found, below = [], x
        for atoms, alpha in zip(energy.dictionaries, energy.alphas, strict=True):
            found.append(self.solve(below, atoms, energy.penalty, alpha))
            below = found[-1].codes
        return found

    def certificates(self, energy: LayeredCodingEnergy, x: Tensor) -> Tensor:
        """The largest certificate of what is solved for each row."""
        parts = [part.certificate for part in self._solutions(energy, x)]
        return torch.stack(parts).amax(dim=0)


def search_of(
    coder: Any, inference: str, kind: type[LayeredSearch] = LayeredSearch, tol: float = _CODE_TOL
) -> LayeredSearch:
    """The search for an inference with the other parameters; ``tol`` where none is given."""
    n_steps = coder.n_inference_steps
    if n_steps is not None and inference == "layered_thresholding":
        raise ValueError(
            f"n_inference_steps={n_steps} does not apply to "
            'inference="layered_thresholding", which takes one step a layer: leave it out.'
        )
    tol = tol if coder.code_tol is None else float(coder.code_tol)
    return kind(type(coder).__name__, tol, inference, n_steps)


def learning_inference(coder: Any) -> str:
    """How the codes are found that dictionaries are learnt from."""
    search_of(coder, coder.inference)  # refuses what does not go together
    if coder.learning == "joint":
        return "multilayer_fista"
    if coder.inference != "multilayer_fista":
        return str(coder.inference)
    if min(alphas_of(coder)) == 0:
        raise ValueError(
            f'alpha={coder.alpha!r} holds a zero, for which learning="layerwise" finds no unique '
            'code of a layer alone: use positive numbers, or learning="joint".'
        )
    return "layered_fista"


def sizes_of(coder: Any) -> list[int]:
    """The checked parameter ``hidden_sizes``."""
    sizes = positive_integers(coder.hidden_sizes)
    if not sizes:
        raise ValueError(
            f"hidden_sizes={coder.hidden_sizes!r} must be positive integers, at least one: the "
            "numbers of atoms of the layers, that of the rows first."
        )
    return list(sizes)


def alphas_of(coder: Any) -> list[float]:
    """The checked parameter ``alpha``, for each layer."""
    n_layers = len(sizes_of(coder))
    alphas = [coder.alpha] * n_layers if isinstance(coder.alpha, Real) else list(coder.alpha)
    good = all(isinstance(a, Real) and 0 <= float(a) < math.inf for a in alphas)
    if len(alphas) != n_layers or not good:
        raise ValueError(
            f"alpha={coder.alpha!r} must be one number, or one for each of the {n_layers} layers, "
            "finite and not negative."
        )
    if coder.inference == "layered_fista" and min(alphas) == 0:
        raise ValueError(
            f"alpha={coder.alpha!r} holds a zero, for which a layer alone has no unique code: use "
            'positive numbers, or inference="multilayer_fista" or "layered_thresholding".'
        )
    return [float(a) for a in alphas]


class LayeredLearner:
    """Dictionaries that all change after every ``batch_size`` rows, however the rows arrive."""

    def __init__(self, learners: list[DictionaryLearner], search: LayeredSearch) -> None:
        self.learners, self.search = learners, search

    def energy(self, dtype: torch.dtype) -> LayeredCodingEnergy:
        """The energy with the present dictionaries."""
        return LayeredCodingEnergy(
            [learner.atoms.to(dtype) for learner in self.learners],
            self.learners[0].settings.penalty,
            [learner.settings.alpha for learner in self.learners],
        )

    def sizes(self) -> dict[str, Any] | None:
        """The sizes of layers of kernels as plain values; None for dense layers."""
        return None

    def learner(
        self, coder: Any, penalty: Any, alpha: float, atoms: Any, held: dict[str, Any],
        device: torch.device,
    ) -> DictionaryLearner:  # fmt: skip
        """The learner of the next layer, from its exported state, or its atoms if that is empty."""
        settings = settings_of(coder, penalty, alpha, self.search)
        if held:
            return DictionaryLearner.restore(held, settings, device)
        tensor = torch.from_numpy(np.array(atoms, np.float64)).to(device)
        return DictionaryLearner(tensor, tensor.new_zeros(tensor.shape[1]), settings)

    def absorb(self, x: Tensor) -> None:
        """Take in rows; a step follows every full batch."""
        size = self.learners[0].settings.batch_size
        if int(self.learners[0].pending.weight) >= size:
            self._step(math.inf)  # batches have become shorter: this one is full
        while len(x):
            room = size - int(self.learners[0].pending.weight)
            part, x = x[:room], x[room:]
            self._collect(part)
            if len(part) == room:
                self._step(math.inf)

    def pass_over(self, x: Tensor, order: Tensor) -> tuple[list[float], list[float]]:
        """One pass over the rows; see ``take_means``."""
        parts = torch.split(order, self.learners[0].settings.batch_size)
        for part in parts:
            self._collect(x[part])
            self._step(_MEMORY * len(parts))
        return self.take_means()

    def take_means(self) -> tuple[list[float], list[float]]:
        """Mean energy, of all layers together, and non-zeros of each, since the last call."""
        means = [learner.take_means() for learner in self.learners]
        return [sum(energy for energy, _ in means)], [count for _, count in means]

    def _collect(self, x: Tensor) -> None:
        energy, below = self.energy(x.dtype), x
        for learner, z in zip(
            self.learners, energy.split(self.search.codes(energy, x)), strict=True
        ):
            learner.take(below, below, z)
            below = z

    def _step(self, memory: float) -> None:
        for learner in self.learners:
            learner.step(memory=memory)


def first_layers(coder: Any, x: Tensor, generator: torch.Generator) -> LayeredLearner:
    """Initial atoms: rows of x, and codes of rows in the layers above, or random directions."""
    search, below, learners = search_of(coder, learning_inference(coder)), x, []
    penalty = resolve_penalty(coder.penalty, 1)
    for size, alpha in zip(sizes_of(coder), alphas_of(coder), strict=True):
        zero = torch.zeros(below.shape[1], dtype=torch.float64, device=x.device)
        atoms = initial_atoms(below, size, coder.init, zero, generator)
        settings = settings_of(coder, penalty, alpha, search)
        learners.append(DictionaryLearner(atoms, zero, settings))
        if coder.init == "random":  # whatever the first rows are
            below = x.new_zeros(0, size)
        elif len(learners) < len(sizes_of(coder)):
            wanted = _PER_ATOM * sizes_of(coder)[len(learners)]
            some = torch.randperm(len(x), generator=generator)[:wanted].to(x.device)
            energy = LayeredLearner(learners, search).energy(x.dtype)
            below = energy.split(search.codes(energy, x[some]))[-1]
    return LayeredLearner(learners, search)


def settings_of(coder: Any, penalty: Any, alpha: float, search: LayeredSearch) -> Settings:
    """The parameters in the form a learner needs."""
    return Settings(penalty, alpha, coder.batch_size, False, False, search, by_gradient=False)
