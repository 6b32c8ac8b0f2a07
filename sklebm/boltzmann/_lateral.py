"""Visible units with lateral couplings: what differs between real-valued rows and bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sklebm._shell.state import Array, Spec
from sklebm.boltzmann import _graph
from sklebm.boltzmann import _precision as precision_of
from sklebm.boltzmann._objectives import OBJECTIVES
from sklebm.boltzmann._structure import check_pairs, coupled_pairs
from sklebm.energies import PairwiseEnergy
from sklebm.energies.whitened_machine import WhitenedMachine
from sklebm.inference.gibbs import BlockGibbs
from sklebm.inference.gibbs_sweeps import GibbsSweeps
from sklebm.objectives import Batch, Objective, ScoreMatching, check_needs, resolve_objective
from sklebm.training.centring import Centring
from sklebm.training.precision_centring import PrecisionCentring
from sklebm.training.start import Start

#: Objectives of real-valued rows. No "cd": few steps from the rows see no clusters apart from them,
#: which then grow unchecked.
OF_REALS = ("pcd", "maximum_likelihood", "score_matching", "noise_contrastive")
#: The couplings of real-valued rows and of bits.
PAIRS = ("precision_", "couplings_")


def free_pairs(model: Any, n_features: int) -> torch.Tensor:
    """The free entries of L, or of the couplings of all bits, visible and hidden."""
    owner = type(model).__name__
    free = precision_of.free_entries(model.structure, model.image_shape, n_features, owner)
    if model.visible == "gaussian":
        return free
    return coupled_pairs(free.numpy(), None, n_features, int(model.n_components), owner)


def of_bits(model: Any) -> str:
    """What "auto" is for bits: chains if more steps of them are asked for."""
    return "pseudo_likelihood" if model.n_gibbs_steps == 1 else "pcd"


def resolved(model: Any) -> Any:
    """The model, or for bits a copy with their objective instead of "auto"."""
    if model.visible == "bernoulli" and model.objective == "auto":
        return model._twin({**vars(model), "objective": of_bits(model)})
    return model


def objective(model: Any, energy: Any) -> Objective:
    """The objective of a machine, if it suits the rows."""
    binary = isinstance(energy, PairwiseEnergy)
    choices = {name: OBJECTIVES[name] for name in (_graph.OBJECTIVES if binary else OF_REALS)}
    chosen = model.objective
    if isinstance(chosen, str) and chosen == "auto":
        chosen = of_bits(model) if binary else "pcd"
    if not isinstance(chosen, str) or chosen in choices:
        given = {"n_gibbs_steps": model.n_gibbs_steps} if model.n_gibbs_steps != 1 else {}
        found = resolve_objective(chosen, choices, given)
        own = (GibbsSweeps if binary else BlockGibbs, type(None))
        if type(found) in choices.values() and type(getattr(found, "sampler", None)) in own:
            check_needs(found, energy, choices.values())
            return found
    names = ", ".join(f'"{name}"' for name in choices)
    kind, sampling = ("bernoulli", "sweeps") if binary else ("gaussian", "block Gibbs")
    raise ValueError(
        f'objective={chosen!r} does not suit {type(model).__name__} with visible="{kind}": use one '
        f"of {names} or the object of the same kind, with {sampling} (sampler=None)."
    )


def transforms(model: Any, energy: Any, start: Start) -> tuple[Centring, ...]:
    """What centres gradients, and rescales those of real-valued rows."""
    if isinstance(energy, PairwiseEnergy):
        return _graph.centring(model, energy, start)
    if isinstance(energy, WhitenedMachine):
        return ()
    visible, hidden = model._offsets(energy, start)
    sharp = isinstance(objective(model, energy), ScoreMatching)
    if not model.centering:
        # The scale of the steps stays; their offsets are zero.
        visible, hidden = torch.zeros_like(visible), torch.zeros_like(hidden)
    mask = free_pairs(model, len(visible)).to(visible.device)
    follows = bool(model.centering)
    return (PrecisionCentring(energy, visible, hidden, mask, follows=follows, sharp=sharp),)


def validation_score(energy: Any, batch: Batch, seed: int) -> float:
    """Log pseudo-likelihood of bits; minus the score-matching loss of real-valued rows."""
    if isinstance(energy, PairwiseEnergy):
        return _graph.validation_score(energy, batch, seed)
    loss, _ = ScoreMatching().loss(precision_of.plain(energy), batch, {}, torch.Generator())
    return -float(loss)


# ---------------------------------------------------------------------- fitted state


def spec(common: Spec, *, binary: bool) -> Spec:
    """Declarations of a machine, of which real-valued rows and bits have different parts."""
    square = ("n_features_in_", "n_features_in_")
    declared = {
        **common,
        **{name: Array("f", square, optional=True) for name in PAIRS},
        "offset_": Array("f", ("n_features_in_",), optional=True),
    }
    if not binary:
        return {**declared, "precision_": Array("f", square, of="visible.precision")}
    of_hidden = Array("f", ("n_components", "n_features_in_"), of="hidden_couplings")
    of_visible = Array("f", square, of="lateral_couplings")
    return {**declared, "components_": of_hidden, "couplings_": of_visible}


def check_state(state: Mapping[str, Any], owner: str) -> None:
    """Raise ValueError unless there is either a precision or couplings, and symmetric ones."""
    precision, couplings = map(state.get, PAIRS)
    if (precision is None) == (couplings is None):
        raise ValueError(f"{owner} needs either precision_ or, for bits, couplings_.")
    if couplings is None:
        precision_of.check_precision(precision, owner)
    else:
        check_pairs(couplings, owner)


def check_resumable(model: Any) -> None:
    """Refuse to go on with bits from real-valued rows, or the other way round."""
    if model._is_binary != (model.visible == "bernoulli"):
        raise ValueError(
            f"visible={model.visible!r} differs from the fitted machine that training would "
            "continue from: set it back, or fit with warm_start=False."
        )
