"""The inner loop: the objective inside ``forward``, batches on the device, no host sync."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import scipy.sparse
import torch
from torch import Tensor, nn

from sklebm._shell.ranks import ALONE, Ranks
from sklebm.energies.gradients import descend
from sklebm.objectives import Batch, Objective
from sklebm.objectives.base import ObjectiveState
from sklebm.training.ranks import reduce_gradients
from sklebm.training.streamed_rows import StreamedRows


class EnergyTraining(nn.Module):
    """An energy with the objective that shapes it; ``forward(batch)`` is the loss of a batch.

    The objective runs inside ``forward`` so that hooks and ``torch.compile``, which wait for the
    call of the module, see every parameter being used. The other rows of a step may be on other
    ``ranks``.
    """

    def __init__(
        self,
        energy: nn.Module,
        objective: Objective,
        state: ObjectiveState,
        generator: torch.Generator,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.energy = energy
        self.objective = objective
        self.objective_state = state
        self.generator = generator
        self.ranks = ranks

    def forward(self, batch: Batch) -> Tensor:
        """Loss of the batch; advances the objective's state (its chains, if any)."""
        loss, self.objective_state = self.objective.loss(
            self.energy, batch, self.objective_state, self.generator
        )
        return loss

    @torch.no_grad()
    def descend(self, x: Tensor, rates: dict[Tensor, float], share: float) -> Tensor:
        """Move the parameters downhill in place by ``share`` of their rates; return the loss.

        For objectives that know their gradients. Nothing is stored for autograd, and a gradient
        that is a product of matrices is never written out.
        """
        energy: Any = self.energy
        loss, gradients, self.objective_state = self.objective.gradients(  # type: ignore[attr-defined]
            energy, Batch(x), self.objective_state, self.generator
        )
        centring = getattr(energy, "centring", None)
        if centring is not None:
            # The rows of the batch come first among those of the contrast.
            hidden = next(g.left for p, g in gradients if p is energy.weights)[: len(x)]
            gradients = centring.centred(energy, gradients, hidden)
            centring.follow(energy, x, share, hidden)
        for parameter, gradient in gradients:
            descend(parameter, gradient, share * rates[parameter])
        return loss  # type: ignore[no-any-return]


class RowDataset(torch.utils.data.Dataset[Any]):
    """Rows for skorch; ``TensorBatches`` takes ``X`` itself, torch's DataLoader single rows."""

    def __init__(self, X: Any, y: Any = None) -> None:
        self.X = X

    def __len__(self) -> int:
        return int(self.X.shape[0])

    def __getitem__(self, index: int) -> Tensor:
        """One row as a dense float32 tensor."""
        row: Any = self.X[index]
        if scipy.sparse.issparse(row):
            return torch.from_numpy(row.toarray()[0]).float()
        return torch.as_tensor(row)


class TensorBatches:
    """Batches as slices of a tensor that is already on the device, or of a csr matrix.

    torch's DataLoader fetches row by row and collates, at several times the cost of a small
    model's step; one gather per batch is all that is needed.

    Parameters
    ----------
    dataset : RowDataset
        ``dataset.X`` is a dense tensor, a csr matrix or ``StreamedRows``, of shape (n_rows,
        n_features).
    batch_size : int
        Rows per batch; the last batch may have fewer.
    generator : torch.Generator or None
        Draws a new order for every pass; None keeps the order.
    device : torch.device
        Where batches of a csr matrix go.
    """

    def __init__(
        self,
        dataset: RowDataset,
        batch_size: int,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rows = dataset.X
        self.batch_size = batch_size
        self.generator = generator
        self.device = device

    def __len__(self) -> int:
        return -(-int(self.rows.shape[0]) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        if isinstance(self.rows, StreamedRows):
            yield from self.rows.batches(self.batch_size, self.generator)
            return
        n_rows = int(self.rows.shape[0])
        if self.generator is None:
            for start in range(0, n_rows, self.batch_size):
                yield self._batch(slice(start, start + self.batch_size))
            return
        order = torch.randperm(n_rows, generator=self.generator)
        if isinstance(self.rows, Tensor):
            order = order.to(self.rows.device)
        for part in torch.split(order, self.batch_size):
            yield self._batch(part)

    def with_sizes(self) -> Iterator[tuple[Tensor, int]]:
        """The batches, each with the number of rows that its step counts."""
        for x in self:
            yield x, len(x)

    def _batch(self, index: slice | Tensor) -> Tensor:
        if scipy.sparse.issparse(self.rows):
            picked = self.rows[index if isinstance(index, slice) else index.numpy()]
            return torch.from_numpy(picked.toarray()).to(self.device, torch.float32)
        batch: Tensor = self.rows[index]
        return batch


Hook = Callable[..., None]


def run_batches(
    training: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Tensor],
    batch_size: int,
    notify: Hook | None = None,
    gradients_are_read: bool = False,
) -> tuple[Tensor, int]:
    """Take one optimiser step per batch; return the summed loss (on the device) and the rows.

    A batch of m < batch_size rows scales its step by m / batch_size, so that the same rows move
    the parameters equally far however they are cut. Plain descent on gradients in closed form
    happens in place, unless ``gradients_are_read`` by somebody who is notified of them.
    """
    step = _choose_step(training, optimizer, notify, gradients_are_read)
    total: Tensor | None = None
    n_rows = 0
    for x, size in _with_sizes(batches):
        if notify is not None:
            notify("on_batch_begin", batch=x, training=True)
        loss = step(x, min(size / batch_size, 1.0))
        if notify is not None:
            notify("on_batch_end", batch=x, training=True, loss=loss)
        total = loss * size if total is None else total.add_(loss, alpha=size)
        n_rows += size
    if total is None:
        raise ValueError("There are no rows to train on.")
    return total, n_rows


def _with_sizes(batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, int]]:
    """Batches, each with the number of rows that its step counts."""
    if isinstance(batches, TensorBatches):
        return batches.with_sizes()
    return ((x, len(x)) for x in batches)


def _choose_step(
    training: nn.Module,
    optimizer: torch.optim.Optimizer,
    notify: Hook | None,
    gradients_are_read: bool,
) -> Callable[[Tensor, float], Tensor]:
    """The function that takes a batch and the share of a step that it makes."""
    if not gradients_are_read and _knows_gradients(training) and _is_plain_descent(optimizer):

        def descend_in_place(x: Tensor, share: float) -> Tensor:
            groups = optimizer.param_groups
            rates = {p: group["lr"] for group in groups for p in group["params"]}
            return training.descend(x, rates, share)  # type: ignore[operator, no-any-return]

        return descend_in_place
    parameters = [p for p in training.parameters() if p.requires_grad]

    def follow_autograd(x: Tensor, share: float) -> Tensor:
        return _step(training, optimizer, parameters, x, share, notify)

    return follow_autograd


def _knows_gradients(training: nn.Module) -> bool:
    """Whether the module may be passed by: no wrapper or hook waits for it to be called."""
    return (
        type(training) is EnergyTraining
        and training.objective.knows_gradients(training.energy)
        and "forward" not in vars(training)
        and not training._forward_hooks
        and not training._forward_pre_hooks
        and training.ranks.size == 1  # the factors of gradients cannot be summed over ranks
    )


def _is_plain_descent(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step is p - rate * gradient, and nobody (a scheduler) watches the call of it."""
    return (
        type(optimizer) is torch.optim.SGD
        and "step" not in vars(optimizer)
        and not any(
            group[name]
            for group in optimizer.param_groups
            for name in ("momentum", "weight_decay", "maximize")
        )
    )


def _step(
    training: nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    x: Tensor,
    share: float,
    notify: Hook | None,
) -> Tensor:
    energy: Any = training.energy
    ranks: Any = training.ranks
    # A line search compares the loss with its own gradient, which must be the plain one.
    plain = isinstance(optimizer, torch.optim.LBFGS)
    centring = None if plain else getattr(energy, "centring", None)

    def closure() -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        loss: Tensor = (
            training(Batch(x)) if len(x) else x.new_zeros(())
        )  # a rank may have no row left
        if len(x):
            torch.autograd.backward(loss)
            if centring is not None:
                centring.apply_to_gradients(energy, x)
                centring.follow(energy, x, share)
        if ranks.size > 1:
            loss = reduce_gradients(ranks, parameters, loss, len(x), centring)
        if notify is not None:
            notify("on_grad_computed", named_parameters=training.named_parameters(), batch=x)
        return loss

    if isinstance(optimizer, torch.optim.LBFGS):
        total: Tensor = optimizer.step(closure)  # type: ignore[no-untyped-call]
        return total.detach()
    loss = closure().detach()
    if share >= 1.0:
        optimizer.step()
        return loss
    rates = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * share
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return loss
