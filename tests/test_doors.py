"""What comes in beside ordinary rows: gaps, other dtypes, lazy tables, threads; and displays."""

import threading

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from sklebm import (
    PLSA,
    BernoulliRBM,
    EnergyClassifier,
    EnergyGaussianMixture,
    EnergyKMeans,
    EnergyRegressor,
    GatedBM,
    GaussianRBM,
    LatentVariableRegressor,
    PCAWhitener,
    load,
    save,
)
from sklebm._shell import surroundings
from sklebm.metrics import make_ood_scorer
from sklebm.plotting import ComponentsDisplay, EnergyLandscapeDisplay, SampleChainDisplay
from tests.registry import freeze, make_rows

matplotlib.use("Agg")
BRIEF = {"max_epochs": 2, "random_state": 0}


# ---------------------------------------------------------------- gaps


def test_what_a_masked_array_hides_is_unknown():
    model = EnergyGaussianMixture(2, random_state=0).fit(make_rows())
    X = make_rows(10, seed=1)
    hidden = np.zeros(X.shape, bool)
    hidden[:, 2] = True
    gaps = np.where(hidden, np.nan, X)
    garbage = np.where(hidden, 1e6, X)
    found = model.complete(np.ma.masked_array(garbage, hidden))
    np.testing.assert_array_equal(found, model.complete(gaps))


def test_tables_with_gaps_are_refused_for_the_same_reasons():
    model = EnergyGaussianMixture(2, random_state=0).fit(make_rows())
    with pytest.raises(TypeError, match="needs a table of numbers"):
        model.complete({"a": 1.0})
    frame = pd.DataFrame(make_rows(3)).astype(object)
    frame.iloc[1, 0] = pd.NA
    with pytest.raises(TypeError, match="contains NaN in"):
        model.complete(frame)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_with_gaps_gives_single_precision(dtype):
    model = EnergyGaussianMixture(2, random_state=0).fit(make_rows())
    X = torch.from_numpy(make_rows(5)).to(dtype)
    X[0, 0] = torch.nan
    assert model.complete(X).dtype is torch.float32
    if dtype is torch.float16:
        assert model.complete(X.numpy()).dtype == np.float32


# ---------------------------------------------------------------- objects and dtypes


@pytest.mark.parametrize("value", [pd.NA, pd.Timestamp("2026-01-01"), pd.Timestamp("2026").date()])
def test_objects_that_are_no_numbers_are_named_with_their_column(value):
    frame = pd.DataFrame({"a": pd.Series([1, value, 2], dtype=object), "b": [1.0, 2.0, 3.0]})
    with pytest.raises((TypeError, ValueError), match=r"'a'"):
        PCAWhitener().fit(frame)


def test_bfloat16_is_taken_beside_the_rows_too():
    X, y = torch.from_numpy(make_rows()), torch.arange(120)
    half = EnergyRegressor((), alpha=0.1).fit(X, y.bfloat16())
    assert half.predict(X).dtype is X.dtype
    EnergyClassifier((4,), **BRIEF).fit(X, (y % 2).bfloat16(), torch.ones(120).bfloat16())


def test_given_parameters_may_be_tensors_and_have_any_byte_order():
    shapes = {"components": (2, 3), "intercept_hidden": (2,), "intercept_visible": (3,)}
    plain = {name: np.ones(shape) for name, shape in shapes.items()}
    expected = BernoulliRBM.from_parameters(**plain)
    rows = np.eye(3)
    tensors = {k: torch.from_numpy(v).requires_grad_() for k, v in plain.items()}
    swapped = {k: v.astype(">f8") for k, v in plain.items()}
    long = {k: v.astype(np.longdouble) for k, v in plain.items()}
    for given in (tensors, swapped, long):
        found = BernoulliRBM.from_parameters(**given)
        np.testing.assert_array_equal(found.score_samples(rows), expected.score_samples(rows))


def test_class_weights_of_some_labels_serve_chunks_without_them():
    X, y = make_rows(40), np.arange(40) % 2
    model = EnergyClassifier((4,), class_weight={1: 5.0}, **BRIEF)
    model.partial_fit(X[y == 0], y[y == 0], classes=[0, 1]).partial_fit(X, y)
    weighted = EnergyClassifier((4,), **BRIEF)
    weighted.partial_fit(X[y == 0], y[y == 0], classes=[0, 1])
    weighted.partial_fit(X, y, sample_weight=np.where(y == 1, 5.0, 1.0))
    np.testing.assert_array_equal(model.predict_proba(X), weighted.predict_proba(X))


# ---------------------------------------------------------------- lazy tables and threads


@pytest.mark.parametrize(
    "model",
    [
        BernoulliRBM(4, **BRIEF),
        GatedBM(2, **BRIEF),
        EnergyKMeans(3, random_state=0),
        PLSA(2, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_lazy_answers_are_those_of_the_model_when_it_was_asked(model):
    array = pytest.importorskip("dask.array", reason="needs dask: pip install sklebm[dask]")
    X = make_rows(60)
    model.fit(X)
    expected, lazy = model.score_samples(X), model.score_samples(array.from_array(X, chunks=20))
    model.fit(1 - X[:30])
    np.testing.assert_array_equal(lazy.compute(), expected)


def test_a_thread_does_not_restore_the_default_dtype_under_another(monkeypatch):
    """One method is inside when the other begins, and ends first."""
    inside, begun, finished = threading.Event(), threading.Event(), threading.Event()
    seen = []

    @surroundings.sheltered
    def first():
        inside.set()
        begun.wait(10)

    @surroundings.sheltered
    def second():
        begun.set()
        finished.wait(10)
        seen.append(torch.get_default_dtype())

    torch.set_default_dtype(torch.float64)
    try:
        one = threading.Thread(target=first)
        one.start()
        inside.wait(10)
        other = threading.Thread(target=second)
        other.start()
        one.join()
        finished.set()
        other.join()
        assert seen == [torch.float32]
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------- files


def test_numbers_that_are_not_finite_are_refused_in_the_state_of_a_file(tmp_path):
    from sklebm._shell.encoding import Decoder, Encoder

    encoder = Encoder()
    node = encoder.estimator(PCAWhitener().fit(make_rows()), "estimator")
    node["state"]["n_features_in_"] = {"type": "float", "value": "inf"}
    with pytest.raises(ValueError, match=r"inf|n_features_in_"):
        Decoder(encoder.tensors).estimator(node)
    save(
        LatentVariableRegressor(2, beta=np.inf), tmp_path / "model.safetensors"
    )  # parameters may be
    assert load(tmp_path / "model.safetensors").beta == np.inf


# ---------------------------------------------------------------- metrics and displays


def test_scores_that_separate_perfectly_may_be_infinite():
    class Support:
        def score_samples(self, X):
            return np.where(X[:, 0] > 0, X[:, 0], -np.inf)

    X, y = np.array([[1.0], [2.0], [-1.0], [-2.0]]), np.array([1, 1, -1, -1])
    for metric in ("roc_auc", "average_precision"):
        assert make_ood_scorer(metric)(Support(), X, y) == 1.0

    class Broken:
        def score_samples(self, X):
            return np.full(len(X), np.nan)

    with pytest.raises(ValueError, match="Scores contain NaN"):
        make_ood_scorer("roc_auc")(Broken(), X, y)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float16])
def test_maps_of_rows_of_any_dtype_are_those_of_their_values(dtype):
    X = np.random.default_rng(0).integers(0, 9, size=(40, 2))
    model = EnergyGaussianMixture(2, random_state=0).fit(X.astype(float))
    expected = EnergyLandscapeDisplay.from_estimator(model, X.astype(float), grid_resolution=20)
    found = EnergyLandscapeDisplay.from_estimator(model, X.astype(dtype), grid_resolution=20)
    np.testing.assert_array_equal(found.energy, expected.energy)


def test_a_chain_that_is_drawn_leaves_the_global_generator_alone():
    X = make_rows(60)[:, :4]
    model = GaussianRBM(3, **BRIEF).fit(X)
    shared = np.random.mtrand._rand  # that of numpy.random
    before = freeze(shared.get_state())
    SampleChainDisplay.from_estimator(model, X[:2], steps=(0, 1))
    assert freeze(shared.get_state()) == before


def test_attributes_of_one_dimension_are_no_images():
    model = EnergyGaussianMixture(2, random_state=0).fit(make_rows())
    with pytest.raises(ValueError, match=r"weights_ .* 2-D fitted attribute"):
        ComponentsDisplay.from_estimator(model, attribute="weights_")
