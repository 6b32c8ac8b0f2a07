"""Conditional energies F(x, y): classifiers and regressors whose answer is the y of low energy."""

from sklebm.conditional.energy_classifier import EnergyClassifier
from sklebm.conditional.energy_regressor import EnergyRegressor

__all__ = ["EnergyClassifier", "EnergyRegressor"]
