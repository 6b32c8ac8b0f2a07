"""Deep energies: a network shapes the surface, an objective for unnormalised densities fits it."""

from sklebm.deep.deep_energy_model import DeepEnergyModel

__all__ = ["DeepEnergyModel"]
