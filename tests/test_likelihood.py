"""log Z as every model with one has it: cost, checks, offsets, given parameters."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from sklebm import (
    BernoulliRBM,
    BoltzmannMachine,
    DeepBoltzmannMachine,
    DeepEnergyModel,
    GatedBM,
    GaussianRBM,
    MeanCovarianceRBM,
    ReplicatedSoftmax,
    likelihood,
)
from sklebm.datasets import Rings
from sklebm.energies import Bernoulli, BilinearEnergy
from sklebm.gradient import GradientEstimator
from sklebm.inference import enumeration
from tests.machines import all_states

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(600, 4)) @ RNG.normal(size=(4, 4))
BITS = (RNG.random((300, 30)) < 0.3).astype(np.float32)
BRIEF = {"max_epochs": 3, "random_state": 0}


# ---------------------------------------------------------------------- offsets


@pytest.mark.parametrize("shift", [1500.0, -1e6])
@pytest.mark.parametrize(
    "model",
    [
        GaussianRBM(4, **BRIEF),
        GaussianRBM(4, variance="diagonal", **BRIEF),
        GaussianRBM(4, objective="pcd", log_partition=None, **BRIEF),
        DeepEnergyModel(8, hidden_sizes=(8,), **BRIEF),
    ],
    ids=["exact", "diagonal", "chains", "deep"],
)
def test_an_offset_changes_no_score(model, shift):
    """Training sees gaps to the mean in float32, which differ in the last bit of some.

    Hundreds of steps amplify that: means agree far better than those of two seeds do (0.05), single
    rows less well.
    """
    plain = model.fit(ROWS).score_samples(ROWS)
    moved = model.fit(ROWS + shift).score_samples(ROWS + shift)
    assert abs(moved.mean() - plain.mean()) < 0.01


def test_parameters_are_those_of_the_rows_as_they_are():
    """The density from the attributes alone, naively, far from zero."""
    rows = ROWS + 1000.0
    model = GaussianRBM(3, **BRIEF).fit(rows)
    a, c, weights = model.intercept_visible_, model.intercept_hidden_, model.components_
    variance = np.exp(model.log_variance_.astype(float))
    field = c + rows @ weights.T.astype(float) / variance
    free = 0.5 * ((rows - a) ** 2).sum(axis=1) / variance - np.logaddexp(0.0, field).sum(axis=1)
    np.testing.assert_allclose(model.free_energy(rows), free, atol=1e-6)
    np.testing.assert_allclose(a, model.inverse_transform(np.zeros((1, 3)))[0], rtol=1e-9)


def test_draws_and_known_features_are_in_the_units_of_the_rows():
    model = GaussianRBM(3, **BRIEF).fit(ROWS + 1000.0)
    known = np.array([1000.5, np.nan, np.nan, 999.0])
    draws = model.sample(400, n_steps=50, clamped=known, random_state=0)
    np.testing.assert_array_equal(draws[:, [0, 3]], np.tile(np.float32([1000.5, 999.0]), (400, 1)))
    # Given the known features, the others are a mixture over the states of the hidden units.
    a, c, weights = model.intercept_visible_, model.intercept_hidden_, model.components_
    variance = float(np.exp(model.log_variance_.astype(float))[0])
    h = all_states(3)
    means = a + h @ weights.astype(float)
    log_p = h @ c + (np.square(means).sum(axis=1) - np.square(a).sum()) / (2 * variance)
    seen = ~np.isnan(known)
    log_p -= np.square(known[seen] - means[:, seen]).sum(axis=1) / (2 * variance)
    p = np.exp(log_p - logsumexp(log_p))
    mean = p @ means[:, ~seen]
    spread = variance + p @ np.square(means[:, ~seen] - mean)
    gap = np.abs(draws[:, ~seen].mean(axis=0) - mean)
    assert (gap < 5 * np.sqrt(spread / 400)).all()  # five standard errors
    np.testing.assert_allclose(draws[:, ~seen].var(axis=0), spread, rtol=5 * np.sqrt(2 / 400))
    # One Gibbs step ends in the noise around the mean of one of the states.
    moved = model.gibbs(ROWS[:5] + 1000.0, random_state=0)
    gaps = np.abs(moved[:, None] - means).max(axis=2).min(axis=1)
    assert gaps.max() < 5 * np.sqrt(variance)


def test_sparse_and_dense_rows_train_the_same_machine():
    import scipy.sparse

    rows = np.where(RNG.random((200, 4)) < 0.5, 0.0, ROWS[:200])
    dense = GaussianRBM(3, **BRIEF).fit(rows)
    sparse = GaussianRBM(3, **BRIEF).fit(scipy.sparse.csr_matrix(rows))
    np.testing.assert_allclose(sparse.score_samples(rows), dense.score_samples(rows), atol=1e-5)


# ---------------------------------------------------------------------- cost


def test_annealing_inside_fit_costs_at_most_half_of_training():
    """In rows: a step of annealing takes as long as training on about two rows."""
    for n_features, n_units, n_seen in ((3000, 256, 10_000), (784, 256, 60_000)):
        energy = BilinearEnergy(
            Bernoulli(torch.zeros(n_features)),
            Bernoulli(torch.zeros(n_units)),
            torch.zeros(n_units, n_features),
        )
        effort = likelihood._affordable(energy, n_seen)
        steps = effort.n_chains * effort.n_temperatures
        ladders = 20 * effort.n_chains * max(2, effort.n_temperatures // 20)
        assert 2 * steps + ladders <= 0.25 * n_seen
        assert effort.doublings == 0


def test_two_fits_with_annealing_are_equal_to_the_bit():
    settings = {"n_components": 21, **BRIEF}
    first, second = (BernoulliRBM(**settings).fit(BITS) for _ in range(2))
    assert first.log_partition_ == second.log_partition_
    np.testing.assert_array_equal(first.log_partition_interval_, second.log_partition_interval_)
    with torch.no_grad():
        truth = float(enumeration.log_partition(first._energy(torch.device("cpu")).double()))
    low, high = first.log_partition_interval_
    assert low <= truth <= high


# ---------------------------------------------------------------------- Gibbs' inequality


class Flattering(DeepEnergyModel):
    """Learns a log Z that is 50 nats too low."""

    def _export(self, energy):
        state = super()._export(energy)
        learnt = state["log_partition_"]
        return {**state, "log_partition_": None if learnt is None else learnt - 50.0}


def test_a_learnt_log_z_that_makes_no_density_is_annealed_instead():
    rows = Rings(noise=0.2).sample(1000, random_state=0)
    settings = {"n_components": 8, "hidden_sizes": (8,), "max_epochs": 5, "random_state": 0}
    honest = DeepEnergyModel(**settings).fit(rows)
    assert honest.log_partition_interval_ is None
    with pytest.warns(UserWarning, match="is too low for a density"):
        model = Flattering(**settings).fit(rows)
    low, high = model.log_partition_interval_
    # Integrated over a grid, the truth.
    axis = np.linspace(-15, 15, 601)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    truth = np.log(np.exp(-model.free_energy(grid)).sum() * (axis[1] - axis[0]) ** 2)
    assert low <= truth <= high
    assert model.score(rows) == pytest.approx(-model.free_energy(rows).mean() - high, abs=1e-9)


def test_log_z_of_an_energy_much_wider_than_the_rows():
    """Noise of the rows' covariance never leaves them, so it cannot teach log Z, nor refute it."""
    generator = np.random.default_rng(0)
    rows = 0.02 * np.cumsum(generator.normal(size=(300, 64)), axis=1)
    with pytest.warns(UserWarning, match="is too low for a density"):
        model = DeepEnergyModel(6, hidden_sizes=(), sigma=1.0, max_epochs=3, random_state=0).fit(
            rows
        )
    weights = model.weights_
    W, c = weights["network.0.weight"], weights["network.0.bias"]
    states = np.array(list(itertools.product([0.0, 1.0], repeat=6)))
    shifts = weights["visible_bias"] + states @ W
    truth = logsumexp(states @ c + 0.5 * np.square(shifts).sum(axis=1)) + 32 * np.log(2 * np.pi)
    low, high = model.log_partition_interval_
    assert low <= truth <= high
    assert model.check_density(random_state=0).passed


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        (BernoulliRBM(5, **BRIEF), BITS),
        (GaussianRBM(3, **BRIEF), ROWS),
        (DeepEnergyModel(4, hidden_sizes=(4,), **BRIEF), ROWS),
    ],
    ids=["bits", "real", "deep"],
)
def test_check_density_tells_a_density_from_one_that_sums_to_more(model, rows):
    model.fit(rows)
    check = model.check_density(random_state=0)
    assert check.passed
    assert check.mean_log_density <= check.reference_log_density + 3 * check.standard_error
    model.log_partition_ -= 30.0
    check = model.check_density(random_state=0)
    assert not check.passed
    model.log_partition_ = None
    with pytest.raises(ValueError, match=r"estimate_log_partition\(\) first"):
        model.check_density()


# ---------------------------------------------------------------------- given parameters


def test_machines_of_given_parameters_know_no_log_z_until_it_is_estimated():
    fitted = BernoulliRBM(5, **BRIEF).fit(BITS)
    given = BernoulliRBM.from_parameters(
        components=fitted.components_,
        intercept_hidden=fitted.intercept_hidden_,
        intercept_visible=fitted.intercept_visible_,
    )
    np.testing.assert_array_equal(given.score_samples(BITS), -given.free_energy(BITS))
    with pytest.raises(ValueError, match=r"estimate_log_partition\(\) first"):
        given.score(BITS)
    given.estimate_log_partition()
    assert given.log_partition_ == pytest.approx(fitted.log_partition_, abs=1e-9)
    assert given.sample(3, n_steps=5, random_state=0).shape == (3, 30)


class Narrow(BernoulliRBM):
    """A subclass whose constructor takes the number of units alone."""

    def __init__(self, n_components=3):
        super().__init__(n_components, max_epochs=1, random_state=0)


def test_a_subclass_with_a_narrower_constructor_fits():
    assert np.isfinite(Narrow(4).fit(BITS).score(BITS))


# ---------------------------------------------------------------------- learning


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_default_gaussian_machines_leave_no_plateau(seed):
    """Three clusters in the plane, eight hidden units: .1 nat; the plateau is 1.8 nats off."""
    centres = np.array([[-8.0, 0.0], [8.0, 3.0], [1.0, -7.0]])
    rows = centres[np.arange(900) % 3]
    rows = rows + 0.5 * np.random.default_rng(seed).normal(size=(900, 2))
    gaps = ((rows[:, None] - centres) ** 2).sum(axis=2) / (2 * 0.25)
    truth = (np.log(np.exp(-gaps).sum(axis=1) / 3) - np.log(2 * np.pi * 0.25)).mean()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = GaussianRBM(8, random_state=0).fit(rows)
    assert model.score(rows) > truth - 0.1


@pytest.mark.parametrize(
    "model",
    [
        BernoulliRBM(30),
        BoltzmannMachine(),
        MeanCovarianceRBM(10, 10),
        GatedBM(20, conditional=False),
        DeepBoltzmannMachine((30, 30)),
        ReplicatedSoftmax(20),
    ],
    ids=lambda model: type(model).__name__,
)
def test_an_exact_log_z_that_cannot_be_summed_is_refused_before_training(model, monkeypatch):
    monkeypatch.setattr(GradientEstimator, "_train", lambda *_, **__: pytest.fail("it trained"))
    rows = np.random.default_rng(0).integers(0, 2, size=(20, 40)).astype(float)
    with pytest.raises(ValueError, match=r"sum.* over 2\^|over too many states"):
        model.set_params(log_partition="exact").fit(rows)
