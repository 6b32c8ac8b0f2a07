"""Boltzmann machines: bilinear energies with stochastic hidden units."""

from sklebm.boltzmann.bernoulli_rbm import BernoulliRBM
from sklebm.boltzmann.gaussian_rbm import GaussianRBM

__all__ = ["BernoulliRBM", "GaussianRBM"]
