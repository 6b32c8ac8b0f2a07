"""Adversarial energies: a generator of rows, and a critic that tells them from data."""

from sklebm.adversarial.energy_gan import EnergyGAN

__all__ = ["EnergyGAN"]
