"""Sparse codes against closed forms, scikit-learn's solvers, convex duality and known bounds."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet as PeerElasticNet
from sklearn.linear_model import Lasso, LassoLars, orthogonal_mp

from sklebm.energies import (
    L0,
    L1,
    ElasticNet,
    GroupL2,
    LateralInhibition,
    Lq,
    NonNegativeL1,
    SparseCodingEnergy,
    TopK,
    Topographic,
)
from sklebm.inference.proximal import (
    coordinate_step,
    finish,
    fista_step,
    ista_step,
    run_and_finish,
    start_at_zero,
    start_fista,
)
from sklebm.inference.sparse import solve_codes
from sklebm.inference.sparse_problem import make_problem

ALPHA = 0.15
LASSO_FAMILY = [L1(), NonNegativeL1(), ElasticNet(0.5)]
ALL = [*LASSO_FAMILY, GroupL2(4), Topographic((5, 8), 3), Lq(0.5), LateralInhibition(1.0, 4)]
by_name = {"ids": lambda penalty: type(penalty).__name__}


def draw(n_rows=60, n_components=40, n_features=20, seed=0, dtype=torch.float64):
    """Rows and unit atoms."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    atoms = torch.randn(n_components, n_features, **options)
    atoms /= atoms.norm(dim=1, keepdim=True)
    return torch.randn(n_rows, n_features, **options).to(dtype), atoms.to(dtype)


def energies(x, atoms, penalty, z, alpha=ALPHA):
    return SparseCodingEnergy(atoms, penalty, alpha).energy(x, z)


# ---------------------------------------------------------------- the lasso family


def test_basis_pursuit_problem_of_known_optimum():
    """The denoising problem of SPORCO's documentation: 512 measurements of 2048 unknowns."""
    random = np.random.RandomState(12345)
    D = random.randn(512, 2048)
    x0 = np.zeros((2048, 1))
    places = random.permutation(list(range(2047)))
    x0[places[:32]] = random.randn(32, 1)
    s = D @ x0 + 0.5 * random.randn(512, 1)
    x, atoms = torch.from_numpy(s.T.copy()), torch.from_numpy(D.T.copy())
    for method, tol in (("compiled", 0.0), ("fista", 1e-13)):
        found = solve_codes(x, atoms, L1(), 29.8, method=method, tol=tol)
        energy = float(energies(x, atoms, L1(), found.codes, 29.8))
        assert energy == pytest.approx(819.4192594808552, rel=1e-10)
        assert found.kind == "duality gap"
        assert float(found.certificate) < 1e-12
        assert int((found.codes != 0).sum()) == 78


@pytest.mark.parametrize("n_rows", [1, 60])  # without and with a Gram matrix
def test_codes_are_those_of_least_angle_regression(n_rows):
    x, atoms = draw(n_rows)
    codes = solve_codes(x, atoms, L1(), ALPHA, tol=0.0).codes.numpy()
    peer = LassoLars(alpha=ALPHA / 20, fit_intercept=False, eps=1e-16, max_iter=10_000)
    for row, code in zip(x.numpy(), codes, strict=True):
        np.testing.assert_allclose(code, peer.fit(atoms.numpy().T, row).coef_, atol=1e-8)


def test_non_negative_and_elastic_codes_are_those_of_scikit_learn():
    x, atoms = draw()
    positive = Lasso(alpha=ALPHA / 20, fit_intercept=False, positive=True, tol=1e-14)
    elastic = PeerElasticNet(
        alpha=1.5 * ALPHA / 20, l1_ratio=1 / 1.5, fit_intercept=False, tol=1e-14, max_iter=10**5
    )
    for penalty, peer in ((NonNegativeL1(), positive), (ElasticNet(0.5), elastic)):
        codes = solve_codes(x, atoms, penalty, ALPHA, tol=0.0).codes.numpy()
        for row, code in zip(x.numpy()[:20], codes, strict=False):
            np.testing.assert_allclose(code, peer.fit(atoms.numpy().T, row).coef_, atol=1e-6)


@pytest.mark.parametrize("penalty", LASSO_FAMILY, **by_name)
def test_both_back_ends_agree(penalty):
    x, atoms = draw()
    compiled = solve_codes(x, atoms, penalty, ALPHA, method="compiled", tol=0.0)
    problem = make_problem(x, atoms, penalty, ALPHA)
    start = start_at_zero(problem)[0]
    batched, gap, _, certified = run_and_finish(problem, start, tol=1e-12, max_iter=20_000)
    assert certified.all()
    assert compiled.certificate.max() < 1e-12
    assert gap.max() < 1e-12
    torch.testing.assert_close(compiled.codes, batched, atol=1e-8, rtol=0)


@pytest.mark.parametrize("penalty", LASSO_FAMILY, **by_name)
def test_optimality_conditions_hold_to_machine_precision(penalty):
    x, atoms = draw(200, seed=1)
    codes = solve_codes(x, atoms, penalty, ALPHA, tol=0.0).codes
    slope = (x - codes @ atoms) @ atoms.T
    if isinstance(penalty, ElasticNet):
        slope = slope - ALPHA * penalty.l2_ratio * codes
    bound = slope if penalty.non_negative else slope.abs()
    assert bound.max() <= ALPHA * (1 + 1e-9)
    used = codes != 0
    torch.testing.assert_close(slope[used], ALPHA * codes[used].sign(), atol=1e-10, rtol=0)
    if penalty.non_negative:
        assert codes.min() >= 0


def test_orthonormal_atoms_give_the_soft_threshold():
    x, _ = draw()
    atoms = torch.linalg.qr(draw(seed=2)[0][:20])[0]
    c = x @ atoms.T
    expected = c.sign() * (c.abs() - ALPHA).clamp(min=0)
    for method in ("compiled", "fista", "ista", "coordinate_descent"):
        found = solve_codes(x, atoms, L1(), ALPHA, method=method, tol=1e-14)
        torch.testing.assert_close(found.codes, expected, atol=1e-12, rtol=0)


def test_repeated_and_dependent_atoms():
    """No unique code, yet the least energy, a certificate, and no dependence on the company."""
    x, atoms = draw(40, 10, 6)
    generator = torch.Generator().manual_seed(3)
    mixed = torch.randn(20, 10, generator=generator, dtype=torch.float64) @ atoms
    many = torch.cat([atoms, atoms, -atoms[:3], mixed / mixed.norm(dim=1, keepdim=True)])
    found = solve_codes(x, many, L1(), 0.05, tol=0.0)
    assert found.certificate.max() < 1e-12
    fewer = solve_codes(x, torch.cat([atoms, many[23:]]), L1(), 0.05, tol=0.0)
    torch.testing.assert_close(
        energies(x, many, L1(), found.codes, 0.05),
        energies(x, torch.cat([atoms, many[23:]]), L1(), fewer.codes, 0.05),
        rtol=1e-10,
        atol=0,
    )
    alone = torch.cat([solve_codes(row[None], many, L1(), 0.05, tol=0.0).codes for row in x])
    torch.testing.assert_close(alone, found.codes, atol=1e-9, rtol=0)


def test_single_precision_stops_where_the_documentation_says():
    x, atoms = draw(300, 100, 50)
    double = solve_codes(x, atoms, L1(), 0.5, tol=0.0).codes
    single = solve_codes(x.float(), atoms.float(), L1(), 0.5, tol=0.0)
    assert single.codes.dtype == torch.float32
    best = energies(x, atoms, L1(), double, 0.5)
    excess = energies(x, atoms, L1(), single.codes.double(), 0.5) - best
    assert float((excess / x.square().sum(dim=1)).max()) < 1e-6


def test_rows_shorter_than_the_threshold_and_rows_that_overflow():
    x, atoms = draw(3)
    x[0] *= 1e-3
    x[1] = 1e200
    for method in ("compiled", "fista"):
        found = solve_codes(x, atoms, L1(), ALPHA, method=method, tol=1e-9, max_iter=2000)
        assert (found.codes[0] == 0).all()
        assert found.certificate[0] == 0
        assert not torch.isfinite(found.certificate[1])
        assert found.certificate[2] <= 1e-9


# ---------------------------------------------------------------- convergence


def trace(step, problem, state, n_steps):
    """Objectives of the rows after every step."""
    values = []
    for _ in range(n_steps):
        state = step(problem, state)
        values.append(problem.objective(state[0], state[0] @ problem.gram))
    return torch.stack(values)


def test_theoretical_bounds_are_never_violated():
    """f(z_t) - f* <= L |z*|^2 / (2 t) for ISTA and 2 L |z*|^2 / (t + 1)^2 for FISTA."""
    x, atoms = draw(100, seed=4)
    best = solve_codes(x, atoms, L1(), ALPHA, tol=0.0).codes
    problem = make_problem(x, atoms, L1(), ALPHA)
    least = problem.objective(best, best @ problem.gram)
    scale = problem.lipschitz * best.square().sum(dim=1)
    t = torch.arange(1, 201, dtype=torch.float64)[:, None]
    zero = start_at_zero(problem)
    ista = trace(ista_step, problem, zero, 200) - least
    fista = trace(fista_step, problem, start_fista(problem, zero), 200) - least
    assert (ista <= scale / (2 * t) + 1e-12).all()
    assert (fista <= 2 * scale / (t + 1).square() + 1e-12).all()
    assert fista[-1].sum() < 0.1 * ista[-1].sum()


@pytest.mark.parametrize("penalty", [*LASSO_FAMILY, GroupL2(4), Lq(0.5), LateralInhibition()])
def test_the_objective_never_rises(penalty):
    x, atoms = draw(30)
    problem = make_problem(x, atoms, penalty, ALPHA)
    steps = [coordinate_step] if isinstance(penalty, LateralInhibition) else [ista_step]
    steps += [coordinate_step] if isinstance(penalty, (L1, NonNegativeL1, Lq)) else []
    for step in steps:
        values = trace(step, problem, start_at_zero(problem), 100)
        assert (values.diff(dim=0) <= 1e-12 * values[:-1].abs()).all()
        assert values[-1].sum() < values[0].sum()


def test_the_exact_finish_solves_what_the_iteration_has_found():
    x, atoms = draw()
    problem = make_problem(x, atoms, L1(), ALPHA)
    rough = solve_codes(x, atoms, L1(), ALPHA, method="fista", tol=1e-7).codes
    best = solve_codes(x, atoms, L1(), ALPHA, tol=0.0).codes
    found = (rough.sign() == best.sign()).all(dim=1)
    assert found.double().mean() > 0.8
    torch.testing.assert_close(finish(problem, rough)[found], best[found], atol=1e-12, rtol=0)
    other = finish(problem, rough)[~found]
    some = problem.select(~found)
    before = some.stationarity(rough[~found], rough[~found] @ problem.gram)
    assert (some.stationarity(other, other @ problem.gram) <= before).all()


# ---------------------------------------------------------------- other penalties


def test_one_group_of_orthonormal_atoms_is_the_block_soft_threshold():
    x, _ = draw()
    atoms = torch.linalg.qr(draw(seed=2)[0][:20])[0]
    c = (x @ atoms.T).unflatten(1, (5, 4))
    expected = c * (1 - 0.5 / c.norm(dim=2, keepdim=True)).clamp(min=0)
    found = solve_codes(x, atoms, GroupL2(4), 0.5, tol=1e-14)
    torch.testing.assert_close(found.codes, expected.flatten(1), atol=1e-7, rtol=0)


@pytest.mark.parametrize("penalty", [GroupL2(4), Topographic((5, 8), 3)], **by_name)
def test_no_direction_leads_down_from_a_convex_optimum(penalty):
    x, atoms = draw(20)
    found = solve_codes(x, atoms, penalty, ALPHA, tol=1e-9, max_iter=50_000)
    assert found.certificate.max() <= 1e-9
    best = energies(x, atoms, penalty, found.codes)
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-4, 1e-2, 1.0):
        move = scale * torch.randn(found.codes.shape, generator=generator, dtype=torch.float64)
        for other in (found.codes + move, found.codes * (1 + move), found.codes * (move > 0)):
            assert (energies(x, atoms, penalty, other) >= best - 1e-8).all()


def test_pools_that_overlap_reach_the_dual_bound():
    """Atoms that are the identity: max over |u_g| <= alpha of 1/2 |x|^2 - 1/2 |x - K'u|^2."""
    penalty = Topographic((2, 5), 2)
    x = draw(8, 10, 10)[0]
    found = solve_codes(x, torch.eye(10, dtype=torch.float64), penalty, 0.2, tol=1e-10)
    members = penalty.members()
    u = torch.zeros(8, 10, 4, dtype=torch.float64)
    for _ in range(20_000):  # projected gradient on the dual
        pushed = torch.zeros_like(x).index_add_(1, members.flatten(), u.flatten(1))
        u = u + 0.25 * (x - pushed)[:, members]
        u = u * (0.2 / u.norm(dim=2, keepdim=True).clamp(min=0.2))
    pushed = torch.zeros_like(x).index_add_(1, members.flatten(), u.flatten(1))
    bound = 0.5 * x.square().sum(dim=1) - 0.5 * (x - pushed).square().sum(dim=1)
    primal = energies(x, torch.eye(10, dtype=torch.float64), penalty, found.codes, 0.2)
    torch.testing.assert_close(primal, bound, atol=1e-7, rtol=0)


@pytest.mark.parametrize("q", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("step", [0.1, 1.0])
def test_proximal_operator_of_lq_is_the_minimum_over_a_fine_grid(q, step):
    v = torch.linspace(-3, 3, 61, dtype=torch.float64)[:, None]
    grid = torch.linspace(-3.2, 3.2, 64_001, dtype=torch.float64)
    cost = 0.5 * (grid - v).square() + step * grid.abs().pow(q)
    z = Lq(q).prox(v, step)
    reached = 0.5 * (z - v).square() + step * z.abs().pow(q)
    assert (reached[:, 0] <= cost.min(dim=1).values + 1e-12).all()


@pytest.mark.parametrize("penalty", [Lq(0.5), LateralInhibition(1.0, 4)], **by_name)
def test_codes_that_are_not_convex_are_stationary_and_better_than_their_start(penalty):
    x, atoms = draw()
    found = solve_codes(x, atoms, penalty, ALPHA, tol=1e-8)
    assert found.kind == "KKT residual"
    assert found.certificate.max() <= 1e-8
    start = solve_codes(x, atoms, L1(), ALPHA, tol=0.0).codes
    assert (
        energies(x, atoms, penalty, found.codes) <= energies(x, atoms, penalty, start) + 1e-10
    ).all()


def test_inhibition_leaves_fewer_active_atoms_in_a_group():
    x, atoms = draw(200)
    plain = solve_codes(x, atoms, L1(), ALPHA).codes
    silenced = solve_codes(x, atoms, LateralInhibition(5.0, 4), ALPHA, tol=1e-6).codes
    together = lambda z: (z.unflatten(1, (10, 4)) != 0).sum(dim=2).gt(1).double().mean()  # noqa: E731
    assert together(silenced) < 0.5 * together(plain)


def test_the_largest_entries_are_fitted_again():
    x, atoms = draw()
    codes = solve_codes(x, atoms, TopK(4), ALPHA).codes
    first = solve_codes(x, atoms, L1(), ALPHA, tol=0.0).codes
    for row, code, start in zip(x, codes, first, strict=True):
        support = start.abs().topk(4).indices
        expected = torch.linalg.lstsq(atoms[support].T, row[:, None]).solution[:, 0]
        torch.testing.assert_close(code[support], expected, atol=1e-9, rtol=0)
        assert int((code != 0).sum()) == 4


@pytest.mark.parametrize("penalty", ALL, **by_name)
def test_codes_and_certificates_for_both_precisions(penalty):
    for dtype, tol in ((torch.float64, 1e-8), (torch.float32, 1e-3)):
        x, atoms = draw(12, dtype=dtype)
        found = solve_codes(x, atoms, penalty, ALPHA, tol=tol, max_iter=30_000)
        assert found.codes.dtype == found.certificate.dtype == dtype
        assert found.certificate.max() <= tol
        assert (found.certificate >= 0).all()


def test_penalties_refuse_what_makes_no_sense():
    x, atoms = draw(2)
    for make, word in (
        (lambda: Lq(1.0), "q=1.0"),
        (lambda: ElasticNet(0.0), "l2_ratio=0.0"),
        (lambda: GroupL2(0), "group_size=0"),
        (lambda: TopK(2.5), "n_nonzero=2.5"),
        (lambda: LateralInhibition(math.nan), "strength=nan"),
        (lambda: Topographic((2, 2), 3), r"grid=\(2, 2\)"),
        (lambda: solve_codes(x, atoms, GroupL2(7), 0.1), "group_size=7 does not divide the 40"),
        (lambda: solve_codes(x, atoms, Topographic((4, 4)), 0.1), "16 places"),
        (lambda: solve_codes(x, atoms, GroupL2(), 0.1, method="compiled"), "'auto', 'fista'"),
    ):
        with pytest.raises(ValueError, match=word):
            make()


def test_members_of_pools_are_the_neighbours_on_the_torus():
    penalty = Topographic((4, 5), 2)
    z = torch.rand(3, 20, dtype=torch.float64)
    by_members = z[:, penalty.members()].norm(dim=2)
    torch.testing.assert_close(penalty.norms(z), by_members)
    pools = [set(pool) for pool in penalty.members().tolist()]
    assert pools[19] == {19, 15, 4, 0}
    shared = itertools.combinations(pools, 2)
    assert max(len(a & b) for a, b in shared) == 2


@pytest.mark.gpu
def test_back_ends_agree_on_the_device(device):
    x, atoms = draw()
    here = solve_codes(x, atoms, L1(), ALPHA, tol=0.0).codes
    there = solve_codes(x.to(device), atoms.to(device), L1(), ALPHA, tol=1e-12)
    torch.testing.assert_close(there.codes.cpu(), here, atol=1e-6, rtol=0)


# ---------------------------------------------------------------- exact zeros, zero codes, pursuit


def test_topographic_codes_hold_exact_zeros_where_a_pool_is_off():
    x, atoms = draw(40, 40, 20)
    penalty = Topographic((5, 8), 3)
    found = solve_codes(x, atoms, penalty, 0.25, tol=1e-9, max_iter=50_000)
    assert found.converged.all()
    zero = found.codes == 0
    assert 0.05 < zero.double().mean() < 0.95
    # Nothing is left of the pools that are off: the other entries are far from rounding.
    assert found.codes.abs()[~zero].min() > 1e-7
    # A component is off exactly if one of its pools is.
    off = penalty.norms(found.codes) == 0
    touched = torch.zeros_like(found.codes).index_add_(
        1, penalty.members().flatten(), off.double().repeat_interleave(9, dim=1)
    )
    assert (zero == (touched > 0)).all()


def test_topographic_gaps_bound_the_distance_from_the_least_energy():
    x, atoms = draw(15, 40, 20, seed=5)
    penalty = Topographic((5, 8), 3)
    best = energies(x, atoms, penalty, solve_codes(x, atoms, penalty, ALPHA, tol=1e-12).codes)
    for tol in (1e-2, 1e-4, 1e-6):
        found = solve_codes(x, atoms, penalty, ALPHA, tol=tol)
        reached = energies(x, atoms, penalty, found.codes)
        assert (reached - best <= found.certificate * reached + 1e-12).all()
        assert found.certificate.max() <= tol
    assert found.kind == "duality gap"


@pytest.mark.parametrize("penalty", [L1(), GroupL2(4), Topographic((5, 8), 3)], **by_name)
def test_units_change_neither_codes_nor_steps(penalty):
    """Atoms of 64 times the length make codes 64 times smaller, to the last bit."""
    x, atoms = draw(15, 40, 20, seed=5)
    for method in ("fista", "auto"):
        if method not in ("auto", *penalty.solvers):
            continue
        settings = {"method": method, "tol": 1e-6}
        found = solve_codes(x, atoms, penalty, ALPHA, **settings)
        other = solve_codes(x, 64.0 * atoms, penalty, 64.0 * ALPHA, **settings)
        torch.testing.assert_close(64.0 * other.codes, found.codes, rtol=1e-12, atol=0)
        torch.testing.assert_close(other.n_iter, found.n_iter)


def test_codes_that_are_cut_short_say_so():
    x, atoms = draw(20)
    for penalty in (L1(), GroupL2(4), Topographic((5, 8), 3), LateralInhibition()):
        method = "fista" if isinstance(penalty, L1) else "auto"
        found = solve_codes(x, atoms, penalty, ALPHA, method=method, tol=1e-12, max_iter=3)
        assert not found.converged.any()
        assert (found.certificate > 1e-12).all()


@pytest.mark.parametrize("penalty", [Lq(0.5), Lq(0.9), LateralInhibition(3.0, 4)], **by_name)
def test_codes_that_are_not_convex_beat_zero_and_every_single_atom(penalty):
    """16 long atoms, where the search from the L1 code ends above the zero code in many rows."""
    x, atoms = draw(200, 16, 8, seed=3)
    atoms = 3.0 * atoms
    found = solve_codes(x, atoms, penalty, 2.0, tol=1e-8)
    energy = energies(x, atoms, penalty, found.codes, 2.0)
    assert (energy <= 0.5 * x.square().sum(dim=1) + 1e-12).all()
    sizes = torch.linspace(-3, 3, 601, dtype=torch.float64)
    for k in range(16):
        alone = torch.zeros(601, 16, dtype=torch.float64)
        alone[:, k] = sizes
        price = 2.0 * penalty.value(alone)
        error = 0.5 * (x[:, None, :] - (alone @ atoms)[None]).square().sum(dim=2)
        assert (energy <= (error + price).min(dim=1).values + 1e-10).all()


def test_where_lq_codes_begin():
    """q = 1/2 and one atom of length one: zero up to |x'd| = 3/2 alpha^(2/3)."""
    atom = torch.eye(6, dtype=torch.float64)[:1]
    for alpha in (0.3, 1.0, 20.0):
        limit = 1.5 * alpha ** (2 / 3)
        for factor, is_zero in ((0.999, True), (1.001, False)):
            row = factor * limit * atom
            code = solve_codes(row, atom, Lq(0.5), alpha).codes
            assert bool((code == 0).all()) is is_zero
            critical = Lq(0.5).critical_alpha(row @ atom.T, torch.ones(1, dtype=torch.float64))
            assert float(critical) == pytest.approx(alpha * factor**1.5, rel=1e-12)


def test_matching_pursuit_is_that_of_scikit_learn():
    x, atoms = draw(60)
    for n_nonzero in (1, 4, 12):
        found = solve_codes(x, atoms, L0(n_nonzero), 0.1)
        expected = orthogonal_mp(atoms.numpy().T, x.numpy().T, n_nonzero_coefs=n_nonzero).T
        np.testing.assert_allclose(found.codes.numpy(), expected, atol=1e-9)
        assert found.certificate.max() < 1e-10
    # Atoms of any length: the one that lowers the error most by itself comes first.
    lengths = torch.linspace(0.1, 10, 40, dtype=torch.float64)[:, None]
    scaled = solve_codes(x, lengths * atoms, L0(4), 0.1).codes * lengths[:, 0]
    plain = solve_codes(x, atoms, L0(4), 0.1).codes
    torch.testing.assert_close(scaled, plain, atol=1e-9, rtol=0)


def test_matching_pursuit_ends_when_nothing_is_left():
    atoms = torch.eye(5, dtype=torch.float64)
    x = torch.stack([2.0 * atoms[1], torch.zeros(5, dtype=torch.float64)])
    codes = solve_codes(x, torch.cat([atoms, atoms]), L0(3), 0.1).codes
    assert (codes != 0).sum(dim=1).tolist() == [1, 0]
    torch.testing.assert_close(codes @ torch.cat([atoms, atoms]), x)


def test_top_k_pays_for_its_entries():
    x, atoms = draw()
    codes = solve_codes(x, atoms, TopK(4), ALPHA).codes
    error = 0.5 * (x - codes @ atoms).square().sum(dim=1)
    torch.testing.assert_close(
        energies(x, atoms, TopK(4), codes), error + ALPHA * codes.abs().sum(dim=1)
    )
    many = torch.ones_like(codes)
    assert torch.isinf(energies(x, atoms, TopK(4), many)).all()


def naive_ista(x, atoms, alpha, n_steps):
    step, z = 1.0 / np.linalg.eigvalsh(atoms @ atoms.T)[-1], np.zeros((len(x), len(atoms)))
    for _ in range(n_steps):
        v = z + step * (x - z @ atoms) @ atoms.T
        z = np.sign(v) * np.maximum(np.abs(v) - step * alpha, 0.0)
    return z


def test_a_given_number_of_steps_is_taken():
    x, atoms = draw(10)
    for n_steps in (1, 7, 40):
        found = solve_codes(x, atoms, L1(), ALPHA, method="ista", n_steps=n_steps)
        expected = naive_ista(x.numpy(), atoms.numpy(), ALPHA, n_steps)
        np.testing.assert_allclose(found.codes.numpy(), expected, atol=1e-12)
        assert (found.n_iter == n_steps).all()
    one = solve_codes(x, atoms, L1(), ALPHA, method="coordinate_descent", n_steps=1).codes
    assert ((one != 0).sum(dim=1) == 1).all()
    with pytest.raises(ValueError, match="in a given number of steps"):
        solve_codes(x, atoms, L1(), ALPHA, method="compiled", n_steps=3)


@pytest.mark.parametrize("penalty", LASSO_FAMILY, **by_name)
def test_chunks_blocks_and_threads_change_nothing(penalty, monkeypatch):
    """Rows without an active atom, rows that overflow and rows with codes, in every chunk."""
    x, atoms = draw(700)
    x[::3] *= 1e-3
    x[::50, 0] = 1e200
    whole = solve_codes(x, atoms, penalty, ALPHA, tol=0.0)
    monkeypatch.setattr("sklebm.inference.sparse._CHUNK", 40 * 300)
    monkeypatch.setattr("sklebm.inference.sparse._BLOCK", 64)
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        parts = solve_codes(x, atoms, penalty, ALPHA, tol=0.0)
    finally:
        torch.set_num_threads(n_threads)
    torch.testing.assert_close(parts.codes, whole.codes, atol=1e-9, rtol=0, equal_nan=True)
    assert whole.codes[::50].isnan().all()
    tiny = [row for row in range(0, 700, 3) if row % 50]
    assert (whole.codes[tiny] == 0).all()
    assert (whole.n_iter[tiny] == 0).all()
