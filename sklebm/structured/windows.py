"""Features of the steps before and after a step, as dictionaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sklebm._checks import check_count
from sklebm._shell.groups import number_groups, read_groups
from sklebm.inference.linear_chain import sequence_order


def window_features(
    steps: Sequence[Mapping[str, Any]],
    groups: Any = None,
    *,
    window: int = 2,
    bigrams: bool = False,
) -> list[dict[str, Any]]:
    """Add the features of neighbouring steps to those of each step.

    Parameters
    ----------
    steps : sequence of mappings
        Features of each step: names with strings (categories), numbers or booleans.
    groups : array-like of shape (n_steps,) or None, default=None
        Sequence of each step; steps of other sequences are not neighbours. None: one sequence.
    window : int, default=2
        Number of steps before and after each step whose features are added.
    bigrams : bool, default=False
        Whether to add, for each feature that is a string, the pairs of its values at steps next
        to each other in the window.

    Returns
    -------
    features : list of dict
        One dictionary per step, in the order of ``steps``: "word", the step's own feature,
        "-1:word" and "+1:word", those of its neighbours, and "-1|0:word", a pair. "-1:outside" is
        True where the sequence has no such step. ``DictVectorizer`` and ``FeatureHasher`` of
        scikit-learn turn them into a table.

    Raises
    ------
    ValueError
        If ``window`` is not an integer of at least 0, or ``groups`` has another length or missing
        values.

    Examples
    --------
    >>> from sklebm import window_features
    >>> steps = [{"word": "a"}, {"word": "dog"}, {"word": "barks"}]
    >>> window_features(steps, window=1)[1]
    {'word': 'dog', '-1:word': 'a', '+1:word': 'barks'}
    >>> window_features(steps, window=1, bigrams=True)[0]
    {'word': 'a', '-1:outside': True, '+1:word': 'dog', '0|+1:word': 'a|dog'}
    """
    check_count(window, "window", least=0)
    steps = list(steps)
    names = None
    if groups is not None:
        named = read_groups(groups, len(steps), found="there are", row="step", column=True)
        names = number_groups(named)
    order, starts = sequence_order(names, len(steps))
    found: list[dict[str, Any]] = [{} for _ in steps]
    for start, stop in pairwise(starts):
        chain = order[start:stop]
        for place, at in enumerate(chain):
            near = {
                offset: steps[chain[place + offset]] if 0 <= place + offset < len(chain) else None
                for offset in range(-window, window + 1)
            }
            found[at] = _joined(near, bigrams)
    return found


def _joined(near: Mapping[int, Mapping[str, Any] | None], bigrams: bool) -> dict[str, Any]:
    """Features of one window."""
    features: dict[str, Any] = dict(near[0] or {})
    for offset, step in near.items():
        if step is None:
            features[f"{offset:+d}:outside"] = True
        elif offset != 0:
            features.update({f"{offset:+d}:{name}": value for name, value in step.items()})
    if bigrams:
        for offset, step in near.items():
            after = near.get(offset + 1)
            if step is None or after is None:
                continue
            place = f"{_signed(offset)}|{_signed(offset + 1)}"
            for name, value in step.items():
                if isinstance(value, str) and isinstance(after.get(name), str):
                    features[f"{place}:{name}"] = f"{value}|{after[name]}"
    return features


def _signed(offset: int) -> str:
    return f"{offset:+d}" if offset else "0"
