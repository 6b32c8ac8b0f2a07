r"""Metric learning with a memory: negatives that earlier batches have left behind.

``MemoryBank`` keeps an embedding of every row, ``MomentumQueue`` the latest keys of a slowly moving
copy of the encoder. What they need of an energy is told in ``sklebm.objectives.embedding``.

I. Misra and L. van der Maaten, "Self-supervised learning of pretext-invariant representations",
CVPR 2020 (memory bank); K. He, H. Fan, Y. Wu, S. Xie and R. Girshick, "Momentum contrast for
unsupervised visual representation learning", CVPR 2020 (queue).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sklebm._checks import check_counts, check_number, check_share
from sklebm.energies.embedding import to_unit_length
from sklebm.objectives.base import Batch, Objective, ObjectiveState


@dataclass(frozen=True)
class MemoryBank(Objective):
    """Noise contrast against a bank that remembers an embedding of every training row.

    One head embeds the row itself (f), another a transformed view (g). With h the share of a
    candidate among itself and the negatives, the loss of a row is a mean of -log h(f, g) - sum_c
    log(1 - h(c, g)) and of the same with g replaced by f, where in both the entry of the row in the
    bank stands for f, and the negatives c are entries of rows that could not be its views. Entries
    are running means.

    Parameters
    ----------
    temperature : float, default=0.1
        Cosines are divided by it.
    n_negatives : int, default=256
        Entries of the bank that each batch is compared with, drawn from all rows.
    momentum : float, default=0.5
        Share of the old entry that is kept when its row is seen again; below 1.
    view_weight : float, default=0.5
        Weight of the term of the transformed view, between 0 and 1.
    """

    temperature: float = 0.1
    n_negatives: int = 256
    momentum: float = 0.5
    view_weight: float = 0.5

    needs: ClassVar[tuple[str, ...]] = ("pairs", "project")
    weighs_rows: ClassVar[bool] = False
    n_heads: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_number(self.temperature, "temperature", self)
        check_counts(self, "n_negatives")
        _check_momentum(self)
        check_share(self.view_weight, "view_weight", self)

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """An empty bank: entries of length 0 belong to rows that were not seen yet."""
        like = next(iter(energy.parameters()))
        bank = torch.zeros(energy.n_rows, energy.n_projected, device=like.device, dtype=like.dtype)
        return {"bank": bank}

    def continues(self, kind: str) -> bool:
        """Never: the entries belong to the rows of one run, and those of another are others."""
        return False

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean loss of the batch, and the same bank, in which the entries of its rows are new."""
        pairs = energy.pairs(batch, generator, keep_first=True)
        f = to_unit_length(energy.project(pairs.first, 0))
        g = to_unit_length(energy.project(pairs.second, 1))
        # Changed in place: a copy for every batch would cost as much as all rows.
        bank, index = state["bank"], pairs.index
        old = bank[index]
        seen = old.square().sum(dim=1, keepdim=True) > 0.0
        own = torch.where(seen, old, f.detach())
        bank[index] = to_unit_length(torch.lerp(f.detach(), own, self.momentum))
        drawn = torch.randint(
            len(bank), (self.n_negatives,), generator=generator, device=bank.device
        )
        usable = bank[drawn].square().sum(dim=1) > 0.0
        allowed = usable & ~pairs.near(index, drawn)
        if pairs.places is not index:
            allowed = allowed & ~pairs.near(pairs.places, drawn)
        terms = [self.of_view(view, own, bank[drawn], allowed).mean() for view in (g, f)]
        total = self.view_weight * terms[0] + (1.0 - self.view_weight) * terms[1]
        return total, {"bank": bank}

    def of_view(self, view: Tensor, entry: Tensor, others: Tensor, allowed: Tensor) -> Tensor:
        """Loss of each row's view against its entry, (n_rows,), in nats."""
        anchor = (view * entry).sum(dim=1) / self.temperature
        negatives = (view @ others.T / self.temperature).masked_fill(~allowed, -torch.inf)
        lone = ~allowed.any(dim=1)
        other = torch.logsumexp(negatives.masked_fill(lone[:, None], 0.0), dim=1)
        return bank_energies(anchor, other, negatives).masked_fill(lone, 0.0)


@dataclass(frozen=True)
class MomentumQueue(Objective):
    """InfoNCE against a queue of keys from a slowly moving copy of the encoder.

    Keys of a batch are positives for its queries, then join the queue, whose oldest keys leave.
    Earlier keys of a row itself, and of rows that could be its views, are not among its negatives.
    The copy follows the encoder, k <- momentum k + (1 - momentum) q, and gets no gradient.

    Parameters
    ----------
    temperature : float, default=0.2
        Cosines are divided by it.
    n_keys : int, default=1024
        Length of the queue.
    momentum : float, default=0.99
        Share of the copy that is kept in a step; below 1.
    """

    temperature: float = 0.2
    n_keys: int = 1024
    momentum: float = 0.99

    needs: ClassVar[tuple[str, ...]] = ("pairs", "project")
    weighs_rows: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number(self.temperature, "temperature", self)
        check_counts(self, "n_keys")
        _check_momentum(self)

    def init_state(
        self, energy: Any, batch_size: int, generator: torch.Generator
    ) -> ObjectiveState:
        """The copy, and a queue of random directions."""
        slow = {f"slow.{k}": p.detach().clone() for k, p in energy.named_parameters()}
        like = next(iter(slow.values()))
        queue = torch.empty(
            self.n_keys, energy.n_projected, device=like.device, dtype=like.dtype
        ).normal_(generator=generator)
        return {**slow, "queue": to_unit_length(queue)}

    def loss(
        self, energy: Any, batch: Batch, state: ObjectiveState, generator: torch.Generator
    ) -> tuple[Tensor, ObjectiveState]:
        """Mean cross-entropy of the keys of a batch, and the queue with these keys."""
        pairs = energy.pairs(batch, generator)
        queries = to_unit_length(energy.project(pairs.first))
        now = {f"slow.{k}": p.detach() for k, p in energy.named_parameters()}
        slow = {k: state[k].lerp(p, 1.0 - self.momentum) for k, p in now.items()}
        with torch.no_grad():
            named = {k.removeprefix("slow."): p for k, p in slow.items()}
            # Copies: statistics of a batch would otherwise enter those of the encoder twice.
            named |= {k: buffer.clone() for k, buffer in energy.named_buffers()}
            keys = to_unit_length(torch.func.functional_call(energy, named, (pairs.second,)))
        queue, scores = state["queue"], queries @ state["queue"].T
        rows = state.get("queue_rows")
        if rows is None:  # random directions, or the keys of an earlier run, whose rows are others
            rows = torch.full((len(queue),), -1, device=queue.device)
        near = pairs.near(pairs.index, rows.clamp(min=0)) & (rows >= 0)
        scores = scores.masked_fill(near, -torch.inf)
        positives = (queries * keys).sum(dim=1, keepdim=True)
        logits = torch.cat([positives, scores], dim=1) / self.temperature
        loss = (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean()
        return loss, {**slow, "queue": push(queue, keys), "queue_rows": push(rows, pairs.places)}


# ---------------------------------------------------------------------- pieces


def push(queue: Tensor, keys: Tensor) -> Tensor:
    """The queue after ``keys`` have joined it at its end and as many have left at its head."""
    return torch.cat([queue, keys])[-len(queue) :]


def bank_energies(anchor: Tensor, other: Tensor, negatives: Tensor) -> Tensor:
    """-log h(a, b) - sum_c log(1 - h(c, b)) of each row, from cosines divided by a temperature.

    ``anchor`` holds s(a, b), (n,), ``negatives`` s(c, b) of the negatives c, (n, m), with -inf
    where there is none, and ``other`` their log sum, so that h(c, b) = exp s / (exp s + exp other).
    """
    positive = softplus(other - anchor)
    rejected = softplus(negatives - other[:, None])
    return positive + rejected.masked_fill(negatives == -torch.inf, 0.0).sum(dim=1)


def _check_momentum(part: Any) -> None:
    """Raise ValueError unless the momentum is at least 0 and below 1."""
    check_share(part.momentum, "momentum", part)
    if part.momentum == 1.0:
        raise ValueError(
            f"{type(part).__name__}: momentum={part.momentum!r} must be below 1: with 1 nothing is "
            "ever learnt."
        )
