"""Models of sequences: the surprise of each step, slow features, and paths of codes."""

from sklebm.temporal.linearizing_autoencoder import LinearizingAutoencoder
from sklebm.temporal.sequence_energy import SequenceEnergy
from sklebm.temporal.slow_feature_autoencoder import SlowFeatureAutoencoder

__all__ = ["LinearizingAutoencoder", "SequenceEnergy", "SlowFeatureAutoencoder"]
