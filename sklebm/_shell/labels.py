"""Labels as codes 0 to K - 1, and the weights of rows by their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from sklebm._shell.arrays import to_numpy


def read_labels(y: Any, owner: str) -> NDArray[Any]:
    """The labels as a NumPy array of one dimension.

    Raises
    ------
    ValueError
        If y is missing, is no column of labels, or holds real numbers, NaN or infinity, or labels
        of types that cannot be sorted together.
    """
    if y is None:
        raise ValueError(f"{owner} requires y to be passed, but the target y is None.")
    if isinstance(y, torch.Tensor):
        y = to_numpy(y)
    labels = np.asarray(column_or_1d(y, warn=True))
    assert_all_finite(labels, input_name="y")
    if labels.dtype == object:
        kinds = sorted({type(label).__name__ for label in labels.tolist()})
        try:
            np.unique(labels)
        except TypeError as error:
            raise ValueError(
                f"y mixes labels of the types {', '.join(kinds)}, which cannot be sorted: turn all "
                "of them into one type, such as str, and name or leave out rows without a label."
            ) from error
    check_classification_targets(labels)
    return labels


def encode(
    labels: NDArray[Any],
    classes: NDArray[Any],
    owner: str,
    remedy: str = "list all labels as classes in the first call of partial_fit",
) -> NDArray[np.int64]:
    """The place of each label among the classes, which are sorted.

    Raises
    ------
    ValueError
        If a label is none of the classes.
    """
    strange = sorted({*labels.tolist()} - {*classes.tolist()}, key=repr)
    if strange:
        shown = ", ".join(map(repr, strange[:5]))
        raise ValueError(
            f"y holds {shown}, but {owner} was fitted with the labels {classes.tolist()}: pass "
            f"only those, or {remedy}."
        )
    return np.searchsorted(classes, labels.astype(classes.dtype, copy=False))


def decode(codes: Any, classes: NDArray[Any]) -> Any:
    """The labels of codes; a tensor stays one if the labels are numbers."""
    if not isinstance(codes, torch.Tensor):
        return classes[codes]
    if classes.dtype.kind in "OU":
        return classes[codes.cpu().numpy()]
    return torch.from_numpy(classes).to(codes.device)[codes]


def weigh(
    sample_weight: Any, class_weight: Any, labels: NDArray[Any], classes: NDArray[Any]
) -> Any:
    """The weight of each row: that of the row times that of its label; None if there are none."""
    if class_weight is None:
        return sample_weight
    given = np.ones(len(labels)) if sample_weight is None else to_numpy(sample_weight).astype(float)
    if given.ndim == 0:
        given = np.full(len(labels), given)
    if given.shape != labels.shape:
        return given  # whose shape is refused with the rows
    present = np.unique(labels)
    if isinstance(class_weight, dict):
        strange = sorted(set(class_weight) - set(classes.tolist()), key=repr)
        if strange:
            raise ValueError(
                f"class_weight={class_weight!r} names {strange[0]!r}, which is not a label: use "
                f"labels of y, {classes.tolist()}."
            )
        by_label = np.array([class_weight.get(label, 1.0) for label in present.tolist()])
    else:
        by_label = compute_class_weight(
            class_weight, classes=present, y=labels, sample_weight=given
        )
    return given * by_label[np.searchsorted(present, labels)]


def plain_label(label: Any) -> Any:
    """A label without NumPy's type, which would be part of its repr."""
    return label.item() if isinstance(label, np.generic) else label
