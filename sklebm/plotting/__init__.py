"""Displays in scikit-learn's form (``from_estimator``, ``plot``, ``ax_``, ``figure_``).

matplotlib is imported only when something is drawn: ``pip install sklebm[plot]``.
"""

from sklebm.plotting.components import ComponentsDisplay
from sklebm.plotting.energy_histogram import EnergyHistogramDisplay
from sklebm.plotting.energy_landscape import EnergyLandscapeDisplay
from sklebm.plotting.gradient_flow import GradientFlowDisplay
from sklebm.plotting.latent import LatentDisplay
from sklebm.plotting.learning_curve import LearningCurveDisplay
from sklebm.plotting.reconstruction import ReconstructionDisplay
from sklebm.plotting.sample_chain import SampleChainDisplay

__all__ = [
    "ComponentsDisplay",
    "EnergyHistogramDisplay",
    "EnergyLandscapeDisplay",
    "GradientFlowDisplay",
    "LatentDisplay",
    "LearningCurveDisplay",
    "ReconstructionDisplay",
    "SampleChainDisplay",
]
