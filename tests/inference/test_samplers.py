"""Samplers of continuous energies leave p invariant; HMC is reversible and preserves volume."""

import math

import numpy as np
import pytest
import torch

from sklebm.inference.chains import energy_and_gradient, run
from sklebm.inference.hamiltonian import HMC, leapfrog
from sklebm.inference.langevin import MALA, Langevin

DOUBLE = torch.float64


class DoubleWell:
    """F(x) = (x^2 - 1)^2 + x / 2 in one dimension: two modes of different weight."""

    def free_energy(self, x):
        return ((x**2 - 1) ** 2 + 0.5 * x).sum(dim=1)


class Banana:
    """F(x) = x_1^2 / 2 + 2 (x_2 - x_1^2 / 2)^2 in two dimensions."""

    def free_energy(self, x):
        return 0.5 * x[:, 0] ** 2 + 2.0 * (x[:, 1] - 0.5 * x[:, 0] ** 2) ** 2


class Quadratic:
    """F(x) = |x|^2 / 2."""

    def free_energy(self, x):
        return 0.5 * x.square().sum(dim=1)


def exact_draws(energy, n_dimensions, n_draws, seed=0, limit=6.0):
    """Independent draws by quadrature: a cell of a fine grid by its mass, then a point in it.

    Within a cell the density is taken as constant, an error of (cell width)^2 / 24 times its second
    derivative: for these energies below 1e-5 of the density.
    """
    n_cells = 20_000 if n_dimensions == 1 else 2_000
    width = 2 * limit / n_cells
    middles = torch.linspace(-limit + width / 2, limit - width / 2, n_cells, dtype=DOUBLE)
    grid = torch.cartesian_prod(*[middles] * n_dimensions).reshape(-1, n_dimensions)
    p = torch.softmax(-energy.free_energy(grid), dim=0).numpy()
    rng = np.random.default_rng(seed)
    cells = np.searchsorted(np.cumsum(p), rng.random(n_draws), side="right").clip(max=len(p) - 1)
    inside = width * (rng.random((n_draws, n_dimensions)) - 0.5)
    return grid[torch.from_numpy(cells)] + torch.from_numpy(inside)


def drift(before, after):
    """Largest |z| of the mean change of some functions of the positions, which should be 0."""
    functions = [lambda x, k=k: x**k for k in (1, 2, 3, 4)]
    functions += [lambda x, t=t: (x < t).to(x.dtype) for t in (-1.2, -0.5, 0.0, 0.5, 1.2)]
    if before.shape[1] == 2:
        functions.append(lambda x: x[:, :1] * x[:, 1:])
        functions.append(lambda x: x[:, :1] ** 2 * x[:, 1:])
    scores = []
    for function in functions:
        change = function(after) - function(before)
        error = change.std(dim=0) / math.sqrt(len(change))
        scores.append((change.mean(dim=0) / error).abs().max())
    return float(max(scores))


SAMPLERS = [MALA(0.5), MALA(1.2), HMC(0.2, 8), HMC(0.7, 3)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize(("energy", "n_dimensions"), [(DoubleWell(), 1), (Banana(), 2)])
def test_corrected_samplers_leave_p_invariant(sampler, energy, n_dimensions):
    start = exact_draws(energy, n_dimensions, 100_000)
    generator = torch.Generator().manual_seed(1)
    state = run(sampler, generator, sampler.init(generator, start, energy), energy, 4)
    moved = (state.position != start).any(dim=1).double().mean()
    assert moved > 0.2
    assert drift(start, state.position) < 4.5


def test_the_invariance_test_would_notice_a_sampler_that_is_not_exact():
    start = exact_draws(DoubleWell(), 1, 100_000)
    generator = torch.Generator().manual_seed(1)
    state = Langevin(0.5).init(generator, start, DoubleWell())
    state = run(Langevin(0.5), generator, state, DoubleWell(), 4)
    assert drift(start, state.position) > 10


@pytest.mark.parametrize("step_size", [0.3, 1.0])
def test_unadjusted_langevin_has_the_stationary_variance_of_its_recursion(step_size):
    """On |x|^2 / 2 it is x' = (1 - e^2/2) x + e xi, whose variance is 1 / (1 - e^2/4)."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(200_000, 1, generator=generator, dtype=DOUBLE)
    start /= math.sqrt(1 - step_size**2 / 4)
    state = Langevin(step_size).init(generator, start, Quadratic())
    state = run(Langevin(step_size), generator, state, Quadratic(), 3)
    assert drift(start, state.position) < 4.5


@pytest.mark.parametrize("energy", [DoubleWell(), Banana()])
def test_leapfrog_is_reversible(energy):
    n_dimensions = 1 if isinstance(energy, DoubleWell) else 2
    generator = torch.Generator().manual_seed(0)
    start = 0.7 * torch.randn(50, n_dimensions, generator=generator, dtype=DOUBLE)
    momentum = torch.randn(50, n_dimensions, generator=generator, dtype=DOUBLE)
    step = torch.tensor(0.1, dtype=DOUBLE)
    state = HMC().init(generator, start, energy)
    there, last = leapfrog(energy, state, momentum, step, 20)
    assert (there.position - start).abs().max() > 0.5
    back, first = leapfrog(energy, there, -last, step, 20)
    torch.testing.assert_close(back.position, start, rtol=0, atol=1e-10)
    torch.testing.assert_close(-first, momentum, rtol=0, atol=1e-10)


@pytest.mark.parametrize("energy", [DoubleWell(), Banana()])
def test_leapfrog_preserves_volume(energy):
    """The determinant of d(x', p') / d(x, p), by central differences of the whole map."""
    n_dimensions = 1 if isinstance(energy, DoubleWell) else 2
    step = torch.tensor(0.1, dtype=DOUBLE)
    generator = torch.Generator().manual_seed(0)

    def trajectory(points):
        x, p = points[:, :n_dimensions], points[:, n_dimensions:]
        there, last = leapfrog(energy, HMC().init(generator, x, energy), p, step, 10)
        return torch.cat([there.position, last], dim=1)

    point = torch.randn(2 * n_dimensions, generator=generator, dtype=DOUBLE)
    # Differences of eighth order: rounding and truncation are both below 1e-12.
    h, eye = 0.005, torch.eye(2 * n_dimensions, dtype=DOUBLE)
    weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    jacobian = sum(
        w * (trajectory(point + k * h * eye) - trajectory(point - k * h * eye))
        for k, w in weights.items()
    )
    jacobian /= h
    assert float(jacobian.abs().max()) > 1.2
    assert abs(float(torch.linalg.det(jacobian))) == pytest.approx(1.0, abs=1e-10)


def test_leapfrog_preserves_volume_exactly_where_it_is_linear():
    """On |x|^2 / 2 the map is a matrix, so that its determinant has no error of differences."""
    step = torch.tensor(0.3, dtype=DOUBLE)
    eye = torch.eye(4, dtype=DOUBLE)
    state = HMC().init(torch.Generator(), eye[:, :2].contiguous(), Quadratic())
    there, last = leapfrog(Quadratic(), state, eye[:, 2:], step, 10)
    determinant = torch.linalg.det(torch.cat([there.position, last], dim=1))
    assert float(determinant) == pytest.approx(1.0, abs=1e-12)


class Cliff:
    """|x|^2 / 2, but no number beyond 1, where proposals go half of the time."""

    def free_energy(self, x):
        value = 0.5 * x.square().sum(dim=1)
        return torch.where(x[:, 0] > 1.0, torch.nan, value)


def test_trajectories_of_a_whole_period_do_not_return_to_their_start():
    """Ten leapfrog steps of 2 sin(pi / 10) turn (x, p) of |x|^2 / 2 round to where they began."""
    energy, n_chains = Quadratic(), 2000
    sampler = HMC(2.0 * math.sin(math.pi / 10), 10)
    generator = torch.Generator().manual_seed(0)
    start = torch.full((n_chains, 1), 3.0, dtype=DOUBLE)
    state = sampler.init(generator, start, energy)
    momentum = torch.ones_like(start)
    step = state.log_step.exp().expand(n_chains)[:, None]
    torch.testing.assert_close(leapfrog(energy, state, momentum, step, 10)[0].position, start)
    for _ in range(30):
        state, _ = sampler.step(generator, state, energy)
    # Independent draws of N(0, 1), one from each chain: five standard errors of mean and variance.
    mean, variance = float(state.position.mean()), float(state.position.var())
    assert abs(mean) < 5 / math.sqrt(n_chains)
    assert abs(variance - 1) < 5 * math.sqrt(2 / n_chains)


@pytest.mark.parametrize("sampler", [Langevin(0.9), MALA(0.9), HMC(0.9, 2)], ids=repr)
def test_a_proposal_that_is_no_number_is_a_rejection(sampler):
    generator = torch.Generator().manual_seed(0)
    start = torch.full((500, 2), 0.9, dtype=DOUBLE)
    state = sampler.init(generator, start, Cliff())
    refused = 0
    for _ in range(10):
        before = state
        state, info = sampler.step(generator, state, Cliff())
        assert torch.isfinite(state.position).all()
        assert torch.isfinite(state.energy).all()
        assert torch.isfinite(state.gradient).all()
        assert torch.isfinite(info.acceptance).all()
        stayed = ~info.moved
        torch.testing.assert_close(state.position[stayed], before.position[stayed], rtol=0, atol=0)
        refused += int(stayed.sum())
    assert refused > 100
    assert float(state.position[:, 0].max()) <= 1.0


@pytest.mark.parametrize("sampler", [MALA(5.0), MALA(1e-3), HMC(5.0, 5), HMC(1e-3, 5)], ids=repr)
def test_adaptation_reaches_the_target_acceptance(sampler):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(500, 10, generator=generator, dtype=DOUBLE)
    state = run(
        sampler, generator, sampler.init(generator, start, Quadratic()), Quadratic(), 150, 0.2
    )
    rates = []
    for _ in range(20):
        state, info = sampler.step(generator, state, Quadratic())
        rates.append(float(info.acceptance.mean()))
    assert np.mean(rates) == pytest.approx(sampler.target_acceptance, abs=0.05)


def test_steps_are_pure():
    energy, sampler = Banana(), HMC(0.2)
    start = torch.zeros(5, 2, dtype=DOUBLE)
    first = sampler.init(torch.Generator(), start, energy)
    runs = [sampler.step(torch.Generator().manual_seed(3), first, energy)[0] for _ in range(2)]
    torch.testing.assert_close(runs[0].position, runs[1].position, rtol=0, atol=0)
    assert (start == 0).all()
    assert not first.position.requires_grad


def test_gradients_keep_no_graph_and_leave_parameters_alone():
    layer = torch.nn.Linear(2, 1, dtype=DOUBLE)

    class Linear:
        def free_energy(self, x):
            return layer(x)[:, 0]

    value, gradient = energy_and_gradient(Linear(), torch.zeros(3, 2, dtype=DOUBLE))
    assert not value.requires_grad
    assert not gradient.requires_grad
    assert layer.weight.grad is None
    torch.testing.assert_close(gradient, layer.weight.detach().expand(3, 2))


class Watched(torch.Tensor):
    """A tensor that refuses to be read by the host."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        reading = ("item", "__bool__", "__float__", "__int__", "tolist", "numpy", "cpu", "nonzero")
        assert getattr(function, "__name__", "") not in reading, f"reads {function}"
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.parametrize("sampler", [Langevin(), MALA(), HMC()], ids=repr)
def test_a_chain_never_waits_for_the_device(sampler):
    generator = torch.Generator().manual_seed(0)
    start = torch.zeros(4, 2, dtype=DOUBLE).as_subclass(Watched)
    with pytest.raises(AssertionError, match="reads"):
        float(start[0, 0])
    state = run(sampler, generator, sampler.init(generator, start, Banana()), Banana(), 3, 0.1)
    assert isinstance(state.position, Watched)


@pytest.mark.parametrize("kind", [Langevin, MALA, HMC])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "small"])
def test_step_sizes_are_checked(kind, value):
    with pytest.raises(ValueError, match="step_size"):
        kind(step_size=value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_numbers_of_steps_are_checked(value):
    with pytest.raises(ValueError, match="n_leapfrog"):
        HMC(n_leapfrog=value)


def test_trajectories_that_would_return_to_their_start_do_not():
    """Twenty leapfrog steps that turn |x|^2 / 2 once around end where they began, if all alike."""
    n_leapfrog = 20
    step_size = 2 * math.sin(math.pi / n_leapfrog)  # a step turns by 2 asin(step / 2)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2000, 3, generator=generator, dtype=DOUBLE)
    fixed = HMC(step_size, n_leapfrog).init(generator, start, Quadratic())
    momentum = torch.randn(2000, 3, generator=generator, dtype=DOUBLE)
    step = torch.tensor(step_size, dtype=DOUBLE)
    orbit, _ = leapfrog(Quadratic(), fixed, momentum, step, n_leapfrog)
    torch.testing.assert_close(orbit.position, start, rtol=0, atol=1e-11)
    state, info = HMC(step_size, n_leapfrog).step(generator, fixed, Quadratic())
    assert info.moved.double().mean() > 0.9
    distance = (state.position - start).norm(dim=1)
    assert float(distance.median()) > 0.5
    # Each chain has a step size of its own: the angle left over is spread, not the same for all.
    assert float(distance.std()) > 0.3
