"""Models made of models: one atomic fit, weights for those that take them, a stack as a toy."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

import sklebm
from sklebm import EnergyGaussianMixture, EnergyKMeans, EnergyOutlierDetector, PCAWhitener
from sklebm._shell.rows import Rows
from sklebm.composite import CompositeEstimator, takes_weights
from tests.registry import NAMES, fitted_state, freeze, make_rows


class Stack(CompositeEstimator):
    """Each model learns what the one before it makes of the rows; the last one scores."""

    _min_rows_fit = 2

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y=None):
        return self._learn(X, self._fit, y=y)

    @property
    def _reads_numbers(self):
        return True

    def _max_steps(self, X):
        return len(self.estimator)

    def _fit(self, X, members, **data):
        assert isinstance(X, Rows)
        codes, fitted = X.to_numpy(), {}
        for name, member in self.estimator:
            fitted[name] = members.fit(name, clone(member), codes)
            if name != self.estimator[-1][0]:
                codes = fitted[name].transform(codes)
        return {"named_estimators_": fitted}

    def score_samples(self, X):
        check_is_fitted(self)
        *below, top = self.estimators_

        def score(x):
            for member in below:
                x = member.transform(x)
            return top.score_samples(x)

        return self._stream(X, score)


LAYERS = [("low", PCAWhitener(3)), ("high", EnergyKMeans(4, random_state=0))]


def test_a_stack_is_its_models_one_after_the_other():
    X, new = make_rows(), make_rows(50, seed=1)
    stack = Stack(LAYERS).fit(X)
    low = PCAWhitener(3).fit(X)
    high = EnergyKMeans(4, random_state=0).fit(low.transform(X))
    np.testing.assert_array_equal(stack.score_samples(new), high.score_samples(low.transform(new)))
    with config_context(working_memory=0.01):  # a few rows at a time
        np.testing.assert_allclose(
            stack.score_samples(new), high.score_samples(low.transform(new)), rtol=1e-12
        )
    assert stack.n_features_in_ == 6
    assert not any(fitted_state(member) for _, member in LAYERS)


def test_a_fault_in_a_later_model_leaves_the_stack_as_it_was(monkeypatch):
    stack = Stack(LAYERS).fit(make_rows())
    before = freeze(vars(stack))

    def fail(*args, **kwargs):
        raise RuntimeError("fault")

    monkeypatch.setattr(EnergyKMeans, "_fit", fail)
    with pytest.raises(RuntimeError, match="fault"):
        stack.fit(make_rows(seed=1)[:, :4])
    assert freeze(vars(stack)) == before


def test_parameters_of_layers_have_names():
    stack = Stack(LAYERS)
    assert stack.get_params()["high__n_clusters"] == 4
    twin = clone(stack).set_params(high__n_clusters=2).fit(make_rows())
    assert len(twin.named_estimators_["high"].cluster_centers_) == 2
    assert stack.get_params()["high__n_clusters"] == 4


def test_at_most_two_classes_of_ours_below_each_composite():
    for name in NAMES:
        cls = getattr(sklebm, name)
        if issubclass(cls, CompositeEstimator):
            ours = [base for base in cls.__mro__[1:] if base.__module__.startswith("sklebm.")]
            assert len(ours) <= 2, name


# ---------------------------------------------------------------- weights


def test_who_takes_weights():
    assert takes_weights(EnergyKMeans())
    assert takes_weights(IsolationForest())
    assert not takes_weights(LocalOutlierFactor(novelty=True))
    pipeline = make_pipeline(StandardScaler(), EnergyKMeans())
    assert not takes_weights(pipeline)
    with config_context(enable_metadata_routing=True):
        routed = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False),
            EnergyKMeans().set_fit_request(sample_weight=True),
        )
        assert takes_weights(routed)


class Recorder(BaseEstimator):
    """Keeps the weights it gets."""

    def fit(self, X, y=None, sample_weight=None):
        self.weights_ = sample_weight
        self.n_features_in_ = X.shape[1]
        return self

    def score_samples(self, X):
        return -np.abs(X[:, 0])


def test_weights_reach_the_members_and_only_those_who_want_them():
    X, weights = make_rows(), np.arange(120) % 3
    detector = EnergyOutlierDetector([("a", Recorder()), ("b", EnergyKMeans(random_state=0))])
    detector.fit(X, sample_weight=weights)
    np.testing.assert_array_equal(detector.named_estimators_["a"].weights_, weights)
    held = EnergyOutlierDetector(Recorder(), calibration=0.25, random_state=0)
    assert len(held.fit(X, sample_weight=weights).estimator_.weights_) == 90
    with pytest.raises(ValueError, match=r"'b' \(LocalOutlierFactor\) takes none"):
        EnergyOutlierDetector([("a", Recorder()), ("b", LocalOutlierFactor(novelty=True))]).fit(
            X, sample_weight=weights
        )
    for bad in (-np.ones(120), np.ones(7)):
        with pytest.raises(ValueError, match=r"(?i)weight"):
            EnergyOutlierDetector().fit(X, sample_weight=bad)


@pytest.mark.parametrize(
    "estimator",
    [
        "auto",
        Recorder(),
        [("a", Recorder()), ("b", EnergyGaussianMixture(2, random_state=0))],
    ],
    ids=["auto", "one", "list"],
)
def test_a_whole_weight_is_as_many_copies(estimator):
    X, new = make_rows(200), make_rows(50, seed=1)
    weights = np.random.default_rng(0).integers(0, 4, size=200)
    weighted = EnergyOutlierDetector(estimator, contamination=0.1).fit(X, sample_weight=weights)
    copies = EnergyOutlierDetector(estimator, contamination=0.1).fit(np.repeat(X, weights, axis=0))
    # Sums over copies and products with weights are rounded differently.
    np.testing.assert_allclose(
        weighted.score_samples(new), copies.score_samples(new), rtol=1e-6, atol=1e-6
    )
    assert weighted.offset_ == pytest.approx(copies.offset_, rel=1e-6)
