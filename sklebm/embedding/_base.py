"""Base of embeddings: networks, views, prototypes and fitted state."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sklebm._shell.columns import add_columns
from sklebm._shell.layouts import Layout
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import purpose_seed
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import Scaling, measure_spread, recall_scaling
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm._shell.warning import warn
from sklebm.embedding import _prototypes, _validation, _views
from sklebm.energies.embedding import EmbeddingEnergy, effective_rank
from sklebm.energies.networks import ACTIVATIONS, initialize
from sklebm.energies.prototypes import PrototypeEnergy
from sklebm.energies.standardization import Standardization
from sklebm.gradient import GradientEstimator
from sklebm.inference.views import Neighbours, View
from sklebm.objectives import Batch, Objective, resolve_objective
from sklebm.objectives.embedding import InfoNCE, MarginContrast, TripletMargin
from sklebm.objectives.embedding_memory import MemoryBank, MomentumQueue
from sklebm.training.architecture import (
    NetworkRecord,
    check_image_shape,
    check_sizes,
    export_weights,
)
from sklebm.training.batches import TrainingRows, training_rows
from sklebm.training.pace import Pace
from sklebm.training.start import Start

OBJECTIVES: dict[str, type[Objective]] = {
    "margin": MarginContrast,
    "triplet": TripletMargin,
    "info_nce": InfoNCE,
    "nce_memory_bank": MemoryBank,
    "momentum_queue": MomentumQueue,
}
#: An effective rank below this share of the embedding's width is called a collapse, and so is one
#: below this number: every embedding that varies has a rank of at least 1.
LEAST_SHARE_OF_RANK, LEAST_RANK = 0.1, 1.1
#: And a smaller mean squared distance of embeddings of unit length from their mean.
LEAST_SPREAD = 0.01
NETWORKS = ("encoder",)
# Each of them needs negatives; an objective of the user may not.
_CONTRASTS = tuple(OBJECTIVES.values())
# One process holds all rows of a batch, which are each other's negatives.
_CONSTRAINTS = {
    k: v for k, v in GradientEstimator._parameter_constraints.items() if k != "strategy"
}
_FOUND = ("prototypes_", "prototype_counts_", "embedding_mean_", "embedding_spread_")


class BaseEmbedding(GradientEstimator):
    """An encoder trained on pairs of views, and prototypes of its embeddings."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **_CONSTRAINTS,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "objective": [StrOptions(set(OBJECTIVES)), Objective],
        "views": [StrOptions(set(_views.NAMES)), View, callable],
        "hidden_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "image_shape": ["array-like", None],
        "encoder": [callable, None],
        "head_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "keep_head": ["boolean"],
        "unit_length": ["boolean"],
        "n_prototypes": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }
    _pace = Pace(n_updates=2000)

    architecture_: dict[str, Any]
    weights_: dict[str, Any]
    prototypes_: NDArray[np.float64]
    embedding_spread_: float
    effective_rank_: float | None

    # ------------------------------------------------------------------ networks

    def _record(self, n_features: int) -> NetworkRecord:
        """The networks that the parameters specify."""
        sizes = check_head_sizes(self.head_sizes)
        return NetworkRecord.from_parameters(
            self,
            n_features,
            NETWORKS,
            head_sizes=np.array(sizes, dtype=np.int64),
            n_heads=int(getattr(self._chosen_objective(), "n_heads", 1)),
            keep_head=int(self.keep_head),
            unit_length=int(self.unit_length),
        )

    def _assemble(self, record: NetworkRecord) -> EmbeddingEnergy:
        encoder = record.encoder(record["n_components"])
        widths = [record["n_components"], *record["head_sizes"].tolist()]
        heads = [_head(widths, record["activation"]) for _ in range(record["n_heads"])]
        flags = {name: bool(record[name]) for name in ("unit_length", "keep_head")}
        energy = EmbeddingEnergy(encoder, heads, **flags)
        energy.n_projected = widths[-1]
        return energy

    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        record = self._record(len(means))
        energy = record.build(self._assemble, purpose_seed(generator.initial_seed(), "modules"))
        for network in (energy.encoder, *energy.heads):
            if any(parameter.is_meta for parameter in network.parameters()):
                initialize(network, generator)
        record.check_module("encoder", energy.encoder, record["n_features"], record["n_components"])
        energy.record, energy.scaling = record, rows.scaling
        return energy

    # ------------------------------------------------------------------ rows and their views

    def _chosen_objective(self) -> Objective:
        return resolve_objective(self.objective, OBJECTIVES, {})

    @property
    def _layout(self) -> Layout:
        return "step" if _views.what_is_taken(self.views) == "groups" else "row"

    def _columns(self, y: Any, groups: Any, *, whole: bool) -> dict[str, Any]:
        """Of what ``fit`` gets beside X, what the views need; ``whole`` unless it is a chunk."""
        self._validate_params()  # the views are looked at before the rows are
        _views.check_instance(self.views)
        takes = _views.what_is_taken(self.views)
        if groups is not None and takes != "groups":
            raise ValueError(
                f"groups was given, but views={self.views!r} does not use it: leave it out, or "
                'set views="groups".'
            )
        if takes != "target" or y is None:  # which is refused with the rows
            return {"target": None, "groups": groups}
        codes = _views.class_codes(y, self.views)
        if whole and isinstance(self._chosen_objective(), _CONTRASTS):
            _views.need_classes(codes, self.views)
        return {"target": codes, "groups": groups}

    def _prepare(self, rows: Rows, seed: int, *, resume: bool, **data: Any) -> Rows:
        rows = super()._prepare(rows, seed, resume=resume, **data)
        if resume:
            self._check_resumable(rows)
        scaling = recall_scaling(self) if resume else self._scaling(rows)
        view = _views.chosen_view(self.views, self.image_shape, scaling)
        owner = f"{type(self).__name__}(views={self.views!r})"
        return _views.rows_with_places(rows.standardized(scaling), view, self.views, owner)

    def _scaling(self, rows: Rows) -> Scaling:
        """Each feature by its own scale; images by one mean and scale, so that they can shift."""
        spread = measure_spread(rows)
        if self.image_shape is None:
            return spread.scaling(common=False)
        shape = check_image_shape(self.image_shape, rows.shape[1])
        mean = spread.mean.reshape(shape[0], -1).mean(axis=1)
        offset = np.repeat(mean, rows.shape[1] // shape[0])
        square = np.mean(spread.deviation**2 + (spread.mean - offset) ** 2)
        return Scaling(offset, np.full_like(offset, np.sqrt(square) if square > 0.0 else 1.0))

    def _starting_energy(self, start: Start) -> Any:
        energy = super()._starting_energy(start)
        energy.standardization = energy.prototypes = None  # training rows are scaled already
        energy.rows = start.rows
        return energy

    def _split(
        self, energy: Any, start: Start, *, whole: bool
    ) -> tuple[TrainingRows, Batch | None]:
        kept, held_out = super()._split(energy, start, whole=whole)
        view = _views.chosen_view(self.views, self.image_shape, start.rows.scaling)
        if held_out is not None:  # their places, and views, are those among all rows
            energy.held_out_views = _views.views_of(start.rows, view, energy.record.shape)
        energy.views = _views.views_among(kept, view, energy.record.shape)
        energy.n_rows = len(kept)
        return kept, held_out

    # ------------------------------------------------------------------ fitted state

    def _energy(self, device: torch.device) -> Any:
        record = NetworkRecord.of_fitted(self, NETWORKS)
        energy = record.restore(self._assemble, self.weights_, device)
        scaling = recall_scaling(self)
        if scaling is not None:
            offset, scale = (
                torch.from_numpy(a).to(device) for a in (scaling.offset, scaling.scale)
            )
            energy.standardization = Standardization(offset, scale)
        energy.prototypes = PrototypeEnergy(torch.from_numpy(self.prototypes_).to(device))
        # Embeddings that are all the same have no spread to divide by.
        energy.spread = self.embedding_spread_ or 1.0
        energy.record, energy.scaling = record, scaling
        return energy

    def _export(self, energy: Any) -> dict[str, Any]:
        scaling = energy.scaling
        return {
            "architecture_": dict(energy.record.values),
            "weights_": export_weights(energy, self),
            "offset_": None if scaling is None else scaling.offset.copy(),
            "scale_": None if scaling is None else scaling.scale.copy(),
        }

    def _trained(self, course: Any, seed: int, seen: Any, n_calls: int = 0) -> dict[str, Any]:
        state = super()._trained(course, seed, seen, n_calls)
        # Entries of a memory bank, and places of rows in a queue, belong to this run.
        own = ("objective.bank", "objective.queue_rows")
        kept = {k: v for k, v in state["training_state_"].items() if not k.startswith(own)}
        state["training_state_"] = kept
        energy = course.training.energy
        z = _prototypes.embedded(energy, energy.rows, 2 * energy.record.floats_per_row())
        if n_calls and self._is_fitted():
            before = {name: getattr(self, name) for name in _FOUND}
            found = _prototypes.moved(z, self.n_prototypes, before)
            return {**state, **found, "effective_rank_": None}
        found = _prototypes.find(z, self.n_prototypes, purpose_seed(seed, "prototypes"))
        return {**state, **found, "effective_rank_": effective_rank(torch.from_numpy(z))}

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        rank, width = state["effective_rank_"], state["prototypes_"].shape[1]
        least = LEAST_SHARE_OF_RANK * width
        if width > 1:
            least = max(least, LEAST_RANK)
        spread, found = state["embedding_spread_"], []
        if rank < least:
            found.append(
                f"their effective rank is {rank:.2g}, below {least:g}, of {width} components"
            )
        if self.unit_length and spread < LEAST_SPREAD:
            found.append(
                f"their mean squared distance from their mean is {spread:.2g}, below "
                f"{LEAST_SPREAD:g}, at a length of 1"
            )
        if found:
            warn(
                f"The embeddings of {type(self).__name__} have collapsed: {', and '.join(found)}. "
                "Check that the rows differ, make the views less alike, lower n_components or "
                "learning_rate, or raise batch_size."
            )
        return state

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """Make an estimator from given weights and prototypes, as if a fit had found them.

        Parameters
        ----------
        **parameters : object
            ``weights``, the arrays under their torch names; ``prototypes``; constructor parameters,
            including those that determine the networks; and other fitted attributes without their
            trailing underscore. Without ``offset`` and ``scale`` rows enter the encoder unscaled,
            and ``feature_means`` gives the number of features; without ``embedding_spread`` the
            free energy is the squared distance itself.

        Returns
        -------
        estimator : object
            It transforms, scores, can be saved, and keeps learning with ``partial_fit``.

        Raises
        ------
        TypeError
            If a parameter is missing or its name is unknown.
        ValueError
            If the arrays do not fit the networks that the parameters describe.
        """
        weights, prototypes = parameters.get("weights"), parameters.get("prototypes")
        if not isinstance(weights, Mapping) or prototypes is None:
            raise TypeError(
                f"{cls.__name__}.from_parameters needs weights, a dictionary of the arrays of its "
                "networks under their torch names, such as encoder.0.weight, and prototypes."
            )
        given = [parameters.get(name) for name in ("feature_means", "offset", "scale")]
        known = next((len(value) for value in given if value is not None), None)
        if known is None:
            raise TypeError(
                f"{cls.__name__}.from_parameters cannot infer the number of features: pass "
                "feature_means, the mean row."
            )
        names = set(cls._get_param_names())
        model = cls(**{name: value for name, value in parameters.items() if name in names})
        model._validate_params()
        centres = np.array(prototypes, dtype=np.float64)
        state = {
            "architecture": dict(model._record(known).values),
            "feature_means": np.zeros(known),
            "prototype_counts": np.ones(len(centres)),
            "embedding_mean": centres.mean(axis=0),
            "embedding_spread": 1.0,
        }
        arrays = {name: np.array(array) for name, array in weights.items()}
        chosen = {**state, **parameters, "weights": arrays, "prototypes": centres}
        return super().from_parameters(**chosen)

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        asked = self._record(rows.shape[1])
        NetworkRecord.of_fitted(self, NETWORKS).check_resumable(asked, self)

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "architecture_": Record(),
            "weights_": Record(),
            "offset_": Array("f", ("n_features_in_",), optional=True),
            "scale_": Array("f", ("n_features_in_",), optional=True),
            "prototypes_": Array("f", (None, None)),
            "prototype_counts_": Array("f", (None,)),
            "embedding_mean_": Array("f", (None,)),
            "embedding_spread_": Scalar(float, 0.0),
            "effective_rank_": Scalar(float, 0.0, optional=True),
        }

    def _check_state(self) -> None:
        super()._check_state()
        if not self._is_fitted():
            return
        name, record = type(self).__name__, NetworkRecord.of_fitted(self, NETWORKS)
        record.check_fitted(self._record(self.n_features_in_), name)
        record.check_weights(self._assemble, self.weights_, name)
        n_prototypes, width = self.prototypes_.shape
        lengths = (len(self.prototype_counts_), len(self.embedding_mean_), self._n_features_out)
        if lengths != (n_prototypes, width, width) or n_prototypes == 0:
            raise ValueError(
                f"{name}: prototypes_ of shape {(n_prototypes, width)} do not fit the other "
                f"arrays, or embeddings of {self._n_features_out} components."
            )
        scaling = recall_scaling(self)
        if scaling is not None and not bool((scaling.scale > 0.0).all()):
            raise ValueError(f"{name}.scale_ must be positive numbers.")

    # ------------------------------------------------------------------ validation

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        """Minus the objective of held-out rows, with the same views every time."""
        return _validation.contrast(
            energy, batch, self._chosen_objective(), max(int(self.batch_size), 2), seed
        )

    def _monitor_score(self, X: Any, groups: Any = None) -> float:
        rows = self._open(X, self, reset=False).standardized(recall_scaling(self))
        energy = self._energy(rows.device).float()
        energy.standardization = None
        view = _views.chosen_view(self.views, self.image_shape, rows.scaling)
        if groups is not None:
            owner = type(self).__name__
            add_columns(rows, owner, **self._columns(None, groups, whole=False))
            rows = _views.rows_with_places(rows, view, self.views, owner)
        elif view.takes is not None:  # neither y nor groups come with X
            view = Neighbours()
        energy.held_out_views = _views.views_of(rows, view, energy.record.shape)
        with torch.no_grad():
            return self._validation_score(energy, training_rows(rows).batch(rows.device), seed=0)

    # ------------------------------------------------------------------ row-wise methods

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = _views.what_is_taken(self.views) == "target"
        return tags

    def _floats_per_row(self) -> int:
        return 2 * NetworkRecord.of_fitted(self, NETWORKS).floats_per_row() + len(self.prototypes_)

    @property
    def _n_features_out(self) -> int:
        head = self.architecture_["head_sizes"].tolist()
        kept = head if self.architecture_["keep_head"] else []
        return int([self.architecture_["n_components"], *kept][-1])


def check_head_sizes(head_sizes: Any) -> tuple[int, ...]:
    """The widths of the head as integers; ValueError if they are not."""
    try:
        return check_sizes(head_sizes)
    except ValueError:
        raise ValueError(
            f"head_sizes={head_sizes!r} must be positive integers: the widths of the layers of the "
            "projection head, or () for none."
        ) from None


def _head(widths: list[int], activation: str) -> nn.Sequential:
    """Affine maps with activations between them; the identity for a single width."""
    steps: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        steps += [nn.Linear(before, after, device="meta"), ACTIVATIONS[activation]()]
    return nn.Sequential(*steps[:-1])
