r"""s_k(x) = w_k'x + b_k and T(k, l): what neighbouring labels cost, and what rows say about each.

    -E(y | x) = sum_t s_{y_t}(x_t) + sum_{t, u neighbours} T(y_t, y_u).

Which rows are neighbours, and how the sum over labels is taken, is a matter of inference:
``sklebm.inference.linear_chain`` for rows in a line, ``sklebm.inference.grid_labels`` for pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearScores(nn.Module):
    """Linear scores of labels, and scores of transitions between them.

    Parameters
    ----------
    coef : Tensor of shape (n_labels, n_features)
        Weights w.
    intercept : Tensor of shape (n_labels,)
        Intercepts b.
    transitions : Tensor of shape (n_labels, n_labels)
        T, from the label in the row to the one in the column.
    allowed : Tensor of shape (n_labels, n_labels), optional
        False for transitions of infinite energy.
    """

    coef: Tensor
    intercept: Tensor
    transitions: Tensor
    allowed: Tensor | None

    def __init__(
        self, coef: Tensor, intercept: Tensor, transitions: Tensor, allowed: Tensor | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("coef", coef)
        self.register_buffer("intercept", intercept)
        self.register_buffer("transitions", transitions)
        self.register_buffer("allowed", None if allowed is None else allowed.to(transitions.device))

    def scores(self, x: Tensor) -> Tensor:
        """s_k(x) of shape (n_rows, n_labels)."""
        return torch.addmm(self.intercept, x, self.coef.T)

    def transition_scores(self) -> Tensor:
        """T with -inf where a transition is not allowed."""
        if self.allowed is None:
            return self.transitions
        return self.transitions.masked_fill(~self.allowed, -torch.inf)


class PairScores(LinearScores):
    """Linear scores of labels, and scores of pairs that depend on direction and on features.

    T_d(k, l; f) = transitions[k, l, d] + transition_coef[k, l, d] . f

    Parameters
    ----------
    coef : Tensor of shape (n_labels, n_features)
        Weights w.
    intercept : Tensor of shape (n_labels,)
        Intercepts b.
    transitions : Tensor of shape (n_labels, n_labels, n_directions)
        T without features, from the label in the first axis to that in the second.
    transition_coef : Tensor of shape (n_labels, n_labels, n_directions, n_pair_features), optional
        Weights of the features of a pair.
    contrast_scale : Tensor of shape (n_features,), optional
        Units in which features differ, if f is exp(-|x_i - x_j|^2 / 2) in these units.
    """

    transition_coef: Tensor | None
    contrast_scale: Tensor | None

    def __init__(
        self,
        coef: Tensor,
        intercept: Tensor,
        transitions: Tensor,
        transition_coef: Tensor | None = None,
        contrast_scale: Tensor | None = None,
    ) -> None:
        super().__init__(coef, intercept, transitions)
        self.register_buffer("transition_coef", transition_coef)
        self.register_buffer("contrast_scale", contrast_scale)

    def pair_scores(self, direction: Tensor, features: Tensor | None) -> Tensor:
        """T of pairs, (n_pairs, n_labels, n_labels), given f (n_pairs, n_pair_features)."""
        found = self.transitions.permute(2, 0, 1)[direction]
        if self.transition_coef is None or features is None:
            return found
        for number in range(self.transitions.shape[2]):
            chosen = (direction == number).nonzero()[:, 0]
            weights = self.transition_coef[:, :, number].flatten(0, 1)
            found[chosen] += (features[chosen] @ weights.T).view(-1, *self.transitions.shape[:2])
        return found
