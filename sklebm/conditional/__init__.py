"""Conditional energies F(x, y): classifiers and regressors whose answer is the y of low energy."""

from sklebm.conditional.energy_classifier import EnergyClassifier

__all__ = ["EnergyClassifier"]
