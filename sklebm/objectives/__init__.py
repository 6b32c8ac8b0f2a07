"""Training objectives, which shape the energy surface, in pure torch."""

from sklebm.objectives.base import Batch, Objective, check_needs, check_weights, resolve_objective
from sklebm.objectives.code_prediction import CodePrediction
from sklebm.objectives.conditional_contrastive import ConditionalNoiseContrastive
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
from sklebm.objectives.fast_persistent import FastPersistentContrastiveDivergence
from sklebm.objectives.label_losses import (
    ConditionalLikelihood,
    HingeLoss,
    LabelNoiseContrastive,
    PerceptronLoss,
    SquareExponentialLoss,
)
from sklebm.objectives.length_likelihood import LengthLikelihood
from sklebm.objectives.maximum_likelihood import MaximumLikelihood
from sklebm.objectives.mean_field_divergence import (
    MeanFieldContrastiveDivergence,
    MeanFieldShortChains,
)
from sklebm.objectives.minimum_probability_flow import MinimumProbabilityFlow
from sklebm.objectives.noise_contrastive import NoiseContrastive, ReferenceNoiseContrastive
from sklebm.objectives.penalties import (
    ContractiveReconstruction,
    SaturatingReconstruction,
    SparseReconstruction,
)
from sklebm.objectives.predictive_decomposition import (
    ConvolutionalDecomposition,
    PredictiveDecomposition,
)
from sklebm.objectives.pseudo_likelihood import PseudoLikelihood
from sklebm.objectives.ratio_matching import RatioMatching
from sklebm.objectives.reconstruction import ReconstructionError
from sklebm.objectives.sampled_divergence import (
    SampledContrastiveDivergence,
    SampledPersistentContrastiveDivergence,
)
from sklebm.objectives.score_matching import (
    DenoisingScoreMatching,
    ScoreMatching,
    SlicedScoreMatching,
)
from sklebm.objectives.target_losses import (
    TargetLikelihood,
    TargetNoiseContrastive,
    TargetScoreMatching,
)
from sklebm.objectives.tempered_persistent import TemperedPersistentContrastiveDivergence
from sklebm.objectives.up_down import UpDown
from sklebm.objectives.variational_noise_contrastive import (
    VariationalNoiseContrastive,
    VariationalReferenceNoiseContrastive,
)

__all__ = [
    "Batch",
    "CodePrediction",
    "ConditionalLikelihood",
    "ConditionalNoiseContrastive",
    "ContractiveReconstruction",
    "ContrastiveDivergence",
    "ConvolutionalDecomposition",
    "DenoisingError",
    "DenoisingScoreMatching",
    "DiscreteEvidenceLowerBound",
    "DoublyReparametrizedBound",
    "EvidenceLowerBound",
    "FastPersistentContrastiveDivergence",
    "HingeLoss",
    "ImportanceWeightedBound",
    "LabelNoiseContrastive",
    "LengthLikelihood",
    "MaskedError",
    "MaximumLikelihood",
    "MeanFieldContrastiveDivergence",
    "MeanFieldShortChains",
    "MinimumProbabilityFlow",
    "NoiseContrastive",
    "Objective",
    "PerceptronLoss",
    "PersistentContrastiveDivergence",
    "PredictiveDecomposition",
    "PseudoLikelihood",
    "RatioMatching",
    "ReconstructionError",
    "ReferenceNoiseContrastive",
    "SampledContrastiveDivergence",
    "SampledPersistentContrastiveDivergence",
    "SaturatingReconstruction",
    "ScoreMatching",
    "SlicedScoreMatching",
    "SparseReconstruction",
    "SquareExponentialLoss",
    "TargetLikelihood",
    "TargetNoiseContrastive",
    "TargetScoreMatching",
    "TemperedPersistentContrastiveDivergence",
    "UpDown",
    "VariationalNoiseContrastive",
    "VariationalReferenceNoiseContrastive",
    "check_needs",
    "check_weights",
    "resolve_objective",
]
