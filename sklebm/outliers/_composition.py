"""What a detector owes scikit-learn because it holds estimators: parameters, tags, callbacks."""

from __future__ import annotations

from typing import Any, Self

from sklearn.callback import CallbackSupportMixin
from sklearn.utils import get_tags

from sklebm._pickling import VersionedPickle
from sklebm._private import BaseComposition
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

    def _fit_members(self, members: list[tuple[str, Any]], X: Any, y: Any, context: Any) -> None:
        """Fit each estimator as one step of the callbacks' task tree."""
        for name, member in members:
            task = context.subcontext(task_name=f"fit-{name}")
            with task.propagate_callback_context(member):
                task.call_on_fit_task_begin(estimator=self, X=X, y=y)
                member.fit(X, y)
                task.call_on_fit_task_end(estimator=self, X=X, y=y)

    def _unfitted_dict(self) -> dict[str, Any]:
        """Attributes that are no fitted state: parameters and scikit-learn's private ones."""
        return {k: v for k, v in vars(self).items() if k.startswith("_") or not k.endswith("_")}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if isinstance(self.estimator, str):
            return tags
        listed = isinstance(self.estimator, list)
        members = [member for _, member in self.estimator] if listed else [self.estimator]
        inputs = [get_tags(member).input_tags for member in members]
        tags.input_tags.sparse = all(item.sparse for item in inputs)
        tags.input_tags.allow_nan = all(item.allow_nan for item in inputs)
        return tags
