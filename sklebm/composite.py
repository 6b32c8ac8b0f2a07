"""Models made of models: detectors, scores on top of models, stacks.

The shared parts are here: parameters of the inner models as ``name__parameter``, one atomic fit,
one step of the callbacks' task tree per model, and weights for the models that accept them. A
composite supplies

- ``_fit(X, members, **data) -> state``: a pure function that returns every fitted attribute,
  including ``named_estimators_``; it fits a model by ``members.fit(name, model, rows, ...)``;
- ``_max_steps(X)``: the number of models to fit.

Everything else about a fit is the shell's, in ``sklebm/base.py``: ``_learn`` is the same function
as in every other estimator. If ``_reads_numbers`` is true, X is checked as there, and ``_fit``
gets its :class:`~sklebm._shell.rows.Rows`; otherwise X is passed to the models unchanged, so that
they can be pipelines that start from text or frames.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self

from sklearn import get_config
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import has_fit_parameter, validate_data

from sklebm._shell.pickling import pickled, unpickled
from sklebm._shell.private import BaseComposition, get_feature_names
from sklebm._shell.progress import Progress
from sklebm._shell.rows import Rows, open_rows, resolve_device
from sklebm._shell.surroundings import shelter_methods
from sklebm.base import EnergyEstimator


class MemberFits(Progress):
    """Fits the models inside a composite, each as one step of the callbacks' task tree."""

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
        task = self._root.subcontext(task_name=f"fit-{name}")
        with task.propagate_callback_context(member):
            task.call_on_fit_task_begin(estimator=self._estimator, X=X, y=y)
            member.fit(X, y, **weights)
            task.call_on_fit_task_end(estimator=self._estimator, X=X, y=y)
        return member


def takes_weights(member: Any) -> bool:
    """Whether ``member.fit`` uses ``sample_weight``, by its signature or by routing."""
    if has_fit_parameter(member, "sample_weight"):
        return True
    routed = get_config()["enable_metadata_routing"]
    return routed and bool(get_routing_for_object(member).consumes("fit", {"sample_weight"}))


def names_of_members(members: Iterable[Any]) -> dict[str, Any]:
    """Number and names of features, from the first fitted estimator that has them."""
    names: dict[str, Any] = {}
    for member in members:
        for key in ("n_features_in_", "feature_names_in_"):
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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}
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

    def _max_steps(self, X: Any) -> int:
        """Maximum number of models that ``_fit`` fits."""
        return 1

    # One way to fit, commit and copy: that of estimators which are not made of others.
    _learn: ClassVar[Any] = EnergyEstimator._learn
    _unfitted_dict: ClassVar[Any] = EnergyEstimator._unfitted_dict
    _twin: ClassVar[Any] = EnergyEstimator._twin
    _progress = MemberFits
    _step_name = "fit"
    _own_to_each_rank = ()
    strategy = None

    def _checked(self, state: dict[str, Any], rows: Any) -> dict[str, Any]:
        """The state; models that were passed X unchanged know the names of its features."""
        if self._reads_numbers:
            return state
        return {**names_of_members(state["named_estimators_"].values()), **state}

    # ------------------------------------------------------------------ rows

    def _open(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Any:
        """Validate X; one to learn from is passed on as it is, unless it must be numbers."""
        if reset and not self._reads_numbers:
            return X
        return open_rows(
            probe,
            X,
            device=resolve_device("auto", X, prefers_cuda=False),
            reset=reset,
            accept_sparse=self._accepts_sparse,
            min_rows=min_rows,
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
            named = get_feature_names(X) is not None
            if named == hasattr(self, "feature_names_in_"):
                validate_data(self, X, reset=False, skip_check_array=True)
            # Of names on one side only, the estimators warn themselves.
            elif X.shape[1] != getattr(self, "n_features_in_", X.shape[1]):
                raise ValueError(
                    f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                    f"{self.n_features_in_} features as input."
                )

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
