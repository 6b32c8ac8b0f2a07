"""The scikit-learn shell that every estimator lives in.

An estimator chooses an energy, an inference and an objective; this base class does everything else,
from validation to callbacks. A model supplies

- ``_fit(rows, progress, **data) -> state``: a pure function of the data that returns every
  fitted attribute in a dictionary; the shell commits it in one assignment;
- optionally ``_partial_fit(rows, progress, **data) -> state``, likewise;
- ``_state_spec()``: the type and shape of every fitted attribute and the energy parameter it holds,
  and ``_rebuild(parameters) -> energy``, which builds the torch energy from those parameters;
- public methods, each a single call to ``_map_rows``.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.available import available_if, keeps_training_state, learns_in_parts
from sklebm._shell.columns import add_columns
from sklebm._shell.pickling import pickled, unpickled
from sklebm._shell.private import StrOptions, fit_context
from sklebm._shell.progress import Progress
from sklebm._shell.ranks import joined_ranks, shared_facts
from sklebm._shell.rows import Rows, advice_on_memory, open_rows, resolve_device
from sklebm._shell.state import (
    Spec,
    check_attributes,
    check_input_names,
    exported,
    fitted_attributes,
    held_tensors,
    input_names,
    made_from,
    need_finite,
    refuse_broken,
)
from sklebm._shell.surroundings import shelter_methods, sheltered
from sklebm._shell.tables import as_of_now, is_dask, map_blocks, wants_frames

# Address of the published documentation; without it, the HTML representation has no links.
DOCUMENTATION_URL = os.environ.get("SKLEBM_DOCUMENTATION_URL", "")


def map_energy(
    model: Any,
    X: Any,
    function: Callable[..., torch.Tensor],
    what: str,
    *,
    latents: bool = False,
    beside: Rows | Callable[[Rows], Rows] | None = None,
    may_be_infinite: bool = False,
) -> Any:
    """Stream ``function(energy, rows)`` of a fitted model over X; the result is of the type of X.

    ``latents``: X is the output of ``transform``. The entries ``beside``, or a function of the
    validated rows that returns them, are a third argument.
    """
    check_is_fitted(model)
    if beside is None and not isinstance(X, (np.ndarray, torch.Tensor)) and is_dask(X):
        frozen, function = as_of_now(model, function)
        own = partial(map_energy, frozen, latents=latents, may_be_infinite=may_be_infinite)
        return map_blocks(X, sheltered(lambda x: own(x, function, what)))
    refuse_broken(model, what)  # a comparison would turn NaN into a number like any other
    rows = model._open_latents(X) if latents else model._open(X, model, reset=False)
    beside = beside(rows) if callable(beside) else beside
    dtype = torch.float64 if model._computes_in_double else rows.dtype
    floats = model._floats_per_row() + (0 if beside is None else beside.shape[1])
    if beside is not None and (n := len(rows)) != (m := len(beside)):
        raise ValueError(f"X has {n} rows and Z has {m}: pass one z per x.")
    energy = model._energy(rows.device).to(dtype)
    return rows.map(
        lambda x, *z: function(energy, x.to(dtype), *(part.to(x.device) for part in z)),
        floats_per_row=floats,
        what=f"{type(model).__name__}.{what}",
        as_numpy=what == "transform" and wants_frames(model),
        beside=beside,
        may_be_infinite=may_be_infinite,
    )


class EnergyEstimator(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator, ABC
):
    """Base class of all estimators: the contract around an energy; see the module docstring."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "device": [str, torch.device],
        "strategy": [StrOptions({"ddp"}), None],
    }
    #: Models that several processes can fit have a parameter of this name.
    strategy: Literal["ddp"] | None = None

    _doc_link_module = "sklebm" if DOCUMENTATION_URL else "sklearn"
    _doc_link_template = DOCUMENTATION_URL.rstrip("/") + "/generated/sklebm.{estimator_name}.html"

    # What a model may declare about itself.
    _prefers_cuda = False  # device="auto" uses CUDA for array input (gradient training)
    _accepts_sparse = False  # csr input is handed over chunk by chunk
    _min_rows_fit = 1
    _computes_in_double = False  # row-wise methods upcast each chunk to float64
    _progress: ClassVar[type[Progress]] = Progress
    _step_name = "iteration"
    _continues_from = ""  # the fitted attribute that only further training needs, if there is one
    _own_to_each_rank: tuple[str, ...] = ()  # fitted attributes that follow from a rank's own rows

    device: str | torch.device

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Settings of the calling program, such as a default dtype, must not change any result.
        shelter_methods(cls)
        super().__init_subclass__(**kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return pickled(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(unpickled(self, state))

    # ------------------------------------------------------------------ learning

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the model to the rows of X.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training rows. NumPy arrays, lists, pandas and polars frames and torch tensors on any
            device are accepted.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        self : object
            The fitted estimator. It is left unchanged by an exception or an interrupt.
        """
        return self._learn(X, self._fit)

    @available_if(learns_in_parts)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Update the energy with one pass over a chunk of rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The next chunk of training rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        self : object
            The updated estimator. It is left unchanged by an exception or an interrupt.
        """
        return self._learn(X, self._partial_fit, first=not self._is_fitted())

    @available_if(keeps_training_state)
    def drop_training_state(self) -> Self:
        """Drop what only further training needs, such as optimiser statistics and chains.

        The estimator scores, transforms and samples as before, and takes less space when saved.
        ``partial_fit`` and ``warm_start`` continue from the parameters with new statistics and new
        seeds, so that other rows may be held out, but for closed forms, which need earlier sums.

        Returns
        -------
        self : object
            The estimator.
        """
        check_is_fitted(self)
        setattr(self, self._continues_from, {})
        return self

    @abstractmethod
    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        """Return every fitted attribute, learnt from ``rows``, without changing ``self``."""

    def _max_steps(self, rows: Rows) -> int:
        """Maximum number of times that ``_fit`` calls ``progress.begin``."""
        return 0

    def _learn(
        self,
        X: Any,
        step: Callable[..., dict[str, Any]],
        *,
        first: bool = True,
        columns: Mapping[str, Any] | None = None,
        **data: Any,
    ) -> Self:
        """Run ``step`` on validated rows and commit what it returns, all or nothing.

        ``step`` is ``self._fit`` or ``self._partial_fit``. ``columns`` accompany the rows
        ("target", "weight", "groups"); ``data`` is passed to ``step`` unchanged.
        """
        self._validate_params()  # partial_fit on a fitted estimator would skip this
        whole = step == self._fit
        method = "fit" if whole else "partial_fit"
        probe = self._twin(self._unfitted_dict() if first else vars(self))
        with joined_ranks(self.strategy) as ranks, advice_on_memory(type(self).__name__, X):
            rows = self._open(X, probe, reset=first, min_rows=self._min_rows_fit if whole else 1)
            if columns:
                add_columns(rows, type(self).__name__, **columns)
            if ranks.size > 1:
                rows.ranks = ranks
                ranks.need_same(shared_facts(self, method, rows, first))
            names = input_names(probe)
            n_steps = self._max_steps(rows) if whole else 0
            step_name, y = self._step_name, data.get("y")
            progress = self._progress(self, X, n_steps, names, step_name, ranks, y)
            progress.begin_fit()
            state = ranks.agreed(step(rows, progress, **data), self._own_to_each_rank)
            state = self._checked(state, rows)
            progress.end_fit(state)
        # One assignment: another thread, an exception or Ctrl-C sees the old state or the new.
        self.__dict__ = {**self._unfitted_dict(), **names, **state}
        return self

    def _checked(self, state: dict[str, Any], rows: Rows) -> dict[str, Any]:
        """The state that a fit returned, once it has been found to be finite."""
        need_finite(type(self).__name__, state, rows)
        return state

    def _open(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Rows:
        """Validate X for ``probe``: a twin that learns from it, or ``self``, already fitted."""
        rows = self._read(X, probe, reset=reset, min_rows=min_rows)
        self._check_rows(rows, learning=probe is not self)
        return rows

    def _read(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Rows:
        """Validate rows that may be no observations, such as latents."""
        device = resolve_device(self.device, X, self._prefers_cuda)
        sparse = self._accepts_sparse
        return open_rows(
            probe, X, device=device, reset=reset, accept_sparse=sparse, min_rows=min_rows
        )

    def _check_rows(self, rows: Rows, *, learning: bool) -> None:
        """Refuse, clip or warn about values for which the energy is not defined."""

    def _twin(self, attributes: Mapping[str, Any]) -> Self:
        """An estimator of this class with these attributes."""
        twin = type(self).__new__(type(self))
        twin.__dict__ = dict(attributes)
        return twin

    def _unfitted_dict(self) -> dict[str, Any]:
        """Attributes that are not fitted state: parameters and scikit-learn's private ones."""
        return {k: v for k, v in vars(self).items() if k.startswith("_") or not k.endswith("_")}

    def _is_fitted(self) -> bool:
        return hasattr(self, "n_features_in_")

    # ------------------------------------------------------------------ fitted state

    def _state_spec(self) -> Spec | None:
        """Kind and shape of every fitted attribute, and which parameter of the energy it holds.

        This single declaration drives ``_export``, ``_energy``, ``from_parameters`` and the checks
        in ``sklebm.save`` and ``sklebm.load``. ``None``: not declared.
        """
        return None

    def _export(self, energy: Any) -> dict[str, Any]:
        """Return the energy's parameters as fitted NumPy attributes (copies)."""
        return exported(energy, self._state_spec() or {})

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> Any:
        """Return the torch energy built from its parameters, keyed by fitted attribute."""
        raise TypeError(f"{type(self).__name__} defines neither _rebuild nor _energy.")

    def _energy(self, device: torch.device) -> Any:
        """Return the torch energy with the fitted parameters on ``device``.

        Rebuilt from the NumPy state at every call, without a copy on the CPU: nothing is cached,
        so nothing can go stale, be pickled by mistake or tie the estimator to a device.
        """
        return self._rebuild(held_tensors(self, self._state_spec() or {}, device))

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """Make an estimator from given parameters, as if a fit had found them.

        Parameters
        ----------
        **parameters : object
            Fitted attributes without their underscore, such as ``components``, and parameters of
            the constructor. Sizes such as ``n_components`` are read from the arrays.

        Returns
        -------
        estimator : object
            It transforms, scores, can be saved, and keeps learning with ``partial_fit``. Training
            state is empty, and log Z is unknown until ``estimate_log_partition`` computes it.

        Raises
        ------
        TypeError
            If a parameter is missing or its name is unknown.
        ValueError
            If the arrays do not fit each other or the parameters.
        """
        return made_from(cls, parameters)  # type: ignore[no-any-return]

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        """Fitted attributes that only training sets, for parameters that were ``given``."""
        return {}

    def _check_state(self) -> None:
        """Raise ValueError if a fitted estimator's attributes do not fit each other."""
        if not fitted_attributes(self):
            return
        check_input_names(self)
        spec = self._state_spec()
        if spec is not None:
            check_attributes(self, spec)

    # ------------------------------------------------------------------ row-wise methods

    @property
    @abstractmethod
    def _n_features_out(self) -> int:
        """Number of columns that ``transform`` returns."""

    @abstractmethod
    def score_samples(self, X: Any) -> Any:
        """Return how typical each row of X is; higher is more typical."""

    def _floats_per_row(self) -> int:
        """Number of temporary values per row in the row-wise methods."""
        return 6 * int(self.n_features_in_)

    _map_rows = map_energy

    def _pair_energies(self, X: Any, Z: Any, *, may_be_infinite: bool = False) -> Any:
        """Stream E(x, z) over the rows of X with a latent each; the result follows X."""
        check_is_fitted(self)
        return self._map_rows(
            X,
            lambda energy, x, z: energy.energy(x, z.to(x.dtype)),
            "energy",
            beside=self._open_latents(Z),
            may_be_infinite=may_be_infinite,
        )

    def _open_latents(self, Z: Any) -> Rows:
        """Validate latents in the same way as X."""
        width = getattr(self, "_code_width", self._n_features_out)  # wider if transform pools
        probe = self._twin(self._unfitted_dict())
        rows = self._read(Z, probe, reset=True)
        if rows.shape[1] != width:
            method = "codes" if hasattr(self, "codes") else "transform"
            raise ValueError(
                f"Z has {rows.shape[1]} columns, but {type(self).__name__} has latents of {width} "
                f"columns: pass what {method} returned."
            )
        return rows

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of ``score_samples(X)``; higher is better.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean over the rows, in the units of ``score_samples``.
        """
        return float(self.score_samples(X).mean())

    def _monitor_score(self, X: Any) -> float:
        """Score that EnergyMonitor records after a step, comparable between steps."""
        return self.score(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.sparse = self._accepts_sparse
        return tags


shelter_methods(EnergyEstimator)  # __init_subclass__ runs for those that follow
