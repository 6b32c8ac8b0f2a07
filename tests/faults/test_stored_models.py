"""Files of earlier formats stay readable: one stored file a format, written when it was current.

A safetensors file is binary and small here, so the repository holds it as base64 text, in which
changes can be reviewed. While a format is unreleased, ``SKLEBM_WRITE_MODELS=1 python -m pytest
tests/faults/test_stored_models.py`` writes its files anew. After that they never change: a test
that fails here means that users' files no longer load, and asks for a new ``FORMAT_VERSION`` with
an entry in ``sklebm.persistence.UPGRADES``.
"""

import base64
import json
import os
import textwrap
from pathlib import Path

import numpy as np
import pytest

import sklebm
from sklebm import BernoulliRBM, EnergyKMeans, EnergyOutlierDetector, PCAWhitener, persistence
from sklebm._shell.tensor_file import read_file, to_bytes
from sklebm.objectives import PersistentContrastiveDivergence
from tests.registry import make_rows

FOLDER = Path(__file__).with_name("stored_models")
ROWS = make_rows(20)[:, :3]
MODELS = {
    "whitener": lambda: PCAWhitener(2, ridge=0.1).set_output(transform="pandas"),
    "kmeans": lambda: EnergyKMeans(2, init=ROWS[:2], output="responsibility"),
    "rbm": lambda: BernoulliRBM(
        2, objective=PersistentContrastiveDivergence(n_chains=3), max_epochs=2, random_state=0
    ),
    "detector": lambda: EnergyOutlierDetector([("a", PCAWhitener(1)), ("b", PCAWhitener())]),
    # Written when the default was five energies.
    "default_detector": lambda: EnergyOutlierDetector(),
}


def stored(name, version):
    """The bytes of a stored file, and what its model answered."""
    record = json.loads((FOLDER / f"{name}_{version}.json").read_text())
    return base64.b64decode("".join(record["file"])), record["scores"]


def write(name, path):
    model = MODELS[name]().fit(ROWS)
    sklebm.save(model, path)
    lines = textwrap.wrap(base64.b64encode(path.read_bytes()).decode(), 96)
    record = {"scores": model.score_samples(ROWS[:5]).tolist(), "file": lines}
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(record, indent=1) + "\n"
    (FOLDER / f"{name}_{persistence.FORMAT_VERSION}.json").write_text(text)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("version", range(1, persistence.FORMAT_VERSION + 1))
def test_stored_files_load_and_answer_as_they_did(name, version, path):
    if os.environ.get("SKLEBM_WRITE_MODELS"):
        write(name, path)
    data, scores = stored(name, version)
    path.write_bytes(data)
    assert read_file(path)[0]["format_version"] == version
    model = sklebm.load(path)
    assert type(model) is type(MODELS[name]())
    np.testing.assert_allclose(model.score_samples(ROWS[:5]), scores, rtol=1e-6)


def as_if_later(document):
    """A format in which a parameter of whiteners has another name."""
    params = document["estimator"]["params"]
    params["ridge"] = params.pop("regularisation")
    return {**document, "format_version": 2}


def test_older_formats_are_upgraded_and_newer_refused(path, monkeypatch):
    """The next version of the library, with a format of its own, and the present one."""
    sklebm.save(PCAWhitener(ridge=0.25).fit(ROWS), path)
    document, tensors = read_file(path)
    del document["sha256"]
    params = document["estimator"]["params"]
    params["regularisation"] = params.pop("ridge")
    path.write_bytes(to_bytes(document, tensors))
    with pytest.raises(ValueError, match="no parameter called regularisation"):
        sklebm.load(path)
    with monkeypatch.context() as patch:
        patch.setattr(persistence, "FORMAT_VERSION", 2)
        patch.setitem(persistence.UPGRADES, 1, as_if_later)
        assert sklebm.load(path).ridge == 0.25
        sklebm.save(PCAWhitener(), path)
    with pytest.raises(ValueError, match=r"format_version is 2.*install a newer sklebm"):
        sklebm.load(path)


def test_every_format_has_a_way_to_the_present_one():
    assert set(persistence.UPGRADES) == set(range(1, persistence.FORMAT_VERSION))
