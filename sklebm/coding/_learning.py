"""From the parameters of a ``SparseCoder`` to a learner, and from there to fitted attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.random import draw_seed, make_generator
from sklebm._shell.ranks import ALONE, Ranks
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import warn_of_unequal_spans
from sklebm.coding._checks import (
    given_dictionary,
    warn_if_codes_vanish,
    warn_of_cost,
)
from sklebm.coding._dictionary import DictionaryLearner, Settings, initial_atoms
from sklebm.coding._penalty import record_penalty, resolve_penalty
from sklebm.coding._search import CodeSearch


def search_for(coder: Any) -> CodeSearch:
    """The search that the parameters describe."""
    return CodeSearch(
        type(coder).__name__, float(coder.code_tol), coder.solver, coder.n_solver_steps
    )


def settings_of(coder: Any, n_components: int) -> Settings:
    """The parameters in the form a learner needs."""
    return Settings(
        resolve_penalty(coder.penalty, n_components),
        float(coder.alpha),
        coder.batch_size,
        coder.unit_norm,
        coder.fit_intercept,
        search_for(coder),
        by_gradient=coder.algorithm == "gradient",
        positive=coder.positive_dict,
    )


def hardly_falls(curve: Sequence[float], energy: float, tol: float) -> bool:
    """Whether a pass has lowered the mean energy by no more than a fraction ``tol`` of it.

    A rise counts too: the energy then varies by more than it falls. Never with ``tol=0``.
    """
    return bool(curve) and 0 < tol * abs(curve[-1]) >= curve[-1] - energy


@dataclass(frozen=True)
class Pass:
    """Where a fit stands after some passes over the rows; its learner is updated in place."""

    learner: DictionaryLearner
    order: torch.Generator
    curve: tuple[float, ...] = ()
    n_nonzero: float = 0.0
    settled: bool = False


@dataclass(frozen=True)
class Learning:
    """What all passes of a fit share: the parameters of the coder and the rows."""

    coder: Any
    rows: Rows
    x: Tensor

    def start(self, draw: Callable[[str], torch.Generator]) -> Pass:
        """The initial atoms; ``draw`` gives a generator for each purpose."""
        learner = first_learner(self.coder, self.x, draw("atoms"), self.rows.ranks)
        n_codes = self.coder.max_iter * len(self.x)
        warn_of_cost(self.x, learner.atoms, learner.intercept, learner.settings, n_codes)
        return Pass(learner, draw("batches"))

    def step(self, run: Pass) -> Pass:
        """One pass over the rows; the run has settled when the mean energy hardly falls."""
        run.learner.settings.search.forget()
        shuffled = torch.randperm(self.rows.total(), generator=run.order).to(self.x.device)
        energy, n_nonzero = run.learner.pass_over(self.x, shuffled, online=self.is_online)
        settled = hardly_falls(run.curve, energy, self.coder.tol)
        return replace(run, curve=(*run.curve, energy), n_nonzero=n_nonzero, settled=settled)

    def state(self, run: Pass, n_iter: int) -> dict[str, Any]:
        """Every fitted attribute after ``n_iter`` passes."""
        return learnt_state(run.learner, self.rows.dtype, run.curve, self.rows.total())

    @property
    def is_online(self) -> bool:
        """Whether atoms are updated after every batch, rather than after all rows."""
        return self.coder.algorithm not in ("batch", "consensus")

    def report(self, run: Pass) -> dict[str, float]:
        """The mean energy of the rows in the last pass."""
        return {"energy": run.curve[-1]}

    def finish(self, run: Pass) -> None:
        """Warn of codes that are not final, or that are all zero."""
        learner, settings = run.learner, run.learner.settings
        settings.search.warn()
        if run.n_nonzero == 0:
            warn_if_codes_vanish(
                self.rows, learner.atoms, learner.intercept, settings.penalty, settings.alpha
            )


def learning_of(coder: Any, rows: Rows) -> Learning:
    """What a fit starts with."""
    warn_of_unequal_spans(type(coder).__name__, rows)
    return Learning(coder, rows, rows.all())


def learn_on(coder: Any, rows: Rows) -> dict[str, Any]:
    """One pass over a chunk of rows; returns the fitted attributes."""
    rows.need_one_process("partial_fit of a dictionary")
    x, fitted = rows.all(), coder._is_fitted()
    if fitted:
        learner = resumed_learner(coder, rows.device)
    else:
        warn_of_unequal_spans(type(coder).__name__, rows)
        seed = draw_seed(coder.random_state)
        learner = first_learner(coder, x, make_generator(seed, "atoms"))
    learner.absorb(x)
    learner.settings.search.warn()
    curve = [*(coder.energy_curve_ if fitted else ()), learner.take_means()[0]]
    seen = coder.n_samples_seen_ if fitted else 0
    return learnt_state(learner, rows.dtype, curve, seen + len(x))


def first_learner(
    coder: Any, x: Tensor, generator: torch.Generator, ranks: Ranks = ALONE
) -> DictionaryLearner:
    """A learner with initial atoms: those given, rows of x or random directions."""
    intercept = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    if coder.fit_intercept:
        intercept = ranks.sum(x.double().sum(dim=0)) / ranks.total(len(x))
    if coder.dict_init is not None:
        atoms = _first_atoms(coder, x)
    else:
        atoms = initial_atoms(
            x,
            coder.n_components or x.shape[1],
            coder.init,
            intercept,
            generator,
            ranks,
            positive=coder.positive_dict,
        )
    return DictionaryLearner(atoms, intercept, settings_of(coder, len(atoms)), ranks)


def _first_atoms(coder: Any, x: Tensor) -> Tensor:
    """The parameter ``dict_init``, shortened to the length that atoms may have."""
    given = given_dictionary(coder.dict_init, coder.n_components, x.shape[1], "dict_init")
    atoms = torch.from_numpy(given.astype(np.float64)).to(x.device)
    if coder.positive_dict and bool((atoms < 0).any()):
        raise ValueError("dict_init holds negative entries, which positive_dict=True rules out.")
    lengths = torch.linalg.vector_norm(atoms, dim=1, keepdim=True)
    shortened: Tensor = atoms / (lengths if coder.unit_norm else lengths.clamp(min=1.0))
    return shortened


def resumed_learner(coder: Any, device: torch.device) -> DictionaryLearner:
    """A learner that continues from the fitted state."""
    if coder.n_components not in (None, len(coder.components_)):
        raise ValueError(
            f"n_components={coder.n_components} differs from the {len(coder.components_)} fitted "
            "atoms: set it back, or call fit to start again."
        )
    if not coder.fit_intercept and bool(np.any(coder.intercept_)):
        raise ValueError(
            "fit_intercept=False, but the fitted intercept_ that learning would continue from is "
            "not zero: set fit_intercept=True, or call fit to start again."
        )
    settings = settings_of(coder, len(coder.components_))
    if coder.online_state_:
        return DictionaryLearner.restore(coder.online_state_, settings, device)
    atoms, intercept = (
        torch.from_numpy(np.array(array)).to(device)
        for array in (coder.components_, coder.intercept_)
    )
    return DictionaryLearner(atoms, intercept, settings)


def given_state(coder: Any, rows: Rows, *, n_before: int = 0) -> dict[str, Any]:
    """The fitted attributes for a given dictionary: of the rows, their number alone is learnt."""
    if coder.dict_init is not None:
        raise ValueError(
            "dict_init has no effect when dictionary is given, which is used as it is: pass only "
            "one of them."
        )
    atoms = given_dictionary(coder.dictionary, coder.n_components, rows.shape[1])
    penalty = resolve_penalty(coder.penalty, len(atoms))
    search_for(coder)  # refuses what does not go together
    intercept = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    tensor = torch.from_numpy(atoms).to(rows.device)
    warn_if_codes_vanish(rows, tensor, intercept, penalty, coder.alpha)
    return {
        **unlearnt_state(coder, atoms),
        "components_": atoms,
        "n_samples_seen_": n_before + rows.total(),
    }


def unlearnt_state(coder: Any, atoms: Any) -> dict[str, Any]:
    """The other fitted attributes for atoms that were not learnt from rows."""
    return {
        "intercept_": np.zeros(atoms.shape[1], atoms.dtype),
        "alpha_": float(coder.alpha),
        "penalty_": record_penalty(resolve_penalty(coder.penalty, len(atoms))),
        "energy_curve_": np.empty(0),
        "online_state_": {},
        "n_iter_": 0,
        "n_samples_seen_": 0,
    }


def learnt_state(
    learner: DictionaryLearner, dtype: torch.dtype, curve: Sequence[float], n_seen: int
) -> dict[str, Any]:
    """The fitted attributes in the learner's present state."""
    return {
        "components_": learner.atoms.to(dtype, copy=True).cpu().numpy(),
        "intercept_": learner.intercept.to(dtype, copy=True).cpu().numpy(),
        "alpha_": learner.settings.alpha,
        "penalty_": record_penalty(learner.settings.penalty),
        "energy_curve_": np.asarray(curve),
        "online_state_": learner.export(),
        "n_iter_": len(curve),
        "n_samples_seen_": n_seen,
    }
