"""What a meta-estimator owes scikit-learn: parameters, tags, callbacks, an atomic fit."""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from typing import Any, Self

from sklearn.callback import CallbackSupportMixin
from sklearn.utils import get_tags
from sklearn.utils.validation import validate_data

from sklebm._shell.pickling import VersionedPickle
from sklebm._shell.private import BaseComposition
from sklebm.base import EnergyEstimator


class MemberComposition(CallbackSupportMixin, VersionedPickle, BaseComposition):
    """Base of meta-estimators whose parameter ``estimator`` is one estimator or a named list."""

    _doc_link_module = EnergyEstimator._doc_link_module
    _doc_link_template = EnergyEstimator._doc_link_template

    estimator: Any
    named_estimators_: dict[str, Any]

    @property
    def estimators_(self) -> list[Any]:
        """The fitted estimators."""
        return list(self.named_estimators_.values())

    @property
    def estimator_(self) -> Any:
        """The fitted estimator, if there is only one."""
        if len(self.named_estimators_) != 1:
            raise AttributeError(
                f"This {type(self).__name__} combines {len(self.named_estimators_)} estimators: "
                "see named_estimators_."
            )
        return self.estimators_[0]

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
        """Set parameters, a whole estimator of the list by its name, or ``name__parameter``.

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

    def _fit(self, X: Any, y: Any) -> dict[str, Any]:
        """Return every fitted attribute; change nothing on ``self``."""
        probe = copy.copy(self)
        probe.__dict__ = self._unfitted_dict()
        context = self._init_callback_context(max_subtasks=self._n_fits())
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        probe._learn(X, y, context)
        state = {k: v for k, v in vars(probe).items() if k not in self._unfitted_dict()}
        # All attributes of the copy that callbacks get, so that none of an earlier fit stay on it.
        whole = {"__dict__": {**self._unfitted_dict(), **state}}
        context.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=whole)
        return state

    def _commit(self, state: dict[str, Any]) -> Self:
        """Replace the fitted state in one assignment."""
        self.__dict__ = {**self._unfitted_dict(), **state}
        return self

    @abstractmethod
    def _n_fits(self) -> int:
        """How many estimators ``_learn`` fits."""

    @abstractmethod
    def _learn(self, X: Any, y: Any, context: Any) -> None:
        """Set every fitted attribute; called on a copy without any."""

    def _fit_members(self, members: list[tuple[str, Any]], X: Any, y: Any, context: Any) -> None:
        """Fit each estimator as one step of the callbacks' task tree."""
        for name, member in members:
            task = context.subcontext(task_name=f"fit-{name}")
            with task.propagate_callback_context(member):
                task.call_on_fit_task_begin(estimator=self, X=X, y=y)
                member.fit(X, y)
                task.call_on_fit_task_end(estimator=self, X=X, y=y)

    def _adopt_names(self) -> None:
        """Take number and names of features from the first fitted estimator that knows them."""
        for name in ("n_features_in_", "feature_names_in_"):
            known = [getattr(item, name) for item in self.estimators_ if hasattr(item, name)]
            if known and not hasattr(self, name):
                setattr(self, name, known[0])

    def _check_names(self, X: Any) -> None:
        """Refuse other features than those of ``fit``, which not every estimator checks."""
        if len(getattr(X, "shape", ())) == 2:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the estimators warn themselves
                validate_data(self, X, reset=False, skip_check_array=True)

    def _unfitted_dict(self) -> dict[str, Any]:
        """Attributes that are no fitted state: parameters and scikit-learn's private ones."""
        return {k: v for k, v in vars(self).items() if k.startswith("_") or not k.endswith("_")}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inside = [get_tags(member) for member in self._tagged_members()]
        if inside:
            tags.input_tags.sparse = all(item.input_tags.sparse for item in inside)
            tags.input_tags.allow_nan = all(item.input_tags.allow_nan for item in inside)
            tags.target_tags.required = any(item.target_tags.required for item in inside)
        return tags

    def _tagged_members(self) -> list[Any]:
        """The unfitted estimators whose tags decide; none: scikit-learn's defaults hold."""
        if isinstance(self.estimator, list):
            return [member for _, member in self.estimator]
        return [] if isinstance(self.estimator, str) else [self.estimator]
