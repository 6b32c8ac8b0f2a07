"""Metrics and tools for tuning detectors, against naive counts and scikit-learn."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_score,
)

from sklebm import EnergyKMeans, EnergyOutlierDetector, PCAWhitener
from sklebm.metrics import InlierTrainSplit, fpr_at_tpr, make_ood_scorer
from tests.registry import make_rows, shuffle_columns


def labelled_rows(n_inliers=120, n_outliers=30):
    X = np.vstack([make_rows(n_inliers), shuffle_columns(make_rows(n_outliers, seed=1))])
    return X, np.repeat([1, -1], [n_inliers, n_outliers])


# ---------------------------------------------------------------- fpr_at_tpr


def naive_fpr_at_tpr(y_true, scores, tpr):
    """Try every threshold and count."""
    positive = y_true == y_true.max()
    rates = []
    for threshold in scores:
        called = scores >= threshold
        if called[positive].mean() >= tpr:
            rates.append(called[~positive].mean())
    return min(rates)


labels_and_scores = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@given(labels_and_scores, st.integers(2, 60), st.integers(1, 12), st.floats(0.001, 1.0))
def test_fpr_at_tpr_counts_with_ties(generator, n_rows, n_levels, tpr):
    y = generator.integers(2, size=n_rows)
    y[:2] = 0, 1
    scores = generator.integers(n_levels, size=n_rows).astype(float)
    assert fpr_at_tpr(y, scores, tpr) == naive_fpr_at_tpr(y, scores, tpr)


@pytest.mark.parametrize("n_positive", [1, 7, 20, 100, 300, 1000])
def test_fpr_at_tpr_agrees_with_roc_curve_at_every_reachable_rate(n_positive):
    """Also where tpr * n is rounded above an integer, such as 0.07 * 100."""
    generator = np.random.default_rng(n_positive)
    y = np.repeat([1, 0], [n_positive, 50])
    scores = np.round(generator.normal(size=len(y)) + y, 1)
    fpr, tpr, _ = roc_curve(y, scores, drop_intermediate=False)
    for count in range(1, n_positive + 1):
        rate = count / n_positive
        assert fpr_at_tpr(y, scores, rate) == pytest.approx(fpr[tpr >= rate].min(), abs=1e-15)


def test_fpr_at_tpr_known_values():
    y = [1, 1, -1, -1]
    assert fpr_at_tpr(y, [4, 3, 2, 1]) == 0.0
    assert fpr_at_tpr(y, [1, 2, 3, 4]) == 1.0
    assert fpr_at_tpr(y, [0, 0, 0, 0]) == 1.0  # ties are never split
    assert fpr_at_tpr(y, [4, 2, 3, 1], tpr=0.5) == 0.0
    assert fpr_at_tpr(y, [np.inf, 2, 3, -np.inf]) == 0.5
    assert fpr_at_tpr(["b", "b", "a", "a"], [4, 1, 2, 0]) == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 1], [0.5, 0.6]), "two different labels.*holds 1"),
        (([0, 1, 2], [1, 2, 3]), "two different labels.*holds 3"),
        (([0, 1], [1, np.nan]), "NaN, first at position 1"),
        (([0, 1], [1, 2, 3]), "inconsistent numbers"),
        (([0, 1], [[1, 2], [3, 4]]), "1d array"),
        (([0, 1], [1, 2], 0), r"tpr=0 must be a rate in \(0, 1\]"),
        (([0, 1], [1, 2], 1.5), "tpr=1.5"),
        (([0, 1], [1, 2], "0.95"), "tpr='0.95'"),
    ],
)
def test_fpr_at_tpr_names_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fpr_at_tpr(*arguments)


# ---------------------------------------------------------------- make_ood_scorer


def test_scorer_is_the_metric_of_the_scores():
    X, y = labelled_rows()
    model = EnergyKMeans(4, random_state=0).fit(X[y == 1])
    scores = model.score_samples(X)
    assert make_ood_scorer()(model, X, y) == roc_auc_score(y, scores)
    expected = average_precision_score(y == -1, -scores)
    assert make_ood_scorer("average_precision")(model, X, y) == expected
    assert make_ood_scorer("fpr_at_95_tpr")(model, X, y) == -fpr_at_tpr(y, scores)


def test_scorer_adds_the_rows_of_x_ood():
    X, y = labelled_rows()
    model = EnergyKMeans(4, random_state=0).fit(X[y == 1])
    expected = make_ood_scorer()(model, X, y)
    assert make_ood_scorer(X_ood=X[y == -1])(model, X[y == 1]) == expected
    assert make_ood_scorer(X_ood=X[y == -1])(model, X[y == 1], y[y == 1]) == expected
    half = np.flatnonzero(y == -1)[::2]
    rest = np.setdiff1d(np.arange(len(X)), half)
    assert make_ood_scorer(X_ood=X[half])(model, X[rest], y[rest]) == expected


@pytest.mark.parametrize("kind", [torch.from_numpy, pd.DataFrame, np.ndarray.tolist])
def test_scorer_takes_every_container(kind):
    X, y = labelled_rows()
    model = EnergyKMeans(4, random_state=0).fit(X[y == 1])
    expected = make_ood_scorer(X_ood=X)(model, X, y)
    assert make_ood_scorer(X_ood=kind(X))(model, kind(X), pd.Series(y)) == expected


def test_scorer_with_classes_and_names_as_labels():
    X, y = labelled_rows()
    model = EnergyKMeans(4, random_state=0).fit(X[y == 1])
    expected = make_ood_scorer()(model, X, y)
    classes = np.where(y == 1, np.arange(len(y)) % 5, 9)
    assert make_ood_scorer(outlier_label=9)(model, X, classes) == expected
    names = np.where(y == 1, "cat", "noise")
    assert make_ood_scorer(outlier_label="noise")(model, X, names) == expected


def test_scorer_names_what_is_wrong():
    X, y = labelled_rows()
    model = EnergyKMeans(4, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"must be one of 'roc_auc'.*; got 'auc'\."):
        make_ood_scorer("auc")
    with pytest.raises(ValueError, match=r"no outlier among the rows.*X_ood"):
        make_ood_scorer()(model, X)
    with pytest.raises(ValueError, match=r"y contains -1 and 1 but no 'a': set outl.*, give X_ood"):
        make_ood_scorer(outlier_label="a")(model, X, y)
    with pytest.raises(ValueError, match="labels -1\\. Give X_ood, or stratify"):
        make_ood_scorer(outlier_label=np.int64(-1))(model, X, np.ones(len(X)))
    with pytest.raises(ValueError, match="no inlier"):
        make_ood_scorer()(model, X, -np.ones(len(X)))
    with pytest.raises(TypeError, match="KFold has no score_samples"):
        make_ood_scorer()(KFold(), X, y)


def test_scorer_pickles_clones_and_prints():
    X, y = labelled_rows()
    model = EnergyKMeans(4, random_state=0).fit(X)
    scorer = make_ood_scorer("average_precision", X_ood=X[:3], outlier_label="a")
    expected = "make_ood_scorer(metric='average_precision', X_ood=<3 rows>, outlier_label='a')"
    for twin in (scorer, pickle.loads(pickle.dumps(scorer)), clone(scorer, safe=False)):
        assert repr(twin) == expected
        assert twin(model, X, y) == scorer(model, X, y)


# ---------------------------------------------------------------- InlierTrainSplit


@pytest.mark.parametrize(
    "cv", [3, None, KFold(4), StratifiedKFold(3), ShuffleSplit(2, random_state=0)]
)
def test_training_folds_hold_no_outliers_and_test_folds_are_whole(cv):
    X, y = labelled_rows()
    splitter = InlierTrainSplit(cv)
    plain = cv if hasattr(cv, "split") else StratifiedKFold(5 if cv is None else cv)
    pairs = list(splitter.split(X, y))
    assert splitter.get_n_splits(X, y) == len(pairs) == plain.get_n_splits(X, y)
    for (train, test), (all_train, all_test) in zip(pairs, plain.split(X, y), strict=True):
        np.testing.assert_array_equal(test, all_test)
        np.testing.assert_array_equal(train, all_train[y[all_train] == 1])


def test_an_integer_gives_every_test_fold_its_share_of_outliers():
    X, y = labelled_rows()
    classes = np.where(y == 1, np.arange(len(y)) % 7, 99)
    for _, test in InlierTrainSplit(5, outlier_label=99).split(X, classes):
        assert (y[test] == -1).sum() == 6


def test_splits_that_are_given_can_be_used_again():
    X, y = labelled_rows()
    splitter = InlierTrainSplit(pair for pair in KFold(3).split(X))
    first = [train.tolist() for train, _ in splitter.split(X, y)]
    assert first == [train.tolist() for train, _ in splitter.split(X, y)]
    assert splitter.get_n_splits(X, y) == 3
    lists = InlierTrainSplit([([0, 1, 149], [2, 148])])
    assert [train.tolist() for train, _ in lists.split(X, y)] == [[0, 1]]


def test_splitter_names_what_is_wrong():
    X, _ = labelled_rows()
    with pytest.raises(ValueError, match="needs y, with outliers labelled -1"):
        list(InlierTrainSplit().split(X))
    rows = np.arange(len(X))
    for y, seen in (
        (rows % 2, "0 and 1"),
        (np.where(rows % 3, "ok", "bad"), "'bad' and 'ok'"),
        (np.array([0, 1, "bad"], dtype=object)[rows % 3], "0, 1 and 'bad'"),
        (rows % 9, "0, 1, 2, 3, 4 and 4 more"),
    ):
        with pytest.warns(UserWarning, match=f"^y contains {seen} but no -1, so every row counts"):
            list(InlierTrainSplit(3).split(X, y))
    with pytest.raises(ValueError, match="outliers only"):
        list(InlierTrainSplit().split(X, -np.ones(len(X))))


def test_classes_that_are_all_inliers_are_split_with_a_warning():
    X, y = labelled_rows()
    classes, inliers = np.arange(120) % 3, X[y == 1]
    options = {"scoring": make_ood_scorer(X_ood=X[y == -1]), "cv": InlierTrainSplit(3)}
    with pytest.warns(UserWarning, match=r"0, 1 and 2 but no -1,.* set outlier_label to their"):
        scores = cross_val_score(PCAWhitener(), inliers, classes, **options)
    assert scores.tolist() == cross_val_score(PCAWhitener(), inliers, y[y == 1], **options).tolist()


def test_labels_are_named_without_types_and_missing_ones_left_out():
    X, _ = labelled_rows()
    y = np.tile([np.int64(1), np.nan, None, np.str_("a"), np.nan], 30).astype(object)
    with pytest.warns(UserWarning, match="^y contains 1 and 'a' but no -1, so"):
        list(InlierTrainSplit(3, outlier_label=np.int64(-1)).split(X, y))


def test_rows_that_are_all_inliers_are_split_like_any():
    X, _ = labelled_rows()
    pairs = list(InlierTrainSplit(3).split(X, np.ones(len(X))))
    assert [len(train) + len(test) for train, test in pairs] == [len(X)] * 3


def test_splitter_pickles_clones_and_prints():
    X, y = labelled_rows()
    splitter = InlierTrainSplit(3, outlier_label=-1)
    assert repr(splitter) == "InlierTrainSplit(cv=3, outlier_label=-1)"
    expected = [train.tolist() for train, _ in splitter.split(X, y)]
    for twin in (pickle.loads(pickle.dumps(splitter)), clone(splitter, safe=False)):
        assert [train.tolist() for train, _ in twin.split(X, y)] == expected


# ---------------------------------------------------------------- together


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_tunes_by_known_outliers(routing, n_jobs):
    X, y = labelled_rows(200, 60)
    with sklearn.config_context(enable_metadata_routing=routing):
        search = GridSearchCV(
            EnergyKMeans(random_state=0),
            {"n_clusters": [1, 4]},
            scoring=make_ood_scorer(),
            cv=InlierTrainSplit(4),
            refit=False,
            n_jobs=n_jobs,
        ).fit(X, y)
    assert search.best_params_ == {"n_clusters": 4}
    # By hand: inliers of the training fold against everything in the test fold.
    scores = []
    for train, test in StratifiedKFold(4).split(X, y):
        model = EnergyKMeans(4, random_state=0).fit(X[train][y[train] == 1])
        scores.append(roc_auc_score(y[test], model.score_samples(X[test])))
    assert search.best_score_ == pytest.approx(np.mean(scores), rel=1e-12)


@pytest.mark.parametrize("detector", [EnergyOutlierDetector(), IsolationForest(random_state=0)])
def test_detectors_are_scored_alike(detector):
    X, y = labelled_rows()
    splits, outliers = InlierTrainSplit(3), shuffle_columns(make_rows(50, seed=2))
    for metric in ("roc_auc", "average_precision", "fpr_at_95_tpr"):
        scorer = make_ood_scorer(metric, X_ood=outliers)
        values = cross_val_score(detector, X, y, scoring=scorer, cv=splits)
        assert ((values >= -1) & (values <= 1)).all()
