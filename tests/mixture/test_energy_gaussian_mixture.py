"""EnergyGaussianMixture against quadrature, closed forms, naive formulas and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from sklebm import EnergyGaussianMixture, EnergyKMeans

TYPES = ("full", "tied", "diag", "spherical")
every_type = pytest.mark.parametrize("kind", TYPES)


def make_clusters(n_rows=1200, n_features=4, n_components=4, seed=0, offset=0.0):
    """Correlated Gaussian clusters that overlap."""
    generator = np.random.default_rng(seed)
    clusters = []
    for _ in range(n_components):
        mixing = generator.normal(size=(n_features, n_features))
        rows = generator.normal(size=(n_rows // n_components, n_features)) @ mixing
        clusters.append(rows + 3 * generator.normal(size=n_features))
    return np.concatenate(clusters) + offset


def start_for(X, kind, n_components=4):
    """A start that any implementation can be given: weights, means and precisions."""
    d = X.shape[1]
    precisions = {
        "full": np.repeat(0.5 * np.eye(d)[None], n_components, axis=0),
        "tied": 0.5 * np.eye(d),
        "diag": np.full((n_components, d), 0.5),
        "spherical": np.full(n_components, 0.5),
    }
    weights = np.arange(1.0, n_components + 1)
    return {
        "n_components": n_components,
        "covariance_type": kind,
        "weights_init": weights / weights.sum(),
        "means_init": X[:: len(X) // n_components][:n_components],
        "precisions_init": precisions[kind],
        "reg_covar": 1e-6,  # scikit-learn's; ours follows the columns by default
    }


def dense_covariances(model):
    """Covariances of all components, (K, d, d)."""
    k, d = model.means_.shape
    given = model.covariances_
    if model.covariance_type == "full":
        return given
    if model.covariance_type == "tied":
        return np.repeat(given[None], k, axis=0)
    if model.covariance_type == "diag":
        return np.stack([np.diag(row) for row in given])
    return np.stack([variance * np.eye(d) for variance in given])


def naive_log_density(model, X):
    terms = [
        np.log(weight) + multivariate_normal(mean, covariance).logpdf(X)
        for weight, mean, covariance in zip(
            model.weights_, model.means_, dense_covariances(model), strict=True
        )
    ]
    return logsumexp(terms, axis=0), np.stack(terms, axis=1)


# ---------------------------------------------------------------- EM


@every_type
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_steps", [1, 2, 40])
def test_em_is_scikit_learns_from_the_same_start(kind, n_steps):
    X = make_clusters()
    options = {**start_for(X, kind), "max_iter": n_steps, "tol": 0.0}
    ours, theirs = EnergyGaussianMixture(**options).fit(X), GaussianMixture(**options).fit(X)
    close = {"rtol": 1e-6, "atol": 1e-6}
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_", "precisions_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), **close)
    for method in ("score_samples", "predict_proba", "predict"):
        np.testing.assert_allclose(getattr(ours, method)(X), getattr(theirs, method)(X), **close)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, abs=1e-9)
    assert ours.bic(X) == pytest.approx(theirs.bic(X), rel=1e-9)
    assert ours.aic(X) == pytest.approx(theirs.aic(X), rel=1e-9)


@every_type
def test_em_converges_when_scikit_learns_does(kind):
    X = make_clusters()
    options = {**start_for(X, kind), "max_iter": 500, "tol": 1e-5}
    ours, theirs = EnergyGaussianMixture(**options).fit(X), GaussianMixture(**options).fit(X)
    assert ours.converged_ is True
    assert ours.n_iter_ == theirs.n_iter_


@every_type
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("init", ["kmeans", "random"])
def test_the_likelihood_never_falls(kind, init):
    for seed in range(3):
        X = make_clusters(seed=seed, offset=100.0)
        model = EnergyGaussianMixture(
            4, covariance_type=kind, init=init, reg_covar=0, tol=0, max_iter=150, random_state=seed
        ).fit(X)
        bounds = np.append(model.lower_bounds_, model.score(X))
        assert np.diff(bounds).min() >= -1e-10
        assert bounds[-1] > bounds[0]
        assert model.lower_bound_ == model.lower_bounds_[-1]


@every_type
def test_one_component_is_the_sample_gaussian(kind):
    X = make_clusters(offset=1e4)
    model = EnergyGaussianMixture(covariance_type=kind, reg_covar=0).fit(X)
    covariance = np.cov(X.T, bias=True)
    expected = {
        "full": covariance[None],
        "tied": covariance,
        "diag": np.diag(covariance)[None],
        "spherical": np.array([np.diag(covariance).mean()]),
    }
    np.testing.assert_allclose(model.weights_, [1.0], rtol=1e-14)
    np.testing.assert_allclose(model.means_, X.mean(axis=0, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(model.covariances_, expected[kind], rtol=1e-9, atol=1e-9)


@every_type
def test_a_shift_of_the_data_changes_nothing_else(kind):
    """Sums are taken around the means, so far from the origin no digit is lost to products."""
    X = make_clusters()
    here = EnergyGaussianMixture(**start_for(X, kind)).fit(X)
    far = X + 2.0**20
    there = EnergyGaussianMixture(**start_for(far, kind)).fit(far)
    np.testing.assert_allclose(there.score_samples(far), here.score_samples(X), atol=1e-6)


@every_type
def test_weights_are_repetitions(kind):
    X = make_clusters(240)
    counts = np.random.default_rng(0).integers(0, 4, size=len(X))
    for init in ("kmeans", "random"):
        model = EnergyGaussianMixture(4, covariance_type=kind, init=init, random_state=0, tol=1e-6)
        model.set_params(max_iter=1000)
        weighted = model.fit(X, sample_weight=counts).score_samples(X)
        repeated = model.fit(np.repeat(X, counts, axis=0)).score_samples(X)
        np.testing.assert_allclose(weighted, repeated, rtol=1e-8, atol=1e-8)


def test_given_means_keep_their_order():
    X = np.concatenate([make_clusters(200, 2, 1) + shift for shift in (0, 50, 100)])
    means = np.array([X[450], X[50], X[250]])
    model = EnergyGaussianMixture(3, means_init=means).fit(X)
    assert list(model.predict(means)) == [0, 1, 2]
    np.testing.assert_allclose(model.weights_, 1 / 3, atol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_vanishing_tied_spheres_assign_as_kmeans():
    X = make_clusters()
    clusters = EnergyKMeans(4, random_state=0).fit(X)
    model = EnergyGaussianMixture(
        4,
        covariance_type="tied",
        weights_init=np.full(4, 0.25),
        means_init=clusters.cluster_centers_,
        precisions_init=1e6 * np.eye(4),
        max_iter=1,
    ).fit(X)
    np.testing.assert_allclose(
        model.means_, [X[clusters.predict(X) == k].mean(0) for k in range(4)]
    )


# ---------------------------------------------------------------- energies


@every_type
def test_densities_and_energies_are_the_formulas(kind):
    X = make_clusters()
    model = EnergyGaussianMixture(4, covariance_type=kind, random_state=0, max_iter=500).fit(X)
    log_density, terms = naive_log_density(model, X)
    np.testing.assert_allclose(model.score_samples(X), log_density, rtol=1e-9, atol=1e-9)
    posterior = np.exp(terms - log_density[:, None])
    np.testing.assert_allclose(model.transform(X), posterior, atol=1e-9)
    np.testing.assert_allclose(model.transform(X).sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X), terms.argmax(axis=1))
    for k in range(4):
        codes = np.repeat(np.eye(4)[[k]], len(X), axis=0)
        np.testing.assert_allclose(model.energy(X, codes), -terms[:, k], rtol=1e-9, atol=1e-9)
    mean_energy = -(posterior * terms).sum(axis=1)
    np.testing.assert_allclose(model.energy(X, posterior), mean_energy, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.inverse_transform(np.eye(4)), model.means_)


@every_type
def test_the_density_integrates_to_one(kind):
    X = make_clusters(n_features=2)
    model = EnergyGaussianMixture(4, covariance_type=kind, random_state=0, max_iter=500).fit(X)
    low, high = X.min(axis=0) - 15, X.max(axis=0) + 15
    axes = [np.linspace(a, b, 1200) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    assert np.exp(model.score_samples(grid)).sum() * cell == pytest.approx(1.0, abs=1e-8)


@every_type
def test_many_features_in_several_blocks(kind):
    """Wider than one block of columns, longer than one block of rows, not a multiple of either."""
    X = make_clusters(3001 * 3, n_features=150, n_components=3)
    model = EnergyGaussianMixture(3, covariance_type=kind, random_state=0, max_iter=300).fit(X)
    log_density, _ = naive_log_density(model, X)
    np.testing.assert_allclose(model.score_samples(X), log_density, rtol=1e-8)


@every_type
def test_samples_have_the_moments_of_the_components(kind):
    X = make_clusters()
    model = EnergyGaussianMixture(4, covariance_type=kind, random_state=0, max_iter=500).fit(X)
    n = 200_000
    drawn, labels = model.sample(n, random_state=0)
    assert drawn.shape == (n, 4)
    shares = np.bincount(labels, minlength=4) / n
    error = np.sqrt(model.weights_ * (1 - model.weights_) / n)
    assert (np.abs(shares - model.weights_) < 5 * error).all()
    for k, covariance in enumerate(dense_covariances(model)):
        mine = drawn[labels == k]
        errors = np.sqrt(np.diag(covariance) / len(mine))
        assert (np.abs(mine.mean(axis=0) - model.means_[k]) < 5 * errors).all()
        scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        gap = np.abs(np.cov(mine.T) - covariance) / scale
        assert gap.max() < 5 * math.sqrt(2 / len(mine))


# ---------------------------------------------------------------- completion


def naive_completion(model, row):
    """One row, one component at a time, with explicit inverses."""
    unknown, known = np.isnan(row), ~np.isnan(row)
    logs, fills = [], []
    covariances = dense_covariances(model)
    for weight, mean, covariance in zip(model.weights_, model.means_, covariances, strict=True):
        log_marginal, fill = 0.0, mean[unknown]
        if known.any():
            inner = covariance[np.ix_(known, known)]
            log_marginal = multivariate_normal(mean[known], inner).logpdf(row[known])
            gain = covariance[np.ix_(unknown, known)] @ np.linalg.inv(inner)
            fill = fill + gain @ (row[known] - mean[known])
        logs.append(np.log(weight) + log_marginal)
        fills.append(fill)
    posterior = np.exp(np.array(logs) - logsumexp(logs))
    completed = row.copy()
    completed[unknown] = posterior @ np.array(fills)
    return completed


def rows_with_holes(X, seed=0):
    holes = X.copy()
    holes[np.random.default_rng(seed).random(X.shape) < 0.4] = np.nan
    holes[0] = np.nan
    holes[1] = X[1]
    return holes


@every_type
def test_completion_is_the_conditional_mean(kind):
    X = make_clusters()
    model = EnergyGaussianMixture(4, covariance_type=kind, random_state=0, max_iter=500).fit(X)
    holes = rows_with_holes(X[::10])
    completed = model.complete(holes)
    expected = np.array([naive_completion(model, row) for row in holes])
    np.testing.assert_allclose(completed, expected, rtol=1e-9, atol=1e-9)
    known = ~np.isnan(holes)
    np.testing.assert_array_equal(completed[known], holes[known])
    np.testing.assert_allclose(completed[0], model.weights_ @ model.means_)


def test_completion_of_one_gaussian_is_the_least_energy():
    X = make_clusters()
    model = EnergyGaussianMixture().fit(X)
    holes = rows_with_holes(X[:50])
    best = model.complete(holes)
    generator = np.random.default_rng(1)
    for _ in range(20):
        moved = best + np.where(np.isnan(holes), 0.1 * generator.normal(size=best.shape), 0.0)
        assert (model.free_energy(moved) >= model.free_energy(best) - 1e-12).all()


def test_completion_keeps_kind_and_refuses_what_it_cannot_use():
    X = make_clusters()
    model = EnergyGaussianMixture(2, random_state=0).fit(X)
    holes = rows_with_holes(X[:20])
    expected = model.complete(holes)
    tensor = torch.from_numpy(holes)
    filled = model.complete(tensor)
    assert isinstance(filled, torch.Tensor)
    np.testing.assert_array_equal(filled.numpy(), expected)
    assert torch.isnan(tensor).any()
    single = model.complete(holes.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-4)
    for bad in (np.array([[np.inf, np.nan, 0, 0]]), torch.tensor([[math.inf, math.nan, 0.0, 0.0]])):
        with pytest.raises(ValueError, match="infinity"):
            model.complete(bad)
    with pytest.raises(ValueError, match="features"):
        model.complete(holes[:, :3])
    with pytest.raises(ValueError, match="NaN"):
        model.score_samples(holes)


# ---------------------------------------------------------------- mini-batches


@every_type
def test_partial_fit_follows_the_documented_step(kind):
    """One block by hand: moments of old and new rows mixed with step g."""
    first, block = make_clusters(400), make_clusters(400, seed=1)[:64]
    model = EnergyGaussianMixture(
        3, covariance_type=kind, batch_size=64, reg_covar=0.1, random_state=0, max_iter=500
    )
    model.fit(first)
    weights, means, dense = model.weights_, model.means_, dense_covariances(model)
    dense = dense - 0.1 * np.eye(4)
    posterior = model.transform(block)
    model.partial_fit(block)
    g = (64 / 464) ** 0.7
    mass = (1 - g) * weights + g * posterior.mean(axis=0)
    sums = (1 - g) * weights[:, None] * means + g * posterior.T @ block / 64
    old = dense + means[:, :, None] * means[:, None, :]
    new = np.einsum("nk,ni,nj->kij", posterior, block, block) / 64
    new_means = sums / mass[:, None]
    moments = (1 - g) * weights[:, None, None] * old + g * new
    np.testing.assert_allclose(model.weights_, mass, rtol=1e-9)
    np.testing.assert_allclose(model.means_, new_means, rtol=1e-9)
    outer = new_means[:, :, None] * new_means[:, None, :]
    if kind == "tied":
        truth = moments.sum(axis=0) - np.einsum("k,kij->ij", mass, outer)
        np.testing.assert_allclose(model.covariances_, truth + 0.1 * np.eye(4), rtol=1e-8)
        return
    truth = moments / mass[:, None, None] - outer
    if kind == "diag":
        truth = np.diagonal(truth, axis1=1, axis2=2) + 0.1
    elif kind == "spherical":
        truth = np.trace(truth, axis1=1, axis2=2) / 4 + 0.1
    else:
        truth = truth + 0.1 * np.eye(4)
    np.testing.assert_allclose(model.covariances_, truth, rtol=1e-8, atol=1e-10)


@every_type
def test_partial_fit_does_not_depend_on_chunks_over_many_blocks(kind):
    first, rest = make_clusters(80), make_clusters(800, seed=1)
    scores = []
    for size in (800, 130, 32, 7):
        model = EnergyGaussianMixture(3, covariance_type=kind, batch_size=32, random_state=0)
        model.set_params(max_iter=500, reg_covar=1e-3).partial_fit(first)
        for begin in range(0, 800, size):
            model.partial_fit(rest[begin : begin + size])
        assert model.n_samples_seen_ == 880
        scores.append(model.score_samples(rest))
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], rtol=1e-10, atol=1e-10)


def test_a_stream_comes_close_to_the_batch_fit():
    X = make_clusters(40_000)
    X = X[np.random.default_rng(0).permutation(len(X))]
    stream = EnergyGaussianMixture(4, batch_size=500, random_state=0).partial_fit(X[:1000])
    early = stream.score(X)
    for begin in range(1000, len(X), 1000):
        stream.partial_fit(X[begin : begin + 1000])
    # EM from where the stream began, on all rows
    whole = EnergyGaussianMixture(
        4, means_init=stream.means_, max_iter=500, tol=1e-6, random_state=0
    ).fit(X)
    assert early < stream.score(X) <= whole.score(X)
    assert whole.score(X) - stream.score(X) < 0.01


def test_partial_fit_refuses_a_foreign_training_state():
    X = make_clusters(400)
    model = EnergyGaussianMixture(2, random_state=0).fit(X).partial_fit(X[:5])
    model.training_state_ = {**model.training_state_, "block.counts": np.ones(3)}
    with pytest.raises(ValueError, match="training_state_"):
        model.partial_fit(X)


@every_type
@pytest.mark.parametrize("n_components", [1, 4])
@pytest.mark.parametrize("n_features", [1, 4])
def test_the_fitted_type_outlives_the_parameter(kind, n_components, n_features):
    X = make_clusters(n_features=n_features)
    model = EnergyGaussianMixture(n_components, covariance_type=kind, random_state=0, max_iter=900)
    expected = model.fit(X).score_samples(X), model.bic(X)
    for other in TYPES:
        model.set_params(covariance_type=other)
        np.testing.assert_array_equal(model.score_samples(X), expected[0])
    if n_components * n_features > 1:
        model.set_params(covariance_type="tied" if kind == "diag" else "diag")
        assert model.bic(X) == expected[1]
        with pytest.raises(ValueError, match=r"covariance_type=.* differs"):
            model.partial_fit(X)


# ---------------------------------------------------------------- errors


@every_type
def test_a_flat_component_names_reg_covar(kind):
    X = make_clusters()
    X = np.tile(X[:1], (200, 1)) if kind in ("spherical", "diag") else X @ np.diag([1, 1, 1, 0])
    model = EnergyGaussianMixture(2, covariance_type=kind, reg_covar=0, random_state=0)
    with pytest.raises(ValueError, match="reg_covar=0"):
        model.fit(X)
    assert not hasattr(model, "means_")
    assert np.isfinite(model.set_params(reg_covar=1e-3).fit(X).score_samples(X)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights_init": [0.5, 0.6]}, "probabilities.*1.1"),
        ({"weights_init": [1.5, -0.5]}, "probabilities.*-0.5"),
        ({"weights_init": [1.0]}, r"weights_init has shape \(1,\)"),
        ({"means_init": np.ones((3, 4))}, r"means_init has shape \(3, 4\).*\(2, 4\)"),
        ({"means_init": np.full((2, 4), np.nan)}, "means_init contains NaN"),
        ({"precisions_init": np.eye(4)}, r"precisions_init has shape \(4, 4\).*\(2, 4, 4\)"),
        ({"precisions_init": -np.ones((2, 4, 4))}, "precisions_init must be positive definite"),
        ({"n_components": 2000}, "n_samples=1200 should be >= n_components=2000"),
    ],
)
def test_bad_starts_are_refused(options, words):
    model = EnergyGaussianMixture(**{"n_components": 2, **options})
    with pytest.raises(ValueError, match=words):
        model.fit(make_clusters())


def test_rows_and_latents_must_pair():
    X = make_clusters()
    model = EnergyGaussianMixture(2, random_state=0).fit(X)
    with pytest.raises(ValueError, match="1200 rows and Z has 3"):
        model.energy(X, np.eye(2)[[0, 1, 0]])
    with pytest.raises(ValueError, match="columns"):
        model.energy(X[:3], np.eye(3))


def test_a_run_that_does_not_converge_warns():
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        EnergyGaussianMixture(4, max_iter=2, tol=0, random_state=0).fit(make_clusters())


def test_fit_predict_is_fit_then_predict():
    X = make_clusters()
    model = EnergyGaussianMixture(3, random_state=0)
    np.testing.assert_array_equal(model.fit_predict(X), model.predict(X))


@pytest.mark.parametrize("kind", TYPES)
def test_on_a_device(kind, device):
    X = make_clusters()
    here = EnergyGaussianMixture(**start_for(X, kind)).fit(X)
    there = EnergyGaussianMixture(**start_for(X, kind)).fit(torch.from_numpy(X).to(device))
    np.testing.assert_allclose(there.score_samples(X), here.score_samples(X), rtol=1e-8, atol=1e-8)
