"""Boltzmann machines: bilinear energies with stochastic hidden units."""

from sklebm.boltzmann.bernoulli_rbm import BernoulliRBM

__all__ = ["BernoulliRBM"]
