"""Outlier detection: energies with a threshold, and scores beyond raw likelihood."""

from sklebm.outliers.energy_outlier_detector import EnergyOutlierDetector
from sklebm.outliers.input_complexity_scorer import InputComplexityScorer
from sklebm.outliers.likelihood_ratio_scorer import LikelihoodRatioScorer
from sklebm.outliers.likelihood_regret_scorer import LikelihoodRegretScorer
from sklebm.outliers.logit_energy_scorer import LogitEnergyScorer
from sklebm.outliers.neighbour_energy import NeighbourEnergy
from sklebm.outliers.typicality_scorer import TypicalityScorer

__all__ = [
    "EnergyOutlierDetector",
    "InputComplexityScorer",
    "LikelihoodRatioScorer",
    "LikelihoodRegretScorer",
    "LogitEnergyScorer",
    "NeighbourEnergy",
    "TypicalityScorer",
]
