"""The greedy start of a deep machine: each layer first learns alone, from the one below.

While a layer learns with one neighbour, the input from the other is missing; that from the first is
doubled, as if a copy of this neighbour were on the other side. A layer between two machines has
learnt two biases; their mean is that of the average of both machines.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from sklebm._shell.random import make_generator, purpose_seed
from sklebm._shell.rows import row_slices
from sklebm.energies import LayeredEnergy
from sklebm.energies.copied_layers import CopiedBernoulli, CopiedBilinearEnergy
from sklebm.inference.ais import base_rate_bias
from sklebm.objectives import PersistentContrastiveDivergence
from sklebm.training.batches import TrainingRows, hold_out, training_rows
from sklebm.training.centring import Centring
from sklebm.training.loop import EnergyTraining
from sklebm.training.ranks import rank_seed, share_parameters
from sklebm.training.start import Start
from sklebm.training.train import TrainingOptions, train

# Standard deviation of the initial weights for few units.
_LARGEST_WEIGHTS = 0.3


def pretrain(model: Any, energy: LayeredEnergy, start: Start) -> None:
    """Give a deep machine the parameters that its layers learn one after the other."""
    options = replace(
        model._options(start.seed),
        max_epochs=int(model.pretraining_epochs),
        n_iter_no_change=None,
        # Callbacks of the net watch the machine itself, once all of its layers learn.
        net_params={k: v for k, v in (model.net_params or {}).items() if k != "callbacks"},
        verbose=0,
    )
    if options.choice().uses_closure:
        raise ValueError(
            f"optimizer={model.optimizer!r} needs a loss that does not change between calls, but "
            "layers learn from chains: set pretraining_epochs=0, or another optimizer, such as "
            '"sgd".'
        )
    rows, means, device = training_rows(start.rows), start.means, start.rows.device
    if model.validation_fraction is not None:
        rows, _ = hold_out(rows, model.validation_fraction, start.held_out_seed, device)
    last = len(energy.couplings) - 1
    for index, above in enumerate(energy.widths[1:]):
        # Twice as much from below if there will be a layer further up, and the other way round.
        copies = (1 if index == last else 2, 2 if index else 1)
        generator = make_generator(start.seed, "greedy start", index=index)
        machine = _initial(means, start.rows.total(), above, copies, generator).to(device)
        own = replace(options, seed=purpose_seed(start.seed, "greedy start", index))
        _learn(model, machine, rows, means, own, start)
        with torch.no_grad():
            energy.couplings[index].copy_(machine.weights)
            lower, found = energy.layers[index].bias, machine.visible.bias
            lower.copy_(0.5 * (lower + found) if index else found)
            energy.layers[index + 1].bias.copy_(machine.hidden.bias)
            if index < last:
                rows = _hidden_means(machine, rows, device)
                total = start.rows.ranks.sum(rows.X.sum(dim=0, dtype=torch.float64).cpu())
                means = total / start.rows.ranks.total(len(rows))


def _initial(
    means: torch.Tensor,
    n_rows: int,
    n_hidden: int,
    copies: tuple[int, int],
    generator: torch.Generator,
) -> CopiedBilinearEnergy:
    """A machine before training; hidden units start on half of the time, as in the deep one.

    ``copies`` are those of the visible and of the hidden layer.
    """
    n_visible, (n, m) = len(means), copies
    scale = min(_LARGEST_WEIGHTS, 2.0 * math.sqrt(2.0 / (n_visible + n_hidden))) / max(copies)
    weights = scale * torch.randn(n_hidden, n_visible, generator=generator)
    mean = means.float()
    visible = base_rate_bias(mean, n_rows) - 0.5 * m * weights.sum(dim=0)
    hidden = -n * (weights @ mean)
    return CopiedBilinearEnergy(CopiedBernoulli(visible, n), CopiedBernoulli(hidden, m), weights)


def _learn(
    model: Any,
    machine: CopiedBilinearEnergy,
    rows: TrainingRows,
    means: torch.Tensor,
    options: TrainingOptions,
    start: Start,
) -> None:
    """Train one machine by persistent chains, in place."""
    ranks, device = start.rows.ranks, start.rows.device
    share_parameters(ranks, machine)
    seed = rank_seed(options.seed, ranks)
    generator = make_generator(seed, "greedy start/negatives", device=device)
    objective = PersistentContrastiveDivergence(int(model.n_gibbs_steps))
    chains = objective.init_state(machine, -(-options.batch_size // ranks.size), generator)
    transforms = []
    if model.centering:
        width = len(machine.hidden.bias)
        offsets = torch.full((width,), 0.5 * machine.hidden.n_copies, device=device)
        transforms.append(Centring(machine, means.to(offsets), offsets))
    # The gradients of all copies add up.
    n_copies = machine.visible.n_copies * machine.hidden.n_copies
    options = replace(options, learning_rate=options.learning_rate / n_copies)
    training = EnergyTraining(machine, objective, chains, generator, ranks, transforms=transforms)
    train(training, rows, options, device=device)


def _hidden_means(
    machine: CopiedBilinearEnergy, rows: TrainingRows, device: torch.device
) -> TrainingRows:
    """The means of the hidden units given each row, as the rows of the next machine."""
    out = torch.empty(len(rows), len(machine.hidden.bias), device=device)
    floats = sum(machine.weights.shape)
    for part in row_slices(len(rows), floats, device):
        index = torch.arange(part.start, part.stop)
        out[part] = machine.hidden_mean(rows.take(index).batch(device).x)
    return TrainingRows(out)
