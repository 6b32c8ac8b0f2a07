"""Mean-covariance machines against closed forms, quadrature, exact draws and other machines."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from sklebm import GaussianRBM, MeanCovarianceRBM
from sklebm.energies import Bernoulli, Gaussian, GaussianBilinearEnergy
from sklebm.energies.mean_covariance import MeanCovarianceEnergy
from sklebm.inference.chains import energy_and_gradient
from sklebm.inference.gibbs import BlockGibbs
from sklebm.inference.hamiltonian import HMC, leapfrog
from sklebm.objectives import Batch, MaximumLikelihood, ScoreMatching
from sklebm.objectives.score_matching import gradient_and_laplacian
from tests.registry import make_rows


def make_energy(d=2, n_mean=2, n_covariance=3, n_factors=4, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return MeanCovarianceEnergy(
        0.3 * draw(d),
        torch.tensor([0.4], dtype=torch.float64),
        0.8 * draw(n_mean, d),
        Bernoulli(draw(n_mean)),
        torch.nn.functional.normalize(draw(n_factors, d), dim=1),
        -3.0 * draw(n_factors, n_covariance).abs(),
        Bernoulli(draw(n_covariance)),
        learn_variance=True,
    )


def arrays(energy):
    """a, s^2, W', b, R', P and c as NumPy arrays."""
    tensors = (
        energy.visible_bias, energy.log_variance.exp(), energy.weights, energy.mean_units.bias,
        energy.filters, energy.pooling, energy.covariance_units.bias,
    )  # fmt: skip
    return [tensor.detach().numpy() for tensor in tensors]


def gaussian_given(energy, z, y):
    """Mean and covariance of p(x | y, z), from the formula with matrices inverted as they are."""
    a, variance, weights, _, filters, pooling, _ = arrays(energy)
    precision = np.eye(len(a)) / variance + filters.T @ np.diag(-pooling @ y) @ filters
    covariance = np.linalg.inv(precision)
    return covariance @ (a + z @ weights), covariance


def hidden_states(energy):
    return [np.array(h) for h in product((0.0, 1.0), repeat=energy.summed_units)]


# ---------------------------------------------------------------- conditionals


def test_energy_is_the_equation():
    energy = make_energy(d=3)
    a, variance, weights, b, filters, pooling, c = arrays(energy)
    x = np.array([0.3, -1.2, 2.0])
    for h in hidden_states(energy):
        z, y = h[:2], h[2:]
        expected = (
            x @ x / 2 / variance[0] - a @ x - 0.5 * (x @ filters.T) ** 2 @ pooling @ y
            - c @ y - x @ weights.T @ z - b @ z
        )  # fmt: skip
        with torch.no_grad():
            found = energy.energy(torch.from_numpy(x)[None], torch.from_numpy(h)[None])
        assert float(found) == pytest.approx(expected, rel=1e-12)


def test_moments_given_the_hidden_units():
    """The formula exactly; a million draws within five standard errors of each moment."""
    energy = make_energy(d=3)
    generator = torch.Generator().manual_seed(0)
    n_rows = 1_000_000
    h = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    mean, covariance = gaussian_given(energy, h[:2], h[2:])
    with torch.no_grad():
        z, y = energy.split(torch.from_numpy(h)[None])
        factor = energy.precision_factor(y)
        np.testing.assert_allclose(energy.conditional_mean(factor, z)[0], mean, rtol=1e-10)
        precision = (factor @ factor.mT)[0].numpy()
        np.testing.assert_allclose(np.linalg.inv(precision), covariance, rtol=1e-10)
        draws = torch.cat(
            [
                energy.draw_visible(torch.from_numpy(h).expand(n_rows // 10, -1), generator)
                for _ in range(10)
            ]
        ).numpy()
    error = np.sqrt(np.diag(covariance) / n_rows)
    assert (np.abs(draws.mean(axis=0) - mean) <= 5 * error).all()
    spread = np.diag(covariance)
    error = np.sqrt((np.outer(spread, spread) + covariance**2) / n_rows)
    assert (np.abs(np.cov(draws.T) - covariance) <= 5 * error).all()


def test_precisions_beyond_what_floats_resolve_are_refused():
    """A precision of 1e20 beside one of 1 is singular in double precision; NaN stays NaN."""
    energy = make_energy(d=3)
    y = torch.ones(2, energy.pooling.shape[1], dtype=torch.float64)
    with torch.no_grad():
        energy.pooling[0, :] = -1e20
        with pytest.raises(FloatingPointError, match=r"2 of 2 precisions .* not positive definite"):
            energy.precision_factor(y)
        energy.pooling[0, :] = torch.nan
        assert torch.isnan(energy.precision_factor(y)).any(dim=(1, 2)).all()
        assert torch.isnan(energy.exact_log_partition())


def test_hidden_means_are_those_of_the_enumerated_states():
    energy = make_energy(d=3)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    states = torch.tensor(np.array(hidden_states(energy)))
    with torch.no_grad():
        for row, found, value in zip(x, energy.hidden_mean(x), energy.free_energy(x), strict=True):
            log_p = -energy.energy(row.expand(len(states), -1), states)
            expected = torch.softmax(log_p, 0) @ states
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
            assert float(value) == pytest.approx(-float(torch.logsumexp(log_p, 0)), rel=1e-12)


def test_derivatives_in_closed_form_are_those_of_autograd():
    energy = make_energy(d=3)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for found, expected in zip(
        energy.gradient_and_laplacian(x), gradient_and_laplacian(energy, x), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


# ---------------------------------------------------------------- densities


def test_density_is_the_mixture_of_all_hidden_states():
    """Each state is a Gaussian, whose weight is its mass; from scipy's densities."""
    energy = make_energy(d=3)
    x = np.random.default_rng(0).normal(size=(5, 3))
    log_masses, log_densities = [], []
    *_, weights, b, _, _, c = arrays(energy)
    a = arrays(energy)[0]
    for h in hidden_states(energy):
        mean, covariance = gaussian_given(energy, h[:2], h[2:])
        log_determinant = np.linalg.slogdet(covariance)[1]
        pushed = a + h[:2] @ weights
        log_masses.append(h[:2] @ b + h[2:] @ c + 0.5 * (pushed @ mean + log_determinant))
        log_densities.append(multivariate_normal(mean, covariance).logpdf(x))
    log_z = logsumexp(log_masses) + 1.5 * np.log(2 * np.pi)
    with torch.no_grad():
        assert float(energy.exact_log_partition()) == pytest.approx(log_z, rel=1e-12)
        found = -energy.free_energy(torch.from_numpy(x)) - log_z
    shares = np.array(log_masses) - logsumexp(log_masses)
    np.testing.assert_allclose(found, logsumexp(shares[:, None] + log_densities, axis=0), rtol=1e-9)


@pytest.mark.parametrize("n_components", [0, 2])
def test_density_integrates_to_one_in_the_plane(n_components):
    """On a grid that holds all mass: at ten standard deviations at least, steps of 0.02 of one."""
    rng = np.random.default_rng(0)
    X = [3.0, -1.0] + rng.normal(size=(400, 2)) * rng.choice([0.2, 1.0], size=(400, 1)) * [5.0, 7.0]
    model = MeanCovarianceRBM(n_components, 3, max_epochs=5, random_state=0).fit(X)
    assert model.log_partition_interval_[0] == model.log_partition_interval_[1]
    reach = 12.0 * np.sqrt(np.exp(model.log_variance_[0])) * model.scale_[0]
    axis = np.linspace(-reach, reach, 1201)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2) + model.offset_
    mass = np.exp(model.score_samples(grid)).sum() * (axis[1] - axis[0]) ** 2
    assert mass == pytest.approx(1.0, abs=1e-6)


def test_without_covariances_it_is_a_gaussian_machine():
    """W -> W / s^2 and a -> a / s^2, and all covariance units without filters."""
    rng = np.random.default_rng(0)
    variance, weights, a, b = 0.7, rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=3)
    peer = GaussianRBM.from_parameters(
        components=weights, intercept_hidden=b, intercept_visible=a,
        log_variance=[np.log(variance)],
    )  # fmt: skip
    model = MeanCovarianceRBM.from_parameters(
        components=weights / variance, intercept_hidden=b, intercept_visible=a / variance,
        log_variance=[np.log(variance)], filters=np.eye(4)[:2], pooling=np.zeros((2, 2)),
        intercept_covariance=[0.5, -1.0],
    )  # fmt: skip
    X = rng.normal(size=(6, 4))
    gaps = model.free_energy(X) - peer.free_energy(X)
    np.testing.assert_allclose(gaps, gaps[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(model.transform(X)[:, :3], peer.transform(X), rtol=1e-12)
    for machine in (peer, model):
        machine.estimate_log_partition("exact")
    np.testing.assert_allclose(model.score_samples(X), peer.score_samples(X), rtol=1e-10)
    # and of the energies that they are made of
    units = Gaussian(torch.from_numpy(a), torch.tensor([np.log(variance)]))
    bilinear = GaussianBilinearEnergy(
        units, Bernoulli(torch.from_numpy(b)), torch.from_numpy(weights)
    )
    h = torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        own = model._energy(torch.device("cpu")).draw_visible(
            h.expand(200_000, -1), torch.Generator().manual_seed(0)
        )
        expected = bilinear.visible_field(h[:, :3])
    # means of 2e5 draws with variance 0.7, within five standard errors
    assert ((own.mean(dim=0) - expected).abs() <= 5 * (variance / 200_000) ** 0.5).all()


# ---------------------------------------------------------------- samplers


def draw_exactly(energy, n_rows, generator):
    """Rows drawn independently: a hidden state by its mass, and x given it."""
    every = torch.tensor(np.array(hidden_states(energy)))
    z, y = energy.split(every)
    factor = energy.precision_factor(y)
    pushed = torch.addmm(energy.visible_bias, z, energy.weights)
    log_mass = 0.5 * (pushed * energy.conditional_mean(factor, z)).sum(dim=1)
    log_mass = log_mass - factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    log_mass = log_mass - energy.mean_units.energy(z) - energy.covariance_units.energy(y)
    p = torch.softmax(log_mass, dim=0)
    chosen = torch.multinomial(p, n_rows, replacement=True, generator=generator)
    return energy.draw_visible(every[chosen], generator)


@pytest.fixture(scope="module")
def drawn():
    energy = make_energy()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        x = draw_exactly(energy, 200_000, generator)
    return energy, x, generator


def frequencies(x):
    """Shares of rows in 12 x 12 cells, the outermost without an end."""
    edges = torch.linspace(-3.0, 3.0, 11, dtype=x.dtype)
    cells = torch.bucketize(x.contiguous(), edges)
    return torch.bincount(12 * cells[:, 0] + cells[:, 1], minlength=144) / len(x)


def test_exact_draws_have_the_density(drawn):
    """Shares of the cells by quadrature, within what exact draws deviate on average, times 1.5."""
    energy, x, _ = drawn
    axis = torch.linspace(-12.0, 12.0, 1201, dtype=torch.float64)
    axis = 0.5 * (axis[1:] + axis[:-1])
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_p = torch.cat([-energy.free_energy(part) for part in torch.split(grid, 2**20)])
    p = torch.softmax(log_p, 0)
    edges = torch.linspace(-3.0, 3.0, 11, dtype=torch.float64)
    cells = torch.bucketize(grid, edges)
    expected = torch.bincount(12 * cells[:, 0] + cells[:, 1], weights=p, minlength=144)
    assert total_variation(frequencies(x), expected) <= 1.5 * typical_variation(expected, len(x))


def total_variation(first, second):
    return float(0.5 * (first - second).abs().sum())


def typical_variation(p, n_rows):
    """Mean total variation of n exact draws from p: E|k / n - p| = sqrt(2 p / pi n) per cell."""
    return float(0.5 * (2.0 * p / torch.pi / n_rows).sqrt().sum())


@pytest.mark.parametrize("sampler", [HMC(step_size=0.4, n_leapfrog=5), BlockGibbs()])
def test_steps_leave_the_density_invariant(drawn, sampler):
    """Start at exact draws, move, and compare; two samples deviate by sqrt(2) times one."""
    energy, x, generator = drawn
    chains = sampler.init(generator, x, energy)
    with torch.no_grad():
        for _ in range(3):
            chains, info = sampler.step(generator, chains, energy)
    assert float(info.acceptance.mean()) > 0.5
    assert float((chains.position != x).any(dim=1).double().mean()) > 0.5
    before, after = frequencies(x), frequencies(chains.position)
    assert total_variation(before, after) <= 1.5 * 2**0.5 * typical_variation(before, len(x))


def test_leapfrog_steps_are_reversible(drawn):
    energy, x, generator = drawn
    start = HMC().resume(x[:50], torch.tensor(0.0), energy)
    momentum = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    step = torch.tensor(0.1, dtype=torch.float64)
    there, last = leapfrog(energy, start, momentum, step, 20)
    back, first = leapfrog(energy, there, -last, step, 20)
    torch.testing.assert_close(back.position, start.position, rtol=0, atol=1e-10)
    torch.testing.assert_close(-first, momentum, rtol=0, atol=1e-10)
    value, _ = energy_and_gradient(energy, back.position)
    torch.testing.assert_close(value, start.energy, rtol=0, atol=1e-10)


def test_trajectories_of_training_are_accepted_nine_times_in_ten():
    """By chains whose step sizes were adapted during it."""
    X = make_rows(400, noise=0.3)
    model = MeanCovarianceRBM(3, 6, max_epochs=30, random_state=0).fit(X)
    state = model.training_state_
    position = next(v for k, v in state.items() if k.endswith("position"))
    log_step = next(v for k, v in state.items() if k.endswith("log_step"))
    energy = model._energy(torch.device("cpu"))
    sampler, generator = model._chain(), torch.Generator().manual_seed(0)
    chains = sampler.resume(torch.as_tensor(position), torch.as_tensor(log_step), energy)
    shares = []
    for _ in range(20):
        chains, info = sampler.step(generator, chains, energy)
        shares.append(float(info.acceptance.mean()))
    assert 0.8 <= np.mean(shares) <= 0.97


# ---------------------------------------------------------------- learning


def test_exact_gradient_is_that_of_finite_differences():
    energy = make_energy()
    rows = torch.randn(20, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    objective = MaximumLikelihood()
    loss, _ = objective.loss(energy, Batch(rows), {}, None)
    names, parameters = zip(*energy.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    step = 1e-5  # central differences: an error of step^2 and rounding of 1e-16 / step
    for name, parameter, gradient in zip(names, parameters, gradients, strict=True):
        flat = parameter.data.view(-1)
        for index in range(len(flat)):
            values = []
            for sign in (1.0, -1.0):
                flat[index] += sign * step
                values.append(float(objective.loss(energy, Batch(rows), {}, None)[0].detach()))
                flat[index] -= sign * step
            slope = (values[0] - values[1]) / (2 * step)
            assert float(gradient.view(-1)[index]) == pytest.approx(slope, abs=1e-7), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sampler": "gibbs"},
        {"objective": "cd"},
        {"objective": "score_matching"},
        {"objective": "maximum_likelihood"},
    ],
)
def test_heavy_tails_need_covariances(settings):
    """At least four fifths of what the true mixture of two variances has over a Gaussian."""
    rng = np.random.default_rng(0)

    def rows(n):
        return rng.normal(size=(n, 2)) * rng.choice([0.3, 2.0], size=(n, 1)) + [5.0, -3.0]

    X, X_test = rows(2000), rows(4000)
    quick = {"learning_rate": 0.1, "max_epochs": 15, "n_leapfrog": 5, "random_state": 0}
    model = MeanCovarianceRBM(0, 8, **quick, **settings).fit(X)
    densities = [
        multivariate_normal([5.0, -3.0], s**2 * np.eye(2)).logpdf(X_test) for s in (0.3, 2.0)
    ]
    best = (logsumexp(densities, axis=0) - np.log(2)).mean()
    normal = multivariate_normal(X.mean(axis=0), np.cov(X.T)).logpdf(X_test).mean()
    assert best - normal > 0.5
    assert model.score(X_test) > normal + 0.8 * (best - normal)
    assert (model.pooling_ <= 0).all()
    np.testing.assert_allclose(np.linalg.norm(model.filters_, axis=1), 1.0, rtol=1e-5)


def test_annealed_log_z_brackets_the_exact_one():
    X = make_rows(300, noise=0.3)
    model = MeanCovarianceRBM(3, 4, max_epochs=10, random_state=0).fit(X)
    exact = model.log_partition_
    model.estimate_log_partition("ais", n_chains=50, n_temperatures=100, random_state=0)
    low, high = model.log_partition_interval_
    assert low <= exact <= high
    assert high - low < 1.0
    assert model.check_density(random_state=0).passed


def test_neighbours_on_the_grid_share_their_units():
    X = np.random.default_rng(0).normal(size=(100, 5))
    settings = {"learning_rate": 1e-4, "max_epochs": 2, "log_partition": None, "random_state": 0}
    model = MeanCovarianceRBM(2, 16, factor_structure="topographic", **settings).fit(X)
    grid = model.pooling_.reshape(4, 4, 4, 4)
    assert ((model.pooling_ < 0).sum(axis=0) <= 9).all()
    assert (grid[1, 1, 0:3, 0:3] < 0).any()
    assert (grid[0, 0, 2, :] == 0).all()
    assert grid[0, 0, 3, 3] < 0  # around the corner
    with pytest.raises(ValueError, match="the same square number"):
        MeanCovarianceRBM(2, 8, factor_structure="topographic").fit(X)


def test_units_of_rows_change_the_density_by_their_jacobian_only():
    X = make_rows()
    settings = {"max_epochs": 3, "random_state": 0, "objective": "maximum_likelihood"}
    before = MeanCovarianceRBM(2, 3, **settings).fit(X)
    after = MeanCovarianceRBM(2, 3, **settings).fit(1e4 * X + 1e6)
    expected = before.score_samples(X) - 6 * np.log(1e4)
    # X + 100 keeps 14 digits, and training is in single precision
    np.testing.assert_allclose(after.score_samples(1e4 * X + 1e6), expected, atol=1e-3)
    fixed = MeanCovarianceRBM(2, 3, variance=0.09, **settings).fit(X)
    assert np.exp(fixed.log_variance_[0]) * fixed.scale_[0] ** 2 == pytest.approx(0.09, rel=1e-5)


def test_settings_that_exclude_each_other_are_refused():
    X = make_rows()
    with pytest.raises(ValueError, match="n_steps does not apply"):
        MeanCovarianceRBM(2, 3, objective="score_matching", n_steps=3).fit(X)
    with pytest.raises(ValueError, match="n_steps must be set on it"):
        MeanCovarianceRBM(2, 3, objective=ScoreMatching(), n_steps=3).fit(X)
    with pytest.raises(ValueError, match=r"sums over 2\^17 states, more than 2\^16"):
        MeanCovarianceRBM(8, 9, objective="maximum_likelihood", max_epochs=1).fit(X)
    model = MeanCovarianceRBM(2, 3, max_epochs=1, log_partition=None, random_state=0).fit(X)
    with pytest.raises(ValueError, match="n_factors=5 differs from n_factors=3"):
        model.set_params(n_factors=5, warm_start=True).fit(X)


@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_free_energies_sum_over_the_energies_in_the_units_of_the_rows(beta):
    X = 10.0 * make_rows(60)
    model = MeanCovarianceRBM(2, 2, max_epochs=2, random_state=0).fit(X)
    energies = [model.energy(X, np.tile(h, (len(X), 1))) for h in product([0.0, 1.0], repeat=4)]
    expected = -logsumexp(-beta * np.array(energies), axis=0) / beta
    np.testing.assert_allclose(model.free_energy(X, beta), expected, rtol=1e-6)


def test_given_parameters_with_other_numbers_of_filters_go_on_learning():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(40, 4))
    model = MeanCovarianceRBM.from_parameters(
        components=np.zeros((1, 4)),
        filters=np.eye(4)[:3],
        pooling=-0.1 * np.ones((3, 2)),
        intercept_hidden=np.zeros(1),
        intercept_covariance=np.zeros(2),
        intercept_visible=np.zeros(4),
        log_variance=np.zeros(1),
    )
    assert model.partial_fit(X).filters_.shape == (3, 4)


def test_another_variance_is_refused_when_learning_goes_on():
    X = make_rows(60)
    model = MeanCovarianceRBM(2, 2, max_epochs=1, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"variance=0.5 differs from variance="):
        model.set_params(variance=0.5).partial_fit(X)
    held = MeanCovarianceRBM(2, 2, variance=0.5, max_epochs=1, random_state=0).fit(X)
    held.partial_fit(X)
