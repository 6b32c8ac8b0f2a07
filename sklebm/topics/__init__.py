"""Documents as mixtures of topics: energies of counts of words."""

from sklebm.topics.latent_dirichlet_allocation import LatentDirichletAllocation
from sklebm.topics.plsa import PLSA

__all__ = ["PLSA", "LatentDirichletAllocation"]
