"""How the energy surface is SHAPED: training objectives, in pure torch."""

from sklebm.objectives.base import Objective, check_needs, resolve_objective
from sklebm.objectives.contrastive_divergence import (
    ContrastiveDivergence,
    PersistentContrastiveDivergence,
)
from sklebm.objectives.denoising import DenoisingError, MaskedError
from sklebm.objectives.discrete_evidence import DiscreteEvidenceLowerBound
from sklebm.objectives.evidence import (
    DoublyReparametrizedBound,
    EvidenceLowerBound,
    ImportanceWeightedBound,
)
from sklebm.objectives.maximum_likelihood import MaximumLikelihood
from sklebm.objectives.penalties import (
    ContractiveReconstruction,
    SaturatingReconstruction,
    SparseReconstruction,
)
from sklebm.objectives.reconstruction import ReconstructionError

__all__ = [
    "ContractiveReconstruction",
    "ContrastiveDivergence",
    "DenoisingError",
    "DiscreteEvidenceLowerBound",
    "DoublyReparametrizedBound",
    "EvidenceLowerBound",
    "ImportanceWeightedBound",
    "MaskedError",
    "MaximumLikelihood",
    "Objective",
    "PersistentContrastiveDivergence",
    "ReconstructionError",
    "SaturatingReconstruction",
    "SparseReconstruction",
    "check_needs",
    "resolve_objective",
]
