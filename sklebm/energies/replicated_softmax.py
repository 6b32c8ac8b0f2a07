r"""E(v, h) = -b' v - D c' h - h' W v: hidden bits and counts v of D words, each drawn by itself.

Every word of a document is a softmax unit, and all of them share biases and weights; the hidden
biases are multiplied by the length D = sum_w v_w, so that documents of all lengths use the units
alike. A document counts as the ordered sequence of its words: there is no multinomial coefficient.
Summed over h, and over all sequences of D words,

    F(v) = -b' v - sum_k log(1 + exp(D c_k + w_k' v)),
    Z_D = sum_h exp(D a(h)),     a(h) = c' h + log sum_w exp(b_w + (W' h)_w).

Both are defined for any real D. For D = 1 the model is a mixture of 2^k distributions of words.

R. Salakhutdinov and G. Hinton, "Replicated softmax: an undirected topic model", NIPS 2009.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklebm.energies.binary_states import binary_states
from sklebm.energies.units import draw_bits, softplus

#: Words that are drawn for one document; those of a longer one count more than one each.
MAX_DRAWN = 10_000
#: Most hidden units whose states are summed over.
MAX_SUMMED_UNITS = 14
_CHUNK = 2**12


def draw_words(logits: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
    """Counts of as many words as each row is long, drawn from softmax(logits), (n_rows, n_words).

    A length with a fraction is rounded up, and its words count less than one each, so that the sum
    of the counts is the length; beyond ``MAX_DRAWN`` words, each counts for several. Counts are
    NaN where the probabilities are, so that training that diverges shows in its loss.
    """
    probabilities = torch.softmax(logits, dim=1)
    broken = ~(probabilities.isfinite().all(dim=1) & lengths.isfinite())
    probabilities = probabilities.masked_fill(broken[:, None], 1.0)
    lengths = lengths.masked_fill(broken, 0.0)
    n_tokens = lengths.clamp(max=MAX_DRAWN).ceil().long()
    counts = torch.zeros_like(logits)
    most = int(n_tokens.max()) if len(n_tokens) else 0
    if most == 0:
        return counts.masked_fill_(broken[:, None], torch.nan)
    words = torch.multinomial(probabilities, most, replacement=True, generator=generator)
    places = torch.arange(most, device=logits.device)
    weight = lengths / n_tokens.clamp(min=1)
    counted = torch.where(places < n_tokens[:, None], weight[:, None], 0.0)
    counts.scatter_add_(1, words, counted.to(counts))
    return counts.masked_fill_(broken[:, None], torch.nan)


class ReplicatedSoftmaxEnergy(nn.Module):
    """Counts of words and hidden bits.

    The hidden state of a chain is the bits with the length of its document beside them, in a
    last column, so that new words can be drawn from it alone.

    Parameters
    ----------
    visible_bias : Tensor of shape (n_words,)
        Biases b of the words.
    hidden_bias : Tensor of shape (n_hidden,)
        Biases c, for one word.
    weights : Tensor of shape (n_hidden, n_words)
        The couplings W.
    """

    domain = "counts"

    def __init__(self, visible_bias: Tensor, hidden_bias: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.visible_bias = nn.Parameter(visible_bias)
        self.hidden_bias = nn.Parameter(hidden_bias)
        self.weights = nn.Parameter(weights)

    def hidden_field(self, v: Tensor) -> Tensor:
        """Input of the hidden units, (n_rows, n_hidden). O(n d k)."""
        return v @ self.weights.T + v.sum(dim=1, keepdim=True) * self.hidden_bias

    def hidden_mean(self, v: Tensor) -> Tensor:
        """E[h | v], (n_rows, n_hidden)."""
        return torch.sigmoid(self.hidden_field(v))

    def word_logits(self, h: Tensor) -> Tensor:
        """Input of a word, (n_rows, n_words). O(n d k)."""
        return torch.addmm(self.visible_bias, h, self.weights)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), (n_rows,)."""
        return -(v @ self.visible_bias) - (h * self.hidden_field(v)).sum(dim=1)

    def free_energy(self, v: Tensor, beta: float = 1.0) -> Tensor:
        """F_beta(v) = -1/beta log sum_h exp(-beta E(v, h)), without log Z, (n_rows,)."""
        gains = softplus(beta * self.hidden_field(v)).sum(dim=1)
        return -(v @ self.visible_bias) - gains / beta

    def log_weight_of_word(self, h: Tensor) -> Tensor:
        """a(h), the logarithm of the weight that h has for each word of a document, (n_rows,)."""
        weight: Tensor = h @ self.hidden_bias + torch.logsumexp(self.word_logits(h), dim=1)
        return weight

    def log_conditional(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """log p of one word of each document given the others, (n_documents,). O(n d k).

        The word is drawn from the document; of a fraction of a word, all of it. Documents without
        words are left out.
        """
        v = v[v.sum(dim=1) > 0]
        words = torch.multinomial(v, 1, generator=generator)
        amount = v.gather(1, words).clamp(max=1.0)
        field = self.hidden_field(v.scatter_add(1, words, -amount))
        logits = amount * self.visible_bias
        for k, (weights, bias) in enumerate(zip(self.weights, self.hidden_bias, strict=True)):
            logits = logits + softplus(field[:, k : k + 1] + amount * (weights + bias))
        return torch.log_softmax(logits, dim=1).gather(1, words).squeeze(1)

    def state_weights(self) -> Tensor:
        """a(h) of all states of the hidden units, (2^k,). O(2^k d k)."""
        n_units, like = len(self.hidden_bias), self.hidden_bias
        return torch.cat(
            [self.log_weight_of_word(states) for states in binary_states(n_units, like, _CHUNK)]
        )

    def exact_log_partition(self, lengths: Tensor) -> Tensor:
        """log Z of each length, summed over all states of the hidden units, (n_lengths,)."""
        return torch.logsumexp(lengths[:, None] * self.state_weights(), dim=1)

    def draw_hidden(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """Bits given the counts, and the length in a last column, (n_rows, n_hidden + 1)."""
        bits = draw_bits(self.hidden_mean(v), generator)
        return torch.cat([bits, v.sum(dim=1, keepdim=True)], dim=1)

    def draw_visible(self, h: Tensor, generator: torch.Generator) -> Tensor:
        """Counts given bits and length, (n_rows, n_words)."""
        return draw_words(self.word_logits(h[:, :-1]), h[:, -1], generator)
