"""The contract of estimators with targets: ``fit(X, y)`` promises what ``fit(X)`` does elsewhere.

The tables of the other files call ``fit(X)``. Here are the same promises for models that need y,
and those that only they can make: targets in every container, weights that are repetitions.
"""

import copy
import functools
import io
import pickle
import random

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import skops.io
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import get_tags

import sklebm
from sklebm._shell.state import Array, Labels
from tests.bad_input_table import INPUTS
from tests.bad_parameter_table import ELSEWHERE, bad_values, names_it
from tests.registry import (
    DEPEND_ON_NEIGHBOURS,
    SUPERVISED,
    entry,
    fit_takes,
    fitted_state,
    freeze,
    is_gradient_trained,
    learn,
    make,
    make_brief,
    make_rows,
    make_targets,
    make_variants,
    row_methods,
    takes,
)
from tests.subprocesses import global_states
from tests.test_bad_input import assert_finite_answers, call
from tests.test_bad_parameters import attempt
from tests.test_callback_contract import Recorder, interrupt, stop
from tests.test_torch_surroundings import SURROUNDINGS

every = pytest.mark.parametrize("name", SUPERVISED)
FURTHER_METHODS = ("predict_proba", "predict_log_proba")
PAIR_METHODS = ("energy", "conditional_log_density")


def every_with(*methods):
    """Every supervised estimator that has these methods."""
    names = [n for n in SUPERVISED if all(hasattr(make(n), method) for method in methods)]
    return pytest.mark.parametrize("name", names)


def answers(model, X, y):
    """What all methods say of rows, and of rows with targets, by name."""
    found = {name: getattr(model, name)(X) for name in row_methods(model)}
    found |= {name: getattr(model, name)(X) for name in FURTHER_METHODS if hasattr(model, name)}
    pairs = [name for name in PAIR_METHODS if hasattr(model, name)]
    return found | {name: getattr(model, name)(X, y) for name in pairs}


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        one, other = np.asarray(value), np.asarray(expected[name])
        if tolerance and one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, err_msg=name, **tolerance)
        else:
            np.testing.assert_array_equal(one, other, err_msg=name)


def partial_arguments(model, y):
    return {"classes": np.unique(y)} if is_classifier(model) else {}


# ---------------------------------------------------------------- fit


@every
def test_fit_twice_is_fit_once_to_the_last_bit(name):
    for model in make_variants(name):
        once = freeze(fitted_state(learn(model, make_rows())))
        assert freeze(fitted_state(learn(model, make_rows()))) == once
        assert freeze(fitted_state(learn(clone(model), make_rows()))) == once


@every
def test_fit_after_fit_on_another_width_starts_again(name):
    model = learn(make(name), make_rows()[:, :4])
    assert freeze(learn(model, make_rows())) == freeze(learn(make(name), make_rows()))


@pytest.mark.parametrize("name", [n for n in SUPERVISED if fit_takes(make(n), "sample_weight")])
def test_weights_are_repetitions_and_rows_have_no_order(name):
    X = make_rows(60, noise=0.3)
    y = make_targets(name, X)
    weight = np.arange(60) % 3
    again = np.repeat(np.arange(60), weight)
    for model in make_variants(name):
        weighted = clone(model).fit(X, y, sample_weight=weight)
        shuffled = np.random.default_rng(0).permutation(again)
        repeated = clone(model).fit(X[shuffled], y[shuffled])
        assert_same(answers(weighted, X, y), answers(repeated, X, y), rtol=1e-6, atol=1e-8)
        thrice = clone(model).fit(X, y, sample_weight=np.full(60, 3.0))
        assert_same(
            answers(thrice, X, y), answers(clone(model).fit(X, y), X, y), rtol=1e-6, atol=1e-8
        )
        for wrong in (weight[1:], -1.0 * weight, np.zeros(60), np.full(60, np.nan)):
            with pytest.raises(ValueError, match=r"[Ww]eight"):
                clone(model).fit(X, y, sample_weight=wrong)


@every
@pytest.mark.parametrize("was_fitted", [False, True])
@pytest.mark.parametrize("fault", [RuntimeError("fault"), KeyboardInterrupt(), MemoryError()])
def test_a_fault_while_learning_leaves_the_estimator_as_it_was(
    name, was_fitted, fault, monkeypatch
):
    X = make_rows(seed=1)
    y = make_targets(name, X)
    for method in ("fit", "partial_fit"):
        model = make_brief(name)
        if not hasattr(model, method):
            continue
        if was_fitted:
            learn(model, make_rows())
        before = freeze(vars(model))
        work = getattr(type(model), f"_{method}")

        @functools.wraps(work)
        def work_and_fail(*args, work=work, **kwargs):
            work(*args, **kwargs)
            raise fault

        arguments = partial_arguments(model, y) if method == "partial_fit" else {}
        with monkeypatch.context() as patch:
            patch.setattr(type(model), f"_{method}", work_and_fail)
            with pytest.raises(type(fault)):
                getattr(model, method)(X, y, **arguments)
        assert freeze(vars(model)) == before


@every
@pytest.mark.parametrize("was_fitted", [False, True])
def test_bad_targets_are_named_and_change_nothing(name, was_fitted):
    X = make_rows()
    y = make_targets(name, X)
    numbers = np.arange(len(X)) % 3.0
    bad = {
        r"requires y to be passed, but the target y is None": None,
        r"y has 119 entries, but X has 120 rows|inconsistent": y[1:],
        r"y .*NaN": np.where(np.arange(len(X)) == 7, np.nan, numbers),
        r"y .*infinity": np.where(np.arange(len(X)) == 7, np.inf, numbers),
        r"y .*shape|1d array|labels|dim 3": np.zeros((len(X), 2, 2)),
    }
    model = make_brief(name)
    if was_fitted:
        learn(model, X)
    before = freeze(vars(model))
    for message, wrong in bad.items():
        for method in ("fit", "partial_fit"):
            if not hasattr(model, method):
                continue
            arguments = partial_arguments(model, y) if method == "partial_fit" else {}
            with pytest.raises(ValueError, match=message):
                getattr(model, method)(X, wrong, **arguments)
            assert freeze(vars(model)) == before
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.full_like(X, np.nan), y)
    assert freeze(vars(model)) == before


@every
def test_methods_before_fit_say_so(name):
    model, X = make(name), make_rows()
    y = make_targets(name, X)
    for method in (*row_methods(model), *FURTHER_METHODS):
        if hasattr(model, method):
            with pytest.raises(NotFittedError, match=f"{name} instance is not fitted yet"):
                getattr(model, method)(X)
    for method in (*PAIR_METHODS, "score"):
        if hasattr(model, method):
            with pytest.raises(NotFittedError, match=f"{name} instance is not fitted yet"):
                getattr(model, method)(X, y)


@every
def test_fitted_state_is_numpy_and_plain_scalars_only(name):
    allowed = (np.ndarray, np.generic, int, float, str, bool, type(None))
    for model in make_variants(name):
        for key, value in fitted_state(learn(model, make_rows())).items():
            for item in value.values() if isinstance(value, dict) else [value]:
                assert isinstance(item, allowed), key
        model._check_state()
        model.stranger_ = 1
        with pytest.raises(ValueError, match="stranger_"):
            model._check_state()


# ---------------------------------------------------------------- partial_fit


@every_with("partial_fit")
def test_partial_fit_does_not_depend_on_chunks(name):
    X, X_test = make_rows(183), make_rows(200, seed=2)
    y = make_targets(name, X)
    scores = {}
    for seed in range(6):
        for n_chunks in (1, 5, 143) if seed == 0 else (1,):
            model = make(name, random_state=seed)
            model.partial_fit(X[:40], y[:40], **partial_arguments(model, y))
            for part in np.array_split(np.arange(40, 183), n_chunks):
                model.partial_fit(X[part], y[part])
            scores[seed, n_chunks] = model.score_samples(X_test).mean()
    # Steps of other sizes walk another path: they agree as two seeds do.
    chunked = [scores[0, n] for n in (1, 5, 143)]
    seeds = [scores[seed, 1] for seed in range(6)]
    assert max(chunked) - min(chunked) <= max(seeds) - min(seeds)


@every_with("partial_fit")
def test_partial_fit_goes_on_from_fit(name):
    X = make_rows()
    y = make_targets(name, X)
    model = make(name).fit(X, y)
    before = answers(model, X, y)
    model.partial_fit(X, y)
    assert not np.array_equal(before["score_samples"], model.score_samples(X))
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(X[:, :3], y)
    if is_classifier(model):
        with pytest.raises(ValueError, match="classes"):
            make(name).partial_fit(X, y)
        with pytest.raises(ValueError, match="labels"):
            model.partial_fit(X, np.full(len(X), "stranger"))


@pytest.mark.parametrize("name", [n for n in SUPERVISED if takes(make(n), "warm_start")])
def test_warm_start_goes_on_and_refuses_another_shape(name):
    X = make_rows()
    model = learn(make_brief(name, warm_start=True), X)
    first = model.score_samples(X)
    assert not np.array_equal(learn(model, X).score_samples(X), first)
    with pytest.raises(ValueError, match="features"):
        learn(model, X[:, :4])
    before = freeze(vars(model.set_params(hidden_sizes=(3, 3))))
    with pytest.raises(ValueError, match="hidden_sizes"):
        learn(model, X)
    assert freeze(vars(model)) == before


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("name", [n for n in SUPERVISED if entry(n).untrained])
def test_training_beats_the_initialisation_on_held_out_rows(name):
    """In each setting, by its own score and, where there is one, by the density of the targets."""
    settings = ({}, *entry(name).variants)
    for setting in settings:
        gains = []
        for seed in range(3):
            X, X_test = make_rows(200, seed, noise=0.3), make_rows(300, 100 + seed, noise=0.3)
            y_test = make_targets(name, X_test)
            chosen = (
                {**setting, "random_state": seed} if takes(make(name), "random_state") else setting
            )
            model = learn(make(name, **chosen), X)
            at_start = {**chosen, **entry(name).untrained}
            start = learn(make(name, **at_start), X)
            gains.append(model.score(X_test, y_test) - start.score(X_test, y_test))
        assert np.median(gains) > 0, setting


@every
def test_every_parameter_of_the_network_moves(name):
    if name == "GridMRF":
        pytest.skip("rows without positions have no neighbours: its own tests train transitions")
    for setting in ({}, *entry(name).variants):
        start = learn(make(name, **{**setting, **entry(name).untrained}), make_rows())
        model = learn(make(name, **setting), make_rows())
        learnt, before = ({**vars(m), **getattr(m, "weights_", {})} for m in (model, start))
        keys = [key for key, spec in model._state_spec().items() if getattr(spec, "of", None)]
        keys = [key for key in keys if learnt[key] is not None]
        keys += getattr(model, "weights_", {})
        assert keys
        for key in keys:
            assert np.abs(learnt[key] - before[key]).max() > 1e-6, (setting, key)


@every_with("free_energy")
def test_free_energy_is_the_equation(name):
    X = make_rows(60, seed=1)
    model = learn(make(name), make_rows())
    truth = entry(name).free_energy(model, X)
    np.testing.assert_allclose(model.free_energy(X), truth, rtol=1e-9, atol=1e-9)
    rest = model.score_samples(X) + getattr(model, "beta_", 1.0) * model.free_energy(X)
    np.testing.assert_allclose(rest, rest[0], rtol=0, atol=1e-9 * (1 + abs(rest[0])))


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize("name", [n for n in SUPERVISED if n not in DEPEND_ON_NEIGHBOURS])
def test_rows_are_independent_of_their_company(name):
    X = make_rows(300, seed=1)
    y = make_targets(name, X)
    order = np.random.default_rng(0).permutation(len(X))
    same = {"rtol": 1e-9, "atol": 1e-9}
    for model in make_variants(name):
        learn(model, make_rows())
        whole = answers(model, X, y)
        shuffled = {key: value[order] for key, value in whole.items()}
        assert_same(answers(model, X[order], y[order]), shuffled, **same)
        alone = [answers(model, X[i : i + 1], y[i : i + 1]) for i in range(5)]
        joined = {key: np.concatenate([part[key] for part in alone]) for key in whole}
        assert_same(joined, {key: value[:5] for key, value in whole.items()}, **same)
        assert whole["score_samples"].std() > 1e-6


@every
def test_row_methods_change_nothing(name):
    X = make_rows(seed=1)
    y = make_targets(name, X)
    model = learn(make(name), make_rows())
    before, copy_of_X = freeze(vars(model)), X.copy()
    assert_same(answers(model, X, y), answers(model, X, y))
    model.score(X, y)
    assert freeze(vars(model)) == before
    np.testing.assert_array_equal(X, copy_of_X)


@every
def test_answers_do_not_depend_on_working_memory(name):
    import sklearn

    X = make_rows(200, seed=1)
    y = make_targets(name, X)
    for model in make_variants(name):
        whole = answers(learn(model, make_rows()), X, y)
        with sklearn.config_context(working_memory=0.001):
            assert_same(answers(model, X, y), whole, rtol=1e-9, atol=1e-9)


@every
def test_units_of_features_change_no_prediction(name):
    """Rows are scaled inside: single precision keeps seven digits, and learning its way."""
    X = make_rows(200, noise=0.2)
    y = make_targets(name, X)
    before = make(name).fit(X, y).predict(X)
    for scale, shift in ((1e3, 0.0), (1e-3, 0.0), (1.0, 1e3), (np.logspace(-6, 6, 6), 0.0)):
        after = make(name).fit(X * scale + shift, y).predict(X * scale + shift)
        if before.dtype.kind == "f":
            np.testing.assert_allclose(after, before, atol=0.05 * before.std())
        else:
            assert np.mean(after == before) >= 0.98


# ---------------------------------------------------------------- copies


@every
def test_copies_and_files_answer_alike(name, tmp_path):
    X = make_rows(seed=1)
    y = make_targets(name, X)
    for model in make_variants(name):
        learn(model, make_rows())
        buffer = io.BytesIO()
        joblib.dump(model, buffer)
        buffer.seek(0)
        sklebm.save(model, tmp_path / "model.safetensors")
        stored = skops.io.dumps(model)
        untrusted = skops.io.get_untrusted_types(data=stored)
        assert all(kind.startswith("sklebm.") for kind in untrusted)
        twins = {
            "pickle": pickle.loads(pickle.dumps(model)),
            "joblib": joblib.load(buffer),
            "copy": copy.deepcopy(model),
            "file": sklebm.load(tmp_path / "model.safetensors"),
            "skops": skops.io.loads(stored, trusted=untrusted),
        }
        for kind, twin in twins.items():
            assert type(twin) is type(model)
            if kind != "skops":
                assert freeze(vars(twin)) == freeze(vars(model)), kind
            assert_same(answers(twin, X, y), answers(model, X, y))
        assert not fitted_state(clone(model))
        first = (tmp_path / "model.safetensors").read_bytes()
        sklebm.save(learn(clone(model), make_rows()), tmp_path / "model.safetensors")
        assert (tmp_path / "model.safetensors").read_bytes() == first


@every_with("partial_fit")
def test_learning_goes_on_where_it_stopped(name, tmp_path):
    X = make_rows(seed=1)
    y = make_targets(name, X)
    model = learn(make(name), make_rows())
    sklebm.save(model, tmp_path / "model.safetensors")
    twin = sklebm.load(tmp_path / "model.safetensors")
    for learner in (model, twin):
        learner.partial_fit(X, y)
    assert freeze(vars(twin)) == freeze(vars(model))


def given_parameters(model):
    """What the energy of a fitted model is made of."""
    spec = model._state_spec()
    names = [key for key, declared in spec.items() if isinstance(declared, Array) and declared.of]
    names += [key for key, declared in spec.items() if isinstance(declared, Labels)]
    names += [key for key in (*getattr(model, "_of_targets", ()), "weights_") if key in spec]
    names += [key for key in ("offset_", "scale_") if key in spec]
    found = {key.removesuffix("_"): getattr(model, key) for key in names}
    return {key: value for key, value in found.items() if value is not None}


@every
def test_models_from_parameters_answer_as_after_a_fit(name):
    X = make_rows(seed=1)
    y = make_targets(name, X)
    for fitted in make_variants(name):
        learn(fitted, make_rows())
        given = given_parameters(fitted)
        chosen = {k: v for k, v in fitted.get_params(deep=False).items() if k not in given}
        model = type(fitted).from_parameters(**given, **chosen)
        assert_same(answers(model, X, y), answers(fitted, X, y))
        assert clone(model).get_params().keys() == fitted.get_params().keys()
        if hasattr(model, "partial_fit"):
            assert model.partial_fit(X[:40], y[:40]) is model
        missing = next(iter(given))
        rest = {key: value for key, value in given.items() if key != missing}
        with pytest.raises(TypeError, match=missing):
            type(fitted).from_parameters(**rest, **chosen)


# ---------------------------------------------------------------- randomness


@every
def test_nothing_draws_from_the_global_generators(name):
    X = make_rows()
    y = make_targets(name, X)
    for model in make_variants(name):
        before = global_states()
        model.fit(X, y)
        answers(model, X, y)
        model.score(X, y)
        if hasattr(model, "partial_fit"):
            model.partial_fit(X, y)
        assert global_states() == before


@every
def test_global_seeds_and_surroundings_change_nothing(name):
    results = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (the global generator is what is tested)
        torch.manual_seed(seed)
        results.append(freeze(fitted_state(learn(make_brief(name), make_rows()))))
    assert results[0] == results[1]
    for surroundings in SURROUNDINGS.values():
        with surroundings():
            found = learn(make_brief(name), make_rows())
            scores = found.score_samples(make_rows())
        assert freeze(fitted_state(found)) == results[0]
        np.testing.assert_array_equal(scores, found.score_samples(make_rows()))


@pytest.mark.parametrize("name", [n for n in SUPERVISED if takes(make(n), "random_state")])
def test_seeds_of_every_kind(name):
    X = make_rows(noise=0.4)
    # The order of sequences is drawn: there have to be some.
    some = {"groups": np.arange(len(X)) // 10} if fit_takes(make(name), "groups") else {}
    integer, again, other, state = (
        freeze(fitted_state(learn(make_brief(name, random_state=seed), X, **some)))
        for seed in (3, np.int64(3), 4, np.random.RandomState(3))
    )
    assert integer == again == state
    assert integer != other


@every
def test_the_number_of_threads_changes_rounding_only(name, set_threads):
    X = make_rows(300, noise=0.3)
    scores = []
    for n_threads in (1, 2):
        set_threads(n_threads)
        scores.append(learn(make(name), X).score_samples(X))
    tolerance = 1e-3 if is_gradient_trained(make(name)) else 1e-9
    np.testing.assert_allclose(scores[1], scores[0], rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- containers


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_preserved(name, dtype):
    X = make_rows(dtype=dtype)
    y = make_targets(name, X)
    for model in make_variants(name):
        learn(model, X)
        for method, value in answers(model, X, y).items():
            if not (method == "predict" and is_classifier(model)):
                assert value.dtype == dtype, method
    double = learn(make(name), X.astype(np.float64))
    expected = double.score_samples(X.astype(np.float64))
    single = learn(make(name), X).score_samples(X)
    np.testing.assert_allclose(single, expected, rtol=1e-3, atol=1e-3)


@every
def test_tensor_in_tensor_out(name, device):
    X = make_rows()
    y = make_targets(name, X)
    tensor = torch.from_numpy(X).to(device).requires_grad_()
    codes = np.unique(y, return_inverse=True)[1] if is_classifier(make(name)) else y
    model = make(name).fit(tensor, torch.from_numpy(codes).to(device))
    reference = answers(make(name).fit(X, codes), X, codes)
    for method, result in answers(model, tensor, codes).items():
        assert isinstance(result, torch.Tensor), method
        assert result.device.type == device.type
        assert not result.requires_grad
        if device.type == "cpu":
            np.testing.assert_allclose(result, reference[method], rtol=1e-6, atol=1e-6)
    assert tensor.grad is None
    assert all(not isinstance(value, torch.Tensor) for value in fitted_state(model).values())


COLUMNS = list("abcdef")
FRAMES = {
    "pandas": (lambda X: pd.DataFrame(X, columns=COLUMNS), pd.Series),
    "polars": (lambda X: pl.DataFrame(X, schema=COLUMNS), pl.Series),
    "lists": (lambda X: X.tolist(), lambda y: y.tolist()),
}


@every
@pytest.mark.parametrize("kind", FRAMES)
def test_rows_and_targets_in_every_container(name, kind):
    X = make_rows()
    y = make_targets(name, X)
    table, column = FRAMES[kind]
    model = make(name).fit(table(X), column(y))
    expected = answers(make(name).fit(X, y), X, y)
    assert_same(answers(model, table(X), column(y)), expected)
    if kind != "lists":
        assert list(model.feature_names_in_) == COLUMNS
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(table(X)[COLUMNS[::-1]])
        if hasattr(model, "transform"):
            codes = make(name).set_output(transform=kind).fit(table(X), column(y))
            assert type(codes.transform(table(X))) is type(table(X))
            assert list(codes.transform(table(X)).columns) == list(codes.get_feature_names_out())


@every
def test_sparse_rows_are_dense_rows_or_refused(name):
    X = np.where(make_rows() > 0.5, make_rows(), 0.0)
    y = make_targets(name, X)
    sparse = scipy.sparse.csr_array(X)
    if not get_tags(make(name)).input_tags.sparse:
        with pytest.raises(TypeError, match=r"[Ss]parse"):
            make(name).fit(sparse, y)
        return
    for model in make_variants(name):
        expected = answers(clone(model).fit(X, y), X, y)
        assert_same(answers(model.fit(sparse, y), sparse, y), expected, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- bad input, bad parameters

every_input = pytest.mark.parametrize(
    "case", INPUTS, ids=[f"{case.number} {case.name}" for case in INPUTS]
)


@pytest.mark.table(60)
@every
@every_input
@pytest.mark.parametrize("was_fitted", [False, True])
def test_bad_rows_are_refused_or_learnt(case, name, was_fitted):
    model = make_brief(name)
    if was_fitted:
        learn(model, make_rows())
    outcome = case.outcome("fit", get_tags(model).input_tags)
    X = case.make(make_rows())
    shape = getattr(X, "shape", None)
    n_rows = shape[0] if shape else len(X) if hasattr(X, "__len__") and shape is None else 120
    y = np.arange(n_rows) % 2 if is_classifier(model) else np.arange(n_rows) / 7.0
    if call(model, "fit", X, outcome, y=y) is not None:
        assert_finite_answers(model, case.make(make_rows()))


@pytest.mark.table(40)
@every
@every_input
def test_bad_rows_in_row_methods(case, name):
    model = learn(make_brief(name), make_rows())
    for method in row_methods(model):
        outcome = case.outcome(method, get_tags(model).input_tags)
        result = call(model, method, case.make(make_rows()), outcome)
        if result is not None and np.asarray(result).dtype.kind == "f":
            assert np.isfinite(np.asarray(result)).all()


def parameter_cases():
    for name in SUPERVISED:
        for parameter in make(name).get_params(deep=False):
            for value in bad_values(make(name), parameter):
                yield name, parameter, value


@pytest.mark.table(80)
@pytest.mark.parametrize(("name", "parameter", "value"), list(parameter_cases()))
def test_bad_value_is_named_shown_and_refused(name, parameter, value):
    X = make_rows()
    y = make_targets(name, X)
    model = learn(make_brief(name), X).set_params(**{parameter: value})
    before = freeze(vars(model))
    for method in ("fit", "partial_fit"):
        if hasattr(model, method):
            with pytest.raises((ValueError, TypeError)) as caught:
                getattr(model, method)(X, y)
            assert names_it(parameter, caught.value)
            assert freeze(vars(model)) == before
            if isinstance(value, (str, int, float)):
                assert str(value) in str(caught.value)


@every
def test_every_parameter_has_bad_values(name):
    model = make(name)
    without = {p for p in model.get_params(deep=False) if not bad_values(model, p)}
    assert without <= ELSEWHERE.keys()


@every
def test_parameters_changed_after_fit_change_no_score(name):
    X = make_rows()
    expected = learn(make(name), X).score_samples(X)
    for variant in entry(name).variants:
        model = learn(make(name), X).set_params(**variant)
        np.testing.assert_array_equal(model.score_samples(X), expected)


@pytest.mark.parametrize("name", [n for n in SUPERVISED if takes(make(n), "learning_rate")])
def test_learning_rates_beyond_reason_diverge_loudly_or_not_at_all(name):
    for rate in (1e4, 1e12, 1e38):
        model = make_brief(name, learning_rate=rate)
        error = attempt(lambda model=model: learn(model, make_rows()))
        if error is None:
            assert np.isfinite(model.score_samples(make_rows())).all()
        else:
            assert isinstance(error, FloatingPointError)
            assert "learning_rate" in str(error)
            assert not fitted_state(model)


# ---------------------------------------------------------------- callbacks and searches


@every
def test_callbacks_see_whole_estimators_and_change_no_number(name):
    recorder = Recorder()
    model = learn(make(name).set_callbacks(recorder), make_rows())
    assert recorder.events[:2] == ["setup", "begin fit"]
    assert recorder.events[-2:] == ["end fit", "teardown"]
    for scores, snapshot in recorder.snapshots[:: max(1, len(recorder.snapshots) - 1)]:
        np.testing.assert_array_equal(snapshot.score_samples(make_rows()), scores)
    plain = learn(make(name), make_rows())
    assert freeze(fitted_state(model)) == freeze(fitted_state(plain))


@pytest.mark.parametrize("name", [n for n in SUPERVISED if is_gradient_trained(make(n))])
def test_a_callback_stops_the_fit_at_its_step(name):
    recorder = Recorder(at_step=1, action=stop)
    model = learn(make(name).set_callbacks(recorder), make_rows(noise=0.3))
    assert model.n_iter_ == 1
    before = freeze(fitted_state(model))
    with pytest.raises(KeyboardInterrupt):
        learn(model.set_callbacks(Recorder(at_step=1, action=interrupt)), make_rows(seed=1))
    assert freeze(fitted_state(model)) == before


@pytest.mark.other_processes
@every
def test_searches_pipelines_and_predictions_across_folds(name):
    X = make_rows()
    y = make_targets(name, X)
    model = make_pipeline(MinMaxScaler(), make_brief(name))
    alone = cross_val_score(model, X, y, cv=3)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        together = cross_val_score(model, X, y, cv=3, n_jobs=2)
    np.testing.assert_array_equal(alone, together)
    assert len(cross_val_predict(model, X, y, cv=3)) == len(X)
    choices = {"learning_rate": [1e-9, 0.02]} if takes(make(name), "learning_rate") else {}
    search = GridSearchCV(make_brief(name), choices or {"C": [1e-9, 1.0]}, cv=2)
    search.fit(X, y)
    assert search.predict(X).shape[0] == len(X)
    pickle.loads(pickle.dumps(search))
