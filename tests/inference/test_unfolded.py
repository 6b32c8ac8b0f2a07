"""Unfolded solvers: before learning they are the solver, layer by layer."""

import numpy as np
import pytest
import torch

from sklebm.energies import L1
from sklebm.inference import proximal
from sklebm.inference.sparse_problem import make_problem
from sklebm.inference.unfolded import Unfolding, analytic_weights, shrink, strongest_pairs

ALPHA = 0.3


def make_problem_rows(n_rows=40, n_features=12, n_components=20, seed=0, unit=False):
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(n_components, n_features, generator=generator, dtype=torch.float64)
    if unit:
        atoms /= atoms.norm(dim=1, keepdim=True)
    x = 2 * torch.randn(n_rows, n_features, generator=generator, dtype=torch.float64)
    return x, atoms


def solver_iterates(x, atoms, step, n_steps):
    """Codes of a batched solver after 1, 2, ..., n_steps steps from zero."""
    problem = make_problem(x, atoms, L1(), ALPHA)
    state = proximal.start_at_zero(problem)
    iterates = []
    for _ in range(n_steps):
        state = step(problem, state)
        iterates.append(state[0])
    return iterates


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("variant", ["lista", "coupled"])
@pytest.mark.parametrize("n_layers", [0, 1, 7])
def test_untrained_layers_are_steps_of_ista(variant, shared, n_layers):
    x, atoms = make_problem_rows()
    encoder = Unfolding(variant, n_layers, shared).start(atoms, ALPHA)
    codes = encoder.layers(x)
    assert len(codes) == n_layers + 1
    iterates = solver_iterates(x, atoms, proximal.ista_step, n_layers + 1)
    for found, expected in zip(codes, iterates, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(encoder(x), iterates[-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_untrained_coordinate_descent_closes_with_a_shrink_of_all_entries(shared):
    """T moves of the solver, then the best value of every entry, the others held."""
    x, atoms = make_problem_rows()
    problem = make_problem(x, atoms, L1(), ALPHA)
    state = proximal.start_at_zero(problem)
    codes = Unfolding("lcod", 7, shared).start(atoms, ALPHA).layers(x)
    assert len(codes) == 8
    for found in codes:
        z, product = state
        expected = problem.coordinate_minimum(z, problem.correlations - product)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        state = proximal.coordinate_step(problem, state)


@pytest.mark.parametrize("analytic", [False, True])
def test_every_coupled_network_is_a_lista_network(analytic):
    """S = I - W D': the tie is a special case of free matrices."""
    x, atoms = make_problem_rows(unit=True)
    free = Unfolding("lista", 3, False).start(atoms, ALPHA, analytic=analytic)
    tied = Unfolding("coupled", 3).start(atoms, ALPHA, analytic=analytic)
    torch.testing.assert_close(tied(x), free(x), rtol=1e-10, atol=1e-10)


def test_the_largest_entries_pass_as_they_are():
    x, atoms = make_problem_rows()
    plain = Unfolding("coupled", 0).start(atoms, ALPHA)
    chosen = Unfolding("coupled", 0, selection_rate=0.15, max_selection=1.0).start(atoms, ALPHA)
    v = x @ plain.weights[0].T
    for row, shrunk, found in zip(v, plain(x), chosen(x), strict=True):
        largest = row.abs().argsort(descending=True)[:3]
        expected = shrunk.clone()
        expected[largest] = torch.where(shrunk[largest] != 0, row[largest], 0.0)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_entries_below_the_threshold_never_pass():
    x, atoms = make_problem_rows()
    whole = Unfolding("coupled", 2, selection_rate=1.0, max_selection=1.0)
    assert not whole.start(atoms, 1e6)(x).any()


@pytest.mark.parametrize("n_features", [12, 30])
def test_analytic_weights_have_least_coherence(n_features):
    """Against the optimality conditions of the constrained least squares, and random rivals."""
    atoms = make_problem_rows(n_features=n_features, unit=True)[1]
    weights = analytic_weights(atoms)
    torch.testing.assert_close((weights * atoms).sum(1), torch.ones(20, dtype=torch.float64))
    coherence = (weights @ atoms.T).square().sum(dim=1)
    generator = torch.Generator().manual_seed(1)
    for scale in (1e-3, 0.1):
        change = scale * torch.randn(weights.shape, generator=generator, dtype=torch.float64)
        rivals = weights + change - (change * atoms).sum(1, keepdim=True) * atoms
        assert ((rivals @ atoms.T).square().sum(dim=1) >= coherence - 1e-12).all()
    assert (coherence <= (atoms @ atoms.T).square().sum(dim=1) + 1e-12).all()


def test_masks_hold_the_strongest_pairs():
    atoms = make_problem_rows(unit=True)[1]
    mask = strongest_pairs(atoms, 0.25)
    products = (atoms @ atoms.T).abs()
    off = ~torch.eye(20, dtype=torch.bool)
    assert (mask == mask.T).all()
    assert (mask.diagonal() == 1).all()
    assert int(mask[off].sum()) == 2 * round(0.25 * 190)
    assert products[off & (mask == 1)].min() >= products[off & (mask == 0)].max()
    assert (strongest_pairs(atoms, 1.0) == 1).all()


@pytest.mark.parametrize("variant", ["lista", "lcod"])
def test_masked_pairs_do_not_interact_and_are_not_learnt(variant):
    x, atoms = make_problem_rows()
    mask = strongest_pairs(atoms, 0.25)
    encoder = Unfolding(variant, 3).start(atoms, ALPHA, mask=mask)
    encoder(x).square().sum().backward()
    gradient = encoder.lateral.grad[0]
    assert gradient[mask == 1].any()
    assert not gradient[mask == 0].any()
    before = encoder(x)
    with torch.no_grad():
        encoder.lateral[0][mask == 0] += 1.0
    torch.testing.assert_close(encoder(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("variant", ["lista", "lcod", "coupled"])
@pytest.mark.parametrize("shared", [True, False])
def test_gradients_reach_every_parameter_and_agree_with_differences(variant, shared):
    x, atoms = make_problem_rows(n_rows=30)
    encoder = Unfolding(variant, 3, shared).start(atoms, ALPHA)
    encoder(x).square().sum().backward()
    generator = np.random.default_rng(0)
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.any(), name
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for place in generator.choice(len(flat), 5):
            values = []
            for change in (1e-7, -2e-7):
                flat[place] += change
                values.append(float(encoder(x).square().sum().detach()))
            flat[place] += 1e-7
            slope = (values[0] - values[1]) / 2e-7
            assert slope == pytest.approx(float(gradient[place]), rel=1e-4, abs=1e-4), name


def test_soft_threshold_takes_the_size_of_a_negative_threshold():
    v = torch.tensor([[-2.0, -0.5, 0.0, 0.5, 2.0]])
    expected = torch.tensor([[-1.0, 0.0, 0.0, 0.0, 1.0]])
    for threshold in (1.0, -1.0):
        torch.testing.assert_close(shrink(v, torch.tensor(threshold)), expected)
