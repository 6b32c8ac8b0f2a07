"""GridMRF: sums over labels against enumeration, cuts against the optimum, gradients, recovery."""

import itertools
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import sklearn
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.preprocessing import MinMaxScaler

from sklebm import ChainCRF, GridMRF
from sklebm._shell.rows import Rows
from sklebm.inference import grid_labels
from sklebm.inference.grid_graph import make_grid, tree_shares
from sklebm.structured._grids import Learning

TIGHT = {"tol": 1e-13, "max_iter": 3000}
N_FEATURES = 3
STEPS = {4: [(0, 1), (1, 0)], 8: [(0, 1), (1, 0), (1, 1), (1, -1)]}
KINDS = {"constant": 0, "contrast": 1, "features": 2 * N_FEATURES}


def make_model(n_labels=3, kind="constant", directed=True, n_neighbours=8, seed=0, **changes):
    """A model with given parameters."""
    rng = np.random.default_rng(seed)
    n_tables = len(STEPS[n_neighbours]) if directed else 1
    shape = (n_labels, n_labels, n_tables)
    given = {"transition_coef": 0.7 * rng.normal(size=(*shape, KINDS[kind]))} if KINDS[kind] else {}
    if kind == "contrast":
        given["contrast_scale"] = rng.uniform(1.0, 3.0, size=N_FEATURES)
    return GridMRF.from_parameters(
        classes=np.arange(n_labels),
        coef=rng.normal(size=(n_labels, N_FEATURES)),
        intercept=rng.normal(size=n_labels),
        transitions=0.7 * rng.normal(size=shape),
        n_neighbours=n_neighbours,
        **{**given, **changes},
    )


def make_pixels(height, width, seed=1):
    positions = np.array(list(itertools.product(range(height), range(width))))
    return np.random.default_rng(seed).normal(size=(len(positions), N_FEATURES)), positions


def naive_terms(model, X, positions):
    """Scores of labels, and (i, j, T_ij) of each pair, by the equation alone."""
    place = {tuple(position): i for i, position in enumerate(positions.tolist())}
    pairs = []
    for (row, column), i in place.items():
        for number, (down, right) in enumerate(STEPS[model.n_neighbours_]):
            j = place.get((row + down, column + right))
            if j is None:
                continue
            d = number if model.transitions_.shape[2] > 1 else 0
            table = model.transitions_[:, :, d].copy()
            if model.contrast_scale_ is not None:
                far = np.sum(((X[i] - X[j]) / model.contrast_scale_) ** 2)
                table += model.transition_coef_[:, :, d, 0] * np.exp(-far / 2)
            elif model.transition_coef_ is not None:
                table += model.transition_coef_[:, :, d] @ np.concatenate([X[i], X[j]])
            pairs.append((i, j, table))
    return X @ model.coef_.T + model.intercept_, pairs


def scores_on_grid(model, X, positions):
    """The problem of inference, as the model poses it; T does not depend on features."""
    grid = make_grid(positions, None, len(X), model.n_neighbours_)
    scores = (X @ model.coef_.T + model.intercept_)[grid.order]
    direction = grid.direction if model.transitions_.shape[2] > 1 else 0 * grid.direction
    tables = np.ascontiguousarray(model.transitions_.transpose(2, 0, 1))
    return grid_labels.GridScores(scores, tables, direction, grid)


def enumerate_labels(model, X, positions):
    """All labellings and minus their energies."""
    scores, pairs = naive_terms(model, X, positions)
    labels = np.array(list(itertools.product(range(scores.shape[1]), repeat=len(X))))
    values = scores[np.arange(len(X)), labels].sum(axis=1)
    for i, j, table in pairs:
        values = values + table[labels[:, i], labels[:, j]]
    return labels, values


def marginals_of(labels, values, n_labels):
    p = np.exp(values - logsumexp(values))
    return np.array([[p[labels[:, i] == k].sum() for k in range(n_labels)] for i in range(9)])


# ---------------------------------------------------------------- inference


@pytest.mark.parametrize("kind", KINDS)
def test_sums_over_three_by_three_pixels_are_enumeration(kind):
    X, positions = make_pixels(3, 3)
    shuffled = np.random.default_rng(0).permutation(9)
    X, positions = X[shuffled], positions[shuffled] - 5
    for directed, n_neighbours in ((True, 8), (False, 4)):
        model = make_model(kind=kind, directed=directed, n_neighbours=n_neighbours)
        labels, values = enumerate_labels(model, X, positions)
        log_z = logsumexp(values)
        total = model.score_samples(X, positions=positions).sum()
        np.testing.assert_allclose(total, log_z, rtol=1e-12)
        model.set_params(inference="exact")
        marginals = marginals_of(labels, values, 3)
        found = model.predict_proba(X, positions=positions)
        np.testing.assert_allclose(found, marginals, rtol=1e-11, atol=1e-13)
        np.testing.assert_array_equal(
            model.predict(X, positions=positions), marginals.argmax(axis=1)
        )
        for y, value in zip(labels[::3001], values[::3001], strict=True):
            energy = model.energy(X, y, positions=positions)
            np.testing.assert_allclose(energy.sum(), -value, rtol=1e-12, atol=1e-12)
            log_p = model.conditional_log_density(X, y, positions=positions)
            np.testing.assert_allclose(log_p.sum(), value - log_z, rtol=1e-12)


def test_sampling_and_bounds_against_enumeration():
    X, positions = make_pixels(3, 3)
    model = make_model(directed=False, n_neighbours=4)
    labels, values = enumerate_labels(model, X, positions)
    truth = marginals_of(labels, values, 3)
    model.set_params(inference="gibbs", n_gibbs_steps=20_000)
    # Means of 20,000 dependent sweeps: about 0.5 sqrt(10 / 20,000) = 0.01, here three times that.
    found = model.predict_proba(X, positions=positions)
    np.testing.assert_allclose(found, truth, atol=0.03)
    np.testing.assert_array_equal(found, model.predict_proba(X, positions=positions))
    # Mean field: each distribution is the best given the others, and the bound is one.
    q = model.set_params(inference="mean_field").predict_proba(X, positions=positions)
    scores, pairs = naive_terms(model, X, positions)
    field, bound = scores.copy(), np.sum(q * (scores - np.log(q)))
    for i, j, table in pairs:
        field[i] += table @ q[j]
        field[j] += q[i] @ table
        bound += q[i] @ table @ q[j]
    best = np.exp(field - logsumexp(field, axis=1, keepdims=True))
    np.testing.assert_allclose(q, best, atol=1e-8)  # sweeps end at changes of 1e-9
    log_z = logsumexp(values)
    assert log_z - 1.0 < bound < log_z
    # The log Z of reweighted trees is a bound from above, with log p that sum to 1.
    scored = scores_on_grid(model, X, positions)
    trees = grid_labels.reweighted_trees(scored)
    assert trees.n_open == 0
    assert log_z < trees.log_z.sum() < log_z + 1.0
    np.testing.assert_allclose(logsumexp(trees.log_p, axis=1), 0.0, atol=1e-12)
    log_p = model.set_params(inference="reweighted_trees").predict_log_proba(X, positions=positions)
    np.testing.assert_allclose(log_p[scored.grid.order], trees.log_p, atol=1e-12)
    # Belief propagation has loops here: near the truth, and nearer than independent pixels.
    beliefs = model.set_params(inference="belief_propagation").predict_proba(X, positions=positions)
    assert np.abs(beliefs - truth).max() < 0.5 * np.abs(q - truth).max()
    # Modes: no change of one pixel lowers the energy.
    y = model.set_params(inference="icm").predict(X, positions=positions)
    value = values[(labels == y).all(axis=1)]
    near = values[(labels != y).sum(axis=1) == 1]
    assert (near <= value).all()


TREE = np.array(  # a comb with a long tooth: no loops
    [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (2, 0), (1, 2), (2, 2), (1, 4), (3, 2)]
)


@pytest.mark.parametrize("kind", KINDS)
def test_belief_propagation_is_exact_on_trees(kind, monkeypatch):
    monkeypatch.setattr(grid_labels, "_QUICK_NUMBERS", 0)  # without the help of elimination
    X = np.random.default_rng(1).normal(size=(len(TREE), N_FEATURES))
    model = make_model(2, kind, n_neighbours=4)
    labels, values = enumerate_labels(model, X, TREE)
    p = np.exp(values - logsumexp(values))
    for inference in ("belief_propagation", "reweighted_trees"):
        found = model.set_params(inference=inference).predict_proba(X, positions=TREE)
        np.testing.assert_allclose(found[:, 1], p @ labels, rtol=0, atol=1e-12)
    total = model.score_samples(X, positions=TREE).sum()
    np.testing.assert_allclose(total, logsumexp(values), rtol=1e-12)


def test_spanning_trees_hold_every_pair_and_bridges_always():
    positions = np.array([*itertools.product(range(3), range(3)), (0, 3), (0, 4)])
    for n_neighbours in (4, 8):
        grid = make_grid(positions, np.zeros(11, int), 11, n_neighbours)
        shares = tree_shares(grid)
        assert ((shares > 0.0) & (shares <= 1.0)).all()
        assert shares.sum() == pytest.approx(10)  # a tree of 11 pixels has 10 pairs
        bridge = grid.coordinates[grid.second] == (0, 4)
        assert shares[bridge.all(axis=1)] == 1.0


def test_trees_are_found_only_for_images_too_large_for_sums(monkeypatch):
    """A small and a large image together: each is answered as on its own, without vain trees."""
    seen = []

    def counted(grid):
        seen.append(len(grid.order))
        return tree_shares(grid)

    monkeypatch.setattr(grid_labels, "tree_shares", counted)
    model = make_model(2, n_neighbours=4)
    parts = [make_pixels(3, 4, 0), make_pixels(14, 13, 1), make_pixels(4, 2, 2)]
    X, positions = (np.concatenate(both) for both in zip(*parts, strict=True))
    groups = np.repeat([0, 1, 2], [12, 182, 8])
    whole = model.score_samples(X, groups=groups, positions=positions)
    assert seen == [182]
    alone = [model.score_samples(x, positions=p) for x, p in parts]
    assert seen == [182, 182]
    np.testing.assert_allclose(whole, np.concatenate(alone), rtol=1e-12)


def test_an_image_of_one_line_is_a_chain():
    model = make_model(n_neighbours=4)
    X = np.random.default_rng(1).normal(size=(400, N_FEATURES))
    chain = ChainCRF.from_parameters(
        classes=model.classes_,
        coef=model.coef_,
        intercept=model.intercept_,
        transitions=model.transitions_[:, :, 0],
    )
    line = np.stack([np.zeros(400, int), np.arange(400)], axis=1)
    found = model.predict_proba(X, positions=line)
    np.testing.assert_allclose(found, chain.predict_proba(X), atol=1e-12)
    total = model.score_samples(X, positions=line).sum()
    np.testing.assert_allclose(total, chain.score_samples(X).sum(), rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["constant", "contrast"])
def test_the_cut_is_the_labelling_of_lowest_energy(kind, seed):
    X, positions = make_pixels(4, 4, seed)
    model = make_model(2, kind, seed=seed, inference="cut")
    rng = np.random.default_rng(seed)
    for weights in (model.transitions_, model.transition_coef_):
        if weights is not None:  # attractive, and not symmetric
            weights[:] = rng.normal(size=weights.shape)
            lack = weights[0, 1] + weights[1, 0] - weights[0, 0] - weights[1, 1]
            weights[0, 0] += np.maximum(lack, 0.0) + rng.uniform(size=lack.shape)
    labels, values = enumerate_labels(model, X, positions)
    found = model.predict(X, positions=positions)
    np.testing.assert_array_equal(found, labels[values.argmax()])
    energy = model.energy(X, found, positions=positions).sum()
    np.testing.assert_allclose(energy, -values.max(), rtol=1e-12)
    # The optimum is a mode of every pixel too, so that probabilities agree with it.
    likely = model.predict_proba(X, positions=positions).argmax(axis=1)
    np.testing.assert_array_equal(likely, found)


def test_cuts_of_scores_of_any_size():
    X, positions = make_pixels(4, 4)
    for size in (1e-6, 1e6):
        model = make_model(2, inference="cut")
        model.transitions_[0, 0] += 5.0
        for weights in (model.coef_, model.intercept_, model.transitions_):
            weights *= size
        labels, values = enumerate_labels(model, X, positions)
        found = model.predict(X, positions=positions)
        np.testing.assert_array_equal(found, labels[values.argmax()])


def test_a_cut_without_any_preference():
    X, positions = make_pixels(2, 2)
    model = GridMRF.from_parameters(
        classes=np.arange(2),
        coef=np.zeros((2, N_FEATURES)),
        intercept=np.zeros(2),
        transitions=np.zeros((2, 2, 1)),
    ).set_params(inference="cut")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(model.predict(X, positions=positions)) <= {0, 1}


@pytest.mark.parametrize("inference", ["reweighted_trees", "mean_field", "gibbs", "icm", "cut"])
def test_images_do_not_touch_each_other(inference):
    """Nor does the order of the rows matter, nor where an image lies."""
    model = make_model(2, "contrast", inference=inference, n_gibbs_steps=20)
    model.transitions_[0, 0] += 4.0
    model.transition_coef_[0, 0] = model.transition_coef_[1, 1] = 2.0
    parts = [make_pixels(5, 4, 0), make_pixels(3, 7, 1), make_pixels(1, 1, 2)]
    X = np.concatenate([part[0] for part in parts])
    positions = np.concatenate([part[1] for part in parts])
    groups = np.repeat(["b", "a", "c"], [len(part[0]) for part in parts])
    order = np.random.default_rng(0).permutation(len(X))
    moved = positions + np.array([10**9, -(10**9)])
    for method in ("predict", "predict_proba", "score_samples"):
        answer = getattr(model, method)
        whole = answer(X, groups=groups, positions=positions)
        alone = np.concatenate([answer(x, positions=p) for x, p in parts])
        np.testing.assert_allclose(whole, alone, rtol=1e-12)
        found = answer(X[order], groups=groups[order], positions=moved[order])
        np.testing.assert_allclose(found, whole[order], rtol=1e-12)


def test_gaps_between_pixels_separate_them():
    """Far lines are no neighbours, nor are the ends of lines that follow each other."""
    positions = np.array([(0, 0), (0, 1), (0, 3), (2, 0), (2, 1), (3, 3), (3, 2)])
    grid = make_grid(positions, None, 7, 8)
    ends = grid.order[np.stack([grid.first, grid.second], axis=1)]
    pairs = {tuple(sorted(pair)) for pair in ends.tolist()}
    assert pairs == {(0, 1), (3, 4), (5, 6), (4, 6)}
    assert make_grid(None, None, 7, 8).first.size == 0


# ---------------------------------------------------------------- learning


def make_images(n_images=6, size=12, seed=0, noise=1.0):
    """Blobs of two labels seen through noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    X, y = [], []
    for _ in range(n_images):
        centre = rng.uniform(2, size - 2, size=2)
        blob = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (size / 3) ** 2
        y.append(blob.ravel().astype(int))
        X.append(
            np.stack([blob.ravel(), ~blob.ravel()], axis=1) + noise * rng.normal(size=(size**2, 2))
        )
    positions = np.tile(np.stack([rows.ravel(), columns.ravel()], axis=1), (n_images, 1))
    return np.concatenate(X), np.concatenate(y), np.repeat(np.arange(n_images), size**2), positions


def problem_of(model, X, y, groups, positions):
    import torch

    rows = Rows(X, torch.device("cpu"))
    columns = {"target": y, "groups": groups, "positions": positions}
    rows.columns = {name: torch.from_numpy(column) for name, column in columns.items()}
    return Learning(model, rows, np.unique(y))


SETTINGS = (
    {},
    {"interaction": "potts", "directed": True, "n_neighbours": 8, "pairwise_features": "contrast"},
    {"pairwise_features": "features"},
    {"pairwise_features": "features", "interaction": "potts"},
    {"pairwise_features": "features", "directed": True},
    {"interaction": 1.5, "pairwise_features": "contrast"},
)


def assert_gradient(problem, theta):
    """By central differences; returns the value."""
    value, gradient = problem.objective(theta)
    for j in range(len(theta)):
        shift = np.zeros(len(theta))
        shift[j] = 1e-5
        slope = problem.objective(theta + shift)[0] - problem.objective(theta - shift)[0]
        # Rounding of a value of about 1e2 divided by the step, and third derivatives below 1e2.
        np.testing.assert_allclose(gradient[j], slope / 2e-5, rtol=0, atol=1e-7)
    return value


def model_of(learnt, theta, **setting):
    """A model with the attributes that the parameters become."""
    model = GridMRF(**setting)
    others = {"classes_": np.arange(learnt.n_labels), "n_iter_": 0, "objective_": 0.0}
    model.__dict__.update(learnt.attributes(theta), n_features_in_=2, **others)
    return model


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_likelihood_of_lines_is_exact(setting):
    X, y, _, positions = make_images(2, 5)
    groups = np.repeat(np.arange(10), 5)  # each line of pixels an image of its own
    learnt = problem_of(GridMRF(C=2.0, **setting), X, y, groups, positions)
    problem = learnt.problem
    theta = np.random.default_rng(0).normal(size=problem.n_parameters)
    value = assert_gradient(problem, theta)
    fitted, loss = model_of(learnt, theta, **setting), 0.25 * problem.penalised @ theta**2
    for image in range(10):
        here = groups == image
        labels, values = enumerate_labels(fitted, X[here], positions[here])
        loss += logsumexp(values) - values[(labels == y[here]).all(axis=1)].item()
    np.testing.assert_allclose(value, loss, rtol=1e-10)


def test_the_gradient_of_the_likelihood_holds_with_loops(monkeypatch):
    """The derivative of the bound of log Z are the marginals at messages that have settled."""
    monkeypatch.setattr("sklebm.inference.grid_learning._SETTLED", 1e-14)
    X, y, groups, positions = make_images(2, 5)
    learnt = problem_of(GridMRF(pairwise_features="contrast"), X, y, groups, positions)
    theta = 0.5 * np.random.default_rng(0).normal(size=learnt.problem.n_parameters)
    assert_gradient(learnt.problem, theta)


@pytest.mark.parametrize("learning", ["pseudo_likelihood", "piecewise"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_losses_by_the_equation_and_gradients_by_differences(setting, learning):
    X, y, groups, positions = make_images(2, 5)
    y = (y + (X[:, 0] > 1.5)).astype(int)  # three labels
    learnt = problem_of(GridMRF(learning=learning, C=2.0, **setting), X, y, groups, positions)
    problem = learnt.problem
    theta = np.random.default_rng(0).normal(size=problem.n_parameters)
    value = assert_gradient(problem, theta)
    fitted = model_of(learnt, theta, **setting)
    loss = 0.25 * problem.penalised @ theta**2
    for image in (0, 1):
        here = groups == image
        scores, pairs = naive_terms(fitted, X[here], positions[here])
        own, at = y[here], np.arange(25)
        if learning == "piecewise":
            loss += np.sum(logsumexp(scores, axis=1) - scores[at, own])
            for i, j, table in pairs if learnt.given is None else []:
                loss += logsumexp(table) - table[own[i], own[j]]
        else:
            for i, j, table in pairs:
                scores[i] += table[:, own[j]]
                scores[j] += table[own[i]]
            loss += np.sum(logsumexp(scores, axis=1) - scores[at, own])
    np.testing.assert_allclose(value, loss, rtol=1e-10)


def test_without_directions_no_pixel_of_a_pair_is_the_first():
    X, y, groups, positions = make_images(2, 6)
    # The trees of "reweighted_trees" depend on where an image begins.
    model = GridMRF(pairwise_features="features", C=10.0, inference="belief_propagation")
    model.fit(X, y, groups, positions)
    assert np.abs(model.transition_coef_).max() > 0.01
    found, turned = (
        model.predict_proba(X, groups, p) for p in (positions, positions.max(axis=0) - positions)
    )
    np.testing.assert_allclose(found, turned, atol=1e-6)


def test_interactions_say_nothing_of_single_labels():
    X, y, groups, positions = make_images(2, 6)
    model = GridMRF(pairwise_features="contrast", directed=True, C=10.0)
    model.fit(X, y, groups, positions)
    for table in (model.transitions_, model.transition_coef_[..., 0]):
        assert np.abs(table).max() > 0.01
        np.testing.assert_allclose(table.mean(axis=0), 0.0, atol=1e-12)
        np.testing.assert_allclose(table.mean(axis=1), 0.0, atol=1e-12)


@pytest.mark.parametrize("learning", ["likelihood", "pseudo_likelihood", "piecewise"])
def test_pixels_without_neighbours_are_logistic_regression(learning):
    X, y, _, _ = make_images()
    model = GridMRF(C=0.7, learning=learning, **TIGHT).fit(X, y)
    scaler = MinMaxScaler().fit(X)
    peer = LogisticRegression(C=1.4, tol=1e-10, max_iter=5000).fit(scaler.transform(X), y)
    # Two labels have two opposite weights here: half the penalty of the one of their difference.
    difference = (model.coef_[1] - model.coef_[0]) / scaler.scale_
    np.testing.assert_allclose(difference, peer.coef_[0], atol=1e-5)
    np.testing.assert_array_equal(model.transitions_, 0.0)
    np.testing.assert_allclose(
        model.predict_proba(X), peer.predict_proba(scaler.transform(X)), atol=1e-5
    )


def test_pseudo_likelihood_recovers_the_interaction_of_an_ising_sample():
    """Gibbs sweeps of a 64 x 64 image by conditional probabilities of our own."""
    rng, size, truth = np.random.default_rng(0), 64, 0.7
    field = 0.3 * rng.normal(size=(size, size))
    spins = rng.integers(2, size=(size, size))
    board = np.add.outer(np.arange(size), np.arange(size)) % 2
    for sweep in range(400):
        padded = np.pad(2 * spins - 1, 1)
        around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        p = 1 / (1 + np.exp(-(field + truth * around)))
        spins = np.where(board == sweep % 2, rng.uniform(size=p.shape) < p, spins)
    positions = np.argwhere(np.ones((size, size)))
    model = GridMRF(interaction="potts", C=1e6, learning="pseudo_likelihood", **TIGHT)
    model.fit(field.reshape(-1, 1), spins.ravel(), positions=positions)
    found = model.transitions_[0, 0, 0]
    # Four standard errors of logistic regression, which takes pixels as independent.
    padded = np.pad(2 * spins - 1, 1)
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    F = np.stack([np.ones(size**2), field.ravel(), around.ravel()])
    p = 1 / (1 + np.exp(-(F[1] + truth * F[2])))
    errors = 4 * np.sqrt(np.diag(np.linalg.inv(F * (p * (1 - p)) @ F.T)))
    assert abs(found - truth) < errors[2]
    np.testing.assert_allclose(model.transitions_[:, :, 0], found * np.eye(2), atol=1e-12)
    np.testing.assert_allclose(model.coef_[1] - model.coef_[0], 1.0, atol=errors[1])


def test_neighbours_restore_images():
    """By every inference, on images that were not there in fit; given T is not learnt."""
    X, y, groups, positions = make_images(seed=0)
    X_new, y_new, groups_new, positions_new = make_images(seed=1)
    model = GridMRF(interaction="potts").fit(X, y, groups, positions)
    where = {"groups": groups_new, "positions": positions_new}
    alone = GridMRF().fit(X, y).score(X_new, y_new)
    assert alone < 0.85
    for inference in (
        "belief_propagation",
        "reweighted_trees",
        "mean_field",
        "gibbs",
        "cut",
        "icm",
    ):
        model.set_params(inference=inference)
        assert model.score(X_new, y_new, **where) > alone + 0.08, inference
    given = GridMRF(interaction=[[1.2, 0.0], [0.0, 1.2]]).fit(X, y, groups, positions)
    np.testing.assert_array_equal(given.transitions_[:, :, 0], 1.2 * np.eye(2))
    assert given.score(X_new, y_new, **where) > alone + 0.05
    number = GridMRF(interaction=1.2).fit(X, y, groups, positions)
    np.testing.assert_array_equal(number.coef_, given.coef_)


def test_contrast_lets_edges_be():
    """Where colours jump neighbours may differ; units and offsets of features do not matter."""
    X, y, groups, positions = make_images(3, 10, noise=0.4)
    setting = {"pairwise_features": "contrast", "interaction": "potts"}
    model = GridMRF(**setting).fit(X, y, groups, positions)
    assert model.transition_coef_[0, 0, 0, 0] > 0.5
    wide = GridMRF(**setting).fit(X * [1e3, 1e-3] + [0.0, 5.0], y, groups, positions)
    np.testing.assert_allclose(wide.transition_coef_, model.transition_coef_, atol=1e-3)
    where = {"groups": groups, "positions": positions}
    np.testing.assert_array_equal(
        wide.predict(X * [1e3, 1e-3] + [0.0, 5.0], **where), model.predict(X, **where)
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_sparse_pixels_are_dense_pixels(setting):
    X, y, groups, positions = make_images(3, 8)
    X = np.where(X > 0.5, X, 0.0)
    where = {"groups": groups, "positions": positions}
    setting = {"learning": "pseudo_likelihood", **setting, **TIGHT}
    dense = GridMRF(**setting).fit(X, y, **where)
    sparse = GridMRF(**setting).fit(scipy.sparse.csr_array(X), y, **where)
    expected = dense.predict_proba(X, **where)
    found = sparse.predict_proba(scipy.sparse.csr_array(X), **where)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_class_weights_and_labels_of_strings():
    X, y, groups, positions = make_images()
    names = np.array(["ground", "object"])[y]
    where = {"groups": groups, "positions": positions}
    setting = {"learning": "pseudo_likelihood"}
    plain = GridMRF(**setting).fit(X, names, **where)
    heavy = GridMRF(class_weight={"ground": 1.0, "object": 20.0}, **setting).fit(X, names, **where)
    with pytest.raises(ValueError, match="counts images as wholes"):
        GridMRF(class_weight="balanced").fit(X, names, **where)
    share = np.mean(plain.predict(X, **where) == "object")
    assert np.mean(heavy.predict(X, **where) == "object") > share + 0.02


def test_searches_route_images_and_positions():
    X, y, groups, positions = make_images(4, 8)
    with sklearn.config_context(enable_metadata_routing=True):
        model = GridMRF(interaction="potts")
        model.set_fit_request(groups=True, positions=True)
        model.set_score_request(groups=True, positions=True)
        search = GridSearchCV(model, {"C": [1e-6, 1.0]}, cv=GroupKFold(2))
        search.fit(X, y, groups=groups, positions=positions)
    assert search.best_params_ == {"C": 1.0}


# ---------------------------------------------------------------- errors


def test_what_cannot_be_done_is_said():
    X, y, groups, positions = make_images(2, 6)
    with pytest.raises(ValueError, match="Rows 0 and 36 of X are the same pixel"):
        GridMRF().fit(X, y, positions=positions)
    with pytest.raises(ValueError, match=r"positions has shape \(72,\)"):
        GridMRF().fit(X, y, groups, positions[:, 0])
    with pytest.raises(ValueError, match="positions has 71 entries"):
        GridMRF().fit(X, y, groups, positions[1:])
    with pytest.raises(ValueError, match="whole numbers"):
        GridMRF().fit(X, y, groups, positions + 0.5)
    with pytest.raises(ValueError, match="n_neighbours=5"):
        GridMRF(n_neighbours=5).fit(X, y)
    with pytest.raises(ValueError, match="interaction has shape"):
        GridMRF(interaction=[1.0, 2.0]).fit(X, y)
    with pytest.raises(ValueError, match='pairwise_features="features"'):
        GridMRF(interaction=1.0, pairwise_features="features").fit(X, y)
    three = make_model(3, inference="cut")
    pixels, places = make_pixels(3, 3)
    with pytest.raises(ValueError, match="for two labels, and there are 3"):
        three.predict(pixels, positions=places)
    repulsive = GridMRF(interaction=-1.0, inference="cut").fit(X, y, groups, positions)
    with pytest.raises(ValueError, match="prefer different labels"):
        repulsive.predict(X, groups=groups, positions=positions)
    wide, everywhere = make_pixels(20, 20)
    with pytest.raises(ValueError, match="pixels at a time"):
        three.set_params(inference="exact").predict(wide, positions=everywhere)
    with pytest.raises(ValueError, match="'inference' parameter of GridMRF must be"):
        three.set_params(inference="trees").predict(wide, positions=everywhere)


def test_messages_that_do_not_settle_are_reported():
    model = make_model(2, directed=False, seed=3, inference="belief_propagation")
    model.transitions_[:] = np.array([[-4.0, 4.0], [4.0, -4.0]])[:, :, None]
    model.coef_ *= 0.01
    model.intercept_ *= 0.0
    X, positions = make_pixels(7, 7)
    with pytest.warns(ConvergenceWarning, match="1 of 1 images did not settle"):
        model.predict(X, positions=positions)


@pytest.mark.skipif("SKLEBM_DATA" not in os.environ, reason="needs snakes.npz in SKLEBM_DATA")
def test_snakes_need_their_neighbours():
    """Labels along a snake: what is near a pixel does not tell how far from the head it is."""
    data = np.load(Path(os.environ["SKLEBM_DATA"]) / "snakes.npz")

    def read(part, n_images):
        X, y, groups, positions = [], [], [], []
        shapes = data[f"X_{part}_shapes"]
        images = np.split(data[f"X_{part}"], shapes.prod(axis=1).cumsum()[:-1])
        for number in range(n_images):
            height, width, _ = shapes[number]
            colours = images[number].reshape(height, width, 3) > 0
            kinds = np.pad(colours @ [1, 2, 4], 1)  # 0 outside
            window = np.lib.stride_tricks.sliding_window_view(kinds, (3, 3))
            X.append(np.eye(7)[window.reshape(-1, 9)].reshape(height * width, -1))
            groups.append(np.full(height * width, number))
            positions.append(np.argwhere(colours.any(axis=2) | True))
        n_pixels = sum(map(len, X))
        y = data[f"Y_{part}"][:n_pixels]
        return np.concatenate(X), y, np.concatenate(groups), np.concatenate(positions)

    X, y, groups, positions = read("train", 80)
    X_new, y_new, groups_new, positions_new = read("test", 40)
    setting = {"learning": "pseudo_likelihood", "tol": 1e-3}
    alone = GridMRF(**setting).fit(X, y).score(X_new, y_new)
    model = GridMRF(pairwise_features="features", directed=True, **setting)
    model.fit(X, y, groups, positions)
    found = model.score(X_new, y_new, groups=groups_new, positions=positions_new)
    assert found > alone + 0.05
