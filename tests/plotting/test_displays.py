"""Displays of scores, energies, curves, codes, reconstructions and chains: what they draw."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_moons
from sklearn.ensemble import RandomTreesEmbedding
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklebm import (
    BernoulliRBM,
    EnergyGaussianMixture,
    EnergyKMeans,
    GaussianEnergy,
    PCAWhitener,
    SparseCoder,
)
from sklebm.plotting import (
    EnergyHistogramDisplay,
    EnergyLandscapeDisplay,
    LatentDisplay,
    LearningCurveDisplay,
    ReconstructionDisplay,
    SampleChainDisplay,
)

matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(40, 12)).astype("float32")
MOONS = make_moons(200, noise=0.05, random_state=0)[0]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def images_of(ax):
    return [np.asarray(image.get_array()) for image in ax.get_images()]


# ---------------------------------------------------------------- histograms


def test_auroc_counts_pairs_and_ties_half():
    scores = {"known": [3.0, 2.0, 1.0], "new": [2.0, 0.0], "same": [3.0, 2.0, 1.0]}
    display = EnergyHistogramDisplay.from_predictions(scores, score_name="nats")
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product([3, 2, 1], [2, 0])]
    assert display.auroc_ == {"new": pytest.approx(np.mean(pairs)), "same": 0.5}
    assert legend_texts(display.ax_) == ["known", "new (AUROC 0.750)", "same (AUROC 0.500)"]
    assert display.ax_.get_xlabel() == "nats"


def test_histograms_are_fractions_on_shared_bins_and_keep_clipped_rows():
    scores = {"known": np.r_[RNG.normal(size=999), -1e6], "new": RNG.normal(size=50) - 3}
    ax = EnergyHistogramDisplay(scores).plot(n_bins=20).ax_
    outlines = [patch for patch in ax.patches if not patch.get_fill()]
    assert len(outlines) == 2
    edges = [outline.get_data().edges for outline in outlines]
    np.testing.assert_array_equal(*edges)
    assert edges[0][0] > -100  # one far row does not set the range ...
    for outline in outlines:
        assert outline.get_data().values.sum() == pytest.approx(1.0)  # ... but is counted


def test_histograms_of_an_estimator_and_of_tensors():
    model = GaussianEnergy().fit(MOONS)
    groups = {"moons": MOONS, "far": MOONS + 5}
    display = EnergyHistogramDisplay.from_estimator(model, groups)
    np.testing.assert_array_equal(display.scores["far"], model.score_samples(MOONS + 5))
    assert display.auroc_["far"] == 1.0
    EnergyHistogramDisplay({"constant": torch.zeros(5)}).plot()


def test_histograms_and_curves_need_names():
    model, got = GaussianEnergy().fit(MOONS), 'such as {{"train": {}}}; got .* {}'
    for rows in (MOONS, pd.DataFrame(MOONS)):
        message = got.format("rows", type(rows).__name__)
        with pytest.raises(TypeError, match=f"groups must be a dictionary.*{message}"):
            EnergyHistogramDisplay.from_estimator(model, rows)
    message = f"scores must be a dictionary.*{got.format('scores', 'ndarray')}"
    with pytest.raises(TypeError, match=message):
        EnergyHistogramDisplay.from_predictions(MOONS[:, 0])
    with pytest.raises(TypeError, match=message):
        LearningCurveDisplay.from_estimator(model, scores=MOONS[:, 0])


@pytest.mark.parametrize("kind", [list, np.asarray, pd.Series])
def test_scores_without_names_are_refused_when_drawn(kind):
    message = f"scores must be a dictionary.*got an object of type {type(kind([1.0])).__name__}"
    with pytest.raises(TypeError, match=message):
        LearningCurveDisplay([1.0, 2.0], scores=kind([1.0, 2.0])).plot()
    with pytest.raises(TypeError, match=message):
        EnergyHistogramDisplay(kind([1.0, 2.0])).plot()


def test_columns_of_a_frame_are_scores():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 3.0]})
    model = BernoulliRBM(2, max_epochs=2, random_state=0).fit(IMAGES)
    display = LearningCurveDisplay.from_estimator(model, scores=frame)
    assert list(display.scores) == ["a", "b"]
    assert len(LearningCurveDisplay([1.0, 2.0], frame).plot().score_ax_.lines) == 2
    assert list(EnergyHistogramDisplay(frame).plot().auroc_) == ["b"]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "no group"),
        ({"a": []}, "'a' must be a non-empty vector"),
        ({"a": [1.0, np.nan]}, "1 are not finite"),
        ({"a": np.ones((2, 2))}, r"shape is \(2, 2\)"),
    ],
)
def test_histograms_refuse(scores, message):
    with pytest.raises(ValueError, match=message):
        EnergyHistogramDisplay.from_predictions(scores)


# ---------------------------------------------------------------- landscapes


def test_landscape_holds_the_free_energy_of_the_grid():
    model = EnergyGaussianMixture(4, random_state=0).fit(MOONS)
    display = EnergyLandscapeDisplay.from_estimator(model, MOONS, grid_resolution=20)
    point = np.array([[display.x[3], display.y[17]]])
    assert display.energy[17, 3] == pytest.approx(model.free_energy(point)[0])
    assert display.x[0] < MOONS[:, 0].min()
    assert display.y[-1] > MOONS[:, 1].max()


def test_without_a_free_energy_minus_the_score_is_drawn():
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(2, random_state=0).fit(MOONS)
    display = EnergyLandscapeDisplay.from_estimator(model, MOONS, grid_resolution=10)
    point = np.array([[display.x[0], display.y[0]]])
    assert display.energy[0, 0] == pytest.approx(-model.score_samples(point)[0])
    assert display.energy_name == "−score_samples of GaussianMixture"


def test_arrows_point_downhill():
    x = y = np.linspace(-1, 1, 33)
    bowl = np.add.outer(y**2, x**2)
    ax = EnergyLandscapeDisplay(x, y, bowl).plot(gradient=True).ax_
    (arrows,) = (part for part in ax.collections if type(part).__name__ == "Quiver")
    at, direction = arrows.get_offsets(), np.stack([arrows.U.ravel(), arrows.V.ravel()], axis=1)
    away = np.linalg.norm(at, axis=1) > 0.1
    assert ((at * direction).sum(axis=1)[away] < 0).all()


def test_landscape_draws_points_and_levels():
    x = y = np.linspace(-1, 1, 20)
    display = EnergyLandscapeDisplay(x, y, np.add.outer(y, x))
    display.plot(data=MOONS, samples=MOONS[:5], depth=1.0, n_levels=5)
    assert legend_texts(display.ax_) == ["data", "samples"]
    np.testing.assert_allclose(display.surface_.levels, np.linspace(-2, -1, 5))
    EnergyLandscapeDisplay(x, y, np.zeros((20, 20))).plot()  # flat


def test_landscape_refuses():
    model = GaussianEnergy().fit(IMAGES)
    with pytest.raises(ValueError, match=r"two axes, but X has shape \(40, 12\)"):
        EnergyLandscapeDisplay.from_estimator(model, IMAGES)
    with pytest.raises(ValueError, match=r"shape \(2, 3\), but the grid has 3 rows and 2"):
        EnergyLandscapeDisplay([0, 1], [0, 1, 2], np.zeros((2, 3))).plot()
    with pytest.raises(ValueError, match="not finite"):
        EnergyLandscapeDisplay([0, 1], [0, 1], [[0, 1], [2, np.inf]]).plot()


# ---------------------------------------------------------------- curves


def test_curves_of_a_fit():
    model = BernoulliRBM(4, max_epochs=3, validation_fraction=0.2, random_state=0).fit(IMAGES)
    display = LearningCurveDisplay.from_estimator(model, scores={"mine": [1.0, 2.0]})
    (loss,) = display.ax_.get_lines()
    np.testing.assert_array_equal(loss.get_xydata(), np.c_[[1, 2, 3], model.loss_curve_])
    held_out, mine = display.score_ax_.get_lines()
    np.testing.assert_array_equal(held_out.get_ydata(), model.validation_scores_)
    np.testing.assert_array_equal(mine.get_xdata(), [1, 2])


@pytest.mark.parametrize(
    ("model", "curve"),
    [
        (SparseCoder(4, max_iter=3, random_state=0), "energy_curve_"),
        (EnergyGaussianMixture(2, random_state=0), "lower_bounds_"),
    ],
)
def test_curves_of_iterations(model, curve):
    display = LearningCurveDisplay.from_estimator(model.fit(IMAGES))
    (line,) = display.ax_.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), getattr(model, curve))
    assert display.ax_.get_xlabel() == "iteration"
    assert display.ax_.get_ylabel() == f"{curve} of {type(model).__name__}"


def test_curves_of_a_pipeline_are_those_of_its_last_step():
    pipeline = make_pipeline(StandardScaler(), SparseCoder(4, max_iter=3, random_state=0))
    display = LearningCurveDisplay.from_estimator(pipeline.fit(IMAGES))
    assert display.ax_.get_ylabel() == "energy_curve_ of SparseCoder"


def test_curves_without_scores_have_one_axis():
    display = LearningCurveDisplay([3.0, 2.0, 1.0]).plot()
    assert display.score_ax_ is None
    assert len(display.figure_.axes) == 1


def test_curves_refuse():
    with pytest.raises(ValueError, match=r"none of loss_curve_, .* records no learning curve"):
        LearningCurveDisplay.from_estimator(PCAWhitener().fit(IMAGES))
    with pytest.raises(ValueError, match="no epoch"):
        LearningCurveDisplay([]).plot()


# ---------------------------------------------------------------- codes


def test_codes_by_label_number_or_neither():
    model = PCAWhitener(n_components=3).fit(IMAGES)
    codes, labels = model.transform(IMAGES), np.arange(40) % 3
    display = LatentDisplay.from_estimator(model, IMAGES, labels, components=(0, 2))
    assert legend_texts(display.ax_) == ["0", "1", "2"]
    np.testing.assert_allclose(
        display.ax_.collections[1].get_offsets(), codes[labels == 1][:, [0, 2]]
    )
    assert display.ax_.get_ylabel() == "component 2 of PCAWhitener"
    numbers = LatentDisplay(codes, IMAGES[:, 0]).plot()
    np.testing.assert_allclose(numbers.ax_.collections[0].get_array(), IMAGES[:, 0])
    assert LatentDisplay(codes).plot().ax_.get_legend() is None


def test_codes_refuse():
    with pytest.raises(ValueError, match=r"components=\(0, 1\) cannot be drawn"):
        LatentDisplay(np.ones((5, 1))).plot()
    with pytest.raises(ValueError, match="y has 2 values for 5 rows"):
        LatentDisplay(np.ones((5, 2)), [0, 1]).plot()


# ---------------------------------------------------------------- tables of images


@pytest.mark.parametrize("n_rows", [2, 40])
def test_reconstructions_stand_below_their_inputs(n_rows):
    model = PCAWhitener(n_components=5).fit(IMAGES)
    display = ReconstructionDisplay.from_estimator(model, IMAGES[:n_rows], image_shape=(3, 4))
    decoded = model.inverse_transform(model.transform(IMAGES[:n_rows]))
    drawn = images_of(display.ax_)
    assert len(drawn) == 3 * n_rows
    width = min(n_rows, 16)
    np.testing.assert_allclose(drawn[1], IMAGES[1].reshape(3, 4))
    np.testing.assert_allclose(drawn[2 * width + 1], decoded[1].reshape(3, 4))
    np.testing.assert_allclose(
        display.errors_, ((IMAGES[:n_rows] - decoded) ** 2).sum(1), rtol=1e-4
    )
    code = drawn[width + 1].ravel()
    np.testing.assert_allclose(code[:5], display.codes[1])
    assert np.isnan(code[5:]).all()
    names = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert names == ["input", "code", "output"] * (1 + (n_rows - 1) // 16)


def test_reconstructions_refuse():
    encoder = RandomTreesEmbedding(2, max_depth=2, random_state=0).fit(IMAGES)
    with pytest.raises(ValueError, match="RandomTreesEmbedding has no inverse_transform"):
        ReconstructionDisplay.from_estimator(encoder, IMAGES)
    with pytest.raises(ValueError, match="12 pixels do not make a square"):
        ReconstructionDisplay(IMAGES, IMAGES).plot()
    with pytest.raises(ValueError, match=r"\(2, 3\) means 6 pixels, but the rows have 12"):
        ReconstructionDisplay(IMAGES, IMAGES, image_shape=(2, 3)).plot()
    with pytest.raises(ValueError, match=r"\(40, 12\) and their reconstructions \(3, 12\)"):
        ReconstructionDisplay(IMAGES, IMAGES[:3], image_shape=(3, 4)).plot()


def test_chains_go_on_from_one_column_to_the_next():
    class Counter(EnergyKMeans):
        """Counts steps in every pixel."""

        def gibbs(self, X, n_steps, random_state):
            return X + n_steps

    model = Counter(2, random_state=0).fit(IMAGES)
    start = np.zeros((2, 12))
    display = SampleChainDisplay.from_estimator(
        model, start, steps=(0, 1, 10), image_shape=(3, 4), random_state=0
    )
    np.testing.assert_array_equal(display.states[:, 1, 5], [0, 1, 10])
    assert [image.flat[0] for image in images_of(display.ax_)] == [0, 1, 10] * 2
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["0", "1", "10"]


def test_chains_repeat_with_their_seed():
    model = BernoulliRBM(3, max_epochs=1, random_state=0).fit(IMAGES)
    bits = np.round(IMAGES[:3])
    settings = {"steps": (1, 5), "image_shape": (3, 4)}
    one, same, other = (
        SampleChainDisplay.from_estimator(model, bits, random_state=seed, **settings).states
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_chains_refuse():
    with pytest.raises(ValueError, match="has no gibbs"):
        SampleChainDisplay.from_estimator(PCAWhitener().fit(IMAGES), IMAGES)
    with pytest.raises(ValueError, match=r"steps=\(0, 0\) must ascend"):
        SampleChainDisplay(np.ones((2, 1, 4)), (0, 0)).plot()
    with pytest.raises(ValueError, match=r"\(2, 1, 4\): it must be .* n_times=3"):
        SampleChainDisplay(np.ones((2, 1, 4)), (0, 1, 2)).plot()


# ---------------------------------------------------------------- all


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: EnergyHistogramDisplay({"a": [1.0, 2.0]}).plot(ax),
        lambda ax: EnergyLandscapeDisplay([0, 1], [0, 1], [[0, 1], [2, 3]]).plot(ax),
        lambda ax: LearningCurveDisplay([1.0]).plot(ax),
        lambda ax: LatentDisplay(IMAGES).plot(ax),
        lambda ax: ReconstructionDisplay(IMAGES, IMAGES, image_shape=(3, 4)).plot(ax),
        lambda ax: SampleChainDisplay(np.ones((1, 2, 4)), [0]).plot(ax),
    ],
)
def test_axes_that_are_given_are_drawn_on(draw):
    _, ax = pyplot.subplots()
    display = draw(ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert ax.has_data()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: EnergyHistogramDisplay.from_estimator(GaussianEnergy(), {"a": MOONS}),
        lambda: EnergyLandscapeDisplay.from_estimator(GaussianEnergy(), MOONS),
        lambda: LearningCurveDisplay.from_estimator(BernoulliRBM()),
        lambda: LatentDisplay.from_estimator(PCAWhitener(), MOONS),
        lambda: ReconstructionDisplay.from_estimator(PCAWhitener(), MOONS),
        lambda: SampleChainDisplay.from_estimator(BernoulliRBM(), MOONS),
    ],
)
def test_estimators_must_be_fitted(draw):
    with pytest.raises(NotFittedError):
        draw()
