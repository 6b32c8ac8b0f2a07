"""Models made of models: detectors, scores on top of models, stacks.

The shared parts are here: parameters of the inner models as ``name__parameter``, one atomic fit,
one step of the callbacks' task tree per model, and weights for the models that accept them. A
composite supplies

- ``_fit(X, members, **data) -> state``: a pure function that returns every fitted attribute,
  including ``named_estimators_``; it fits a model by ``members.fit(name, model, rows, ...)``;
- ``_n_fits()``: the number of models to fit.

If ``_reads_numbers`` is true, X is checked as in every other estimator, and ``_fit`` gets its
:class:`~sklebm._shell.rows.Rows`; otherwise X is passed to the models unchanged, so that they can
be pipelines that start from text or frames.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Self

from sklearn import get_config
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import has_fit_parameter, validate_data

from sklebm._shell.pickling import pickled, unpickled
from sklebm._shell.private import BaseComposition
from sklebm._shell.rows import Rows, advice_on_memory, open_rows, resolve_device
from sklebm._shell.surroundings import shelter_methods
from sklebm.base import EnergyEstimator

_INPUT_NAMES = ("n_features_in_", "feature_names_in_")


class MemberFits:
    """Fits the models inside a composite, each as one step of the callbacks' task tree.

    Parameters
    ----------
    owner : CompositeEstimator
        The composite that is being fitted.
    n_fits : int
        Maximum number of models to fit.
    """

    def __init__(self, owner: Any, n_fits: int) -> None:
        self._owner = owner
        self._context = owner._init_callback_context(max_subtasks=n_fits)

    def begin(self, X: Any, y: Any) -> None:
        """Tell the callbacks that the fit begins."""
        self._context.call_on_fit_task_begin(estimator=self._owner, X=X, y=y)

    def fit(self, name: str, member: Any, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit a model and return it.

        Parameters
        ----------
        name : str
            Its name in callbacks and messages.
        member : estimator
            An unfitted copy that may be modified.
        X, y : object
            Passed to its ``fit``.
        sample_weight : array of shape (n_samples,), default=None
            Passed to its ``fit``, unless it is None.

        Returns
        -------
        member : estimator
            The same, fitted.

        Raises
        ------
        ValueError
            If there are weights and the model does not accept any.
        """
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        if weights and not takes_weights(member):
            raise ValueError(
                f"sample_weight was given, but {name!r} ({type(member).__name__}) takes none. "
                "Leave sample_weight out, or choose estimators whose fit has that parameter."
            )
        task = self._context.subcontext(task_name=f"fit-{name}")
        with task.propagate_callback_context(member):
            task.call_on_fit_task_begin(estimator=self._owner, X=X, y=y)
            member.fit(X, y, **weights)
            task.call_on_fit_task_end(estimator=self._owner, X=X, y=y)
        return member

    def end(self, X: Any, y: Any, attributes: dict[str, Any]) -> None:
        """Tell the callbacks that the fit ended, with all attributes of the fitted composite."""
        whole = {"__dict__": attributes}  # so that their copy keeps nothing of an earlier fit
        self._context.call_on_fit_task_end(
            estimator=self._owner, X=X, y=y, reconstruction_attributes=whole
        )


def map_energy(member: EnergyEstimator, X: Any, function: Callable[..., Any], what: str) -> Any:
    """Stream ``function(energy, rows)`` over X, for scores that need more than a model's score.

    The energy is the torch module of the fitted ``member``; the result is of the kind of X.
    """
    return member._map_rows(X, function, what)


def takes_weights(member: Any) -> bool:
    """Whether ``member.fit`` uses ``sample_weight``, by its signature or by routing."""
    if has_fit_parameter(member, "sample_weight"):
        return True
    routed = get_config()["enable_metadata_routing"]
    return routed and bool(get_routing_for_object(member).consumes("fit", {"sample_weight"}))


def input_names(members: Iterable[Any]) -> dict[str, Any]:
    """Number and names of features, from the first fitted estimator that has them."""
    names: dict[str, Any] = {}
    for member in members:
        for key in _INPUT_NAMES:
            if key not in names and hasattr(member, key):
                names[key] = getattr(member, key)
    return names


class CompositeEstimator(CallbackSupportMixin, BaseComposition):
    """Base of models made of models; ``estimator`` is one estimator, or a list of named ones.

    Subclasses only set parameters in ``__init__`` and implement the hooks named in the module's
    docstring.
    """

    _doc_link_module = EnergyEstimator._doc_link_module
    _doc_link_template = EnergyEstimator._doc_link_template

    _min_rows_fit = 1
    _accepts_sparse = False  # with _reads_numbers: csr input is passed on chunk by chunk

    estimator: Any
    named_estimators_: dict[str, Any]
    n_features_in_: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        shelter_methods(cls)
        super().__init_subclass__(**kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return pickled(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(unpickled(self, state))

    @property
    def _reads_numbers(self) -> bool:
        """True if X must be a table of numbers, whatever the inner models accept."""
        return False

    @property
    def estimators_(self) -> list[Any]:
        """The fitted estimators."""
        return list(self.named_estimators_.values())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, those of named estimators as ``name__parameter``.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parameters of the estimators inside.

        Returns
        -------
        params : dict
            Names and values.
        """
        if isinstance(self.estimator, list):
            return dict(self._get_params("estimator", deep=deep))
        return dict(super().get_params(deep=deep))

    def set_params(self, **params: Any) -> Self:
        """Set parameters: a whole estimator of the list by its name, or ``name__parameter``.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self : object
            The estimator.
        """
        self._set_params("estimator", **params)
        return self

    # ------------------------------------------------------------------ learning

    @abstractmethod
    def _fit(self, X: Any, members: MemberFits, **data: Any) -> dict[str, Any]:
        """Return every fitted attribute; change nothing on ``self``."""

    def _n_fits(self) -> int:
        """Maximum number of models that ``_fit`` fits."""
        return 1

    def _learn(self, X: Any, y: Any = None, **data: Any) -> Self:
        """Run ``_fit`` and commit what it returns, all or nothing."""
        probe = type(self).__new__(type(self))
        probe.__dict__ = self._unfitted_dict()
        members = MemberFits(self, self._n_fits())
        members.begin(X, y)
        with advice_on_memory(type(self).__name__, X):
            seen = self._open(X, probe, reset=True) if self._reads_numbers else X
            state = self._fit(seen, members, y=y, **data)
        names = {key: value for key, value in vars(probe).items() if key in _INPUT_NAMES}
        names = names or input_names(state["named_estimators_"].values())
        fitted = {**self._unfitted_dict(), **names, **state}
        members.end(X, y, fitted)
        # One assignment: another thread, an exception or Ctrl-C sees the old state or the new.
        self.__dict__ = fitted
        return self

    def _unfitted_dict(self) -> dict[str, Any]:
        """Attributes that are not fitted state: parameters and scikit-learn's private ones."""
        return {k: v for k, v in vars(self).items() if k.startswith("_") or not k.endswith("_")}

    # ------------------------------------------------------------------ rows

    def _open(self, X: Any, probe: Any, *, reset: bool) -> Rows:
        return open_rows(
            probe,
            X,
            device=resolve_device("auto", X, prefers_cuda=False),
            reset=reset,
            accept_sparse=self._accepts_sparse,
            min_rows=self._min_rows_fit if reset else 1,
        )

    def _stream(self, X: Any, function: Callable[[Any], Any], floats_per_value: int = 8) -> Any:
        """``function`` of the rows, chunk by chunk; the result is of the kind of X."""
        rows = X if isinstance(X, Rows) else self._open(X, self, reset=False)
        return rows.map(
            function,
            floats_per_row=floats_per_value * rows.shape[1],
            what=f"{type(self).__name__}.score_samples",
        )

    def _check_names(self, X: Any) -> None:
        """Refuse features other than those of ``fit``, which not every estimator checks."""
        if len(getattr(X, "shape", ())) == 2:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the estimators warn themselves
                validate_data(self, X, reset=False, skip_check_array=True)

    # ------------------------------------------------------------------ what scikit-learn asks

    def _tagged_members(self) -> list[Any]:
        """The unfitted estimators whose tags decide; if empty, scikit-learn's defaults apply."""
        if isinstance(self.estimator, list):
            return [member for _, member in self.estimator]
        return [] if isinstance(self.estimator, str) else [self.estimator]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Non-estimators have no tags; fit explains what is wrong with them.
        members = [item for item in self._tagged_members() if not isinstance(item, type)]
        inside = [get_tags(item) for item in members if hasattr(item, "__sklearn_tags__")]
        if inside:
            tags.input_tags.sparse = all(item.input_tags.sparse for item in inside)
            tags.input_tags.allow_nan = all(item.input_tags.allow_nan for item in inside)
            tags.target_tags.required = any(item.target_tags.required for item in inside)
        if self._reads_numbers:
            tags.input_tags.sparse, tags.input_tags.allow_nan = self._accepts_sparse, False
        return tags
