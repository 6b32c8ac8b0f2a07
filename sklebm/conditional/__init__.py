"""Conditional energies F(x, y): classifiers and regressors whose answer is the y of low energy."""

from sklebm.conditional.energy_classifier import EnergyClassifier
from sklebm.conditional.energy_regressor import EnergyRegressor
from sklebm.conditional.latent_variable_regressor import LatentVariableRegressor

__all__ = ["EnergyClassifier", "EnergyRegressor", "LatentVariableRegressor"]
