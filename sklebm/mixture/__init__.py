"""Energies with a discrete latent: clusters and mixtures."""

from sklebm.mixture.energy_gaussian_mixture import EnergyGaussianMixture
from sklebm.mixture.energy_kmeans import EnergyKMeans

__all__ = ["EnergyGaussianMixture", "EnergyKMeans"]
