"""The objectives of Boltzmann machines by name."""

from __future__ import annotations

from sklebm.objectives import (
    ContrastiveDivergence,
    DenoisingScoreMatching,
    FastPersistentContrastiveDivergence,
    MaximumLikelihood,
    MinimumProbabilityFlow,
    NoiseContrastive,
    Objective,
    PersistentContrastiveDivergence,
    PseudoLikelihood,
    RatioMatching,
    ScoreMatching,
    TemperedPersistentContrastiveDivergence,
    VariationalNoiseContrastive,
)

OBJECTIVES: dict[str, type[Objective]] = {
    "cd": ContrastiveDivergence,
    "pcd": PersistentContrastiveDivergence,
    "fast_pcd": FastPersistentContrastiveDivergence,
    "tempered_pcd": TemperedPersistentContrastiveDivergence,
    "maximum_likelihood": MaximumLikelihood,
    "pseudo_likelihood": PseudoLikelihood,
    "ratio_matching": RatioMatching,
    "minimum_probability_flow": MinimumProbabilityFlow,
    "noise_contrastive": NoiseContrastive,
    "variational_noise_contrastive": VariationalNoiseContrastive,
    "score_matching": ScoreMatching,
    "denoising_score_matching": DenoisingScoreMatching,
}
