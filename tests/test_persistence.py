"""Files hold what they were given, to the last bit, and refuse what they cannot hold."""

import dataclasses
import errno
import inspect
import json
import math
import pickle
import random
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sklebm
from sklebm import EnergyKMeans, EnergyOutlierDetector, PCAWhitener
from sklebm._shell.encoding import Decoder, Encoder
from sklebm._shell.tensor_file import canonical, to_bytes
from tests.registry import (
    NAMES,
    fitted_state,
    freeze,
    make,
    make_rows,
    make_variants,
    names_with,
    row_methods,
    takes,
)

every = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def round_trip(model, path):
    sklebm.save(model, path)
    return sklebm.load(path)


# ---------------------------------------------------------------- round trips


@every
def test_round_trip_is_bitwise(name, path):
    X = make_rows(seed=1)
    for model in make_variants(name):
        twin = round_trip(model.fit(make_rows()), path)
        assert type(twin) is type(model)
        assert freeze(vars(twin)) == freeze(vars(model))
        for method in row_methods(model):
            np.testing.assert_array_equal(getattr(twin, method)(X), getattr(model, method)(X))


@every
def test_round_trip_before_fit(name, path):
    twin = round_trip(make(name), path)
    assert not fitted_state(twin)
    assert freeze(twin.get_params()) == freeze(make(name).get_params())


@every
def test_the_same_model_gives_the_same_file(name, path):
    sklebm.save(make(name).fit(make_rows()), path)
    first = path.read_bytes()
    sklebm.save(make(name).fit(make_rows()), path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("name", names_with("partial_fit"))
def test_learning_goes_on_where_it_stopped(name, path):
    model = make(name).fit(make_rows())
    twin = round_trip(model, path)
    for learner in (model, twin):
        learner.partial_fit(make_rows(seed=1))
    assert freeze(vars(twin)) == freeze(vars(model))


@every
def test_every_estimator_declares_its_state(name):
    """An undeclared fitted attribute would let a file bring anything."""
    model = make(name).fit(make_rows())
    model._check_state()
    model.stranger_ = 1
    with pytest.raises(ValueError, match="stranger_"):
        model._check_state()


@every
def test_save_and_load_leave_the_global_generators(name, path):
    model = make(name).fit(make_rows())

    def states():
        return (
            torch.get_rng_state().tolist(),
            freeze(np.random.get_state()),  # noqa: NPY002
            random.getstate(),
        )

    before = states()
    round_trip(model, path)
    assert states() == before


@every
def test_loads_under_another_number_of_threads(name, path, set_threads):
    set_threads(2)
    model = make(name).fit(make_rows())
    sklebm.save(model, path)
    set_threads(1)
    twin = sklebm.load(path)
    assert freeze(fitted_state(twin)) == freeze(fitted_state(model))
    np.testing.assert_array_equal(twin.score_samples(make_rows()), model.score_samples(make_rows()))


@pytest.mark.parametrize("name", [name for name in NAMES if takes(make(name), "device")])
def test_a_model_fitted_on_a_gpu_loads_without_one(name, path):
    model = make(name).fit(make_rows())
    for device in ("cuda:7", torch.device("cuda", 7)):
        twin = round_trip(model.set_params(device=device), path)
        assert twin.device == device
        with pytest.raises(ValueError, match='use device="auto" or device="cpu"'):
            twin.score_samples(make_rows())
        scores = twin.set_params(device="cpu").score_samples(make_rows())
        np.testing.assert_array_equal(
            scores, model.set_params(device="cpu").score_samples(make_rows())
        )


def test_feature_names_output_and_a_linked_path(path, tmp_path):
    frame = pd.DataFrame(make_rows(), columns=list("abcdef"))
    link = tmp_path / "link.safetensors"
    sklebm.save(PCAWhitener().fit(frame), path)
    link.symlink_to(path)
    twin = round_trip(PCAWhitener(3).set_output(transform="pandas").fit(frame), link)
    assert link.is_symlink()
    assert list(twin.feature_names_in_) == list("abcdef")
    assert twin.feature_names_in_.dtype == object
    assert list(twin.transform(frame).columns) == ["pcawhitener0", "pcawhitener1", "pcawhitener2"]
    assert freeze(vars(sklebm.load(path))) == freeze(vars(twin))


def test_nested_estimators_round_trip(path):
    members = [("a", PCAWhitener(2)), ("b", EnergyKMeans(3, init=make_rows()[:3], n_init=1))]
    model = EnergyOutlierDetector(members, contamination=0.1).fit(make_rows())
    twin = round_trip(model, path)
    assert freeze(vars(twin)) == freeze(vars(model))
    assert freeze(vars(twin.fit(make_rows()))) == freeze(vars(model))


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    steps: int = 3
    flag: bool = False


def through_a_file(value):
    """What a parameter comes back as."""
    encoder = Encoder()
    node = json.loads(canonical({"node": encoder.value(value, "x")}))["node"]
    decoder = Decoder(safetensors.numpy.load(to_bytes({}, encoder.tensors)))
    result = decoder.value(node, 0)
    assert not decoder.unused
    return result


VALUES = [
    *(None, True, 3, -(2**70), "é\u0000\ud800", 0.1, -0.0, 5e-324, math.inf, -math.inf),
    *(np.float64(0.1), np.float32(0.1), np.float16(0.1), np.int8(-3), np.uint64(2**64 - 1)),
    *(np.bool_(True), np.str_("text"), torch.device("cuda:1"), (1, (2.0, "b"), [()]), [[0.5]], {}),
    {"a": {"b": (1,)}, "a.b": [np.zeros(2)], "c": {"a": np.ones(3, np.int16)}},
    np.array(["b", "a"], dtype=object),
    np.array([["bc", "a"]]),
    np.zeros((0, 3)),
    np.array(2.5),
    np.array([True, False]),
    np.arange(6, dtype=np.uint8).reshape(2, 3),
    Outer(Inner(0.25, "text"), steps=7),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_keep_type_and_bits(value, monkeypatch):
    monkeypatch.setitem(sklebm.PARTS, "Inner", __name__)
    monkeypatch.setitem(sklebm.PARTS, "Outer", __name__)
    result = through_a_file(value)
    assert type(result) is type(value)
    assert freeze(result) == freeze(value)


def test_nan_parameters_and_array_layouts():
    assert math.isnan(through_a_file(math.nan))
    table = np.arange(12.0).reshape(3, 4)
    for array in (table.T, table[::2, ::-1], table.astype(">f8"), np.asfortranarray(table)):
        result = through_a_file(array)
        np.testing.assert_array_equal(result, array)
        assert result.dtype.isnative
        assert result.flags.writeable
        assert result.flags.f_contiguous == array.flags.f_contiguous


# ---------------------------------------------------------------- what save refuses


class Stranger(PCAWhitener):
    pass


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (IsolationForest(), "IsolationForest.*skops"),
        (
            make_pipeline(StandardScaler(), PCAWhitener()),
            r"Pipeline.*\(pip install skops\), or joblib",
        ),
        (Stranger(), "Stranger.*skops"),
        ({"a": 1}, "dict"),
        (PCAWhitener, "not"),
        (EnergyOutlierDetector(IsolationForest()), "estimator is a sklearn.*IsolationForest"),
        (EnergyOutlierDetector([("a", PCAWhitener()), ("b", Stranger())]), "estimator.1.1"),
        (EnergyKMeans(random_state=np.random.RandomState(0)), "random_state.*integer.*skops.* can"),
        (EnergyKMeans(init=torch.zeros(8, 2)), r"torch\.Tensor.* Pass it as a NumPy array\.$"),
        (EnergyKMeans(init=np.zeros((8, 2), complex)), "complex128"),
        (EnergyKMeans(init=[[print]]), "init.0.0 is a builtins.builtin_function"),
        (EnergyKMeans(init=[{1: 2}]), "keys that are not strings"),
    ],
)
def test_save_refuses_what_files_do_not_hold(model, message, path):
    with pytest.raises(TypeError, match=f"(?s){message}"):
        sklebm.save(model, path)
    assert not path.exists()


def test_save_names_the_folder_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reason = "the folder does not exist: create it first"
    with pytest.raises(FileNotFoundError, match=rf"{reason}: 'nodir'$") as caught:
        sklebm.save(PCAWhitener(), "nodir/x.safetensors")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "nodir")
    Path("link.safetensors").symlink_to("gone/x.safetensors")
    with pytest.raises(FileNotFoundError, match=rf"{reason}: '.*gone'$"):
        sklebm.save(PCAWhitener(), "link.safetensors")
    Path("file").touch()
    with pytest.raises(NotADirectoryError, match=r"'file/x\.safetensors'$"):
        sklebm.save(PCAWhitener(), "file/x.safetensors")
    Path("d.safetensors").mkdir()
    with pytest.raises(OSError, match=r": 'd\.safetensors'$"):
        sklebm.save(PCAWhitener(), "d.safetensors")
    assert not [path for path in Path().iterdir() if path.suffix == ".tmp"]


def changed(model, **attributes):
    vars(model).update(attributes)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (PCAWhitener(ridge=-1), "ridge"),
        (EnergyKMeans(init=np.full((8, 2), np.nan)), "init holds NaN"),
        (changed(PCAWhitener().fit(make_rows()), noise_variance_=math.nan), "noise_variance_"),
        (changed(PCAWhitener().fit(make_rows()), mean_=np.full(6, np.inf)), "mean_ holds NaN"),
        (EnergyKMeans(4).fit(make_rows()).set_params(n_clusters=5), "fit again"),
        (EnergyKMeans(init=[["long" * 1000] * 5000]), "as text"),
    ],
)
def test_save_refuses_what_load_would_refuse(model, message, path):
    with pytest.raises(ValueError, match=message):
        sklebm.save(model, path)
    assert not path.exists()


# ---------------------------------------------------------------- pickles


@every
def test_pickles_tell_their_version(name, monkeypatch):
    stored = pickle.dumps(make(name).fit(make_rows()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twin = pickle.loads(stored)
    assert "_sklebm_version" not in vars(twin)
    monkeypatch.setattr(sklebm, "__version__", "99.0.0")
    with pytest.warns(UserWarning, match=r"pickled by sklebm .* opened by 99\.0\.0"):
        pickle.loads(stored)


@every
def test_parameters_that_a_pickle_does_not_know_have_their_defaults(name):
    model = make(name).fit(make_rows())
    known = inspect.signature(type(model)).parameters.values()
    defaults = {p.name: p.default for p in known if p.default is not p.empty}
    for parameter in defaults:
        vars(model).pop(parameter)  # as if it had come later
    twin = pickle.loads(pickle.dumps(model))
    assert {key: getattr(twin, key) for key in defaults} == defaults
    clone(twin)
