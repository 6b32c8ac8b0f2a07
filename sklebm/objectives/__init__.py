"""How the energy surface is SHAPED: training objectives, in pure torch."""

from sklebm.objectives.base import Objective, check_needs, resolve_objective
from sklebm.objectives.contrastive_divergence import (
    ContrastiveDivergence,
    PersistentContrastiveDivergence,
)
from sklebm.objectives.discrete_evidence import DiscreteEvidenceLowerBound
from sklebm.objectives.evidence import (
    DoublyReparametrizedBound,
    EvidenceLowerBound,
    ImportanceWeightedBound,
)
from sklebm.objectives.maximum_likelihood import MaximumLikelihood
from sklebm.objectives.reconstruction import ReconstructionError

__all__ = [
    "ContrastiveDivergence",
    "DiscreteEvidenceLowerBound",
    "DoublyReparametrizedBound",
    "EvidenceLowerBound",
    "ImportanceWeightedBound",
    "MaximumLikelihood",
    "Objective",
    "PersistentContrastiveDivergence",
    "ReconstructionError",
    "check_needs",
    "resolve_objective",
]
