"""Energy-based models as scikit-learn estimators.

Every model gives low energy to points that look like its training data. The table below is the
one registry of public names: importing ``sklebm`` is cheap, and each name is loaded when it is
first used. ``sklebm.load``, the documentation and the tests read the same table.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# Estimator -> the family (a subpackage) that defines it.
ESTIMATORS: dict[str, str] = {
    "Autoencoder": "sklebm.autoencoders",
    "BernoulliRBM": "sklebm.boltzmann",
    "ChainCRF": "sklebm.structured",
    "GridMRF": "sklebm.structured",
    "BoltzmannMachine": "sklebm.boltzmann",
    "ContractiveAutoencoder": "sklebm.autoencoders",
    "ConvPredictiveSparseDecomposition": "sklebm.coding",
    "ConvSparseCoder": "sklebm.coding",
    "DeconvolutionalNetwork": "sklebm.coding",
    "DeepBeliefNetwork": "sklebm.boltzmann",
    "DeepBoltzmannMachine": "sklebm.boltzmann",
    "ContrastiveEmbedding": "sklebm.embedding",
    "DeepEnergyModel": "sklebm.deep",
    "DeepSparseCoder": "sklebm.coding",
    "DenoisingAutoencoder": "sklebm.autoencoders",
    "EnergyGAN": "sklebm.adversarial",
    "EnergyClassifier": "sklebm.conditional",
    "EnergyGaussianMixture": "sklebm.mixture",
    "EnergyKMeans": "sklebm.mixture",
    "EnergyOutlierDetector": "sklebm.outliers",
    "EnergyPCA": "sklebm.linear",
    "EnergyRegressor": "sklebm.conditional",
    "GAN": "sklebm.adversarial",
    "GaussianEnergy": "sklebm.linear",
    "GatedBM": "sklebm.boltzmann",
    "GaussianRBM": "sklebm.boltzmann",
    "HopfieldNetwork": "sklebm.boltzmann",
    "InputComplexityScorer": "sklebm.outliers",
    "LISTAEncoder": "sklebm.coding",
    "LatentDirichletAllocation": "sklebm.topics",
    "LatentVariableRegressor": "sklebm.conditional",
    "LikelihoodRatioScorer": "sklebm.outliers",
    "LikelihoodRegretScorer": "sklebm.outliers",
    "LinearizingAutoencoder": "sklebm.temporal",
    "LogitEnergyScorer": "sklebm.outliers",
    "MaskedAutoencoder": "sklebm.autoencoders",
    "MeanCovarianceRBM": "sklebm.boltzmann",
    "NeighbourEnergy": "sklebm.outliers",
    "PCAWhitener": "sklebm.linear",
    "PLSA": "sklebm.topics",
    "PredictiveSparseDecomposition": "sklebm.coding",
    "SaturatingAutoencoder": "sklebm.autoencoders",
    "SemiRestrictedBM": "sklebm.boltzmann",
    "SequenceEnergy": "sklebm.temporal",
    "SlowFeatureAutoencoder": "sklebm.temporal",
    "SparseAutoencoder": "sklebm.autoencoders",
    "ReplicatedSoftmax": "sklebm.boltzmann",
    "SparseCoder": "sklebm.coding",
    "SubspaceICA": "sklebm.linear",
    "TypicalityScorer": "sklebm.outliers",
    "VAE": "sklebm.autoencoders",
    "ZCAWhitener": "sklebm.linear",
}

# Frozen dataclasses that estimators take as parameters -> their home. ``load`` accepts no others.
PARTS: dict[str, str] = {
    "BlockGibbs": "sklebm.inference.gibbs",
    "ConditionalLikelihood": "sklebm.objectives",
    "ConditionalNoiseContrastive": "sklebm.objectives",
    "ConstantRate": "sklebm.training.schedules",
    "ContrastiveDivergence": "sklebm.objectives",
    "CosineDecay": "sklebm.training.schedules",
    "DenoisingScoreMatching": "sklebm.objectives",
    "DiscreteEvidenceLowerBound": "sklebm.objectives",
    "DoublyReparametrizedBound": "sklebm.objectives",
    "ElasticNet": "sklebm.energies",
    "EvidenceLowerBound": "sklebm.objectives",
    "FastPersistentContrastiveDivergence": "sklebm.objectives",
    "FeatureCorruption": "sklebm.inference.views",
    "GibbsLangevin": "sklebm.inference.gibbs_langevin",
    "GibbsSweeps": "sklebm.inference.gibbs_sweeps",
    "GroupL2": "sklebm.energies",
    "Groups": "sklebm.inference.views",
    "HMC": "sklebm.inference.hamiltonian",
    "HingeLoss": "sklebm.objectives",
    "ImageAugmentation": "sklebm.inference.image_views",
    "ImportanceWeightedBound": "sklebm.objectives",
    "InfoNCE": "sklebm.objectives.embedding",
    "L0": "sklebm.energies",
    "L1": "sklebm.energies",
    "LabelNoiseContrastive": "sklebm.objectives",
    "Labels": "sklebm.inference.views",
    "Langevin": "sklebm.inference.langevin",
    "LateralInhibition": "sklebm.energies",
    "LeastSquares": "sklebm.objectives.adversarial",
    "LinearDecay": "sklebm.training.schedules",
    "Lq": "sklebm.energies",
    "MALA": "sklebm.inference.langevin",
    "MarginContrast": "sklebm.objectives.embedding",
    "MaximumLikelihood": "sklebm.objectives",
    "MeanFieldContrastiveDivergence": "sklebm.objectives",
    "MeanFieldShortChains": "sklebm.objectives",
    "MemoryBank": "sklebm.objectives.embedding_memory",
    "MinimumProbabilityFlow": "sklebm.objectives",
    "MomentumQueue": "sklebm.objectives.embedding_memory",
    "Neighbours": "sklebm.inference.views",
    "NonSaturating": "sklebm.objectives.adversarial",
    "NoiseContrastive": "sklebm.objectives",
    "NonMonotoneDecay": "sklebm.training.schedules",
    "NonNegativeL1": "sklebm.energies",
    "ParallelTempering": "sklebm.inference.parallel_tempering",
    "PerceptronLoss": "sklebm.objectives",
    "PersistentContrastiveDivergence": "sklebm.objectives",
    "PseudoLikelihood": "sklebm.objectives",
    "RatioMatching": "sklebm.objectives",
    "ReferenceNoiseContrastive": "sklebm.objectives",
    "SampledContrastiveDivergence": "sklebm.objectives",
    "SampledPersistentContrastiveDivergence": "sklebm.objectives",
    "ScoreMatching": "sklebm.objectives",
    "SlicedScoreMatching": "sklebm.objectives",
    "SquareExponentialLoss": "sklebm.objectives",
    "TargetLikelihood": "sklebm.objectives",
    "TargetNoiseContrastive": "sklebm.objectives",
    "TargetScoreMatching": "sklebm.objectives",
    "TemperedPersistentContrastiveDivergence": "sklebm.objectives",
    "TopK": "sklebm.energies",
    "Topographic": "sklebm.energies",
    "TripletMargin": "sklebm.objectives.embedding",
    "VariationalNoiseContrastive": "sklebm.objectives",
    "VariationalReferenceNoiseContrastive": "sklebm.objectives",
    "WassersteinPenalty": "sklebm.objectives.adversarial",
}

# Other public names of the top level.
FUNCTIONS: dict[str, str] = {
    "load": "sklebm.persistence",
    "save": "sklebm.persistence",
    "window_features": "sklebm.structured.windows",
}

_SUBMODULES = (
    "adversarial",
    "autoencoders",
    "boltzmann",
    "callbacks",
    "coding",
    "conditional",
    "datasets",
    "deep",
    "embedding",
    "energies",
    "linear",
    "metrics",
    "mixture",
    "outliers",
    "persistence",
    "plotting",
    "structured",
    "temporal",
    "topics",
)

__all__ = sorted([*ESTIMATORS, *FUNCTIONS, *_SUBMODULES, "__version__"])

if TYPE_CHECKING:
    from sklebm.adversarial import GAN as GAN
    from sklebm.adversarial import EnergyGAN as EnergyGAN
    from sklebm.autoencoders import VAE as VAE
    from sklebm.autoencoders import Autoencoder as Autoencoder
    from sklebm.autoencoders import ContractiveAutoencoder as ContractiveAutoencoder
    from sklebm.autoencoders import DenoisingAutoencoder as DenoisingAutoencoder
    from sklebm.autoencoders import MaskedAutoencoder as MaskedAutoencoder
    from sklebm.autoencoders import SaturatingAutoencoder as SaturatingAutoencoder
    from sklebm.autoencoders import SparseAutoencoder as SparseAutoencoder
    from sklebm.boltzmann import BernoulliRBM as BernoulliRBM
    from sklebm.boltzmann import BoltzmannMachine as BoltzmannMachine
    from sklebm.boltzmann import DeepBeliefNetwork as DeepBeliefNetwork
    from sklebm.boltzmann import DeepBoltzmannMachine as DeepBoltzmannMachine
    from sklebm.boltzmann import GatedBM as GatedBM
    from sklebm.boltzmann import GaussianRBM as GaussianRBM
    from sklebm.boltzmann import HopfieldNetwork as HopfieldNetwork
    from sklebm.boltzmann import MeanCovarianceRBM as MeanCovarianceRBM
    from sklebm.boltzmann import ReplicatedSoftmax as ReplicatedSoftmax
    from sklebm.boltzmann import SemiRestrictedBM as SemiRestrictedBM
    from sklebm.coding import ConvPredictiveSparseDecomposition as ConvPredictiveSparseDecomposition
    from sklebm.coding import ConvSparseCoder as ConvSparseCoder
    from sklebm.coding import DeconvolutionalNetwork as DeconvolutionalNetwork
    from sklebm.coding import DeepSparseCoder as DeepSparseCoder
    from sklebm.coding import LISTAEncoder as LISTAEncoder
    from sklebm.coding import PredictiveSparseDecomposition as PredictiveSparseDecomposition
    from sklebm.coding import SparseCoder as SparseCoder
    from sklebm.conditional import EnergyClassifier as EnergyClassifier
    from sklebm.conditional import EnergyRegressor as EnergyRegressor
    from sklebm.conditional import LatentVariableRegressor as LatentVariableRegressor
    from sklebm.deep import DeepEnergyModel as DeepEnergyModel
    from sklebm.embedding import ContrastiveEmbedding as ContrastiveEmbedding
    from sklebm.linear import EnergyPCA as EnergyPCA
    from sklebm.linear import GaussianEnergy as GaussianEnergy
    from sklebm.linear import PCAWhitener as PCAWhitener
    from sklebm.linear import SubspaceICA as SubspaceICA
    from sklebm.linear import ZCAWhitener as ZCAWhitener
    from sklebm.mixture import EnergyGaussianMixture as EnergyGaussianMixture
    from sklebm.mixture import EnergyKMeans as EnergyKMeans
    from sklebm.outliers import EnergyOutlierDetector as EnergyOutlierDetector
    from sklebm.outliers import InputComplexityScorer as InputComplexityScorer
    from sklebm.outliers import LikelihoodRatioScorer as LikelihoodRatioScorer
    from sklebm.outliers import LikelihoodRegretScorer as LikelihoodRegretScorer
    from sklebm.outliers import LogitEnergyScorer as LogitEnergyScorer
    from sklebm.outliers import NeighbourEnergy as NeighbourEnergy
    from sklebm.outliers import TypicalityScorer as TypicalityScorer
    from sklebm.persistence import load as load
    from sklebm.persistence import save as save
    from sklebm.structured import ChainCRF as ChainCRF
    from sklebm.structured import GridMRF as GridMRF
    from sklebm.structured.windows import window_features as window_features
    from sklebm.temporal import LinearizingAutoencoder as LinearizingAutoencoder
    from sklebm.temporal import SequenceEnergy as SequenceEnergy
    from sklebm.temporal import SlowFeatureAutoencoder as SlowFeatureAutoencoder
    from sklebm.topics import PLSA as PLSA
    from sklebm.topics import LatentDirichletAllocation as LatentDirichletAllocation


def __getattr__(name: str) -> Any:
    home = ESTIMATORS.get(name) or FUNCTIONS.get(name)
    if home is not None:
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value  # the next look-up is a plain attribute access
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    import difflib  # only a mistake needs it

    near = [] if name.startswith("_") else difflib.get_close_matches(name, __all__, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    # Without obj, for which Python would suggest a name a second time; notebooks suggest none.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)


def __dir__() -> list[str]:
    return __all__
