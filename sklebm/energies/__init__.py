"""Energies, which define what is low, as pure torch modules without scikit-learn or skorch."""

from sklebm.energies.amortized import AmortizedEnergy
from sklebm.energies.belief import DeepBeliefEnergy, DirectedLayer
from sklebm.energies.bilinear import BilinearEnergy
from sklebm.energies.gaussian import QuadraticEnergy
from sklebm.energies.gaussian_bilinear import GaussianBilinearEnergy
from sklebm.energies.gaussian_mixture import GaussianMixture, GaussianMixtureEnergy
from sklebm.energies.independent_subspaces import IndependentSubspaceEnergy
from sklebm.energies.layered import LayeredEnergy
from sklebm.energies.likelihoods import BernoulliLikelihood, GaussianLikelihood
from sklebm.energies.masked import MaskedReconstructionEnergy
from sklebm.energies.neighbours import NeighbourDistance
from sklebm.energies.pairwise import PairwiseEnergy
from sklebm.energies.penalties import (
    L0,
    L1,
    ElasticNet,
    GroupL2,
    LateralInhibition,
    Lq,
    NonNegativeL1,
    Penalty,
    TopK,
    Topographic,
)
from sklebm.energies.posteriors import BernoulliPosterior, DiagonalGaussian, FullGaussian
from sklebm.energies.precision import PrecisionEnergy
from sklebm.energies.prototypes import PrototypeEnergy
from sklebm.energies.reconstruction import ReconstructionEnergy
from sklebm.energies.replicated_softmax import ReplicatedSoftmaxEnergy
from sklebm.energies.sparse_coding import (
    EncodedSparseCodingEnergy,
    PredictiveSparseCodingEnergy,
    SparseCodingEnergy,
)
from sklebm.energies.subspace import SubspaceEnergy
from sklebm.energies.topics import DirichletTopicEnergy, TopicEnergy
from sklebm.energies.units import Bernoulli, Gaussian, Units
from sklebm.energies.variational import BernoulliLatentEnergy, GaussianLatentEnergy

__all__ = [
    "L0",
    "L1",
    "AmortizedEnergy",
    "Bernoulli",
    "BernoulliLatentEnergy",
    "BernoulliLikelihood",
    "BernoulliPosterior",
    "BilinearEnergy",
    "DeepBeliefEnergy",
    "DiagonalGaussian",
    "DirectedLayer",
    "DirichletTopicEnergy",
    "ElasticNet",
    "EncodedSparseCodingEnergy",
    "FullGaussian",
    "Gaussian",
    "GaussianBilinearEnergy",
    "GaussianLatentEnergy",
    "GaussianLikelihood",
    "GaussianMixture",
    "GaussianMixtureEnergy",
    "GroupL2",
    "IndependentSubspaceEnergy",
    "LateralInhibition",
    "LayeredEnergy",
    "Lq",
    "MaskedReconstructionEnergy",
    "NeighbourDistance",
    "NonNegativeL1",
    "PairwiseEnergy",
    "Penalty",
    "PrecisionEnergy",
    "PredictiveSparseCodingEnergy",
    "PrototypeEnergy",
    "QuadraticEnergy",
    "ReconstructionEnergy",
    "ReplicatedSoftmaxEnergy",
    "SparseCodingEnergy",
    "SubspaceEnergy",
    "TopK",
    "TopicEnergy",
    "Topographic",
    "Units",
]
