"""Calibrated answers: conformal p-values, the false discovery rate, and the trimmed fit."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

import sklebm
from sklebm import EnergyKMeans, EnergyOutlierDetector, PCAWhitener
from sklebm.outliers._conformal import benjamini_hochberg, conformal_p_values
from sklebm.outliers._surprise import after_lowest
from tests.registry import make_rows


class FirstFeature(BaseEstimator):
    """The score of a row is its first feature: exchangeability alone is tested."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def score_samples(self, X):
        return X[:, 0]


def calibrated(X, **changes):
    return EnergyOutlierDetector(**{"calibration": 0.25, "random_state": 0, **changes}).fit(X)


# ---------------------------------------------------------------- p-values


def test_p_values_count_the_calibration_rows_that_score_as_low():
    calibration = np.array([-3.0, -1.0, -1.0, 0.0, 2.0])
    scores = np.array([-4.0, -3.0, -2.0, -1.0, 5.0])
    expected = [(1 + (calibration <= score).sum()) / 6 for score in scores]
    np.testing.assert_array_equal(conformal_p_values(scores, calibration), expected)


def test_false_alarms_are_as_rare_as_promised_over_splits():
    """a - 1/(n + 1) < P(p <= a) <= a, each split with its own calibration rows."""
    generator = np.random.default_rng(0)
    n_splits, n_rows, n_new = 1000, 250, 20
    alphas = np.array([0.01, 0.05, 0.1])
    rates = np.empty((n_splits, len(alphas)))
    for split in range(n_splits):
        X = generator.normal(size=(n_rows + n_new, 1))
        detector = calibrated(X[:n_rows], estimator=FirstFeature(), calibration=0.4)
        rates[split] = (detector.p_values(X[n_rows:])[:, None] <= alphas).mean(axis=0)
    n_calibration = len(detector.calibration_scores_)
    assert n_calibration == 100
    error = 4 * rates.std(axis=0) / np.sqrt(n_splits)
    assert (alphas - 1 / (n_calibration + 1) - error < rates.mean(axis=0)).all()
    assert (rates.mean(axis=0) <= alphas + error).all()


def test_p_values_are_valid_however_closely_the_estimator_fits_its_rows():
    """In few rows of many features training scores flatter; p-values must not."""
    generator = np.random.default_rng(1)
    rates, naive = [], []
    for _ in range(60):
        X = generator.normal(size=(160, 25))
        new = generator.normal(size=(100, 25))
        detector = calibrated(X, estimator=PCAWhitener(), contamination=0.1, calibration=0.5)
        rates.append((detector.predict(new, alpha=0.1) == -1).mean())
        overfit = EnergyOutlierDetector(PCAWhitener(), contamination=0.1).fit(X[:80])
        naive.append((overfit.predict(new) == -1).mean())
    assert np.mean(naive) > 0.3
    error = 4 * np.std(rates) / np.sqrt(len(rates))
    assert 0.1 - 1 / 81 - error < np.mean(rates) < 0.1 + error


def test_the_default_is_calibrated():
    X, new = make_rows(1200), make_rows(8000, seed=1)
    detector = calibrated(X, calibration=0.75)
    assert detector.p_values(new).min() >= 1 / 901
    # Four standard errors of a share of .1, in 900 rows and in 8000.
    error = 4 * np.sqrt(0.1 * 0.9 * (1 / 900 + 1 / 8000))
    assert (detector.p_values(new) <= 0.1).mean() == pytest.approx(0.1, abs=error)
    assert (detector.predict(np.full((3, 6), 7.0), alpha=0.01) == -1).all()


def test_a_p_value_depends_on_its_row_alone():
    detector, new = calibrated(make_rows()), make_rows(seed=1)
    alone = [float(detector.p_values(new[i : i + 1])[0]) for i in range(10)]
    np.testing.assert_array_equal(alone, detector.p_values(new)[:10])


def test_the_rows_held_out_are_not_fitted():
    X = make_rows(200)
    detector = calibrated(X, estimator=PCAWhitener())
    held_out = np.isin(detector.score_samples(X), detector.calibration_scores_)
    assert held_out.sum() == 50 == len(detector.calibration_scores_)
    np.testing.assert_allclose(detector.estimator_.mean_, X[~held_out].mean(axis=0), atol=1e-12)
    # The threshold is still a percentile of the scores of all rows.
    expected = np.percentile(detector.score_samples(X), 0.5)
    assert detector.offset_ == pytest.approx(expected, rel=1e-12)


def test_the_split_is_drawn_from_random_state():
    X = make_rows()
    same, again, other = (calibrated(X, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(same.calibration_scores_, again.calibration_scores_)
    assert not np.array_equal(same.calibration_scores_, other.calibration_scores_)


# ---------------------------------------------------------------- false discovery rate


def test_benjamini_hochberg_against_the_definition():
    generator = np.random.default_rng(0)
    for _ in range(200):
        p_values = generator.integers(1, 40, size=12) / 40
        ascending = np.sort(p_values)
        passed = [k for k in range(1, 13) if ascending[k - 1] * 12 <= 0.3 * k]
        expected = p_values <= ascending[passed[-1] - 1] if passed else np.zeros(12, dtype=bool)
        np.testing.assert_array_equal(benjamini_hochberg(p_values, 0.3), expected)


def test_the_false_discovery_rate_is_controlled_and_outliers_are_found():
    generator = np.random.default_rng(0)
    proportions, power = [], []
    for _ in range(400):
        X = generator.normal(size=(500, 1))
        inliers, outliers = generator.normal(size=(90, 1)), generator.normal(-4, 1, size=(10, 1))
        detector = calibrated(X, estimator=FirstFeature(), calibration=0.9)
        found = detector.predict_fdr(np.vstack([inliers, outliers]), fdr=0.2) == -1
        proportions.append(found[:90].sum() / max(found.sum(), 1))
        power.append(found[90:].mean())
    # Benjamini and Hochberg control the rate at fdr times the share of inliers, here 0.18.
    assert np.mean(proportions) < 0.18 + 4 * np.std(proportions) / np.sqrt(400)
    assert np.mean(power) > 0.6


def test_without_outliers_nothing_is_found_most_of_the_time():
    generator = np.random.default_rng(2)
    false = 0
    for _ in range(400):
        detector = calibrated(generator.normal(size=(300, 1)), estimator=FirstFeature())
        false += (detector.predict_fdr(generator.normal(size=(10, 1)), fdr=0.1) == -1).any()
    assert false / 400 < 0.1 + 4 * np.sqrt(0.1 * 0.9 / 400)


# ---------------------------------------------------------------- interface


def test_levels_that_no_p_value_reaches_are_refused():
    detector = calibrated(make_rows(100))
    X = make_rows(5)
    assert len(detector.calibration_scores_) == 25
    for call in (lambda: detector.predict(X, alpha=0.03), lambda: detector.predict_fdr(X, 0.03)):
        with pytest.raises(ValueError, match=r"=0.03 is below 0.0385, .* at least 33 rows"):
            call()
    assert set(detector.predict(X, alpha=1 / 26)) <= {-1, 1}
    for level in (0, 1, -0.1, "small", float("nan"), True):
        with pytest.raises(ValueError, match="must be a number between 0 and 1"):
            detector.predict(X, alpha=level)


def test_without_calibration_the_way_out_is_named():
    X = make_rows()
    detector = EnergyOutlierDetector().fit(X)
    for call in (
        lambda: detector.p_values(X),
        lambda: detector.predict(X, alpha=0.1),
        lambda: detector.predict_fdr(X),
    ):
        with pytest.raises(ValueError, match=r"set calibration=0\.2, for example, and fit again"):
            call()


@pytest.mark.parametrize("calibration", [0, 1, -0.5, "all"])
def test_bad_shares_are_refused(calibration):
    with pytest.raises(ValueError, match="'calibration' parameter"):
        EnergyOutlierDetector(calibration=calibration).fit(make_rows())
    with pytest.raises(ValueError, match="'trim' parameter"):
        EnergyOutlierDetector(trim=0.6).fit(make_rows())
    with pytest.raises(ValueError, match="leaves 1 to fit"):
        EnergyOutlierDetector(calibration=0.5).fit(make_rows(2))


def test_tensors_and_frames():
    X, new = make_rows(), make_rows(30, seed=1)
    expected = calibrated(X)
    tensors = calibrated(torch.from_numpy(X))
    frames = calibrated(pd.DataFrame(X, columns=list("abcdef")))
    p_values = tensors.p_values(torch.from_numpy(new))
    assert isinstance(p_values, torch.Tensor)
    assert isinstance(tensors.predict(torch.from_numpy(new), alpha=0.1), torch.Tensor)
    assert isinstance(tensors.predict_fdr(torch.from_numpy(new), 0.1), torch.Tensor)
    np.testing.assert_array_equal(p_values.numpy(), expected.p_values(new))
    table = pd.DataFrame(new, columns=list("abcdef"))
    np.testing.assert_array_equal(frames.p_values(table), expected.p_values(new))


def test_calibration_survives_saving(tmp_path):
    X = make_rows()
    detector = calibrated(X)
    sklebm.save(detector, tmp_path / "detector.safetensors")
    loaded = sklebm.load(tmp_path / "detector.safetensors")
    np.testing.assert_array_equal(loaded.p_values(X), detector.p_values(X))
    detector.calibration_scores_ = detector.calibration_scores_[::-1].copy()
    with pytest.raises(ValueError, match="calibration_scores_ must ascend"):
        sklebm.save(detector, tmp_path / "detector.safetensors")


# ---------------------------------------------------------------- trimmed fit


def test_a_trimmed_fit_leaves_out_the_least_typical_rows():
    X = make_rows(200)
    first = EnergyOutlierDetector(PCAWhitener()).fit(X)
    kept = np.sort(np.argsort(first.score_samples(X), kind="stable")[20:])
    second = EnergyOutlierDetector(PCAWhitener(), trim=0.1).fit(X)
    np.testing.assert_allclose(second.estimator_.mean_, X[kept].mean(axis=0), rtol=1e-12)
    # The threshold still counts all rows.
    assert second.offset_ == pytest.approx(np.percentile(second.score_samples(X), 0.5), rel=1e-12)


def test_a_trimmed_fit_leaves_out_weight_as_it_leaves_out_copies():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(60, 3)) * [3.0, 1.0, 0.2]
    X[:4] += 8.0
    weights = generator.integers(0, 5, size=60).astype(float)
    copies = EnergyOutlierDetector(PCAWhitener(), trim=0.1).fit(
        X.repeat(weights.astype(int), axis=0)
    )
    weighted = EnergyOutlierDetector(PCAWhitener(), trim=0.1).fit(X, sample_weight=weights)
    np.testing.assert_allclose(weighted.score_samples(X), copies.score_samples(X), rtol=1e-9)


def test_rows_without_weight_take_no_part_in_trimming():
    X = np.random.default_rng(0).normal(size=(100, 2))
    X[:20] += 50.0
    weights = np.r_[np.zeros(20), np.ones(80)]
    alone = EnergyOutlierDetector(PCAWhitener(), trim=0.2).fit(X[20:])
    beside = EnergyOutlierDetector(PCAWhitener(), trim=0.2).fit(X, sample_weight=weights)
    np.testing.assert_allclose(beside.score_samples(X), alone.score_samples(X), rtol=1e-9)


def test_scaled_weights_are_trimmed_alike_and_two_rows_remain():
    scores = np.array([3.0, 1.0, 2.0, 0.0])
    for size in (1.0, 1e-4):
        rows, weights = after_lowest(scores, 0.5, np.full(4, size))
        np.testing.assert_array_equal(rows, [0, 2])
        np.testing.assert_allclose(weights, size)
    rows, weights = after_lowest(scores, 0.5, np.array([1.0, 9.0, 1.0, 9.0]))
    np.testing.assert_array_equal(rows, [0, 1, 2])  # one of the copies of row 1 is left out
    np.testing.assert_allclose(weights, [1.0, 8.0, 1.0])
    rows, _ = after_lowest(scores, 0.5, np.array([1.0, 0.0, 1.0, 0.0]))
    np.testing.assert_array_equal(rows, [0, 2])


def test_a_trimmed_fit_unmasks_a_cluster_of_outliers():
    """Outliers that bend the covariance hide behind it."""
    generator = np.random.default_rng(0)
    inliers = generator.normal(size=(300, 6))
    outliers = 3 + generator.normal(size=(30, 6))
    X, y = np.vstack([inliers, outliers]), np.repeat([0, 1], [300, 30])
    auroc = [
        roc_auc_score(y, -EnergyOutlierDetector(PCAWhitener(), trim=trim).fit(X).score_samples(X))
        for trim in (0, 0.1)
    ]
    assert auroc[0] < 0.96
    assert auroc[1] > 0.98


def test_trimmed_fits_of_lists_and_the_default():
    X = make_rows()
    members = [("gaussian", PCAWhitener()), ("forest", IsolationForest(random_state=0))]
    for estimator in ("auto", members):
        scores = EnergyOutlierDetector(estimator, trim=0.2).fit(X).score_samples(X)
        assert np.isfinite(scores).all()
    few = EnergyOutlierDetector(EnergyKMeans(1), trim=0.5).fit(make_rows(5))
    assert few.estimator_.cluster_counts_.sum() == 3
