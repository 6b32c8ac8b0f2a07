"""Same seed, same numbers; and nobody else's random numbers are touched."""

import hashlib
import json
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone

import sklebm
from tests.registry import (
    NAMES,
    fitted_state,
    freeze,
    is_gradient_trained,
    make,
    make_rows,
    make_seeded,
    make_variants,
    row_methods,
    takes,
)
from tests.sampling import sample
from tests.subprocesses import global_states, run_python

every = pytest.mark.parametrize("name", NAMES)
seeded = pytest.mark.parametrize(
    "name", [name for name in NAMES if takes(make(name), "random_state")]
)


def test_the_probe_sees_every_generator():
    for draw in (random.random, np.random.standard_normal, lambda: torch.rand(1)):
        before = global_states()
        draw()
        assert global_states() != before


def test_import_draws_nothing():
    run_python("""
import sklearn.callback, skorch  # scikit-learn's own import draws from random
from tests.subprocesses import global_states
before = global_states()
import sklebm
for name in sklebm.__all__:
    getattr(sklebm, name)
assert global_states() == before
""")


@every
def test_nothing_draws_from_the_global_generators(name, tmp_path):
    X = make_rows()
    for model in make_variants(name):
        before = global_states()
        model.fit(X)
        for method in row_methods(model):
            getattr(model, method)(X)
        if hasattr(model, "score"):
            model.score(X)
        if hasattr(model, "sample"):
            model.sample(2, random_state=0)
        if hasattr(model, "partial_fit"):
            model.partial_fit(X)
        clone(pickle.loads(pickle.dumps(model)))
        if hasattr(sklebm, "save"):
            sklebm.save(model, tmp_path / "model.safetensors")
            sklebm.load(tmp_path / "model.safetensors").score_samples(X)
        assert global_states() == before


@seeded
def test_no_seed_draws_from_nobody_either(name):
    before = global_states()
    models = [make_seeded(name, random_state=None).fit(make_rows(noise=0.4)) for _ in range(3)]
    assert global_states() == before
    assert len({str(freeze(fitted_state(model))) for model in models}) > 1


@seeded
def test_seeds_of_every_kind(name):
    X = make_rows(noise=0.4)
    integer = freeze(fitted_state(make_seeded(name, random_state=3).fit(X)))
    assert freeze(fitted_state(make_seeded(name, random_state=np.int64(3)).fit(X))) == integer
    assert freeze(fitted_state(make_seeded(name, random_state=4).fit(X))) != integer
    state = np.random.RandomState(3)
    first = freeze(fitted_state(make_seeded(name, random_state=state).fit(X)))
    assert first == integer
    assert freeze(fitted_state(make_seeded(name, random_state=state).fit(X))) != first
    with pytest.raises(ValueError, match="random_state"):
        make_seeded(name, random_state=np.random.default_rng(0)).fit(X)


@every
def test_global_seeds_change_nothing(name):
    results = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (the global generator is what is tested)
        torch.manual_seed(seed)
        results.append(freeze(fitted_state(make(name).fit(make_rows()))))
    assert results[0] == results[1]


@every
@pytest.mark.parametrize("n_threads", [1, 2])
def test_two_fits_are_equal_to_the_last_bit(name, n_threads, set_threads):
    set_threads(n_threads)
    X = make_rows(300, noise=0.3)
    for model in make_variants(name):
        twin = clone(model)
        assert freeze(fitted_state(model.fit(X))) == freeze(fitted_state(twin.fit(X)))
        for method in row_methods(model):
            np.testing.assert_array_equal(getattr(model, method)(X), getattr(twin, method)(X))


@every
def test_the_number_of_threads_changes_rounding_only(name, set_threads):
    # Sums in another order. Single-precision training amplifies the last bit step by step.
    tolerance = 1e-3 if is_gradient_trained(make(name)) else 1e-9
    X = make_rows(300, noise=0.3)
    scores = []
    for n_threads in (1, 2):
        set_threads(n_threads)
        scores.append(make(name).fit(X).score_samples(X))
    np.testing.assert_allclose(scores[1], scores[0], rtol=tolerance, atol=tolerance)


@every
def test_fits_in_two_threads_do_not_disturb_each_other(name):
    data = [make_rows(200, seed=seed, noise=0.3) for seed in range(4)]
    alone = [freeze(fitted_state(make(name).fit(X))) for X in data]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda X: freeze(fitted_state(make(name).fit(X))), data))
    assert together == alone


@every
def test_one_estimator_scores_in_two_threads(name):
    model = make(name).fit(make_rows())
    data = [make_rows(200, seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(model.score_samples, data))
    for X, scores in zip(data, together, strict=True):
        np.testing.assert_array_equal(scores, model.score_samples(X))


def digest(model):
    return hashlib.sha256(str(freeze(fitted_state(model))).encode()).hexdigest()


def test_another_process_opens_the_pickles_and_finds_the_same_bits(tmp_path):
    """What the documentation promises: same machine, same versions, same number of threads."""
    names = sample(NAMES, 16, "another process")
    models = {name: make(name).fit(make_rows()) for name in names}
    (tmp_path / "models.pkl").write_bytes(pickle.dumps((models, make_rows(5))))
    answer = run_python(
        """
import json, pickle, sys
models, X = pickle.load(open(sys.argv[1], "rb"))  # nothing of sklebm has been imported
scores = {name: model.score_samples(X).tolist() for name, model in models.items()}
import torch
torch.set_num_threads(1)
from tests.registry import make, make_rows
from tests.test_determinism import digest
digests = {name: digest(make(name).fit(make_rows())) for name in models}
print(json.dumps([scores, digests]))
""",
        tmp_path / "models.pkl",
    )
    scores, digests = json.loads(answer)
    assert digests == {name: digest(model) for name, model in models.items()}
    for name, model in models.items():
        # Until it is told otherwise, a process has another number of threads: another rounding.
        np.testing.assert_allclose(scores[name], model.score_samples(make_rows(5)), rtol=1e-12)
