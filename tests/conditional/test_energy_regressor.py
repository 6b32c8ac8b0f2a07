"""EnergyRegressor: ridge as a special case, densities that integrate to 1, modes and intervals."""

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy.stats import kstest, multivariate_normal, norm
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from sklebm import EnergyRegressor
from sklebm.datasets import Trumpet, TwoBranches
from sklebm.inference import target_density
from sklebm.metrics import score_conditional_density
from sklebm.objectives import (
    Batch,
    TargetLikelihood,
    TargetNoiseContrastive,
    TargetScoreMatching,
)

LOSSES = {
    "nll": TargetLikelihood(7),
    "nce": TargetNoiseContrastive(5),
    "score_matching": TargetScoreMatching(),
}
BRIEF = {"hidden_sizes": (16,), "max_epochs": 15, "random_state": 0}
THOROUGH = {"batch_size": 64, "learning_rate": 0.015, "max_epochs": 30, "random_state": 0}


def make_line(n_rows=100, n_outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 4)) * [1.0, 100.0, 0.01, 1.0] + [0.0, 5.0, 0.0, -3.0]
    slopes = np.array([1.0, 0.02, 300.0, -1.0])[:, None] * np.arange(1.0, n_outputs + 1)
    Y = X @ slopes + rng.normal(size=(n_rows, n_outputs)) + 5.0
    return X, Y[:, 0] if n_outputs == 1 else Y


@pytest.fixture(scope="module")
def branches():
    X, y = TwoBranches().sample(1500, random_state=0)
    return EnergyRegressor((32, 32), **THOROUGH).fit(X, y)


# ---------------------------------------------------------------- ridge


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_without_a_network_it_is_ridge_with_gaussian_residuals(n_outputs):
    X, Y = make_line(n_outputs=n_outputs)
    weight = np.random.default_rng(1).integers(1, 4, size=len(X)).astype(float)
    model = EnergyRegressor((), alpha=0.03).fit(X, Y, sample_weight=weight)
    Z = StandardScaler().fit_transform(X)
    peer = Ridge(0.03 * weight.sum(), tol=1e-12).fit(Z, Y, sample_weight=weight)
    np.testing.assert_allclose(model.predict(X), peer.predict(Z), atol=1e-6)
    residuals = (Y - peer.predict(Z)).reshape(len(X), -1)
    scale = np.sqrt(np.average(residuals**2, axis=0, weights=weight))
    expected = norm(0.0, scale).logpdf(residuals).sum(axis=1)
    # One output: the trapezoidal rule. Two: importance weights over 4,096 even points.
    atol = 1e-6 if n_outputs == 1 else 2e-3
    np.testing.assert_allclose(model.conditional_log_density(X, Y), expected, atol=atol)
    assert model.n_iter_ == 0
    with pytest.raises(ValueError, match="closed form"):
        model.partial_fit(X, Y)


def test_interval_and_draws_of_a_gaussian():
    X, y = make_line(400)
    model = EnergyRegressor(()).fit(X, y)
    spacing = 2 * model.reach_ * model.residual_scale_[0] / 512
    mean, scale = model.predict(X[:3]), model.residual_scale_[0]
    for level in (0.5, 0.9):
        half = norm.ppf(0.5 + level / 2) * scale
        for piece, centre in zip(model.predict_interval(X[:3], level), mean, strict=True):
            assert piece.shape == (1, 2)
            np.testing.assert_allclose(piece[0], [centre - half, centre + half], atol=spacing)
    draws = model.sample(X[:3], 4000, random_state=0)
    for row, centre in zip(draws, mean, strict=True):
        assert kstest(row, norm(centre, scale).cdf).pvalue > 1e-3
    np.testing.assert_array_equal(draws, model.sample(X[:3], 4000, random_state=0))


def test_draws_of_two_outputs():
    X, Y = make_line(300, n_outputs=2)
    model = EnergyRegressor(()).fit(X, Y)
    draws = model.sample(X[:2], 1500, random_state=0)
    assert draws.shape == (2, 1500, 2)
    for row, mean in zip(draws, model.predict(X[:2]), strict=True):
        error = model.residual_scale_ / np.sqrt(1500)
        assert (np.abs(row.mean(axis=0) - mean) < 5 * error).all()
        np.testing.assert_allclose(row.std(axis=0), model.residual_scale_, rtol=0.1)
    expected = multivariate_normal(model.predict(X[:1])[0], np.diag(model.residual_scale_**2))
    found = model.predict_density(X[:1], Y[:5])[0]
    np.testing.assert_allclose(found, expected.pdf(Y[:5]), rtol=5e-3)


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_gradients_are_finite_differences(name, n_outputs):
    """With the same random points each time, in double precision."""
    X, Y = make_line(8, n_outputs)
    model = EnergyRegressor((5,), max_epochs=1, random_state=0).fit(X, Y)
    energy = model._energy(torch.device("cpu")).double()
    rng = torch.Generator().manual_seed(0)
    g = torch.randn(8, n_outputs, dtype=torch.float64, generator=rng)
    u = torch.randn(8, 4, dtype=torch.float64, generator=rng)
    batch = Batch(u, g, torch.linspace(0.5, 1.5, 8, dtype=torch.float64))

    def loss():
        generator = torch.Generator().manual_seed(1)
        return LOSSES[name].loss(energy, batch, {}, generator)[0]

    loss().backward()
    for parameter in energy.parameters():
        flat = parameter.data.view(-1)
        for place in range(0, len(flat), 4):
            start, ends = flat[place].item(), []
            for sign in (1, -1):
                flat[place] = start + sign * 1e-5
                ends.append(loss().item())
            flat[place] = start
            found = 0.0 if parameter.grad is None else parameter.grad.view(-1)[place].item()
            assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-7, rel=1e-6)


def test_random_quadrature_is_unbiased():
    """The mean of exp(log Z) over many draws of points is the integral; 5 standard errors."""
    X, y = TwoBranches().sample(200, random_state=0)
    model = EnergyRegressor(**BRIEF).fit(X, y)
    energy = model._energy(torch.device("cpu")).double()
    u = energy.inputs(torch.from_numpy(X[:1])).expand(4000, -1)
    truth = np.exp(model.score_samples(X[:1])[0]) / model.residual_scale_[0]
    for target in (0.0, 1.3):
        g = torch.full((4000, 1), target, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        points, log_weight = TargetLikelihood(16)._points(energy, g, generator)
        with torch.no_grad():
            z = torch.exp(log_weight - energy.target_energy(u, points)).sum(dim=1)
        assert abs(float(z.mean()) - truth) < 5 * float(z.std()) / np.sqrt(4000)


@pytest.mark.parametrize(("width", "reach"), [(1.0, 8.0), (0.02, 8.0), (0.02, 1000.0)])
def test_peaks_at_targets_are_integrated_however_sharp(width, reach):
    """An energy that is low only where the target lies: a sum over even points would miss it."""

    class Peak:
        def target_energy(self, x, g):
            return 0.5 * ((g[:, :, 0] - 0.7) / width).square()

    Peak.reach = reach
    g = torch.full((500, 1), 0.7)
    batch = Batch(g, target=g)
    for seed in range(3):
        loss, _ = TargetLikelihood().loss(Peak(), batch, {}, torch.Generator().manual_seed(seed))
        truth = 0.5 * np.log(2 * np.pi) + np.log(width)
        # Each of 500 sums over 64 points is off by at most a tenth, of either sign.
        assert float(loss) == pytest.approx(truth, abs=0.02)


def test_gross_targets_do_not_set_the_units():
    X, y = make_line(200)
    fitted = []
    for size in (1e3, 1e7):
        wrong = y.copy()
        wrong[7], wrong[50] = size, -size
        with pytest.warns(UserWarning, match="2 of 200 targets lie more than 10"):
            fitted.append(EnergyRegressor(**BRIEF).fit(X, wrong))
    # What is known of them is only that they are far.
    np.testing.assert_allclose(fitted[0].coef_, fitted[1].coef_, rtol=1e-6)
    np.testing.assert_allclose(fitted[0].residual_scale_, fitted[1].residual_scale_, rtol=1e-6)
    assert fitted[1].residual_scale_[0] < 3.0  # noise of 1, and two of 200 at 10 x 1.6
    weight = np.ones(200)
    weight[:100] = 2.0
    repeated = np.concatenate([np.arange(200), np.arange(100)])
    models = []
    for rows, given in ((np.arange(200), weight), (repeated, None)):
        with pytest.warns(UserWarning, match="targets lie more than 10"):
            models.append(EnergyRegressor(**BRIEF).fit(X[rows], wrong[rows], sample_weight=given))
    np.testing.assert_allclose(models[0].residual_scale_, models[1].residual_scale_, rtol=1e-12)
    linear = EnergyRegressor((), alpha=0.0).fit(X, wrong)  # least squares stays what it is
    design = np.column_stack([X, np.ones(200)])
    best = np.linalg.lstsq(design, wrong, rcond=None)[0]
    np.testing.assert_allclose(linear.predict(X), design @ best, rtol=1e-6)


@pytest.mark.parametrize(("factor", "shift"), [(1e3, 0.0), (1.0, 1e4)])
def test_units_of_targets_do_not_matter(factor, shift):
    """The same density of the same numbers, but for float32 in the last digits of g."""
    X, y = TwoBranches().sample(120, random_state=0)
    model = EnergyRegressor(**BRIEF).fit(X, y)
    other = EnergyRegressor(**BRIEF).fit(X, factor * y + shift)
    found = other.conditional_log_density(X, factor * y + shift) + np.log(factor)
    np.testing.assert_allclose(found, model.conditional_log_density(X, y), atol=2e-3)


# ---------------------------------------------------------------- densities


def test_densities_integrate_to_one(branches):
    x = np.linspace(-1.5, 1.5, 9)[:, None]
    y = np.linspace(-8, 8, 20_001)
    density = branches.predict_density(x, y)
    np.testing.assert_allclose(np.trapezoid(density, y, axis=1), 1.0, atol=1e-6)
    rows = np.repeat(x, 3, axis=0)
    at = np.tile(y[[9000, 10_000, 11_000]], 9)
    found = np.exp(branches.conditional_log_density(rows, at)).reshape(9, 3)
    np.testing.assert_allclose(found, density[:, [9000, 10_000, 11_000]], rtol=1e-9)
    energies = branches.energy(rows, at) + branches.score_samples(rows)
    np.testing.assert_allclose(np.exp(-energies).reshape(9, 3), found, rtol=1e-9)


def test_the_prediction_is_the_lowest_energy(branches):
    x = np.linspace(-0.9, 0.9, 7)[:, None]
    y = np.linspace(-2, 2, 4001)
    density = branches.predict_density(x, y)
    found = branches.predict(x)
    at_mode = np.exp(branches.conditional_log_density(x, found))
    assert (at_mode >= density.max(axis=1) - 1e-12).all()
    np.testing.assert_allclose(found, y[density.argmax(axis=1)], atol=2e-3)


def test_two_branches_are_two_intervals_that_hold_the_level(branches):
    X, y = TwoBranches().sample(1000, random_state=1)
    right = X[:, 0] > 0.6
    pieces = branches.predict_interval(X, level=0.8)
    assert np.mean([len(p) == 2 for p, two in zip(pieces, right, strict=True) if two]) > 0.8
    inside = [((p[:, 0] <= t) & (t <= p[:, 1])).any() for p, t in zip(pieces, y, strict=True)]
    assert abs(np.mean(inside) - 0.8) < 0.06  # 4 standard errors, and what the model misses
    drawn = branches.sample(X[right][:1], 500, random_state=0)[0]
    assert 0.2 < np.mean(drawn > 0) < 0.8
    with pytest.raises(ValueError, match=r"level=1.0 must be a number between 0 and 1"):
        branches.predict_interval(X, level=1.0)


@pytest.mark.parametrize(
    ("data", "objective"),
    [(TwoBranches(), "nll"), (TwoBranches(), "nce"), (Trumpet(), "score_matching")],
)
def test_densities_near_the_truth(data, objective):
    """Gaussian regression is .3 nats away or more."""
    X, y = data.sample(2000, random_state=0)
    X_test, y_test = data.sample(500, random_state=1)
    truth = data.conditional_log_density(X_test, y_test).mean()
    model = EnergyRegressor((32, 32), objective=objective, **THOROUGH).fit(X, y)
    assert truth - score_conditional_density(model, X_test, y_test) < 0.12
    gaussian = EnergyRegressor(()).fit(X, y)
    assert truth - score_conditional_density(gaussian, X_test, y_test) > 0.3
    if objective == "nce":  # its energies are normalised themselves, in units of s
        log_z = model.score_samples(X_test) - np.log(model.residual_scale_[0])
        # Its standard error over rows is .003; what the network misses adds to it.
        assert abs(log_z.mean()) < 0.03


@pytest.mark.parametrize("objective", ["nll", "score_matching"])
def test_what_leaves_the_level_open_fixes_it(objective):
    """A constant in F changes no density: f is 0 at the mean row with its linear answer."""
    X, y = make_line(200)
    model = EnergyRegressor(**BRIEF, objective=objective).fit(X, y)
    centre = model.offset_[None]
    linear = centre @ model.coef_.T + model.intercept_
    # Weights are float32 numbers of order 1.
    assert model.energy(centre, linear)[0] == pytest.approx(0.0, abs=1e-5)


def test_the_score_of_densities_chooses_in_a_search():
    X, y = TwoBranches().sample(600, random_state=0)
    grid = {"hidden_sizes": [(), (16,)]}
    search = GridSearchCV(
        EnergyRegressor(**BRIEF),
        grid,
        cv=2,
        scoring=score_conditional_density,
        error_score="raise",
    ).fit(X, y)
    plain, flexible = search.cv_results_["mean_test_score"]
    assert np.isfinite(plain)
    assert flexible > plain  # two branches are no Gaussian
    assert search.best_params_ == {"hidden_sizes": (16,)}


class Bent:
    """|g - a|^p / p for each row: a kink for p = 1, infinite curvature for p = 1.5."""

    n_outputs = 1
    reach = 8.0

    def __init__(self, power):
        self.power = power

    def target_energy(self, u, g):
        return (g[..., 0] - u).abs() ** self.power / self.power


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_modes_between_the_points_of_the_grid_are_found_to_rounding(power, dtype):
    u = torch.linspace(-3.1, 2.7, 50, dtype=dtype)[:, None]
    found = target_density.lowest(Bent(power), u)
    assert float((found - u).abs().max()) <= 4 * torch.finfo(dtype).eps * 3.1


def test_several_outputs_descend_to_a_mode():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(600, 1))
    sign = rng.choice([-1.0, 1.0], size=600)
    Y = np.c_[sign, 0.5 * sign + X[:, 0]] + 0.15 * rng.normal(size=(600, 2))
    model = EnergyRegressor((32, 32), **THOROUGH).fit(X, Y)
    gaps = np.abs(np.abs(model.predict(X[:20])[:, 0]) - 1.0)
    assert np.median(gaps) < 0.1  # at a branch, not between them
    with pytest.raises(ValueError, match="predict_interval is for one output"):
        model.predict_interval(X)
    with pytest.raises(ValueError, match="y has 1 numbers for each row"):
        model.energy(X, Y[:, 0])


def test_a_table_of_one_column_stays_a_table():
    X, y = make_line(50)
    model = EnergyRegressor(()).fit(X, y[:, None])
    assert model.predict(X).shape == (50, 1)
    assert model.sample(X[:2], 3, random_state=0).shape == (2, 3, 1)
    assert np.isfinite(EnergyRegressor(**BRIEF).fit(X, np.full(50, 3.0)).predict(X)).all()


@pytest.mark.parametrize("kind", [list, np.array, pd.Series])
@pytest.mark.parametrize("y", [["low", "high"], ["1.5", "low"], [1.5, "low"]])
def test_the_first_label_among_targets_is_named(kind, y):
    message = r"^EnergyRegressor needs numeric targets, but y contains 'low'\. For labels, use a cl"
    with pytest.raises(ValueError, match=message):
        EnergyRegressor(()).fit(np.ones((2, 1)), kind(y))


# ---------------------------------------------------------------- data


@pytest.mark.parametrize("data", [TwoBranches(), TwoBranches(0.3), Trumpet(), Trumpet(0.2, 0.5)])
def test_curves_know_their_density(data):
    y = np.linspace(-9, 9, 20_001)
    for x in (-0.9, 0.0, 0.8):
        X = np.full((len(y), 1), x)
        density = np.exp(data.conditional_log_density(X, y))
        assert np.trapezoid(density, y) == pytest.approx(1.0, abs=1e-6)
        drawn = data._draw(np.full(4000, x), np.random.RandomState(0))
        cumulative = np.cumsum(density) * (y[1] - y[0])
        assert kstest(drawn, lambda t, c=cumulative: np.interp(t, y, c)).pvalue > 1e-3
    X, targets = data.sample(5, random_state=0)
    assert X.shape == (5, 1)
    assert targets.shape == (5,)
    with pytest.raises(ValueError, match="shape"):
        data.conditional_log_density(X[:, 0], targets)


@pytest.mark.parametrize("place", [0.0, 3.123, -40.07])
def test_the_grid_finds_densities_far_narrower_than_its_reach(place):
    """One gross target widens the grid of all rows; a Gaussian of width 0.003 is known exactly."""

    class Narrow(torch.nn.Module):
        reach, n_outputs = 100.0, 1

        def target_energy(self, u, g):
            return 0.5 * ((g[:, :, 0] - place) / 0.003) ** 2

    grid = target_density.integrate(Narrow(), torch.zeros(2, 1, dtype=torch.float64))
    np.testing.assert_allclose(grid.log_z, np.log(0.003 * np.sqrt(2 * np.pi)), rtol=1e-9)
    np.testing.assert_allclose(
        target_density.lowest(Narrow(), torch.zeros(2, 1, dtype=torch.float64)), place, atol=1e-12
    )


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_draws_do_not_depend_on_chunks(n_outputs):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = X @ rng.normal(size=(2, n_outputs)) + 0.1 * rng.normal(size=(60, n_outputs))
    model = EnergyRegressor((4,), max_epochs=2, random_state=0).fit(X, y)
    whole = model.sample(X[:12], 3, random_state=0)
    with sklearn.config_context(working_memory=0.2):  # a few rows at a time
        parts = model.sample(X[:12], 3, random_state=0)
    np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(model.sample(X[:7], 3, random_state=0), whole[:7], rtol=1e-9)


def test_a_closed_form_starts_anew_with_warm_start():
    (X, y), (X2, y2) = make_line(), make_line(seed=1)
    model = EnergyRegressor((), warm_start=True).fit(X, y).fit(X2, 2 * y2)
    fresh = EnergyRegressor(()).fit(X2, 2 * y2)
    np.testing.assert_array_equal(model.predict(X2), fresh.predict(X2))
    assert model.alpha_ == fresh.alpha_


def test_the_penalty_of_a_fit_that_goes_on_is_that_of_its_rows():
    X, y = make_line()
    model = EnergyRegressor(warm_start=True, **BRIEF).fit(X, y)
    assert model.fit(X, y).alpha_ == 3 / len(X)
    assert model.partial_fit(X, y).alpha_ == 3 / (2 * len(X))


def test_the_first_chunk_must_have_different_targets():
    X, y = make_line()
    for rows in (slice(0, 1), slice(0, 5)):
        with pytest.raises(ValueError, match="first chunk of partial_fit, in which y does not"):
            EnergyRegressor(**BRIEF).partial_fit(X[rows], np.full(rows.stop, 5.0))
    model = EnergyRegressor(**BRIEF).partial_fit(X, y)
    model.partial_fit(X[:1], y[:1])
    both = EnergyRegressor(**BRIEF).partial_fit(X, np.c_[y, np.full(len(y), 5.0)])
    assert both.residual_scale_[1] == 1.0  # one that does not vary tells of no scale
