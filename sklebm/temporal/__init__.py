"""Models of sequences: the surprise of each step, given those before it."""

from sklebm.temporal.sequence_energy import SequenceEnergy

__all__ = ["SequenceEnergy"]
