r"""E(x, theta) = -sum_w x_w log sum_k theta_k phi_kw: a document as a mixture of topics.

The topic of each token is summed over, the shares theta of the topics in the document are the
latent. Without a prior they are minimised over, per token; with one, which adds its logarithm, they
are integrated out: F(x) = -log int exp(-E(x, theta)) dtheta.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Shares and probabilities of zero are read as this, so that no answer is infinite.
_LEAST = 1e-100


class TopicEnergy(nn.Module):
    """Minus the log likelihood of a document per token.

    Parameters
    ----------
    components : Tensor of shape (n_topics, n_words)
        Probabilities p(word | topic); a word of probability zero under all topics is unknown.
    topic_weights : Tensor of shape (n_topics,)
        Probabilities p(topic) in the corpus: the shares of a document without known words.
    """

    components: Tensor
    topic_weights: Tensor

    def __init__(self, components: Tensor, topic_weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("components", components)
        self.register_buffer("topic_weights", topic_weights)

    def known(self, x: Tensor) -> Tensor:
        """The counts of known words, in units of each document's largest: sums do not overflow."""
        x = x * (self.components > 0).any(dim=0)
        largest = x.amax(dim=1, keepdim=True)
        return x / torch.where(largest > 0, largest, 1.0)

    def tokens(self, x: Tensor) -> Tensor:
        """Number of tokens of known words of each document, (n_documents,)."""
        return (x * (self.components > 0).any(dim=0)).sum(dim=1)

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, theta) in nats per token for each pair of rows, (n_documents,); 0 without words."""
        x = self.known(x)
        words = (z.clamp(min=_LEAST) @ self.components).clamp(min=_LEAST)
        total = x.sum(dim=1)
        return -(x * words.log()).sum(dim=1) / torch.where(total > 0, total, 1.0)


class DirichletTopicEnergy(nn.Module):
    r"""E(x, theta) = -sum_w x_w log sum_k theta_k phi_kw - log Dirichlet(theta; alpha), in nats.

    Parameters
    ----------
    components : Tensor of shape (n_topics, n_words)
        Concentrations of the posterior of each topic, whose mean is phi.
    prior : Tensor of shape (n_topics,)
        Concentrations alpha of the prior of shares.
    """

    components: Tensor
    prior: Tensor

    def __init__(self, components: Tensor, prior: Tensor) -> None:
        super().__init__()
        self.register_buffer("components", components)
        self.register_buffer("prior", prior)

    def topics(self) -> Tensor:
        """phi: p(word | topic) of shape (n_topics, n_words)."""
        return self.components / self.components.sum(dim=1, keepdim=True)

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, theta) for each pair of rows, (n_documents,)."""
        z = z.clamp(min=_LEAST)
        words = (z @ self.topics()).clamp(min=_LEAST)
        normaliser = torch.lgamma(self.prior).sum() - torch.lgamma(self.prior.sum())
        log_prior = z.log() @ (self.prior - 1.0) - normaliser
        return -(x * words.log()).sum(dim=1) - log_prior
