"""The log pseudo-likelihood against its definition by enumeration."""

import numpy as np
import torch

from sklebm.objectives.pseudo_likelihood import pseudo_log_likelihood
from tests.machines import all_states, make_machine, naive_visible_probabilities


def exact(machine):
    """sum_i log p(v_i | the others) of every visible state, from the joint probabilities."""
    p = naive_visible_probabilities(machine)
    states = all_states(int(np.log2(len(p))))
    total = np.zeros(len(p))
    for i in range(states.shape[1]):
        flipped = np.arange(len(p)) ^ (1 << (states.shape[1] - 1 - i))
        total += np.log(p / (p + p[flipped]))
    return total


def test_it_is_unbiased():
    machine, truth = make_machine(5, 4), exact(make_machine(5, 4))
    states, generator = torch.tensor(all_states(5)), torch.Generator().manual_seed(0)
    with torch.no_grad():
        draws = torch.stack(
            [pseudo_log_likelihood(machine, states, generator) for _ in range(4000)]
        ).numpy()
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - truth) <= 4.5 * error).all()
    assert error.max() < 0.2


def test_equal_generators_give_equal_bits():
    machine, states = make_machine(5, 4), torch.tensor(all_states(5))
    with torch.no_grad():
        first, second = (
            pseudo_log_likelihood(machine, states, torch.Generator().manual_seed(1))
            for _ in range(2)
        )
    assert torch.equal(first, second)


def test_rows_are_left_as_they_were():
    machine, states = make_machine(5, 4), torch.tensor(all_states(5))
    before = states.clone()
    with torch.no_grad():
        pseudo_log_likelihood(machine, states, torch.Generator().manual_seed(1))
    assert torch.equal(states, before)
