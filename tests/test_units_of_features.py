"""Where features have their zero, and in which units they are measured, changes no ranking.

Energies that are Euclidean by definition, and models of bits, are another matter: they are named
here, and warn where the units of the columns drown some of them.
"""

import contextlib
import warnings

import numpy as np
import pytest
from scipy.stats import spearmanr

import sklebm
from tests.registry import NAMES, is_gradient_trained

#: Energies that are distances in the units of X: what they say follows the units of a column.
EUCLIDEAN = {
    "Autoencoder",
    "ContractiveAutoencoder",
    "ConvPredictiveSparseDecomposition",
    "ConvSparseCoder",
    "DeconvolutionalNetwork",
    "DeepSparseCoder",
    "DenoisingAutoencoder",
    "EnergyKMeans",
    "EnergyPCA",
    "LISTAEncoder",
    "LinearizingAutoencoder",
    "MaskedAutoencoder",
    "NeighbourEnergy",
    "PredictiveSparseDecomposition",
    "SaturatingAutoencoder",
    "SlowFeatureAutoencoder",
    "SparseAutoencoder",
    "SparseCoder",
    "DeepEnergyModel",
    "GaussianRBM",  # one variance for all features unless variance="diagonal"
    "MeanCovarianceRBM",  # one scale for all features
    "ZCAWhitener",  # shrinks towards the mean variance of all features
}
#: Steps of the default size suit features near 1; a warning says so where they are not.
NEAR_ONE = {"DeepEnergyModel"}
#: Rows are bits or shares of them.
BITS = {
    "BernoulliRBM",
    "BoltzmannMachine",
    "DeepBeliefNetwork",
    "DeepBoltzmannMachine",
    "HopfieldNetwork",
}
#: Rows are counts, whose unit is one.
COUNTS = {"LatentDirichletAllocation", "PLSA", "ReplicatedSoftmax"}
#: Distances from the origin: there is no intercept unless it is asked for.
FROM_ZERO = {
    "ConvPredictiveSparseDecomposition",
    "ConvSparseCoder",
    "DeconvolutionalNetwork",
    "DeepSparseCoder",
    "LISTAEncoder",
    "PredictiveSparseDecomposition",
    "SparseCoder",
}
#: A price of the code, or noise, is given in units of X: its weight changes with all columns.
PRICED = FROM_ZERO | {"DenoisingAutoencoder"}
#: They stand on other estimators, which are tested here themselves.
COMPOSITE = {
    "EnergyOutlierDetector",
    "InputComplexityScorer",
    "LikelihoodRatioScorer",
    "LikelihoodRegretScorer",
    "LogitEnergyScorer",
    "TypicalityScorer",
}
TESTED = [name for name in NAMES if name not in BITS | COUNTS | COMPOSITE]

CHANGES = {
    "thousandfold": (1e3, 0.0),
    "thousandth": (1e-3, 0.0),
    "far": (1.0, 1e4),
    "columns": (np.logspace(-6, 6, 5), 0.0),
}


def make_table():
    """Correlated columns with heavy tails, and one in ten rows far out."""
    rng = np.random.default_rng(0)
    X = rng.laplace(size=(300, 5)) @ rng.normal(size=(5, 5))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    X[::10] *= 3.0
    return X


def make(name):
    kind = getattr(sklebm, name)
    settings = {}
    parameters = kind().get_params(deep=False)
    if is_gradient_trained(kind()):
        settings["max_epochs"] = 5
    if "random_state" in parameters:
        settings["random_state"] = 0
    return kind(**settings)


def fitted_scores(name, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(name).fit(X).score_samples(X)


def skips(name, change):
    return (
        (change == "columns" and name in EUCLIDEAN)
        or (change in ("thousandfold", "thousandth") and name in PRICED | NEAR_ONE)
        or (change == "far" and name in FROM_ZERO)
    )


CASES = [(name, change) for name in TESTED for change in CHANGES if not skips(name, change)]


@pytest.mark.parametrize(("name", "change"), CASES)
def test_ranks_are_those_of_the_rows_as_they_were(name, change):
    """Single precision keeps seven digits: learning takes slightly other turns, no other way."""
    X = make_table()
    scale, shift = CHANGES[change]
    before, after = fitted_scores(name, X), fitted_scores(name, X * scale + shift)
    least = 0.98 if is_gradient_trained(make(name)) else 1.0 - 1e-6
    assert spearmanr(before, after).statistic >= least


@pytest.mark.parametrize("name", [name for name in TESTED if not skips(name, "far")])
def test_single_precision_far_from_zero_scores_as_double(name):
    """The same values in both precisions: what the cast of X lost is lost to both.

    Scores are computed in the dtype of X; 1e-5 of the largest is 100 times the rounding of a sum
    of some hundred terms of size 1 in single precision, and a hundredth of what a rounded offset
    would cost.
    """
    X = (make_table() + 1e5).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make(name).fit(X)
        single, double = model.score_samples(X), model.score_samples(X.astype(np.float64))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5 * np.abs(double).max())


@pytest.mark.parametrize("name", sorted(EUCLIDEAN & set(TESTED)))
def test_columns_of_very_unequal_scale_are_named(name):
    X = make_table() * np.array([1.0, 1.0, 1.0, 1.0, 1e5])
    with (
        pytest.warns(UserWarning, match=r"scale") as caught,
        contextlib.suppress(FloatingPointError),  # a deep energy may diverge, and says so
    ):
        make(name).fit(X)
    assert any("StandardScaler" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_features_far_from_one_are_named(factor):
    with pytest.warns(UserWarning, match=r"standard deviation of .* StandardScaler"):
        make("DeepEnergyModel").fit(make_table() * factor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make("DeepEnergyModel").fit(make_table())
