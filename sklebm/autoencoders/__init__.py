"""Auto-encoders: energies of reconstruction, with and without a density."""

from sklebm.autoencoders.autoencoder import Autoencoder
from sklebm.autoencoders.vae import VAE

__all__ = ["VAE", "Autoencoder"]
