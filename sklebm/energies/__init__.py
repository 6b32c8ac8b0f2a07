"""WHAT is low: energies as pure torch modules, without scikit-learn or skorch."""

from sklebm.energies.bilinear import BilinearEnergy
from sklebm.energies.gaussian import QuadraticEnergy
from sklebm.energies.gaussian_mixture import GaussianMixture, GaussianMixtureEnergy
from sklebm.energies.precision import PrecisionEnergy
from sklebm.energies.prototypes import PrototypeEnergy
from sklebm.energies.reconstruction import ReconstructionEnergy
from sklebm.energies.units import Bernoulli

__all__ = [
    "Bernoulli",
    "BilinearEnergy",
    "GaussianMixture",
    "GaussianMixtureEnergy",
    "PrecisionEnergy",
    "PrototypeEnergy",
    "QuadraticEnergy",
    "ReconstructionEnergy",
]
