"""Warnings about training that ended with finite numbers but still went wrong."""

from __future__ import annotations

from sklebm._shell.warning import warn

# Chains of a model that has learnt the data spread as far as the rows, up to sampling error and
# what remains to be learnt. A tenth of the variance is far outside both.
_LEAST_SHARE = 0.1
_FEWEST_CHAINS = 10
# Standard deviations of features for which learning rates are intended.
_ORDINARY = (0.03, 30.0)


def warn_of_collapsed_chains(
    name: str, variance: float, data_variance: float, n_chains: int
) -> None:
    """Warn if persistent chains have clumped together although the rows are spread out."""
    if n_chains < _FEWEST_CHAINS or not variance < _LEAST_SHARE * data_variance:
        return
    warn(
        f"{name}: the {n_chains} persistent chains hold {variance / data_variance:.1%} of the "
        "variance of the training rows, so they are worth about one negative sample: all "
        "sit in one mode. Lower learning_rate, raise the number of steps of a chain between "
        'updates, or use an objective whose chains start at the rows, such as "cd".',
    )


def warn_of_disagreement(number: str, low: float, high: float, more: str) -> None:
    """Warn that log Z lies anywhere between two estimates; ``more`` of something may settle it."""
    warn(
        f"{number} is uncertain, between {low:.4g} and {high:.4g}: estimates from the two ends of "
        "annealing disagree. score uses the upper end, so it is pessimistic. Try "
        f"estimate_log_partition() with more {more}; if they still disagree, the model mixes "
        "badly. If you only need transform, set log_partition=None."
    )


def warn_of_constant_network(name: str, n_outputs: int) -> None:
    """Warn if no output of the network depends on the row."""
    warn(
        f"{name}: scores are constant except for their Gaussian factor, because none of the "
        f"{n_outputs} outputs of the network depends on the row: its units are dead. Lower "
        "learning_rate, scale X, or use an activation that does not saturate.",
    )


def warn_of_unusual_scale(name: str, scale: float, learning_rate: float) -> None:
    """Warn if features are too large or too small for steps of the usual size."""
    if not _ORDINARY[0] <= scale <= _ORDINARY[1]:
        warn(
            f"{name}: the features of X have a standard deviation of {scale:.3g} (root mean "
            f"variance), but learning_rate={learning_rate} suits features near 1: scale X, for "
            "example with StandardScaler."
        )
