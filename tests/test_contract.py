"""The contract of every estimator: what fit promises, and what scores mean."""

import copy
import functools
import io
import pickle

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils import estimator_html_repr

import sklebm
from tests.registry import (
    DEPEND_ON_NEIGHBOURS,
    NAMES,
    all_row_methods,
    draw_rows,
    entry,
    fitted_state,
    freeze,
    in_sequences,
    is_gradient_trained,
    make,
    make_brief,
    make_rows,
    make_variants,
    names_with,
    row_methods,
    shuffle_columns,
    takes,
)

every = pytest.mark.parametrize("name", NAMES)


def every_with(*methods):
    """Every estimator that has these methods."""
    return pytest.mark.parametrize("name", names_with(*methods))


# ---------------------------------------------------------------- fit


@every
def test_fit_twice_is_fit_once_to_the_last_bit(name):
    model = make(name)
    once = freeze(fitted_state(model.fit(make_rows())))
    assert freeze(fitted_state(model.fit(make_rows()))) == once
    assert freeze(fitted_state(clone(model).fit(make_rows()))) == once


@every
def test_fit_after_fit_on_another_width_starts_again(name):
    model = make(name).fit(make_rows()[:, :4])
    assert freeze(model.fit(make_rows())) == freeze(make(name).fit(make_rows()))


@pytest.mark.parametrize("name", [name for name in NAMES if not is_regressor(make(name))])
def test_fit_ignores_class_labels(name):
    X = make_rows()
    y = np.arange(len(X)) % 3
    assert freeze(fitted_state(make(name).fit(X, y))) == freeze(fitted_state(make(name).fit(X)))


@every
@pytest.mark.parametrize("was_fitted", [False, True])
@pytest.mark.parametrize("fault", [RuntimeError("fault"), KeyboardInterrupt(), MemoryError()])
def test_a_fault_while_learning_leaves_the_estimator_as_it_was(
    name, was_fitted, fault, monkeypatch
):
    """Whatever goes wrong after the learning itself, and before its result is kept."""
    for method in ("fit", "partial_fit"):
        model = make_brief(name)
        if not hasattr(model, method):
            continue
        if was_fitted:
            model.fit(make_rows())
        before = freeze(vars(model))
        learn = getattr(type(model), f"_{method}")

        @functools.wraps(learn)
        def learn_and_fail(*args, learn=learn, **kwargs):
            learn(*args, **kwargs)
            raise fault

        with monkeypatch.context() as patch:
            patch.setattr(type(model), f"_{method}", learn_and_fail)
            with pytest.raises(type(fault)):
                getattr(model, method)(make_rows(seed=1))
        assert freeze(vars(model)) == before


@every
@pytest.mark.parametrize("was_fitted", [False, True])
def test_failed_validation_leaves_the_estimator_as_it_was(name, was_fitted):
    model = make(name)
    if was_fitted:
        model.fit(make_rows())
    before = freeze(vars(model))
    for method in ("fit", "partial_fit"):
        if hasattr(model, method):
            with pytest.raises(ValueError, match="NaN"):
                getattr(model, method)(np.full((40, 6), np.nan))
            assert freeze(vars(model)) == before


@pytest.mark.parametrize(
    ("name", "parameter"),
    [(n, p) for n in NAMES for p in ("hidden_sizes", "head_sizes") if takes(make(n), p)],
)
def test_one_layer_may_be_given_as_a_number(name, parameter):
    one = {"alpha": 0.1} if name == "DeconvolutionalNetwork" else {}
    models = [make_brief(name, **one, **{parameter: size}).fit(make_rows()) for size in (4, (4,))]
    scores = [model.score_samples(make_rows()) for model in models]
    np.testing.assert_array_equal(*scores)
    assert models[0].get_params()[parameter] == 4


@every
def test_methods_before_fit_say_so(name):
    model = make(name)
    for method in [*all_row_methods(model), *(["score"] if hasattr(model, "score") else [])]:
        with pytest.raises(NotFittedError, match=f"{name} instance is not fitted yet"):
            getattr(model, method)(make_rows())


@every
def test_fitted_state_is_numpy_and_plain_scalars_only(name):
    """State that pickles anywhere, goes through skops and loads without a GPU."""
    allowed = (np.ndarray, np.generic, int, float, str, bool, type(None))

    def check(value, path):
        if isinstance(value, (list, tuple)):
            for item in value:
                check(item, path)
        elif isinstance(value, dict):
            for key, item in value.items():
                check(item, f"{path}[{key!r}]")
        elif hasattr(value, "get_params"):  # an estimator inside: its state obeys the same rule
            for key, item in fitted_state(value).items():
                check(item, f"{path}.{key}")
        else:
            assert isinstance(value, allowed), f"{path} is a {type(value)}"

    for model in make_variants(name):
        for key, value in fitted_state(model.fit(make_rows())).items():
            check(value, key)
    assert "n_features_in_" in vars(model)


# ---------------------------------------------------------------- partial_fit


def chunkings(rows, n_steps=1):
    """Ways to cut rows, among them one row at a time and a last chunk of one row.

    Sequences of ``n_steps`` rows remain whole.
    """
    blocks = rows.reshape(-1, n_steps, rows.shape[1])
    for chunks in (
        [blocks],
        np.array_split(blocks, 10),
        [blocks[:7], *np.array_split(blocks[7:-1], 3), blocks[-1:]],
        [blocks[i : i + 1] for i in range(len(blocks))],
    ):
        yield [chunk.reshape(-1, rows.shape[1]) for chunk in chunks]


@every_with("partial_fit")
def test_partial_fit_does_not_depend_on_chunks(name):
    first, rest = make_rows(40), make_rows(143, seed=1)
    X_test = make_rows(200, seed=2)
    n_steps = 11 if name in DEPEND_ON_NEIGHBOURS else 1

    def learn(model, chunk):
        return model.partial_fit(chunk, **in_sequences(model.partial_fit, chunk, n_steps))

    def score(model):
        return model.score_samples(X_test, **in_sequences(model.score_samples, X_test, n_steps))

    models = []
    for chunks in chunkings(rest, n_steps):
        model = learn(make(name), first)
        for chunk in chunks:
            assert learn(model, chunk) is model
        models.append(model)
    scores = [score(model) for model in models]
    counts_steps = takes(models[0], "learning_decay")
    if is_gradient_trained(models[0]) or counts_steps:
        # Steps of other sizes walk another path: they agree as two seeds do.
        others = [learn(make(name, random_state=seed), first) for seed in range(1, 7)]
        means = [score(learn(model, rest)).mean() for model in others]
        moved = [s.mean() - scores[0].mean() for s in scores]
        if counts_steps:  # its rate follows the number of calls: more of them come further
            moved = [min(change, 0.0) for change in moved]
        assert max(map(abs, moved)) <= max(means) - min(means)
    else:
        for other in scores[1:]:
            np.testing.assert_allclose(other, scores[0], rtol=1e-10, atol=1e-10)


@every_with("partial_fit")
def test_partial_fit_goes_on_from_fit(name):
    model = make(name).fit(make_rows())
    before = model.score_samples(make_rows(seed=1))
    model.partial_fit(make_rows(seed=1))
    after = model.score_samples(make_rows(seed=1))
    assert not np.array_equal(before, after)
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(make_rows()[:, :3])


# ---------------------------------------------------------------- learning


def detection(model, rows, seed):
    """AUROC between held-out rows and rows of the same marginals without dependence."""
    inliers = rows(300, seed=100 + seed)
    outliers = shuffle_columns(inliers, seed)
    labels = np.repeat([1, 0], 300)
    return roc_auc_score(labels, model.score_samples(np.vstack([inliers, outliers])))


def check_sees_each_feature_alone(model, X):
    """A sum over features keeps its mean when the values within each feature change places."""
    apart = model.score_samples(shuffle_columns(X))
    # Rounding of sums of a few hundred scores.
    np.testing.assert_allclose(apart.mean(), model.score_samples(X).mean(), rtol=1e-9, atol=1e-9)


@every
def test_learns_the_dependence_between_features(name):
    """Beats the same model fitted to rows whose features are independent."""
    trained, blind = [], []
    rows = entry(name).learnable or make_rows
    if entry(name).independent:
        model = make(name).fit(rows(300))
        check_sees_each_feature_alone(model, rows(300, seed=100))
        return
    for seed in range(5):
        X = rows(300, seed=seed)
        trained.append(detection(make(name).fit(X), rows, seed))
        blind.append(detection(make(name).fit(shuffle_columns(X, seed)), rows, seed))
    assert np.median(trained) >= np.median(blind) + 0.1
    assert np.median(trained) >= 0.75


def test_a_model_of_dependence_does_not_pass_for_one_of_single_features():
    with pytest.raises(AssertionError, match="Not equal"):
        check_sees_each_feature_alone(make("PCAWhitener").fit(make_rows()), make_rows(seed=1))


# What says how much is learnt, and how fast: a fit with less of it starts as the whole one does.
EFFORT = {"max_iter", "max_epochs", "learning_rate", "batch_size", "C"}
# From k-means, EM gains less than held-out rows can tell: the mixture has to beat a random start.
OTHER_START = {"EnergyGaussianMixture": {"init"}}


@pytest.mark.parametrize("name", [name for name in NAMES if entry(name).untrained])
def test_training_beats_the_initialisation_on_held_out_rows(name):
    """The start is that of the fit itself, but for the names in ``OTHER_START``."""
    assert entry(name).untrained.keys() - EFFORT == OTHER_START.get(name, set())
    gains = []
    # So much noise that a good seeding alone is not yet a good model.
    rows = entry(name).learnable or functools.partial(make_rows, noise=0.4)
    for seed in range(5):
        X, X_test = rows(300, seed=seed), rows(300, seed=100 + seed)
        learner = make(name, random_state=seed).fit(X)
        start = make(name, random_state=seed, **entry(name).untrained).fit(X)
        gains.append(learner.score(X_test) - start.score(X_test))
    assert np.median(gains) > 0


# ---------------------------------------------------------------- scores


@every_with("free_energy")
def test_free_energy_is_the_equation(name):
    model = make(name).fit(make_rows())
    X = make_rows(60, seed=1)
    truth = entry(name).free_energy(model, X)
    np.testing.assert_allclose(model.free_energy(X), truth, rtol=1e-9, atol=1e-9)


@every_with("free_energy")
def test_scores_follow_the_free_energy(name):
    """log p(x) = -beta F(x) - log Z: one slope, one constant."""
    model = make(name).fit(make_rows())
    X = make_rows(50, seed=1)
    energy = model.free_energy(X, **entry(name).normalised)
    rest = model.score_samples(X) + getattr(model, "beta_", 1.0) * energy
    np.testing.assert_allclose(rest, rest[0], rtol=0, atol=1e-9 * (1 + abs(rest[0])))


@every_with("score")
def test_score_is_the_mean_of_score_samples(name):
    X = make_rows(77, seed=1)
    model = make(name).fit(make_rows())
    score = model.score(X)
    assert isinstance(score, float)
    interval = getattr(model, "log_partition_interval_", None)
    # A log Z that was not accepted as learnt is bracketed, and the score takes its upper end.
    caution = 0.0 if interval is None else interval[1] - model.log_partition_
    assert score == pytest.approx(float(np.mean(model.score_samples(X))) - caution, rel=1e-12)


@every
def test_scores_vary(name):
    X = make_rows(seed=1)
    scores = make(name).fit(make_rows()).score_samples(X)
    assert scores.shape == (len(X),)
    assert scores.std() > 1e-3 * (1 + abs(scores.mean()))


@every
def test_rows_are_independent_of_their_company(name):
    """Any order and any subset of rows gets the same answers, 1, 7 or many at a time.

    Of a model of sequences, the same holds for sequences: here for those of one step.
    """
    X = make_rows(2000, seed=1)
    order = np.random.default_rng(0).permutation(len(X))
    for model in make_variants(name):
        model.fit(make_rows())
        for method in row_methods(model):
            plain = getattr(model, method)

            def function(X, plain=plain):
                return plain(X, **in_sequences(plain, X, 1))

            whole = function(X)
            same = {"rtol": 1e-10, "atol": 1e-10, "err_msg": f"{model}.{method}"}
            np.testing.assert_allclose(function(X[order]), whole[order], **same)
            for size, n_rows in ((1, 12), (7, 35)):
                parts = [function(X[i : i + size]) for i in range(0, n_rows, size)]
                np.testing.assert_allclose(np.concatenate(parts), whole[:n_rows], **same)


@every
def test_row_methods_change_nothing(name):
    model = make(name).fit(make_rows())
    before, X = freeze(vars(model)), make_rows(seed=1)
    copy_of_X = X.copy()
    for method in all_row_methods(model):
        first = getattr(model, method)(X)
        np.testing.assert_array_equal(getattr(model, method)(X), first)
    assert freeze(vars(model)) == before
    np.testing.assert_array_equal(X, copy_of_X)


@every
def test_inverse_transform_has_the_shape_of_the_input(name):
    for model in make_variants(name):
        model.fit(make_rows())
        if not hasattr(model, "inverse_transform"):
            continue
        codes = model.transform(make_rows(9))
        assert model.inverse_transform(codes).shape == (9, model.n_features_in_)
        with pytest.raises(ValueError, match="columns"):
            model.inverse_transform(np.ones((2, codes.shape[1] + 1)))


@every_with("sample")
def test_samples_are_reproducible_draws(name):
    model = make(name).fit(make_rows())
    with pytest.raises(ValueError, match="n_samples"):
        model.sample(0)
    first = draw_rows(model, 50, 0)
    assert first.shape == (50, model.n_features_in_)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(draw_rows(model, 50, 0), first)
    assert not np.array_equal(draw_rows(model, 50, 1), first)


# ---------------------------------------------------------------- copies


@every
def test_copies_answer_alike(name):
    X = make_rows(seed=1)
    for model in make_variants(name):
        model.fit(make_rows())
        buffer = io.BytesIO()
        joblib.dump(model, buffer)
        buffer.seek(0)
        for twin in (pickle.loads(pickle.dumps(model)), joblib.load(buffer), copy.deepcopy(model)):
            assert freeze(vars(twin)) == freeze(vars(model))
            for method in row_methods(model):
                expected = getattr(model, method)(X)
                np.testing.assert_array_equal(getattr(twin, method)(X), expected)


@every
def test_pickles_in_every_place(name):
    X = make_rows()
    models = [make(name), make_pipeline(MinMaxScaler(), make(name)), make(name).fit(X)]
    models.append(GridSearchCV(make(name), {}, cv=2).fit(X))
    for model in models:
        pickle.loads(pickle.dumps(model)).fit(X)


@every
def test_skops_needs_to_trust_our_classes_only(name):
    model = make(name).fit(make_rows())
    stored = skops.io.dumps(model)
    untrusted = skops.io.get_untrusted_types(data=stored)
    assert all(kind.startswith("sklebm.") for kind in untrusted)
    twin = skops.io.loads(stored, trusted=untrusted)
    np.testing.assert_array_equal(
        twin.score_samples(make_rows(9)), model.score_samples(make_rows(9))
    )


@every
def test_clone_keeps_parameters_and_forgets_the_fit(name):
    for model in make_variants(name):
        twin = clone(model.fit(make_rows()))
        assert freeze(twin.get_params()) == freeze(model.get_params())
        assert not fitted_state(twin)


@every
def test_html_names_the_estimator_and_links_nowhere_else(name):
    for model in (make(name), make(name).fit(make_rows())):
        html = estimator_html_repr(model)
        assert name in html
        assert "None/" not in html
        assert f"/generated/sklearn.{name}" not in html


@pytest.mark.parametrize("fitted", [False, True])
def test_html_shows_the_members_of_composite_models(fitted):
    members = [("clusters", sklebm.EnergyKMeans(7)), ("gaussian", sklebm.GaussianEnergy())]
    ratio = sklebm.LikelihoodRatioScorer(
        sklebm.EnergyPCA(2), background=sklebm.PCAWhitener(ridge=0.125)
    )
    for model, shown in (
        (sklebm.EnergyOutlierDetector(members), ("EnergyKMeans", "GaussianEnergy", "n_clusters")),
        (ratio, ("EnergyPCA", "PCAWhitener", "0.125")),
        (make_pipeline(StandardScaler(), ratio), ("StandardScaler", "EnergyPCA", "PCAWhitener")),
    ):
        html = estimator_html_repr(model.fit(make_rows()) if fitted else model)
        assert [name for name in shown if name not in html] == []


# ---------------------------------------------------------------- searches


@pytest.mark.other_processes
@every_with("score")
def test_two_jobs_find_what_one_finds(name):
    X = make_rows()
    alone = cross_val_score(make(name), X, cv=4)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        together = cross_val_score(make(name), X, cv=4, n_jobs=2)
    np.testing.assert_array_equal(alone, together)


@every_with("score")
def test_works_in_a_cached_pipeline(name, tmp_path):
    cached = make_pipeline(MinMaxScaler(), make(name), memory=joblib.Memory(tmp_path, verbose=0))
    plain = make_pipeline(MinMaxScaler(), make(name))
    X = make_rows()
    for _ in range(2):
        assert cached.fit(X).score(X) == plain.fit(X).score(X)
