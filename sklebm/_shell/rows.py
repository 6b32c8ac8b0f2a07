"""The single entry and exit for data: rows of X as tensors, results in the caller's type.

``open_rows`` validates X once (NumPy, pandas, polars, scipy sparse where declared, torch tensors
on any device). ``Rows`` hands the rows out as dense tensors on the compute device, and ``Rows.map``
streams a row-wise function over them in chunks bounded by scikit-learn's ``working_memory``.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from sklebm._shell.layouts import advice_on_shape
from sklebm._shell.private import get_chunk_n_rows
from sklebm._shell.ranks import ALONE
from sklebm._shell.refusal import explain, refusal_as, refuse_times
from sklebm._shell.scaling import Scaling
from sklebm._shell.tables import LazyTable, check_dimensions, check_table, read_table, shape_of
from sklebm._shell.warning import warn

# Temporaries larger than this no longer fit in a CPU's caches, and a chunk already keeps all cores
# busy. Other devices lack such caches, and small chunks leave them waiting for the next launch.
_CHUNK_MEBIBYTES = 64


def resolve_device(requested: str | torch.device, X: object, prefers_cuda: bool) -> torch.device:
    """Return the device to compute on; ``"auto"`` follows X, then CUDA if preferred, then CPU.

    Raises
    ------
    ValueError
        If the device is not available here; the message gives the reason and the remedy.
    """
    if isinstance(requested, str) and requested == "auto":
        if isinstance(X, torch.Tensor):
            return X.device
        return torch.device("cuda" if prefers_cuda and torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(requested)
        if device.type == "meta":
            raise RuntimeError("the meta device holds no values")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        count = torch.cuda.device_count()
        reason = str(error).splitlines()[0]
        forked = " A forked process cannot open a CUDA device: use the loky or spawn start method."
        raise ValueError(
            f"device={requested!r} cannot be used here ({reason}). torch sees {count} CUDA "
            f'device(s); use device="auto" or device="cpu".{forked * ("forked" in reason)}'
        ) from error
    return device


def open_rows(
    estimator: BaseEstimator,
    X: Any,
    *,
    device: torch.device,
    reset: bool,
    accept_sparse: bool = False,
    min_rows: int = 1,
) -> Rows:
    """Validate X against ``estimator`` and wrap it.

    With ``reset=True`` this sets ``n_features_in_`` (and ``feature_names_in_``) on ``estimator``;
    callers pass a temporary copy, so that a later failure leaves the real one untouched.
    """
    if isinstance(X, torch.Tensor):
        X = _check_tensor(X, estimator, min_rows)
        X = validate_data(estimator, X, reset=reset, skip_check_array=True)
        return Rows(X, device)
    name = type(estimator).__name__
    if type(X) is not np.ndarray or X.ndim > 2 or X.dtype.names or X.base is not None:
        check_table(X, estimator)
        X = read_table(X, name)  # it may be a view of a file
    if isinstance(X, LazyTable):  # it checks the rows as it reads them
        _check_size(X.shape, name, min_rows)
        validate_data(estimator, X.array, reset=reset, skip_check_array=True)
        return Rows(X, device)
    if scipy.sparse.issparse(X) and X.format in ("csr", "csc") and not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()  # operations such as clipping must see whole values
    if getattr(X, "dtype", None) == np.float16:
        X = X.astype(np.float32)  # half precision overflows in squares; double would be a waste
    refuse_times(X, name)
    try:
        checked = validate_data(
            estimator,
            X,
            reset=reset,
            dtype=[np.float64, np.float32],
            accept_sparse="csr" if accept_sparse else False,
            ensure_min_samples=min_rows,
        )
    except (TypeError, ValueError) as error:  # the former from objects such as pd.NA
        reason = None if scipy.sparse.issparse(X) else explain(X, name)
        if reason is None:
            check_dimensions(estimator, shape_of(X))
            raise
        raise refusal_as(error, reason) from error
    if isinstance(checked, torch.Tensor) or scipy.sparse.issparse(checked):
        return Rows(checked, device)
    rows = Rows(np.asarray(checked), device)
    rows.feature_names = getattr(estimator, "feature_names_in_", None)
    return rows


def _check_tensor(X: torch.Tensor, estimator: Any, min_rows: int) -> torch.Tensor:
    """Validate a torch tensor, with scikit-learn's messages for arrays."""
    name = type(estimator).__name__
    if X.layout is not torch.strided:
        raise TypeError(
            f"A sparse torch tensor (layout {X.layout}) was passed to {name}, but dense data is "
            "required: call X.to_dense() first."
        )
    if X.ndim != 2:
        kind = {0: "scalar", 1: "1D"}.get(X.ndim, f"{X.ndim}D")
        raise ValueError(
            f"Expected 2D array, got {kind} array instead: a tensor of shape {tuple(X.shape)} was "
            f"passed to {name}{advice_on_shape(estimator, tuple(X.shape), tensor=True)}"
        )
    if X.is_complex():
        raise ValueError(
            f"Complex data not supported: {name} got a tensor of dtype {X.dtype}. Pass real and "
            "imaginary parts as separate columns."
        )
    if X.device.type == "meta":
        raise ValueError(f"X is on the meta device and holds no values: {name} needs numbers.")
    _check_size(tuple(X.shape), name, min_rows)
    X = X.detach()
    if X.is_inference():
        X = X.clone()  # such a tensor cannot be used in anything that is differentiated
    if X.dtype in (torch.float16, torch.bfloat16):
        X = X.float()
    elif X.dtype not in (torch.float32, torch.float64):
        X = X.double()
    # A finite sum proves that all entries are finite, without a mask as large as X.
    if not torch.isfinite(X.sum()) and not torch.isfinite(X).all():
        what = "NaN" if torch.isnan(X).any() else "infinity"
        raise ValueError(
            f"Input X contains {what}. {name} needs finite values: impute or drop such rows first."
        )
    return X


def _check_size(shape: tuple[int, ...], name: str, min_rows: int) -> None:
    for size, least, what in zip(shape, (min_rows, 1), ("sample(s)", "feature(s)"), strict=True):
        if size < least:
            raise ValueError(
                f"Found array with {size} {what} (shape={shape}) while a minimum of {least} is "
                f"required by {name}."
            )


class Rows:
    """Validated rows of X.

    Parameters
    ----------
    source : ndarray, csr matrix, torch.Tensor or LazyTable of shape (n_rows, n_columns)
        Finite values of dtype float32 or float64. Never written to.
    device : torch.device
        Where ``rows[...]`` puts the tensors.
    """

    def __init__(self, source: Any, device: torch.device) -> None:
        self.source = source
        self.device = device
        self.shape: tuple[int, int] = (int(source.shape[0]), int(source.shape[1]))
        is_tensor = isinstance(source, torch.Tensor)
        double = source.dtype in (torch.float64, np.float64)
        self.dtype = torch.float64 if double else torch.float32
        self._output_device = source.device if is_tensor else None
        #: Rows are clamped to these limits when they are handed out.
        self.limits: tuple[float, float] | None = None
        #: Subtracted from the rows by ``map`` and training, in double precision: single precision
        #: would lose rows far from zero.
        self.origin: torch.Tensor | None = None
        self.scaling: Scaling | None = None  # standardises rows as they are handed out
        #: Names of the columns, if X has any.
        self.feature_names: np.ndarray[Any, Any] | None = None
        #: The processes that hold the other rows of the same fit.
        self.ranks = ALONE
        #: Columns that accompany the rows, one entry per row: "target", "weight", "groups".
        self.columns: dict[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def is_lazy(self) -> bool:
        """True if the rows stay on disk: requesting all of them at once may exhaust memory."""
        return isinstance(self.source, LazyTable)

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Rows at ``index`` (a slice or integers) as a dense tensor on the device."""
        if isinstance(index, torch.Tensor):
            index = index.cpu().numpy()
        part = self._tensor(index)
        if self.limits is not None:
            part = part.clamp(*self.limits)
        return part if self.scaling is None else self.scaling.apply(part)

    def standardized(self, scaling: Scaling | None) -> Rows:
        """A view of the same rows that returns them standardised; this one is unchanged."""
        rows = copy.copy(self)
        rows.scaling = scaling
        return rows

    def some(self, index: torch.Tensor) -> Rows:
        """The rows at ``index``, held in memory, with the columns that accompany them."""
        rows = copy.copy(self)
        at: Any = index.cpu()
        rows.source = self.source[at if isinstance(self.source, torch.Tensor) else at.numpy()]
        rows.shape = (len(at), self.shape[1])
        rows.columns = {name: column[at] for name, column in self.columns.items()}
        return rows

    def in_own_units(self, x: torch.Tensor) -> torch.Tensor:
        """Convert a standardised row, such as a mean of rows, to the units of X."""
        return x if self.scaling is None else self.scaling.restore(x)

    def _tensor(self, index: Any) -> torch.Tensor:
        part = self.source[index]
        if isinstance(part, torch.Tensor):
            return part.to(self.device)
        if scipy.sparse.issparse(part):
            part = part.toarray()
        # A read-only or strided array cannot back a tensor: copy these, share the others.
        part = np.require(part, requirements=["C", "W"])
        return torch.from_numpy(part).to(self.device)

    def all(self) -> torch.Tensor:
        """All rows on the device; shares memory with X where possible, so never write to it."""
        return self[:]

    def need_one_process(self, what: str) -> None:
        """Raise ValueError if other processes hold some of the rows."""
        if self.ranks.size > 1:
            raise ValueError(
                f'{what} needs all rows in one process, but strategy="ddp" divides them among '
                f"{self.ranks.size}: leave strategy out, and fit in one process."
            )

    def total(self) -> int:
        """Total number of rows on all ranks."""
        return int(self.ranks.total(len(self)))

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """All rows as a dense NumPy array on the CPU; shares memory with X where possible."""
        if isinstance(self.source, np.ndarray):
            return self.source
        return np.asarray(self.all().cpu().numpy())

    def chunks(self, floats_per_row: int) -> list[slice]:
        """Slices that cover all rows in order, see ``row_slices``."""
        return row_slices(len(self), floats_per_row, self.device)

    def around_origin(self, x: torch.Tensor) -> torch.Tensor:
        """Some of the rows minus the origin, in their own dtype."""
        if self.origin is None:
            return x
        return (x.double() - self.origin.to(x.device)).to(x.dtype)

    def map(
        self,
        function: Callable[..., torch.Tensor],
        *,
        floats_per_row: int,
        what: str,
        as_numpy: bool = False,
        beside: Rows | None = None,
        may_be_infinite: bool = False,
    ) -> Any:
        """Apply a row-wise function chunk by chunk; the result has the type and dtype of X.

        With ``beside``, the function also receives the rows at the same positions there.
        If memory runs out, the chunk is halved, down to a single row, with one warning.

        Raises
        ------
        FloatingPointError
            If a result is not finite, naming the row and the largest magnitude in X.
        MemoryError
            If even one row does not fit.
        """
        out: Any = None
        start, step = 0, chunk_size(len(self), floats_per_row, self.device)
        n_rows = len(self)
        warned = False
        with torch.no_grad():
            while start < n_rows:
                rows = slice(start, min(start + step, n_rows))
                try:
                    others = () if beside is None else (beside[rows],)
                    part = function(self.around_origin(self[rows]), *others)
                    if out is None:
                        out = self._allocate(part, as_numpy)
                except (RuntimeError, MemoryError) as error:
                    step = _smaller_chunk(error, rows.stop - start, what)
                    if not warned:
                        warn(
                            f"{what} ran out of memory; continuing with {step} row(s) at a time. "
                            "Lower scikit-learn's working_memory to avoid the retry.",
                            RuntimeWarning,
                        )
                        warned = True
                    continue
                # In the dtype of the result, which a value finite in double precision may overflow.
                part = part.to(out.dtype)
                if not (may_be_infinite and not bool(part.isnan().any())):
                    self._check_finite(part, rows.start, what)
                out[rows] = part
                start = rows.stop
        return out if as_numpy is False and self._output_device is not None else out.numpy()

    def _allocate(self, first: torch.Tensor, as_numpy: bool) -> torch.Tensor:
        shape = (len(self), *first.shape[1:])
        dtype = self.dtype if first.is_floating_point() else first.dtype
        device = None if as_numpy else self._output_device
        return torch.empty(shape, dtype=dtype, device=device)

    def _check_finite(self, part: torch.Tensor, offset: int, what: str) -> None:
        if not part.is_floating_point() or bool(torch.isfinite(part).all()):
            return
        bad = ~torch.isfinite(part.reshape(len(part), -1)).all(dim=1)
        row = int(bad.nonzero()[0, 0])
        chunk = self.standardized(None)[offset : offset + len(part)]
        raise FloatingPointError(
            f"{what} is not finite for row {offset + row} (largest |X| there: "
            f"{float(chunk[row].abs().max()):.3g}). Scale X, for example with StandardScaler; if "
            "X is of moderate size, the fitted parameters are not finite and the model must be "
            "fitted again."
        )


_CPU = torch.device("cpu")


def chunk_size(n_rows: int, floats_per_row: int, device: torch.device = _CPU) -> int:
    """Rows per chunk when one row needs ``floats_per_row`` temporary double-precision numbers."""
    row_bytes = 8 * max(1, floats_per_row)
    # Warns if a single row needs more than scikit-learn's working_memory.
    n_chunk = int(get_chunk_n_rows(row_bytes, max_n_rows=n_rows))
    if device.type == "cpu":
        n_chunk = min(n_chunk, max(1, _CHUNK_MEBIBYTES * 2**20 // row_bytes))
    return n_chunk


def row_slices(n_rows: int, floats_per_row: int, device: torch.device = _CPU) -> list[slice]:
    """Slices that cover ``n_rows`` rows in order, each within scikit-learn's working memory."""
    step = chunk_size(n_rows, floats_per_row, device)
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


def is_out_of_memory(error: Exception) -> bool:
    """True if ``error`` means that memory ran out, on the CPU or on a GPU."""
    # torch's CPU allocator has no error class of its own, nor have sizes beyond its integers.
    signs = ("can't allocate memory", "Storage size calculation overflowed")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        sign in str(error) for sign in signs
    )


@contextlib.contextmanager
def advice_on_memory(name: str, X: Any) -> Iterator[None]:
    """Turn any out-of-memory error into a MemoryError that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        shape = tuple(getattr(X, "shape", ())) or f"({len(X)}, ...)"
        raise MemoryError(
            f"{name}.fit ran out of memory on X of shape {shape}: choose a smaller model or batch, "
            f"or pass fewer rows. The estimator was left unchanged. ({reason})"
        ) from error


def _smaller_chunk(error: Exception, rows: int, what: str) -> int:
    """Half of ``rows`` if ``error`` means that memory ran out; otherwise re-raise it."""
    if not is_out_of_memory(error):
        raise error
    if rows <= 1:
        raise MemoryError(
            f"{what} does not fit in memory even for one row: use a smaller model or a device "
            "with more memory."
        ) from error
    return rows // 2
