"""Choosing an objective: by name, as an object, and what it needs of an energy."""

import dataclasses

import pytest
import torch
from sklearn.base import clone

from sklebm import BernoulliRBM
from sklebm.energies import PrototypeEnergy
from sklebm.objectives import (
    ContrastiveDivergence,
    MaximumLikelihood,
    PersistentContrastiveDivergence,
    check_needs,
    resolve_objective,
)
from tests.machines import make_machine

CHOICES = {
    "cd": ContrastiveDivergence,
    "pcd": PersistentContrastiveDivergence,
    "maximum_likelihood": MaximumLikelihood,
}
ALL = [choice() for choice in CHOICES.values()]


def test_names_take_the_flat_parameters():
    assert resolve_objective("cd", CHOICES, {}) == ContrastiveDivergence()
    assert resolve_objective("cd", CHOICES, {"n_gibbs_steps": 5}) == ContrastiveDivergence(5)


def test_objects_pass_through_and_take_no_flat_parameters():
    own = PersistentContrastiveDivergence(2, n_chains=7)
    assert resolve_objective(own, CHOICES, {}) is own
    with pytest.raises(ValueError, match=r"n_chains=7.* brings its own .* n_gibbs_steps must be"):
        resolve_objective(own, CHOICES, {"n_gibbs_steps": 5})


def test_a_parameter_without_meaning_is_refused():
    with pytest.raises(ValueError, match=r"n_gibbs_steps does not apply to .*maximum_likelihood"):
        resolve_objective("maximum_likelihood", CHOICES, {"n_gibbs_steps": 5})


@pytest.mark.parametrize("objective", ALL)
def test_bilinear_energies_have_what_every_objective_needs(objective):
    check_needs(objective, make_machine(3, 2), ALL)


def test_a_wrong_pair_names_what_is_missing_and_what_would_work():
    energy = PrototypeEnergy(torch.zeros(2, 3))
    with pytest.raises(
        ValueError, match=r"needs draw_visible, .* PrototypeEnergy does not provide"
    ):
        check_needs(ContrastiveDivergence(), energy, ALL)
    with pytest.raises(ValueError, match="Objectives that work with it: none"):
        check_needs(MaximumLikelihood(), energy, ALL)

    class NoDraws:
        free_energy = visible_field = weights = None

    with pytest.raises(ValueError, match="that work with it: MaximumLikelihood"):
        check_needs(ContrastiveDivergence(), NoDraws(), ALL)


@pytest.mark.parametrize("objective", ALL)
def test_parts_are_frozen_compare_print_and_clone(objective):
    assert objective == type(objective)()
    assert hash(objective) == hash(type(objective)())
    assert repr(objective).startswith(type(objective).__name__)
    twin = clone(BernoulliRBM(objective=objective)).objective
    assert twin == objective
    for field in dataclasses.fields(objective):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(objective, field.name, 3)
