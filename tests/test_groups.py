"""Groups of rows: what is refused where they enter, and tables that are not yet rows."""

import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_score

from sklebm import (
    ChainCRF,
    ContrastiveEmbedding,
    GridMRF,
    LinearizingAutoencoder,
    PCAWhitener,
    SequenceEnergy,
    SlowFeatureAutoencoder,
    window_features,
)
from sklebm.datasets import AutoregressiveProcess, SwitchingProcess
from sklebm.metrics import curvature, slowness

X = np.random.default_rng(0).normal(size=(40, 2))
LABELS, GROUPS = np.arange(40) % 2, np.repeat(np.arange(4), 10)
SMALL = {"max_epochs": 1, "random_state": 0}
MODELS = [
    SequenceEnergy(2, **SMALL),
    SlowFeatureAutoencoder(1, hidden_sizes=(), **SMALL),
    LinearizingAutoencoder(1, hidden_sizes=(), **SMALL),
    ContrastiveEmbedding(1, views="groups", hidden_sizes=(2,), **SMALL),
    ChainCRF(),
    GridMRF(),
]
SEQUENCES, PIXELS = MODELS[:-1], MODELS[-1]

# ---------------------------------------------------------------- names that are missing

NAMES = GROUPS.astype(float)
NAMES[:10] = np.nan
TIMES = np.array("2020-01-01", "M8[D]") + GROUPS.astype("m8[D]")
MISSING = {
    "NaN": NAMES,
    "tensor": torch.from_numpy(NAMES),
    "NaN beside strings": [float("nan")] * 10 + ["a"] * 30,
    "None": [None] * 10 + ["a"] * 30,
    "NaT": np.where(GROUPS > 0, TIMES, np.datetime64("NaT")),
    "pandas.NA": pd.Series(NAMES).astype("Int64"),
    "pandas, strings": pd.Series([None] * 10 + ["a"] * 30, dtype="string"),
    "pandas, categories": pd.Series([None] * 10 + ["a"] * 30, dtype="category"),
    "polars": pl.Series([None] * 10 + [1] * 30),
    "masked": np.ma.masked_array(GROUPS, GROUPS == 0),
}


@pytest.mark.parametrize("groups", MISSING.values(), ids=MISSING.keys())
def test_groups_without_a_name_are_refused(groups):
    model = SequenceEnergy(2, **SMALL).fit(X, groups=GROUPS)
    message = r"^groups contains missing values in 10 of 40 rows: name the group of every row\.$"
    for call in (lambda: model.predict(X, groups), lambda: model.fit(X, groups=groups)):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_every_model_refuses_them(model):
    model = clone(model)
    with pytest.raises(ValueError, match="missing values in 10 of 40 rows"):
        model.fit(X, LABELS, groups=NAMES)
    with pytest.raises(ValueError, match=r"one entry per row, shape \(40,\); got shape \(\)\.$"):
        model.fit(X, LABELS, groups=3)
    assert not hasattr(model, "n_features_in_")


def test_functions_refuse_them():
    with pytest.raises(ValueError, match="missing values in 1 of 3 steps"):
        window_features([{"word": "a"}] * 3, groups=["a", None, "b"])
    with pytest.raises(ValueError, match="missing values in 10 of 40 rows"):
        slowness(X, NAMES)
    with pytest.raises(ValueError, match="missing values in 10 of 40 rows"):
        AutoregressiveProcess().log_density(X[:, :1], NAMES)


# ---------------------------------------------------------------- names of several types


def objects(*names):
    array = np.empty(len(names), dtype=object)
    array[:] = names
    return array


MIXED = {
    "array": objects(*[1] * 10, *["a"] * 10, *[2.5] * 10, *[(1, 2)] * 10),
    "list": [1] * 10 + ["1"] * 10 + [2] * 10 + ["2"] * 10,
    "series": pd.Series([1] * 10 + ["1"] * 10 + [b"1"] * 10 + [("a",)] * 10),
    "numbers that are equal": objects(*[1] * 5, *[1.0] * 5, *["b"] * 10, *["a"] * 10, *[0] * 10),
}


@pytest.mark.parametrize("groups", MIXED.values(), ids=MIXED.keys())
def test_names_of_several_types_are_told_apart(groups):
    model = SequenceEnergy(2, **SMALL).fit(X, groups=GROUPS)
    np.testing.assert_array_equal(model.predict(X, groups), model.predict(X, GROUPS))
    np.testing.assert_array_equal(slowness(X, groups), slowness(X, GROUPS))
    steps = [{"word": str(step)} for step in range(40)]
    assert window_features(steps, groups=groups) == window_features(steps, groups=GROUPS)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_names_that_cannot_be_told_apart_are_refused(model):
    model = clone(model)
    names = objects(*[{"name": number} for number in GROUPS[:-1].tolist()], "a")
    with pytest.raises(ValueError, match=r"groups holds names of the types dict, str, which"):
        model.fit(X, LABELS, groups=names)
    assert not hasattr(model, "n_features_in_")


def test_functions_need_steps_side_by_side():
    names = np.arange(40) % 2
    for call in (slowness, curvature):
        with pytest.raises(ValueError, match=r"row 2 began before .* row 1.* then Z\[order\]"):
            call(X, names)
    for process in (AutoregressiveProcess(), SwitchingProcess()):
        with pytest.raises(ValueError, match=r"row 2 began before .* row 1.* then X\[order\]"):
            process.log_density(X[:, :1], names)


# ---------------------------------------------------------------- groups passed as y


@pytest.mark.parametrize("model", SEQUENCES[:3], ids=lambda model: type(model).__name__)
def test_groups_in_the_place_of_y_are_noticed(model):
    model, name = clone(model), type(model).__name__
    with pytest.warns(UserWarning, match=rf"^{name} ignores y, .* fit\(X, groups=y\)\.$"):
        model.fit(X, GROUPS)
    with pytest.warns(UserWarning, match=r"ignores y, .* partial_fit\(X, groups="):
        clone(model).partial_fit(X, GROUPS)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*ignores y")
        model.fit(X, GROUPS, groups=GROUPS).fit(X, groups=GROUPS).fit(X)
        model.fit(X, LABELS)  # as a pipeline passes labels for its last step
        for strange in ([{"name": 1}] * 40, [[1], [2, 3]] * 20, [1, None] * 20):
            model.fit(X, strange)


def test_scores_notice_it_too():
    model = SequenceEnergy(2, **SMALL).fit(X, groups=GROUPS)
    with pytest.warns(UserWarning, match=r"ignores y, .* score\(X, groups="):
        model.score(X, GROUPS)
    with pytest.warns(UserWarning, match="ignores y"):
        assert np.isfinite(cross_val_score(model, X, GROUPS, cv=KFold(2))).all()


# ---------------------------------------------------------------- tables of more dimensions


@pytest.mark.parametrize("model", SEQUENCES, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, np.ndarray.tolist])
def test_a_table_of_sequences_is_told_how_to_become_rows(model, kind):
    call = "X.reshape({})" if kind is torch.from_numpy else "np.reshape(X, ({}))"
    advice = (
        f"{type(model).__name__}, which takes one row per step: pass {call.format('-1, 2')} "
        "with groups=np.repeat(np.arange(4), 10)."
    )
    with pytest.raises(ValueError, match=re.escape(advice)):
        model.fit(kind(X.reshape(4, 10, 2)), LABELS, groups=GROUPS)
    with pytest.raises(ValueError, match=re.escape(f"pass {call.format('20, -1')} with groups=")):
        model.fit(kind(X.reshape(4, 5, 2, 2)), LABELS, groups=GROUPS)


def test_the_advice_makes_the_same_rows():
    table = X.reshape(4, 10, 2)
    for given in (table, table.tolist()):
        np.testing.assert_array_equal(np.reshape(given, (-1, 2)), X)
    np.testing.assert_array_equal(np.repeat(np.arange(4), 10), GROUPS)
    advice = "X is a list of tables, but SequenceEnergy .* pass np.concatenate"
    with pytest.raises(ValueError, match=rf"{advice}\(X\)"):
        SequenceEnergy().fit(list(table))


def test_images_are_rows_unless_they_come_in_sequences():
    for model in (
        PCAWhitener(),
        ContrastiveEmbedding(),
        LinearizingAutoencoder(image_shape=(2, 5)),
    ):
        for kind in (np.asarray, torch.from_numpy):
            with pytest.raises(ValueError, match=r"flatten images to rows, X\.reshape\(len\(X\)"):
                model.fit(kind(X.reshape(8, 2, 5)))
    with pytest.raises(ValueError, match=r"np\.reshape\(X, \(8, -1\)\) with .*arange\(2\), 4\)"):
        LinearizingAutoencoder(image_shape=(2, 5)).fit(X.reshape(2, 4, 2, 5))


def test_images_of_pixels_are_told_their_positions():
    image = "np.indices((4, 5)).reshape(2, -1).T"
    with pytest.raises(
        ValueError, match=re.escape(f"with positions={image} (images of one channel: ")
    ):
        PIXELS.fit(X[:, :1].reshape(4, 5, 2), LABELS)
    beside = f"groups=np.repeat(np.arange(2), 20) and positions=np.tile({image}, (2, 1))."
    with pytest.raises(ValueError, match=re.escape(beside)):
        PIXELS.fit(X.reshape(2, 4, 5, 2), LABELS)
    positions = np.tile(np.indices((4, 5)).reshape(2, -1).T, (2, 1))
    assert positions[[0, 5, 19, 20]].tolist() == [[0, 0], [1, 0], [3, 4], [0, 0]]
