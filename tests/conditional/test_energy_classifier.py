"""EnergyClassifier: logistic regression as a special case, losses by hand, densities of rows."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, spearmanr
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, make_moons
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn

import sklebm
from sklebm import EnergyClassifier
from sklebm.objectives import (
    Batch,
    ConditionalLikelihood,
    DenoisingScoreMatching,
    HingeLoss,
    LabelNoiseContrastive,
    PerceptronLoss,
    SquareExponentialLoss,
)
from sklebm.objectives.label_losses import PenalizedLoss

LOSSES = {
    "nll": ConditionalLikelihood(),
    "perceptron": PerceptronLoss(),
    "hinge": HingeLoss(margin=0.7),
    "square_exponential": SquareExponentialLoss(gamma=0.4),
    "nce": LabelNoiseContrastive(n_noise=3),
}
#: All rows at once and a line search: the minimum, to the precision of single precision.
EXACT = {
    "hidden_sizes": (),
    "standardize": False,
    "optimizer": "lbfgs",
    "learning_rate": 1.0,
    "learning_rate_schedule": "constant",
    "max_epochs": 15,
    "random_state": 0,
}


def make_classes(n_classes, n_rows=200, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 4)) * [1.0, 2.0, 0.5, 1.0] + [0.0, 1.0, 0.0, -0.5]
    fields = X @ rng.normal(size=(4, n_classes)) + rng.gumbel(size=(n_rows, n_classes))
    return X, fields.argmax(axis=1)


# ---------------------------------------------------------------- logistic regression


def test_linear_energies_are_logistic_regression():
    """Three classes: the same objective, so the same minimum, up to single precision."""
    X, y = make_classes(3)
    model = EnergyClassifier(alpha=1.0 / len(X), **EXACT).fit(X, y)
    peer = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(X, y)
    np.testing.assert_allclose(model.weights_["network.0.weight"], peer.coef_, atol=1e-4)
    bias = model.weights_["network.0.bias"]  # its level is open: it has no penalty
    np.testing.assert_allclose(bias - bias.mean(), peer.intercept_, atol=1e-4)
    np.testing.assert_allclose(model.predict_proba(X), peer.predict_proba(X), atol=1e-4)


def test_two_classes_share_the_penalty():
    """w_1 - w_0 = w costs |w|^2 / 2 where both go half the way: half the penalty of one vector."""
    X, y = make_classes(2)
    weight = np.random.default_rng(1).integers(1, 4, size=len(X))
    model = EnergyClassifier(alpha=2.0 / weight.sum(), **EXACT).fit(X, y, sample_weight=weight)
    peer = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(X, y, sample_weight=weight)
    w = model.weights_["network.0.weight"]
    np.testing.assert_allclose(w[1] - w[0], peer.coef_[0], atol=1e-4)
    np.testing.assert_allclose(model.decision_function(X), peer.decision_function(X), atol=5e-4)


def test_class_weights_are_weights_of_rows():
    X, y = make_classes(3)
    by_label = {0: 1.0, 1: 4.0, 2: 0.5}
    weighted = EnergyClassifier(class_weight=by_label, **EXACT).fit(X, y)
    rows = EnergyClassifier(**EXACT).fit(X, y, sample_weight=np.array([1.0, 4.0, 0.5])[y])
    np.testing.assert_array_equal(weighted.predict_proba(X), rows.predict_proba(X))
    balanced = EnergyClassifier(class_weight="balanced", **EXACT).fit(X, y)
    peer = len(y) / (3 * np.bincount(y))
    rows = EnergyClassifier(**EXACT).fit(X, y, sample_weight=peer[y])
    # The weights differ by the rounding of their mean.
    np.testing.assert_allclose(balanced.predict_proba(X), rows.predict_proba(X), atol=1e-4)
    doubled = EnergyClassifier(class_weight=by_label, **EXACT).fit(X, y, sample_weight=1.0)
    np.testing.assert_array_equal(doubled.predict_proba(X), weighted.predict_proba(X))
    with pytest.raises(ValueError, match=r"class_weight=.*names 7"):
        EnergyClassifier(class_weight={7: 1.0}).fit(X, y)


# ---------------------------------------------------------------- losses


def naive_loss(name, F, y, beta):
    """One row after the other, as the formulas have it."""
    found = []
    for energies, label in zip(F, y, strict=True):
        others = np.delete(energies, label)
        if name == "nll":
            value = energies[label] + logsumexp(-beta * energies) / beta
        elif name == "perceptron":
            value = energies[label] - energies.min()
        elif name == "hinge":
            value = max(0.0, 0.7 + energies[label] - others.min())
        elif name == "square_exponential":
            value = energies[label] ** 2 + 0.4 * np.exp(-others.min())
        else:  # the chance of each label to be data, with 3 draws from 1 / K beside it
            data = np.exp(-beta * energies)
            chance = data / (data + 3.0 / len(energies))
            value = -np.log(chance[label]) - 3.0 * np.mean(np.log(1.0 - chance))
        found.append(value)
    return np.array(found)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_their_formulas(name):
    rng = np.random.default_rng(0)
    F, y = rng.normal(size=(30, 4)), rng.integers(4, size=30)
    values = LOSSES[name].values(torch.from_numpy(F), torch.from_numpy(y), 1.7)
    np.testing.assert_allclose(values, naive_loss(name, F, y, 1.7), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_differences(name):
    """Of the penalised loss with weights, in every parameter of a network, in double precision."""
    X, y = make_classes(3, n_rows=12)
    model = EnergyClassifier((5,), beta=1.3, max_epochs=1, random_state=0).fit(X, y)
    energy = model._energy(torch.device("cpu")).double()
    weight = torch.linspace(0.5, 1.5, 12, dtype=torch.float64)
    batch = Batch(torch.from_numpy(X), torch.from_numpy(y), weight)
    objective = PenalizedLoss(LOSSES[name], 0.3)

    def loss():
        return objective.loss(energy, batch, {}, torch.Generator())[0]

    loss().backward()
    for parameter in energy.parameters():
        flat, step = parameter.data.view(-1), 1e-5
        for place in range(0, len(flat), 3):
            start = flat[place].item()
            ends = []
            for sign in (1, -1):
                flat[place] = start + sign * step
                ends.append(loss().item())
            flat[place] = start
            found = parameter.grad.view(-1)[place].item()
            # Truncation is of order step^2, rounding of order 1e-16 / step.
            assert found == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8, rel=1e-6)


def test_noise_contrastive_energies_are_normalised_where_the_loss_is_least():
    """One row, labels with probabilities p: the gradient vanishes at exp(-beta F) = p."""
    p = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    F = (-p.log() / 1.7).clone().requires_grad_()
    values = LOSSES["nce"].values(F.expand(3, 3), torch.arange(3), 1.7)
    (p @ values).backward()
    np.testing.assert_allclose(F.grad, 0.0, atol=1e-12)
    X, y = make_classes(3, 2000)
    model = EnergyClassifier(objective="nce", **{**EXACT, "max_epochs": 10}).fit(X, y)
    # A linear model is normalised on average only, with a standard error of .56 / sqrt(2000).
    assert abs(model.free_energy(X).mean()) < 0.03


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_learns(name):
    X, y = make_classes(4, 1400)
    X, X_test, y, y_test = X[:400], X[400:], y[:400], y[400:]
    settings = {"max_epochs": 20, "random_state": 0}
    chance = EnergyClassifier(max_epochs=1, learning_rate=1e-12, random_state=0).fit(X, y)
    for objective in (name, LOSSES[name]):
        model = EnergyClassifier(objective=objective, **settings).fit(X, y)
        assert model.score(X_test, y_test) > chance.score(X_test, y_test) + 0.1


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda: HingeLoss(margin=0.0), "margin=0.0 must be a positive number"),
        (lambda: SquareExponentialLoss(gamma=-1.0), "gamma=-1.0"),
        (lambda: LabelNoiseContrastive(n_noise=0), "n_noise=0"),
    ],
)
def test_settings_of_losses_are_checked(part, message):
    with pytest.raises(ValueError, match=message):
        part()


# ---------------------------------------------------------------- what the methods say


def test_probabilities_are_those_of_gibbs():
    X, y = make_classes(3)
    labels = np.array(["low", "mid", "top"])[y]
    model = EnergyClassifier((8,), beta=0.6, max_epochs=5, random_state=0).fit(X, labels)
    F = np.stack([model.energy(X, np.full(len(X), c)) for c in model.classes_], axis=1)
    log_p = -0.6 * F - logsumexp(-0.6 * F, axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_log_proba(X), log_p, atol=1e-12)
    np.testing.assert_allclose(model.predict_proba(X), np.exp(log_p), atol=1e-12)
    np.testing.assert_allclose(model.transform(X), np.exp(log_p), atol=1e-12)
    np.testing.assert_allclose(model.decision_function(X), -F, atol=1e-12)
    np.testing.assert_allclose(model.free_energy(X), -logsumexp(-0.6 * F, axis=1) / 0.6)
    np.testing.assert_array_equal(model.predict(X), model.classes_[F.argmin(axis=1)])
    density = model.conditional_log_density(X, labels)
    np.testing.assert_allclose(density, log_p[np.arange(len(X)), y], atol=1e-12)
    with pytest.raises(ValueError, match=r"y holds 'high'.*\['low', 'mid', 'top'\]"):
        model.energy(X[:1], ["high"])
    with pytest.raises(ValueError, match="y has 3 entries, but X has 200 rows"):
        model.conditional_log_density(X, labels[:3])


def test_two_classes_have_one_decision():
    X, y = make_classes(2)
    model = EnergyClassifier((8,), max_epochs=3, random_state=0).fit(X, y == 1)
    decision = model.decision_function(X)
    energies = [model.energy(X, np.full(len(X), c)) for c in (False, True)]
    np.testing.assert_allclose(decision, energies[0] - energies[1], atol=1e-12)
    np.testing.assert_array_equal(model.predict(X), decision > 0)
    assert model.predict(X).dtype == bool
    assert (
        EnergyClassifier().fit(X, np.full(len(X), "only")).predict(X[:2]).tolist() == ["only"] * 2
    )


def test_labels_of_tensors():
    X, y = make_classes(3)
    model = EnergyClassifier((4,), max_epochs=2, random_state=0)
    numbers = model.fit(torch.from_numpy(X), torch.from_numpy(y) + 5).predict(torch.from_numpy(X))
    assert isinstance(numbers, torch.Tensor)
    assert set(numbers.tolist()) <= {5, 6, 7}
    words = model.fit(torch.from_numpy(X), np.array(["a", "b", "c"])[y])
    assert isinstance(words.predict(torch.from_numpy(X)), np.ndarray)


def test_networks_of_the_user_and_of_images():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300]

    class Network(nn.Sequential):
        def __init__(self, n_inputs, n_outputs):
            super().__init__(nn.Linear(n_inputs, 16), nn.GELU(), nn.Linear(16, n_outputs))

    for network in ({"network": Network}, {"hidden_sizes": (8,), "image_shape": (8, 8)}):
        model = EnergyClassifier(max_epochs=15, random_state=0, **network).fit(X, y)
        assert model.score(X, y) > 0.8
    with pytest.raises(ValueError, match="network maps 2 rows"):
        EnergyClassifier(network=lambda n, k: nn.Linear(n, k + 1)).fit(X, y)


def test_curved_borders_of_few_features_are_learnt():
    """Units whose bends all lie at the origin would leave two moons to a straight line: 0.88."""
    X, y = make_moons(400, noise=0.1, random_state=0)
    X_test, y_test = make_moons(400, noise=0.1, random_state=1)
    model = EnergyClassifier(max_epochs=60, random_state=0).fit(X, y)
    assert model.score(X_test, y_test) > 0.98


def test_early_stopping_keeps_the_best_parameters():
    X, y = make_classes(3, 80)
    settings = {"validation_fraction": 0.3, "learning_rate": 0.1, "random_state": 0}
    model = EnergyClassifier((64,), n_iter_no_change=3, max_epochs=100, **settings).fit(X, y)
    assert model.n_iter_ < 100
    assert len(model.validation_scores_) == model.n_iter_
    assert model.validation_scores_[-1] < model.validation_scores_.max()


# ---------------------------------------------------------------- labels


def test_labels_that_do_not_fit_are_refused():
    X, y = make_classes(3)
    with pytest.raises(ValueError, match="continuous"):
        EnergyClassifier().fit(X, y + 0.5)
    model = EnergyClassifier((4,), max_epochs=1, warm_start=True, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"warm_start continues from has \[0, 1, 2\]"):
        model.fit(X, y + 1)
    with pytest.raises(ValueError, match=r"classes=.* are not those of earlier calls"):
        model.partial_fit(X, y, classes=[0, 1])
    balanced = EnergyClassifier(class_weight="balanced")
    with pytest.raises(ValueError, match='class_weight="balanced" needs the labels of all rows'):
        balanced.partial_fit(X, y, classes=[0, 1, 2])
    streamed = EnergyClassifier((4,), random_state=0)
    streamed.partial_fit(X[:50], np.zeros(50, int), classes=[0, 1, 2])
    assert streamed.predict_proba(X).shape == (200, 3)


@pytest.mark.parametrize(
    "classes", [np.array([1, 1]), np.array([2, 1]), np.array([1.0, np.nan]), [0, 1], np.array([])]
)
def test_classes_in_a_file_are_sorted_labels(classes, tmp_path):
    X, y = make_classes(2)
    model = EnergyClassifier((4,), max_epochs=1).fit(X, y)
    model.classes_ = classes
    with pytest.raises((ValueError, TypeError), match=r"classes_|architecture_"):
        sklebm.save(model, tmp_path / "model.safetensors")


# ---------------------------------------------------------------- joint


def make_clusters(n_rows, seed=0):
    """Two correlated Gaussians, and their joint log density."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n_rows)
    means, covariance = np.array([[-2.0, 0.0], [2.0, 1.0]]), [[1.0, 0.6], [0.6, 1.0]]
    X = means[y] + rng.multivariate_normal([0.0, 0.0], covariance, size=n_rows)
    parts = [multivariate_normal(m, covariance).logpdf(X) - np.log(2) for m in means]
    return X, y, logsumexp(parts, axis=0)


def test_joint_energies_add_a_square_that_no_label_sees():
    X, y, _ = make_clusters(100)
    model = EnergyClassifier((8,), joint=True, max_epochs=2, random_state=0).fit(X, y)
    u = (X - model.offset_) / model.scale_
    for label in (0, 1):
        energies = model.energy(X, np.full(100, label))
        logits = model._map_rows(X, lambda energy, x, k=label: energy.logits(x)[:, k], "logits")
        np.testing.assert_allclose(energies, 0.5 * (u**2).sum(axis=1) - logits, atol=1e-12)


@pytest.mark.parametrize("joint", [DenoisingScoreMatching(0.4), "pcd"])
def test_joint_scores_rank_rows_by_their_density(joint):
    """Also far from the data, where the posterior is as sure as anywhere."""
    X, y, _ = make_clusters(1000)
    X_test, y_test, log_p = make_clusters(500, seed=1)
    settings = {"max_epochs": 40, "random_state": 0}
    model = EnergyClassifier((64,), joint=joint, **settings).fit(X, y)
    assert spearmanr(model.score_samples(X_test), log_p).statistic > 0.8
    assert model.score(X_test, y_test) > 0.93  # the best possible has 0.97
    far = np.random.default_rng(0).uniform(-8, 8, size=(500, 2))
    truth = np.repeat([1, 0], 500)
    rows = np.vstack([X_test, far])
    assert roc_auc_score(truth, model.score_samples(rows)) > 0.85
    plain = EnergyClassifier((64,), **settings).fit(X, y)
    assert roc_auc_score(truth, plain.predict_proba(rows).max(axis=1)) < 0.75


def test_joint_settings_that_do_not_fit_are_refused():
    X, y, _ = make_clusters(50)
    for wrong in ({"beta": 2.0}, {"standardize": False}):
        with pytest.raises(ValueError, match="joint=True models log p"):
            EnergyClassifier(joint=True, **wrong).fit(X, y)
    with pytest.raises(ValueError, match="lbfgs"):
        EnergyClassifier(joint=True, optimizer="lbfgs").fit(X, y)
    with pytest.raises(ValueError, match="needs"):
        EnergyClassifier(joint=sklebm.objectives.RatioMatching()).fit(X, y)


# ---------------------------------------------------------------- inside scikit-learn


def test_calibration_and_stacking():
    X, y = make_classes(3, 300)
    model = EnergyClassifier((8,), max_epochs=5, random_state=0)
    calibrated = CalibratedClassifierCV(model, cv=3).fit(X, y)
    assert calibrated.predict_proba(X).shape == (300, 3)
    stacked = StackingClassifier([("energy", model)], LogisticRegression(), cv=3).fit(X, y)
    assert stacked.score(X, y) > 0.4
