"""GaussianRBM: what it learns, its density as a mixture, its samples, and what it refuses."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp
from scipy.stats import norm

from sklebm import BernoulliRBM, DeepEnergyModel, GaussianRBM, load, save
from sklebm.inference import enumeration
from sklebm.inference.gibbs_langevin import GibbsLangevin
from sklebm.objectives import ContrastiveDivergence, PersistentContrastiveDivergence
from tests.machines import all_states
from tests.registry import make_rows

EXACT = {
    "objective": "maximum_likelihood",
    "optimizer": "lbfgs",
    "learning_rate": 1.0,
    "learning_rate_schedule": "constant",
    "max_epochs": 60,
}


def laplace_rows(n_rows, seed=0):
    """Two independent sources of unit variance, rotated, with their true log densities."""
    sources = np.random.default_rng(seed).laplace(size=(n_rows, 2)) / np.sqrt(2)
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    log_density = (-np.sqrt(2) * np.abs(sources) - 0.5 * np.log(2)).sum(axis=1)
    return sources @ turn, log_density


ROWS, _ = laplace_rows(4000)
TEST_ROWS, TRUTH = laplace_rows(4000, seed=1)
NORMAL = norm.logpdf(TEST_ROWS).sum(axis=1).mean()


def make(**settings):
    return GaussianRBM(**{"n_components": 4, "random_state": 0, **settings})


@pytest.fixture(scope="module")
def model():
    """A machine whose parameters are large enough to matter, in float64."""
    fitted = make(n_components=5, variance="diagonal").fit(ROWS @ [[1, 0, 2], [0, 1, 1]] + 3)
    rng = np.random.default_rng(0)
    fitted.components_ = rng.normal(size=(5, 3))
    fitted.intercept_hidden_ = rng.normal(size=5)
    fitted.intercept_visible_ = rng.normal(size=3)
    fitted.log_variance_ = rng.normal(size=3)
    return fitted.estimate_log_partition("exact")


def mixture(model):
    """log weights, means and deviations of the 2^k components, from the completed squares."""
    variance = np.exp(model.log_variance_)
    h, a = all_states(len(model.components_)), model.intercept_visible_
    means = a + h @ model.components_
    log_mass = h @ model.intercept_hidden_ + ((means**2 - a**2) / (2 * variance)).sum(axis=1)
    return log_mass - logsumexp(log_mass), means, np.sqrt(variance)


# ---------------------------------------------------------------- the density


def test_scores_are_log_densities_of_the_mixture(model):
    X = np.random.default_rng(1).normal(size=(200, 3)) * 3
    log_weights, means, deviation = mixture(model)
    parts = norm.logpdf(X[:, None], means, deviation).sum(axis=2) + log_weights
    np.testing.assert_allclose(model.score_samples(X), logsumexp(parts, axis=1), rtol=0, atol=1e-10)


def test_log_partition_is_streamed_and_the_same(model):
    """2^16 components in chunks of 2^14."""
    # Whatever the parameters are: the exact likelihood of the default sums as often as it learns.
    big = make(n_components=16, objective="cd", log_partition="exact", max_epochs=1).fit(ROWS)
    log_mass = np.logaddexp.reduce
    variance = np.exp(np.float64(big.log_variance_))
    h, a = all_states(16), big.intercept_visible_.astype(float)
    means = a + h @ big.components_.astype(float)
    terms = h @ big.intercept_hidden_ + ((means**2 - a**2) / (2 * variance)).sum(axis=1)
    truth = log_mass(terms) + np.log(2 * np.pi * variance).item()
    assert big.log_partition_ == pytest.approx(truth, abs=1e-10)


def test_transform_and_its_inverse_are_conditional_means(model):
    X, h = np.random.default_rng(1).normal(size=(50, 3)), all_states(5)
    field = model.intercept_hidden_ + (X / np.exp(model.log_variance_)) @ model.components_.T
    np.testing.assert_allclose(model.transform(X), expit(field), rtol=1e-12)
    np.testing.assert_allclose(
        model.inverse_transform(h), model.intercept_visible_ + h @ model.components_, rtol=1e-12
    )


def test_energies_of_all_hidden_states_sum_to_the_free_energy(model):
    X, h = np.random.default_rng(1).normal(size=(1, 3)), all_states(5)
    energies = model.energy(np.repeat(X, 32, axis=0), h)
    assert -logsumexp(-energies) == pytest.approx(model.free_energy(X)[0], abs=1e-12)


def test_a_deep_energy_without_layers_is_the_same_machine(model):
    """b = a / s^2, w_k -> w_k / s^2, up to |a|^2 / 2 s^2."""
    settings = {"hidden_sizes": (), "objective": "score_matching", "log_partition": None}
    shared = make(n_components=5, max_epochs=2).fit(ROWS)
    deep = DeepEnergyModel(5, max_epochs=1, **settings).fit(ROWS)
    variance = np.exp(shared.log_variance_.astype(float))
    a = shared.intercept_visible_.astype(float)
    deep.weights_ = {
        **deep.weights_,
        "visible_bias": a / variance,
        "log_sigma": np.array(0.5 * np.log(variance.item())),
        "network.0.weight": shared.components_ / variance,
        "network.0.bias": shared.intercept_hidden_.astype(float),
    }
    deep.offset_ = None  # these are parameters of the rows as they are
    gap = shared.free_energy(TEST_ROWS) - deep.free_energy(TEST_ROWS)
    np.testing.assert_allclose(gap, (a**2 / (2 * variance)).sum(), rtol=0, atol=1e-12)


def test_parameters_without_a_normaliser_have_no_log_z(model):
    other = make().fit(ROWS)
    before = other.log_partition_
    other.log_variance_ = np.array([np.inf], dtype=np.float32)
    for method in ("exact", "ais", "bridge"):
        with pytest.raises(FloatingPointError, match="log Z is not finite, so that log_partition_"):
            other.estimate_log_partition(method, n_chains=10, random_state=0)
        assert other.log_partition_ == before
    with pytest.raises(FloatingPointError, match="log_variance_ holds NaN or infinity"):
        other.score(ROWS)


@pytest.mark.parametrize("method", ["ais", "bridge"])
def test_estimates_of_log_z_hold_the_exact_one(method):
    fitted = make(n_components=10, max_epochs=10).fit(ROWS)
    exact = fitted.log_partition_
    low, high = fitted.estimate_log_partition(method, random_state=0).log_partition_interval_
    assert low < exact < high < low + 0.5


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("seed", [0, 4])
def test_the_default_finds_the_best_machine_for_laplace_sources(seed):
    """The best four hidden units can do is 0.042 nats from the truth; a normal is at 0.145.

    On these rows the best of many fits is 0.048 from the truth, the next optimum 0.086.
    """
    assert TRUTH.mean() - make(random_state=seed).fit(ROWS).score(TEST_ROWS) < 0.055
    assert TRUTH.mean() - NORMAL > 0.12


def score_rows(fitted):
    return fitted.score(ROWS)


@pytest.mark.table(5)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"objective": "cd"},
        {"objective": "tempered_pcd"},
        {"objective": "maximum_likelihood"},
        {"objective": "noise_contrastive"},
        {"objective": "score_matching", "learning_rate": 0.05},
        {"objective": "denoising_score_matching", "learning_rate": 0.05},
        {"objective": ContrastiveDivergence(sampler=GibbsLangevin(1.0))},
        {"objective": PersistentContrastiveDivergence(sampler=GibbsLangevin(1.0))},
        {"variance": "diagonal"},
        {"variance": 0.5},
        {"optimizer": "momentum", "learning_rate": 0.02},
        {"optimizer": "adam", "learning_rate": 0.01},
        {"centering": False},
    ],
)
def test_every_way_to_learn_beats_a_normal_distribution(settings):
    """White rows with heavy tails: all there is to learn lies in the shape."""
    fitted = make(n_components=12, **settings).fit(ROWS)
    assert fitted.score(TEST_ROWS) > NORMAL + 0.03


def test_score_matching_by_lbfgs_finds_its_minimum():
    settings = {**EXACT, "objective": "score_matching"}
    best = max((make(random_state=seed, **settings).fit(ROWS) for seed in range(4)), key=score_rows)
    assert best.score(TEST_ROWS) > NORMAL + 0.06


@pytest.mark.parametrize("variance", ["shared", "diagonal", 0.3])
def test_every_parameter_moves(variance):
    start = make(variance=variance, learning_rate=1e-30, max_epochs=1).fit(ROWS)
    end = make(variance=variance, max_epochs=1).fit(ROWS)
    names = ["components_", "intercept_hidden_", "intercept_visible_"]
    for name in [*names, *(["log_variance_"] if isinstance(variance, str) else [])]:
        assert (getattr(start, name) != getattr(end, name)).all(), name
    if variance == 0.3:
        assert end.log_variance_ == pytest.approx(np.log(0.3))


def test_variances_are_learnt_for_each_feature():
    """Noise of three sizes, and every tenth row elsewhere."""
    rng = np.random.default_rng(0)
    deviations = np.array([0.1, 0.3, 1.0])
    elsewhere = (rng.random((4000, 1)) < 0.1) * [0.6, 1.8, 6.0]
    X = rng.normal(size=(4000, 3)) * deviations + elsewhere
    fitted = make(variance="diagonal", **EXACT).fit(X)
    # Four standard errors of a deviation in the 3600 rows that are not elsewhere.
    limit = 4 / np.sqrt(2 * 3600)
    np.testing.assert_allclose(np.exp(0.5 * fitted.log_variance_), deviations, rtol=limit)


def test_rows_that_are_all_equal_and_single_rows_are_survived():
    for X in (np.full((30, 2), 0.7), np.zeros((30, 2)), ROWS[:1]):
        fitted = make().fit(X)
        assert np.isfinite(fitted.score_samples(ROWS)).all()


def test_langevin_chains_go_on_in_chunks_and_after_loading(tmp_path):
    sampler = GibbsLangevin(0.3, 1)
    settings = {"objective": PersistentContrastiveDivergence(sampler=sampler), "max_epochs": 1}
    fitted = make(**settings).partial_fit(ROWS[:500])
    save(fitted, tmp_path / "machine.safetensors")
    loaded = load(tmp_path / "machine.safetensors")
    assert loaded.objective == fitted.objective
    chains = fitted.training_state_["objective.visible"].copy()
    for model in (fitted, loaded):
        model.partial_fit(ROWS[500:600])
    np.testing.assert_array_equal(loaded.components_, fitted.components_)
    moved = np.abs(fitted.training_state_["objective.visible"] - chains).mean()
    # One step from where they were, not a fresh start from the base rate.
    assert 0.0 < moved < 0.5 * chains.std()


def test_chunks_end_like_whole_rows():
    """On average over seeds: a single fit has the noise of its chains."""
    scores = []
    for size in (50, 100, 1000):
        found = []
        for seed in range(3):
            fitted = make(n_components=12, random_state=seed)
            for start in range(0, 4000, size):
                fitted.partial_fit(ROWS[start : start + size])
            found.append(fitted.estimate_log_partition().score(TEST_ROWS))
        scores.append(np.mean(found))
    assert max(scores) - min(scores) < 0.02, scores


def test_the_noise_of_natural_patches_is_what_hidden_units_leave_unexplained(data_dir):
    """Chains that fell behind the parameters pushed the variance below a tenth of it."""
    rng = np.random.default_rng(0)
    with np.load(data_dir / "natural_images.npz") as images:
        names = sorted(name for name in images.files if name.startswith("img_"))[:20]
        photographs = [images[name] / 255.0 for name in names]
    patches = np.empty((10_000, 64))
    for row in patches:
        image = photographs[rng.integers(len(photographs))]
        top, left = (int(rng.integers(side - 8)) for side in image.shape)
        row[:] = image[top : top + 8, left : left + 8].ravel()
    for seed in range(3):
        machine = GaussianRBM(64, max_epochs=8, log_partition=None, random_state=seed).fit(patches)
        left_over = patches - machine.inverse_transform(machine.transform(patches))
        assert 0.5 < np.exp(machine.log_variance_[0]) / np.square(left_over).mean() < 2.0, seed


# ---------------------------------------------------------------- samples


def test_chains_leave_the_mixture_invariant(model):
    """Rows drawn from the mixture have its mean and covariance after Gibbs steps, too."""
    rng, n = np.random.default_rng(0), 40_000
    log_weights, means, deviation = mixture(model)
    weights = np.exp(log_weights)
    rows = means[rng.choice(32, size=n, p=weights)] + deviation * rng.normal(size=(n, 3))
    moved = model.gibbs(rows, 3, random_state=0)
    mean = weights @ means
    covariance = (means - mean).T * weights @ (means - mean) + np.diag(deviation**2)
    assert (np.abs(moved.mean(axis=0) - mean) < 4 * np.sqrt(np.diag(covariance) / n)).all()
    # Fourth moments of the mixture are below three times the square of its variances.
    limit = 5 * np.sqrt((covariance**2 + np.outer(*[covariance.diagonal()] * 2)) / n)
    assert (np.abs(np.cov(moved.T) - covariance) < limit).all()
    assert (moved != rows).all()


def test_samples_have_the_moments_of_the_rows():
    fitted = make(n_components=12).fit(ROWS)
    drawn = fitted.sample(4000, n_steps=100, random_state=0)
    assert drawn.dtype == np.float32
    # Four standard errors of 4000 draws of unit variance, whose kurtosis is at most that of Laplace
    # variables, 6.
    assert np.abs(drawn.mean(axis=0) - ROWS.mean(axis=0)).max() < 4 * np.sqrt(1 / 4000)
    limit = 4 * np.sqrt((6 - 1) / 4000)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(ROWS.T), atol=limit)


@pytest.mark.parametrize("kind", ["exact", "metropolis"])
def test_langevin_samples_have_the_moments_of_the_mixture(model, kind):
    log_weights, means, deviation = mixture(model)
    weights, n = np.exp(log_weights), 10_000
    mean = weights @ means
    covariance = (means - mean).T * weights @ (means - mean) + np.diag(deviation**2)
    sampler = GibbsLangevin(0.8, 4, kind)
    drawn = model.sample(n, n_steps=200, sampler=sampler, random_state=0)
    assert (np.abs(drawn.mean(axis=0) - mean) < 4 * np.sqrt(np.diag(covariance) / n)).all()
    limit = 5 * np.sqrt((covariance**2 + np.outer(*[covariance.diagonal()] * 2)) / n)
    assert (np.abs(np.cov(drawn.T) - covariance) < limit).all()
    plain = model.sample(n, n_steps=200, random_state=0)
    assert (plain != drawn).all()


@pytest.mark.parametrize("sampler", [None, GibbsLangevin(correction="metropolis")])
def test_clamped_features_stay_and_the_others_follow(sampler):
    """Four prototypes whose first three features are alike: knowing one tells the others."""
    X = make_rows(600)
    fitted = make(n_components=8, batch_size=20, max_epochs=60, random_state=1).fit(X)
    assert fitted.score(X) > 5.5  # all prototypes are found: the next optimum is at 5.2
    known = np.full((200, 6), np.nan)
    known[:100, 0], known[100:, 0] = 0.1, 0.9
    drawn = fitted.sample(200, clamped=known, sampler=sampler, n_steps=100, random_state=0)
    np.testing.assert_array_equal(drawn[:, 0], known[:, 0].astype(np.float32))
    low, high = drawn[:100, 1:3].mean(), drawn[100:, 1:3].mean()
    assert low < 0.35
    assert high > 0.65


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "objective", ["fast_pcd", "pseudo_likelihood", "ratio_matching", "minimum_probability_flow"]
)
def test_objectives_for_bits_are_refused_with_the_alternatives(objective):
    with pytest.raises(ValueError, match=r"needs binary rows, because .*ScoreMatching"):
        make(objective=objective).fit(ROWS)


def test_exact_likelihood_of_many_units_is_refused():
    with pytest.raises(ValueError, match=r'2\^30 states \(all 30 hidden units\).*method="ais"'):
        make(n_components=30, objective="maximum_likelihood").fit(ROWS)


def test_chains_refuse_values_that_are_not_finite(model):
    with pytest.raises(ValueError, match="init must hold finite values"):
        model.sample(1, init=[0.0, np.inf, 0.0])
    with pytest.raises(ValueError, match="clamped must hold finite values or NaN"):
        model.sample(1, clamped=[0.0, np.inf, np.nan])


def test_samplers_of_another_kind_are_refused(model):
    with pytest.raises(ValueError, match=r"sampler='gibbs' must be a GibbsLangevin\(\), or None"):
        model.sample(1, sampler="gibbs")
    bits = BernoulliRBM(2, max_epochs=1).fit((ROWS > 0).astype(np.float32))
    with pytest.raises(ValueError, match="those of BernoulliRBM are bits: leave sampler=None"):
        bits.sample(1, sampler=GibbsLangevin())
    settings = {"objective": PersistentContrastiveDivergence(sampler=GibbsLangevin())}
    with pytest.raises(ValueError, match="needs real rows, because it moves them by Langevin"):
        bits.set_params(**settings).fit((ROWS > 0).astype(np.float32))


def test_the_sum_runs_over_hidden_units_only():
    fitted = make(n_components=3, max_epochs=1).fit(np.hstack([ROWS, ROWS]))
    assert enumeration.n_summed_units(fitted._energy(torch.device("cpu"))) == 3
