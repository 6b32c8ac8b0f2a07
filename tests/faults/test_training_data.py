"""Models do not carry their training rows away, and what training leaves behind can be dropped."""

import numpy as np
import pytest

import sklebm
from tests.registry import NAMES, fitted_state, freeze, make, make_rows, make_variants, row_methods


def arrays(value, path):
    """Every array in fitted state, also in dictionaries and in estimators inside."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from arrays(item, f"{path}.{key}")
    elif hasattr(value, "get_params"):
        for key, item in fitted_state(value).items():
            yield from arrays(item, f"{path}.{key}")


def directions(rows):
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def distinct_rows(seed=0):
    """Rows of which none is at the edge of the range, so that nobody holds one by chance."""
    noise = np.random.default_rng(seed).uniform(-0.1, 0.1, (120, 6))
    return 0.2 + 0.6 * make_rows(120, seed=seed) + noise


def holds_rows(array, X):
    """True if a row or a column of the array is a row of X, centred or not, of any length."""
    tables = [array.reshape(-1, array.shape[-1])] if array.ndim > 1 else []
    tables += [array.T] if array.ndim == 2 else []
    for table in tables:
        if table.shape[1] != X.shape[1]:
            continue
        for shift in (0.0, X.mean(axis=0)):
            cosines = directions(table) @ directions(X - shift).T
            if (np.abs(cosines) > 1 - 1e-7).any():
                return True
    return False


# What the class documents: rows that ``drop_training_state`` removes, and models made of rows.
DOCUMENTED = {
    *("SparseCoder.online_state_.spare", "DeepSparseCoder.online_state_.layer1.spare"),
    *("HopfieldNetwork.patterns_", "NeighbourEnergy.samples_"),
}
CONTINUED = {"training_state_", "online_state_"}


@pytest.mark.parametrize("name", NAMES)
def test_fitted_state_holds_no_training_row(name):
    X = distinct_rows()
    for model in make_variants(name):
        model.fit(X)
        for method in ("fit", "partial_fit"):
            if hasattr(model, method):
                getattr(model, method)(X)
            for path, array in arrays(model, name):
                assert not holds_rows(array, X) or path in DOCUMENTED, path
        if hasattr(model, "drop_training_state"):
            model.drop_training_state()
            assert not [path for path, array in arrays(model, name) if holds_rows(array, X)]


def test_the_search_finds_rows():
    X = distinct_rows()
    for leak in (X[3:5], X[3:5].T, 0.01 * X[3:5], X[3:5] - X.mean(axis=0), X[:6].reshape(2, 3, 6)):
        assert holds_rows(leak, X)
    assert not holds_rows(distinct_rows(seed=1), X)
    assert holds_rows(sklebm.EnergyKMeans(len(X)).fit(X).cluster_centers_, X)


def training_states(model):
    """Training state of an estimator, or of the layers of one that goes on learning."""
    layers = getattr(model, "named_estimators_", {}) if hasattr(model, "partial_fit") else {}
    holders = [model, *layers.values()]
    return [
        getattr(holder, name)
        for holder in holders
        for name in sorted(CONTINUED & set(fitted_state(holder)))
    ]


@pytest.mark.parametrize("name", NAMES)
def test_training_state_can_be_dropped(name, tmp_path):
    """Scores stay, files shrink, and learning begins with new statistics."""
    model = make(name).fit(make_rows())
    kept = training_states(model)
    assert hasattr(model, "drop_training_state") == bool(kept)
    if not kept:
        return
    model.partial_fit(make_rows(7))  # within a batch
    holds_some = any(training_states(model))  # k-means keeps some only while centres lack rows
    paths = [tmp_path / f"{when}.safetensors" for when in ("before", "after")]
    sklebm.save(model, paths[0])
    answers = {method: getattr(model, method)(make_rows(seed=1)) for method in row_methods(model)}
    assert model.drop_training_state() is model
    for method, expected in answers.items():
        np.testing.assert_array_equal(getattr(model, method)(make_rows(seed=1)), expected)
    sklebm.save(model, paths[1])
    assert (paths[1].stat().st_size < paths[0].stat().st_size) == holds_some
    twin = sklebm.load(paths[1])
    assert freeze(vars(twin)) == freeze(vars(model))
    assert not any(training_states(twin))
    twin.partial_fit(make_rows(seed=1))
    assert np.isfinite(twin.score_samples(make_rows())).all()
