r"""E(x, theta) = -1/n sum_w x_w log sum_k theta_k phi_kw: a document as a mixture of topics.

The topic of each token is summed over, the shares theta of the topics in the document are the
latent. F(x) = min_theta E(x, theta), in nats per token.
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
        p(word | topic); a word of probability zero under all topics is unknown.
    topic_weights : Tensor of shape (n_topics,)
        p(topic) in the corpus: the shares of a document without known words.
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
