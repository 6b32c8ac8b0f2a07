"""Boltzmann machines: bits, or real values, with stochastic hidden units."""

from sklebm.boltzmann.bernoulli_rbm import BernoulliRBM
from sklebm.boltzmann.boltzmann_machine import BoltzmannMachine
from sklebm.boltzmann.deep_belief_network import DeepBeliefNetwork
from sklebm.boltzmann.deep_boltzmann_machine import DeepBoltzmannMachine
from sklebm.boltzmann.gated_bm import GatedBM
from sklebm.boltzmann.gaussian_rbm import GaussianRBM
from sklebm.boltzmann.hopfield_network import HopfieldNetwork
from sklebm.boltzmann.mean_covariance_rbm import MeanCovarianceRBM
from sklebm.boltzmann.replicated_softmax import ReplicatedSoftmax
from sklebm.boltzmann.semi_restricted_bm import SemiRestrictedBM

__all__ = [
    "BernoulliRBM",
    "BoltzmannMachine",
    "DeepBeliefNetwork",
    "DeepBoltzmannMachine",
    "GatedBM",
    "GaussianRBM",
    "HopfieldNetwork",
    "MeanCovarianceRBM",
    "ReplicatedSoftmax",
    "SemiRestrictedBM",
]
