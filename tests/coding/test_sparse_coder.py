"""Dictionaries: what is learnt, against the truth that made the rows, and what is refused."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import DictionaryLearning, sparse_encode
from sklearn.exceptions import ConvergenceWarning

from sklebm import SparseCoder
from sklebm.energies import GroupL2, LateralInhibition, Lq, TopK, Topographic
from tests.registry import make_rows


def make_sparse_rows(n_rows=2000, n_components=15, n_features=10, seed=0):
    """Rows of two or three atoms each, and the atoms."""
    generator = np.random.default_rng(seed)
    atoms = generator.standard_normal((n_components, n_features))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = generator.standard_normal((n_rows, n_components))
    codes *= generator.random(codes.shape) < 2.5 / n_components
    return codes @ atoms + 0.01 * generator.standard_normal((n_rows, n_features)), atoms


def recovered(coder, atoms, least=0.97):
    """Share of the true atoms that a learnt one is parallel to."""
    learnt = coder.components_ / np.linalg.norm(coder.components_, axis=1, keepdims=True)
    return (np.abs(atoms @ learnt.T).max(axis=1) > least).mean()


@pytest.mark.parametrize("algorithm", ["online", "gradient", "batch"])
def test_the_atoms_that_made_the_rows_are_found(algorithm):
    X, atoms = make_sparse_rows()
    options = {"alpha": 0.1, "algorithm": algorithm, "batch_size": 100, "random_state": 0}
    coder = SparseCoder(15, max_iter=100, tol=0.0, **options).fit(X)
    start = SparseCoder(15, max_iter=1, **{**options, "batch_size": 10**5}).fit(X)
    assert recovered(coder, atoms) >= 0.8
    assert recovered(coder, atoms) > recovered(start, atoms)


def test_a_batch_pass_never_raises_the_energy():
    X = load_digits().data[:400] / 16
    coder = SparseCoder(30, alpha=0.3, algorithm="batch", max_iter=15, tol=0.0, random_state=0).fit(
        X
    )
    assert (np.diff(coder.energy_curve_) <= 1e-9).all()
    assert coder.energy_curve_[-1] < 0.9 * coder.energy_curve_[0]


def test_no_worse_than_scikit_learn_on_the_same_objective():
    X = load_digits().data[:200] / 16
    peer = DictionaryLearning(
        20, alpha=0.3, max_iter=15, transform_algorithm="lasso_lars", random_state=0
    ).fit(X)
    ours = SparseCoder(20, alpha=0.3, batch_size=50, max_iter=30, tol=0.0, random_state=0).fit(X)
    given = SparseCoder(dictionary=peer.components_, alpha=0.3).fit(X)
    assert ours.score(X) >= given.score(X) - 0.01 * abs(given.score(X))


@pytest.mark.parametrize("unit_norm", [False, True])
def test_lengths_of_atoms(unit_norm):
    X = make_sparse_rows(500)[0]
    coder = SparseCoder(15, unit_norm=unit_norm, batch_size=50, random_state=0).fit(X)
    lengths = np.linalg.norm(coder.components_, axis=1)
    assert lengths.max() <= 1 + 1e-12
    if unit_norm:
        np.testing.assert_allclose(lengths, 1.0, atol=1e-12)


def test_gradient_steps_end_close_to_sums():
    """On new rows, and far from where they began."""
    X = load_digits().data / 16
    options = {"alpha": 0.3, "batch_size": 128, "max_iter": 5, "tol": 0.0, "code_tol": 1e-4}
    first, online, gradient = (
        SparseCoder(64, random_state=0, **{**options, **changes}).fit(X[:1400]).score(X[1400:])
        for changes in (
            {"batch_size": 1400, "max_iter": 1},
            {"algorithm": "online"},
            {"algorithm": "gradient"},
        )
    )
    assert gradient > first + 0.9 * (online - first)


@pytest.mark.parametrize("unit_norm", [True, False])
def test_a_gradient_step_by_finite_differences(unit_norm):
    X = make_sparse_rows(60)[0]
    options = {"alpha": 0.2, "batch_size": 60, "algorithm": "gradient", "unit_norm": unit_norm}
    before = SparseCoder(15, random_state=0, max_iter=1, **{**options, "batch_size": 61})
    atoms = before.partial_fit(X).components_  # no batch is full: the first atoms
    after = SparseCoder(15, random_state=0, **options).partial_fit(X).components_
    coder = SparseCoder(dictionary=atoms, alpha=0.2).fit(X)
    Z = coder.transform(X)
    for k, d in ((0, 0), (3, 4), (9, 7)):
        slopes = []
        for step in (1e-5, -1e-5):
            moved = atoms.copy()
            moved[k, d] += step
            slopes.append(SparseCoder(dictionary=moved, alpha=0.2).fit(X).free_energy(X).mean())
        slope = (slopes[0] - slopes[1]) / 2e-5
        curvature = (Z**2).mean(axis=0)
        rate = 0.3 / (1 + 1 / 30) / (curvature[k] + 0.01 * curvature.mean())
        residual = (X - Z @ atoms).T @ Z / len(X)
        row = atoms[k] + rate * residual.T[k]
        length = np.linalg.norm(row)
        row = row / (length if unit_norm else max(length, 1.0))
        np.testing.assert_allclose(-residual.T[k, d], slope, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(after[k], row, rtol=1e-9)


def test_chunks_change_nothing_in_gradient_steps():
    X = make_sparse_rows(300)[0]
    options = {"batch_size": 50, "algorithm": "gradient", "random_state": 0}
    whole = SparseCoder(15, **options).partial_fit(X[:200]).partial_fit(X[200:])
    parts = SparseCoder(15, **options).partial_fit(X[:200])
    for start in range(200, 300, 7):
        parts.partial_fit(X[start : min(start + 7, 300)])
    np.testing.assert_allclose(parts.components_, whole.components_, atol=1e-9)


def test_the_intercept_is_the_best_one():
    X = make_sparse_rows(500)[0] + 5.0
    coder = SparseCoder(15, fit_intercept=True, algorithm="batch", tol=1e-6, random_state=0).fit(X)
    residual = X - coder.inverse_transform(coder.transform(X))
    np.testing.assert_allclose(residual.mean(axis=0), 0.0, atol=0.01)
    assert coder.score(X) > SparseCoder(15, algorithm="batch", random_state=0).fit(X).score(X)


def test_dead_atoms_are_pointed_at_rows_that_are_coded_badly():
    """Atoms drawn from the first kind of rows: nothing but replacement finds the second."""
    generator = np.random.default_rng(0)
    one = generator.random((300, 1)) * np.eye(8)[0]
    coder = SparseCoder(6, alpha=0.05, batch_size=50, random_state=0).partial_fit(one)
    other = generator.random((300, 4)) @ np.eye(8)[4:]
    before = coder.score(other)
    for _ in range(3):
        coder.partial_fit(other)
    assert coder.score(other) > 0.3 * before
    assert np.abs(coder.components_[:, 4:]).max() > 0.5


def test_a_given_dictionary_is_used_as_it_is():
    X, atoms = make_sparse_rows(50)
    coder = SparseCoder(dictionary=3 * atoms, alpha=0.2).fit(X)
    np.testing.assert_array_equal(coder.components_, 3 * atoms)
    expected = sparse_encode(X, 3 * atoms, algorithm="lasso_lars", alpha=0.2)
    np.testing.assert_allclose(coder.transform(X), expected, atol=1e-7)
    assert coder.n_iter_ == 0
    np.testing.assert_array_equal(coder.partial_fit(X).components_, 3 * atoms)


@pytest.mark.parametrize(
    ("dictionary", "message"),
    [
        (np.ones((3, 5)), r"shape \(3, 5\), but X has 6 features"),
        (np.ones(6), r"shape \(6,\)"),
        (np.r_[np.ones((2, 6)), np.zeros((1, 6))], r"only zeros in 1 of 3 atoms \(first: 2\)"),
        (np.full((2, 6), np.nan), "NaN or infinity in 2 of 2 atoms"),
        (np.full((2, 6), "a"), "must hold numbers"),
    ],
)
def test_dictionaries_that_are_none(dictionary, message):
    with pytest.raises(ValueError, match=message):
        SparseCoder(dictionary=dictionary).fit(make_rows())


def test_codes_that_vanish_warn():
    with pytest.warns(UserWarning, match=r"every code is zero. Lower alpha"):
        coder = SparseCoder(3, alpha=50.0, random_state=0).fit(make_rows())
    assert not coder.transform(make_rows()).any()
    with pytest.warns(UserWarning, match=r"every code is zero. Lower alpha"):
        SparseCoder(dictionary=np.eye(6), alpha=50.0).fit(make_rows())


@pytest.mark.parametrize(
    "penalty",
    [GroupL2(3), Topographic((3, 5), 2), Lq(0.7), TopK(3), LateralInhibition(0.5, 3)],
    ids=lambda penalty: type(penalty).__name__,
)
def test_every_penalty_learns(penalty):
    X = make_sparse_rows(150)[0]
    options = {"alpha": 0.05, "penalty": penalty, "batch_size": 50, "code_tol": 1e-4}
    coder = SparseCoder(15, max_iter=2, tol=0.0, random_state=0, **options).fit(X)
    start = SparseCoder(15, max_iter=1, random_state=0, **{**options, "batch_size": 10**4}).fit(X)
    assert coder.score(X) > start.score(X)
    energies = coder.energy(X, coder.transform(X))
    np.testing.assert_allclose(energies, coder.free_energy(X), rtol=1e-12)


def test_energy_is_least_at_the_code():
    X = make_rows(50)
    coder = SparseCoder(4, random_state=0).fit(X)
    codes = coder.transform(X)
    noise = 0.1 * np.random.default_rng(0).standard_normal(codes.shape)
    assert (coder.energy(X, codes + noise) > coder.energy(X, codes)).all()
    with pytest.raises(ValueError, match="pass one z per x"):
        coder.energy(X, codes[:3])


# ---------------------------------------------------------------- certificates, solvers, warnings


def test_certificates_bound_what_better_codes_could_gain():
    X, atoms = make_sparse_rows(60)
    options = {"dictionary": atoms, "alpha": 0.1}
    exact = SparseCoder(**options).fit(X)
    assert exact.certificate(X).max() <= 1e-10
    for solver in ("ista", "fista", "cd"):
        rough = SparseCoder(solver=solver, n_solver_steps=15, **options).fit(X)
        energy = rough.free_energy(X)
        gap = rough.certificate(X)
        assert (gap > 1e-9).mean() > 0.5
        assert (energy - exact.free_energy(X) <= gap * energy + 1e-12).all()
        long = SparseCoder(solver=solver, **options).fit(X)
        np.testing.assert_allclose(long.transform(X), exact.transform(X), atol=1e-4)


def test_threshold_coding_is_that_of_scikit_learn():
    X, atoms = make_sparse_rows(60)
    coder = SparseCoder(dictionary=atoms, alpha=0.3, solver="threshold").fit(X)
    expected = sparse_encode(X, atoms, algorithm="threshold", alpha=0.3)
    np.testing.assert_allclose(coder.transform(X), expected, atol=1e-12)
    orthonormal = np.linalg.qr(atoms[:10].T)[0].T
    one = SparseCoder(dictionary=orthonormal, alpha=0.3, solver="threshold").fit(X)
    assert one.certificate(X).max() < 1e-12
    with pytest.raises(ValueError, match=r"solver=\"threshold\" needs one"):
        SparseCoder(dictionary=atoms, penalty=Topographic((3, 5), 2), solver="threshold").fit(
            X
        ).transform(X)


def test_steps_without_a_method_that_has_steps():
    with pytest.raises(ValueError, match="n_solver_steps=5 does not apply to solver='auto'"):
        SparseCoder(3, n_solver_steps=5).fit(make_rows())


def test_codes_that_are_not_final_warn(monkeypatch):
    monkeypatch.setattr("sklebm.coding._search._MAX_ITER", 3)
    X, atoms = make_sparse_rows(30)
    coder = SparseCoder(dictionary=atoms, alpha=0.1, penalty=Topographic((3, 5), 2)).fit(X)
    with pytest.warns(ConvergenceWarning, match="of 30 codes are not final") as caught:
        coder.transform(X)
    assert caught[0].filename == __file__
    with pytest.warns(ConvergenceWarning, match="duality gap is up to"):
        SparseCoder(15, alpha=0.1, penalty=Topographic((3, 5), 2), random_state=0).fit(X)


def test_penalties_that_vanish_elsewhere_than_l1():
    """lq: zero up to 1.5 alpha^(2/3); topographic: wherever zero solves the problem."""
    X = np.eye(4)[:1] * np.ones((20, 1))
    for alpha, vanish in ((0.54, False), (0.55, True)):  # (1 / 1.5)^1.5 = .5443
        coder = SparseCoder(dictionary=np.eye(4), alpha=alpha, penalty="lq")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            coder.fit(X)
        assert bool(caught) is vanish
        assert bool((coder.transform(X) == 0).all()) is vanish
    pools = Topographic((2, 2), 2)  # each of the four pools holds all: R = 4 |z|
    for alpha, vanish in ((0.249, False), (0.251, True)):
        coder = SparseCoder(dictionary=np.eye(4), alpha=alpha, penalty=pools)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            coder.fit(X)
        assert bool(caught) is vanish
        assert bool((coder.transform(X) == 0).all()) is vanish


def test_columns_of_unequal_scale_warn_with_the_numbers():
    X = make_rows(60)
    X[:, 2] *= 1e4
    message = r"factor of .*that of column 2 1e\+04\. SparseCoder adds up squared differences"
    with pytest.warns(UserWarning, match=message):
        SparseCoder(3, random_state=0).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        X[:, 2] /= 1e2
        X[:, 4] = 7.0  # a constant column has no scale
        SparseCoder(3, random_state=0).fit(X)


def test_long_fits_are_announced(monkeypatch):
    X = make_sparse_rows(300)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SparseCoder(15, alpha=0.5, random_state=0, max_iter=2).fit(X)
    monkeypatch.setattr("sklebm.coding._checks._SMALL", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SparseCoder(15, alpha=0.5, random_state=0, max_iter=2).fit(X)
    monkeypatch.setattr("sklebm.coding._checks._LONG", 0.0)
    message = r"may take about .* minutes: 6e\+03 codes of .* among 15 atoms of 10 features"
    with pytest.warns(UserWarning, match=message):
        SparseCoder(15, alpha=0.1, random_state=0).fit(X)


# ---------------------------------------------------------------- first atoms, signs, parameters


def test_given_first_atoms_are_where_learning_begins():
    X, atoms = make_sparse_rows(300)
    options = {"alpha": 0.1, "random_state": 0, "dict_init": 2 * atoms}
    begun = SparseCoder(batch_size=301, **options).partial_fit(X)
    np.testing.assert_allclose(begun.components_, atoms, atol=1e-12)
    near = SparseCoder(max_iter=2, batch_size=100, **options).fit(X)
    assert recovered(near, atoms) == 1.0
    with pytest.raises(ValueError, match="dict_init has shape"):
        SparseCoder(dict_init=atoms[:, :4]).fit(X)
    with pytest.raises(ValueError, match="dict_init has no effect when dictionary is given"):
        SparseCoder(dictionary=atoms, dict_init=atoms).fit(X)


@pytest.mark.parametrize("algorithm", ["online", "gradient", "batch"])
@pytest.mark.parametrize("init", ["data", "random"])
def test_positive_atoms_stay_so_and_learn(algorithm, init):
    X = make_sparse_rows(300)[0]
    options = {"alpha": 0.1, "init": init, "batch_size": 50, "random_state": 0}
    options |= {"algorithm": algorithm, "positive_dict": True}
    coder = SparseCoder(15, max_iter=5, **options).fit(X)
    start = SparseCoder(15, **{**options, "batch_size": 301}).partial_fit(X)
    assert coder.components_.min() >= 0
    assert start.components_.min() >= 0
    assert coder.score(X) > start.score(X)


def test_an_atom_of_one_sign_is_the_best_one():
    """One code entry and one atom: no other atom d >= 0 of length <= 1 has a lower energy."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((200, 3)) + np.array([1.0, -0.5, 0.5])
    coder = SparseCoder(
        1, alpha=0.1, positive_dict=True, algorithm="batch", tol=0.0, random_state=0
    ).fit(X)
    for _ in range(200):
        other = np.abs(coder.components_ + 0.05 * generator.standard_normal((1, 3)))
        other /= max(1.0, np.linalg.norm(other))
        Z = coder.transform(X)
        held = 0.5 * ((X - Z @ other) ** 2).sum(axis=1) + 0.1 * np.abs(Z).sum(axis=1)
        assert held.mean() >= coder.free_energy(X).mean() - 1e-6


def test_a_coder_from_parameters_is_as_after_a_fit():
    X, atoms = make_sparse_rows(80)
    made = SparseCoder.from_parameters(components=atoms, alpha=0.2)
    fitted = SparseCoder(dictionary=atoms, alpha=0.2).fit(X)
    np.testing.assert_array_equal(made.transform(X), fitted.transform(X))
    assert made.n_components == 15
    before = made.score(X)
    assert made.partial_fit(np.tile(X, (10, 1))).score(X) > before
    np.testing.assert_allclose(made.reconstruct(X), made.inverse_transform(made.transform(X)))
