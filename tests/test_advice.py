"""What warnings and errors advise about ordinary mistakes: each says where, what and how else."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

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
    load,
    save,
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


@pytest.mark.parametrize(
    "model", [PCAWhitener(), EnergyPCA(), EnergyPCA(9), EnergyGaussianMixture(reg_covar=1e-9)]
)
def test_a_density_of_few_rows_is_said_to_be_one_of_few_directions(model):
    with pytest.warns(UserWarning, match="5 rows of 30 features.* scores .* very low"):
        model.fit(draw(5, 30))
    # As the warning says: new rows lie where the training rows never vary.
    assert model.score(draw(9, 30)[5:]) < model.score(draw(5, 30)) - 1e3


def test_rows_that_repeat_are_few_as_well():
    with pytest.warns(UserWarning, match="29 rows of 30 features, .* in only 9 directions"):
        PCAWhitener().fit(np.tile(draw(10, 30), (3, 1))[:29])
    with pytest.warns(UserWarning, match=r"31 rows .* for 5 component\(s\)"):
        EnergyGaussianMixture(5, random_state=0).fit(draw(31, 30))


@pytest.mark.parametrize(
    "model",
    [
        PCAWhitener(shrinkage="oas"),
        PCAWhitener(ridge=0.5),
        ZCAWhitener(),
        EnergyPCA(shrinkage="oas"),
        EnergyPCA(2),
        EnergyGaussianMixture(covariance_type="diag"),
        EnergyGaussianMixture(reg_covar=1.0),
    ],
)
def test_what_the_warning_of_few_rows_advises_needs_none(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(draw(5, 30))
    assert model.score(draw(9, 30)[5:]) > model.score(draw(5, 30)) - 1e3


def test_small_weights_and_first_chunks_are_no_few_rows():
    X = draw(300, 5)
    weights = np.full(300, 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in (PCAWhitener(), EnergyPCA(), EnergyGaussianMixture(2, random_state=0)):
            model.fit(X, sample_weight=weights)
            clone(model).partial_fit(X[:4])


def count(recorded, words):
    return sum(words in str(warning.message) for warning in recorded)


def test_channels_in_the_wrong_order_are_noticed_once(tmp_path):
    X = draw(20, 192)
    model = Autoencoder(2, image_shape=(8, 8, 3), max_epochs=1, random_state=0)
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        model.fit(X).partial_fit(X).transform(X)
        save(model, tmp_path / "model.safetensors")
        load(tmp_path / "model.safetensors")
    assert count(recorded, "means 8 channels of 8 x 3 pixels") == 1
    assert "pass image_shape=(3, 8, 8)" in str(recorded[0].message)
    # What the warning says to do makes pictures of three channels.
    Y = np.asarray(X).reshape(-1, 8, 8, 3).transpose(0, 3, 1, 2).reshape(len(X), -1)
    np.testing.assert_array_equal(Y[:, :64], X[:, ::3])
    for shape in ((3, 8, 8), (12, 16, 1)):  # the second: signals of 12 channels
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.set_params(image_shape=shape).fit(Y)
    options = {"kernel_size": 3, "max_iter": 1, "random_state": 0}
    with pytest.warns(UserWarning, match=r"means 3 x 8 pixels of 8 channels.*\(8, 8, 3\)"):
        ConvSparseCoder(2, image_shape=(3, 8, 8), **options).fit(X)


def test_text_as_numbers_is_said_to_be_y():
    with pytest.raises(
        ValueError, match=r"numeric targets, but y contains 'low'.* use a classifier"
    ):
        EnergyRegressor(max_epochs=1).fit(draw(4, 2), ["low", "high", "low", "low"])
