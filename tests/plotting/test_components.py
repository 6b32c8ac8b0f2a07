"""ComponentsDisplay: what is drawn, on which axes, and what is refused."""

import matplotlib
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklebm import (
    EnergyGaussianMixture,
    EnergyKMeans,
    GatedBM,
    HopfieldNetwork,
    PCAWhitener,
    ZCAWhitener,
)
from sklebm.plotting import ComponentsDisplay

matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

IMAGES = np.random.default_rng(0).uniform(size=(60, 12))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def tile(grid, row, column, shape=(3, 4)):
    height, width = shape
    top, left = row * (height + 1), column * (width + 1)
    return grid[top : top + height, left : left + width]


def test_tiles_are_the_rows_in_order():
    components = np.arange(60.0).reshape(5, 12)
    display = ComponentsDisplay(components, (3, 4)).plot(n_columns=2, scale="shared")
    grid = display.image_.get_array()
    for index in range(5):
        expected = components[index].reshape(3, 4) / 59.0
        np.testing.assert_allclose(tile(grid, *divmod(index, 2)), expected)
    assert np.ma.getmaskarray(tile(grid, 2, 1)).all()  # no sixth tile
    assert grid.shape == (3 * 4 - 1, 2 * 5 - 1)


def test_own_scale_uses_the_whole_range_of_every_tile():
    components = np.stack([np.linspace(0, 1, 12), np.linspace(5, 9, 12), np.full(12, 3.0)])
    grid = ComponentsDisplay(components, (3, 4)).plot(n_columns=3).image_.get_array()
    for index in (0, 1):
        assert tile(grid, 0, index).min() == 0.0
        assert tile(grid, 0, index).max() == 1.0
    assert (tile(grid, 0, 2) == 0.0).all()  # a constant tile has no range


def test_zero_is_white_where_signs_differ():
    components = np.array([[-2.0] * 6 + [1.0] * 6, [0.0] * 12])
    display = ComponentsDisplay(components, (3, 4)).plot(n_columns=2)
    assert display.image_.get_cmap().name == "RdBu_r"
    assert display.image_.get_clim() == (-1.0, 1.0)
    grid = display.image_.get_array()
    assert tile(grid, 0, 0).min() == -1.0
    assert tile(grid, 0, 0).max() == 0.5
    assert (tile(grid, 0, 1) == 0.0).all()


def test_rounding_below_zero_is_no_sign():
    components = np.array([[-1e-17] * 6 + [1.0] * 6])
    display = ComponentsDisplay(components, (3, 4)).plot()
    assert display.image_.get_cmap().name == "gray"
    assert display.image_.get_clim() == (0.0, 1.0)


def test_order_by_norm_and_limit():
    components = np.outer([1.0, 3.0, 2.0], np.ones(12))
    display = ComponentsDisplay(components, (3, 4))
    grid = display.plot(order="norm", max_components=2, scale="shared", n_columns=2).image_
    assert grid.get_array().shape == (3, 9)
    assert tile(grid.get_array(), 0, 0).max() == 1.0


@pytest.mark.parametrize(
    ("estimator", "attribute"),
    [
        (EnergyKMeans(4), "cluster_centers_"),
        (ZCAWhitener(), "filters_"),
        (PCAWhitener(), "filters_"),
        (EnergyGaussianMixture(2, random_state=0), "means_"),
        (
            HopfieldNetwork(rule="dense", interaction="exponential", states="continuous"),
            "patterns_",
        ),
        (GatedBM(3, n_factors=4, split=6, max_epochs=1, random_state=0), "left_factors_"),
    ],
)
def test_from_estimator_finds_what_to_draw(estimator, attribute):
    shape = (2, 3) if attribute == "left_factors_" else (3, 4)
    display = ComponentsDisplay.from_estimator(estimator.fit(IMAGES), image_shape=shape)
    assert display.ax_.get_title() == f"{attribute} of {type(estimator).__name__}"
    assert display.figure_ is display.ax_.figure
    np.testing.assert_array_equal(display.components, getattr(estimator, attribute))


def test_draws_on_given_axes_with_given_words():
    _, ax = pyplot.subplots()
    model = PCAWhitener().fit(IMAGES)
    display = ComponentsDisplay.from_estimator(
        model, image_shape=(3, 4), attribute="components_", ax=ax, title="axes", cmap="viridis"
    )
    assert display.ax_ is ax
    assert ax.get_title() == "axes"
    assert display.image_.get_cmap().name == "viridis"
    assert len(pyplot.get_fignums()) == 1


def test_square_images_need_no_shape():
    model = EnergyKMeans(2, random_state=0).fit(IMAGES[:, :9])
    assert ComponentsDisplay.from_estimator(model).image_shape == (3, 3)


def test_mistakes_are_named():
    model = EnergyKMeans(2, random_state=0).fit(IMAGES)
    with pytest.raises(ValueError, match="12 pixels do not make a square image: pass image_shape"):
        ComponentsDisplay.from_estimator(model)
    with pytest.raises(ValueError, match=r"image_shape=\(5, 5\) means 25 pixels.*\(2, 12\)"):
        ComponentsDisplay.from_estimator(model, image_shape=(5, 5))
    with pytest.raises(ValueError, match="no fitted attribute 'atoms_'"):
        ComponentsDisplay.from_estimator(model, image_shape=(3, 4), attribute="atoms_")
    with pytest.raises(NotFittedError):
        ComponentsDisplay.from_estimator(EnergyKMeans())


def test_estimators_without_components_are_named():
    with pytest.raises(
        ValueError,
        match=r"StandardScaler has none of the attributes cluster_centers_, .*name another one",
    ):
        ComponentsDisplay.from_estimator(StandardScaler().fit(IMAGES), image_shape=(3, 4))


def test_a_pipeline_is_asked_for_its_step():
    pipeline = make_pipeline(StandardScaler(), PCAWhitener()).fit(IMAGES)
    with pytest.raises(ValueError, match=r"pass the step, pipeline\[-1\]"):
        ComponentsDisplay.from_estimator(pipeline, image_shape=(3, 4))
    ComponentsDisplay.from_estimator(pipeline[-1], image_shape=(3, 4))
