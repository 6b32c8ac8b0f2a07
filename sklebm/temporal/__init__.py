"""Models of sequences: the surprise of each step given those before it, and slow features."""

from sklebm.temporal.sequence_energy import SequenceEnergy
from sklebm.temporal.slow_feature_autoencoder import SlowFeatureAutoencoder

__all__ = ["SequenceEnergy", "SlowFeatureAutoencoder"]
