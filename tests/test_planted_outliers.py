"""A planted set of outliers: right marginals, wrong correlations. Training must find them.

Each feature of an outlier is distributed as it is among inliers, so that what a model knows before
training (its initial weights, or the means of the features) tells nothing. Every estimator of the
registry takes part, except models of independent features. An encoder of given codes begins as the
solver of a dictionary, which has been learnt already, and is held to the gain alone. Those of
``SEEN`` know rows before their first step.
"""

import functools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.registry import (
    NAMES,
    entry,
    fit_takes,
    is_gradient_trained,
    make,
    make_rows,
    shuffle_columns,
    takes,
)

SEEDS = range(5)
UNTRAINED = {"learning_rate": 1e-12, "max_epochs": 1}
# What they know of the rows without a step: training must not lose it.
SEEN = {
    "ContrastiveEmbedding": "prototypes among the embeddings of the rows, even of a random encoder",
    "SemiRestrictedBM": "the covariance of the rows",
}
# Models of independent features see nothing in these outliers, by definition.
TAKE_PART = [name for name in NAMES if not entry(name).independent]
GRADIENT_TRAINED = [name for name in TAKE_PART if is_gradient_trained(make(name))]


def auroc(name, seed, **changes):
    """How well new rows are told from rows with the same marginals and no dependence."""
    seeded = {"random_state": seed} if takes(make(name), "random_state") else {}
    rows_of = entry(name).learnable or functools.partial(make_rows, noise=0.15)
    model = make(name, **seeded, **changes).fit(rows_of(300, seed))
    inliers = rows_of(300, 100 + seed)
    rows = np.vstack([inliers, shuffle_columns(inliers, seed)])
    return roc_auc_score(np.repeat([1, 0], 300), model.score_samples(rows))


@functools.cache
def trained(name):
    return [auroc(name, seed) for seed in SEEDS]


def test_the_marginals_of_the_planted_outliers_are_right():
    inliers = make_rows(300, 100, noise=0.15)
    outliers = shuffle_columns(inliers)
    np.testing.assert_array_equal(np.sort(outliers, axis=0), np.sort(inliers, axis=0))
    correlations = [
        np.abs(np.corrcoef(rows.T)[np.triu_indices(6, 1)]) for rows in (inliers, outliers)
    ]
    assert correlations[0].max() > 0.8
    assert correlations[1].max() < 0.2


@pytest.mark.parametrize("name", TAKE_PART)
def test_inliers_score_higher(name):
    """The sign of ``score_samples``, whatever the seed."""
    assert min(trained(name)) > 0.5


@pytest.mark.parametrize("name", GRADIENT_TRAINED)
def test_training_finds_what_the_initialisation_cannot(name):
    changes = entry(name).untrained or UNTRAINED
    untrained = [auroc(name, seed, **changes) for seed in SEEDS]
    if name in SEEN:
        assert np.median(trained(name)) >= np.median(untrained) - 0.01
        return
    if not fit_takes(make(name), "codes"):
        assert np.median(untrained) < 0.8
    assert np.median(trained(name)) >= np.median(untrained) + 0.02
