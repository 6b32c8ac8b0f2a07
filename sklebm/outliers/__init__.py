"""Outlier detection: energies with a threshold, alone or several on one scale."""

from sklebm.outliers.energy_outlier_detector import EnergyOutlierDetector

__all__ = ["EnergyOutlierDetector"]
