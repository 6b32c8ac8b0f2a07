"""The logits of a classifier from any library; refused if there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sklebm._shell.private import InvalidParameterError

_METHODS = ("logits", "decision_function", "predict_joint_log_proba")
_CRITERIA = (torch.nn.CrossEntropyLoss, torch.nn.BCEWithLogitsLoss)


def require_logits(estimator: Any) -> None:
    """Raise, with the reason, if there are no logits to use; fitted or not."""
    if _source(estimator) is not None:
        return
    name = type(estimator).__name__
    if _is_skorch_net(estimator):
        raise InvalidParameterError(
            f"{name} is trained with {_criterion_name(estimator)}, so that its module returns "
            "probabilities and no logits. Train it with criterion=torch.nn.CrossEntropyLoss (or "
            "BCEWithLogitsLoss, for two classes) and a module without softmax."
        )
    if hasattr(estimator, "predict_proba"):
        raise InvalidParameterError(
            f"{name} gives probabilities and no logits: they sum to one, so the free energy would "
            "be the same for every row. Choose a classifier with a decision_function, such as "
            "LogisticRegression, SVC or HistGradientBoostingClassifier."
        )
    raise InvalidParameterError(
        f"LogitEnergyScorer needs the logits of a classifier, but {name} has none of "
        f"{', '.join(_METHODS)}. Estimators with score_samples need no scorer: "
        "EnergyOutlierDetector takes them as they are."
    )


def logits(estimator: Any, X: Any) -> torch.Tensor:
    """Logits of the rows, shape (n_samples, n_classes); a binary decision f becomes (0, f)."""
    source = _source(estimator)
    if source is None:  # the classifier was changed after fit
        require_logits(estimator)
        raise AssertionError("unreachable")
    values = source(X)
    if not isinstance(values, torch.Tensor):
        values = torch.from_numpy(np.ascontiguousarray(values))
    values = values.detach()
    if not values.is_floating_point():
        values = values.double()
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 1:
        return torch.stack([torch.zeros_like(values), values], dim=1)
    classes = getattr(estimator, "classes_", None)
    expected = None if classes is None else len(classes)
    if values.ndim != 2 or (expected is not None and values.shape[1] != expected):
        raise ValueError(
            f"The logits of {type(estimator).__name__} have shape {tuple(values.shape)}, but must "
            f"have one column for each of its {expected or 'K'} classes. (SVC: "
            'decision_function_shape="ovr". Several targets: one scorer each.)'
        )
    return values


def _source(estimator: Any) -> Callable[[Any], Any] | None:
    for name in _METHODS:
        method = getattr(estimator, name, None)
        if callable(method):
            return method  # type: ignore[no-any-return]
    if _is_skorch_net(estimator) and _gives_logits(estimator):
        return lambda X: _forward(estimator, X)
    return None


def _is_skorch_net(estimator: Any) -> bool:
    """True for a skorch net, recognised by its attributes, so that skorch is not imported here."""
    return callable(getattr(estimator, "forward_iter", None)) and hasattr(estimator, "criterion")


def _gives_logits(net: Any) -> bool:
    criterion = net.criterion
    kind = criterion if isinstance(criterion, type) else type(criterion)
    return issubclass(kind, _CRITERIA)


def _criterion_name(net: Any) -> str:
    criterion = net.criterion
    return str(getattr(criterion, "__name__", type(criterion).__name__))


def _forward(net: Any, X: Any) -> torch.Tensor:
    """The module's output, the first if there are several, batch by batch."""
    batches = net.forward_iter(X, training=False, device="cpu")
    return torch.cat([batch[0] if isinstance(batch, tuple) else batch for batch in batches])
