"""What warnings and errors advise about ordinary mistakes: each says where, what and how else."""

import warnings

import numpy as np
import pandas as pd
import pytest

from sklebm import (
    Autoencoder,
    ConvSparseCoder,
    EnergyGaussianMixture,
    EnergyKMeans,
    EnergyPCA,
    EnergyRegressor,
    NeighbourEnergy,
    PCAWhitener,
    SparseCoder,
    ZCAWhitener,
)


def draw(n_rows, n_features):
    return np.random.default_rng(0).normal(size=(n_rows, n_features))


@pytest.mark.parametrize(
    ("model", "measure"),
    [
        (EnergyKMeans(2, random_state=0), "standard deviation"),
        (SparseCoder(2, max_iter=1, random_state=0), "range"),
        (Autoencoder(1, max_epochs=1, random_state=0), "largest distance from the mean"),
        (NeighbourEnergy(2), "standard deviation"),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
def test_columns_of_unequal_scale_are_named_with_what_was_measured(model, measure):
    X = pd.DataFrame(draw(60, 3) * [1.0, 1e5, 1.0], columns=["mass", "price", "age"])
    with pytest.warns(UserWarning, match=f"{measure} of column '(mass|age)' .* column 'price'"):
        model.fit(X)
    with pytest.warns(UserWarning, match=f"{measure} of column (0|2) .* column 1 "):
        model.fit(X.to_numpy())


def test_columns_without_variance_of_their_own_are_named():
    X = pd.DataFrame(draw(60, 3), columns=["mass", "price", "age"])
    with pytest.warns(UserWarning, match="1 direction without .* column 'age' of X is constant"):
        PCAWhitener().fit(X.assign(age=1.0))
    with pytest.warns(UserWarning, match="columns 'price', 'age' of X are constant or"):
        PCAWhitener().fit(X.assign(age=2.0 * X.price))


@pytest.mark.parametrize("model", [PCAWhitener(), EnergyPCA(), EnergyGaussianMixture()])
def test_a_density_of_few_rows_is_said_to_be_one_of_few_directions(model):
    with pytest.warns(UserWarning, match="5 rows of 30 features.* scores .* very low"):
        model.fit(draw(5, 30))
    # As the warning says: new rows lie where the training rows never vary.
    assert model.score(draw(9, 30)[5:]) < model.score(draw(5, 30)) - 1e3


@pytest.mark.parametrize(
    "model",
    [PCAWhitener(shrinkage="oas"), ZCAWhitener(), EnergyGaussianMixture(covariance_type="diag")],
)
def test_what_the_warning_of_few_rows_advises_needs_none(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(draw(5, 30))
    assert model.score(draw(9, 30)[5:]) > model.score(draw(5, 30)) - 1e3


def test_channels_in_the_wrong_order_are_noticed():
    X = draw(20, 48)
    with pytest.warns(UserWarning, match=r"means 8 channels of 6 x 1 pixels.*\(1, 8, 6\)"):
        Autoencoder(2, image_shape=(8, 6, 1), max_epochs=1).fit(X)
    X = draw(5, 75)
    options = {"kernel_size": 3, "max_iter": 1, "random_state": 0}
    with pytest.warns(UserWarning, match=r"means 3 x 5 pixels of 5 channels.*\(5, 5, 3\)"):
        ConvSparseCoder(2, image_shape=(3, 5, 5), **options).fit(X)


def test_text_as_numbers_is_said_to_be_y():
    with pytest.raises(ValueError, match=r"EnergyRegressor needs numbers as y.*classifier"):
        EnergyRegressor(max_epochs=1).fit(draw(4, 2), ["low", "high", "low", "low"])
