"""What the tests add to the one registry, ``sklebm.ESTIMATORS``: one entry per estimator.

An entry holds constructor arguments and ground truths only. Which tests an estimator has to pass
follows from what it can do (``has(estimator, "transform")``), never from its name.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import get_tags

import sklebm
from tests.entries import Entry

N_FEATURES = 6

# One file per family.
ENTRIES: dict[str, Entry] = {}
for _family in sorted(Path(__file__).parent.joinpath("entries").glob("[a-z]*.py")):
    ENTRIES.update(importlib.import_module(f"tests.entries.{_family.stem}").ENTRIES)

ALL_NAMES = sorted(sklebm.ESTIMATORS)


def check_imports() -> None:
    """Say which estimator of the table its family does not import, before a test stumbles on it."""
    for name, family in sklebm.ESTIMATORS.items():
        if not hasattr(importlib.import_module(family), name):
            # pytest shows a usage error as one line, wherever it imports this file first.
            raise pytest.UsageError(
                f"{name} is in the table of sklebm/__init__.py, but not imported by "
                f"{family.replace('.', '/')}/__init__.py: run `make generated`, which writes the "
                "imports."
            )


check_imports()


def make(name: str, **changes: Any) -> Any:
    """A quick estimator; ``changes`` override its arguments."""
    return getattr(sklebm, name)(**{**entry(name).quick, **changes})


def make_seeded(name: str, random_state: Any) -> Any:
    """A quick estimator whose fit draws random numbers."""
    return make(name, **{**entry(name).seeded, "random_state": random_state})


def make_brief(name: str, **changes: Any) -> Any:
    """An estimator that fits at once, for tests in which it need not have learnt much."""
    model = make(name)
    brief = {"max_epochs": 2} if is_gradient_trained(model) else {}
    return model.set_params(**{**brief, **changes})


def entry(name: str) -> Entry:
    """The entry of an estimator; an empty one until it has its own."""
    return ENTRIES.get(name, Entry())


#: Models of sequences: what they answer for a row depends on its neighbours, by definition.
DEPEND_ON_NEIGHBOURS = {"ChainCRF", "LinearizingAutoencoder", "SequenceEnergy"}


def requires_y(estimator: Any) -> bool:
    """True for models of targets, whose ``fit`` takes X and y."""
    return bool(get_tags(estimator).target_tags.required)


#: Estimators that learn from X alone: the tables of the contract call ``fit(X)``.
NAMES = [name for name in ALL_NAMES if not requires_y(make(name))]
#: Estimators that need targets as well: ``tests/test_supervised.py`` holds them to the contract.
SUPERVISED = [name for name in ALL_NAMES if name not in NAMES]


def make_variants(name: str) -> list[Any]:
    """The quick estimator and its variants."""
    return [make(name), *(make(name, **variant) for variant in entry(name).variants)]


def names_with(*methods: str) -> list[str]:
    """Names of the estimators that have all of these methods."""
    return [name for name in NAMES if all(hasattr(make(name), method) for method in methods)]


def make_rows(
    n_rows: int = 120, seed: int = 0, dtype: Any = np.float64, noise: float = 0.08
) -> Any:
    """Rows that every model can learn: four prototypes in [0, 1] with Gaussian noise.

    The prototypes span all pairs of signs of two hidden factors, so that every feature alone
    says nothing and their dependence says everything.
    """
    generator = np.random.default_rng(seed)
    signs = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0] * 6])
    prototypes = 0.1 + 0.8 * signs
    rows = prototypes[generator.integers(4, size=n_rows)]
    rows = rows + noise * generator.standard_normal(rows.shape)
    return np.clip(rows, 0.0, 1.0).astype(dtype)


def make_targets(name: str, X: Any) -> Any:
    """What the rows of ``make_rows`` say about y: their prototype, or a curve over the factors."""
    if entry(name).targets is not None:
        return entry(name).targets(X)
    X = np.asarray(X, np.float64)
    half = max(1, X.shape[1] // 2)
    first, second = X[:, :half].mean(axis=1), X[:, -half:].mean(axis=1)
    if is_classifier(make(name)):
        return np.array(["none", "second", "first", "both"])[2 * (first > 0.5) + (second > 0.5)]
    noise = np.random.default_rng(0).normal(size=len(X))
    return 3.0 * first - 2.0 * second**2 + 0.1 * noise + 5.0


def learn(model: Any, X: Any, **arguments: Any) -> Any:
    """``fit(X)``, or ``fit(X, y)`` for a model of targets, with those of ``make_targets``."""
    if requires_y(model):
        return model.fit(X, make_targets(type(model).__name__, X), **arguments)
    return model.fit(X, **arguments)


def shuffle_columns(X: Any, seed: int = 0) -> Any:
    """Rows with the same marginals and no dependence between the features."""
    return np.random.default_rng(seed).permuted(X, axis=0)


ROW_METHODS = ("transform", "score_samples", "free_energy", "predict", "decision_function")


#: Others that do so: of the same data path, and as slow, so that not every table has to have them.
FURTHER_ROW_METHODS = ("codes", "reconstruct", "certificate")


def row_methods(estimator: Any) -> list[str]:
    """Names of the methods that answer row by row."""
    return [name for name in ROW_METHODS if hasattr(estimator, name)]


def all_row_methods(estimator: Any) -> list[str]:
    """Names of all methods that answer row by row, also of those in few tables."""
    return row_methods(estimator) + [n for n in FURTHER_ROW_METHODS if hasattr(estimator, n)]


def in_sequences(function: Any, X: Any, n_steps: int) -> dict[str, Any]:
    """Rows as sequences of ``n_steps``, for methods that answer for the steps of sequences."""
    takes_groups = "groups" in inspect.signature(function).parameters
    of_sequences = type(function.__self__).__name__ in DEPEND_ON_NEIGHBOURS
    return {"groups": np.arange(len(X)) // n_steps} if takes_groups and of_sequences else {}


def draw_rows(model: Any, n_rows: int, seed: int) -> Any:
    """Rows from ``sample``; mixtures return the component of each row beside them."""
    drawn = model.sample(n_rows, random_state=seed)
    return drawn[0] if isinstance(drawn, tuple) else drawn


def is_gradient_trained(estimator: Any) -> bool:
    """True for models that follow stochastic gradients."""
    return "max_epochs" in estimator.get_params(deep=False)


def takes(estimator: Any, parameter: str) -> bool:
    """True if the constructor has this parameter."""
    return parameter in estimator.get_params(deep=False)


def fit_takes(estimator: Any, argument: str) -> bool:
    """True if ``fit`` has this argument."""
    return argument in inspect.signature(estimator.fit).parameters


def fitted_state(estimator: Any) -> dict[str, Any]:
    """The public fitted attributes."""
    return {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_") and not name.startswith("_")
    }


def freeze(value: Any) -> Any:
    """A comparable image of a value, exact to the last bit."""
    if isinstance(value, np.ndarray):
        content = repr(value.tolist()) if value.dtype == object else value.tobytes()
        return (value.dtype.str, value.shape, content)
    if isinstance(value, BaseEstimator):
        return (type(value).__name__, freeze(vars(value)))
    if isinstance(value, Mapping):
        return {key: freeze(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [freeze(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value).hex()
    return repr(value)
