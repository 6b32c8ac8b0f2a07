"""EnergyKMeans against scikit-learn, naive float64 formulas, scipy's densities and quadrature."""

import math
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from sklebm import EnergyKMeans
from sklebm.energies import PrototypeEnergy
from sklebm.inference.lloyd import (
    OnlineClusters,
    leave_one_out_inertia,
    lloyd_step,
    online_pass,
)

X_BLOBS, _ = make_blobs(400, n_features=5, centers=6, cluster_std=2.0, random_state=0)
# Pixels are whole numbers: noise breaks the ties, which rounding would break either way.
X_DIGITS = load_digits().data + np.random.default_rng(0).uniform(0, 1e-3, (1797, 64))


def fit(X=X_BLOBS, **parameters):
    return EnergyKMeans(**{"n_clusters": 6, "random_state": 0, **parameters}).fit(X)


def naive_squared_distances(X, centers):
    return ((np.asarray(X, np.float64)[:, None] - centers.astype(np.float64)) ** 2).sum(axis=2)


class Inertias:
    """Records the inertia after every iteration."""

    def __init__(self):
        self.values = []

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        self.values.append(fitted_estimator.inertia_)


# ---------------------------------------------------------------- fit


@pytest.mark.parametrize("X", [X_BLOBS, X_DIGITS, X_DIGITS.astype(np.float32)])
@pytest.mark.parametrize("n_clusters", [1, 7, 40])
def test_same_start_same_end_as_scikit_learn(X, n_clusters):
    init = X[np.random.default_rng(0).choice(len(X), n_clusters, replace=False)]
    theirs = KMeans(n_clusters, init=init, n_init=1, tol=0.0, algorithm="lloyd").fit(X)
    ours = EnergyKMeans(n_clusters, init=init, tol=0.0).fit(X)
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-6)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-4)
    np.testing.assert_array_equal(ours.labels_, ours.predict(X))


@pytest.mark.parametrize("X", [X_BLOBS, X_DIGITS])
def test_seeding_is_as_good_as_scikit_learns(X):
    ours = [EnergyKMeans(10, random_state=seed).fit(X).inertia_ for seed in range(10)]
    theirs = [KMeans(10, n_init=1, random_state=seed).fit(X).inertia_ for seed in range(10)]
    # equal within the spread of either over seeds
    assert np.mean(ours) <= np.mean(theirs) + 2 * np.std(theirs) / math.sqrt(10)


def test_inertia_never_rises():
    recorder = Inertias()
    model = EnergyKMeans(30, random_state=0, tol=0.0).set_callbacks(recorder).fit(X_DIGITS)
    assert len(recorder.values) > 5
    assert (np.diff(recorder.values) <= 1e-9 * recorder.values[0]).all()
    assert recorder.values[-1] == model.inertia_
    naive = naive_squared_distances(X_DIGITS, model.cluster_centers_).min(axis=1).sum()
    assert model.inertia_ == pytest.approx(naive, rel=1e-12)


def test_the_best_of_several_runs_is_kept():
    single = [fit(X_DIGITS, n_clusters=12, random_state=0, n_init=n).inertia_ for n in (1, 5, 20)]
    assert single == sorted(single, reverse=True)
    assert single[-1] < single[0]


def test_centres_are_the_means_of_their_rows():
    model = fit(tol=0.0)
    for label, center in enumerate(model.cluster_centers_):
        np.testing.assert_allclose(center, X_BLOBS[model.labels_ == label].mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(model.cluster_counts_, np.bincount(model.labels_))


@pytest.mark.parametrize("init", ["k-means++", X_BLOBS[:6]])
def test_weights_are_repetitions(init):
    """In seeding too: the same random numbers choose the same rows."""
    weights = np.random.default_rng(0).integers(0, 4, len(X_BLOBS))
    repeated = EnergyKMeans(6, init=init, random_state=3).fit(np.repeat(X_BLOBS, weights, axis=0))
    weighted = EnergyKMeans(6, init=init, random_state=3).fit(X_BLOBS, sample_weight=weights)
    np.testing.assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, rtol=1e-10)
    for name in ("inertia_", "noise_variance_", "log_partition_"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name), rel=1e-10)


def test_the_scale_of_weights_does_not_move_centres():
    weights = np.random.default_rng(0).uniform(0.5, 2.0, len(X_BLOBS))
    one = EnergyKMeans(6, random_state=0).fit(X_BLOBS, sample_weight=weights)
    other = EnergyKMeans(6, random_state=0).fit(X_BLOBS, sample_weight=1000 * weights)
    np.testing.assert_allclose(one.cluster_centers_, other.cluster_centers_, rtol=1e-9)


@pytest.mark.parametrize("weights", [np.ones(3), -np.ones(400), np.full(400, np.nan), "heavy"])
def test_bad_weights_are_refused(weights):
    model = fit()
    centers = model.cluster_centers_
    with pytest.raises(ValueError, match=r"sample_weight|weights|heavy"):
        model.fit(X_BLOBS, sample_weight=weights)
    assert model.cluster_centers_ is centers


def test_too_few_rows_of_positive_weight_are_refused():
    weights = np.zeros(len(X_BLOBS))
    weights[:5] = 1.0
    with pytest.raises(ValueError, match="n_samples=5 should be >= n_clusters=6"):
        EnergyKMeans(6).fit(X_BLOBS, sample_weight=weights)


def test_an_empty_cluster_moves_to_the_row_farthest_away():
    x = torch.tensor([[0.0], [1.0], [2.0], [100.0]], dtype=torch.float64)
    weights = torch.ones(4, dtype=torch.float64)
    start = torch.tensor([[1.0], [-1000.0]], dtype=torch.float64)
    _, moved, counts = lloyd_step(x, weights, start, [slice(0, 4)])
    assert counts.tolist() == [4.0, 0.0]
    assert moved[:, 0].tolist() == [25.75, 100.0]
    # ... and never onto a row without weight
    _, moved, _ = lloyd_step(x, torch.tensor([1.0, 1, 1, 0]).double(), start, [slice(0, 4)])
    assert moved[:, 0].tolist() == [1.0, 0.0]


def test_fewer_distinct_rows_than_clusters_warn():
    with pytest.warns(ConvergenceWarning, match="Only 2 of n_clusters=4"):
        model = EnergyKMeans(4, random_state=0).fit(np.repeat([[0.0, 1.0], [2.0, 3.0]], 5, axis=0))
    assert model.inertia_ == 0.0
    assert np.isfinite(model.score_samples([[0.0, 1.0], [9.0, 9.0]])).all()


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_far_from_the_origin_in_single_precision(offset):
    """The rows lose bits of their own there; the fit loses no more than those."""
    X, _ = make_blobs(20_000, n_features=4, centers=5, cluster_std=3.0, random_state=1)
    moved = (X + offset).astype(np.float32)
    exact = moved.astype(np.float64)
    single = EnergyKMeans(5, tol=0.0, random_state=0).fit(moved)
    start = single.cluster_centers_.astype(np.float64)
    double = EnergyKMeans(5, tol=0.0, init=start).fit(exact)
    # Centres are single-precision numbers too: each coordinate may be off by one step.
    step = float(np.spacing(np.float32(offset)))
    assert single.inertia_ <= double.inertia_ + X.size * step**2
    # Rows and centres lie on a grid of such steps, so that some distances tie.
    naive = naive_squared_distances(moved, single.cluster_centers_)
    chosen = naive[np.arange(len(X)), single.predict(moved)]
    np.testing.assert_allclose(chosen, naive.min(axis=1), rtol=1e-12)


def test_squares_that_overflow_are_an_error_and_no_label():
    model = fit()
    for method in (model.predict, fit(output="onehot").transform):
        with pytest.raises(FloatingPointError, match=r"overflow.*Scale X"):
            method(np.full((3, 5), 1e308))


# ---------------------------------------------------------------- partial_fit


def naive_macqueen(X, centers):
    centers, counts = centers.copy(), np.zeros(len(centers))
    labels = []
    for row in X:
        label = int(((centers - row) ** 2).sum(axis=1).argmin())
        counts[label] += 1
        centers[label] += (row - centers[label]) / counts[label]
        labels.append(label)
    return centers, counts, labels


def test_online_pass_is_macqueens_rule():
    start = X_BLOBS[[0, 40, 80, 120]]
    begin = OnlineClusters(start, np.zeros(4), 0.0)
    (centers, counts, error), labels = online_pass(
        X_BLOBS, np.ones(len(X_BLOBS)), begin, revive=False
    )
    expected = naive_macqueen(X_BLOBS, start)
    np.testing.assert_allclose(centers, expected[0], rtol=1e-12)
    np.testing.assert_array_equal(counts, expected[1])
    np.testing.assert_array_equal(labels, expected[2])
    # Welford: what was added is the scatter of the rows of each cluster about their mean
    scatter = sum(((X_BLOBS[labels == k] - centers[k]) ** 2).sum() for k in range(4))
    assert error == pytest.approx(scatter, rel=1e-9)


def test_partial_fit_seeds_on_its_first_chunk_and_counts_all_rows():
    model = EnergyKMeans(6, random_state=0)
    with pytest.raises(ValueError, match="n_samples=5 should be >= n_clusters=6"):
        model.partial_fit(X_BLOBS[:5])
    assert not hasattr(model, "cluster_centers_")
    model.partial_fit(X_BLOBS[:100])
    for row in X_BLOBS[100:]:
        model.partial_fit(row[None])
    assert model.cluster_counts_.sum() == len(X_BLOBS)
    batch = fit()
    assert model.score(X_BLOBS) > batch.score(X_BLOBS) - 1.0


def test_partial_fit_refuses_another_number_of_clusters():
    model = fit().set_params(n_clusters=3)
    with pytest.raises(ValueError, match="n_clusters=3 differs from the 6"):
        model.partial_fit(X_BLOBS)


# ---------------------------------------------------------------- energies and densities


def test_free_energy_is_the_naive_sum():
    model = fit()
    distances = naive_squared_distances(X_DIGITS[:50, :5], model.cluster_centers_)
    for beta in (1e-3, 0.1, 3.0):
        naive = -logsumexp(-beta * distances, axis=1) / beta
        np.testing.assert_allclose(model.free_energy(X_DIGITS[:50, :5], beta), naive, rtol=1e-10)


def test_the_limit_of_zero_temperature_is_the_closest_prototype():
    model = fit()
    hard = model.free_energy(X_BLOBS, math.inf)
    naive = naive_squared_distances(X_BLOBS, model.cluster_centers_).min(axis=1)
    np.testing.assert_allclose(hard, naive, rtol=1e-12)
    # F_beta lies below F_inf by at most log K / beta
    for beta in (10.0, 1e3, 1e6):
        gap = hard - model.free_energy(X_BLOBS, beta)
        assert (gap >= -1e-9 * hard).all()
        assert (gap <= math.log(6) / beta + 1e-9 * hard).all()


def test_scores_are_the_log_density_of_the_mixture():
    model = fit()
    covariance = model.noise_variance_ * np.eye(5)
    terms = [multivariate_normal(c, covariance).logpdf(X_BLOBS) for c in model.cluster_centers_]
    expected = logsumexp(terms, axis=0) - math.log(6)
    np.testing.assert_allclose(model.score_samples(X_BLOBS), expected, rtol=1e-10)


def test_the_density_integrates_to_one():
    X, _ = make_blobs(200, n_features=2, centers=3, random_state=0)
    model = EnergyKMeans(3, random_state=0).fit(X)
    low, high = X.min(axis=0) - 8, X.max(axis=0) + 8
    x, y = (np.linspace(a, b, 400) for a, b in zip(low, high, strict=True))
    density = np.exp(model.score_samples(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)))
    # Sums over an even grid converge exponentially for Gaussians.
    assert density.sum() * (x[1] - x[0]) * (y[1] - y[0]) == pytest.approx(1.0, abs=1e-9)


def test_codes_are_those_of_the_formulas():
    distances = np.sqrt(naive_squared_distances(X_BLOBS, fit().cluster_centers_))
    one_hot = np.eye(6)[distances.argmin(axis=1)]
    beta = fit().beta_
    expected = {
        "distance": distances,
        "onehot": one_hot,
        "responsibility": softmax(-beta * distances**2, axis=1),
        "triangle": np.maximum(0.0, distances.mean(axis=1, keepdims=True) - distances),
    }
    for output, codes in expected.items():
        result = fit(output=output).transform(X_BLOBS)
        np.testing.assert_allclose(result, codes, rtol=1e-9, atol=1e-9, err_msg=output)


def test_codes_that_sum_to_one_decode_to_mixtures_of_prototypes():
    for output in ("onehot", "responsibility"):
        model = fit(output=output)
        codes = model.transform(X_BLOBS)
        np.testing.assert_allclose(codes.sum(axis=1), 1.0)
        expected = codes @ model.cluster_centers_
        np.testing.assert_allclose(model.inverse_transform(codes), expected, rtol=1e-12)
    model = fit(output="triangle")
    with pytest.raises(AttributeError, match=r"inverse_transform.*or \"responsibility\"; it is"):
        model.inverse_transform(np.ones((1, 6)))
    with pytest.raises(AttributeError, match=r"predict_proba.*set output=\"responsibility\""):
        model.predict_proba(X_BLOBS)


def test_the_variance_is_that_of_rows_left_out():
    """Leaving each row out in turn, with its label kept where its cluster still exists."""
    model = fit(tol=0.0)
    naive = 0.0
    for index, (row, label) in enumerate(zip(X_BLOBS, model.labels_, strict=True)):
        centers = model.cluster_centers_.copy()
        others = (model.labels_ == label) & (np.arange(len(X_BLOBS)) != index)
        centers[label] = X_BLOBS[others].mean(axis=0)
        naive += ((centers - row) ** 2).sum(axis=1).min()
    x, weights = torch.from_numpy(X_BLOBS), torch.ones(len(X_BLOBS), dtype=torch.float64)
    labels, centers = (
        torch.from_numpy(model.labels_).long(),
        torch.from_numpy(model.cluster_centers_),
    )
    closed = leave_one_out_inertia(x, weights, labels, centers, [slice(0, 150), slice(150, 400)])
    assert closed == pytest.approx(naive, rel=1e-9)
    assert model.noise_variance_ == pytest.approx(naive / X_BLOBS.size, rel=1e-9)


def test_held_out_density_selects_the_number_of_clusters():
    X, _ = make_blobs(600, n_features=3, centers=5, cluster_std=0.7, random_state=2)
    grid = {"n_clusters": [2, 3, 5, 8, 15, 100]}
    search = GridSearchCV(EnergyKMeans(n_init=5, random_state=0), grid).fit(X)
    assert search.best_params_ == {"n_clusters": 5}


def test_a_model_that_memorises_its_rows_scores_others_low():
    """As many clusters as rows: no variance is left, and yet other rows have a finite density."""
    X = X_DIGITS[:100]
    model = EnergyKMeans(100, random_state=0).fit(X)
    assert model.inertia_ == pytest.approx(0.0, abs=1e-9)
    scores = model.score_samples(X_DIGITS[100:200])
    assert np.isfinite(scores).all()
    assert scores.mean() < model.score(X)


# ---------------------------------------------------------------- numbers


def test_the_variance_of_distant_tight_clusters_is_theirs():
    """No floor but rounding: each row left out of (0, 1, 2) and its like far away, by hand."""
    X = np.array([[0.0], [1.0], [2.0], [1e4], [1e4 + 1], [1e4 + 2]])
    for dtype in (np.float64, np.float32):
        model = EnergyKMeans(2, random_state=0).fit(X.astype(dtype))
        # (3/2)^2 (1 + 0 + 1) of each three rows, over three.
        assert model.noise_variance_ == pytest.approx(1.5, rel=1e-6)
    batches = EnergyKMeans(2, random_state=0, batch_size=6).fit(X)
    assert batches.noise_variance_ == pytest.approx(1.5)
    online = EnergyKMeans(2, init=[[0.0], [1e4]]).partial_fit(X)
    assert online.noise_variance_ == pytest.approx(4.0 / (6 - 2))  # inertia / d (n - K)


def test_rows_without_any_spread_have_a_finite_density():
    for X in (np.zeros((5, 2)), np.full((5, 2), 0.1), np.full((5, 2), 1e-9)):
        model = EnergyKMeans(1).fit(X)
        assert np.isfinite(model.score_samples(X)).all()
        assert 0 < model.noise_variance_ < 1e-11


@pytest.mark.parametrize("shift", [0.0, 1e8])
def test_small_distances_survive_distant_prototypes(shift):
    X = np.array([[0.0], [1.0], [1e8], [1e8 + 1]]) + shift
    model = EnergyKMeans(2, init=np.array([[0.0], [1e8]]) + shift).fit(X)
    np.testing.assert_array_equal(model.transform(X)[[0, 1, 2, 3], [0, 0, 1, 1]], 0.5)
    np.testing.assert_allclose(model.free_energy(X), 0.25, rtol=1e-12)


def test_distances_are_those_of_differences():
    generator = np.random.default_rng(0)
    centers = np.concatenate([generator.normal(size=(5, 3)), generator.normal(size=(5, 3)) + 1e6])
    X = centers[generator.integers(10, size=200)] + 1e-3 * generator.normal(size=(200, 3))
    energy = PrototypeEnergy(torch.from_numpy(centers))
    x = torch.from_numpy(X)
    exact = ((X[:, None] - centers) ** 2).sum(axis=2)
    # What is expanded keeps half of the digits, and what is not keeps all but a few.
    np.testing.assert_allclose(energy.squared_distances(x), exact, rtol=1e-7)
    np.testing.assert_array_equal(energy.assign(x), exact.argmin(axis=1))


def test_close_prototypes_far_from_another_are_told_apart():
    centers = torch.tensor([[0.0], [1e8], [1e8 + 1]], dtype=torch.float64)
    x = torch.tensor([[1e8 + 0.4], [1e8 + 0.6], [1e8 + 0.5], [3.0]], dtype=torch.float64)
    assert PrototypeEnergy(centers).assign(x).tolist() == [1, 2, 1, 0]


# ---------------------------------------------------------------- what users rely on


def test_columns_of_unequal_scale_are_named():
    X = X_BLOBS * [1.0, 1.0, 1e5, 1.0, 1.0]
    with pytest.warns(
        UserWarning, match=r"factor of .*e\+05.*that of column 2 .*e\+05\. EnergyKMeans adds up"
    ):
        EnergyKMeans(3, random_state=0).fit(X)
    constant = np.column_stack([X_BLOBS, np.full(len(X_BLOBS), 0.1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EnergyKMeans(3, random_state=0).fit(constant)


def test_sparse_rows_give_the_same_model():
    X = np.where(np.abs(X_BLOBS) > 2, X_BLOBS, 0.0)
    for options in ({}, {"batch_size": 50}, {"init": "random"}):
        dense = EnergyKMeans(5, random_state=0, **options).fit(X)
        sparse = EnergyKMeans(5, random_state=0, **options).fit(scipy.sparse.csr_array(X))
        np.testing.assert_array_equal(sparse.cluster_centers_, dense.cluster_centers_)
        for method in ("score_samples", "transform", "predict"):
            np.testing.assert_array_equal(
                getattr(sparse, method)(scipy.sparse.csr_array(X)), getattr(dense, method)(X)
            )
    online = EnergyKMeans(5, random_state=0).partial_fit(scipy.sparse.csr_array(X))
    expected = EnergyKMeans(5, random_state=0).partial_fit(X)
    np.testing.assert_array_equal(online.cluster_centers_, expected.cluster_centers_)


def test_weights_of_partial_fit_and_score_are_repetitions():
    counts = np.random.default_rng(0).integers(0, 4, len(X_BLOBS))
    repeated = np.repeat(X_BLOBS, counts, axis=0)
    start = X_BLOBS[[0, 40, 80, 120]]
    one = EnergyKMeans(4, init=start).partial_fit(X_BLOBS[:200], sample_weight=counts[:200])
    one.partial_fit(X_BLOBS[200:], sample_weight=counts[200:])
    other = EnergyKMeans(4, init=start).partial_fit(repeated)
    np.testing.assert_allclose(one.cluster_centers_, other.cluster_centers_, rtol=1e-10)
    np.testing.assert_allclose(one.cluster_counts_, other.cluster_counts_)
    assert one.inertia_ == pytest.approx(other.inertia_, rel=1e-9)
    assert one.score(X_BLOBS, sample_weight=counts) == pytest.approx(one.score(repeated), rel=1e-10)
    with pytest.raises(ValueError, match="sample weights of at least 0"):
        one.partial_fit(X_BLOBS, sample_weight=-np.ones(len(X_BLOBS)))


def test_first_centres_at_random_or_from_a_function():
    model = EnergyKMeans(3, init="random", max_iter=1, tol=0.0, random_state=0)
    seen = []

    def choose(X, n_clusters, random_state):
        seen.append(random_state.randint(1000))
        return X[:n_clusters]

    assert model.fit(X_BLOBS).inertia_ > 0
    given = EnergyKMeans(3, init=choose, n_init=2, random_state=0).fit(X_BLOBS)
    expected = EnergyKMeans(3, init=X_BLOBS[:3]).fit(X_BLOBS)
    np.testing.assert_array_equal(given.cluster_centers_, expected.cluster_centers_)
    assert len(set(seen)) == 2
    again = list(seen)
    EnergyKMeans(3, init=choose, n_init=2, random_state=0).fit(X_BLOBS)
    assert seen == 2 * again
    with pytest.raises(ValueError, match="init has shape"):
        EnergyKMeans(3, init=lambda X, k, random_state: X[:2]).fit(X_BLOBS)


def test_a_prototype_without_rows_comes_to_them_in_any_chunks():
    start = np.concatenate([X_BLOBS[:2], [[1e3] * 5]])
    models = []
    for size in (7, 100):
        model = EnergyKMeans(3, init=start).partial_fit(X_BLOBS[:50])
        assert model.cluster_counts_[2] == 0
        for first in range(50, len(X_BLOBS), size):
            model.partial_fit(X_BLOBS[first : first + size])
        models.append(model)
    assert models[0].cluster_counts_.min() > 0
    first, second = (model.cluster_centers_ for model in models)
    np.testing.assert_allclose(first, second, rtol=1e-12)
    assert models[0].cluster_counts_.sum() == len(X_BLOBS)


def test_single_precision_stays_so_and_chunks_change_nothing():
    X = X_BLOBS.astype(np.float32)
    models = []
    for size in (13, 90):
        model = EnergyKMeans(4, random_state=0).partial_fit(X[:100])
        for first in range(100, len(X), size):
            model.partial_fit(X[first : first + size])
        models.append(model)
    assert {model.cluster_centers_.dtype for model in models} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(models[0].cluster_centers_, models[1].cluster_centers_)
    assert models[0].drop_training_state().training_state_ == {}
    models[0].partial_fit(X[:10])


def test_draws_have_the_moments_of_the_density():
    model = fit()
    n = 100_000
    drawn, labels = model.sample(n, random_state=0)
    shares = np.bincount(labels, minlength=6) / n
    assert np.abs(shares - 1 / 6).max() < 5 * math.sqrt(5 / 36 / n)
    residuals = drawn - model.cluster_centers_[labels]
    assert residuals.var() == pytest.approx(model.noise_variance_, rel=5 * math.sqrt(2 / (5 * n)))
    assert abs(residuals.mean()) < 5 * math.sqrt(model.noise_variance_ / (5 * n))
    # The mean of -log p over draws is the entropy; by Gibbs no density does better on them.
    other = EnergyKMeans(3, random_state=0).fit(X_BLOBS)
    assert model.score(drawn) > other.score(drawn)


def test_energies_of_one_hot_latents_are_squared_distances():
    model = fit()
    distances = model.transform(X_BLOBS)
    for k in range(6):
        codes = np.repeat(np.eye(6)[[k]], len(X_BLOBS), axis=0)
        np.testing.assert_allclose(model.energy(X_BLOBS, codes), distances[:, k] ** 2, rtol=1e-9)
