"""Learnt solvers: what they learn, beside the solvers that they began as."""

import functools

import numpy as np
import pytest
import sklearn
import torch
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from sklebm import LISTAEncoder, SparseCoder
from sklebm.energies import L1
from sklebm.inference import proximal
from sklebm.inference.sparse_problem import make_problem
from tests.registry import freeze, make, make_rows

X = load_digits().data / 16
ALPHA = 0.3
UNTRAINED = {"max_epochs": 1, "learning_rate": 1e-12}


@functools.cache
def coder():
    """The dictionary, and the codes that encoders learn; fitted by the first test that asks."""
    return SparseCoder(100, alpha=ALPHA, max_iter=3, random_state=0).fit(X[:1500])


@functools.cache
def optimal_codes():
    return coder().transform(X[1500:])


def make_encoder(**options):
    return LISTAEncoder(
        **{"dictionary": coder().components_, "alpha": ALPHA, "random_state": 0, **options}
    )


def code_error(Z):
    """Squared error of codes of the test rows, relative to their squared length."""
    return ((Z - optimal_codes()) ** 2).sum() / (optimal_codes() ** 2).sum()


def solver_error(start, step, n_steps):
    """The same after some steps of a solver."""
    x, atoms = torch.from_numpy(X[1500:]), torch.from_numpy(coder().components_)
    problem = make_problem(x, atoms, L1(), ALPHA)
    state = start(problem)
    for _ in range(n_steps):
        state = step(problem, state)
    return code_error(state[0].numpy())


def start_fista(problem):
    return proximal.start_fista(problem, proximal.start_at_zero(problem))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shared_weights": False, "supervised_layers": "all"},
        {"variant": "lcod"},
        {"variant": "coupled"},
        {"inhibition_mask": 0.2},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()) or "default",
)
def test_learning_beats_the_untrained_network_on_held_out_rows(options):
    start = make_encoder(**options, **UNTRAINED).fit(X[:1500])
    learnt = make_encoder(**options, max_epochs=20).fit(X[:1500])
    untrained, trained = (code_error(model.transform(X[1500:])) for model in (start, learnt))
    assert trained < 0.5 * untrained


def test_thresholds_and_steps_alone_help():
    options = {"variant": "coupled", "learn_weights": False}
    start = make_encoder(**options, **UNTRAINED).fit(X[:1500])
    learnt = make_encoder(**options, max_epochs=20, learning_rate=0.02).fit(X[:1500])
    untrained, trained = (code_error(model.transform(X[1500:])) for model in (start, learnt))
    assert trained < 0.9 * untrained


@pytest.mark.parametrize("n_layers", [1, 3])
def test_learnt_layers_beat_as_many_steps_of_the_solvers(n_layers):
    error = code_error(
        make_encoder(n_layers=n_layers, max_epochs=20).fit(X[:1500]).transform(X[1500:])
    )
    assert error < solver_error(proximal.start_at_zero, proximal.ista_step, n_layers + 1)
    assert error < solver_error(start_fista, proximal.fista_step, n_layers + 1)
    assert error < solver_error(proximal.start_at_zero, proximal.coordinate_step, n_layers + 1)


def test_an_untrained_encoder_is_the_solver_up_to_single_precision():
    encoder = make_encoder(n_layers=4, **UNTRAINED).fit(X[:100])
    expected = solver_error(proximal.start_at_zero, proximal.ista_step, 5)
    assert code_error(encoder.transform(X[1500:])) == pytest.approx(expected, rel=1e-5)


def test_predicted_codes_never_have_less_energy_than_the_optimal_ones():
    encoder = make_encoder(max_epochs=20).fit(X[:1500])
    gap = encoder.free_energy(X[1500:]) - coder().free_energy(X[1500:])
    assert gap.min() > -1e-5  # the encoder's dictionary is rounded to single precision
    start = make_encoder(**UNTRAINED).fit(X[:1500])
    assert encoder.score(X[1500:]) > start.score(X[1500:])


def make_given_codes(n_rows=600, seed=0):
    """Rows that are known to have certain codes: sparse, and not those of least energy."""
    generator = np.random.default_rng(seed)
    atoms = np.random.default_rng(0).standard_normal((30, 20))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = generator.standard_normal((n_rows, 30)) * (generator.random((n_rows, 30)) < 0.07)
    return codes @ atoms, codes, atoms


@pytest.mark.parametrize("atoms_are_given", [True, False])
def test_given_codes_are_the_target(atoms_are_given):
    rows, codes, atoms = make_given_codes()
    rows_test, codes_test, _ = make_given_codes(seed=1)
    options = {"alpha": 0.05, "n_layers": 6, "variant": "coupled", "init": "analytic"}
    options |= {"supervised_layers": "all", "learning_rate": 0.005, "random_state": 0}
    if atoms_are_given:
        options["dictionary"] = atoms
    encoder = LISTAEncoder(**options).fit(rows, codes=codes)
    # Without noise, least squares finds the atoms.
    np.testing.assert_allclose(encoder.components_, atoms, atol=1e-5)
    start = LISTAEncoder(**{**options, **UNTRAINED}).fit(rows, codes=codes)
    errors = [((m.transform(rows_test) - codes_test) ** 2).sum() for m in (encoder, start)]
    assert errors[0] < 0.5 * errors[1]
    assert errors[0] < 0.2 * (codes_test**2).sum()


def test_labels_are_no_codes():
    labels = np.arange(len(make_rows())) % 3
    plain = make("LISTAEncoder").fit(make_rows())
    assert freeze(vars(make("LISTAEncoder").fit(make_rows(), labels))) == freeze(vars(plain))


def test_codes_pass_through_a_pipeline():
    rows, codes, _ = make_given_codes(60)
    encoder = LISTAEncoder(max_epochs=2, random_state=0)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(MinMaxScaler(), encoder.set_fit_request(codes=True))
        Z = pipeline.fit(rows, codes=codes).transform(rows)
    scaled = MinMaxScaler().fit_transform(rows)
    direct = LISTAEncoder(max_epochs=2, random_state=0).fit(scaled, codes=codes)
    np.testing.assert_array_equal(Z, direct.transform(scaled))


def test_partial_fit_takes_codes_and_keeps_the_dictionary():
    rows, codes, _ = make_given_codes()
    encoder = LISTAEncoder(alpha=0.05, random_state=0).partial_fit(rows[:300], codes=codes[:300])
    first = encoder.components_.copy()
    error = ((encoder.transform(rows) - codes) ** 2).sum()
    for _ in range(20):
        encoder.partial_fit(torch.from_numpy(rows[300:]), codes=torch.from_numpy(codes[300:]))
    np.testing.assert_array_equal(encoder.components_, first)
    assert ((encoder.transform(rows) - codes) ** 2).sum() < 0.8 * error


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.ones((5, 3)), "codes has shape .5, 3., but X has 120 rows"),
        (np.ones(120), "codes has shape"),
        (np.full((120, 3), np.nan), "codes contains NaN"),
        (np.full((120, 3), "a"), "codes has dtype"),
        (np.ones((120, 4)), "codes has 4 columns, but the dictionary has 3 atoms"),
        (np.eye(120, 3) * [1, 0, 1], "codes has 1 columns of zeros"),
    ],
)
@pytest.mark.parametrize("was_fitted", [False, True])
def test_bad_codes_are_refused(codes, message, was_fitted):
    model = LISTAEncoder(3, max_epochs=1, random_state=0)
    if was_fitted:
        model.fit(make_rows())
    before = freeze(vars(model))
    for method in ("fit", "partial_fit"):
        if was_fitted and method == "partial_fit" and "zeros" in message:
            continue  # the dictionary is there already
        with pytest.raises(ValueError, match=message):
            getattr(model, method)(make_rows(), codes=codes)
        assert freeze(vars(model)) == before


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "lcod", "init": "analytic"},
        {"variant": "lista", "selection_rate": 0.1},
        {"variant": "lcod", "selection_rate": 0.1},
        {"variant": "coupled", "inhibition_mask": 0.5},
    ],
)
def test_settings_that_mean_nothing_are_refused(options):
    with pytest.raises(ValueError, match=f"does not apply to variant='{options['variant']}'"):
        make("LISTAEncoder", **options).fit(make_rows())


@pytest.mark.parametrize(
    "change", [{"variant": "lcod"}, {"n_layers": 5}, {"alpha": 0.3}, {"inhibition_mask": 0.5}]
)
def test_training_goes_on_with_the_same_network_only(change):
    model = make("LISTAEncoder", warm_start=True).fit(make_rows()).set_params(**change)
    before = freeze(vars(model))
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=f"{next(iter(change))}=.* differs from the fitted"):
            getattr(model, method)(make_rows())
        assert freeze(vars(model)) == before


def test_training_goes_on_with_the_same_dictionary_only():
    model = make("LISTAEncoder", dictionary=np.eye(6)[:4]).fit(make_rows())
    model.partial_fit(make_rows())
    model.set_params(dictionary=2 * np.eye(6)[:4])
    with pytest.raises(ValueError, match="dictionary differs from the fitted components_"):
        model.partial_fit(make_rows())


def test_warm_start_goes_on():
    rows = make_rows()
    short = {"warm_start": True, "max_epochs": 10}
    model = make("LISTAEncoder", **short).fit(rows)
    loss = model.loss_curve_[-1]
    assert model.fit(rows).loss_curve_[-1] < loss


def test_a_mask_of_your_own():
    mask = np.eye(4, dtype=bool)
    model = make("LISTAEncoder", inhibition_mask=mask).fit(make_rows())
    np.testing.assert_array_equal(model.weights_["mask"], mask)
    start = make("LISTAEncoder", inhibition_mask=mask, **UNTRAINED).fit(make_rows())
    learnt, first = (m.weights_["lateral"][0] for m in (model, start))
    assert (learnt[mask] != first[mask]).any()
    np.testing.assert_array_equal(learnt[~mask], first[~mask])


def test_a_mask_is_kept_when_training_goes_on():
    mask = np.eye(4, dtype=bool)
    model = make("LISTAEncoder", inhibition_mask=mask).fit(make_rows()).partial_fit(make_rows())
    np.testing.assert_array_equal(model.weights_["mask"], mask)
    model.set_params(inhibition_mask=np.ones((4, 4), dtype=bool))
    with pytest.raises(ValueError, match="inhibition_mask differs from the fitted one"):
        model.partial_fit(make_rows())
    shared = make("LISTAEncoder", inhibition_mask=0.5).fit(make_rows())
    with pytest.raises(ValueError, match=r"inhibition_mask=0.7 differs from the fitted 0.5"):
        shared.set_params(inhibition_mask=0.7).partial_fit(make_rows())


def test_fixed_weights_stay():
    options = {"variant": "coupled", "init": "analytic", "learn_weights": False}
    model = make("LISTAEncoder", **options).fit(make_rows())
    start = make("LISTAEncoder", **options, **UNTRAINED).fit(make_rows())
    np.testing.assert_array_equal(model.weights_["weights"], start.weights_["weights"])
    assert (model.weights_["steps"] != start.weights_["steps"]).all()


def test_an_alpha_that_leaves_no_code_warns():
    with pytest.warns(UserWarning, match="every code is zero"):
        make("LISTAEncoder", alpha=50.0, dictionary=np.eye(6), n_components=6).fit(make_rows())


def test_validation_scores_are_minus_half_the_code_error():
    held_out = []

    class Watch(LISTAEncoder):
        def _validation_score(self, energy, batch, seed):
            held_out.append(batch)
            return super()._validation_score(energy, batch, seed)

    Watch.__name__ = "LISTAEncoder"
    model = Watch(3, max_epochs=2, validation_fraction=0.25, random_state=0).fit(make_rows())
    x, codes = held_out[-1].x.numpy(), held_out[-1].target.numpy()
    errors = ((model.transform(x) - codes) ** 2).sum(axis=1)
    assert len(x) == 30
    assert model.validation_scores_[-1] == pytest.approx(-0.5 * errors.mean(), rel=1e-5)


def test_unequal_scales_are_reported_once():
    X = np.random.default_rng(0).normal(size=(60, 4)) * [1.0, 1.0, 1.0, 1e5]
    with pytest.warns(UserWarning, match="differ in scale") as record:
        LISTAEncoder(3, max_epochs=1, random_state=0).fit(X)
    said = [str(warning.message) for warning in record if "differ in scale" in str(warning.message)]
    assert len(said) == 1
    assert "LISTAEncoder adds up" in said[0]
