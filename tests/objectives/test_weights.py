"""Weights of rows: integers are repetitions, for every objective that says so."""

import pytest
import torch

from sklebm.inference.hamiltonian import HMC
from sklebm.objectives import (
    Batch,
    ContractiveReconstruction,
    ContrastiveDivergence,
    DenoisingScoreMatching,
    MaximumLikelihood,
    MinimumProbabilityFlow,
    NoiseContrastive,
    Objective,
    PersistentContrastiveDivergence,
    PseudoLikelihood,
    ReconstructionError,
    SaturatingReconstruction,
    ScoreMatching,
    SlicedScoreMatching,
    SparseReconstruction,
    TemperedPersistentContrastiveDivergence,
    check_weights,
)
from tests.deep.models import make_energy, make_points
from tests.machines import exact_rows, make_machine
from tests.objectives.test_penalties import make_energy as make_autoencoder
from tests.objectives.test_penalties import rows as make_inputs

BITS = torch.tensor(exact_rows(make_machine(5, 3, seed=1), 6))
COUNTS = torch.tensor([1, 3, 0, 2, 1, 5])


def make_case(kind):
    """An energy, and six rows of its inputs."""
    if kind == "bits":
        return make_machine(5, 3), BITS
    if kind == "codes":
        return make_autoencoder(), make_inputs(6)
    return make_energy(3, (4,), 5), make_points(6, 3)


def gradient(objective, energy, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = objective.init_state(energy, 8, generator)
    loss, _ = objective.loss(energy, batch, state, generator)
    parameters = [p for p in energy.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


EXACT = [
    (MaximumLikelihood(), "bits"),
    (PseudoLikelihood(), "bits"),
    (MinimumProbabilityFlow(), "bits"),
    (PersistentContrastiveDivergence(), "bits"),
    (TemperedPersistentContrastiveDivergence(3), "bits"),
    (ScoreMatching(), "deep"),
    (ReconstructionError(), "codes"),
    (ContractiveReconstruction(alpha=0.5), "codes"),
    (SparseReconstruction("l1", alpha=0.5), "codes"),
    (SparseReconstruction("kl", alpha=0.5), "codes"),
    (SaturatingReconstruction(alpha=0.5), "codes"),
    (PersistentContrastiveDivergence(sampler=HMC()), "deep"),
]


@pytest.mark.parametrize(("objective", "kind"), EXACT, ids=repr)
def test_integer_weights_are_repetitions(objective, kind):
    energy, x = make_case(kind)
    repeated = gradient(objective, energy, Batch(x.repeat_interleave(COUNTS, dim=0)))
    weighted = gradient(objective, energy, Batch(x, weight=COUNTS))
    torch.testing.assert_close(weighted, repeated)
    plain = gradient(objective, energy, Batch(x))
    torch.testing.assert_close(gradient(objective, energy, Batch(x, weight=torch.ones(6))), plain)
    assert not torch.allclose(weighted, plain)


SAMPLED = [
    (ContrastiveDivergence(), "bits"),
    (ContrastiveDivergence(sampler=HMC()), "deep"),
    (NoiseContrastive(2, noise="independent"), "bits"),
    (NoiseContrastive(2), "deep"),
    (SlicedScoreMatching(2), "deep"),
    (DenoisingScoreMatching(), "deep"),
]


@pytest.mark.parametrize(("objective", "kind"), SAMPLED, ids=repr)
def test_rows_of_weight_zero_do_not_count(objective, kind):
    """The same random numbers, whatever stands in a row without weight."""
    energy, x = make_case(kind)
    weight = torch.tensor([1.0, 2.0, 1.0, 0.0, 0.5, 1.0])
    other = x.clone()
    other[3] = 1.0 - other[3]
    one = gradient(objective, energy, Batch(x, weight=weight))
    two = gradient(objective, energy, Batch(other, weight=weight))
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(one, gradient(objective, energy, Batch(x)))


def test_an_objective_that_cannot_weigh_says_so():
    class Blind(PseudoLikelihood):
        weighs_rows = False

    with pytest.raises(
        ValueError, match="Blind weights all rows equally and cannot use sample_weight"
    ):
        check_weights(Blind())
    check_weights(PseudoLikelihood())
    assert Objective.weighs_rows
