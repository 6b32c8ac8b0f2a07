"""Auto-encoders: reconstruction energies, with and without a density."""

from sklebm.autoencoders.autoencoder import Autoencoder
from sklebm.autoencoders.contractive_autoencoder import ContractiveAutoencoder
from sklebm.autoencoders.denoising_autoencoder import DenoisingAutoencoder
from sklebm.autoencoders.masked_autoencoder import MaskedAutoencoder
from sklebm.autoencoders.saturating_autoencoder import SaturatingAutoencoder
from sklebm.autoencoders.sparse_autoencoder import SparseAutoencoder
from sklebm.autoencoders.vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "ContractiveAutoencoder",
    "DenoisingAutoencoder",
    "MaskedAutoencoder",
    "SaturatingAutoencoder",
    "SparseAutoencoder",
]
