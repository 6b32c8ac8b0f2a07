"""Shape of the paths that codes take along sequences: how fast they change, how much they bend."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from sklebm._shell.groups import need_side_by_side, number_groups, read_groups


def slowness(Z: Any, groups: Any = None) -> Any:
    r"""Return how much each column changes from step to step, at unit variance.

    .. math:: \frac{\mathbb{E} (z_{t+1} - z_t)^2}{\mathrm{Var}\, z} .

    It is 2 for independent steps, :math:`2 (1 - \phi)` for an AR(1) process, and
    :math:`4 \sin^2(\omega / 2)` for a sinusoid of angular frequency :math:`\omega` per step.

    Parameters
    ----------
    Z : array-like of shape (n_samples, n_columns)
        Steps of sequences, such as the codes that ``transform`` returns.
    groups : array-like of shape (n_samples,) or None, default=None
        Sequence of each step; the steps of a sequence lie side by side. None: one sequence.

    Returns
    -------
    slowness : ndarray of shape (n_columns,)
        Lower is slower; NaN for a column that is constant.

    Raises
    ------
    ValueError
        If no sequence has two steps, or the steps of one do not lie side by side.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm.metrics import slowness
    >>> Z = np.sin(2 * np.pi * np.arange(1000) / 10)
    >>> slowness(Z[:, None]).round(2), (4 * np.sin(np.pi / 10) ** 2).round(2).item()
    (array([0.38]), 0.38)
    """
    codes, names = _steps(Z, groups)
    changes = _changes(codes, names, 2)[0]
    variance = codes.var(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (changes**2).mean(axis=0) / variance
    # The variance of a column that is constant may be a rounding.
    return np.where(np.ptp(codes, axis=0) > 0.0, found, np.nan)


def curvature(Z: Any, groups: Any = None) -> float:
    r"""Return how much the path of each sequence bends: the mean of 1 - cos of its turns.

    .. math:: \mathbb{E} \left[ 1 - \cos(z_{t+1} - z_t, z_t - z_{t-1}) \right] .

    It is 0 for straight lines, 1 if successive changes are orthogonal, and 2 if they are opposite.

    Parameters
    ----------
    Z : array-like of shape (n_samples, n_columns)
        Steps of sequences, such as the codes that ``transform`` returns.
    groups : array-like of shape (n_samples,) or None, default=None
        Sequence of each step; the steps of a sequence lie side by side. None: one sequence.

    Returns
    -------
    curvature : float
        Mean over all turns; steps that stand still count as a turn by 90 degrees.

    Raises
    ------
    ValueError
        If no sequence has three steps, or the steps of one do not lie side by side.

    Examples
    --------
    >>> from sklebm.metrics import curvature
    >>> curvature([[0, 0], [1, 0], [2, 0]]), curvature([[0, 0], [1, 0], [1, 1]])
    (0.0, 1.0)
    """
    before, after = _changes(*_steps(Z, groups), 3)
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    products = (before * after).sum(axis=1)
    return float(
        np.mean(1.0 - np.divide(products, lengths, where=lengths > 0.0, out=0.0 * lengths))
    )


def _steps(Z: Any, groups: Any) -> tuple[NDArray[np.float64], NDArray[Any]]:
    codes = check_array(Z, dtype=np.float64)
    if groups is None:
        return codes, np.zeros(len(codes))
    numbers = number_groups(read_groups(groups, len(codes), found="Z has", column=True))
    need_side_by_side(numbers, table="Z")
    return codes, numbers


def _changes(
    codes: NDArray[np.float64], names: NDArray[Any], n_steps: int
) -> list[NDArray[np.float64]]:
    """Successive changes within all stretches of ``n_steps`` steps of one sequence."""
    last = len(codes) - n_steps + 1
    same = np.ones(max(last, 0), dtype=bool)
    for step in range(1, n_steps):
        same &= names[step : last + step] == names[: max(last, 0)]
    if not same.any():
        raise ValueError(
            f"no sequence has {n_steps} steps: check groups, which names the sequence of each row."
        )
    steps = np.diff(codes, axis=0)
    return [steps[step : last + step][same] for step in range(n_steps - 1)]
