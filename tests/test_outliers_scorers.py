"""Scores beyond raw likelihood, against closed forms and naive computations."""

import math
import zlib

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import skorch
import torch
from scipy.special import logsumexp
from scipy.stats import chi2, multivariate_normal, ncx2, norm
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from sklebm import (
    VAE,
    EnergyClassifier,
    EnergyKMeans,
    EnergyOutlierDetector,
    InputComplexityScorer,
    LikelihoodRatioScorer,
    LikelihoodRegretScorer,
    LogitEnergyScorer,
    PCAWhitener,
    TypicalityScorer,
    load,
    save,
)
from sklebm.outliers._complexity import code_lengths, filtered, quantise
from sklebm.outliers._logits import logits
from sklebm.outliers.likelihood_ratio_scorer import perturb
from sklebm.outliers.likelihood_regret_scorer import cubature_points
from tests.registry import fitted_state, freeze, make_rows


def make_classes(n_rows=200, seed=0, n_classes=3):
    """Rows and the class of each."""
    X = make_rows(n_rows, seed)
    labels = np.minimum(2 * (X[:, 0] > 0.5) + (X[:, 3] > 0.5), n_classes - 1)
    return X, labels.astype(int)


class NormalDensity(PCAWhitener):
    """The log density of N(mean, I), which nothing is learnt about."""

    def __init__(self, mean=0.0):
        self.mean = mean

    def fit(self, X, y=None):
        self.n_features_in_ = np.shape(X)[1]
        return self

    def score_samples(self, X):
        constant = X.shape[1] / 2 * math.log(2 * math.pi)
        return -0.5 * ((np.asarray(X) - self.mean) ** 2).sum(axis=1) - constant


# ---------------------------------------------------------------- energies of classifiers

WITH_DECISIONS = [
    LogisticRegression(),
    SVC(),
    SGDClassifier(random_state=0),
    LinearDiscriminantAnalysis(),
    HistGradientBoostingClassifier(max_iter=5, random_state=0),
    make_pipeline(StandardScaler(), LogisticRegression()),
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
]
each = pytest.mark.parametrize("classifier", WITH_DECISIONS, ids=lambda c: type(c).__name__)


@each
@pytest.mark.parametrize("temperature", [0.3, 1.0, 20.0])
def test_the_energy_of_a_classifier_is_the_equation(classifier, temperature):
    X, y = make_classes()
    scorer = LogitEnergyScorer(classifier, temperature=temperature).fit(X, y)
    decision = clone(classifier).fit(X, y).decision_function(X)
    expected = -temperature * logsumexp(decision / temperature, axis=1)
    np.testing.assert_allclose(scorer.free_energy(X), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(scorer.score_samples(X), -scorer.free_energy(X))
    assert not fitted_state(classifier)


@each
def test_a_binary_decision_is_the_logits_zero_and_f(classifier):
    X, y = make_classes(n_classes=2)
    scorer = LogitEnergyScorer(classifier).fit(X, y)
    decision = clone(classifier).fit(X, y).decision_function(X)
    expected = np.log1p(np.exp(decision))
    np.testing.assert_allclose(scorer.score_samples(X), expected, rtol=1e-12, atol=1e-12)


def test_the_energy_of_a_generative_classifier_is_its_density():
    """Joint log probabilities are logits, and their sum over classes is log p(x)."""
    X, y = make_classes()
    model = GaussianNB().fit(X, y)
    scorer = LogitEnergyScorer(GaussianNB()).fit(X, y)
    classes = zip(model.class_prior_, model.theta_, np.sqrt(model.var_), strict=True)
    terms = [np.log(prior) + norm.logpdf(X, mean, sd).sum(1) for prior, mean, sd in classes]
    np.testing.assert_allclose(scorer.score_samples(X), logsumexp(terms, axis=0), rtol=1e-10)


def test_a_cold_energy_is_the_largest_logit():
    X, y = make_classes()
    scorer = LogitEnergyScorer(SVC(), temperature=1e-6).fit(X, y)
    largest = scorer.estimator_.decision_function(X).max(axis=1)
    np.testing.assert_allclose(scorer.score_samples(X), largest, atol=1e-5)


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (RandomForestClassifier(), "RandomForestClassifier gives probabilities and no logits"),
        (MLPClassifier(), "they sum to one"),
        (CalibratedClassifierCV(SVC()), "Choose a classifier with a decision_function"),
        (EnergyKMeans(), "needs the logits of a classifier.*EnergyOutlierDetector takes them"),
        (SVC, "class SVC: pass an instance"),
        (make_pipeline(StandardScaler(), RandomForestClassifier()), "gives probabilities"),
    ],
)
def test_what_has_no_logits_is_refused_with_the_reason(classifier, message):
    X, y = make_classes()
    scorer = LogitEnergyScorer(classifier)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        scorer.fit(X, y)
    assert not fitted_state(scorer)


def test_the_energy_of_probabilities_would_be_constant():
    X, y = make_classes()
    log_probabilities = LogisticRegression().fit(X, y).predict_log_proba(X)
    np.testing.assert_allclose(logsumexp(log_probabilities, axis=1), 0.0, atol=1e-12)


def test_votes_of_pairs_are_no_logits():
    X, y = make_rows(), np.arange(120) % 5
    with pytest.raises(ValueError, match=r"shape \(120, 10\).* 5 classes.*ovr"):
        LogitEnergyScorer(SVC(decision_function_shape="ovo")).fit(X, y).score_samples(X)


def test_a_classifier_in_service_is_not_fitted_again():
    X, y = make_classes()
    classifier = LogisticRegression().fit(X, y)
    before = freeze(vars(classifier))
    scorer = LogitEnergyScorer(FrozenEstimator(classifier)).fit(X[:9])
    np.testing.assert_array_equal(
        scorer.score_samples(X), LogitEnergyScorer(LogisticRegression()).fit(X, y).score_samples(X)
    )
    assert freeze(vars(classifier)) == before


def test_labels_are_asked_for():
    scorer = LogitEnergyScorer()
    assert scorer.__sklearn_tags__().target_tags.required
    assert EnergyOutlierDetector(scorer).__sklearn_tags__().target_tags.required
    with pytest.raises(ValueError, match="requires y to be passed"):
        scorer.fit(make_rows())


def test_a_frame_goes_to_the_classifier_as_it_is():
    X, y = make_classes()
    frame = pd.DataFrame({"size": X[:, 0], "colour": np.where(X[:, 3] > 0.5, "red", "blue")})
    encode = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
    scorer = LogitEnergyScorer(make_pipeline(encode, LogisticRegression())).fit(frame, y)
    assert list(scorer.feature_names_in_) == ["size", "colour"]
    detector = EnergyOutlierDetector(scorer, calibration=0.3, random_state=0).fit(frame, y)
    assert detector.p_values(frame).shape == (200,)


def test_classifiers_become_detectors_with_p_values():
    images, digits = load_digits(return_X_y=True)
    known = digits < 7
    classifier = LogisticRegression(max_iter=200)
    detector = EnergyOutlierDetector(
        LogitEnergyScorer(classifier), calibration=0.4, random_state=0
    ).fit(images[known] / 16, digits[known])
    noise = np.random.default_rng(0).random((500, 64))
    flagged = {
        "known": detector.predict(images[known] / 16, alpha=0.05),
        "unknown": detector.predict(images[~known] / 16, alpha=0.05),
        "noise": detector.predict(noise, alpha=0.05),
    }
    shares = {name: (labels == -1).mean() for name, labels in flagged.items()}
    assert shares["known"] < 0.08
    assert shares["unknown"] > 0.6
    assert shares["noise"] > 0.6


class Net(torch.nn.Module):
    def __init__(self, n_outputs, squeeze=False):
        super().__init__()
        self.layer = torch.nn.Linear(6, n_outputs)
        self.squeeze = squeeze

    def forward(self, X):
        output = self.layer(X)
        return output[:, 0] if self.squeeze else output


def test_nets_give_logits_if_trained_with_them():
    X, y = make_classes()
    X = X.astype(np.float32)
    shared = {"max_epochs": 1, "verbose": 0, "train_split": None}
    net = skorch.NeuralNetClassifier(
        Net, module__n_outputs=3, criterion=torch.nn.CrossEntropyLoss, **shared
    )
    scorer = LogitEnergyScorer(net).fit(X, y)
    assert scorer.n_features_in_ == 6
    expected = logsumexp(scorer.estimator_.forward(X).numpy(), axis=1)
    np.testing.assert_allclose(scorer.score_samples(X), expected, rtol=1e-6)
    assert scorer.score_samples(X).dtype == np.float32
    binary = skorch.NeuralNetBinaryClassifier(
        Net, module__n_outputs=1, module__squeeze=True, **shared
    )
    scorer = LogitEnergyScorer(binary).fit(X, (y > 0).astype(np.float32))
    expected = np.logaddexp(0, scorer.estimator_.forward(X).numpy())
    np.testing.assert_allclose(scorer.score_samples(X), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"NLLLoss.*CrossEntropyLoss"):
        LogitEnergyScorer(skorch.NeuralNetClassifier(Net, module__n_outputs=3)).fit(X, y)


class OwnLogits(LogisticRegression):
    def logits(self, X):
        return 2 * self.decision_function(X)


def test_a_method_called_logits_comes_first():
    X, y = make_classes()
    model = OwnLogits().fit(X, y)
    np.testing.assert_array_equal(logits(model, X).numpy(), 2 * model.decision_function(X))


def test_classifiers_of_other_libraries_are_not_saved_but_the_temperature_is(tmp_path):
    X, y = make_classes()
    with pytest.raises(TypeError, match=r"LogisticRegression.*skops"):
        save(LogitEnergyScorer(LogisticRegression()).fit(X, y), tmp_path / "a.safetensors")
    scorer = LogitEnergyScorer(EnergyOutlierDetector(PCAWhitener()), temperature=2.0).fit(X)
    save(scorer, tmp_path / "a.safetensors")
    twin = load(tmp_path / "a.safetensors")
    assert twin.temperature_ == 2.0
    np.testing.assert_array_equal(twin.score_samples(X), scorer.score_samples(X))


# ---------------------------------------------------------------- typicality


def test_typicality_is_the_distance_from_the_entropy():
    """For N(0, I) it is | |x|^2 - d | / 2, up to the error of the estimated entropy."""
    X = np.random.default_rng(0).normal(size=(40_000, 50))
    scorer = TypicalityScorer(NormalDensity()).fit(X)
    entropy = 25 * math.log(2 * math.pi * math.e)
    error = 5 * math.sqrt(25 / 40_000)  # -log p has variance d / 2
    assert scorer.entropy_ == pytest.approx(entropy, abs=error)
    expected = -np.abs((X[:99] ** 2).sum(axis=1) - 50) / 2
    np.testing.assert_allclose(scorer.score_samples(X[:99]), expected, rtol=0, atol=error)
    assert scorer.score_samples(np.zeros((1, 50)))[0] == pytest.approx(-25, abs=error)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_typicality_test_has_its_nominal_size(alpha):
    """The share of new rows below the calibrated threshold, and the threshold itself."""
    generator = np.random.default_rng(0)
    X, new = generator.normal(size=(20_000, 20)), generator.normal(size=(20_000, 20))
    detector = EnergyOutlierDetector(
        TypicalityScorer(NormalDensity()), calibration=0.5, random_state=0
    ).fit(X)
    error = 5 * math.sqrt(alpha * (1 - alpha) * 2 / 10_000)
    assert (detector.predict(new, alpha=alpha) == -1).mean() == pytest.approx(alpha, abs=error)
    width = -detector.calibration_scores_[int(alpha * 10_000)]
    outside = chi2(20).cdf(20 - 2 * width) + chi2(20).sf(20 + 2 * width)
    assert outside == pytest.approx(alpha, abs=error)


def test_the_mode_is_the_most_probable_and_the_least_typical_row():
    X = np.random.default_rng(0).normal(size=(3000, 200)) * np.linspace(1, 3, 200)
    scorer = TypicalityScorer().fit(X)
    mode = X.mean(axis=0, keepdims=True)
    density = scorer.estimator_.score_samples
    assert density(mode) > density(X).max()
    assert scorer.score_samples(mode) < scorer.score_samples(X).min()


def test_held_out_rows_give_the_entropy_without_overfitting():
    """110 rows of 100 features: training rows look far more typical than new ones."""
    generator = np.random.default_rng(0)
    X, new = generator.normal(size=(220, 100)), generator.normal(size=(500, 100))
    model = PCAWhitener(ridge=0.1)
    honest = TypicalityScorer(model, calibration=0.5, random_state=0).fit(X)
    naive = TypicalityScorer(model).fit(X[:110])
    expected = -honest.estimator_.score_samples(new).mean()
    assert abs(honest.entropy_ - expected) < 0.1 * abs(naive.entropy_ - expected)
    assert honest.estimator_.n_samples_seen_ == 110


def test_sparse_rows_reach_estimators_that_take_them():
    X = scipy.sparse.random(200, 10, 0.3, format="coo", random_state=0)
    model = make_pipeline(StandardScaler(with_mean=False), SparseDensity())
    scorer = TypicalityScorer(model, calibration=0.5, random_state=0).fit(X)
    assert scorer.score_samples(X.tocsr()).shape == (200,)


class SparseDensity(NormalDensity):
    def fit(self, X, y=None):
        assert scipy.sparse.issparse(X)
        return super().fit(X)

    def score_samples(self, X):
        return super().score_samples(X.toarray())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


# ---------------------------------------------------------------- input complexity


def test_the_score_is_log_density_plus_code_length_in_nats():
    X = load_digits().data
    scorer = InputComplexityScorer(PCAWhitener(ridge=1.0), n_levels=17).fit(X)
    np.testing.assert_array_equal(scorer.range_, [0, 16])
    bits = []
    for row in X[:200].astype(np.uint8):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        bits.append(8 * len(packer.compress(row.tobytes()) + packer.flush()))
    np.testing.assert_array_equal(scorer.complexity(X[:200]), bits)
    expected = PCAWhitener(ridge=1.0).fit(X).score_samples(X[:200]) + np.log(2) * np.array(bits)
    np.testing.assert_allclose(scorer.score_samples(X[:200]), expected, rtol=1e-12)


def test_levels_are_the_nearest_and_outside_is_clipped():
    values = np.array([-9.0, 0.0, 0.24, 0.26, 0.74, 0.76, 1.0, 7.0])
    np.testing.assert_array_equal(quantise(values, 0.0, 1.0, 3), [0, 0, 0, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(quantise(values, 1.0, 1.0, 256), [0] * 7 + [255])
    extremes = np.array([-1.7e308, 0.0, 1.7e308])
    np.testing.assert_array_equal(quantise(extremes, -1.7e308, 1.7e308, 256), [0, 128, 255])
    pixels = np.arange(256.0)
    np.testing.assert_array_equal(quantise(pixels, 0.0, 255.0, 256), pixels)
    np.testing.assert_array_equal(quantise(pixels.astype("f4"), 0.0, 255.0, 256), pixels)


def paeth(a, b, c):
    """The predictor of the PNG specification, word by word."""
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    if pa <= pb and pa <= pc:
        return a
    return b if pb <= pc else c


PREDICTORS = [
    lambda a, b, c: 0,
    lambda a, b, c: a,
    lambda a, b, c: b,
    lambda a, b, c: (a + b) // 2,
    paeth,
]


@pytest.mark.parametrize("shape", [(4, 5), (3, 2, 3)])
def test_the_filters_are_those_of_png_and_lose_nothing(shape):
    images = np.random.default_rng(0).integers(0, 256, size=(3, *shape), dtype=np.uint8)
    for view, predict in zip(filtered(images), PREDICTORS, strict=True):
        restored = np.zeros_like(images)
        for index in np.ndindex(images.shape):
            image, row, column, *channel = index

            def at(down, right, image=image, channel=channel, restored=restored):
                inside = down >= 0 and right >= 0
                return int(restored[(image, down, right, *channel)]) if inside else 0

            a, b, c = at(row, column - 1), at(row - 1, column), at(row - 1, column - 1)
            restored[index] = (int(view[index]) + predict(a, b, c)) % 256
        np.testing.assert_array_equal(restored, images)


def test_smooth_images_have_short_codes():
    ramp = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, size=(16, 16), dtype=np.uint8)
    rows = np.stack([np.zeros(256, np.uint8), ramp.ravel(), noise.ravel()])
    lengths = code_lengths(rows, "zlib", (16, 16))
    assert lengths[0] <= lengths[1] < 0.2 * lengths[2]
    assert (lengths <= code_lengths(rows, "zlib", None)).all()
    assert lengths[2] > 8 * 250  # noise cannot be compressed


def test_complexity_corrects_the_preference_for_simple_images():
    """Faint images are as probable as real ones to a Gaussian, and simpler."""
    images = load_digits().data / 16
    train, test = images[::2], images[1::2]
    scorer = InputComplexityScorer(PCAWhitener(ridge=1.0), image_shape=(8, 8), n_levels=17).fit(
        train
    )
    rows, is_inlier = np.vstack([test, test / 2]), np.repeat([1, 0], len(test))
    raw = roc_auc_score(is_inlier, scorer.estimator_.score_samples(rows))
    corrected = roc_auc_score(is_inlier, scorer.score_samples(rows))
    assert raw < 0.7
    assert corrected > 0.9


@pytest.mark.parametrize("shape", [(2, 2), (6,), (2, 3, 1, 1), (2.0, 3.0), (-2, -3)])
def test_shapes_that_are_no_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"image_shape=.*number of features, 6"):
        InputComplexityScorer(image_shape=shape).fit(make_rows())


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3)])
def test_images_are_saved_with_their_shape(shape, tmp_path):
    X = make_rows()
    scorer = InputComplexityScorer(image_shape=shape).fit(X)
    save(scorer, tmp_path / "a.safetensors")
    twin = load(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(twin.complexity(X), scorer.complexity(X))
    on_tensor = scorer.complexity(torch.from_numpy(X))
    np.testing.assert_array_equal(on_tensor.numpy(), scorer.complexity(X))


# ---------------------------------------------------------------- likelihood ratio


def test_the_ratio_to_the_density_of_the_outliers_is_optimal():
    """N(0, I) against N(mu, I) with d = 10, |mu| = 2: AUROC .706 from p alone, .921 from p / q."""
    generator = np.random.default_rng(0)
    mean = 2 / math.sqrt(10)
    inliers, outliers = (
        generator.normal(size=(2, 60_000, 10)) + np.array([0.0, mean])[:, None, None]
    )
    scorer = LikelihoodRatioScorer(NormalDensity(), background=NormalDensity(mean)).fit(inliers[:9])
    rows, is_inlier = np.vstack([inliers, outliers]), np.repeat([1, 0], 60_000)
    ratio = roc_auc_score(is_inlier, scorer.score_samples(rows))
    assert ratio == pytest.approx(norm.cdf(2 / math.sqrt(2)), abs=0.005)
    alone = roc_auc_score(is_inlier, scorer.estimator_.score_samples(rows))
    quantiles = chi2(10).ppf((np.arange(10_000) + 0.5) / 10_000)
    assert alone == pytest.approx(ncx2(10, 4).sf(quantiles).mean(), abs=0.005)
    expected = 0.5 * ((rows[:99] - mean) ** 2 - rows[:99] ** 2).sum(axis=1)
    np.testing.assert_allclose(scorer.score_samples(rows[:99]), expected, atol=1e-10)


def test_the_background_is_fitted_to_perturbed_rows():
    X, new = make_rows(), make_rows(50, seed=1)
    scorer = LikelihoodRatioScorer(PCAWhitener(), mutation_rate=0.4, random_state=7).fit(X)
    seed = int(np.random.RandomState(7).randint(2**31 - 1))
    background = PCAWhitener().fit(perturb(X, 0.4, seed))
    expected = PCAWhitener().fit(X).score_samples(new) - background.score_samples(new)
    np.testing.assert_allclose(scorer.score_samples(new), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(scorer.background_.mean_, background.mean_)


def test_perturbed_values_are_as_many_as_asked_and_uniform():
    X = np.random.default_rng(0).normal([0, 5], [1, 3], size=(20_000, 2)).astype(np.float32)
    changed = perturb(X, 0.25, seed=1)
    assert changed.dtype == np.float32
    moved = changed != X
    assert moved.mean() == pytest.approx(0.25, abs=0.01)
    for column in range(2):
        drawn, low, high = changed[moved[:, column], column], X[:, column].min(), X[:, column].max()
        share = np.sort((drawn - low) / (high - low))
        gap = np.abs(share - (np.arange(len(share)) + 0.5) / len(share)).max()
        assert gap < 2 / math.sqrt(len(share))  # Kolmogorov and Smirnov: p < 0.001
    np.testing.assert_array_equal(perturb(X, 0.25, seed=1), changed)
    assert not np.array_equal(perturb(X, 0.25, seed=2), changed)


def test_a_background_removes_what_all_images_share():
    """Of the digits, a mixture relative to one Gaussian tells unknown classes better."""
    images, digits = load_digits(return_X_y=True)
    known = images[digits < 7] / 16
    unknown = images[digits >= 7] / 16
    mixture = GaussianMixture(5, reg_covar=0.01, random_state=0)
    scorer = LikelihoodRatioScorer(mixture, background=EnergyKMeans(1)).fit(known[::2])
    rows = np.vstack([known[1::2], unknown])
    is_inlier = np.repeat([1, 0], [len(known[1::2]), len(unknown)])
    alone = roc_auc_score(is_inlier, scorer.estimator_.score_samples(rows))
    assert roc_auc_score(is_inlier, scorer.score_samples(rows)) > alone


def test_each_model_is_named_in_errors():
    with pytest.raises(ValueError, match=r"'background' \(StandardScaler\) has no score_samples"):
        LikelihoodRatioScorer(PCAWhitener(), background=StandardScaler()).fit(make_rows())
    for cls in (InputComplexityScorer, LikelihoodRatioScorer, TypicalityScorer):
        with pytest.raises(ValueError, match=f"(?s){cls.__name__} ranks rows.*'estimator' .SVC"):
            cls(SVC()).fit(make_rows())
        with pytest.raises(ValueError, match="class PCAWhitener: pass an instance"):
            cls(PCAWhitener).fit(make_rows())


# ---------------------------------------------------------------- likelihood regret


def make_vae(**changes):
    quick = {"hidden_sizes": (8,), "max_epochs": 10, "batch_size": 40, "learning_rate": 0.03}
    return VAE(2, **{**quick, "random_state": 0, **changes})


def test_the_best_posterior_of_an_affine_model_is_exact():
    """The best bound is log p(x), a Gaussian, and the regret the gap of the encoder's bound."""
    X = make_rows(60)
    model = make_vae(hidden_sizes=(), noise_scale=0.5, posterior="full", max_epochs=2)
    scorer = LikelihoodRegretScorer(model, n_steps=500, learning_rate=0.05).fit(X)
    fitted = scorer.estimator_.set_params(n_importance_samples=2**11)
    offset = fitted.inverse_transform(np.zeros((1, 2)))[0]
    loadings = fitted.inverse_transform(np.eye(2)) - offset
    covariance = loadings.T @ loadings + 0.25 * np.eye(6)
    gap = fitted.lower_bound(X) - multivariate_normal(offset, covariance).logpdf(X)
    assert gap.max() < -0.05
    np.testing.assert_allclose(scorer.score_samples(X), gap, rtol=0.01, atol=1e-3)


def test_cubature_integrates_cubic_polynomials():
    points = cubature_points(3).numpy()
    assert points.shape == (6, 3)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-15)
    np.testing.assert_allclose(points.T @ points / 6, np.eye(3), atol=1e-15)
    third = np.einsum("ni,nj,nk->ijk", points, points, points)
    np.testing.assert_allclose(third, 0, atol=1e-15)


def test_regret_is_positive_and_grows_with_the_search():
    X = make_rows(50)
    short, long = (
        LikelihoodRegretScorer(make_vae(), n_steps=n_steps).fit(X).score_samples(X)
        for n_steps in (2, 50)
    )
    assert (long <= short).all()
    assert (short <= 0).all()
    assert long.mean() < short.mean() - 1e-3


def test_regret_needs_a_vae_with_gaussian_latents():
    for estimator in (PCAWhitener(), make_vae(posterior="bernoulli")):
        with pytest.raises(
            ValueError, match=r"(?s)VAE with Gaussian latents.*LikelihoodRatioScorer"
        ):
            LikelihoodRegretScorer(estimator).fit(make_rows())


def test_a_joint_classifier_is_scored_by_its_own_free_energy():
    """Its level is learnt, and includes what all labels share."""
    for n_classes in (2, 3):
        X, y = make_classes(n_classes=n_classes)
        model = EnergyClassifier((8,), joint=True, max_epochs=3, random_state=0).fit(X, y)
        scorer = LogitEnergyScorer(FrozenEstimator(model)).fit(X)
        np.testing.assert_allclose(scorer.score_samples(X), -model.free_energy(X), rtol=1e-6)
        logits_ = model.logits(X)
        energies = np.stack([model.energy(X, np.full(len(X), k)) for k in model.classes_], axis=1)
        np.testing.assert_allclose(logits_, -energies, rtol=1e-6)
