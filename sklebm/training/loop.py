"""The inner loop: the objective inside ``forward``, batches on the device, no host syncs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sklebm._shell.ranks import ALONE, Ranks
from sklebm.energies.gradients import descend
from sklebm.objectives import Batch, Objective
from sklebm.objectives.base import ObjectiveState
from sklebm.training.batches import TensorBatches, as_batch
from sklebm.training.ranks import reduce_gradients
from sklebm.training.transforms import GradientTransform, Projection, TransformState


class FusedPass(Protocol):
    """A whole pass over the rows in one call, for models whose steps are short."""

    def suits(self, batch_size: int, state: ObjectiveState) -> bool:
        """Whether it can take these steps."""

    def run(
        self, training: Any, batches: TensorBatches, rates: dict[Tensor, float]
    ) -> tuple[float, int]:
        """Take the steps of ``EnergyTraining.descend``.

        Returns the sum of losses times rows, and the number of rows.
        """

    def advance(
        self, training: Any, rows: Tensor, rates: dict[Tensor, float], batch_size: int
    ) -> float:
        """Take the steps of some batches; return the sum of losses times rows.

        It serves those who watch single steps: callbacks that watch change no number.
        """


class EnergyTraining(nn.Module):
    """An energy with the objective that shapes it; ``forward(batch)`` returns the loss of a batch.

    The objective runs inside ``forward`` so that hooks and ``torch.compile``, which wait for the
    call of the module, see every parameter being used.

    Parameters
    ----------
    energy : Module
        Passed to the objective.
    objective : Objective
        The loss.
    state : dict from str to Tensor
        The objective's state, such as chains.
    generator : torch.Generator
        Random numbers for the objective.
    ranks : Ranks
        The processes that hold the other rows of a step.
    transforms : sequence of GradientTransform
        Applied to gradients before a step, in this order.
    projections : sequence of callable
        Applied to parameters after a step, in this order.
    moved : Module or None, default=None
        The part of the energy whose parameters are updated; None updates all of it.
    name : str
        Name under which its loss is recorded, if several players train against each other.
    n_steps : int, default=1
        Steps on every batch.
    fused : FusedPass or None, default=None
        Takes the steps of ``descend`` for a whole pass at once.
    """

    def __init__(
        self,
        energy: nn.Module,
        objective: Objective,
        state: ObjectiveState,
        generator: torch.Generator,
        ranks: Ranks = ALONE,
        *,
        transforms: Sequence[GradientTransform] = (),
        projections: Sequence[Projection] = (),
        moved: nn.Module | None = None,
        name: str = "train",
        n_steps: int = 1,
        fused: FusedPass | None = None,
    ) -> None:
        super().__init__()
        self.energy = energy
        self.objective = objective
        self.objective_state = state
        self.generator = generator
        self.ranks = ranks
        self.transforms = tuple(transforms)
        self.transform_states: list[TransformState] = [part.init() for part in self.transforms]
        self.projections = tuple(projections)
        self.plays_alone = moved is None
        self.moved = energy if moved is None else moved
        self.name = name
        self.n_steps = n_steps
        self.fused = fused

    def forward(self, batch: Batch) -> Tensor:
        """Loss of the batch; advances the objective's state (its chains, if any)."""
        loss, self.objective_state = self.objective.loss(
            self.energy, batch, self.objective_state, self.generator
        )
        return loss

    def transformed(self, gradients: Any, batch: Batch, share: float) -> Any:
        """Apply the transforms to gradients; advances their states."""
        for place, transform in enumerate(self.transforms):
            gradients, self.transform_states[place] = transform.update(
                gradients, batch, self.transform_states[place], share
            )
        return gradients

    @torch.no_grad()
    def descend(self, batch: Batch, rates: dict[Tensor, float], share: float) -> Tensor:
        """Move the parameters downhill in place by ``share`` times their rates; return the loss.

        For objectives with gradients in closed form. Nothing is stored for autograd, and a gradient
        that is a product of matrices is never formed explicitly.
        """
        loss, gradients, self.objective_state = self.objective.gradients(  # type: ignore[attr-defined]
            self.energy, batch, self.objective_state, self.generator
        )
        if self.transforms:
            gradients = self.transformed(gradients, batch, share)
        for parameter, gradient in gradients:
            descend(parameter, gradient, share * rates[parameter])
        return loss  # type: ignore[no-any-return]


Hook = Callable[..., None]
Step = Callable[[Batch, float], Tensor]


def run_batches(
    training: Any,
    optimizer: Any,
    batches: Iterable[Any],
    batch_size: int,
    notify: Hook | None = None,
    gradients_are_read: bool = False,
) -> tuple[Tensor, int]:
    """Take one optimiser step per batch; return the summed loss (on the device) and the rows.

    The step of a batch of m < batch_size rows is scaled by m / batch_size, so that the same rows
    move the parameters equally far however they are divided. Plain descent on gradients in closed
    form happens in place, unless ``gradients_are_read`` by a callback.

    Several players, each with its own optimiser, take turns on every batch; the loss then has one
    entry per player.
    """
    players = list(training) if isinstance(training, (list, tuple)) else [training]
    optimizers = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
    steps = [
        (_choose_step(player, own, notify, gradients_are_read, batch_size), player.n_steps)
        for player, own in zip(players, optimizers, strict=True)
    ]
    step, n_steps = steps[0]
    alone = len(steps) == 1 and n_steps == 1
    if alone and notify is None and not gradients_are_read:
        done = _run_fused(players[0], optimizers[0], batches, batch_size)
        if done is not None:
            return done
    total: Tensor | None = None
    n_rows = 0
    for batch, size in _with_sizes(batches):
        if notify is not None:
            notify("on_batch_begin", batch=_as_skorch(batch), training=True)
        share = min(size / batch_size, 1.0)
        loss = step(batch, share) if alone else _take_turns(steps, batch, share)
        if notify is not None:
            notify("on_batch_end", batch=_as_skorch(batch), training=True, loss=loss)
        total = loss * size if total is None else total.add_(loss, alpha=size)
        n_rows += size
    if total is None:
        raise ValueError("There are no rows to train on.")
    return total, n_rows


def _run_fused(
    training: Any, optimizer: torch.optim.Optimizer, batches: Any, batch_size: int
) -> tuple[Tensor, int] | None:
    """A pass in one call, if the player can and nothing looks at its single steps."""
    able = (
        type(batches) is TensorBatches
        and batches.batch_size == batch_size
        and not batches.columns
        and batches.in_memory
        and len(batches)
    )
    if not able or not _can_fuse(training, optimizer, batch_size):
        return None
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    total, n_rows = training.fused.run(training, batches, rates)
    return torch.tensor(total, dtype=torch.float64), n_rows


def _can_fuse(training: Any, optimizer: torch.optim.Optimizer, batch_size: int) -> bool:
    """Whether the steps of the player can be those of its ``fused`` pass."""
    return (
        getattr(training, "fused", None) is not None
        and not training.projections
        and _knows_gradients(training)
        and _is_plain_descent(optimizer)
        and training.fused.suits(batch_size, training.objective_state)
    )


def _take_turns(steps: Sequence[tuple[Step, int]], batch: Batch, share: float) -> Tensor:
    """The mean losses of the players, each over its steps on the batch."""
    losses = []
    for step, n_steps in steps:
        own = [step(batch, share) for _ in range(n_steps)]
        losses.append(torch.stack(own).mean())
    return losses[0] if len(losses) == 1 else torch.stack(losses)


def _as_skorch(batch: Batch) -> Any:
    """A batch in the form that skorch's callbacks expect: rows, then the target if there is one."""
    return batch.x if batch.target is None else (batch.x, batch.target)


def _with_sizes(batches: Iterable[Any]) -> Iterator[tuple[Batch, int]]:
    """Batches, each with the number of rows that count in its step."""
    if isinstance(batches, TensorBatches):
        return batches.with_sizes()
    return ((batch, len(batch)) for batch in map(as_batch, batches))


def _choose_step(
    training: Any,
    optimizer: torch.optim.Optimizer,
    notify: Hook | None,
    gradients_are_read: bool,
    batch_size: int,
) -> Step:
    """The step function, called with a batch and its share of a full step."""
    projections = training.projections
    if not gradients_are_read and _can_fuse(training, optimizer, batch_size):
        return _compiled_step(training, optimizer, batch_size)
    if not gradients_are_read and _knows_gradients(training) and _is_plain_descent(optimizer):

        def descend_in_place(batch: Batch, share: float) -> Tensor:
            groups = optimizer.param_groups
            rates = {p: group["lr"] for group in groups for p in group["params"]}
            loss: Tensor = training.descend(batch, rates, share)
            for project in projections:
                project()
            return loss

        return descend_in_place
    parameters = [p for p in training.moved.parameters() if p.requires_grad]

    def follow_autograd(batch: Batch, share: float) -> Tensor:
        loss = _step(training, optimizer, parameters, batch, share, notify)
        for project in projections:
            project()
        return loss

    return follow_autograd


def _compiled_step(training: Any, optimizer: torch.optim.Optimizer, batch_size: int) -> Step:
    def advance(batch: Batch, share: float) -> Tensor:
        groups = optimizer.param_groups
        rates = {p: group["lr"] for group in groups for p in group["params"]}
        if batch.weight is not None or len(batch) > batch_size:
            return training.descend(batch, rates, share)  # type: ignore[no-any-return]
        total = training.fused.advance(training, batch.x.contiguous(), rates, batch_size)
        return torch.tensor(total / len(batch), dtype=torch.float64)

    return advance


def _knows_gradients(training: nn.Module) -> bool:
    """Whether the module can be bypassed: no wrapper or hook depends on its being called."""
    return (
        type(training) is EnergyTraining
        and training.objective.knows_gradients(training.energy)
        and training.plays_alone
        and "forward" not in vars(training)
        and not training._forward_hooks
        and not training._forward_pre_hooks
        and training.ranks.size == 1  # the factors of gradients cannot be summed over ranks
    )


def _is_plain_descent(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step is p - rate * gradient and nothing (such as a scheduler) wraps its call."""
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
    training: Any,
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    batch: Batch,
    share: float,
    notify: Hook | None,
) -> Tensor:
    ranks: Any = training.ranks
    # A line search compares the loss with its own gradient, which must be untransformed.
    searches = isinstance(optimizer, torch.optim.LBFGS)
    # The loss of a player also depends on parameters that it does not update.
    inputs = None if training.plays_alone else parameters

    def closure() -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        # A rank may have no rows left.
        loss: Tensor = training(batch) if len(batch) else batch.x.new_zeros(())
        if len(batch):
            torch.autograd.backward(loss, inputs=inputs)
            if training.transforms and not searches:
                _transform(training, parameters, batch, share)
        if ranks.size > 1:
            states = [] if searches else training.transform_states
            loss = reduce_gradients(ranks, parameters, loss, len(batch), states)
        if notify is not None:
            named = training.named_parameters()
            notify("on_grad_computed", named_parameters=named, batch=_as_skorch(batch))
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


@torch.no_grad()
def _transform(training: Any, parameters: list[nn.Parameter], batch: Batch, share: float) -> None:
    """Apply the transforms to the gradients that autograd stored on the parameters."""
    found: Any = [(p, p.grad) for p in parameters if p.grad is not None]
    for parameter, gradient in training.transformed(found, batch, share):
        parameter.grad = gradient
