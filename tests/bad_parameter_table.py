"""Bad values of parameters, by name: every estimator that has the parameter refuses them.

The names are the same everywhere, so one line here covers every estimator, present and future.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

NAN = math.nan
COUNT = (0, -1, 2.5, "8", NAN)
RATE = (0.0, -1.0, math.inf, NAN, "fast")
CHOICE = ("no such choice", 3)

BAD_VALUES: dict[str, tuple[Any, ...]] = {
    "activation": CHOICE,
    "algorithm": CHOICE,
    "alpha": (-1.0, NAN, "much"),
    "background": ("no such choice", 3, []),
    "batch_size": (*COUNT, None),
    "beta": (0.0, -1.0, NAN, "cold"),
    "beta_warmup": (-1, 2.5, "8", NAN),
    "binarize": ("much", 0.5),
    "calibration": (0.0, 1.0, -0.5, NAN, "much"),
    "centering": ("much", 0.5),
    "code_activation": CHOICE,
    "components_init": ("random", [[0.0]], [[NAN] * 6] * 3, [[-1.0] * 6] * 3),
    "compressor": CHOICE,
    "code_tol": (-1.0, NAN, "much"),
    "contamination": (0.0, -0.1, 0.6, NAN, "much"),
    "corruption": CHOICE,
    "corruption_level": RATE,
    "covariance_type": CHOICE,
    "decoder": ("linear", 3),
    "discrete_gradient": CHOICE,
    "doc_topic_prior": (0.0, -1.0, NAN, "much", [1.0], [0.0, 1.0, 1.0], [NAN] * 3),
    "encoder": ("linear", 3),
    "estimator": ("no such choice", 3, [], None),
    "fold_in_iter": (*COUNT, None),
    "fold_in_tol": (-1.0, NAN, "much"),
    "free_bits": (-0.1, math.inf, NAN, "much"),
    "hidden_sizes": ("wide", 3, (0,), (2.5,), (8, -1)),
    "dictionary": ("random", [[0.0]], [[NAN] * 6] * 3, [[0.0] * 6] * 3),
    "fit_intercept": ("much", 0.5),
    "image_shape": ("square", 3),
    "init": ("no such choice", [[0.0]], [[NAN] * 6] * 4),
    "inhibition_mask": (0.0, 1.5, NAN, "much", [[1.0]], [[2.0] * 3] * 3),
    "learning_decay": (0.5, 1.5, NAN, "much"),
    "learning_method": CHOICE,
    "learning_offset": (-1.0, math.inf, NAN, "much"),
    "learning_rate": RATE,
    "learning_rate_schedule": CHOICE,
    "likelihood": CHOICE,
    "layer_training": CHOICE,
    "learn_sigma": ("much", 0.5),
    "learn_weights": ("much", 0.5),
    "log_partition": CHOICE,
    "masked_fraction": (0.0, 1.0, NAN, "much"),
    "max_doc_update_iter": (*COUNT, None),
    "max_epochs": (*COUNT, None),
    "max_iter": (*COUNT, None),
    "max_selection": (-0.1, 1.1, NAN, "much"),
    "mean_change_tol": (-1.0, NAN, "much"),
    "means_init": ("random", [[0.0]], [[NAN] * 6] * 4),
    "mutation_rate": (0.0, 1.5, NAN, "much"),
    "n_clusters": (*COUNT, None, 2**31),
    "n_categories": (0, -1, "three", NAN, 1.5),
    "n_components": (0, -1, "8", NAN, 1.5),
    "n_gibbs_steps": COUNT,
    "n_importance_samples": (*COUNT, None),
    "n_init": (*COUNT, None),
    "n_iter_no_change": (0, -1, 2.5, "8"),
    "n_layers": (-1, 2.5, "8", NAN),
    "n_levels": (1, 257, 2.5, "8", NAN),
    "n_noise": COUNT,
    "n_samples": (0, -1, 2.5, "8", NAN),
    "n_steps": COUNT,
    "net_params": (3, "fast"),
    "network": ("linear", 3),
    "noise_scale": RATE,
    "objective": CHOICE,
    "optimizer": CHOICE,
    "output": CHOICE,
    "output_activation": CHOICE,
    "patch_size": COUNT,
    "penalty": CHOICE,
    "posterior": CHOICE,
    "prediction_weight": RATE,
    "precisions_init": ("random", [[0.0]], [[-1.0] * 6] * 4, [[NAN] * 6] * 4),
    "radius": (-1, 2.5, "8", NAN),
    "random_state": ("seed", -1, 0.5, np.random.default_rng(0)),
    "reg_covar": (-1.0, NAN, "much"),
    "ridge": (-1.0, math.inf, NAN, "much"),
    "selection_rate": (-0.1, 1.1, NAN, "much"),
    "shared_weights": ("much", 0.5),
    "sigma": (0.0, -1.0, NAN, "wide"),
    "shrinkage": (-0.1, 1.1, NAN, "no such choice"),
    "structure": CHOICE,
    "supervised_layers": CHOICE,
    "target_activity": (0.0, 1.0, NAN, "much"),
    "temperature": (0.0, -1.0, NAN, "cold"),
    "strategy": CHOICE,
    "tied": ("much", 0.5),
    "tol": (-1.0, NAN, "much"),
    "topic_word_prior": RATE,
    "trim": (-0.1, 0.6, NAN, "much"),
    "unit_norm": ("much", 0.5),
    "validation_fraction": (0.0, 1.0, -0.1, NAN, "much"),
    "value_range": CHOICE,
    "variant": CHOICE,
    "variance": (0.0, -1.0, math.inf, NAN, "wide"),
    "verbose": (-1, "much"),
    "warm_start": ("much", 0.5),
    "weights_init": ("random", [0.5], [0.5, 0.5, 0.5, -0.5], [NAN] * 4),
}

# Parameters that are tested on their own, with what holds for them.
ELSEWHERE = {"device": "test_containers.py"}

# Read when learning begins, not when it goes on.
STARTS = (
    "components_init",
    "init",
    "inhibition_mask",
    "means_init",
    "precisions_init",
    "weights_init",
)

# Values too large for any machine: refused by a check or by the allocator, never half done.
TOO_LARGE = {"n_components": 2**44, "n_clusters": 2**44}
