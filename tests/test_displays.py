"""Every display draws every estimator, or says what the estimator lacks."""

import re

import matplotlib
import pytest

from sklebm.plotting import (
    ComponentsDisplay,
    EnergyHistogramDisplay,
    LatentDisplay,
    LearningCurveDisplay,
    ReconstructionDisplay,
)
from tests.registry import NAMES, make_brief, make_rows

matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

TILES = {"image_shape": (2, 3)}
DRAW = {
    "components": lambda model, X: ComponentsDisplay.from_estimator(model, **TILES),
    "energy histogram": lambda model, X: EnergyHistogramDisplay.from_estimator(
        model, {"some": X[:20], "others": X[20:40]}
    ),
    "latent": LatentDisplay.from_estimator,
    "learning curve": lambda model, X: LearningCurveDisplay.from_estimator(model),
    "reconstruction": lambda model, X: ReconstructionDisplay.from_estimator(model, X[:5], **TILES),
}
# What an estimator may lack, in the words of the errors.
LACKS = (
    "has none of the attributes|pixels do not make|has no transform|has no inverse_transform|"
    "has none of loss_curve_|pixels, but the"
)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_displays_draw_or_say_what_is_lacking(name):
    X = make_rows()
    model = make_brief(name).fit(X)
    drawn, refusals = [], []
    for display, draw in DRAW.items():
        try:
            draw(model, X).figure_.canvas.draw()
            drawn.append(display)
        except ValueError as error:
            refusals.append(f"{display}: {error}")
        finally:
            pyplot.close("all")
    assert [line for line in refusals if not re.search(LACKS, line)] == []
    assert "energy histogram" in drawn
    assert hasattr(model, "transform") == ("latent" in drawn)
