"""Damaged and hostile files are refused, and nothing in them runs."""

import json
import os
import pickle
import re
import tracemalloc
import warnings

import joblib
import numpy as np
import pytest
import safetensors.numpy
import skops.io
import torch

import sklebm
from sklebm import (
    BernoulliRBM,
    EnergyKMeans,
    EnergyOutlierDetector,
    PCAWhitener,
)
from sklebm._shell.encoding import Encoder
from sklebm._shell.tensor_file import read_file, to_bytes
from sklebm.objectives import PersistentContrastiveDivergence
from tests.registry import make_rows
from tests.sampling import FULL, generator, sample


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# ---------------------------------------------------------------- damage


@pytest.fixture
def whole(path):
    """The bytes of a valid file."""
    sklebm.save(PCAWhitener(2).fit(make_rows()[:, :3]), path)
    return path.read_bytes()


def test_truncated_files_are_refused(whole, path):
    for part in range(64):
        path.write_bytes(whole[: len(whole) * part // 64])
        with pytest.raises(ValueError, match="cannot be loaded"):
            sklebm.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="truncated"):
        sklebm.load(path)


def test_flipped_bits_are_refused(whole, path):
    bits = range(8 * len(whole))
    for bit in sample(bits, 500, "bits"):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be loaded"):
            sklebm.load(path)


@pytest.mark.parametrize(("before", "after"), [("F64", "I64"), ("F64", "U64")])
def test_the_checksum_covers_the_dtypes(before, after, whole, path):
    """The same bytes called by another dtype of that size are another model."""
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    names = [name for name, entry in header.items() if entry.get("dtype") == before]
    assert names
    for name in names:
        forged = {**header, name: {**header[name], "dtype": after}}
        text = json.dumps(forged, separators=(",", ":")).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
        with pytest.raises(ValueError, match="checksum does not match"):
            sklebm.load(path)


def test_random_bytes_are_refused(whole, path):
    generator = np.random.default_rng(0)
    for size in (0, 7, 8, 9, 100, 1000):
        path.write_bytes(generator.bytes(size))
        with pytest.raises(ValueError, match="cannot be loaded"):
            sklebm.load(path)


# ---------------------------------------------------------------- files of strangers


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_foreign_files_are_refused_and_nothing_runs(path, tmp_path):
    folder = tmp_path / "executed"
    writers = {
        "pickle": lambda: path.write_bytes(pickle.dumps(Bomb(folder))),
        "old pickle": lambda: path.write_bytes(pickle.dumps(Bomb(folder), protocol=0)),
        "joblib": lambda: joblib.dump(Bomb(folder), path),
        "zlib": lambda: joblib.dump(Bomb(folder), path, compress=("zlib", 3)),
        "gzip": lambda: joblib.dump(Bomb(folder), path, compress=("gzip", 3)),
        "zip": lambda: torch.save(Bomb(folder), path),
        "skops": lambda: skops.io.dump(PCAWhitener(), path),
        "npy": lambda: path.write_bytes(b"\x93NUMPY\x01\x00v\x00"),
        "text": lambda: path.write_text("import os"),
        "tensors": lambda: safetensors.numpy.save_file({"a": np.zeros(3)}, path),
        "metadata": lambda: safetensors.numpy.save_file({}, path, {"sklebm": "[]"}),
    }
    for name, write in writers.items():
        write()
        with pytest.raises(ValueError, match="cannot be loaded"):
            sklebm.load(path)
        assert not folder.exists(), name
    path.write_bytes(pickle.dumps(Bomb(folder)))
    with pytest.raises(ValueError, match="a pickle"):
        sklebm.load(path)
    pickle.loads(path.read_bytes())
    assert folder.exists()  # the bomb is live: only not here


def test_other_places_are_refused(tmp_path):
    for name in ("model.pkl", "model.joblib", "model.pt", "model", "model.safetensors.pkl"):
        for call in (sklebm.load, lambda path: sklebm.save(PCAWhitener(), path)):
            with pytest.raises(ValueError, match="does not end in"):
                call(tmp_path / name)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ValueError, match="regular file"):
        sklebm.load(tmp_path / "folder.safetensors")
    with pytest.raises(FileNotFoundError):
        sklebm.load(tmp_path / "missing.safetensors")
    with pytest.raises(FileNotFoundError):
        sklebm.save(PCAWhitener(), tmp_path / "missing" / "model.safetensors")


def header(text, rest=b""):
    return len(text).to_bytes(8, "little") + text + rest


@pytest.mark.parametrize(
    "data",
    [
        (10**12).to_bytes(8, "little") + b"{}",
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        header(b'{"__metadata__":{"sklebm":"{}"},"a":{"dtype":"F64","shape":[1000000000000],'
               b'"data_offsets":[0,8000000000000]}}'),
        header(b'{"__metadata__":{"sklebm":"{}"},"a":{"dtype":"F64","shape":[1000000000000],'
               b'"data_offsets":[0,8]}}', b"\0" * 8),
        header(b'{"__metadata__":{"sklebm":"{}"},"a":{"dtype":"BF16","shape":[4],'
               b'"data_offsets":[0,8]}}', b"\0" * 8),
        header(b'{"__metadata__":{"sklebm":"{}"},"a":{"dtype":"U8","shape":[8],'
               b'"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}',
               b"\0" * 8),
        header(b'{"__metadata__":{"sklebm":"{}"},"__metadata__":{"sklebm":"{}"}}'),
        header(b'{"__metadata__":{"sklebm":"{}","more":"x"}}'),
        header(b'{"__metadata__":{"sklebm":3}}'),
        header(b"[" * 100_000),
        header(b'{"__metadata__":{"sklebm":"' + b"[" * 100_000 + b'"}}'),
        header(b'{"__metadata__":{"sklebm":"{\\"format_version\\":NaN}"}}'),
        header(b'{"__metadata__":{"sklebm":"{\\"format_version\\":1, \\"a\\":2}"}}'),
        header(b"\xff\xfe{}"),
    ],
    ids=range(14),
)  # fmt: skip
def test_false_claims_cost_no_memory(data, path):
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="cannot be loaded"):
            sklebm.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2e6 + 40 * len(data)
    finally:
        tracemalloc.stop()


def test_memory_is_in_proportion_to_the_file(path):
    model = EnergyKMeans(2, random_state=0).fit(make_rows(2000, noise=0.5).repeat(50, axis=1))
    model.labels_ = np.zeros(3_000_000, np.int32)
    sklebm.save(model, path)
    tracemalloc.start()
    sklebm.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * path.stat().st_size


# Each edits the document and the tensors of a valid file, which then gets a valid checksum.
def put(*keys):
    """An edit that sets ``document[keys[0]]...[keys[-2]] = keys[-1]``."""

    def edit(document, tensors):
        for key in keys[:-2]:
            document = document[key]
        document[keys[-2]] = keys[-1]

    return edit


def drop(*keys):
    """An edit that deletes ``document[keys[0]]...[keys[-1]]``."""

    def edit(document, tensors):
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return edit


def tensor(name, value):
    """An edit that replaces a tensor, or adds it."""
    return lambda document, tensors: tensors.update({name: value})


def nested(depth):
    return [] if depth == 0 else [nested(depth - 1)]


PARAMS, STATE = ("estimator", "params"), ("estimator", "state")
CALLABLE = {"type": "callable", "module": "os", "name": "system"}
PART = {"type": "part", "class": "PersistentContrastiveDivergence", "fields": {}}
# What each must be refused for, and the edit.
HOSTILE = {
    "class os.system": ("no estimator of sklebm", put("estimator", "class", "os.system")),
    "class of scikit-learn": (
        "no estimator of sklebm",
        put("estimator", "class", "sklearn.svm.SVC"),
    ),
    "base class": ("no estimator of sklebm", put("estimator", "class", "EnergyEstimator")),
    "function of ours": ("no estimator of sklebm", put("estimator", "class", "load")),
    "class is a list": ("no estimator of sklebm", put("estimator", "class", ["PCAWhitener"])),
    "other class of ours": ("has no parameter called", put("estimator", "class", "EnergyKMeans")),
    "no estimator": ("exactly the keys", put("estimator", {"type": "dict", "items": []})),
    "estimator is text": ("exactly the keys", put("estimator", "PCAWhitener")),
    "extra key in the estimator": ("exactly the keys", put("estimator", "extra", 1)),
    "params is a list": ("JSON object", put("estimator", "params", [])),
    "unknown parameter": ("no parameter called callback", put(*PARAMS, "callback", None)),
    "invalid parameter": ("Got -1.0", put(*PARAMS, "ridge", -1.0)),
    "parameter of another type": ("Got '8'", put(*PARAMS, "n_components", "8")),
    "callable parameter": ("'callable' is not a known type", put(*PARAMS, "ridge", CALLABLE)),
    "type is a list": ("not a known type of value", put(*PARAMS, "ridge", {"type": []})),
    "type is missing": ("not a known type of value", put(*PARAMS, "ridge", {})),
    "unknown part": ("'Popen' names no part", put(*PARAMS, "ridge", {**PART, "class": "Popen"})),
    "part in the wrong place": ("'ridge' parameter", put(*PARAMS, "ridge", PART)),
    "unknown field": (
        "no field called command",
        put(*PARAMS, "ridge", {**PART, "fields": {"command": "ls"}}),
    ),
    "field of another type": (
        "n_gibbs_steps cannot be 'ls'",
        put(*PARAMS, "ridge", {**PART, "fields": {"n_gibbs_steps": "ls"}}),
    ),
    "impossible device": (
        "not a device",
        put(*PARAMS, "device", {"type": "device", "value": "ls; ls"}),
    ),
    "special float": (
        "not a special float",
        put(*PARAMS, "ridge", {"type": "float", "value": "1e400"}),
    ),
    "infinite ridge": (
        "must be a finite float",
        put(*STATE, "ridge_", {"type": "float", "value": "inf"}),
    ),
    "scalar out of range": (
        "out of bounds",
        put(*PARAMS, "n_components", {"type": "scalar", "dtype": "int8", "value": 300}),
    ),
    "scalar of another kind": (
        "not a value of dtype int8",
        put(*PARAMS, "n_components", {"type": "scalar", "dtype": "int8", "value": 1.0}),
    ),
    "scalar of no dtype": (
        "not the dtype of a scalar",
        put(*PARAMS, "n_components", {"type": "scalar", "dtype": "object", "value": 1}),
    ),
    "dictionary with a repeated key": (
        "same key twice",
        put(*PARAMS, "ridge", {"type": "dict", "items": [["a", 1], ["a", 2]]}),
    ),
    "deep nesting": ("nested more than", put(*PARAMS, "n_components", nested(200))),
    "unknown attribute": ("no fitted attribute called evil_", put(*STATE, "evil_", 1)),
    "a method as attribute": ("not the name of a fitted", put(*STATE, "transform", 1)),
    "a private attribute": ("not the name of a fitted", put(*STATE, "_skl_callbacks", [])),
    "a dunder": ("not the name of a fitted", put(*STATE, "__class__", "x")),
    "missing attribute": (
        "lacks its fitted attribute noise_variance_",
        drop(*STATE, "noise_variance_"),
    ),
    "missing width": ("n_features_in_ is None", drop(*STATE, "n_features_in_")),
    "width 0": ("n_features_in_ is 0", put(*STATE, "n_features_in_", 0)),
    "width true": ("n_features_in_ is True", put(*STATE, "n_features_in_", True)),
    "width as text": ("n_features_in_ is '3'", put(*STATE, "n_features_in_", "3")),
    "huge width": ("has shape", put(*STATE, "n_features_in_", 10**30)),
    "negative variance": ("noise_variance_ is -1.0", put(*STATE, "noise_variance_", -1.0)),
    "attribute of another type": ("must be a finite float", put(*STATE, "noise_variance_", "1.0")),
    "number in place of an array": ("must be an array of a floating", put(*STATE, "mean_", 1.0)),
    "names in place of numbers": (
        "dtype object",
        put(
            *STATE,
            "mean_",
            {"type": "strings", "dtype": "object", "shape": [3], "items": ["a"] * 3},
        ),
    ),
    "fewer strings than the shape": (
        "as many strings",
        put(
            *STATE,
            "feature_names_in_",
            {"type": "strings", "dtype": "object", "shape": [10**12], "items": ["a"]},
        ),
    ),
    "numbers as feature names": ("array of 3 strings", put(*STATE, "feature_names_in_", [1, 2, 3])),
    "wrong shape": ("has shape (4,)", tensor("mean_", np.zeros(4))),
    "wrong number of axes": ("has shape (3, 1)", tensor("mean_", np.zeros((3, 1)))),
    "huge array of nothing": (
        "has shape (0, 1099511627776)",
        tensor("mean_", np.zeros((0, 2**40))),
    ),
    "wrong dtype": ("dtype int64", tensor("mean_", np.zeros(3, np.int64))),
    "NaN weights": ("NaN or infinity", tensor("mean_", np.array([0, np.nan, 0]))),
    "infinite weights": ("NaN or infinity", tensor("mean_", np.array([0, np.inf, 0]))),
    "tensor without use": ("nothing refers to", tensor("more", np.zeros(3))),
    "missing tensor": ("missing or used twice", lambda document, tensors: tensors.pop("mean_")),
    "tensor used twice": (
        "missing or used twice",
        put(*STATE, "mean_", {"type": "array", "tensor": "explained_variance_", "order": "C"}),
    ),
    "array in no order": ("the order 'C' or 'F'", put(*STATE, "mean_", "order", "K")),
    "output of another library": ("output is 'os'", put("estimator", "output", "os")),
    "newer format": ("install a newer sklebm", put("format_version", 2)),
    "format 0": ("format_version is 0", put("format_version", 0)),
    "format as text": ("format_version is '1'", put("format_version", "1")),
    "format true": ("format_version is True", put("format_version", True)),
    "no format": ("format_version is None", drop("format_version")),
    "extra key": ("has the keys", put("extra", 1)),
    "no versions": ("versions are", put("versions", {})),
    "versions are numbers": (
        "versions are",
        put("versions", dict.fromkeys(["numpy", "sklebm", "torch"], 1)),
    ),
    "version of no form": ("not a version", put("versions", "sklebm", "newest")),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_metadata_is_refused(case, whole, path):
    document, tensors = read_file(path)
    del document["sha256"]
    reason, edit = HOSTILE[case]
    edit(document, tensors)
    path.write_bytes(to_bytes(document, tensors))
    with pytest.raises(ValueError, match=f"cannot be loaded: .*{re.escape(reason)}"):
        sklebm.load(path)


def test_a_long_name_does_not_fill_the_terminal(whole, path):
    document, tensors = read_file(path)
    del document["sha256"]
    document["estimator"]["class"] = "A" * 10**6
    path.write_bytes(to_bytes(document, tensors))
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        sklebm.load(path)
    assert len(str(caught.value)) < 2000


def test_the_forger_of_these_tests_can_write_a_valid_file(whole, path):
    document, tensors = read_file(path)
    del document["sha256"]
    path.write_bytes(to_bytes(document, tensors))
    assert path.read_bytes() == whole
    assert isinstance(sklebm.load(path), PCAWhitener)


STRANGE = (
    *(None, True, -1, 0, 10**40, 0.5, -0.0, 1e308, "", "mean_", "..", "os.system", [], {}, [[]]),
    *({"type": "dict", "items": []}, {"type": "tuple", "items": [1]}, CALLABLE, PART),
    {"type": "array", "tensor": "mean_", "order": "F"},
    {"type": "scalar", "dtype": "float32", "value": 1e300},
    {"type": "strings", "dtype": "str", "shape": [0, 2**60], "items": []},
    {"type": "device", "value": "cuda:99999999999999999999"},
)


def spots(node):
    """Every place in a document: the container and the key."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, item in list(pairs):
        yield node, key
        if isinstance(item, (dict, list)):
            yield from spots(item)


@pytest.mark.parametrize("kind", ["detector", "machine"])
def test_any_other_document_loads_or_is_refused(kind, path):
    """Random edits of well-signed documents: a valid estimator or ValueError, nothing else."""
    machine = BernoulliRBM(2, objective=PersistentContrastiveDivergence(), max_epochs=1)
    model = machine if kind == "machine" else EnergyOutlierDetector()
    sklebm.save(model.fit(make_rows(40)), path)
    original, rng = path.read_bytes(), generator("hostile")
    refused = 0
    for _ in range(5000 if FULL else 250):
        path.write_bytes(original)
        document, tensors = read_file(path)
        del document["sha256"]
        container, key = rng.choice([*spots(document)])
        container[key] = rng.choice(STRANGE)
        path.write_bytes(to_bytes(document, tensors))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # newer versions
                assert type(sklebm.load(path)).__name__ in sklebm.ESTIMATORS
        except ValueError as error:
            assert "cannot be loaded" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 100


def test_a_hostile_detector_is_refused(path):
    sklebm.save(EnergyOutlierDetector().fit(make_rows()), path)
    edits = {
        "member of another width": tensor("location_", np.zeros(5)),
        "no members": put(*STATE, "named_estimators_", {"type": "dict", "items": []}),
        "unfitted member": put(
            *STATE,
            "named_estimators_",
            {"type": "dict", "items": [["a", Encoder().estimator(PCAWhitener())]]},
        ),
        "scale of zero": tensor("scale_", np.zeros(6)),
        "quantiles that fall": tensor("training_quantiles_", np.zeros((4, 4)) - np.arange(4)),
        "no quantiles": tensor("training_quantiles_", np.zeros((4, 0))),
        "no scale": drop(*STATE, "scale_"),
        "foreign estimator": put(
            *PARAMS,
            "estimator",
            {"type": "estimator", "class": "SVC", "params": {}, "state": {}, "output": None},
        ),
    }
    reasons = {
        "member of another width": "location_",
        "no members": "named_estimators_",
        "unfitted member": "named_estimators_",
        "scale of zero": "scale_ must be positive",
        "quantiles that fall": "training_quantiles_ must ascend",
        "no quantiles": "training_quantiles_ must ascend",
        "no scale": "scale_",
        "foreign estimator": "SVC",
    }
    original = path.read_bytes()
    for name, edit in edits.items():
        path.write_bytes(original)
        document, tensors = read_file(path)
        del document["sha256"]
        edit(document, tensors)
        path.write_bytes(to_bytes(document, tensors))
        with pytest.raises(ValueError, match=f"cannot be loaded: .*{reasons[name]}"):
            sklebm.load(path)


@pytest.mark.parametrize("name", ["objective_kind", "n_calls"])
@pytest.mark.parametrize(
    "number",
    [
        {"type": "float", "value": "nan"},
        {"type": "scalar", "dtype": "float32", "value": {"type": "float", "value": "inf"}},
    ],
)
def test_training_state_of_numbers_that_are_not_finite_is_refused(name, number, path):
    sklebm.save(BernoulliRBM(2, objective="pcd", max_epochs=1).fit(make_rows(20)), path)
    document, tensors = read_file(path)
    del document["sha256"]
    state = document["estimator"]["state"]["training_state_"]
    next(pair for pair in state["items"] if pair[0] == name)[1] = number
    path.write_bytes(to_bytes(document, tensors))
    reason = "training_state_ must be a dictionary of arrays and finite numbers"
    with pytest.raises(ValueError, match=f"cannot be loaded: .*{reason}"):
        sklebm.load(path)


@pytest.mark.parametrize(("written_by", "warns"), [("99.0.0", True), ("0.0.9", False)])
def test_a_newer_version_warns(written_by, warns, whole, path):
    document, tensors = read_file(path)
    del document["sha256"]
    document["versions"]["sklebm"] = written_by
    path.write_bytes(to_bytes(document, tensors))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sklebm.load(path)
    assert [str(item.message) for item in caught if "written by sklebm" in str(item.message)] == [
        str(item.message) for item in caught
    ]
    assert bool(caught) == warns
    if warns:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match=r"99\.0\.0"):
                sklebm.load(path)
