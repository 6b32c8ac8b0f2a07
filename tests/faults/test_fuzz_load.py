"""Thousands of mutated files: ``load`` returns the right object or raises ValueError, and soon.

Blind mutations change bytes; the checksum must catch each. Informed ones change the document or the
arrays and sign the result, as an attacker would: what then loads must be a valid model.
"""

import contextlib
import copy
import signal
import tracemalloc
import warnings

import numpy as np
import pytest

import sklebm
from sklebm import BernoulliRBM, EnergyKMeans, EnergyOutlierDetector, PCAWhitener
from sklebm._shell.state import first_broken
from sklebm._shell.tensor_file import read_file, to_bytes
from tests.registry import fitted_state, freeze, make_rows
from tests.sampling import FULL, generator

N_MUTATIONS = 10_000 if FULL else 600  # of each kind, over all models
WATCHDOG = 30  # seconds for one file
MEMORY = 4  # times the size of the file
MODELS = {
    "kmeans": lambda: EnergyKMeans(2, init=make_rows()[:2].repeat(40, axis=1)),
    "rbm": lambda: BernoulliRBM(8, batch_size=50, max_epochs=1, random_state=0),
    "detector": lambda: EnergyOutlierDetector([("a", PCAWhitener(1)), ("b", PCAWhitener())]),
}
VALUES = [
    *(None, True, False, 0, -1, 3, 2**31, 2**70, 0.5, -0.0, 1e308, 5e-324, "", "auto", "ridge"),
    *("os.system", "__class__", "é\u0000", "x" * 300, [], [[]], {}, {"type": "dict", "items": []}),
    *({"type": "float", "value": "nan"}, {"type": "array", "tensor": "estimator.mean_"}),
    *({"type": "estimator"}, {"type": "part", "class": "Langevin", "fields": {}}),
]


class Hung(BaseException):
    """``load`` took too long; no ``except Exception`` may hide it."""


@contextlib.contextmanager
def watchdog():
    """Raise Hung after a while, where the platform has an alarm."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def bark(*args):
        raise Hung

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(WATCHDOG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Path, bytes, document, tensors and frozen state of a valid file of each model."""
    files = {}
    for name, make in MODELS.items():
        path = tmp_path_factory.mktemp(name) / "model.safetensors"
        X = make_rows(600)
        model = make().fit(X.repeat(40, axis=1) if name == "kmeans" else X)
        sklebm.save(model, path)
        files[name] = (path, path.read_bytes(), *read_file(path), freeze(vars(model)))
    return files


def load(path):
    """The model, or None if the file is refused; nothing else may happen."""
    size = path.stat().st_size
    tracemalloc.start()
    try:
        with watchdog(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a version in the file may be newer
            return sklebm.load(path)
    except ValueError as error:
        if "cannot be loaded" not in str(error):
            raise
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # What small files need is the interpreter's own: frames, messages, JSON of the header.
        assert peak < MEMORY * max(size, 100_000), (peak, size)


def blind(data, rng):
    """Bytes with one change."""
    data = bytearray(data)
    place, length = rng.randrange(len(data)), rng.choice([1, 1, 2, 8, 64, 1000])
    kind = rng.randrange(7)
    if kind == 0:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[place : place + length] = rng.randbytes(length)
    elif kind == 2:
        del data[place : place + length]
    elif kind == 3:
        data[place:place] = rng.randbytes(length)
    elif kind == 4:
        data[place:place] = data[place : place + length]
    elif kind == 5:
        del data[place:]
    else:  # the claim about the header's length
        data[:8] = rng.choice([rng.randrange(2**64), rng.randrange(len(data))]).to_bytes(
            8, "little"
        )
    return bytes(data)


def nodes(value, path=()):
    """Paths to everything inside a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from nodes(item, (*path, key))


def at(document, path):
    for key in path:
        document = document[key]
    return document


def change_document(document, rng):
    places = list(nodes(document))
    *parent, key = rng.choice(places)
    holder = at(document, parent)
    kind = rng.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = copy.deepcopy(at(document, rng.choice(places)))
    elif kind == 2 and isinstance(holder, dict):
        holder[rng.choice(["extra", "ridge", "type", "labels_", "__init__"])] = holder.pop(key)
    elif kind == 3 and isinstance(holder[key], (int, float)):
        holder[key] += rng.choice([-1, 1, 0.5, 1e300])
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))


def change_tensors(tensors, rng):
    name = rng.choice(sorted(tensors))
    value = tensors[name]
    kind = rng.randrange(6)
    if kind == 0:
        tensors[rng.choice(["extra", "estimator.mean_"])] = tensors.pop(name)
    elif kind == 1:
        tensors[name] = value.astype(rng.choice(["f2", "f4", "f8", "i8", "u1", "?"]))
    elif kind == 2:
        tensors[name] = value.reshape(rng.choice([(-1,), (1, -1), (-1, 1)]))
    elif kind == 3:
        tensors[name] = np.zeros(rng.choice([(0,), (0, 2**40), (), (3, 0)]))
    elif kind == 4 and value.dtype.kind == "f" and value.size:
        value.flat[rng.randrange(value.size)] = rng.choice([np.nan, np.inf, 1e300, -1.0])
    else:
        tensors[name] = value[: len(value) // 2] if value.ndim else value
    return tensors


def informed(document, tensors, rng):
    """A signed file whose content was changed in one to three places."""
    document = copy.deepcopy({k: v for k, v in document.items() if k != "sha256"})
    tensors = {name: value.copy() for name, value in tensors.items()}
    for _ in range(rng.choice([1, 1, 2, 3])):
        if rng.random() < 0.7:
            change_document(document, rng)
        elif tensors:
            change_tensors(tensors, rng)
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    return to_bytes(document, tensors)


@pytest.mark.parametrize("name", MODELS)
def test_changed_bytes_are_refused_or_change_nothing(name, whole):
    path, data, _, _, state = whole[name]
    rng = generator(name)
    n_refused = 0
    for _ in range(N_MUTATIONS // len(MODELS)):
        path.write_bytes(blind(data, rng))
        model = load(path)
        n_refused += model is None
        assert model is None or freeze(vars(model)) == state
    assert n_refused > 0.9 * N_MUTATIONS // len(MODELS)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", MODELS)
def test_changed_content_is_refused_or_a_valid_model(name, whole):
    path, _, document, tensors, _ = whole[name]
    rng = generator(f"{name} signed")
    outcomes = set()
    for _ in range(N_MUTATIONS // len(MODELS)):
        with contextlib.suppress(OverflowError):  # JSON has no such number: no such file
            path.write_bytes(informed(document, tensors, rng))
        model = load(path)
        outcomes.add(model is None)
        if model is not None:
            assert type(model).__name__ in sklebm.ESTIMATORS
            assert first_broken(fitted_state(model)) is None
            sklebm.save(model, path)  # checks it once more
    assert outcomes == {True, False}
