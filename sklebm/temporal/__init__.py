"""Models of sequences: the surprise of each step, slow features, linearised paths."""

from sklebm.temporal.sequence_energy import SequenceEnergy

__all__ = ["SequenceEnergy"]
