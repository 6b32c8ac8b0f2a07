"""Objectives of a replicated softmax, log Z for the length of each document, draws of documents.

The functions take the fitted estimator: log Z is one number for each length, from the sum over the
states of all hidden units (``state_weights_``) or from annealing (``log_partitions_``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._checks import check_count
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows, resolve_device, row_slices
from sklebm._shell.warning import warn
from sklebm.energies.replicated_softmax import (
    MAX_DRAWN,
    MAX_SUMMED_UNITS,
    ReplicatedSoftmaxEnergy,
    draw_words,
)
from sklebm.inference import length_annealing
from sklebm.objectives import (
    ContrastiveDivergence,
    LengthLikelihood,
    MaximumLikelihood,
    Objective,
    PersistentContrastiveDivergence,
    check_needs,
    resolve_objective,
)
from sklebm.training.diagnosis import warn_of_disagreement

#: The objectives by name.
OBJECTIVES: dict[str, type[Objective]] = {
    "cd": ContrastiveDivergence,
    "maximum_likelihood": LengthLikelihood,
}
# A chain that persists has no document to take its length from; one log Z is not that of all rows.
_OF_EQUAL_ROWS = (PersistentContrastiveDivergence, MaximumLikelihood)
# Default of n_gibbs_steps; objectives given as objects have their own.
_DEFAULT_GIBBS_STEPS = 5
#: Up to this many hidden units, "auto" is a sum over all of their states.
AUTO_EXACT_UNITS = 10
#: How log Z is computed.
METHODS = ("auto", "exact", "ais")
#: The fitted attributes of log Z while nobody knows it.
UNKNOWN = dict.fromkeys(("state_weights_", "log_partitions_", "log_partition_intervals_"))


def objective(model: Any, energy: Any) -> Objective:
    """The objective of a machine, if it suits documents of different lengths."""
    by_chains = model.objective == "cd" or model.n_gibbs_steps != _DEFAULT_GIBBS_STEPS
    given = {"n_gibbs_steps": model.n_gibbs_steps} if by_chains else {}
    found = resolve_objective(model.objective, OBJECTIVES, given)
    if isinstance(found, _OF_EQUAL_ROWS):
        names = ", ".join(f'"{name}"' for name in OBJECTIVES)
        objects = " or ".join(f"{kind.__name__}()" for kind in OBJECTIVES.values())
        raise ValueError(
            f"objective={found!r} does not suit {type(model).__name__}, whose documents differ in "
            f"length, and log Z with them: use {names}, {objects}."
        )
    check_needs(found, energy, OBJECTIVES.values())
    return found


def untrained(
    means: torch.Tensor, n_rows: int, n_hidden: int, generator: torch.Generator
) -> ReplicatedSoftmaxEnergy:
    """A machine before training, of rows with these means.

    Words start at their frequencies, as if each had been seen half a time more, and topics off and
    on equally often: weights sum to zero over the words of an average document.
    """
    share = (means * n_rows + 0.5) / (means * n_rows + 0.5).sum()
    weights = torch.randn(n_hidden, len(means), generator=generator)
    weights = weights * min(0.1, 1.0 / math.sqrt(max(float(means.sum()), 1.0)))
    return ReplicatedSoftmaxEnergy(share.log().float(), -(weights @ share.float()), weights)


def longest_document(rows: Rows) -> float:
    """The largest sum of the counts of a row, of all processes."""
    parts = rows.chunks(2 * rows.shape[1])
    longest = torch.stack([rows[part].double().sum(dim=1).max() for part in parts])
    return float(rows.ranks.concat(longest).max())


def _is_summed(method: str, n_units: int) -> bool:
    """Whether log Z is a sum over the states of so many hidden units, rather than annealed."""
    return method == "exact" or (method == "auto" and n_units <= AUTO_EXACT_UNITS)


def estimate(
    model: Any,
    method: str,
    longest: int | None,
    n_chains: int,
    n_steps: int,
    random_state: RandomState,
) -> dict[str, Any]:
    """log Z of a fitted machine as fitted attributes; arguments are checked."""
    check_is_fitted(model)
    if method not in METHODS:
        raise ValueError(f'method={method!r} must be "auto", "exact" or "ais".')
    check_count(n_chains, "n_chains", least=1 if _is_summed(method, len(model.components_)) else 2)
    check_count(n_steps, "n_steps")
    if longest is not None:
        check_count(longest, "longest")
    n_words = model.longest_ if longest is None else float(longest)
    if n_words <= 0 and not _is_summed(method, len(model.components_)):
        raise ValueError(
            f"{type(model).__name__} has seen no document with words, so it does not know up to "
            "which length log Z is to be annealed: pass longest=, the number of words of the "
            "longest document that it is to score."
        )
    return log_partitions(
        model, method, n_words, draw_seed(random_state), int(n_chains), int(n_steps)
    )


def need_few(n_units: int) -> None:
    """Refuse an exact log Z of more hidden units than can be summed."""
    if n_units > MAX_SUMMED_UNITS:
        raise ValueError(
            f"log Z of {n_units} hidden units is a sum over 2^{n_units} states, more than "
            f'2^{MAX_SUMMED_UNITS}: use "ais".'
        )


def log_partitions(
    model: Any, method: str, longest: float, seed: int, n_chains: int = 100, n_steps: int = 1
) -> dict[str, Any]:
    """log Z of all lengths as fitted attributes."""
    device = resolve_device(model.device, None, model._prefers_cuda)
    energy = model._energy(device).double()
    n_units = len(model.components_)
    if method == "exact":
        need_few(n_units)
    with torch.no_grad():
        if _is_summed(method, n_units):
            return {**UNKNOWN, "state_weights_": energy.state_weights().cpu().numpy()}
        if longest > MAX_DRAWN:
            warn(
                f"The longest document has {longest:.4g} words, more than "
                f"the {MAX_DRAWN} up to which log Z is annealed; it is extrapolated from there."
            )
        generator = make_generator(seed, "annealing", device=device)
        n_words = min(math.ceil(longest), MAX_DRAWN)
        found = length_annealing.estimate(energy, n_words, generator, n_chains, n_steps)
    if found.apart:
        low, high = float(found.low[found.apart]), float(found.high[found.apart])
        number = f"{type(model).__name__}: log Z of documents of {found.apart} words"
        warn_of_disagreement(number, low, high, "chains or steps")
    ends = torch.stack([found.low, found.high], dim=1)
    return {
        **UNKNOWN,
        "log_partitions_": found.value.cpu().numpy(),
        "log_partition_intervals_": ends.cpu().numpy(),
    }


def log_partition_of(model: Any, x: torch.Tensor, end: int | None = None) -> torch.Tensor:
    """log Z of the length of each row, or the lower (0) or upper (1) end of its interval."""
    lengths = x.sum(dim=1)
    if model.state_weights_ is not None:
        weights = torch.from_numpy(model.state_weights_).to(x)
        return torch.logsumexp(lengths[:, None] * weights, dim=1)
    table = model.log_partitions_
    if table is None:
        return torch.zeros_like(lengths)
    if end is not None and model.log_partition_intervals_ is not None:
        table = np.ascontiguousarray(model.log_partition_intervals_[:, end])
    longest = len(table) - 1
    if len(x) and float(lengths.max()) > longest:
        if longest == 0:
            raise ValueError(
                f"{type(model).__name__} has seen no document with words, and log Z is known only "
                "for those without: call estimate_log_partition(longest=...) with the number of "
                "words of the longest document to score."
            )
        warn(
            f"A document has {float(lengths.max()):.6g} words, but log Z was annealed for up to "
            f"{longest}. It is extrapolated along its last slope, which is too low for much longer "
            "documents and overrates them: call estimate_log_partition(longest=...)."
        )
    known = torch.from_numpy(table).to(x)
    # Between two lengths, and on from the last two.
    below = lengths.floor().long().clamp(max=max(longest - 1, 0))
    return torch.lerp(known[below], known[(below + 1).clamp(max=longest)], lengths - below)


def need_log_partition(model: Any, what: str) -> None:
    """Refuse a score that means nothing while log Z is unknown."""
    check_is_fitted(model)
    if model.state_weights_ is None and model.log_partitions_ is None:
        raise ValueError(
            f"{what} needs log Z of all lengths, which is unknown (log_partition=None, "
            "partial_fit changed the parameters, or they were given): call "
            "estimate_log_partition() first."
        )


def need_model_temperature(beta: float) -> None:
    """Refuse log Z at an inverse temperature other than the model's."""
    if beta != 1.0:
        raise ValueError(
            f"normalised=True adds log Z of the model, which is at beta=1, not at beta={beta!r}: "
            "leave out one of them."
        )


def sample_documents(model: Any, n_samples: int, length: int, n_steps: int, seed: int) -> Any:
    """Counts at the end of a block Gibbs chain for each document."""
    device = resolve_device(model.device, None, model._prefers_cuda)
    generator = make_generator(seed, "sampling", device=device)
    energy = model._energy(device).float()
    out = np.empty((n_samples, model.n_features_in_), dtype=np.float32)
    with torch.no_grad():
        for part in row_slices(n_samples, model._floats_per_row() + length):
            n_rows = len(out[part])
            logits = energy.visible_bias.expand(n_rows, -1)
            v = draw_words(logits, logits.new_full((n_rows,), float(length)), generator)
            for _ in range(n_steps):
                v = energy.draw_visible(energy.draw_hidden(v, generator), generator)
            out[part] = v.cpu().numpy()
    return out
