"""EnergyOutlierDetector as a meta-estimator: containers, parameters, errors, callbacks, files."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.base import BaseEstimator
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import sklebm
from sklebm import (
    EnergyKMeans,
    EnergyOutlierDetector,
    NeighbourEnergy,
    PCAWhitener,
    ZCAWhitener,
)
from sklebm.metrics import make_ood_scorer
from tests.registry import fitted_state, freeze, make_rows, shuffle_columns
from tests.test_outliers import ENSEMBLE, each

# ---------------------------------------------------------------- containers


@pytest.mark.parametrize(
    "estimator", ["auto", PCAWhitener(), [("a", PCAWhitener()), ("b", PCAWhitener(1))]]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_come_back_as_tensors(estimator, dtype):
    X, new = make_rows(), make_rows(9, seed=1)
    detector = EnergyOutlierDetector(estimator).fit(torch.from_numpy(X).to(dtype))
    scores = detector.score_samples(torch.from_numpy(new).to(dtype))
    assert scores.dtype == dtype
    labels = detector.predict(torch.from_numpy(new).to(dtype))
    assert isinstance(labels, torch.Tensor)
    expected = EnergyOutlierDetector(estimator).fit(X).score_samples(new)
    tolerance = 1e-3 if dtype is torch.float32 else 1e-10
    np.testing.assert_allclose(scores.numpy(), expected, rtol=tolerance, atol=tolerance)


@each
def test_frames_keep_their_names(estimator):
    if isinstance(estimator, list):
        estimator = [item for item in estimator if item[0] != "forest"]
    frame = pd.DataFrame(make_rows(), columns=list("abcdef"))
    detector = EnergyOutlierDetector(estimator).fit(frame)
    assert list(detector.feature_names_in_) == list("abcdef")
    assert detector.n_features_in_ == 6
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*EnergyOutlierDetector was fitted")
        scores = detector.score_samples(frame)
    with pytest.raises(ValueError, match="feature names"):
        detector.score_samples(frame[list("bacdef")])
    with pytest.raises(ValueError, match="features"):
        detector.score_samples(make_rows()[:, :5])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        np.testing.assert_array_equal(detector.score_samples(make_rows()), scores)


def test_sparse_rows_go_to_estimators_that_take_them():
    X = scipy.sparse.random(200, 10, 0.3, format="csr", random_state=0)
    detector = EnergyOutlierDetector(IsolationForest(n_estimators=20, random_state=0)).fit(X)
    assert detector.predict(X).shape == (200,)
    assert detector.__sklearn_tags__().input_tags.sparse
    assert not EnergyOutlierDetector(NeighbourEnergy()).__sklearn_tags__().input_tags.sparse
    with pytest.raises(TypeError, match=r"(?i)sparse data"):
        EnergyOutlierDetector(NeighbourEnergy()).fit(X)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_the_default_takes_sparse_rows(kind):
    """The same numbers as for the same rows stored densely."""
    X = scipy.sparse.random(200, 10, 0.3, format=kind, random_state=0)
    dense = EnergyOutlierDetector(calibration=0.2, random_state=0).fit(X.toarray())
    sparse = EnergyOutlierDetector(calibration=0.2, random_state=0).fit(X)
    np.testing.assert_array_equal(sparse.score_samples(X), dense.score_samples(X.toarray()))
    np.testing.assert_array_equal(sparse.p_values(X), dense.p_values(X.toarray()))


# ---------------------------------------------------------------- a meta-estimator


def test_parameters_of_members_can_be_set_by_name():
    detector = EnergyOutlierDetector([("a", PCAWhitener()), ("b", EnergyKMeans())])
    assert detector.get_params()["b__n_clusters"] == 8
    assert "b" not in detector.get_params(deep=False)
    detector.set_params(b__n_clusters=3, a=ZCAWhitener(), contamination=0.2)
    assert isinstance(detector.estimator[0][1], ZCAWhitener)
    assert detector.estimator[1][1].n_clusters == 3
    assert detector.set_params(estimator=PCAWhitener()).get_params()["estimator__ridge"] == 0.0
    detector.set_params(estimator__ridge=0.5)
    assert detector.estimator.ridge == 0.5
    with pytest.raises(ValueError, match="Invalid parameter 'c'"):
        EnergyOutlierDetector(ENSEMBLE).set_params(c=1)


def test_a_search_over_members():
    X, _ = make_rows(), None
    search = GridSearchCV(
        EnergyOutlierDetector(EnergyKMeans(random_state=0)),
        {"estimator__n_clusters": [1, 4], "contamination": ["auto", 0.1]},
        scoring=make_ood_scorer(X_ood=shuffle_columns(make_rows(seed=1))),
        cv=3,
    ).fit(X)
    assert search.best_params_["estimator__n_clusters"] == 4


def test_fitted_members_have_names():
    detector = EnergyOutlierDetector(ENSEMBLE).fit(make_rows())
    assert list(detector.named_estimators_) == ["clusters", "gaussian", "forest"]
    assert detector.estimators_ == list(detector.named_estimators_.values())
    with pytest.raises(AttributeError, match="combines 3 estimators"):
        _ = detector.estimator_
    assert not any(fitted_state(member) for _, member in ENSEMBLE)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (SVC(), r"SVC\) has no score_samples.*EnergyKMeans"),
        (LocalOutlierFactor(), "no score_samples.*novelty"),
        (make_pipeline(StandardScaler(), SVC()), "no score_samples"),
        ([("a", PCAWhitener()), ("b", StandardScaler())], "'b' .*has no score_samples"),
        (StandardScaler(), r"\(StandardScaler\) has no score_samples\. Estimators that have it"),
        (PCAWhitener, "^'estimator' is the class PCAWhitener: pass an instance"),
        ([], r"non-empty list of \(name, estimator\) pairs; got \[\]"),
        ([PCAWhitener()], "pairs"),
        ([("a", PCAWhitener()), ("a", PCAWhitener())], "not unique"),
        ([("a__b", PCAWhitener())], "must not contain __"),
        ([("contamination", PCAWhitener())], "conflict"),
        ("energy", "'estimator' parameter"),
        (None, "'estimator' parameter"),
    ],
)  # fmt: skip
def test_errors_name_the_estimator_and_what_it_lacks(estimator, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        EnergyOutlierDetector(estimator).fit(make_rows())


@pytest.mark.parametrize("contamination", [0, -0.1, 0.6, "most", None, np.nan])
def test_contamination_out_of_range_is_refused(contamination):
    with pytest.raises(ValueError, match="contamination"):
        EnergyOutlierDetector(contamination=contamination).fit(make_rows())


class Scores(BaseEstimator):
    """Returns what it is told to."""

    def __init__(self, training=0.0, later=None):
        self.training = training
        self.later = later

    def fit(self, X, y=None):
        self.labels_ = y
        self.n_features_in_ = X.shape[1]
        return self

    def score_samples(self, X):
        value = self.later if len(X) < 10 and self.later is not None else self.training
        scores = np.arange(len(X), dtype=float)
        scores[-1] = value
        return scores


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(FloatingPointError, match=r"'a' \(Scores\) is nan for row 119"):
        EnergyOutlierDetector([("a", Scores(np.nan))]).fit(make_rows())
    with pytest.raises(FloatingPointError, match="is -inf for row 119"):
        EnergyOutlierDetector(Scores(-np.inf)).fit(make_rows())
    for estimator in (Scores(0.0, np.nan), [("a", PCAWhitener()), ("b", Scores(0.0, np.nan))]):
        detector = EnergyOutlierDetector(estimator).fit(make_rows())
        with pytest.raises(FloatingPointError, match="is nan for row 4"):
            detector.predict(make_rows(5))
    for estimator in (Scores(0.0, -np.inf), [("a", PCAWhitener()), ("b", Scores(0.0, -np.inf))]):
        detector = EnergyOutlierDetector(estimator).fit(make_rows())
        assert detector.predict(make_rows(5))[-1] == -1  # impossible is an answer


def test_scores_of_another_shape_are_refused():
    class Columns(Scores):
        def score_samples(self, X):
            return np.zeros((len(X), 2))

    with pytest.raises(ValueError, match=r"shape \(120, 2\)"):
        EnergyOutlierDetector(Columns()).fit(make_rows())


def test_constant_scores_warn():
    class Constant(Scores):
        def score_samples(self, X):
            return np.zeros(len(X))

    with pytest.warns(UserWarning, match="'b' gives all training rows the same score"):
        EnergyOutlierDetector([("a", PCAWhitener()), ("b", Constant())]).fit(make_rows())


def test_labels_reach_the_estimators():
    y = np.arange(120)
    detector = EnergyOutlierDetector(Scores()).fit(make_rows(), y)
    np.testing.assert_array_equal(detector.estimator_.labels_, y)


@pytest.mark.parametrize("fault", [RuntimeError("fault"), KeyboardInterrupt()])
def test_a_member_that_fails_leaves_the_detector_as_it_was(fault, monkeypatch):
    detector = EnergyOutlierDetector(ENSEMBLE, contamination=0.2).fit(make_rows())
    before = freeze(vars(detector)["offset_"]), set(vars(detector)), detector.named_estimators_
    scores = detector.score_samples(make_rows(seed=1))

    def fail(*args, **kwargs):
        raise fault

    for method in ("fit", "score_samples"):
        monkeypatch.setattr(IsolationForest, method, fail)
        with pytest.raises(type(fault)):
            detector.fit(make_rows(seed=2)[:, :3])
        monkeypatch.undo()
        assert (detector.offset_.hex(), set(vars(detector)), detector.named_estimators_) == before
        np.testing.assert_array_equal(detector.score_samples(make_rows(seed=1)), scores)


class Recorder:
    """A callback that notes which tasks end."""

    max_propagation_depth = None

    def __init__(self):
        self.tasks = []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        self.tasks.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        self.tasks.append((type(estimator).__name__, context.task_name))
        if context.task_name == "fit" and isinstance(estimator, EnergyOutlierDetector):
            self.fitted = fitted_estimator


def test_callbacks_reach_the_members():
    recorder = Recorder()
    X = make_rows()
    detector = EnergyOutlierDetector(ENSEMBLE[:2]).set_callbacks(recorder).fit(X)
    assert ("EnergyKMeans", "iteration") in recorder.tasks
    assert ("PCAWhitener", "fit") in recorder.tasks
    assert recorder.tasks[-2:] == [("EnergyOutlierDetector", "fit"), "teardown"]
    np.testing.assert_array_equal(recorder.fitted.score_samples(X), detector.score_samples(X))
    assert not [name for name in vars(detector) if name.startswith("_") and "ctx" in name]


def test_saving_needs_members_of_this_library(tmp_path):
    path = tmp_path / "detector.safetensors"
    for estimator in ("auto", PCAWhitener(), ENSEMBLE[:2]):
        detector = EnergyOutlierDetector(estimator).fit(make_rows())
        sklebm.save(detector, path)
        assert freeze(vars(sklebm.load(path))) == freeze(vars(detector))
    with pytest.raises(TypeError, match=r"IsolationForest.*skops"):
        sklebm.save(EnergyOutlierDetector(ENSEMBLE).fit(make_rows()), path)
