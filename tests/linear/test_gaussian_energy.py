"""GaussianEnergy: every objective against closed forms, optimality conditions and asymptotics."""

import itertools
import re

import numpy as np
import pytest
import torch
from scipy.stats import kstest, multivariate_normal
from sklearn.exceptions import ConvergenceWarning

from sklebm import GaussianEnergy
from sklebm.linear._contrastive import _ConditionalNoiseContrastive, _NoiseContrastive
from sklebm.linear._forms import SparseForms
from sklebm.linear._precision import _LogLikelihood
from sklebm.linear._structure import Entries, make_mask

SUMS = ("maximum_likelihood", "score_matching")
CONTRASTIVE = ("noise_contrastive", "conditional_noise_contrastive")
OBJECTIVES = SUMS + CONTRASTIVE

each = pytest.mark.parametrize("objective", OBJECTIVES)


def grid_precision(height, width, seed=0):
    """A diagonally dominant precision over a grid of pixels and their eight neighbours."""
    generator = np.random.default_rng(seed)
    mask = make_mask("banded", height * width, (height, width), 1)
    values = np.where(mask, generator.uniform(-0.4, 0.1, mask.shape), 0.0)
    values = np.tril(values, -1) + np.tril(values, -1).T
    P = values + np.diag(np.abs(values).sum(axis=1) + generator.uniform(0.3, 1.0, len(mask)))
    scale = generator.uniform(0.5, 2.0, len(mask))  # features of different units
    return P * np.outer(scale, scale)


def draw(P, n_rows, seed=0, location=0.0):
    """Rows of N(location, P^-1)."""
    white = np.random.default_rng(seed).standard_normal((n_rows, len(P)))
    return location + np.linalg.solve(np.linalg.cholesky(P).T, white.T).T


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("objective", SUMS)
def test_without_zeros_it_is_the_inverse_sample_covariance(objective):
    X = draw(grid_precision(4, 5), 300, location=3.0)
    model = GaussianEnergy(objective=objective).fit(X)
    expected = np.linalg.inv(np.cov(X.T, bias=True))
    error = np.linalg.norm(model.precision_ - expected) / np.linalg.norm(expected)
    assert error < 1e-8
    np.testing.assert_allclose(model.location_, X.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("objective", SUMS)
def test_iterations_reach_the_closed_form(objective):
    """A mask that frees all but one irrelevant pair takes the iterative path."""
    X = draw(grid_precision(2, 3), 400)
    X = np.column_stack([X, np.random.default_rng(1).permutation(X[:, 0])])
    mask = np.ones((7, 7), dtype=bool)
    mask[6, :6] = mask[:6, 6] = False
    model = GaussianEnergy(mask, objective=objective).fit(X)
    np.testing.assert_allclose(
        model.precision_[:6, :6], np.linalg.inv(np.cov(X[:, :6].T, bias=True)), rtol=1e-7
    )
    np.testing.assert_allclose(model.precision_[6, 6], 1 / X[:, 6].var(), rtol=1e-9)


@pytest.mark.parametrize("objective", SUMS)
def test_diagonal_is_the_product_of_its_features(objective):
    X = draw(grid_precision(2, 2), 200, location=1.0)
    model = GaussianEnergy("diagonal", objective=objective).fit(X)
    expected = multivariate_normal(X.mean(axis=0), np.diag(X.var(axis=0))).logpdf(X)
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-10)


def test_covariance_selection_of_a_chain_is_the_markov_factorisation():
    """For a decomposable graph: P = sum over cliques - separators of inverses, zero-padded."""
    X = draw(grid_precision(1, 6), 100)
    S = np.cov(X.T, bias=True)
    expected = np.zeros((6, 6))
    for i in range(5):
        expected[i : i + 2, i : i + 2] += np.linalg.inv(S[i : i + 2, i : i + 2])
    for i in range(1, 5):
        expected[i, i] -= 1 / S[i, i]
    model = GaussianEnergy("banded", tol=1e-11).fit(X)
    np.testing.assert_allclose(model.precision_, expected, rtol=1e-8, atol=1e-10)


# ---------------------------------------------------------------- optimality


def test_covariance_selection_meets_its_optimality_conditions():
    X = draw(grid_precision(5, 5), 200)
    model = GaussianEnergy("banded", image_shape=(5, 5)).fit(X)
    free = make_mask("banded", 25, (5, 5), 1)
    S = np.cov(X.T, bias=True)
    scale = np.sqrt(np.outer(np.diag(S), np.diag(S)))
    covariance = np.linalg.inv(model.precision_)
    assert np.abs((covariance - S) / scale)[free].max() < 1e-8
    assert (model.precision_[~free] == 0).all()
    assert np.abs((covariance - S) / scale)[~free].max() > 0.01
    np.testing.assert_allclose(model.covariance_, covariance, rtol=1e-9, atol=1e-12)


def test_score_matching_meets_its_optimality_conditions():
    X = draw(grid_precision(5, 5), 500)
    model = GaussianEnergy("banded", image_shape=(5, 5), objective="score_matching").fit(X)
    free = make_mask("banded", 25, (5, 5), 1)
    S, P = np.cov(X.T, bias=True), model.precision_
    assert np.abs((P @ S + S @ P) / 2 - np.eye(25))[free].max() < 1e-8
    assert (P[~free] == 0).all()


def naive_loss(objective, X, Y, mask, mean, covariance, point):
    """The contrastive losses pair by pair, as their papers write them, plus the prior."""
    d, n = X.shape[1], len(X)
    pairs = [(i, j) for i in range(d) for j in range(i + 1) if mask[i, j]]
    Q = np.zeros((d, d))
    for (i, j), value in zip(pairs, point, strict=False):
        Q[i, j] = Q[j, i] = value
    h, k = point[len(pairs) : len(pairs) + d], len(Y) // n

    def f(u):
        return -0.5 * u @ Q @ u + h @ u

    total = 0.0
    if objective == "noise_contrastive":
        c, noise = point[-1], multivariate_normal(mean, covariance)
        for u in X:
            total += np.log1p(k * noise.pdf(u) / np.exp(f(u) + c))
        for u in Y:
            total += np.log1p(np.exp(f(u) + c) / (k * noise.pdf(u)))
    else:
        for index, y in enumerate(Y):
            total += np.log1p(np.exp(f(y) - f(X[index % n])))
    prior = 0.5 * (np.trace(Q) - np.linalg.slogdet(Q)[1])
    return (total + prior) / n


def contrastive_function(objective, d=3, n=7, k=4):
    """An objective on random data, its naive twin, and a point."""
    generator = np.random.default_rng(0)
    X, Y = generator.standard_normal((n, d)), 1.3 * generator.standard_normal((n * k, d))
    mask = np.abs(np.subtract.outer(np.arange(d), np.arange(d))) <= 1
    factor = np.linalg.cholesky(np.eye(d) + 0.3)
    u = torch.from_numpy(np.concatenate([X, Y]))
    entries = Entries(mask, torch.device("cpu"))
    if objective == "noise_contrastive":
        function = _NoiseContrastive(u, torch.from_numpy(factor), entries, n)
    else:
        function = _ConditionalNoiseContrastive(u, entries, n)
    point = np.concatenate([np.where(entries.is_diagonal, 1.2, 0.2), [0.3, -0.1, 0.2], [-2.5]])
    point = point if objective == "noise_contrastive" else point[:-1]
    covariance = factor @ factor.T

    def naive(p):
        return naive_loss(objective, X, Y, mask, np.zeros(d), covariance, p)

    return function, naive, point


def likelihood_function():
    """Covariance selection on random data, its naive twin, and a point."""
    R = np.corrcoef(np.random.default_rng(0).standard_normal((9, 4)).T)
    mask = np.abs(np.subtract.outer(np.arange(4), np.arange(4))) <= 1
    entries = Entries(mask, torch.device("cpu"))
    point = np.where(entries.is_diagonal, 1.2, 0.2)

    def naive(p):
        Q = entries.matrix(torch.from_numpy(p)).numpy()
        return np.trace(R @ Q) - np.log(np.linalg.det(Q))

    return _LogLikelihood(torch.from_numpy(R), entries), naive, point


@pytest.mark.parametrize("objective", ["maximum_likelihood", *CONTRASTIVE])
def test_value_gradient_and_curvature_are_those_of_the_equation(objective):
    if objective == "maximum_likelihood":
        function, naive, point = likelihood_function()
    else:
        function, naive, point = contrastive_function(objective)
    at = torch.from_numpy(point)
    assert function.value(at) == pytest.approx(naive(point), rel=1e-12)
    gradient = function.gradient(at).numpy()
    step = 1e-5
    for index, unit in enumerate(np.eye(len(point))):
        # central differences: errors of step^2 times third derivatives of order one
        slope = (naive(point + step * unit) - naive(point - step * unit)) / (2 * step)
        assert gradient[index] == pytest.approx(slope, abs=1e-8)
        plus, minus = (function.gradient(torch.from_numpy(point + s * unit)) for s in (step, -step))
        function.gradient(at)
        bend = function.curvature(torch.from_numpy(unit))
        np.testing.assert_allclose(bend, (plus - minus) / (2 * step), atol=1e-8)


@pytest.mark.parametrize("objective", CONTRASTIVE)
def test_products_at_the_free_entries_alone_give_the_same_fit(objective, monkeypatch):
    """The difference is that of rows in single precision, 6e-8, times the condition number, 9."""
    line = np.abs(np.subtract.outer(np.arange(100), np.arange(100)))
    X = draw(np.eye(100) - 0.4 * (line == 1), 200)
    model = GaussianEnergy("banded", objective=objective, n_noise=2, random_state=0)
    assert Entries(line <= 1, torch.device("cpu")).is_sparse
    sparse = model.fit(X).precision_
    n_steps, constant = model.n_iter_, model.estimated_log_partition_
    monkeypatch.setattr("sklebm.linear._structure._SPARSE", 0.0)
    dense = model.fit(X).precision_
    assert np.abs(sparse - dense).max() < 1e-5 * np.abs(dense).max()
    assert n_steps < 30
    if constant is not None:
        assert constant == pytest.approx(model.estimated_log_partition_, abs=1e-4)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_forms_and_moments_at_free_entries(n_threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    generator = np.random.default_rng(0)
    mask = generator.random((9, 9)) < 0.3
    mask |= mask.T | np.eye(9, dtype=bool)
    entries, u = (
        Entries(mask, torch.device("cpu")),
        torch.from_numpy(generator.normal(size=(131, 9))),
    )
    vector, linear, weights = (
        torch.from_numpy(generator.normal(size=n)) for n in (len(entries), 9, 131)
    )
    Q = entries.matrix(vector).numpy()
    sparse = SparseForms(u, entries)
    found, slopes = sparse.values(vector, linear), sparse.derivatives(weights)
    naive = [float(row @ linear.numpy() - 0.5 * row @ Q @ row) for row in u.numpy()]
    np.testing.assert_allclose(found, naive, atol=1e-12)
    for place, (i, j) in enumerate(zip(entries.rows, entries.columns, strict=True)):
        change = -0.5 * u[:, i] ** 2 if i == j else -u[:, i] * u[:, j]
        assert float(slopes[0][place]) == pytest.approx(float(weights @ change), abs=1e-12)
    np.testing.assert_allclose(slopes[1], weights @ u, atol=1e-12)


# ---------------------------------------------------------------- recovery


@each
@pytest.mark.parametrize("structure", ["full", "banded", "mask"])
def test_recovers_a_known_precision(objective, structure):
    P = grid_precision(2, 3)
    free = make_mask("banded", 6, (2, 3), 1)
    X = draw(P, 20_000, location=np.arange(6.0))
    model = GaussianEnergy(
        free if structure == "mask" else structure,
        image_shape=(2, 3),
        objective=objective,
        random_state=0,
    ).fit(X)
    # standard errors of a precision are about sqrt(P_ii P_jj (1 + rho^2) / n), times a small factor
    # for the objectives that are not efficient
    scale = np.sqrt(np.outer(np.diag(P), np.diag(P)) * 2 / len(X))
    assert (np.abs(model.precision_ - P) / scale).max() < 6
    deviations = np.sqrt(np.diag(np.linalg.inv(P)) / len(X))
    assert (np.abs(model.location_ - np.arange(6.0)) / deviations).max() < 6
    if structure != "full":
        assert (model.precision_[~free] == 0).all()
    np.testing.assert_allclose(model.precision_ @ model.covariance_, np.eye(6), atol=1e-9)


def test_noise_contrastive_learns_the_normaliser():
    P = grid_precision(2, 3)
    model = GaussianEnergy("banded", image_shape=(2, 3), objective="noise_contrastive")
    for n_rows, tolerance in ((1000, 0.3), (16_000, 0.3 / 4)):  # an error of order 1 / sqrt(n)
        model.set_params(random_state=0).fit(draw(P, n_rows))
        assert abs(model.estimated_log_partition_ - model.log_partition_) < tolerance
    assert GaussianEnergy().fit(draw(P, 99)).estimated_log_partition_ is None


def test_conditional_noise_contrastive_becomes_score_matching_as_the_noise_shrinks():
    """(loss - log 2) 4 / eps^2 -> E[1/2 |score|^2 + trace of its derivative], with error O(eps^2).

    The noise is eps times a cubature with the moments of white noise up to the third, so that
    there is no Monte-Carlo error: +-sqrt(d) e_i.
    """
    d, X = 3, np.random.default_rng(0).standard_normal((50, 3))
    Q = np.array([[1.5, 0.2, 0.0], [0.2, 1.0, -0.3], [0.0, -0.3, 0.7]])
    h = np.array([0.3, -0.1, 0.2])
    limit = 0.5 * ((h - X @ Q) ** 2).sum(axis=1).mean() - np.trace(Q)
    entries = Entries(Q != 0, torch.device("cpu"))
    point = np.concatenate([Q[entries.rows, entries.columns], h])
    prior = 0.5 * (np.trace(Q) - np.linalg.slogdet(Q)[1]) / len(X)
    gaps = []
    for eps in (0.1, 0.05, 0.025):
        nodes = eps * np.sqrt(d) * np.concatenate([np.eye(d), -np.eye(d)])
        u = np.concatenate([X, *(X + node for node in nodes)])
        function = _ConditionalNoiseContrastive(torch.from_numpy(u), entries, len(X))
        loss = (function.value(torch.from_numpy(point)) - prior) / (2 * d)
        gaps.append((loss - np.log(2)) * 4 / eps**2 - limit)
    assert abs(gaps[0]) < 0.1
    np.testing.assert_allclose(np.divide(gaps[:-1], gaps[1:]), 4.0, rtol=0.05)


def sandwich(P, objective, n_noise, noise_scale, n_draws, seed):
    """Asymptotic covariance of sqrt(n) times the error of (entries, h, c), from its definition.

    The estimating function of one row is the derivative of its loss. Its covariance B, and the
    mean A of the second derivative, are averages over ``n_draws`` rows from the truth.
    """
    d = len(P)
    pairs = [(i, j) for i in range(d) for j in range(i + 1) if P[i, j] != 0]
    generator = np.random.default_rng(seed)
    C = np.linalg.inv(P)
    factor = np.linalg.cholesky(C)

    def features(u, constant):
        columns = [u[:, i] * u[:, j] * (-0.5 if i == j else -1.0) for i, j in pairs]
        return np.column_stack([*columns, u, *([np.ones(len(u))] if constant else [])])

    X = generator.standard_normal((n_draws, d)) @ factor.T
    constant = objective == "noise_contrastive"
    phi = features(X, constant)
    if objective == "score_matching":
        # 1/2 |P x - h|^2 - tr P: linear in the parameters, so A and B come from its derivatives
        slopes = [np.zeros((n_draws, d)) for _ in range(len(pairs) + d)]
        for index, (i, j) in enumerate(pairs):
            slopes[index][:, i] += X[:, j]
            if i != j:
                slopes[index][:, j] += X[:, i]
        for i in range(d):
            slopes[len(pairs) + i][:, i] = -1.0
        score = X @ P
        g = np.column_stack([(score * slope).sum(axis=1) for slope in slopes])
        g[:, : len(pairs)] -= [float(i == j) for i, j in pairs]
        A = np.array([[(a * b).sum(axis=1).mean() for b in slopes] for a in slopes])
        B = np.cov(g.T)
    else:
        g, A = np.zeros_like(phi), 0.0
        if constant:
            # with the noise at the truth, G = -log k for every point
            wrong = n_noise / (1 + n_noise)
            g -= wrong * phi
            A = A + wrong * (1 - wrong) * phi.T @ phi / n_draws
        for _ in range(n_noise):
            noise = generator.standard_normal((n_draws, d)) @ factor.T
            if constant:
                psi = features(noise, True)
                g += (1 - wrong) * psi
                A = A + wrong * (1 - wrong) * psi.T @ psi / n_draws
            else:
                difference = phi - features(X + noise_scale * noise, False)
                Y = X + noise_scale * noise
                margin = -0.5 * ((X @ P * X).sum(axis=1) - (Y @ P * Y).sum(axis=1))
                miss = 1 / (1 + np.exp(margin))
                g -= miss[:, None] * difference
                A = A + (difference * (miss * (1 - miss))[:, None]).T @ difference / n_draws
        B = np.cov(g.T)
    inverse = np.linalg.inv(A)
    return (inverse @ B @ inverse)[: len(pairs), : len(pairs)], pairs


@pytest.mark.parametrize("objective", ["score_matching", *CONTRASTIVE])
def test_mean_squared_error_is_the_asymptotic_variance(objective):
    """The estimators are as good as theory says, and theory as good as its simulation.

    With 120 replicates and about 5 independent entries the ratio has a standard error of
    sqrt(2 / 600) = 0.06; benchmarks/bench_gaussian_energy.py does it with more.
    """
    P = np.array([[1.5, -0.6, 0.0], [-0.6, 2.0, 0.5], [0.0, 0.5, 1.0]])
    covariance, pairs = sandwich(P, objective, n_noise=2, noise_scale=1.0, n_draws=200_000, seed=9)
    n_rows, errors = 2000, []
    for seed in range(120):
        model = GaussianEnergy(
            "banded", objective=objective, n_noise=2, tol=1e-6, random_state=seed
        ).fit(draw(P, n_rows, seed=seed))
        errors.append([model.precision_[pair] - P[pair] for pair in pairs])
    variances = n_rows * np.square(errors).mean(axis=0)
    ratio = (variances / np.diag(covariance)).mean()
    assert 0.8 < ratio < 1.2


def test_noise_that_shrinks_with_the_features_teaches_more():
    """The default is noise of the data's size up to 4 features, and less than it beyond."""
    P = grid_precision(4, 4)
    X = draw(P, 2000)
    settings = {"objective": "conditional_noise_contrastive", "n_noise": 2, "tol": 1e-4}
    model = GaussianEnergy("banded", image_shape=(4, 4), random_state=0, **settings)
    unit, error = np.sqrt(np.outer(np.diag(P), np.diag(P))), {}
    for scale in ("auto", 1.0, 0.5):
        found = model.set_params(noise_scale=scale).fit(X).precision_
        error[scale] = np.square((found - P) / unit).sum()
    assert error["auto"] == error[0.5]
    assert error["auto"] < 0.5 * error[1.0]
    few = GaussianEnergy(random_state=0, **settings).fit(X[:, :4]).precision_
    fixed = GaussianEnergy(random_state=0, noise_scale=1.0, **settings).fit(X[:, :4]).precision_
    np.testing.assert_array_equal(few, fixed)


# ---------------------------------------------------------------- as a density


@each
def test_scores_are_log_densities_and_samples_follow_them(objective):
    X = draw(grid_precision(1, 4), 500, location=2.0)
    model = GaussianEnergy("banded", objective=objective, random_state=0).fit(X)
    density = multivariate_normal(model.location_, model.covariance_)
    np.testing.assert_allclose(model.score_samples(X), density.logpdf(X), rtol=1e-9)
    np.testing.assert_allclose(
        model.free_energy(X), -density.logpdf(X) - model.log_partition_, rtol=1e-8, atol=1e-9
    )
    drawn = model.sample(50_000, random_state=0)
    # twice the free energy of a draw is chi-squared with d degrees of freedom
    assert kstest(2 * model.free_energy(drawn), "chi2", args=(4,)).pvalue > 1e-3
    deviations = np.sqrt(np.diag(model.covariance_) / 50_000)
    assert (np.abs(drawn.mean(axis=0) - model.location_) / deviations).max() < 5


def test_codes_are_white_and_hold_the_free_energy():
    X = draw(grid_precision(2, 3), 300)
    model = GaussianEnergy().fit(X)
    Z = model.transform(X)
    np.testing.assert_allclose(np.cov(Z.T, bias=True), np.eye(6), atol=1e-10)
    np.testing.assert_allclose(0.5 * (Z**2).sum(axis=1), model.free_energy(X), rtol=1e-12)
    np.testing.assert_allclose(model.inverse_transform(Z), X, atol=1e-10)
    # z_i is a residual given the features behind it: it does not see those before
    moved = X.copy()
    moved[:, 0] += 1.0
    np.testing.assert_allclose(model.transform(moved)[:, 1:], Z[:, 1:], atol=1e-12)


# ---------------------------------------------------------------- structures and errors


def test_neighbourhood_of_pixels():
    free = make_mask("banded", 12, (3, 4), 1)
    for a, b in itertools.product(range(12), repeat=2):
        near = max(abs(a // 4 - b // 4), abs(a % 4 - b % 4)) <= 1
        assert free[a, b] == near
    assert (make_mask("banded", 12, (3, 4), 0) == np.eye(12)).all()
    line = make_mask("banded", 5, None, 2)
    assert (line == (np.abs(np.subtract.outer(range(5), range(5))) <= 2)).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"structure": np.ones((3, 3), dtype=bool)}, ["structure", r"\(3, 3\)", r"\(4, 4\)"]),
        ({"structure": np.eye(4)}, ["structure", "float64", "boolean"]),
        ({"structure": np.triu(np.ones((4, 4), dtype=bool))}, ["symmetric", r"mask\.T"]),
        ({"structure": np.zeros((4, 4), dtype=bool)}, ["diagonal"]),
        (
            {"structure": "banded", "image_shape": (3, 2)},
            ["image_shape", r"\(3, 2\)", "4 features"],
        ),
        ({"structure": "banded", "image_shape": (4,)}, ["image_shape", "height"]),
        ({"objective": "noise_contrastive", "ridge": 0.1}, ["ridge=0.1", "noise_contrastive"]),
    ],
)
def test_errors_name_what_is_wrong(arguments, words):
    model = GaussianEnergy(**arguments)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are checked below)
        model.fit(draw(np.eye(4), 50))
    for word in words:
        assert re.search(word, str(caught.value))
    assert not hasattr(model, "precision_")


def test_score_matching_that_finds_no_density_says_what_to_do():
    # Strongly correlated features, few rows, and a mask that fits none of it.
    generator = np.random.default_rng(0)
    failed = 0
    for seed in range(40):
        X = draw(np.eye(5), 6, seed=seed) @ generator.standard_normal((5, 5))
        mask = np.eye(5, dtype=bool)
        mask[0] = mask[:, 0] = True
        model = GaussianEnergy(mask, objective="score_matching", ridge=0)
        S = np.cov(X.T, bias=True)
        # the linear system, written out
        pairs = [(i, j) for i in range(5) for j in range(i + 1) if mask[i, j]]
        units = []
        for i, j in pairs:
            unit = np.zeros((5, 5))
            unit[i, j] = unit[j, i] = 1.0
            units.append(unit)
        A = [[np.trace(a @ S @ b) for b in units] for a in units]
        P = np.tensordot(np.linalg.solve(A, [np.trace(a) for a in units]), units, axes=1)
        if np.linalg.eigvalsh(P)[0] > 0:
            np.testing.assert_allclose(model.fit(X).precision_, P, rtol=1e-6, atol=1e-9)
            continue
        failed += 1
        with pytest.raises(ValueError, match=r"not positive definite.*maximum_likelihood"):
            model.fit(X)
        assert not hasattr(model, "precision_")
        # a ridge is found by itself, and half of it does not do
        found = model.set_params(ridge="auto").fit(X)
        assert np.linalg.eigvalsh(found.precision_)[0] > 0
        assert found.ridge_ > 0
        with pytest.raises(ValueError, match="not positive definite"):
            model.set_params(ridge=0.5 * found.ridge_ / np.diag(S).mean()).fit(X)
        likely = model.set_params(objective="maximum_likelihood", ridge=0).fit(X)
        assert np.linalg.eigvalsh(likely.precision_)[0] > 0
    assert 0 < failed < 40


@pytest.mark.parametrize("objective", CONTRASTIVE)
def test_contrastive_objectives_have_no_partial_fit_and_say_why(objective):
    model = GaussianEnergy(objective=objective)
    assert not hasattr(model, "partial_fit")
    with pytest.raises(AttributeError) as caught:
        model.partial_fit(draw(np.eye(3), 50))
    assert "score_matching" in str(caught.value.__cause__)


@each
def test_singular_data_still_gives_a_density(objective):
    X = draw(np.eye(4), 40)
    X = np.column_stack([X, X[:, 0], np.full(40, 3.0)])
    model = GaussianEnergy(objective=objective, random_state=0).fit(X)
    assert np.linalg.eigvalsh(model.precision_)[0] > 0
    outside = X + np.eye(6)[5]
    assert (model.score_samples(outside) < model.score_samples(X)).all()


def test_too_few_steps_warn():
    X = draw(grid_precision(4, 4), 200)
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        GaussianEnergy("banded", image_shape=(4, 4), max_iter=1).fit(X)


def test_ridge_is_added_to_the_variances():
    X = draw(grid_precision(2, 2), 100)
    S = np.cov(X.T, bias=True)
    model = GaussianEnergy(ridge=0.5).fit(X)
    assert model.ridge_ == pytest.approx(0.5 * np.trace(S) / 4)
    np.testing.assert_allclose(model.covariance_, S + model.ridge_ * np.eye(4), rtol=1e-10)


@pytest.mark.gpu
@each
def test_devices_agree(objective, device):
    X = draw(grid_precision(2, 3), 500)
    model = GaussianEnergy("banded", objective=objective, tol=1e-10, random_state=0)
    here = model.fit(X)
    there = GaussianEnergy(**model.get_params()).fit(torch.from_numpy(X).to(device))
    # Contrastive noise is drawn on the device, so that only its distribution is the same.
    rtol = 1e-6 if objective in SUMS else 0.5
    np.testing.assert_allclose(np.diag(there.precision_), np.diag(here.precision_), rtol=rtol)


# ---------------------------------------------------------------- many features, few neighbours


def test_sparse_forms_find_what_dense_ones_find(monkeypatch):
    """120 pixels: products at the free entries, and a sparse factorisation."""
    X = draw(grid_precision(10, 12), 400)
    models = {}
    for large in (100, 10**9):
        monkeypatch.setattr("sklebm.linear._structure._LARGE", large)
        for objective in SUMS:
            model = GaussianEnergy("banded", image_shape=(10, 12), objective=objective)
            models[objective, large] = model.fit(X).precision_
    for objective in SUMS:
        sparse, dense = models[objective, 100], models[objective, 10**9]
        # the gradient of either is at most 1e-8
        np.testing.assert_allclose(sparse, dense, atol=1e-6 * np.diag(dense).max())


def test_products_at_some_entries_are_those_of_the_whole_matrix():
    from sklebm.inference.entry_products import sandwich, sparse_product

    generator = np.random.default_rng(0)
    for d in (5, 64, 130):  # less than a panel, one, and more than two
        C = np.cov(generator.standard_normal((d, 2 * d)))
        entries = Entries(make_mask("banded", d, None, 3), torch.device("cpu"))
        D, P = (
            entries.sparse(torch.from_numpy(generator.standard_normal(len(entries)))) for _ in "DP"
        )
        rows, columns = entries.rows.numpy(), entries.columns.numpy()
        found = sandwich(C, D.indptr, D.indices, D.data, rows, columns)
        expected = (C @ D.toarray() @ C)[rows, columns]
        np.testing.assert_allclose(found, expected, atol=1e-13 * d * np.abs(expected).max())
        arrays = (D.indptr, D.indices, D.data, P.indptr, P.indices, P.data)
        expected = (D.toarray() @ P.toarray())[rows, columns]
        np.testing.assert_allclose(
            sparse_product(*arrays, rows, columns), expected, atol=1e-14 * np.abs(expected).max()
        )


@each
def test_scores_do_not_depend_on_an_offset(objective):
    X = np.round(draw(grid_precision(2, 3), 200), 6)
    model = GaussianEnergy("banded", objective=objective, random_state=0)
    here, there = model.fit(X).score_samples(X), model.fit(X + 1e6).score_samples(X + 1e6)
    # Rows near 1e6 are rounded to 1e-10; Newton's method ends at derivatives of 1e-8.
    np.testing.assert_allclose(there, here, atol=1e-5)


def test_a_model_from_parameters_is_the_gaussian_of_these():
    P, location = grid_precision(2, 2), np.arange(4.0)
    model = GaussianEnergy.from_parameters(precision=P, location=location)
    X = draw(P, 20, location=location)
    expected = multivariate_normal(location, np.linalg.inv(P)).logpdf(X)
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-9)
    model.partial_fit(X)  # whose rows are the first
    np.testing.assert_array_equal(model.precision_, GaussianEnergy().fit(X).precision_)
    with pytest.raises(ValueError, match="positive definite"):
        GaussianEnergy.from_parameters(precision=-P, location=location)
