"""Tables larger than memory: memory-mapped files and dask arrays, read block by block.

A table that fits into scikit-learn's ``working_memory`` is read at once and treated as an array. A
larger one stays on disk: ``LazyTable`` returns requested rows, checked and converted as they are
read.
"""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Set
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn import get_config

from sklebm._shell.layouts import advice_on_shape, refuse_sequences

Array = NDArray[Any]


def is_dask(X: object) -> bool:
    """True for a dask array, without importing dask."""
    return type(X).__module__.startswith("dask.array")


def check_table(X: object, estimator: Any) -> None:
    """Reject objects that NumPy would turn into a meaningless array."""
    name = type(estimator).__name__
    if scipy.sparse.issparse(X):  # one of them is a dictionary
        return
    advice = _advice(X)
    if advice or X is None or isinstance(X, (str, bytes, Mapping, Set, Iterator)):
        raise TypeError(
            f"X is of type {type(X).__name__}, but {name} needs a table of numbers: an array, a "
            f"data frame, a tensor or a list of rows.{advice}"
        )
    if isinstance(X, np.ma.MaskedArray) and np.ma.getmaskarray(X).any():
        raise ValueError(
            f"X is a masked array with {int(np.ma.getmaskarray(X).sum())} masked values, which "
            f"{name} would read as numbers: impute them first, X.filled(...), or drop such rows."
        )
    refuse_sequences(estimator, X)
    check_dimensions(estimator, tuple(getattr(X, "shape", ())))


def shape_of(X: Any) -> tuple[int, ...]:
    """The shape of a nested list; empty if its parts differ in length."""
    try:
        return tuple(np.shape(X))
    except ValueError:
        return ()


def check_dimensions(estimator: Any, shape: tuple[int, ...]) -> None:
    """Reject more than two dimensions, and say what to pass instead."""
    if len(shape) > 2:
        raise ValueError(
            f"Found array with dim {len(shape)} (shape={shape}), while dim <= 2 is required by "
            f"{type(estimator).__name__}{advice_on_shape(estimator, shape)}"
        )


def _advice(X: object) -> str:
    """How to turn a table-like object into a table; empty for anything else."""
    if isinstance(X, torch.utils.data.DataLoader):
        return " Pass the tensor that the loader reads: the estimator makes its own batches."
    if isinstance(X, torch.utils.data.Dataset):
        return " Pass its rows as one tensor, such as dataset.tensors[0]."
    if type(X).__name__ == "LazyFrame":
        return " Call X.collect() first."
    if getattr(getattr(X, "dtype", None), "names", None):
        return " Turn its fields into columns: numpy.lib.recfunctions.structured_to_unstructured."
    return ""


def read_table(X: Any, name: str) -> Any:
    """X itself, a small dask array as a NumPy array, or a ``LazyTable``.

    Raises
    ------
    TypeError
        If X is a dask data frame.
    ValueError
        If the number of rows of a dask array is not known.
    """
    if type(X).__module__.startswith(("dask.dataframe", "dask_expr")):
        raise TypeError(
            f"A dask data frame was passed to {name}: pass X.to_dask_array(lengths=True) instead."
        )
    if is_dask(X):
        if any(np.isnan(size) for size in X.shape):
            raise ValueError(
                f"The dask array passed to {name} has an unknown shape, {X.shape}: call "
                "X.compute_chunk_sizes() first."
            )
        return DaskTable(X, name) if _is_large(X) else X.compute()
    return MappedTable(X, name) if _mapping(X) is not None and _is_large(X) else X


def _mapping(X: Any) -> Any:
    """The memory-mapped array that backs an array, or None."""
    while isinstance(X, np.ndarray):
        if getattr(X, "_mmap", None) is not None:
            return X
        X = X.base
    return None


def _is_large(X: Any) -> bool:
    """True for a table of numbers that does not fit into scikit-learn's working memory."""
    if X.ndim != 2 or X.dtype.kind not in "fiub":
        return False
    n_bytes = X.shape[0] * X.shape[1] * _float_type(X.dtype).itemsize
    return bool(n_bytes > 2**20 * get_config()["working_memory"])


def _float_type(dtype: Any) -> np.dtype[Any]:
    """The dtype that numbers of ``dtype`` are converted to, as for arrays in memory."""
    single = dtype.kind == "f" and dtype.itemsize <= 4
    return np.dtype(np.float32 if single else np.float64)


class LazyTable(ABC):
    """Rows that are read on demand.

    Parameters
    ----------
    array : memory-mapped array or dask array of shape (n_rows, n_columns)
        Real numbers of any type.
    name : str
        Name of the estimator, for messages.
    """

    def __init__(self, array: Any, name: str) -> None:
        self.array = array
        self.name = name
        self.shape: tuple[int, int] = (int(array.shape[0]), int(array.shape[1]))
        self.dtype = _float_type(array.dtype)

    def __getitem__(self, index: Any) -> Array:
        """Rows at a slice or an integer array; rejects NaN and infinity like any other input."""
        if isinstance(index, slice):
            start, stop, step = index.indices(self.shape[0])
            index = slice(start, max(start, stop)) if step == 1 else np.arange(start, stop, step)
        part = np.asarray(self._read(index if isinstance(index, slice) else np.asarray(index)))
        part = part.astype(self.dtype, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            finite = bool(np.isfinite(part.sum())) or bool(np.isfinite(part).all())
        if not finite:
            what = "NaN" if np.isnan(part).any() else "infinity"
            raise ValueError(
                f"Input X contains {what}. {self.name} needs finite values: impute or drop such "
                "rows first."
            )
        return part

    @abstractmethod
    def _read(self, index: Any) -> Any:
        """Rows at a slice of step 1, or at an integer array, as they are stored."""

    @abstractmethod
    def blocks(self, n_rows: int) -> list[slice]:
        """Slices of about ``n_rows`` that cover all rows and are cheap to read in any order."""


# Bytes of a file that stay mapped. A row that is read alone brings its surroundings with it.
_MAPPED, _SURROUNDINGS = 2**25, 2**16


class MappedTable(LazyTable):
    """Rows of a memory-mapped file.

    Pages that have been read count as memory of the process until it is short of memory, so those
    of files that are only read are given back now and then. They are read again where needed.
    """

    _n_mapped = 0

    def _read(self, index: Any) -> Any:
        if isinstance(index, slice):
            part = self.array[index]
            self._count(part.nbytes)
            return part
        rows = np.empty((len(index), self.shape[1]), self.array.dtype)
        step = _MAPPED // _SURROUNDINGS
        for start in range(0, len(index), step):
            part = index[start : start + step]
            rows[start : start + step] = self.array[part]
            self._count(len(part) * _SURROUNDINGS)
        return rows

    def _count(self, n_bytes: int) -> None:
        """Give back all pages if many have been read; views of them remain valid."""
        self._n_mapped += n_bytes
        if self._n_mapped > _MAPPED:
            source = _mapping(self.array)
            # Pages of other modes may hold changes that the file does not have.
            if source.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
                source._mmap.madvise(mmap.MADV_DONTNEED)
            self._n_mapped = 0

    def blocks(self, n_rows: int) -> list[slice]:
        """Runs of neighbouring rows."""
        total = self.shape[0]
        return [slice(start, min(start + n_rows, total)) for start in range(0, total, n_rows)]


class DaskTable(LazyTable):
    """Rows of a dask array; the most recently read block stays in memory."""

    def __init__(self, array: Any, name: str) -> None:
        super().__init__(array.rechunk({1: -1}), name)
        self._ends = np.cumsum(self.array.chunks[0])
        self._last: tuple[int, Array] | None = None

    def _block(self, number: int) -> Array:
        if self._last is None or self._last[0] != number:
            self._last = None  # never two of them
            self._last = (number, np.asarray(self.array.blocks[number].compute()))
        return self._last[1]

    def _read(self, index: Any) -> Any:
        if isinstance(index, slice):
            if index.start == index.stop:
                return np.empty((0, self.shape[1]))
            first, last = np.searchsorted(self._ends, [index.start, index.stop - 1], side="right")
            parts = []
            for number in range(first, last + 1):
                offset = self._ends[number] - self.array.chunks[0][number]
                start, stop = max(index.start - offset, 0), index.stop - offset
                parts.append(self._block(number)[start:stop])
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        rows = np.empty((len(index), self.shape[1]), self.array.dtype)
        owners = np.searchsorted(self._ends, index, side="right")
        for number in np.unique(owners):
            chosen = owners == number
            offset = self._ends[number] - self.array.chunks[0][number]
            rows[chosen] = self._block(number)[index[chosen] - offset]
        return rows

    def blocks(self, n_rows: int) -> list[slice]:
        """The blocks of the dask array, whatever their size: a part costs as much as the whole."""
        sizes = self.array.chunks[0]
        ends = self._ends.tolist()
        return [slice(e - size, e) for e, size in zip(ends, sizes, strict=True) if size]


def map_blocks(X: Any, function: Callable[[Any], Any]) -> Any:
    """A dask array of ``function`` applied to each block of rows of X, computed on demand.

    ``function`` is called once on a row of zeros to determine the shape and type of its results.
    """
    probe = function(np.zeros((1, X.shape[1]), _float_type(X.dtype)))

    def apply(block: Array) -> Array:
        if not len(block):
            return np.empty((0, *probe.shape[1:]), probe.dtype)
        return np.asarray(function(block))

    X = X.rechunk({1: -1})
    if probe.ndim == 1:
        return X.map_blocks(apply, dtype=probe.dtype, drop_axis=1, meta=probe[:0])
    chunks = (X.chunks[0], (probe.shape[1],))
    return X.map_blocks(apply, dtype=probe.dtype, chunks=chunks, meta=probe[:0])


def as_of_now(model: Any, function: Any) -> tuple[Any, Any]:
    """A copy of a model that later fits do not change, and a function of it, of the same kind."""
    frozen = model._twin(vars(model))
    return frozen, rebound(function, model, frozen)


def rebound(function: Any, model: Any, frozen: Any) -> Any:
    """A function with another model in place of that which it is bound to, or holds."""
    if isinstance(function, partial):
        arguments = [frozen if value is model else value for value in function.args]
        inner = rebound(function.func, model, frozen)
        return partial(inner, *arguments, **function.keywords)
    if getattr(function, "__self__", None) is model:
        return function.__func__.__get__(frozen)
    return function


def wants_frames(estimator: Any) -> bool:
    """True if set_output asks for data frames, which are built from NumPy arrays."""
    config = getattr(estimator, "_sklearn_output_config", {}).get("transform")
    return bool((config or get_config()["transform_output"]) != "default")
