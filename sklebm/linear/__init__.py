"""Linear energies and preprocessing: PCA, ICA, whiteners, and Gaussians by their precision."""

from sklebm.linear.energy_pca import EnergyPCA
from sklebm.linear.gaussian_energy import GaussianEnergy
from sklebm.linear.pca_whitener import PCAWhitener
from sklebm.linear.subspace_ica import SubspaceICA
from sklebm.linear.zca_whitener import ZCAWhitener

__all__ = ["EnergyPCA", "GaussianEnergy", "PCAWhitener", "SubspaceICA", "ZCAWhitener"]
