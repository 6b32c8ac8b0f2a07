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
from sklebm._shell.state import (
    Estimators,
    Spec,
    check_attributes,
    check_input_names,
    fitted_attributes,
)
from sklebm.composite import CompositeEstimator
from sklebm.linear import PCAWhitener
from sklebm.outliers._members import checked_scores, require_scores


class EnergyScorer(CompositeEstimator):
    """Base of meta-estimators that turn fitted estimators into another ``score_samples``."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [StrOptions({"auto"}), HasMethods("fit")]
    }

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
        return self._learn(X, y=y)

    def _density(self) -> Any:
        """A clone of the estimator with log densities that was asked for."""
        if isinstance(self.estimator, str):
            return PCAWhitener()  # a Gaussian with all correlations
        require_scores("estimator", self.estimator, type(self).__name__)
        return clone(self.estimator)

    def _map_values(self, X: Any, score: Callable[[Any], Any]) -> Any:
        """``score`` of what the estimators inside see of X, chunk by chunk, in the kind of X."""
        check_is_fitted(self)

        def apply(chunk: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.asarray(score(_plain(chunk)))).to(chunk.device)

        return self._stream(X, apply)

    def _scores_of(self, name: str, values: Any) -> Any:
        member = self.named_estimators_[name]
        return to_numpy(checked_scores(name, member, values)).astype(np.float64)

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


def _plain(values: torch.Tensor) -> Any:
    """Rows as any estimator takes them: NumPy on the host, tensors on another device."""
    return values.numpy() if values.device.type == "cpu" else values
