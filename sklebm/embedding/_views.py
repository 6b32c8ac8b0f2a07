"""How an estimator chooses its views, and what they are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklebm._shell.labels import read_labels
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import Scaling
from sklebm.inference.image_views import ImageAugmentation
from sklebm.inference.views import (
    FeatureCorruption,
    Groups,
    Labels,
    Neighbours,
    Source,
    View,
)
from sklebm.objectives.embedding import PairedViews
from sklebm.training.batches import TrainingRows

CHOICES: dict[str, type[View]] = {"labels": Labels, "neighbours": Neighbours, "groups": Groups}
NAMES = ("augment", *CHOICES)


@dataclass(frozen=True)
class UserViews(View):
    """Views by a function of the user, which sees rows in the units of X."""

    function: Callable[[Tensor, torch.Generator], Tensor]
    scaling: Scaling | None

    draws_both: ClassVar[bool] = True
    reads_rows: ClassVar[bool] = False

    def draw(
        self,
        x: Tensor,
        index: Tensor,
        source: Source,
        prepared: dict[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """``function(rows, generator)``, checked."""
        rows = x if self.scaling is None else self.scaling.restore(x)
        images = len(source.shape) == 3
        view = self.function(rows.reshape(len(x), *source.shape) if images else rows, generator)
        if not isinstance(view, Tensor) or view.numel() != x.numel() or len(view) != len(x):
            found = tuple(view.shape) if isinstance(view, Tensor) else type(view).__name__
            raise ValueError(
                f"views returned {found} for {len(x)} rows, but must return a tensor of one view "
                f"of each: the shape of its argument, {(len(x), *source.shape)}."
            )
        view = view.reshape(x.shape).to(x.dtype)
        if not bool(torch.isfinite(view).all()):
            raise ValueError("views returned NaN or infinity: every view must be finite.")
        return view if self.scaling is None else self.scaling.apply(view)


def chosen_view(views: Any, image_shape: Any, scaling: Scaling | None = None) -> View:
    """The views that the parameter means.

    Raises
    ------
    ValueError
        If they are views of images, and rows are no images.
    """
    if isinstance(views, View):
        view = views
    elif callable(views):
        view = UserViews(views, scaling)
    elif views == "augment":
        view = FeatureCorruption() if image_shape is None else ImageAugmentation()
    else:
        view = CHOICES[views]()
    if view.needs_images and image_shape is None:
        raise ValueError(
            f"views={views!r} are views of images: set image_shape, or choose "
            "views=FeatureCorruption() for a table."
        )
    return view


def what_is_taken(views: Any) -> str | None:
    """What the parameter needs of ``fit``: "target", "groups" or nothing."""
    found = CHOICES.get(views) if isinstance(views, str) else views
    return getattr(found, "takes", None)


def class_codes(y: Any, given: Any) -> NDArray[np.int64]:
    """Labels of any kind as whole numbers from 0, one for each row.

    Raises
    ------
    ValueError
        If y holds no labels.
    """
    try:
        labels = read_labels(y, f"views={given!r}")
    except ValueError as error:
        raise ValueError(
            f"views={given!r} needs class labels, one for each row: {error}"
        ) from error
    return np.unique(labels, return_inverse=True)[1]


def need_classes(codes: NDArray[np.int64], given: Any) -> None:
    """Raise ValueError if all rows are of one class."""
    if len(codes) and codes.max() == 0:
        raise ValueError(
            f"views={given!r} takes rows of other classes as negatives, but y holds one class: "
            "pass rows of several classes, or choose other views."
        )


def rows_with_places(rows: Rows, view: View, given: Any, owner: str) -> Rows:
    """The rows, with their places as targets and their classes or sequences as groups."""
    if view.needs_rows and rows.is_lazy:
        raise ValueError(
            f"{owner} takes views from other rows, which must be in memory, but X of shape "
            f"{rows.shape} is larger than scikit-learn's working_memory: raise it if X fits, or "
            'use views="augment".'
        )
    columns = dict(rows.columns)
    kinds = columns.pop("target", None) if view.takes == "target" else columns.get("groups")
    if view.takes is not None and kinds is None:
        name = "y" if view.takes == "target" else "groups"
        raise ValueError(
            f"views={given!r} needs {name}, one entry for each row: call fit(X, "
            f"{'y' if name == 'y' else 'groups=groups'})."
        )
    columns = {"target": torch.arange(len(rows), device=rows.device)}
    if kinds is not None and view.takes is not None:
        columns["groups"] = kinds
    rows.columns = columns
    return rows


def views_of(rows: Rows, view: View, shape: tuple[int, ...]) -> PairedViews:
    """Views of any of these rows, drawn from all of them."""
    reads = view.reads_rows and not rows.is_lazy
    kept = rows.around_origin(rows.all()).float() if reads else None
    return PairedViews(view, Source(kept, rows.columns.get("groups"), shape))


def views_among(rows: TrainingRows, view: View, shape: tuple[int, ...]) -> PairedViews:
    """Views of the rows that are learnt from, drawn from these alone; they are numbered anew.

    Views that are other rows would otherwise bring in those that are held out. The tensor of the
    rows is shared with the batches.
    """
    kept = rows.X if view.reads_rows and isinstance(rows.X, Tensor) else None
    rows.columns["target"] = torch.arange(len(rows), device=rows.columns["target"].device)
    return PairedViews(view, Source(kept, rows.columns.get("groups"), shape))


def check_instance(views: Any) -> None:
    """Raise ValueError if the parameter is a class, which could be called but returns no views."""
    if isinstance(views, type):
        raise ValueError(
            f"views={views.__name__} is a class, but must be an object: pass {views.__name__}()."
        )
