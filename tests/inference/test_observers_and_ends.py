"""Searches that are looked at, go on, or have nothing left to find."""

import math

import numpy as np
import pytest
import torch

from sklebm import (
    PLSA,
    ConvSparseCoder,
    DeconvolutionalNetwork,
    EnergyKMeans,
    GridMRF,
    SequenceEnergy,
    SparseCoder,
)
from sklebm.callbacks import EnergyMonitor
from sklebm.conditional._targets import _of_block
from sklebm.energies.step_machine import MachineOutput
from sklebm.inference import partition, target_density, topic_em
from sklebm.inference.ais import PartitionEstimate
from sklebm.inference.views import Groups, Source

# ---------------------------------------------------------------- clusters


def test_a_callback_that_looks_at_clusters_changes_nothing():
    """The size is that from which labels are kept between steps."""
    X = np.random.default_rng(0).normal(size=(120_000, 20))
    settings = {"n_clusters": 8, "max_iter": 3, "random_state": 0}
    alone = EnergyKMeans(**settings).fit(X)
    watched = EnergyKMeans(**settings).set_callbacks(EnergyMonitor(X[:50])).fit(X)
    np.testing.assert_array_equal(watched.cluster_centers_, alone.cluster_centers_)


def test_batches_settle_at_a_perfect_fit():
    X = np.repeat([[0.0, 0.0], [4.0, 4.0]], 100, axis=0)
    model = EnergyKMeans(2, batch_size=50, random_state=0).fit(X)
    assert model.n_iter_ < 10
    assert model.inertia_ == 0.0


# ---------------------------------------------------------------- densities of several targets


class Narrow(torch.nn.Module):
    """-log of a correlated Gaussian, far narrower than the linear part's."""

    n_outputs, reach = 2, 10.0

    def __init__(self, width, *, one_direction=False):
        super().__init__()
        factor = width * torch.tensor([[0.6, 0.0], [0.7, 0.3]], dtype=torch.float64)
        if one_direction:
            factor[1, 1] = 0.8
        self.factor, self.inverse = factor, torch.linalg.inv(factor)
        self.log_z = math.log(2 * math.pi) + float(torch.linalg.slogdet(factor)[1])

    def target_energy(self, u, g):
        z = (g - u[:, None, :2]) @ self.inverse.T
        return 0.5 * z.square().sum(dim=2)


@pytest.mark.parametrize("width", [1.0, 0.1, 0.01, 0.001])
def test_densities_of_several_targets_are_normalised_however_narrow(width):
    energy = Narrow(width)
    u = torch.tensor([[0.0, 0.0], [0.7, -0.4], [1.5, 1.0]], dtype=torch.float64)
    found = target_density.log_partition(energy, u)
    assert (found - energy.log_z).abs().max() < 0.05


@pytest.mark.parametrize("width", [0.1, 0.01, 0.001])
def test_densities_that_are_narrow_in_one_direction_are_normalised(width):
    energy = Narrow(width, one_direction=True)
    u = torch.tensor([[0.0, 0.0], [0.7, -0.4], [1.5, 1.0]], dtype=torch.float64)
    found = target_density.log_partition(energy, u)
    assert (found - energy.log_z).abs().max() < 0.1


@pytest.mark.parametrize("width", [1.0, 0.02])
def test_draws_of_several_targets_are_as_narrow_as_their_density(width):
    """Chains begin at the linear part, which is wide, with steps of a third of it."""
    energy, u = Narrow(width), torch.tensor([[0.3, -0.2], [1.0, 0.5]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    drawn = _of_block(energy, u, torch.tensor([0, 5]), 500, generator)
    for row, center in zip(drawn, u, strict=True):
        found = torch.linalg.solve(energy.factor, (row - center).T)
        assert found.mean(dim=1).abs().max() < 0.3
        assert (torch.cov(found) - torch.eye(2)).abs().max() < 0.35


# ---------------------------------------------------------------- intervals, topics, views


def test_the_reverse_estimate_counts_with_two_chains():
    """Ends of two chains that are far apart do not agree."""
    rows = torch.zeros(2, 1)
    forward = PartitionEstimate(0.0, -0.1, 0.1, torch.tensor([0.0, 0.1]).double(), rows)
    backward = PartitionEstimate(-9.0, -9.1, -8.9, torch.tensor([-9.0, -9.1]).double(), rows)
    found = partition._bracket(forward, backward, 0.0)
    assert not found.settled
    assert found.high > 8.0


def test_topics_whose_share_is_zero_do_not_keep_documents_from_settling(monkeypatch):
    steps = []
    original = topic_em._shares

    def counted(x, dim):
        steps.append(1)
        return original(x, dim)

    monkeypatch.setattr(topic_em, "_shares", counted)
    model = PLSA.from_parameters(
        components=[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], topic_weights=[0.5, 0.5]
    )
    np.testing.assert_allclose(model.transform([[0.0, 0.0, 3.0]]), [[0.0, 1.0]])
    assert len(steps) < 10


def test_views_of_short_sequences_are_other_steps():
    kinds = torch.tensor([0, 0, 1, 2, 2, 2])
    view = Groups(max_distance=5)
    prepared = view.prepare(Source(torch.zeros(6, 1), kinds, (1,)))
    generator = torch.Generator().manual_seed(0)
    prepared["kinds"] = kinds
    index = torch.arange(6).repeat(200)
    chosen = view.places(index, prepared, generator)
    assert bool((kinds[chosen] == kinds[index]).all())
    alone = index == 2
    assert bool((chosen[alone] == 2).all())
    assert bool((chosen[~alone] != index[~alone]).all())
    last = chosen[index == 5]
    assert set(last.tolist()) == {3, 4}


# ---------------------------------------------------------------- machines of a step


def test_gradients_of_annealed_steps_are_those_of_the_sum():
    draws = torch.Generator().manual_seed(0)
    small = MachineOutput(6, 12)
    small.weights = torch.nn.Parameter(0.7 * torch.randn(12, 6, generator=draws))
    parameters = torch.randn(3, 18, generator=draws)

    def gradient(answer):
        given = parameters.clone().requires_grad_()
        value = answer(*small._biases(given)).sum()
        return torch.autograd.grad(value, given)[0]

    exact, annealed = gradient(small._enumerated), gradient(small._annealed)
    uncoupled = torch.sigmoid(parameters)  # what is left where nothing follows the chains
    # Chains are few: means of bits are known to some hundredths.
    assert (annealed - exact).abs().mean() < 0.05
    assert (uncoupled - exact).abs().mean() > 0.15


# ---------------------------------------------------------------- grids and codes


def test_one_label_is_the_answer_of_a_cut():
    X, places = np.random.default_rng(0).normal(size=(9, 2)), np.argwhere(np.ones((3, 3)))
    model = GridMRF(inference="cut").fit(X, np.zeros(9), positions=places)
    np.testing.assert_array_equal(model.predict(X, positions=places), np.zeros(9))


def test_another_layer_of_kernels_is_refused_by_name():
    X = np.random.default_rng(0).normal(size=(20, 144))
    model = DeconvolutionalNetwork((2, 2), (3, 3), image_shape=(12, 12), max_iter=1).fit(X)
    with pytest.raises(ValueError, match=r"layer3.* of the parameters differ"):
        model.set_params(hidden_sizes=(2, 2, 2), kernel_sizes=(3, 3, 3)).partial_fit(X)


def test_pooling_follows_the_images_that_were_fitted():
    X = np.random.default_rng(0).normal(size=(20, 64))
    model = ConvSparseCoder(3, image_shape=(8, 8), kernel_size=3, max_iter=1).fit(X)
    expected = model.transform(X)
    np.testing.assert_array_equal(model.set_params(image_shape=None).transform(X), expected)


@pytest.mark.parametrize("kind", [SparseCoder, ConvSparseCoder])
def test_chunks_of_a_given_dictionary_are_counted(kind):
    X = np.random.default_rng(0).normal(size=(50, 9))
    given = {"kernel_size": 3} if kind is ConvSparseCoder else {}
    width = 3 if kind is ConvSparseCoder else 9
    model = kind(dictionary=np.eye(width), **given).partial_fit(X[:30]).partial_fit(X[30:])
    assert model.n_samples_seen_ == 50


def test_groups_passed_as_targets_are_named_in_every_chunk():
    X = np.random.default_rng(0).normal(size=(40, 2))
    groups = np.repeat([0, 1, 2, 3], 10)
    model = SequenceEnergy(4, max_epochs=1, random_state=0).partial_fit(X, groups=groups)
    with pytest.warns(UserWarning, match="groups"):
        model.partial_fit(X, groups)
