"""Boltzmann machines: bilinear energies with stochastic hidden units."""

from sklebm.boltzmann.bernoulli_rbm import BernoulliRBM
from sklebm.boltzmann.gated_bm import GatedBM
from sklebm.boltzmann.gaussian_rbm import GaussianRBM

__all__ = ["BernoulliRBM", "GatedBM", "GaussianRBM"]
