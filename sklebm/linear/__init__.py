"""Linear energies and preprocessing: whiteners, and Gaussians by their precision."""

from sklebm.linear.gaussian_energy import GaussianEnergy
from sklebm.linear.pca_whitener import PCAWhitener
from sklebm.linear.zca_whitener import ZCAWhitener

__all__ = ["GaussianEnergy", "PCAWhitener", "ZCAWhitener"]
