"""WHAT is low: energies as pure torch modules, without scikit-learn or skorch."""

from sklebm.energies.gaussian import QuadraticEnergy
from sklebm.energies.prototypes import PrototypeEnergy

__all__ = ["PrototypeEnergy", "QuadraticEnergy"]
