"""The display of gradients through time: lags count back from the last loss."""

import matplotlib
import numpy as np
import pytest

from sklebm import SequenceEnergy
from sklebm.plotting import GradientFlowDisplay

matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def test_curves_are_means_over_sequences_by_lag():
    X = np.random.default_rng(0).normal(size=(11, 2))
    groups = [0] * 5 + [1] * 3 + [2] * 3
    model = SequenceEnergy(3, cell="rnn", max_epochs=1, random_state=0).fit(X, groups=groups)
    flow = model.gradient_flow(X, groups)
    display = GradientFlowDisplay.from_estimator(model, X, groups)
    np.testing.assert_array_equal(display.lags, [1, 2, 3, 4])
    expected = [flow[[3, 6, 9]].mean(), flow[[2, 5, 8]].mean(), flow[1], flow[0]]
    np.testing.assert_allclose(display.norms, expected)
    np.testing.assert_allclose(display.ax_.lines[0].get_ydata(), expected)
    assert display.ax_.get_yscale() == "log"
    assert display.figure_ is display.ax_.figure
    other = GradientFlowDisplay.from_estimator(model, X, groups, ax=display.ax_, name="again")
    assert [text.get_text() for text in other.ax_.get_legend().get_texts()] == ["rnn", "again"]


def test_single_steps_have_no_gradient_to_draw():
    model = SequenceEnergy(3, max_epochs=1, random_state=0).fit(np.eye(2), groups=[0, 1])
    with pytest.raises(ValueError, match="no sequence has more than one step"):
        GradientFlowDisplay.from_estimator(model, np.eye(2), [0, 1])
