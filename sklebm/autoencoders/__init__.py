"""Auto-encoders: energies of reconstruction, with and without a density."""

from sklebm.autoencoders.autoencoder import Autoencoder

__all__ = ["Autoencoder"]
