"""Forty kinds of input, and what every estimator does with them.

``Raises(errors, *patterns)``: one of these errors, whose message shows every pattern: the problem,
what was seen, what is asked for. ``Works``: finite answers for every row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import scipy.sparse
import torch


@dataclass(frozen=True)
class Raises:
    """One of ``errors``, with a message in which every pattern is found."""

    errors: tuple[type[Exception], ...]
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class Works:
    """Finite answers for every row.

    Parameters
    ----------
    unless : Raises, optional
        The error with which a model may refuse instead.
    warns : tuple of str, optional
        A parameter, and what estimators that have it warn of.
    """

    unless: Raises | None = None
    warns: tuple[str, str] | None = None


def value_error(*patterns: str) -> Raises:
    return Raises((ValueError,), patterns)


def type_error(*patterns: str) -> Raises:
    return Raises((TypeError,), patterns)


WORKS = Works()
NAN = value_error("NaN", "impute")
INFINITE = value_error("infinity", "finite values")
NO_NUMBERS = ("needs numbers", "OneHotEncoder", "times into numbers")
OVERFLOWS = Raises(
    (FloatingPointError, ValueError),
    (r"e\+\d\d\d|overflow|loss .* became|not positive definite", "[Ss]cale"),
)
RESHAPE = value_error("Expected 2D array", "Reshape your data")
NO_TABLE = type_error("X is of type", "needs a table of numbers")
NO_PAIR = value_error(r"1 feature\(s\)", "minimum of 2", "a row is a pair")
FEW_ROWS = value_error(r"1 sample|n_samples ?= ?[13]\b", "minimum of|should be|at least")
IMAGES = value_error("dim 3|3D", r"\(120, 2, 3\)", r"X\.reshape|np\.reshape\(X|X\.flatten")
NEGATIVE = value_error("Negative values", r"-[\d.]+", "at least 0")
HAS_NEGATIVE = (21, 40)
DENSE = type_error("[Ss]parse", "toarray")


@dataclass(frozen=True)
class Input:
    """One kind of input.

    Parameters
    ----------
    number : int
        Its number in the list of forty.
    name : str
        What is special about it.
    make : callable
        Turns ordinary float64 rows into it.
    fit, predict : Raises or Works
        What ``fit``, and the row-wise methods of a fitted estimator, do with it.
    """

    number: int
    name: str
    make: Callable[[Any], Any]
    fit: Raises | Works
    predict: Raises | Works | None = None

    def outcome(self, method: str, tags: Any) -> Raises | Works:
        """What ``method`` of an estimator with these input tags does with it."""
        if tags.sparse and self.number == 32:
            return WORKS
        if tags.allow_nan and isinstance(self.fit, Raises) and "NaN" in self.fit.patterns[0]:
            return WORKS  # without what is missing
        if tags.positive_only and self.number in HAS_NEGATIVE:
            return NEGATIVE
        return self.predict or self.fit if method != "fit" else self.fit


def with_value(value: Any, dtype: Any = np.float64) -> Callable[[Any], Any]:
    """Replace one entry."""

    def make(X: Any) -> Any:
        X = X.astype(dtype)
        X[3, 1] = value
        return X

    return make


def with_column(value: Any) -> Callable[[Any], Any]:
    """Replace one column."""

    def make(X: Any) -> Any:
        X[:, 2] = value
        return X

    return make


def tensor(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same as a torch tensor."""
    return lambda X: torch.from_numpy(np.ascontiguousarray(make(X)))


def read_only_memmap(X: Any) -> Any:
    path = Path(tempfile.mkdtemp()) / "rows.npy"
    np.save(path, X)
    return np.load(path, mmap_mode="r")


def nullable_frame(X: Any) -> Any:
    frame = pd.DataFrame(X, columns=list("012345")).astype({"0": "Float64", "1": "float32"})
    return frame.assign(**{"5": pd.array(np.arange(len(X)) % 2, dtype="Int64")})


def frame_with(values: Callable[[int], Any]) -> Callable[[Any], Any]:
    def make(X: Any) -> Any:
        frame = pd.DataFrame(X, columns=list("abcdef"))
        return frame.assign(c=values(len(X)))

    return make


def enormous(X: Any) -> Any:
    return 1e308 * (2 * X - 1)


# States of an associative memory may be -1 and 1.
OUTSIDE = r"outside \[(?:0|-1), 1\] \(min=-[\d.]+, max=[\d.]+\).*MinMaxScaler.*value_range"

INPUTS: tuple[Input, ...] = (
    Input(
        1, "NaN", with_value(np.nan), value_error(r"NaN in column 1 \(1 of \d+ rows\)", "impute")
    ),
    Input(1, "NaN in float32", with_value(np.nan, np.float32), NAN),
    Input(1, "NaN tensor", tensor(with_value(np.nan)), NAN),
    Input(1, "None among numbers", with_value(None, object), NAN),
    Input(2, "infinity", with_value(np.inf), value_error(r"infinity .* in column 1 \(1 of")),
    Input(2, "infinite tensor", tensor(with_value(np.inf)), INFINITE),
    Input(3, "minus infinity", with_value(-np.inf), INFINITE),
    Input(4, "column of NaN", with_column(np.nan), NAN),
    Input(5, "no rows", lambda X: X[:0], value_error(r"0 sample\(s\)", r"\(0, 6\)", "minimum of")),
    Input(
        5,
        "no rows, tensor",
        tensor(lambda X: X[:0]),
        value_error(r"0 sample\(s\)", r"\(0, 6\)", "minimum of"),
    ),
    Input(6, "no columns", lambda X: X[:, :0], value_error("0 feature")),
    Input(
        6,
        "no columns, tensor",
        tensor(lambda X: X[:, :0]),
        value_error("0 feature"),
    ),
    Input(7, "one row", lambda X: X[:1], Works(unless=FEW_ROWS), WORKS),
    Input(
        8,
        "one column",
        lambda X: X[:, :1],
        Works(unless=NO_PAIR),
        value_error("1 features?", "6 features"),
    ),
    Input(9, "one dimension", lambda X: X[:, 0], RESHAPE),
    Input(9, "one dimension, tensor", tensor(lambda X: X[:, 0]), RESHAPE),
    Input(10, "three dimensions", lambda X: X.reshape(-1, 2, 3), IMAGES),
    Input(10, "three dimensions, tensor", tensor(lambda X: X.reshape(-1, 2, 3)), IMAGES),
    Input(11, "a number", lambda X: 3.0, RESHAPE),
    Input(11, "a number, tensor", lambda X: torch.tensor(3.0), RESHAPE),
    Input(11, "None", lambda X: None, NO_TABLE),
    Input(11, "a string", lambda X: "rows.csv", NO_TABLE),
    Input(12, "objects that are numbers", lambda X: X.astype(object), WORKS),
    Input(
        13,
        "objects, one a string",
        with_value("three", object),
        value_error("'three'", *NO_NUMBERS),
    ),
    Input(14, "strings", lambda X: np.full(X.shape, "three"), value_error("'three'", *NO_NUMBERS)),
    Input(15, "bytes", lambda X: np.full(X.shape, b"three"), value_error("b'three'")),
    Input(16, "complex", lambda X: X + 1j, value_error("Complex data not supp")),
    Input(16, "complex tensor", tensor(lambda X: X + 1j), value_error("Complex data not supp")),
    Input(17, "booleans", lambda X: X > 0.5, WORKS),
    Input(18, "int64", lambda X: (X > 0.5).astype(np.int64), WORKS),
    Input(19, "uint8", lambda X: (X > 0.5).astype(np.uint8), WORKS),
    Input(20, "float16", lambda X: X.astype(np.float16), WORKS),
    Input(21, "near the largest float", enormous, Works(unless=OVERFLOWS)),
    Input(21, "near the largest tensor", tensor(enormous), Works(unless=OVERFLOWS)),
    Input(22, "denormals", lambda X: 1e-310 * X, WORKS),
    Input(23, "constant column", with_column(0.5), WORKS),
    Input(24, "all rows equal", lambda X: np.repeat(X[:1], 40, axis=0), WORKS),
    Input(24, "all zeros", np.zeros_like, WORKS),
    Input(25, "duplicated column", lambda X: X[:, [0, 1, 2, 3, 4, 4]], WORKS),
    Input(26, "three rows", lambda X: X[:3], Works(unless=FEW_ROWS), WORKS),
    Input(27, "fewer rows than a batch", lambda X: X[:9], WORKS),
    Input(28, "one row beyond a batch", lambda X: X[:101], WORKS),
    Input(29, "read-only memory map", read_only_memmap, WORKS),
    Input(30, "Fortran order", np.asfortranarray, WORKS),
    Input(30, "negative strides", lambda X: X[::-1, ::-1], WORKS),
    Input(30, "not contiguous", lambda X: np.repeat(X, 2, axis=1)[:, ::2], WORKS),
    Input(31, "big-endian", lambda X: X.astype(">f8"), WORKS),
    Input(32, "csr", scipy.sparse.csr_array, DENSE),
    Input(32, "csc", scipy.sparse.csc_array, DENSE),
    Input(32, "coo matrix", scipy.sparse.coo_matrix, DENSE),
    Input(33, "frame of many dtypes", nullable_frame, WORKS),
    Input(
        33,
        "frame with missing value",
        frame_with(lambda n: pd.array([pd.NA] + [1] * (n - 1), dtype="Int64")),
        value_error(r"NaN in 'c' \(1 of \d+ rows\)", "SimpleImputer"),
    ),
    Input(
        33,
        "frame with categories",
        frame_with(lambda n: pd.Categorical(["low", "high"] * (n // 2))),
        value_error("'c'", "'low'|'high'", *NO_NUMBERS),
    ),
    Input(
        33,
        "frame with times, one missing",
        frame_with(lambda n: pd.to_datetime([None] + ["2024-02-29"] * (n - 1))),
        type_error("'c'", "datetime64", *NO_NUMBERS),
    ),
    Input(14, "times", lambda X: X.astype("m8[s]"), type_error("timedelta64", *NO_NUMBERS)),
    Input(
        34,
        "polars frame with null",
        lambda X: pl.DataFrame(X).with_columns(pl.lit(None).alias("column_2")),
        value_error(r"NaN in 'column_2' \((\d+) of \1 rows\)"),
    ),
    Input(
        34,
        "polars frame with dates",
        lambda X: pl.DataFrame(X).with_columns(pl.date(2024, 2, 29).alias("column_2")),
        type_error("'column_2'", "2024-02-29", *NO_NUMBERS),
    ),
    Input(36, "float16 tensor", tensor(lambda X: X.astype(np.float16)), WORKS),
    Input(36, "sparse tensor", lambda X: torch.from_numpy(X).to_sparse(), type_error("to_dense")),
    Input(36, "meta tensor", lambda X: torch.empty(X.shape, device="meta"), value_error("meta")),
    Input(37, "lists", lambda X: X.tolist(), WORKS),
    Input(37, "ragged lists", lambda X: [[1.0, 2.0], [3.0]], value_error("inhomogeneous")),
    Input(38, "iterator", lambda X: iter(X.tolist()), NO_TABLE),
    Input(38, "generator", lambda X: (row for row in X), NO_TABLE),
    Input(38, "dictionary", lambda X: {"a": X[:, 0]}, NO_TABLE),
    Input(
        39,
        "another width",
        lambda X: X[:, :4],
        WORKS,
        value_error("4 features", "6 features"),
    ),
    Input(40, "outside [0, 1]", lambda X: 10 * X - 5, Works(warns=("value_range", OUTSIDE)), WORKS),
)
