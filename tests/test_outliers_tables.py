"""Tables with categories, many rows, training labels and p-values as probabilities."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import OneHotEncoder

import sklebm
from sklebm import EnergyKMeans, EnergyOutlierDetector, PCAWhitener
from sklebm.outliers._default import drawn_rows
from sklebm.outliers._surprise import percentile
from sklebm.outliers._views import make_view, one_hot_blocks
from tests.registry import make_rows


def mixed_rows(n, seed=0):
    generator = np.random.default_rng(seed)
    kinds = generator.choice(5, size=n, p=[0.4, 0.3, 0.2, 0.09, 0.01])
    return np.hstack([generator.normal(size=(n, 2)), np.eye(5)[kinds]]), kinds


# ---------------------------------------------------------------- categories


def test_one_hot_blocks_are_found_and_nothing_else():
    generator = np.random.default_rng(0)
    first, second = (np.eye(k)[generator.integers(k, size=200)] for k in (3, 2))
    number, flag = generator.normal(size=(200, 1)), generator.integers(2, size=(200, 1)) * 1.0
    X = np.hstack([number, first, second, flag, number, np.ones((200, 1))])
    np.testing.assert_array_equal(one_hot_blocks(X), [[1, 4], [4, 6]])
    X[5, 1:4] = 0.0  # a row without a category: the columns are no block
    np.testing.assert_array_equal(one_hot_blocks(X), [[4, 6]])
    assert one_hot_blocks(make_rows()).shape == (0, 2)


def test_a_block_has_the_variance_of_one_feature_and_counts_once():
    X, kinds = mixed_rows(4000)
    view = make_view(X)
    together = view.see("together", torch.from_numpy(X)).numpy()
    block, numbers = together[:, 2:].var(axis=0).sum(), together[:, 0].var()
    assert block == pytest.approx(1 / 1.349**2, rel=1e-6)
    assert block == pytest.approx(numbers, rel=0.1)  # the range of 4,000 normal values
    alone = view.see("alone", torch.from_numpy(X)).numpy()[:, 2:]
    assert (np.count_nonzero(alone, axis=1) <= 1).all()
    by_kind = [alone[kinds == kind][0].max() for kind in range(5)]
    # The commonest category is no surprise at all; the root of a rounding error is 1e-8.
    assert by_kind[0] == pytest.approx(0.0, abs=1e-7)
    assert (np.diff(by_kind) > 0).all()


def test_a_category_with_many_values_does_not_outvote_the_numbers():
    """A category of 60 values that tells nothing, as one variable and as 60."""
    generator = np.random.default_rng(0)
    inliers, outliers = generator.normal(size=(1500, 3)), generator.normal(size=(100, 3))
    inliers[:, 1] = inliers[:, 0] + 0.1 * inliers[:, 1]
    numbers, y = np.vstack([inliers, outliers]), np.repeat([0, 1], [1500, 100])
    X = np.hstack([numbers, np.eye(60)[generator.integers(60, size=len(y))]])
    apart = X[:1000].copy()
    apart[0, 3:] = 0.0  # a row without a category: the columns count one by one
    found = []
    for train in (X[:1000], apart):
        detector = EnergyOutlierDetector().fit(train)
        found.append(roc_auc_score(y[1000:], -detector.score_samples(X[1000:])))
    # An AUROC of 0.8 over 100 outliers has a standard error of 0.04, and the rows are the same.
    assert found[0] > found[1] + 0.05


def test_an_unseen_category_is_as_rare_as_the_rarest(tmp_path):
    X, kinds = mixed_rows(2000)
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(kinds[:, None])
    X[:, 2:] = encoder.transform(kinds[:, None])
    detector = EnergyOutlierDetector().fit(X)
    unseen = np.hstack([np.zeros((1, 2)), encoder.transform([[7]])])
    common = np.hstack([np.zeros((1, 2)), encoder.transform([[0]])])
    assert detector.score_samples(unseen) < detector.score_samples(common)
    sklebm.save(detector, tmp_path / "detector.safetensors")
    loaded = sklebm.load(tmp_path / "detector.safetensors")
    np.testing.assert_array_equal(loaded.score_samples(X), detector.score_samples(X))


# ---------------------------------------------------------------- many rows


def test_rows_are_drawn_evenly_by_weight():
    assert drawn_rows(10, 10) is None
    some = drawn_rows(100, 10)
    assert len(set(some)) == 10
    weights = np.array([0, 3, 1, 0, 2])
    np.testing.assert_array_equal(drawn_rows(5, 100, weights), [1, 1, 1, 2, 4, 4])
    np.testing.assert_array_equal(drawn_rows(3, 100, np.full(3, 0.2)), [0, 1, 2])
    many = drawn_rows(1000, 100, np.repeat([1.0, 3.0], 500))
    assert (many >= 500).sum() == 75


def test_a_sample_of_the_rows_stands_for_all():
    """Fitted to 10,000 of 60,000 rows, threshold from 30,000: the share called outliers holds."""
    X = np.random.default_rng(0).normal(size=(60_000, 2))
    detector = EnergyOutlierDetector(contamination=0.05).fit(X)
    assert not hasattr(detector, "training_scores_")
    with pytest.raises(AttributeError, match=r"call predict\(X\)"):
        _ = detector.labels_
    # A share of 0.05 estimated from 30,000 rows: 4 standard deviations, and the rows left out.
    error = 4 * np.sqrt(0.05 * 0.95 / 30_000)
    assert (detector.predict(X) == -1).mean() == pytest.approx(0.05, abs=error)


def test_a_weighted_percentile_is_that_of_copies():
    generator = np.random.default_rng(0)
    scores, weights = generator.normal(size=50), generator.integers(0, 4, size=50)
    for share in (0.0, 0.005, 0.1, 0.37, 0.5, 1.0):
        expected = np.percentile(np.repeat(scores, weights), 100 * share)
        assert percentile(scores, share, weights.astype(float)) == pytest.approx(expected)


@pytest.mark.parametrize("size", [1.0, 1e-3, 1 / 50])
def test_equal_weights_of_any_size_give_the_percentile_without_weights(size):
    scores = np.random.default_rng(0).normal(size=50)
    for share in (0.0, 0.1, 0.37, 1.0):
        found = percentile(scores, share, np.full(50, size))
        assert found == pytest.approx(np.percentile(scores, 100 * share))


def test_weights_that_sum_to_one_keep_the_threshold():
    X = make_rows(200)
    plain = EnergyOutlierDetector(KernelDensity(bandwidth=0.2), contamination=0.1).fit(X)
    weighted = clone(plain).fit(X, sample_weight=np.full(200, 1 / 200))
    assert weighted.offset_ == pytest.approx(plain.offset_)


# ---------------------------------------------------------------- labels and probabilities


@pytest.mark.parametrize("estimator", ["auto", EnergyKMeans(4, random_state=0)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_labels_and_scores_of_the_training_rows(estimator, dtype):
    X = make_rows(200).astype(dtype)
    detector = EnergyOutlierDetector(estimator, contamination=0.1)
    labels = detector.fit_predict(X)
    np.testing.assert_array_equal(detector.labels_, labels)
    np.testing.assert_array_equal(detector.training_scores_, detector.score_samples(X))
    assert (labels == -1).sum() == 20
    with pytest.raises(AttributeError, match="not fitted"):
        _ = EnergyOutlierDetector().labels_


def test_probabilities_are_p_values():
    X, new = make_rows(200), make_rows(30, seed=1)
    detector = EnergyOutlierDetector(PCAWhitener(), calibration=0.25, random_state=0).fit(X)
    probabilities, p_values = detector.predict_proba(new), detector.p_values(new)
    np.testing.assert_array_equal(probabilities, np.stack([1 - p_values, p_values], axis=1))
    on_tensors = detector.fit(torch.from_numpy(X)).predict_proba(torch.from_numpy(new))
    assert isinstance(on_tensors, torch.Tensor)
    np.testing.assert_allclose(on_tensors.numpy(), probabilities, atol=1e-12)
    assert not hasattr(EnergyOutlierDetector(), "predict_proba")
