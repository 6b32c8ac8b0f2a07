"""Adversarial energies: a generator of rows, and a critic that tells them from data."""

from sklebm.adversarial.energy_gan import EnergyGAN
from sklebm.adversarial.gan import GAN

__all__ = ["GAN", "EnergyGAN"]
