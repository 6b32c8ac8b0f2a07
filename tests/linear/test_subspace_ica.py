"""SubspaceICA against known mixings, quadrature, finite differences and its own draws."""

import math

import numpy as np
import pytest
import sklearn
import torch
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import kstest
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

import sklebm
from sklebm import SubspaceICA
from sklebm.energies.independent_subspaces import group_sizes, pool, spread
from sklebm.energies.source_densities import SourceDensity
from sklebm.inference.grouping import grouped_order, square_correlations
from sklebm.inference.matrix_groups import symmetric_orthogonal
from sklebm.linear._sources import Grouping, make_problem

DENSITIES = ("laplace", "log_cosh", "student_t", "logistic")
each_density = pytest.mark.parametrize("density", DENSITIES)


def amari(gains):
    """Amari's index of gains from true to found sources: 0 for a scaled permutation, at most 1."""
    gains = np.abs(gains)
    n = len(gains)
    rows = (gains / gains.max(axis=1, keepdims=True)).sum() - n
    columns = (gains / gains.max(axis=0)).sum() - n
    return (rows + columns) / (2 * n * (n - 1))


def block_gains(gains, size):
    """Root of the summed squares between groups of sources."""
    n = len(gains) // size
    return np.sqrt(np.square(gains).reshape(n, size, n, size).sum(axis=(1, 3)))


def laplace_rows(n_rows=5000, seed=0):
    """Two Laplace sources of variance 1, in a mixing of determinant 1."""
    rng = np.random.default_rng(seed)
    mixing = np.array([[2.0, 1.0], [1.0, 1.0]])
    return rng.laplace(size=(n_rows, 2)) / math.sqrt(2) @ mixing.T + 3.0, mixing


def subspace_rows(n_rows=4000, n_groups=4, size=4, seed=0):
    """Groups whose members share a random scale, in a random mixing."""
    rng = np.random.default_rng(seed)
    common = rng.gamma((size + 1) / 2, 2.0, size=(n_rows, n_groups, 1))
    sources = rng.standard_normal((n_rows, n_groups, size)) * np.sqrt(common)
    mixing = rng.standard_normal((n_groups * size, n_groups * size))
    return sources.reshape(n_rows, -1) @ mixing.T, mixing


# ---------------------------------------------------------------- densities


@each_density
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_constants_are_the_integrals(density, size):
    f = SourceDensity(density, eps=0.05, degrees_of_freedom=2.5)
    sizes = torch.tensor([float(size)])

    def along_radius(r):
        energy = float(f.energy(torch.tensor([[r * r]], dtype=torch.float64), sizes)[0, 0])
        return r ** (size - 1) * math.exp(-energy)

    sphere = 2 * math.pi ** (size / 2) / math.gamma(size / 2)
    inner, _ = quad(along_radius, 0, 5, epsabs=0, epsrel=1e-11, limit=200)
    outer, _ = quad(along_radius, 5, np.inf, epsabs=0, epsrel=1e-11, limit=200)
    assert f.log_constant(size) == pytest.approx(math.log(sphere * (inner + outer)), abs=1e-9)


def test_a_sharp_exponential_norm_has_the_constant_of_the_textbook():
    """Without rounding off: the area of the sphere times Gamma(g)."""
    for size in (1, 2, 5):
        sphere = math.log(2) + size / 2 * math.log(math.pi) - math.lgamma(size / 2)
        exact = sphere + math.lgamma(size)
        # exp(-sqrt(eps + q)) differs from exp(-sqrt q) by sqrt(eps) at most
        assert SourceDensity("laplace", eps=1e-16).log_constant(size) == pytest.approx(
            exact, abs=1e-8
        )


@each_density
def test_slopes_are_derivatives(density):
    f = SourceDensity(density)
    sizes = torch.tensor([2.0], dtype=torch.float64)
    q = torch.tensor([0.01, 0.3, 2.0, 40.0], dtype=torch.float64)[:, None].requires_grad_()
    total, first, second = f.expanded(q.detach(), sizes)
    assert total == pytest.approx(float(f.energy(q.detach(), sizes).sum()), rel=1e-14)
    slope = torch.autograd.grad(f.energy(q, sizes).sum(), q, create_graph=True)[0]
    torch.testing.assert_close(first, slope.detach(), rtol=1e-10, atol=0)
    bend = torch.autograd.grad(slope.sum(), q)[0]
    torch.testing.assert_close(second, bend, rtol=1e-8, atol=1e-12)


@each_density
def test_energies_are_finite_where_no_source_is_active(density):
    f, sizes = SourceDensity(density), torch.ones(1, dtype=torch.float64)
    q = torch.tensor([[0.0], [1e200]], dtype=torch.float64)
    assert torch.isfinite(f.energy(q, sizes)).all()
    assert all(torch.isfinite(part).all() for part in f.expanded(q, sizes)[1:])


@each_density
def test_sums_over_many_rows_do_not_underflow(density):
    f, sizes = SourceDensity(density), torch.ones(3, dtype=torch.float64)
    q = torch.full((5001, 3), 1e3, dtype=torch.float64)
    q[::7] = 0.01
    for rows in (q, q.T.contiguous().T):
        energies = f.energy(rows, sizes)
        assert f.expanded(rows, sizes)[0] == pytest.approx(float(energies.sum()), rel=1e-13)


@each_density
@pytest.mark.parametrize("size", [1, 3])
def test_radii_have_their_density(density, size):
    f = SourceDensity(density, eps=0.5)
    drawn = f.radii(2000, np.array([size]), np.random.default_rng(0))[:, 0]
    grid = np.linspace(0, 200, 400_001)
    sizes = torch.tensor([float(size)], dtype=torch.float64)
    energy = f.energy(torch.from_numpy(grid**2)[:, None], sizes)[:, 0].numpy()
    sphere = math.log(2) + size / 2 * math.log(math.pi) - math.lgamma(size / 2)
    weight = grid ** (size - 1) * np.exp(sphere - energy - f.log_constant(size))
    cumulated = np.concatenate([[0], np.cumsum((weight[1:] + weight[:-1]) / 2 * grid[1])])
    assert kstest(drawn, lambda r: np.interp(r, grid, cumulated)).pvalue > 1e-3


def integral(model, basis):
    """Of the density over the plane, in coordinates along the columns of ``basis``."""
    edges = np.concatenate([[0.0], np.geomspace(1e-3, 1e5, 40)])
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = np.diff(edges) / 2
    places = ((edges[1:] + edges[:-1]) / 2 + half * nodes[:, None]).ravel()
    places = np.concatenate([-places, places])
    weights = np.tile((half * weights[:, None]).ravel(), 2)
    grid = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    density = np.exp(model.score_samples(grid @ basis.T + model.mean_))
    return abs(np.linalg.det(basis)) * float(np.outer(weights, weights).ravel() @ density)


@each_density
@pytest.mark.parametrize("group_size", [1, 2])
def test_the_density_integrates_to_one(density, group_size):
    X, _ = laplace_rows(1000)
    model = SubspaceICA(group_size=group_size, density=density, eps=0.1, random_state=0).fit(X)
    assert integral(model, model.mixing_) == pytest.approx(1.0, abs=1e-4)


@each_density
def test_a_density_with_noise_integrates_to_one(density):
    X, _ = laplace_rows(1000)
    model = SubspaceICA(1, density=density, eps=0.1, random_state=0).fit(X)
    seen = model.mixing_[:, 0] / model.scale_
    unseen = model.scale_ * np.array([-seen[1], seen[0]])  # at right angles, in units of noise
    assert model.noise_variance_ > 0
    basis = np.column_stack([model.mixing_[:, 0], unseen])
    assert integral(model, basis) == pytest.approx(1.0, abs=1e-4)


# ---------------------------------------------------------------- learning


def test_two_laplace_sources():
    X, mixing = laplace_rows()
    model = SubspaceICA(random_state=0).fit(X)
    # The standard error of an entry is about sqrt(1 / n), so that Amari's index is near 0.014.
    assert amari(model.components_ @ mixing) < 0.03
    # log p = -2 (log sqrt 2 + 1) = -2.6931 on average, with a standard error of sqrt(2 / n)
    assert model.score(X) == pytest.approx(-2 - math.log(2), abs=3 * math.sqrt(2 / len(X)))
    np.testing.assert_allclose(model.components_ @ model.mixing_, np.eye(2), atol=1e-10)
    true = -(math.log(2) + np.abs((X - 3.0) @ np.linalg.inv(mixing).T).sum(axis=1) * math.sqrt(2))
    # Four parameters and two scales were fitted: half a nat each is what that gains in all.
    assert abs(model.score(X) - true.mean()) < 10 / len(X)


def test_the_index_of_amari_is_zero_for_the_truth_permuted_and_scaled():
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((5, 5))
    found = (np.diag([1.0, -3.0, 0.1, 2.0, -1.0]) @ np.linalg.inv(mixing))[rng.permutation(5)]
    assert amari(found @ mixing) == pytest.approx(0.0, abs=1e-12)
    assert amari(np.ones((5, 5))) == pytest.approx(1.0)


def test_subspaces_are_found_from_every_start():
    X, mixing = subspace_rows()
    models = [SubspaceICA(group_size=4, random_state=seed).fit(X) for seed in range(3)]
    for model in models:
        gains = model.components_ @ mixing
        assert amari(block_gains(gains, 4)) < 0.08
        assert model.objective_ == pytest.approx(models[0].objective_, rel=1e-8)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_a_search_finds_the_size_of_groups_by_held_out_nats(orthogonal):
    X, _ = subspace_rows(1500, n_groups=3, size=2)
    model = SubspaceICA(orthogonal=orthogonal, random_state=0)
    search = GridSearchCV(model, {"group_size": [1, 2, 3]}, cv=3).fit(X)
    assert search.best_params_ == {"group_size": 2}


def test_a_search_finds_the_density():
    rng = np.random.default_rng(0)
    X = rng.standard_t(3, size=(3000, 3)) @ rng.standard_normal((3, 3))
    grid = {"density": ["laplace", "logistic", "student_t"]}
    search = GridSearchCV(SubspaceICA(batch_size=500, random_state=0), grid, cv=3).fit(X)
    assert search.best_params_ == {"density": "student_t"}


def test_nothing_nearby_is_lower():
    """What fit returns is a minimum among all rotations and scales."""
    X, _ = subspace_rows(500, n_groups=2, size=2)
    model = SubspaceICA(group_size=2, density="log_cosh", random_state=0).fit(X)
    white = (X - model.mean_) @ model.components_.T
    rng = np.random.default_rng(0)

    def objective(rotation, scales):
        squares = np.square(white @ rotation.T).reshape(-1, 2, 2).sum(axis=2) / scales**2
        return np.log(np.cosh(np.sqrt(squares))).sum(axis=1).mean() + 2 * np.log(scales).sum()

    least = objective(np.eye(4), model.group_scales_)
    assert least == pytest.approx(model.objective_, rel=1e-9)
    for _ in range(50):
        turn = np.linalg.qr(np.eye(4) + 0.05 * rng.standard_normal((4, 4)))[0]
        scales = model.group_scales_ * np.exp(0.05 * rng.standard_normal(2))
        assert objective(turn, scales) > least


def problem_of(X, group_size=1, topography=None, density="laplace", eps=0.1, **settings):
    """What a fit minimises."""
    model = SubspaceICA()
    rows = model._open(X, model._twin(vars(model)), reset=True)
    grouping = Grouping(SourceDensity(density, eps=eps), group_size, topography)
    return make_problem(rows, None, grouping, 1e-6, "SubspaceICA", **settings)


@each_density
@pytest.mark.parametrize(("group_size", "topography"), [(1, None), (3, None), (1, (2, 3))])
@pytest.mark.parametrize("orthogonal", [True, False])
def test_gradients_are_finite_differences(density, group_size, topography, orthogonal):
    X = np.random.default_rng(0).laplace(size=(80, 6))
    problem = problem_of(X, group_size, topography, density, orthogonal=orthogonal)
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    if orthogonal:
        matrix = symmetric_orthogonal(matrix)
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(6, dtype=torch.float64))
    else:
        matrix = 30.0 * matrix  # so large that the bound of the scales counts
    n_free = 0 if topography or not orthogonal else 6 // group_size
    free = 0.3 * torch.randn(n_free, generator=generator, dtype=torch.float64)
    gradient = problem.group.gradient(problem.evaluate(matrix, free))
    step = 1e-6
    for at in (0, 4, 8, *range(len(gradient) - n_free, len(gradient))):
        move = torch.zeros_like(gradient)
        move[at] = step
        up, down = (
            problem.evaluate(*problem.group.moved(matrix, free, sign * move)).loss
            for sign in (1, -1)
        )
        # rounding of the loss, 1e-15 of some 100, over the step, and the square of the step
        slack = 1e-8 if orthogonal else 3e-7
        assert float(gradient[at]) == pytest.approx((up - down) / (2 * step), abs=slack)


SHAPES = [(1, None), (4, None), (1, (2, 4))]
each_shape = pytest.mark.parametrize(("group_size", "topography"), SHAPES)


def held_out_nats(model, X):
    """Mean log density; of maps but for a constant that is the same for all maps of their size."""
    if model.log_partition_ is not None:
        return model.score(X)
    return (
        model.score(X)
        + np.linalg.slogdet(model.components_).logabsdet
        - np.log(model.group_scales_).sum()
    )


@each_shape
@pytest.mark.parametrize("orthogonal", [True, False])
def test_batches_end_at_the_same_optimum_and_beat_the_start(group_size, topography, orthogonal):
    X, _ = subspace_rows(3000, n_groups=8 // group_size, size=group_size, seed=3)
    X, X_test = X[:2000], X[2000:]
    shape = {"group_size": group_size, "topography": topography, "orthogonal": orthogonal}
    settings = {**shape, "eps": 0.1, "tol": 1e-8, "random_state": 0}
    models = [SubspaceICA(**settings, batch_size=size).fit(X) for size in (None, 200)]
    if topography is None:  # Maps have many optima.
        # Gradients of at most 1e-8, and curvatures of 0.01 or more
        assert models[1].objective_ == pytest.approx(models[0].objective_, rel=1e-10)
    problem = problem_of(X, group_size, topography, batch_size=200, orthogonal=orthogonal)
    search = problem._begin(torch.eye(8, dtype=torch.float64), None)
    beginning = SubspaceICA(**settings)._twin(
        {**vars(SubspaceICA(**settings)), **problem.state(search, 0), "n_features_in_": 8}
    )
    for model in models:
        assert held_out_nats(model, X_test) > held_out_nats(beginning, X_test) + 0.1


def test_the_first_passes_over_batches_save_steps_over_all_rows():
    """Their cost is that of a pass over batches, and one over all rows to see what it gained."""
    rng = np.random.default_rng(1)
    X = rng.laplace(size=(20_000, 10)) @ rng.standard_normal((10, 10))
    whole, batches = (SubspaceICA(batch_size=size, random_state=0).fit(X) for size in (None, 500))
    assert batches.objective_ == pytest.approx(whole.objective_, rel=1e-9)
    assert batches.n_iter_ < whole.n_iter_ - 3


def test_without_a_constraint_it_is_maximum_likelihood():
    """Against another optimiser, of the likelihood as it stands in a textbook."""
    rng = np.random.default_rng(0)
    X = rng.laplace(size=(400, 3)) @ rng.standard_normal((3, 3)) + 5.0
    model = SubspaceICA(density="log_cosh", orthogonal=False, tol=1e-9, random_state=0).fit(X)
    centred = X - X.mean(axis=0)

    def loss(flat):
        W = flat.reshape(3, 3)
        s = centred @ W.T
        nats = np.log(np.pi * np.cosh(s)).sum(axis=1).mean() - np.linalg.slogdet(W).logabsdet
        return nats, (np.tanh(s).T @ centred / len(X) - np.linalg.inv(W).T).ravel()

    found = model.components_ / model.group_scales_[:, None]
    best = minimize(loss, found.ravel() * rng.uniform(0.7, 1.3, 9), jac=True, tol=1e-10)
    assert -model.score(X) == pytest.approx(best.fun, abs=1e-10)
    np.testing.assert_allclose(found, best.x.reshape(3, 3), atol=1e-5)
    np.testing.assert_allclose(model.transform(X).std(axis=0), 1.0, rtol=1e-9)
    np.testing.assert_allclose(model.components_ @ model.mixing_, np.eye(3), atol=1e-10)
    assert model.score(X) > SubspaceICA(density="log_cosh", random_state=0).fit(X).score(X) + 1e-5


def test_rows_on_disk_are_read_in_parts(tmp_path):
    X, _ = subspace_rows(2000, n_groups=2, seed=3)
    np.save(tmp_path / "rows.npy", X)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for size in (None, 100):
        settings = {"group_size": 4, "batch_size": size, "tol": 1e-8, "random_state": 0}
        inside = SubspaceICA(**settings).fit(X)
        with sklearn.config_context(working_memory=0.02):
            outside = SubspaceICA(**settings).fit(mapped)
            assert problem_of(mapped, batch_size=size).white.held is None
            parts = list(problem_of(mapped).white.parts())
        assert len(parts) > 10
        # Sums in other orders round otherwise.
        assert outside.objective_ == pytest.approx(inside.objective_, rel=1e-9)
        np.testing.assert_allclose(outside.score_samples(X), inside.score_samples(X), atol=1e-4)


@pytest.mark.parametrize("held", [True, False])
def test_a_pass_takes_every_row_once(held):
    X = np.random.default_rng(0).laplace(size=(103, 3))
    white = problem_of(X, batch_size=None if held else 20).white
    batches = list(white.batches(20, torch.Generator().manual_seed(0)))
    assert [share for _, share in batches] == [1.0] * 5 + [0.15]
    drawn = torch.cat([z for z, _ in batches])
    whole = torch.cat(list(white.parts()))
    assert not torch.equal(drawn, whole)
    torch.testing.assert_close(drawn[drawn[:, 0].argsort()], whole[whole[:, 0].argsort()])


def test_filters_are_orthonormal_for_white_rows():
    X, _ = subspace_rows(800, n_groups=3, size=3)
    for model in (
        SubspaceICA(random_state=0).fit(X),
        SubspaceICA(topography=(3, 3), random_state=0).fit(X),
    ):
        np.testing.assert_allclose(np.cov(model.transform(X).T), np.eye(9), atol=1e-9)


def test_maps_settle_soon():
    """Pools that overlap bend the loss down for many steps, which must grow there.

    Steps that stay as long as for independent sources need 140 of them here.
    """
    rng = np.random.default_rng(0)
    loudness = rng.gamma(1.0, 2.0, size=(1500, 4, 4))
    around = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    loudness = sum(np.roll(loudness, shift, axis=(1, 2)) for shift in around)
    sources = (rng.standard_normal((1500, 4, 4)) * loudness**2).reshape(1500, 16)
    X = sources @ rng.standard_normal((16, 16))
    assert SubspaceICA(topography=(4, 4), random_state=0).fit(X).n_iter_ < 80


def test_too_few_steps_are_named():
    X, _ = subspace_rows(300)
    with pytest.warns(ConvergenceWarning, match="increase max_iter or tol"):
        SubspaceICA(max_iter=1, random_state=0).fit(X)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_silent_sources_keep_a_scale(orthogonal):
    """Sources that are 0 in nearly all rows have no largest likelihood: the scale is bounded."""
    rng = np.random.default_rng(0)
    sources = rng.laplace(size=(500, 2)) * (rng.random((500, 2)) < 0.1)
    model = SubspaceICA(density="student_t", orthogonal=orthogonal, random_state=0).fit(sources)
    assert (model.group_scales_ >= 1e-3).all()
    assert np.isfinite(model.score_samples(sources)).all()


# ---------------------------------------------------------------- answers


def test_draws_are_those_of_the_density():
    """Energies of draws and of the density agree: the mean score is minus the entropy."""
    X, _ = subspace_rows(1000, n_groups=2, size=2)
    model = SubspaceICA(3, group_size=2, density="logistic", random_state=0).fit(X)
    drawn = model.sample(40_000, random_state=0)
    again = SubspaceICA(3, group_size=2, density="logistic", random_state=0).fit(drawn)
    # Twelve directions and scales fitted to 40,000 rows gain some ten nats over all rows.
    gain = again.score(drawn) - model.score(drawn)
    assert abs(gain) < 20 / len(drawn)
    error = (
        np.cov(drawn.T)
        - model.mixing_ @ np.diag(np.var(model.transform(drawn), axis=0)) @ model.mixing_.T
        - model.noise_variance_ * projector(model)
    )
    assert np.abs(error / np.outer(model.scale_, model.scale_)).max() < 0.03


def projector(model):
    """Covariance of unit noise in the directions that no filter sees."""
    seen = np.linalg.qr(model.mixing_ / model.scale_[:, None])[0]
    return model.scale_[:, None] * (np.eye(len(seen)) - seen @ seen.T) * model.scale_


def test_pools_add_up_to_the_free_energy():
    X, _ = subspace_rows(300, n_groups=3, size=3)
    for model in (
        SubspaceICA(group_size=4, random_state=0),
        SubspaceICA(topography=(3, 3), random_state=0),
    ):
        pools = model.fit(X).pool(X)
        assert pools.shape == (300, model.n_groups_)
        np.testing.assert_allclose(pools.sum(axis=1), model.free_energy(X), rtol=1e-12)


def test_complete_models_invert():
    X, _ = subspace_rows(300, n_groups=2, size=2)
    model = SubspaceICA(group_size=2, random_state=0).fit(X)
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), X, atol=1e-9)


def test_maps_have_no_normaliser_and_no_draws():
    X, _ = subspace_rows(300, n_groups=3, size=3)
    model = SubspaceICA(topography=(3, 3), random_state=0).fit(X)
    assert model.log_partition_ is None
    np.testing.assert_array_equal(model.score_samples(X), -model.free_energy(X))
    with pytest.raises(AttributeError) as caught:
        model.sample()
    assert "overlap" in str(caught.value.__cause__)
    assert not hasattr(model.set_params(topography=None), "sample")  # it is as it was fitted


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 3), (3, 3), (4, 5)])
def test_pools_lie_on_a_torus(shape):
    rows, columns = shape
    n = rows * columns
    pools = pool(torch.eye(n, dtype=torch.float64), 1, shape).numpy()
    for one in range(n):
        for other in range(n):
            ours, theirs = divmod(one, columns), divmod(other, columns)
            gaps = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
            near = [min(gap, size - gap) <= 1 for gap, size in zip(gaps, shape, strict=True)]
            assert pools[one, other] == float(all(near))


@pytest.mark.parametrize(("size", "shape"), [(1, None), (2, None), (4, None), (1, (2, 5))])
def test_spread_is_the_transpose_of_pool(size, shape):
    eye = torch.eye(10, dtype=torch.float64)
    pools = pool(eye, size, shape)
    groups = torch.eye(pools.shape[1], dtype=torch.float64)
    torch.testing.assert_close(spread(groups, size, 10, shape), pools.T)
    torch.testing.assert_close(group_sizes(10, size, shape), pools.sum(dim=0))


def test_items_that_go_together_are_put_together():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(5), 3))
    noise = rng.uniform(size=(15, 15))
    dependence = (labels[:, None] == labels) + 0.3 * (noise + noise.T)
    np.fill_diagonal(dependence, 0.0)
    order = grouped_order(torch.from_numpy(dependence), 3).numpy()
    assert sorted(order) == list(range(15))
    assert all(len(set(group)) == 1 for group in labels[order].reshape(5, 3))


def test_correlations_of_squares():
    s = np.random.default_rng(0).laplace(size=(50, 4))
    expected = np.corrcoef((s**2).T) - np.eye(4)
    found = square_correlations([torch.from_numpy(s[:20]), torch.from_numpy(s[20:])]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("topography", [None, (2, 3)])
def test_a_file_keeps_everything(topography, tmp_path):
    X, _ = subspace_rows(300, n_groups=3, size=3)
    model = SubspaceICA(None if topography else 7, topography=topography, random_state=0).fit(X)
    sklebm.save(model, tmp_path / "model.safetensors")
    twin = sklebm.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(twin.score_samples(X), model.score_samples(X))


def test_parameters_by_hand():
    """Two independent Laplace sources in standard units: p = exp(-|x| - |y|) / 4."""
    model = SubspaceICA.from_parameters(
        mean=[0.0, 0.0],
        components=np.eye(2),
        mixing=np.eye(2),
        scale=[1.0, 1.0],
        group_scales=[1.0, 1.0],
        eps=1e-12,
    )
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    expected = -np.abs(x).sum(axis=1) - math.log(4)
    # sqrt(eps + q) is sqrt q + eps / 2 sqrt q; the constant changes by eps log eps
    np.testing.assert_allclose(model.score_samples(x), expected, atol=1e-9)
    with pytest.raises(ValueError, match="3 group scales were given, but 2 filters form 2"):
        SubspaceICA.from_parameters(
            mean=[0.0, 0.0],
            components=np.eye(2),
            mixing=np.eye(2),
            scale=[1.0, 1.0],
            group_scales=[1.0, 1.0, 1.0],
        )
    with pytest.raises(ValueError, match="noise_variance"):
        SubspaceICA.from_parameters(
            mean=[0.0, 0.0],
            components=[[1.0, 0.0]],
            mixing=[[1.0], [0.0]],
            scale=[1.0, 1.0],
            group_scales=[1.0],
        )


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_components": 10}, "larger than the number of features, 9"),
        ({"topography": (4, 4)}, "map of 16 filters, more than the 9 features"),
        ({"topography": (3, 3), "n_components": 4}, "does not fill topography"),
        ({"topography": (3,)}, "two positive integers"),
        ({"topography": (3, 0)}, "two positive integers"),
        ({"topography": (3, 1.5)}, "two positive integers"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    X, _ = subspace_rows(100, n_groups=3, size=3)
    with pytest.raises(ValueError, match=message):
        SubspaceICA(**settings).fit(X)


def test_directions_without_variance():
    X, _ = subspace_rows(300, n_groups=2, size=2)
    X = np.column_stack([X, X[:, 0] - X[:, 1], np.full(300, 7.0)])
    with pytest.warns(UserWarning, match="varies in 4 directions only"):
        model = SubspaceICA(random_state=0).fit(X)
    assert model.components_.shape == (4, 6)
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), X, atol=1e-8)
    elsewhere = X + np.array([0, 0, 0, 0, 0, 1.0])
    assert (model.score_samples(elsewhere) < model.score_samples(X) - 100).all()
    with pytest.raises(ValueError, match="but X has 4"):
        SubspaceICA(topography=(2, 3)).fit(X)
