"""Estimators from given parameters behave as those that a fit has found them for."""

import numpy as np
import pytest
from sklearn.base import clone

import sklebm
from sklebm._shell.state import Array
from tests.registry import NAMES, make_brief, make_rows

CURVES = ("_curve_", "_bounds_", "validation_scores_")


def declared_by(model):
    """The fitted attributes that its energy is made of; none if its class does not say."""
    spec = getattr(model, "_state_spec", lambda: None)() or {}
    of = [key for key, declared in spec.items() if isinstance(declared, Array) and declared.of]
    if of and "weights_" in spec:  # of an encoder beside arrays
        of.append("weights_")
    of += ["upper_components_"] * (bool(of) and "upper_components_" in spec)  # of the layers above
    of += ["offset_"] * (bool(of) and "offset_" in spec)  # what the energy computes around
    of += [key for key in ("ridge_", "shrinkage_") if of and key in spec]  # of a covariance
    of += ["noise_variance_"] * ("noise_variance_" in spec)  # the temperature of k-means
    return of


def rebuilt(name):
    model = make_brief(name).fit(make_rows())
    given = {key.removesuffix("_"): getattr(model, key) for key in declared_by(model)}
    given = {key: value for key, value in given.items() if value is not None}
    chosen = {
        key: value
        for key, value in model.get_params(deep=False).items()
        if key not in given and (key == "n_layers" or not key.startswith("n_"))
    }
    return model, type(model).from_parameters(**given, **chosen)


# A declaration needs no fit.
DECLARED = [name for name in NAMES if declared_by(make_brief(name))]


def test_the_families_that_declare_their_parameters():
    """A family that stops to do so would be tested no longer without a word."""
    assert {"BernoulliRBM", "GaussianRBM"} <= set(DECLARED)


@pytest.mark.parametrize("name", DECLARED)
def test_answers_are_those_of_the_fitted_model(name, tmp_path):
    X = make_rows()
    fitted, model = rebuilt(name)
    np.testing.assert_array_equal(model.transform(X), fitted.transform(X))
    np.testing.assert_array_equal(model.free_energy(X), fitted.free_energy(X))
    # No fit has been there.
    assert all(len(curve) == 0 for key, curve in vars(model).items() if key.endswith(CURVES))
    assert getattr(model, "n_iter_", 0) == 0
    assert not getattr(model, "converged_", False)
    path = tmp_path / "model.safetensors"
    sklebm.save(model, path)
    np.testing.assert_array_equal(sklebm.load(path).transform(X), model.transform(X))
    assert clone(model).get_params().keys() == fitted.get_params().keys()
    if hasattr(model, "partial_fit"):
        assert model.partial_fit(X[:40]) is model
        assert np.isfinite(model.score_samples(X)).all()


@pytest.mark.parametrize("name", ["BernoulliRBM", "GaussianRBM"])
def test_log_z_is_unknown_until_it_is_estimated(name):
    X = make_rows()
    fitted, model = rebuilt(name)
    assert model.log_partition_ is None
    np.testing.assert_allclose(model.score_samples(X), -model.free_energy(X))
    with pytest.raises(ValueError, match="estimate_log_partition"):
        model.score(X)
    fitted.estimate_log_partition("exact")
    model.estimate_log_partition("exact")
    np.testing.assert_allclose(model.score_samples(X), fitted.score_samples(X), rtol=1e-6)


def test_a_machine_by_hand():
    """Two visible units that agree: log Z by summing the four states."""
    model = sklebm.BernoulliRBM.from_parameters(
        components=[[4.0, 4.0]], intercept_hidden=[-4.0], intercept_visible=[-2.0, -2.0]
    )
    assert model.n_components == 1
    model.estimate_log_partition("exact")
    states = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    free = 2.0 * states.sum(axis=1) - np.logaddexp(0, 4.0 * states.sum(axis=1) - 4.0)
    assert model.log_partition_ == pytest.approx(np.log(np.exp(-free).sum()), rel=1e-12)
    assert np.exp(model.score_samples(states)).sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"components": np.ones((2, 3))}, TypeError, "needs intercept_hidden, intercept_visible"),
        ({"weights": np.ones((2, 3))}, TypeError, "no fitted attribute called weights"),
        (
            {
                "components": np.ones((2, 3)),
                "intercept_hidden": np.ones(3),
                "intercept_visible": np.ones(3),
            },
            ValueError,
            r"intercept_hidden_ has shape \(3,\)",
        ),
        (
            {
                "components": np.full((2, 3), np.nan),
                "intercept_hidden": np.ones(2),
                "intercept_visible": np.ones(3),
            },
            ValueError,
            "components_ holds NaN",
        ),
        (
            {
                "components": np.ones((2, 3)),
                "intercept_hidden": np.ones(2),
                "intercept_visible": np.ones(3),
                "n_components": 5,
            },
            ValueError,
            "components_ has shape",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        sklebm.BernoulliRBM.from_parameters(**given)


def test_a_precision_that_is_symmetric_up_to_rounding_is_taken():
    X = make_rows()
    fitted = sklebm.GaussianEnergy().fit(X)
    rounded = fitted.precision_.copy()
    rounded[0, 1] = np.nextafter(rounded[0, 1], np.inf)
    model = sklebm.GaussianEnergy.from_parameters(precision=rounded, location=fitted.location_)
    np.testing.assert_allclose(model.score_samples(X), fitted.score_samples(X), rtol=1e-9)
    rounded[0, 1] += 1e-6 * np.abs(rounded).max()
    with pytest.raises(ValueError, match="must be symmetric"):
        sklebm.GaussianEnergy.from_parameters(precision=rounded, location=fitted.location_)


def test_numbers_of_the_constructor_are_attributes_too():
    """A sigma or a number of neighbours is the same thing before a fit and after it."""
    X = make_rows()
    deep = make_brief("DeepEnergyModel").fit(X)
    given = {
        key: getattr(deep, f"{key}_") for key in ("architecture", "weights", "offset", "sigma")
    }
    chosen = {key: value for key, value in deep.get_params().items() if key not in given}
    model = type(deep).from_parameters(**chosen, **given)
    np.testing.assert_array_equal(model.free_energy(X), deep.free_energy(X))

    near = sklebm.NeighbourEnergy(n_neighbors=3).fit(X)
    given = {"samples": near.samples_, "floor": near.floor_, "n_neighbors": 3}
    model = sklebm.NeighbourEnergy.from_parameters(**given)
    np.testing.assert_array_equal(model.score_samples(X), near.score_samples(X))
    with pytest.raises(TypeError, match="needs n_neighbors"):
        sklebm.NeighbourEnergy.from_parameters(samples=X, floor=0.0)
