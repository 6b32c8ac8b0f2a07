"""The shell of scores beyond raw likelihood: estimators inside, one score for each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm._shell.private import HasMethods, StrOptions, fit_context
from sklebm._shell.rows import Rows, open_rows, resolve_device
from sklebm._shell.state import (
    Estimators,
    Spec,
    check_attributes,
    check_input_names,
    fitted_attributes,
)
from sklebm.linear import PCAWhitener
from sklebm.outliers._composition import MemberComposition
from sklebm.outliers._members import checked_scores, require_scores


class EnergyScorer(MemberComposition):
    """Base of meta-estimators that turn fitted estimators into another ``score_samples``."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [StrOptions({"auto"}), HasMethods("fit")]
    }

    n_features_in_: int

    @property
    def estimator_(self) -> Any:
        """The fitted estimator."""
        return self.named_estimators_["estimator"]

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the estimators inside.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Training rows, in any form that the estimators accept.
        y : object, default=None
            Handed to the estimators' ``fit``, which ignores it if they are unsupervised.

        Returns
        -------
        self : object
            The fitted scorer. An exception or an interrupt leaves it as it was before.
        """
        return self._commit(self._fit(X, y))

    def _n_fits(self) -> int:
        return 1

    def _given_or_default(self) -> Any:
        """A clone of the estimator with log densities that was asked for."""
        if isinstance(self.estimator, str):
            return default_density()
        require_scores("estimator", self.estimator, type(self).__name__)
        return clone(self.estimator)

    def _fit_named(self, members: dict[str, Any], X: Any, y: Any, context: Any) -> None:
        self._fit_members(list(members.items()), X, y, context)
        self.named_estimators_ = {**getattr(self, "named_estimators_", {}), **members}
        self._adopt_names()

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of ``score_samples(X)``.

        To choose parameters, use :func:`~sklebm.metrics.make_ood_scorer`: the mean score compares
        neither estimators nor scorers.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean over the rows.
        """
        return float(self.score_samples(X).mean())

    def _state_spec(self) -> Spec:
        """What the subclass stores beside its estimators."""
        return {}

    def _check_state(self) -> None:
        """Raise ValueError if a fitted scorer's attributes do not fit each other."""
        if fitted_attributes(self):
            check_input_names(self)
            members: Spec = {"named_estimators_": Estimators(self.n_features_in_)}
            check_attributes(self, {**members, **self._state_spec()})


class NumericScorer(EnergyScorer):
    """Base of scorers that compute with the numbers of X: one door in, rows chunk by chunk."""

    def _open(self, X: Any, *, reset: bool) -> Rows:
        device = resolve_device("auto", X, prefers_cuda=False)
        return open_rows(self, X, device=device, reset=reset)

    def _stream(self, X: Any, score: Callable[[Any], Any]) -> Any:
        """``score`` of what the estimators inside see of X; the result follows the kind of X."""
        check_is_fitted(self)
        rows = self._open(X, reset=False)

        def apply(chunk: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.asarray(score(plain(chunk)))).to(chunk.device)

        what = f"{type(self).__name__}.score_samples"
        return rows.map(apply, floats_per_row=8 * rows.shape[1], what=what)

    def _scores_of(self, name: str, values: Any) -> Any:
        member = self.named_estimators_[name]
        return to_numpy(checked_scores(name, member, values)).astype(np.float64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.allow_nan = False
        return tags


def default_density() -> PCAWhitener:
    """The density of ``estimator="auto"``: a Gaussian with all correlations."""
    return PCAWhitener()


def plain(values: torch.Tensor) -> Any:
    """Rows as any estimator takes them: NumPy on the host, tensors on another device."""
    return values.numpy() if values.device.type == "cpu" else values
