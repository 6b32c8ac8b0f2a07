"""Processes that share a fit: each holds its own rows, and sums over rows span all processes.

A model that marks its sums over rows, ``ranks.sum(statistics)``, can be fitted by any number of
processes. With a single process every method returns its input, and ``torch.distributed`` is not
imported.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from numbers import Number
from typing import Any, NoReturn

import torch
from torch import Tensor


class Ranks:
    """Single process: every collective returns its input."""

    rank, size = 0, 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors of all ranks; the same to the last bit on each."""
        return tensor

    def concat(self, tensor: Tensor) -> Tensor:
        """The rows of all ranks, concatenated in rank order; ranks may hold different numbers."""
        return tensor

    def first(self, value: Any) -> Any:
        """The value on rank 0."""
        return value

    def sum_each(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """The sums of tensors of one dtype, in a single message."""
        tensors = list(tensors)
        if self.size == 1:
            return tensors
        total = self.sum(torch.cat([tensor.flatten() for tensor in tensors]))
        parts = torch.split(total, [tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def start(self, n_rows: int) -> int:
        """Offset of this rank's ``n_rows`` rows among those of all ranks."""
        return 0

    def take(self, rows: Any, places: Tensor) -> Tensor:
        """The rows at global positions ``places``, on each rank."""
        if self.size == 1:
            return rows[places]  # type: ignore[no-any-return]
        own = places - self.start(len(rows))
        here = (own >= 0) & (own < len(rows))
        found = rows[own[here]]
        taken = found.new_zeros(len(places), *found.shape[1:])
        taken[here.to(found.device)] = found
        return self.sum(taken)

    def total(self, number: float) -> float:
        """The sum of the numbers of all ranks."""
        if self.size == 1:
            return number
        return float(self.sum(torch.tensor(number, dtype=torch.float64)))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return self.total(flag) > 0

    def need_same(self, facts: Mapping[str, Any]) -> None:
        """Raise ValueError unless the named facts are the same as on rank 0."""
        common = self.first(facts)
        for name, value in facts.items():
            if repr(common.get(name)) != repr(value):
                raise ValueError(
                    f"{name} is {value!r} on rank {self.rank}, but {common.get(name)!r} on rank 0: "
                    'all processes of a strategy="ddp" fit must make the same call, each with '
                    "its own rows."
                )

    def agreed(self, state: Mapping[str, Any], own: tuple[str, ...]) -> dict[str, Any]:
        """The entries of rank 0, except those that each rank keeps for itself."""
        if self.size == 1:
            return dict(state)
        common = self.first({name: value for name, value in state.items() if name not in own})
        return {name: common.get(name, value) for name, value in state.items()}


ALONE = Ranks()


class ProcessRanks(Ranks):
    """The processes of ``torch.distributed``'s default group, over separate connections.

    A rank that fails closes them, which stops any rank that is waiting for it.
    """

    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._key = ""
        try:
            self._group: Any = dist.new_group(backend=_backend())
        except RuntimeError as error:
            self._stop(error)
        self._key = f"sklebm/{self._group.group_name}/failure"

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors of all ranks; the same to the last bit on each."""
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        try:
            self._dist.all_reduce(total, group=self._group)
        except RuntimeError as error:
            self._stop(error)
        return total

    def concat(self, tensor: Tensor) -> Tensor:
        """The rows of all ranks, concatenated in rank order; ranks may hold different numbers."""
        ends = self._ends(len(tensor))
        every = tensor.new_zeros(ends[-1], *tensor.shape[1:])
        every[ends[self.rank] - len(tensor) : ends[self.rank]] = tensor
        return self.sum(every)

    def start(self, n_rows: int) -> int:
        """Offset of this rank's ``n_rows`` rows among those of all ranks."""
        return self._ends(n_rows)[self.rank] - n_rows

    def _ends(self, n_rows: int) -> list[int]:
        sizes = torch.zeros(self.size, dtype=torch.int64)
        sizes[self.rank] = n_rows
        ends: list[int] = self.sum(sizes).cumsum(0).tolist()
        return ends

    def first(self, value: Any) -> Any:
        """The value on rank 0."""
        box = [value]
        try:
            self._dist.broadcast_object_list(
                box, src=0, group=self._group, device=torch.device("cpu")
            )
        except RuntimeError as error:
            self._stop(error)
        return box[0]

    def _stop(self, error: RuntimeError) -> NoReturn:
        """Raise the error that ended another rank."""
        reason = "it was killed, or could not be reached"
        with contextlib.suppress(RuntimeError):
            store = _store()
            if self._key and store.check([self._key]):
                reason = store.get(self._key).decode().rstrip(".")
        raise RuntimeError(
            f'Another process of this strategy="ddp" fit has failed, so the fit ends on rank '
            f"{self.rank} as well: {reason}. The estimator was left unchanged."
        ) from error.with_traceback(None)  # whose frames would keep the connections open

    def leave(self, error: BaseException | None) -> None:
        """Close the connections, after reporting an error to the others unless one was reported."""
        if error is not None:
            message = f"rank {self.rank}: {type(error).__name__}: {error}"
            with contextlib.suppress(RuntimeError):
                _store().compare_set(self._key, "", message)
        group, self._group = self._group, None
        self._dist.destroy_process_group(group)


def _store() -> Any:
    """The store shared by all processes; its contents outlive closed connections."""
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


def _backend() -> str:
    """Connections for tensors on the host, and for those on GPUs if each process has its own."""
    import torch.distributed as dist

    n_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    enough = torch.cuda.is_available() and torch.cuda.device_count() >= n_local
    return "cpu:gloo,cuda:nccl" if enough and dist.is_nccl_available() else "gloo"


def _is_shared() -> bool:
    """Whether there are other processes; joins them if torchrun started this one."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available():
        raise ImportError(
            'strategy="ddp" needs a build of torch with torch.distributed and gloo: '
            "pip install torch."
        )
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return False
        if torch.cuda.is_available():
            local = int(os.environ.get("LOCAL_RANK", "0"))
            torch.cuda.set_device(local % torch.cuda.device_count())
        dist.init_process_group(_backend())
        atexit.register(_forget)
    return bool(dist.get_world_size() > 1)


def _forget() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def is_first_rank(strategy: str | None) -> bool:
    """Whether this process reports on behalf of all that fit together."""
    if strategy is None:
        return True
    import torch.distributed as dist

    return not (dist.is_available() and dist.is_initialized() and dist.get_rank() > 0)


@contextlib.contextmanager
def joined_ranks(strategy: str | None) -> Iterator[Ranks]:
    """The processes that fit together: either all finish or none does.

    Raises
    ------
    RuntimeError
        If another rank failed; the message says why.
    """
    if strategy is None or not _is_shared():
        yield ALONE
        return
    ranks = ProcessRanks()
    try:
        ranks.total(0.0)  # a failure from here on cannot cut off others that still connect
        yield ranks
        ranks.total(0.0)  # no rank keeps a result that another rank failed to reach
    except BaseException as error:
        ranks.leave(error)
        raise
    ranks.leave(None)


def shared_facts(estimator: Any, method: str, rows: Any, first: bool) -> dict[str, Any]:
    """Facts that must agree between all processes that fit together."""
    plain = (str, Number, tuple, list, type(None))
    free = ("random_state", "verbose", "device")
    goes_on = not first or bool(
        getattr(estimator, "warm_start", False) and hasattr(estimator, "n_features_in_")
    )
    return {
        "the model": type(estimator).__name__,
        "the method": method,
        "whether it continues from a fitted model": goes_on,
        "the number of features of X": rows.shape[1],
        "the type of X": str(rows.dtype),
        **{
            name: value
            for name, value in estimator.get_params(deep=False).items()
            if isinstance(value, plain) and name not in free
        },
    }
