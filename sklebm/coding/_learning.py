"""From the parameters of a ``SparseCoder`` to a learner, and from that to fitted attributes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.progress import Progress
from sklebm._shell.random import draw_seed, make_generator
from sklebm._shell.ranks import ALONE, Ranks
from sklebm._shell.rows import Rows
from sklebm.coding._checks import (
    given_dictionary,
    warn_if_codes_vanish,
    warn_of_cost,
    warn_of_unequal_scales,
)
from sklebm.coding._dictionary import DictionaryLearner, Settings, initial_atoms
from sklebm.coding._penalty import record_penalty, resolve_penalty
from sklebm.coding._search import CodeSearch


def search_for(coder: Any) -> CodeSearch:
    """The search that the parameters ask for."""
    return CodeSearch(
        type(coder).__name__, float(coder.code_tol), coder.solver, coder.n_solver_steps
    )


def settings_of(coder: Any, n_components: int) -> Settings:
    """The parameters as a learner needs them."""
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


def learn(coder: Any, rows: Rows, progress: Progress) -> dict[str, Any]:
    """Pass over the rows until the mean energy settles; returns the fitted attributes."""
    warn_of_unequal_scales(type(coder).__name__, rows)
    x, n_rows = rows.all(), rows.total()
    seed = rows.ranks.first(draw_seed(coder.random_state))
    learner = first_learner(coder, x, seed, rows.ranks)
    settings = learner.settings
    warn_of_cost(x, learner.atoms, learner.intercept, settings, coder.max_iter * len(x))
    order = make_generator(seed, "batches")
    curve: list[float] = []
    state = partial(learnt_state, learner, rows.dtype, curve, n_rows)
    for _ in range(coder.max_iter):
        progress.begin()
        settings.search.forget()
        shuffled = torch.randperm(n_rows, generator=order).to(x.device)
        energy, n_nonzero = learner.pass_over(x, shuffled, online=coder.algorithm != "batch")
        settled = bool(curve) and 0 < coder.tol * abs(curve[-1]) >= curve[-1] - energy
        curve.append(energy)
        if progress.end(state, lambda: {"energy": curve[-1]}) or settled:
            break
    settings.search.warn()
    if n_nonzero == 0:
        warn_if_codes_vanish(rows, learner.atoms, learner.intercept, settings.penalty, coder.alpha)
    return state()


def learn_on(coder: Any, rows: Rows) -> dict[str, Any]:
    """One pass over a chunk of rows; returns the fitted attributes."""
    rows.need_one_process("partial_fit of a dictionary")
    x, fitted = rows.all(), coder._is_fitted()
    if fitted:
        learner = resumed_learner(coder, rows.device)
    else:
        warn_of_unequal_scales(type(coder).__name__, rows)
        learner = first_learner(coder, x, draw_seed(coder.random_state))
    learner.absorb(x)
    learner.settings.search.warn()
    curve = [*(coder.energy_curve_ if fitted else ()), learner.take_means()[0]]
    seen = coder.n_samples_seen_ if fitted else 0
    return learnt_state(learner, rows.dtype, curve, seen + len(x))


def first_learner(coder: Any, x: Tensor, seed: int, ranks: Ranks = ALONE) -> DictionaryLearner:
    """A learner with first atoms: given ones, rows of x or random directions."""
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
            make_generator(seed, "atoms"),
            ranks,
            positive=coder.positive_dict,
        )
    return DictionaryLearner(atoms, intercept, settings_of(coder, len(atoms)), ranks)


def _first_atoms(coder: Any, x: Tensor) -> Tensor:
    """The parameter ``dict_init``, shortened to what atoms may be."""
    given = given_dictionary(coder.dict_init, coder.n_components, x.shape[1], "dict_init")
    atoms = torch.from_numpy(given.astype(np.float64)).to(x.device)
    if coder.positive_dict and bool((atoms < 0).any()):
        raise ValueError("dict_init holds negative entries, which positive_dict=True rules out.")
    lengths = torch.linalg.vector_norm(atoms, dim=1, keepdim=True)
    shortened: Tensor = atoms / (lengths if coder.unit_norm else lengths.clamp(min=1.0))
    return shortened


def resumed_learner(coder: Any, device: torch.device) -> DictionaryLearner:
    """A learner that goes on from the fitted state."""
    if coder.n_components not in (None, len(coder.components_)):
        raise ValueError(
            f"n_components={coder.n_components} differs from the {len(coder.components_)} fitted "
            "atoms: set it back, or call fit to start again."
        )
    settings = settings_of(coder, len(coder.components_))
    if coder.online_state_:
        return DictionaryLearner.restore(coder.online_state_, settings, device)
    atoms, intercept = (
        torch.from_numpy(np.array(array)).to(device)
        for array in (coder.components_, coder.intercept_)
    )
    return DictionaryLearner(atoms, intercept, settings)


def given_state(coder: Any, rows: Rows) -> dict[str, Any]:
    """The fitted attributes around a given dictionary, of which nothing is learnt."""
    if coder.dict_init is not None:
        raise ValueError(
            "dict_init means nothing where dictionary is given, which is used as it is: pass one "
            "of them."
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
        "n_samples_seen_": rows.total(),
    }


def unlearnt_state(coder: Any, atoms: Any) -> dict[str, Any]:
    """What is fitted beside atoms that no rows have shaped."""
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
    learner: DictionaryLearner, dtype: torch.dtype, curve: list[float], n_seen: int
) -> dict[str, Any]:
    """The fitted attributes as the learner has left, or is leaving, them."""
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
