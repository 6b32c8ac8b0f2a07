"""Scores of outliers."""

from __future__ import annotations

from typing import Any

import numpy as np

import sklebm
from tests.entries import Entry


def neighbour_free_energy(model: Any, X: Any) -> Any:
    """d log r_k, from all distances."""
    gaps = np.asarray(X, np.float64)[:, None] - model.samples_
    reach = np.sort(np.sqrt((gaps**2).sum(axis=2)), axis=1)[:, model.n_neighbors_ - 1]
    return X.shape[1] * np.log(np.maximum(reach, model.floor_))


def logit_free_energy(model: Any, X: Any) -> Any:
    """-log(1 + exp(f)) of a binary decision f."""
    return -np.logaddexp(0.0, model.estimator_.decision_function(X))


# What meta-estimators are tested with.
SMALL_VAE = sklebm.VAE(
    2,
    hidden_sizes=(8,),
    likelihood="bernoulli",
    learning_rate=0.03,
    batch_size=40,
    max_epochs=10,
    n_importance_samples=2,
    random_state=0,
)

MIXTURE = sklebm.EnergyGaussianMixture(4, covariance_type="diag", random_state=0)


ENTRIES: dict[str, Entry] = {
    "EnergyOutlierDetector": Entry(
        seeded={"calibration": 0.25},
        rounding=1e-6,  # a mixture is among its members
        variants=(
            {"calibration": 0.25, "trim": 0.1, "random_state": 0},
            {"contamination": 0.1},
            {"estimator": sklebm.EnergyKMeans(4, random_state=0)},
            {"estimator": [("a", sklebm.PCAWhitener()), ("b", sklebm.ZCAWhitener(1))]},
        ),
    ),
    "InputComplexityScorer": Entry(
        quick={"estimator": MIXTURE},
        rounding=1e-4,  # that of the mixture
        variants=(
            {"compressor": "bz2", "n_levels": 16},
            {"compressor": "lzma", "estimator": sklebm.PCAWhitener()},
        ),
    ),
    "LikelihoodRatioScorer": Entry(
        quick={"estimator": MIXTURE, "random_state": 0},
        rounding=1e-4,
        variants=({"background": sklebm.PCAWhitener()}, {"mutation_rate": 1.0}),
    ),
    "LikelihoodRegretScorer": Entry(
        quick={
            "estimator": SMALL_VAE,
            "n_steps": 20,
        },
        rounding=1e-4,
        variants=({"estimator": SMALL_VAE, "learning_rate": 0.01, "n_steps": 3},),
    ),
    "LogitEnergyScorer": Entry(
        # Whatever has a decision_function has binary logits, and a detector needs no labels.
        quick={"estimator": sklebm.EnergyOutlierDetector(MIXTURE, contamination=0.5)},
        variants=(
            {"temperature": 0.5},
            {"estimator": sklebm.EnergyOutlierDetector(sklebm.PCAWhitener())},
        ),
        free_energy=logit_free_energy,
        rounding=1e-4,
    ),
    "NeighbourEnergy": Entry(
        variants=({"n_neighbors": 1}, {"max_samples": 60, "random_state": 0}),
        seeded={"max_samples": 60},
        free_energy=neighbour_free_energy,
        # A squared distance to rows of up to 1000 is chosen by its expansion.
        rounding=1e-6,
    ),
    "TypicalityScorer": Entry(
        quick={"estimator": MIXTURE},
        seeded={"calibration": 0.25},
        variants=({"calibration": 0.25, "random_state": 0}, {"estimator": sklebm.PCAWhitener()}),
        rounding=1e-4,
    ),
}
