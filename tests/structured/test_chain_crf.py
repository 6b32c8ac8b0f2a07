"""ChainCRF: sums over labels against enumeration, gradients as counts, and special cases."""

import itertools
import warnings

import numpy as np
import pytest
import scipy.sparse
import sklearn
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from sklebm import ChainCRF, window_features
from sklebm.inference import linear_chain
from sklebm.inference.chain_learning import LOSSES, chain_problem, minimize_batch

N_LABELS, LENGTH = 4, 6
TIGHT = {"tol": 1e-13, "max_iter": 2000}


def make_chains(n_sequences=40, seed=0, noise=1.0):
    """Steps with labels that prefer to stay or to go on to the next, seen through noise."""
    rng = np.random.default_rng(seed)
    step = np.array([[0.8, 0.2, 0.0], [0.0, 0.7, 0.3], [0.4, 0.0, 0.6]])
    labels, groups = [], []
    for sequence in range(n_sequences):
        label = rng.integers(3)
        for _ in range(rng.integers(1, 15)):
            labels.append(label)
            groups.append(sequence)
            label = rng.choice(3, p=step[label])
    labels = np.array(labels)
    X = np.eye(3)[labels] @ rng.normal(size=(3, 4)) + noise * rng.normal(size=(len(labels), 4))
    return X, labels, np.array(groups)


def make_model(n_features=5, seed=0, **changes):
    """A model with given parameters and 4 labels."""
    rng = np.random.default_rng(seed)
    return ChainCRF.from_parameters(
        classes=np.arange(N_LABELS),
        coef=rng.normal(size=(N_LABELS, n_features)),
        intercept=rng.normal(size=N_LABELS),
        transitions=rng.normal(size=(N_LABELS, N_LABELS)),
        **{name: value for name, value in changes.items() if value is not None},
    )


def enumerate_paths(model, X):
    """All label sequences and minus their energies, by the equation."""
    paths = np.array(list(itertools.product(range(N_LABELS), repeat=len(X))))
    scores = X @ model.coef_.T + model.intercept_
    values = scores[np.arange(len(X)), paths].sum(axis=1)
    for before, after in itertools.pairwise(range(len(X))):
        values = values + model.transitions_[paths[:, before], paths[:, after]]
        if model.allowed_ is not None:
            possible = model.allowed_[paths[:, before], paths[:, after]]
            values = np.where(possible, values, -np.inf)
    return paths, values


FORBIDDEN = np.ones((N_LABELS, N_LABELS), bool)
FORBIDDEN[0, 1] = FORBIDDEN[2, 2] = FORBIDDEN[3, 0] = False


# ---------------------------------------------------------------- inference


@pytest.mark.parametrize("allowed", [None, FORBIDDEN])
@pytest.mark.parametrize("scale", [1.0, 300.0])  # sums of exp(300) overflow
def test_inference_is_enumeration(allowed, scale):
    model = make_model(allowed=allowed)
    model.coef_ *= scale
    X = np.random.default_rng(1).normal(size=(2 * LENGTH, 5))
    groups = np.repeat(["b", "a"], LENGTH)
    same = {"rtol": 1e-12, "atol": 1e-12 * scale}  # rounding of sums of scores of size ``scale``
    for name in "ab":
        rows = groups == name
        paths, values = enumerate_paths(model, X[rows])
        log_partition = logsumexp(values)
        np.testing.assert_allclose(
            model.score_samples(X, groups)[rows].sum(), log_partition, **same
        )
        posterior = np.exp(values - log_partition)
        marginals = [
            [posterior[paths[:, t] == label].sum() for label in range(N_LABELS)]
            for t in range(LENGTH)
        ]
        np.testing.assert_allclose(model.predict_proba(X, groups)[rows], marginals, **same)
        best = model.set_params(decoding="viterbi").predict(X, groups)[rows]
        np.testing.assert_array_equal(best, paths[values.argmax()])
        likely = model.set_params(decoding="marginal").predict(X, groups)[rows]
        np.testing.assert_array_equal(likely, np.argmax(marginals, axis=1))
        for path, value in zip(paths[::97], values[::97], strict=True):
            y = np.zeros(len(X), int)
            y[rows] = path
            energy = model.energy(X, y, groups)[rows].sum()
            np.testing.assert_allclose(energy, -value, **same)
            log_density = model.conditional_log_density(X, y, groups)[rows].sum()
            np.testing.assert_allclose(log_density, value - log_partition, **same)


def test_the_decoding_of_constrained_chains_respects_the_constraints():
    allowed = np.ones((N_LABELS, N_LABELS), bool)
    allowed[0, 1] = allowed[1, 2] = allowed[2, 3] = allowed[3, 0] = False
    model = make_model(allowed=allowed)
    model.coef_ *= 0.5
    X = np.random.default_rng(1).normal(size=(1000, 5))
    found = model.predict(X)
    assert allowed[found[:-1], found[1:]].all()
    likely = model.set_params(decoding="marginal").predict(X)
    assert not allowed[likely[:-1], likely[1:]].all()
    free = make_model()
    np.testing.assert_array_equal(free.predict(X), free.predict_proba(X).argmax(axis=1))


def test_conditionals_are_probabilities_of_the_next_label():
    model = make_model(allowed=FORBIDDEN)
    X = np.random.default_rng(1).normal(size=(LENGTH, 5))
    paths, values = enumerate_paths(model, X)
    y = paths[values.argmax()]
    steps = model.conditional_log_density(X, y)
    for t in range(LENGTH):
        same_before = (paths[:, :t] == y[:t]).all(axis=1)
        same = same_before & (paths[:, t] == y[t])
        truth = logsumexp(values[same]) - logsumexp(values[same_before])
        np.testing.assert_allclose(steps[t], truth, rtol=1e-12, atol=1e-12)


def test_log_probabilities_of_forbidden_labels_are_minus_infinity():
    allowed = np.eye(N_LABELS, dtype=bool)
    model = make_model(allowed=allowed)
    X = np.random.default_rng(1).normal(size=(4, 5))
    assert len(set(model.predict(X))) == 1
    y = np.array([0, 1, 1, 1])
    assert model.conditional_log_density(X, y)[1] == -np.inf
    assert model.energy(X, y)[1] == np.inf
    np.testing.assert_array_equal(np.exp(model.predict_log_proba(X)), model.predict_proba(X))


def test_groups_need_not_be_contiguous():
    model = make_model()
    X = np.random.default_rng(1).normal(size=(20, 5))
    groups = np.random.default_rng(2).integers(3, size=20)
    for method in ("predict", "predict_proba", "score_samples"):
        answers = getattr(model, method)(X, groups)
        for group in range(3):
            alone = getattr(model, method)(X[groups == group])
            np.testing.assert_allclose(answers[groups == group], alone, rtol=1e-14)


# ---------------------------------------------------------------- learning


def problem_of(X, y, groups, **changes):
    order, starts = linear_chain.sequence_order(groups, len(X))
    settings = {"loss": "nll", "strength": 0.3, "l1_ratio": 0.0, "observed": False}
    settings |= {"weights": np.ones(len(y)), **changes}
    allowed = np.ones((3, 3), bool)
    return chain_problem(X[order], y[order], starts, allowed, **settings)


def scores_of(problem, theta):
    n_pairs, n_labels = len(problem.pair_labels), len(problem.allowed)
    coef = theta[:n_pairs].reshape(-1, n_labels)
    scores = problem.features @ coef + theta[n_pairs : n_pairs + n_labels]
    return scores, theta[n_pairs + n_labels :].reshape(n_labels, n_labels)


def test_gradient_is_expected_minus_empirical_counts():
    """Of pairs of labels too, which the forward and the backward recursion give another way."""
    X, y, groups = make_chains()
    problem = problem_of(X, y, groups, strength=0.0)
    theta = np.random.default_rng(0).normal(size=problem.n_parameters)
    scores, T = scores_of(problem, theta)
    starts = problem.starts
    alpha = linear_chain.log_forward(scores, T, starts)
    beta = linear_chain.log_backward(scores, T, starts)
    expected, seen = np.zeros((3, 3)), np.zeros((3, 3))
    for start, stop in itertools.pairwise(starts):
        log_partition = logsumexp(alpha[stop - 1])
        for t in range(start + 1, stop):
            joint = alpha[t - 1][:, None] + T + scores[t] + beta[t]
            expected += np.exp(joint - log_partition)
            seen[problem.labels[t - 1], problem.labels[t]] += 1
    residual = np.exp(linear_chain.log_marginals(scores, T, starts)) - np.eye(3)[problem.labels]
    truth = np.concatenate(
        [(problem.features.T @ residual).ravel(), residual.sum(axis=0), (expected - seen).ravel()]
    )
    value, gradient = problem.objective(theta)
    np.testing.assert_allclose(gradient, truth, rtol=0, atol=1e-10)  # sums of some hundred terms
    log_density = linear_chain.log_conditionals(scores, T, starts, problem.labels).sum()
    np.testing.assert_allclose(value, -log_density, rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1.0, 400.0])  # scaled messages of large scores underflow
def test_gradients_by_finite_differences_with_weights(loss, size):
    X, y, groups = make_chains(15)
    weights = np.random.default_rng(1).uniform(0.1, 3.0, size=len(y))
    problem = problem_of(X, y, groups, weights=weights, loss=loss)
    theta = size * np.random.default_rng(0).normal(size=problem.n_parameters)
    value, gradient = problem.objective(theta)
    step = 1e-5 * np.sqrt(size)
    for j in range(len(theta)):
        shift = np.zeros(len(theta))
        shift[j] = step
        slope = problem.objective(theta + shift)[0] - problem.objective(theta - shift)[0]
        # Rounding of the values divided by the step, and the third derivative (0 or below 1e3).
        np.testing.assert_allclose(
            gradient[j], slope / (2 * step), rtol=0, atol=1e-14 * abs(value) / step + 1e3 * step**2
        )
    if loss == "nll":
        scores, T = scores_of(problem, theta)
        terms = linear_chain.log_conditionals(scores, T, problem.starts, problem.labels)
        penalty = 0.15 * problem.penalised @ theta**2
        np.testing.assert_allclose(value, penalty - problem.weights @ terms, rtol=1e-12)


def test_messages_that_underflow_are_summed_by_logarithms():
    """Labels that only improbable neighbours allow: products of probabilities are all zero."""
    y = np.array([0, 1, 2])
    X = np.zeros((3, 4))
    problem = problem_of(X, y, np.zeros(3, int))
    theta = np.zeros(problem.n_parameters)
    transitions = np.full((3, 3), -2000.0)
    transitions[0, 0] = 0.0
    theta[-9:] = transitions.ravel()
    theta[-12:-9] = [-1500.0, 0.0, 700.0]
    scores, T = scores_of(problem, theta)
    terms = linear_chain.log_conditionals(scores, T, problem.starts, y)
    value, gradient = problem.objective(theta)
    penalty = 0.15 * problem.penalised @ theta**2
    np.testing.assert_allclose(value, penalty - terms.sum(), rtol=1e-12)
    assert np.isfinite(gradient).all()


def test_one_step_is_logistic_regression():
    X, y, _ = make_chains()
    model = ChainCRF(C=0.7, **TIGHT).fit(X, y, groups=np.arange(len(y)))
    scaler = MinMaxScaler().fit(X)
    peer = LogisticRegression(C=0.7, tol=1e-10, max_iter=5000).fit(scaler.transform(X), y)
    # Both stop where gradients are about 1e-7; the penalty makes the curvature at least 1.
    np.testing.assert_allclose(model.coef_ / scaler.scale_, peer.coef_, atol=1e-5)
    np.testing.assert_array_equal(model.transitions_, 0.0)
    np.testing.assert_allclose(
        model.predict_proba(X, np.arange(len(y))),
        peer.predict_proba(scaler.transform(X)),
        atol=1e-5,
    )


def test_one_step_with_l1_is_sparse_logistic_regression():
    X, y, _ = make_chains()
    model = ChainCRF(C=0.3, l1_ratio=1.0, **TIGHT).fit(X, y, groups=np.arange(len(y)))
    scaler = MinMaxScaler().fit(X)
    peer = LogisticRegression(C=0.3, l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=20000)
    peer.fit(scaler.transform(X), y)
    np.testing.assert_allclose(model.coef_ / scaler.scale_, peer.coef_, atol=1e-4)
    np.testing.assert_array_equal(model.coef_ == 0, np.abs(peer.coef_) < 1e-7)


def test_class_weights_of_one_step_are_those_of_logistic_regression():
    X, y, _ = make_chains()
    weights = {0: 3.0, 1: 0.5, 2: 1.0}
    model = ChainCRF(class_weight=weights, **TIGHT).fit(X, y, groups=np.arange(len(y)))
    scaler = MinMaxScaler().fit(X)
    peer = LogisticRegression(class_weight=weights, tol=1e-10, max_iter=5000)
    peer.fit(scaler.transform(X), y)
    np.testing.assert_allclose(model.coef_ / scaler.scale_, peer.coef_, atol=1e-5)


def test_one_label_is_certain():
    X = np.random.default_rng(0).normal(size=(10, 3))
    model = ChainCRF().fit(X, np.zeros(10))
    np.testing.assert_array_equal(model.predict_proba(X), 1.0)
    np.testing.assert_allclose(model.conditional_log_density(X, np.zeros(10)), 0.0, atol=1e-12)


def test_elastic_net_satisfies_its_optimality_conditions():
    X, y, groups = make_chains()
    problem = problem_of(X, y, groups, strength=1.0, l1_ratio=0.5)
    nothing = {"begin": lambda: None, "report": lambda *_: False}
    theta, objective, *_ = minimize_batch(problem, max_iter=2000, tol=1e-14, **nothing)
    value, gradient = problem.objective(theta)
    assert objective == pytest.approx(value + problem.lasso(theta), rel=1e-12)
    price = 0.5 * problem.penalised
    at_zero = theta == 0
    assert 0 < at_zero.sum() < len(theta)
    # Steps of L-BFGS end when the objective, of about 1e2, changes by less than its rounding.
    assert (np.abs(gradient[at_zero]) <= price[at_zero] + 1e-4).all()
    slope = gradient + price * np.sign(theta)
    np.testing.assert_allclose(slope[~at_zero], 0.0, atol=1e-4)


def test_stochastic_steps_reach_the_same_objective():
    X, y, groups = make_chains()
    exact = ChainCRF(**TIGHT).fit(X, y, groups)
    steps = ChainCRF(solver="sgd", max_iter=300, tol=0.0, learning_rate=0.3, random_state=0)
    steps.fit(X, y, groups)
    start = len(y) * np.log(3)  # all weights zero
    gained = (start - steps.objective_) / (start - exact.objective_)
    assert 0.98 < gained <= 1.0


def test_hinge_of_one_step_is_a_multiclass_support_vector_machine():
    """max_k (1 [k != y] + s_k) - s_y, the loss of Crammer and Singer, as a quadratic programme."""
    X, y, _ = make_chains(8)
    n, d = X.shape
    scaled, wrong = MinMaxScaler().fit_transform(X), np.eye(3)[y] == 0

    def margins(point):  # each slack minus the offence of each wrong label, and the slacks
        scores = scaled @ point[: 3 * d].reshape(3, d).T + point[3 * d : 3 * d + 3]
        offence = 1.0 + scores - scores[np.arange(n), y][:, None]
        slack = point[3 * d + 3 :]
        return np.concatenate([(slack[:, None] - offence)[wrong], slack])

    best = minimize(
        lambda point: 0.5 * point[: 3 * d] @ point[: 3 * d] + point[3 * d + 3 :].sum(),
        np.concatenate([np.zeros(3 * d + 3), np.ones(n)]),
        constraints={"type": "ineq", "fun": margins},
        method="SLSQP",
        options={"maxiter": 500},
    )
    assert best.success
    model = ChainCRF(loss="hinge", max_iter=2000, tol=0.0, batch_size=n, random_state=0)
    model.set_params(learning_rate=0.3).fit(X, y, groups=np.arange(n))
    assert best.fun * (1 - 1e-6) <= model.objective_ <= best.fun + 0.02 * (n - best.fun)


def test_perceptron_learns_what_can_be_separated_and_then_stops():
    X, y, groups = make_chains(noise=0.01)
    model = ChainCRF(loss="perceptron", batch_size=1, max_iter=500, random_state=0)
    model.fit(X, y, groups)
    assert model.n_iter_ < 500
    assert model.score(X, y, groups=groups) > 0.99


@pytest.mark.parametrize("loss", LOSSES)
def test_neighbours_help_on_held_out_sequences(loss):
    X, y, groups = make_chains(150)
    half = groups < 75
    model = ChainCRF(loss=loss, random_state=0, tol=1e-4)
    chain = clone(model).fit(X[half], y[half], groups[half])
    alone = clone(model).fit(X[half], y[half], np.arange(half.sum()))
    rest = ~half
    with_order = chain.score(X[rest], y[rest], groups=groups[rest])
    without = alone.score(X[rest], y[rest], groups=np.arange(rest.sum()))
    assert with_order > without + 0.05


def test_forbidden_transitions_are_never_predicted_and_never_learnt():
    X, y, groups = make_chains(noise=3.0)
    allowed = np.array([[True, True, False], [False, True, True], [True, False, True]])
    model = ChainCRF(allowed=allowed).fit(X, y, groups)
    found = model.predict(X, groups)
    inside = groups[1:] == groups[:-1]
    assert allowed[found[:-1][inside], found[1:][inside]].all()
    assert not model.transitions_[~allowed].any()
    free = ChainCRF().fit(X, y, groups)
    density = model.conditional_log_density(X, y, groups).sum()
    assert density > free.conditional_log_density(X, y, groups).sum()
    with pytest.raises(ValueError, match=r"after ., which allowed rules out"):
        ChainCRF(allowed=np.eye(3, dtype=bool)).fit(X, y, groups)
    with pytest.raises(ValueError, match="for each pair of the 3 labels"):
        ChainCRF(allowed=np.ones((2, 2), bool)).fit(X, y, groups)
    with pytest.raises(ValueError, match="for each pair of the 3 labels"):
        ChainCRF(allowed=np.ones((3, 3))).fit(X, y, groups)


# ---------------------------------------------------------------- data


@pytest.mark.parametrize("loss", LOSSES)
def test_csr_and_dense_rows_learn_the_same(loss):
    X, y, groups = make_chains()
    X = np.where(np.abs(X) > 0.7, X, 0.0)
    settings = {"loss": loss, "random_state": 0, "max_iter": 20}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        dense = ChainCRF(**settings).fit(X, y, groups)
        sparse = ChainCRF(**settings).fit(scipy.sparse.csr_matrix(X), y, groups)
    np.testing.assert_allclose(sparse.coef_, dense.coef_, rtol=1e-9)
    rows = scipy.sparse.csr_array(X)
    np.testing.assert_allclose(
        dense.predict_proba(rows, groups), dense.predict_proba(X, groups), rtol=1e-10
    )


def test_units_and_offsets_of_features_change_nothing():
    X, y, groups = make_chains()
    model = ChainCRF(**TIGHT).fit(X, y, groups)
    scale, shift = np.array([1e6, 1e-6, 1.0, 1e3]), np.array([0.0, 5.0, 1e4, -1e5])
    other = ChainCRF(**TIGHT).fit(X * scale + shift, y, groups)
    assert other.objective_ == pytest.approx(model.objective_, rel=1e-6)
    np.testing.assert_allclose(
        other.predict_proba(X * scale + shift, groups), model.predict_proba(X, groups), atol=1e-4
    )


def test_constant_features_are_ignored():
    X, y, groups = make_chains()
    wide = np.column_stack([X, np.full(len(X), 7.0)])
    model, other = ChainCRF(**TIGHT).fit(X, y, groups), ChainCRF(**TIGHT).fit(wide, y, groups)
    for rows in (wide, scipy.sparse.csr_matrix(wide)):
        np.testing.assert_array_equal(ChainCRF(**TIGHT).fit(rows, y, groups).coef_[:, -1], 0.0)
    np.testing.assert_allclose(
        model.predict_proba(X, groups), other.predict_proba(wide, groups), atol=1e-8
    )


def test_observed_pairs_only():
    words = np.array(["a", "b", "c", "a", "b", "d"])
    y = np.array([0, 1, 2, 0, 2, 2])
    X = DictVectorizer().fit_transform([{"word": word} for word in words])
    model = ChainCRF(feature_weights="observed").fit(X, y)
    seen = np.zeros((3, 4), bool)
    seen[y, np.searchsorted(["a", "b", "c", "d"], words)] = True
    np.testing.assert_array_equal(model.coef_ != 0, seen)
    every = np.random.default_rng(0).normal(size=(60, 4))
    labels = np.arange(60) % 3
    np.testing.assert_allclose(
        ChainCRF(feature_weights="observed").fit(every, labels).coef_,
        ChainCRF().fit(every, labels).coef_,
    )


def test_number_of_threads_changes_nothing():
    import torch

    X, y, groups = make_chains(100)
    before = torch.get_num_threads()
    try:
        models = []
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            models.append(ChainCRF().fit(X, y, groups))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(models[0].coef_, models[1].coef_)


def test_string_labels_and_tensors():
    import torch

    X, y, groups = make_chains()
    names = np.array(["low", "middle", "top"])
    model = ChainCRF().fit(X, names[y], groups)
    number = ChainCRF().fit(torch.from_numpy(X), torch.from_numpy(y), torch.from_numpy(groups))
    assert model.classes_.tolist() == names.tolist()
    np.testing.assert_array_equal(model.predict(X, groups), names[number.predict(X, groups)])
    found = number.predict(torch.from_numpy(X).float(), groups)
    assert isinstance(found, torch.Tensor)
    assert number.predict_proba(torch.from_numpy(X).float(), groups).dtype == torch.float32
    assert number.score(torch.from_numpy(X), torch.from_numpy(y), groups=groups) == pytest.approx(
        accuracy_score(names[y], model.predict(X, groups))
    )
    with pytest.raises(ValueError, match="y holds 'high', but ChainCRF was fitted with"):
        model.energy(X[:1], ["high"])


def test_groups_reach_searches_and_splits():
    X, y, groups = make_chains()
    with sklearn.config_context(enable_metadata_routing=True):
        model = ChainCRF().set_fit_request(groups=True).set_score_request(groups=True)
        search = GridSearchCV(model, {"C": [1e-6, 1.0]}, cv=GroupKFold(3))
        search.fit(X, y, groups=groups)
        assert search.best_params_ == {"C": 1.0}
        found = cross_val_score(model, X, y, cv=GroupKFold(3), params={"groups": groups})
    for (train, test), score in zip(GroupKFold(3).split(X, y, groups), found, strict=True):
        alone = ChainCRF().fit(X[train], y[train], groups[train])
        assert alone.score(X[test], y[test], groups=groups[test]) == score


def test_combinations_that_make_no_sense_are_refused():
    X, y, groups = make_chains()
    with pytest.raises(ValueError, match=r"lbfgs.*needs a smooth loss"):
        ChainCRF(loss="hinge", solver="lbfgs").fit(X, y, groups)
    with pytest.raises(ValueError, match=r"perceptron.*has no penalty"):
        ChainCRF(loss="perceptron", l1_ratio=0.5).fit(X, y, groups)
    with pytest.raises(ValueError, match="groups has 3 entries"):
        ChainCRF().fit(X, y, groups[:3])
    with pytest.raises(ValueError, match="y has 3 entries"):
        ChainCRF().fit(X, y, groups).energy(X, y[:3], groups)
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        ChainCRF(max_iter=1).fit(X, y, groups)


# ---------------------------------------------------------------- features of neighbours


def test_windows_stop_at_the_ends_of_sequences():
    steps = [{"word": word, "size": float(i)} for i, word in enumerate("abcde")]
    found = window_features(steps, [0, 1, 0, 1, 0], window=1)
    assert found[2] == {
        "word": "c", "size": 2.0, "-1:word": "a", "-1:size": 0.0, "+1:word": "e", "+1:size": 4.0,
    }  # fmt: skip
    assert found[1] == {
        "word": "b", "size": 1.0, "-1:outside": True, "+1:word": "d", "+1:size": 3.0,
    }  # fmt: skip
    assert window_features(steps, window=0) == steps
    pairs = window_features(steps, window=2, bigrams=True)[2]
    assert [pairs[f"{place}:word"] for place in ("-2|-1", "-1|0", "0|+1", "+1|+2")] == [
        "a|b", "b|c", "c|d", "d|e",
    ]  # fmt: skip
    assert "-1|0:size" not in pairs
    with pytest.raises(ValueError, match="window=-1"):
        window_features(steps, window=-1)
    with pytest.raises(ValueError, match="there are 5 steps"):
        window_features(steps, [0, 1])
    column = [[0], [1], [0], [1], [0]]
    assert window_features(steps, column) == window_features(steps, [0, 1, 0, 1, 0])


@pytest.mark.parametrize("table", [DictVectorizer(), FeatureHasher(2**10)])
def test_dictionaries_in_a_pipeline(table):
    rng = np.random.default_rng(0)
    y = np.tile([0, 1, 2, 1], 50)
    groups = np.repeat(np.arange(50), 4)
    steps = [{"word": "abc"[label] if rng.random() < 0.7 else "?"} for label in y]
    features = window_features(steps, groups, window=1)
    model = make_pipeline(table, ChainCRF(feature_weights="observed"))
    model.fit(features, y, chaincrf__groups=groups)
    assert (model.predict(features, groups=groups) == y).mean() > 0.95


def test_sequences_that_allowed_leaves_no_labels_are_refused():
    """Nothing may follow the second label: two steps are the most."""
    X, y = np.random.default_rng(0).normal(size=(20, 2)), np.tile([0, 1], 10)
    pairs = np.repeat(np.arange(10), 2)
    model = ChainCRF(allowed=[[False, True], [False, False]]).fit(X, y, pairs)
    np.testing.assert_array_equal(model.predict(X, pairs), y)
    for method in ("predict", "predict_proba", "score_samples", "transform"):
        with pytest.raises(ValueError, match=r"3 steps, but allowed .* 2 at most"):
            getattr(model, method)(X[:3])
