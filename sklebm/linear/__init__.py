"""Linear energies and preprocessing: whiteners."""

from sklebm.linear.pca_whitener import PCAWhitener
from sklebm.linear.zca_whitener import ZCAWhitener

__all__ = ["PCAWhitener", "ZCAWhitener"]
