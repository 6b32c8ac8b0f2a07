r"""Steps taken jointly by several processes: g = sum_r n_r g_r / sum_r n_r.

Rank r holds n_r of the rows of a step and their mean gradient g_r, so that all ranks take the step
that a single process would take on all of the rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklebm._shell.random import purpose_seed
from sklebm._shell.ranks import Ranks
from sklebm.training.transforms import TransformState, tensors_of


def rank_seed(seed: int, ranks: Ranks) -> int:
    """The seed for a rank's own draws, such as its chains; on rank 0 it is ``seed``."""
    return seed if ranks.rank == 0 else purpose_seed(seed, "rank", ranks.rank)


def reduce_gradients(
    ranks: Ranks,
    parameters: list[nn.Parameter],
    loss: Tensor,
    n_rows: int,
    states: list[TransformState],
) -> Tensor:
    """Give all ranks the gradient over all of their rows; return the loss over them. O(p).

    A single sum does everything. The states of gradient transforms are averaged as well: after
    different transforms, the gradients of two ranks would not be comparable.
    """
    known = (p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters)
    parts = [gradient.flatten() for gradient in known]
    parts.append(loss.detach().reshape(1))
    seen = [(state, name, value) for state in states for name, value in tensors_of(state)]
    parts.extend(value.flatten() for _, _, value in seen)
    weighted = torch.cat(parts) * n_rows
    total = ranks.sum(torch.cat([weighted, weighted.new_tensor([n_rows])]))
    mean = total[:-1] / total[-1]
    sizes = [*(p.numel() for p in parameters), 1, *(value.numel() for _, _, value in seen)]
    common = torch.split(mean, sizes)
    for parameter, gradient in zip(parameters, common, strict=False):
        parameter.grad = gradient.view_as(parameter)
    for (state, name, value), average in zip(seen, common[len(parameters) + 1 :], strict=True):
        state[name] = average.view_as(value).clone()
    return common[len(parameters)][0]


@torch.no_grad()
def average_buffers(ranks: Ranks, energy: nn.Module) -> None:
    """Give all ranks the mean of running statistics, such as those of BatchNorm layers."""
    for buffer in energy.buffers() if ranks.size > 1 else ():
        if buffer.is_floating_point():
            first = _of_first(ranks, buffer)
            # Relative to rank 0, so that buffers that do not depend on rows stay identical. Not
            # in place: the old one may be a fitted attribute.
            buffer.data = first + ranks.sum(buffer - first) / ranks.size


@torch.no_grad()
def share_parameters(ranks: Ranks, energy: nn.Module) -> None:
    """Give all ranks the numbers of rank 0."""
    for tensor in (*energy.parameters(), *energy.buffers()) if ranks.size > 1 else ():
        tensor.data = _of_first(ranks, tensor)


def _of_first(ranks: Ranks, tensor: Tensor) -> Tensor:
    """The tensor of rank 0, of any type."""
    own = tensor.detach().flatten().view(torch.uint8)
    common = ranks.sum(own if ranks.rank == 0 else torch.zeros_like(own))
    return common.view(tensor.dtype).view(tensor.shape)
