"""EnergyOutlierDetector: scikit-learn's conventions, thresholds, several energies on one scale."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, clone
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from sklebm import EnergyKMeans, EnergyOutlierDetector, PCAWhitener, ZCAWhitener
from sklebm.outliers._default import central_rows
from sklebm.outliers._surprise import log_rank, training_quantiles
from tests.registry import fitted_state, make_rows

ESTIMATORS = [
    EnergyKMeans(4, random_state=0),
    PCAWhitener(),
    ZCAWhitener(3),
    GaussianMixture(2, random_state=0),
    IsolationForest(n_estimators=20, random_state=0),
    EllipticEnvelope(random_state=0),
    OneClassSVM(),
    KernelDensity(),
    LocalOutlierFactor(novelty=True),
    make_pipeline(StandardScaler(), EnergyKMeans(4, random_state=0)),
]
ENSEMBLE = [
    ("clusters", EnergyKMeans(4, random_state=0)),
    ("gaussian", PCAWhitener(2, ridge=0.1)),
    ("forest", IsolationForest(n_estimators=20, random_state=0)),
]
names = [type(estimator).__name__ for estimator in ESTIMATORS]
each = pytest.mark.parametrize(
    "estimator", [*ESTIMATORS, ENSEMBLE, "auto"], ids=[*names, "list", "auto"]
)


# ---------------------------------------------------------------- conventions


@each
def test_follows_the_conventions_of_isolation_forest(estimator):
    X, new = make_rows(), make_rows(200, seed=1)
    detector = EnergyOutlierDetector(estimator, contamination=0.1)
    labels = detector.fit_predict(X)
    scores = detector.score_samples(X)
    decision = detector.decision_function(X)
    assert detector.offset_ == pytest.approx(np.percentile(scores, 10), rel=1e-12)
    np.testing.assert_array_equal(decision, scores - detector.offset_)
    np.testing.assert_array_equal(labels, np.where(decision < 0, -1, 1))
    assert (labels == -1).sum() == 12
    assert set(detector.predict(new)) <= {-1, 1}
    assert detector.score(new) == pytest.approx(detector.score_samples(new).mean())
    reference = IsolationForest(n_estimators=20, random_state=0).fit(X)
    assert detector.predict(new).dtype == reference.predict(new).dtype
    # A row at the threshold is an inlier.
    reference.offset_ = reference.score_samples(X)[7]
    detector.offset_ = scores[7]
    assert detector.decision_function(X)[7] == reference.decision_function(X)[7] == 0
    assert detector.predict(X)[7] == reference.predict(X)[7] == 1


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=names)
def test_one_estimator_keeps_its_scores(estimator):
    X, new = make_rows(), make_rows(seed=1)
    detector = EnergyOutlierDetector(estimator).fit(X)
    alone = clone(estimator).fit(X)
    np.testing.assert_array_equal(detector.score_samples(new), alone.score_samples(new))
    assert not fitted_state(estimator)  # the original is cloned, never fitted
    assert detector.estimator_ is detector.estimators_[0]
    assert type(detector.estimator_) is type(estimator)


@pytest.mark.parametrize(("contamination", "share"), [("auto", 0.005), (0.01, 0.01), (0.5, 0.5)])
def test_the_threshold_is_a_percentile_of_all_training_rows(contamination, share):
    X = make_rows(2000)
    for estimator in ("auto", ENSEMBLE, PCAWhitener()):
        detector = EnergyOutlierDetector(estimator, contamination=contamination).fit(X)
        assert (detector.predict(X) == -1).sum() == share * len(X)


def test_agrees_with_isolation_forest_at_the_same_contamination():
    X, new = make_rows(), make_rows(500, seed=1)
    forest = IsolationForest(random_state=0, contamination=0.1).fit(X)
    detector = EnergyOutlierDetector(IsolationForest(random_state=0), contamination=0.1).fit(X)
    np.testing.assert_allclose(detector.offset_, forest.offset_, rtol=1e-12)
    np.testing.assert_array_equal(detector.predict(new), forest.predict(new))


@each
def test_a_score_depends_on_its_row_alone(estimator):
    X = make_rows(60, seed=1)
    detector = EnergyOutlierDetector(estimator).fit(make_rows())
    whole = detector.score_samples(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(detector.score_samples(X[order]), whole[order], rtol=1e-10)
    alone = [detector.score_samples(row[None])[0] for row in X]
    np.testing.assert_allclose(alone, whole, rtol=1e-10)
    with_outliers = detector.score_samples(np.vstack([X, 100 + X]))[: len(X)]
    np.testing.assert_allclose(with_outliers, whole, rtol=1e-10)


# ---------------------------------------------------------------- one scale


def empirical_log_rank(scores, training):
    """log of the share of training scores at or below, ties and the score itself by halves."""
    below = (training[None] < scores[:, None]).sum(axis=1)
    equal = (training[None] == scores[:, None]).sum(axis=1)
    return np.log((below + equal / 2) / len(training))


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 50))
def test_log_rank_of_training_scores_is_their_rank(seed, n_rows, n_levels):
    generator = np.random.default_rng(seed)
    for training in (
        generator.normal(size=n_rows),
        generator.integers(n_levels, size=n_rows) * 1.0,
    ):
        ranks = log_rank(training, training_quantiles(training))
        expected = empirical_log_rank(training, training)
        np.testing.assert_allclose(ranks, expected, rtol=0, atol=1e-9)


def test_quantiles_are_bounded_and_close_to_the_distribution_of_many_scores():
    training = np.random.default_rng(0).standard_gamma(2.0, size=200_000)
    quantiles = training_quantiles(training)
    assert len(quantiles) == 1000
    scores = np.quantile(training, np.linspace(0.001, 0.999, 50))
    ranks = np.exp(log_rank(scores, quantiles))
    # Between two of 1,000 quantiles the share is interpolated: off by less than a thousandth.
    np.testing.assert_allclose(ranks, np.linspace(0.001, 0.999, 50), atol=1e-3)


@pytest.mark.parametrize("n_rows", [1, 2, 3, 10, 999, 1000, 5000])
@pytest.mark.parametrize("kind", ["normal", "discrete", "constant", "heavy"])
def test_log_rank_never_saturates(n_rows, kind):
    """Strictly increasing from far below the training scores to above them."""
    generator = np.random.default_rng(n_rows)
    training = {
        "normal": generator.normal(size=n_rows),
        "discrete": generator.integers(3, size=n_rows) * 1.0,
        "constant": np.full(n_rows, 7.0),
        "heavy": generator.standard_cauchy(size=n_rows),
    }[kind]
    spread = max(training.std(), 1.0)
    low, high = training.min() - 1000 * spread, training.max() + spread
    ranks = log_rank(np.linspace(low, high, 2001), training_quantiles(training))
    assert np.isfinite(ranks).all()
    assert (np.diff(ranks) > 0).all()
    assert ranks[-1] < 0
    assert log_rank(np.array([-np.inf]), training_quantiles(training))[0] == -np.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["constant", "discrete"])
def test_log_rank_does_not_magnify_rounding(dtype, kind):
    """Rows that are equal up to rounding have ranks that are equal up to rounding."""
    generator = np.random.default_rng(0)
    exact = {"constant": np.full(50, -7.0), "discrete": -7.0 - generator.integers(3, size=50)}[kind]
    eps = np.finfo(dtype).eps

    def rounded():
        return (exact * (1 + 5 * eps * generator.uniform(-1, 1, size=50))).astype(dtype)

    quantiles = training_quantiles(rounded())
    ranks = log_rank(rounded().astype(np.float64), quantiles)
    # A score moves by 5 eps * 9, less than a hundredth of the 1 to the next, across which the share
    # rises at most by a factor of 10: the log moves by 450 eps, and the stored scores do so too.
    expected = empirical_log_rank(exact, exact)
    np.testing.assert_allclose(ranks, expected, rtol=0, atol=900 * eps)


def test_log_rank_continues_an_exponential_tail():
    """Beyond the data, the surprise about scores with exponential tails is the true one."""
    training = np.random.default_rng(0).laplace(size=100_000)
    quantiles = training_quantiles(training)
    far = np.array([-8.0, -12.0, -20.0, -40.0])
    # P(s < t) = exp(t) / 2 for t < 0; the slope is estimated from 10,000 excesses, to 1 per cent,
    # and the last of 1,000 quantiles is known to about 15 per cent.
    np.testing.assert_allclose(log_rank(far, quantiles), far - np.log(2), rtol=0.04)


def test_the_ensemble_is_the_mean_of_the_two_greatest_surprises():
    X, new = make_rows(), np.vstack([make_rows(50, seed=1), 3 * make_rows(50, seed=2)])
    detector = EnergyOutlierDetector(ENSEMBLE).fit(X)
    surprises = []
    for _, member in ENSEMBLE:
        training = clone(member).fit(X).score_samples(X)
        scores = clone(member).fit(X).score_samples(new)
        surprises.append(log_rank(scores, np.sort(training)))
    first, second, third = np.sort(surprises, axis=0)
    assert (second < third).all()
    expected = (first + second) / 2
    np.testing.assert_allclose(detector.score_samples(new), expected, rtol=1e-12)
    assert detector.score_samples(new).max() < 0


class Rescaled(BaseEstimator):
    """An increasing function of another estimator's scores."""

    def __init__(self, estimator, factor):
        self.estimator = estimator
        self.factor = factor

    def fit(self, X, y=None):
        self.estimator_ = clone(self.estimator).fit(X)
        return self

    def score_samples(self, X):
        return self.factor * self.estimator_.score_samples(X) + 17


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_the_units_of_a_member_do_not_matter(factor):
    X, new = make_rows(), np.vstack([make_rows(50, seed=1), 3 * make_rows(50, seed=2)])
    scaled = [(name, Rescaled(member, factor)) for name, member in ENSEMBLE]
    np.testing.assert_allclose(
        EnergyOutlierDetector(scaled).fit(X).score_samples(new),
        EnergyOutlierDetector(ENSEMBLE).fit(X).score_samples(new),
        rtol=1e-6,
    )


def test_order_and_names_of_members_do_not_matter():
    X, new = make_rows(), make_rows(seed=1)
    renamed = [("x" + name, member) for name, member in reversed(ENSEMBLE)]
    np.testing.assert_allclose(
        EnergyOutlierDetector(renamed).fit(X).score_samples(new),
        EnergyOutlierDetector(ENSEMBLE).fit(X).score_samples(new),
        rtol=1e-12,
    )


def test_what_is_stored_is_bounded_and_no_row_of_x():
    X = np.random.default_rng(0).normal(size=(5000, 7))
    detector = EnergyOutlierDetector([("a", PCAWhitener()), ("b", EnergyKMeans(1))]).fit(X)
    assert detector.training_quantiles_.shape == (2, 1000)
    assert len(pickle.dumps(detector)) < 8 * 5000 * 7


# ---------------------------------------------------------------- the default


def test_the_default_finds_each_kind_of_outlier():
    """A broken correlation, a far value of one feature, and a point between clusters."""
    generator = np.random.default_rng(0)
    pair = generator.normal(size=(600, 1)) @ [[1.0, 1.0]] + 0.1 * generator.normal(size=(600, 2))
    X = np.hstack([pair, generator.normal(size=(600, 1))])
    detector = EnergyOutlierDetector().fit(X)
    found = detector.predict([[1.5, -1.5, 0], [0, 0, 8], [1.0, 1.0, 0.5]])
    np.testing.assert_array_equal(found, [-1, -1, 1])
    corners = generator.choice([-1.0, 1.0], size=(600, 4))
    detector = EnergyOutlierDetector().fit(corners + 0.05 * generator.normal(size=(600, 4)))
    np.testing.assert_array_equal(detector.predict([[0.0] * 4, [1.0, 1, -1, 1]]), [-1, 1])


def test_a_group_of_outliers_in_training_does_not_hide():
    """The group is a component of the mixture, but no part of the core."""
    generator = np.random.default_rng(0)
    inliers = generator.normal(size=(400, 5))
    group = 3 + 0.5 * generator.normal(size=(60, 5))
    X, y = np.vstack([inliers, group]), np.repeat([0, 1], [400, 60])
    detector = EnergyOutlierDetector().fit(X)
    view = (X - detector.location_) / detector.scale_
    scores = {
        name: m.score_samples(view)
        for name, m in detector.named_estimators_.items()
        if name != "marginals"
    }
    assert roc_auc_score(y, -scores["mixture"]) < 0.5  # the group is one of its components
    assert roc_auc_score(y, -scores["core"]) == 1.0
    assert roc_auc_score(y, -detector.score_samples(X)) > 0.9


def test_few_rows_of_many_features_do_not_make_new_rows_outliers():
    """A mixture that fitted its own rows closely would be surprised by any other."""
    alarms, found = [], []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        mixing = generator.normal(size=(13, 13)) / np.sqrt(13)
        inliers = generator.standard_t(8, size=(283, 13)) @ mixing
        group = (2.5 + 0.5 * generator.normal(size=(57, 13))) @ mixing
        detector = EnergyOutlierDetector(contamination=0.05)
        detector.fit(np.vstack([inliers[:83], group[:7]]))
        new, y = np.vstack([inliers[83:], group[7:]]), np.repeat([0, 1], [200, 50])
        alarms.append((detector.predict(inliers[83:]) == -1).mean())
        found.append(roc_auc_score(y, -detector.score_samples(new)))
    # The 5 % quantile of 90 scores has a share of 0.05 +- (0.05 * 0.95 / 90) ** 0.5 = 0.023, the
    # mean of four 0.012. With 2 rows per feature and Gaussian, the means are 0.22 and 0.79.
    assert np.mean(alarms) < 0.1
    assert np.mean(found) > 0.88


def test_the_core_is_where_a_gaussian_is_narrow():
    """Concentration steps lower the determinant of the covariance until nothing moves."""
    X = torch.from_numpy(np.random.default_rng(0).standard_t(2, size=(300, 4)))
    core = central_rows(X)
    assert core.shape == (225, 4)
    nearest = X[X.square().sum(dim=1).argsort()[:225]]
    assert np.linalg.det(np.cov(core.T)) <= np.linalg.det(np.cov(nearest.T))
    again = central_rows(core[:, :1])
    assert again.shape == (168, 1)
    assert central_rows(X[:3]).shape == (3, 4)


def test_the_default_does_not_depend_on_the_units_of_features():
    X, new = make_rows(), make_rows(seed=1)
    units, origin = np.array([1e-6, 1, 1e6, 3, 1e3, 1e-3]), np.array([0, 1, -1e6, 5, 2, 0])
    np.testing.assert_allclose(
        EnergyOutlierDetector().fit(X * units + origin).score_samples(new * units + origin),
        EnergyOutlierDetector().fit(X).score_samples(new),
        rtol=1e-6,
    )


def test_the_default_takes_constant_duplicated_and_binary_features():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(50, 3))
    rare = (np.arange(50) % 10 == 0)[:, None]
    X = np.hstack([X, X[:, :1], np.full((50, 1), 1e8 + 0.1), rare])
    detector = EnergyOutlierDetector().fit(X)
    assert np.isfinite(detector.score_samples(X)).all()
    assert detector.scale_[4] == 1.0
    assert detector.scale_[5] == pytest.approx(X[:, 5].std())
    moved = X[:1].copy()
    moved[0, 4] += 1
    assert detector.score_samples(moved) < detector.score_samples(X).min()


def test_the_default_takes_few_equal_and_many_rows():
    with pytest.warns(UserWarning, match="all training rows the same score") as caught:
        equal = EnergyOutlierDetector().fit(np.ones((2, 2)))
    assert len(caught) == len(equal.named_estimators_) == 4
    assert all(item.filename == __file__ for item in caught)
    assert equal.predict([[5.0, 5.0]]) == [-1]
    few = EnergyOutlierDetector().fit(make_rows(3))
    assert np.isfinite(few.score_samples(make_rows(9, seed=1))).all()
    with pytest.raises(ValueError, match="minimum of 2 is required by EnergyOutlierDetector"):
        EnergyOutlierDetector().fit(make_rows(1))
    X = np.random.default_rng(0).normal(size=(101_000, 1))  # more than are fitted
    detector = EnergyOutlierDetector().fit(X)
    np.testing.assert_allclose(detector.scale_, 1.349, atol=0.02)  # of a standard normal


def test_a_range_that_overflows_is_refused():
    X = np.array([[1e308, 0.0], [-1e308, 1.0], [1e308, 2.0], [-1e308, 3.0]])
    with pytest.raises(FloatingPointError, match="feature 0 overflows"):
        EnergyOutlierDetector().fit(X)


def test_the_default_beats_isolation_forest_on_public_tables(data_dir):
    """Mean AUROC over twelve tables with contaminated training rows, standard settings."""
    ours, forest = [], []
    for path in sorted((data_dir / "adbench_dev").glob("*.npz")):
        with np.load(path) as table:
            X, y = table["X"].astype(float), table["y"]
        order = np.random.RandomState(0).permutation(len(X))
        train, test = np.split(order, [int(0.7 * len(X))])
        for model, values in (
            (EnergyOutlierDetector(), ours),
            (IsolationForest(random_state=0), forest),
        ):
            scores = model.fit(X[train]).score_samples(X[test])
            values.append(roc_auc_score(y[test], -scores))
    assert len(ours) == 12
    assert np.mean(ours) > np.mean(forest)


def test_members_with_whole_numbers_as_scores_are_ranked():
    class Votes(BaseEstimator):
        def fit(self, X, y=None):
            return self

        def score_samples(self, X):
            return np.round(10 * X[:, 0]).astype(np.int64)

    X = make_rows(200)
    detector = EnergyOutlierDetector([("one", Votes()), ("other", Votes())]).fit(X)
    assert len(np.unique(detector.score_samples(X))) == len(np.unique(np.round(10 * X[:, 0])))
