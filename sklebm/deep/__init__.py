"""Deep energies: networks trained by objectives for unnormalised densities."""

from sklebm.deep.deep_energy_model import DeepEnergyModel

__all__ = ["DeepEnergyModel"]
