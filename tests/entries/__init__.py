"""What an entry of the test registry holds.

Each family with a file here, ``<family>.py``, lists one entry per estimator in its ``ENTRIES``,
below the equations in plain NumPy that the entries name. ``tests/registry.py`` collects them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """Constructor arguments and ground truth of one estimator.

    Parameters
    ----------
    quick : mapping
        Arguments for a fit of some milliseconds that still learns the rows of ``make_rows``.
    untrained : mapping
        On top of ``quick``: arguments that stop at, or right after, the initialisation, without
        changing it (``OTHER_START`` in ``tests/test_contract.py`` lists what does). Empty for a
        closed form.
    variants : tuple of mappings
        Other settings that take different paths through the code.
    seeded : mapping
        On top of ``quick``: arguments under which the fit draws random numbers, if ``quick`` alone
        does not.
    free_energy : callable
        ``free_energy(fitted, X) -> ndarray``: the equation in plain float64 NumPy.
    normalised : mapping
        Arguments of the method ``free_energy`` under which exp(-F) has a normaliser, if it has none
        by itself.
    rounding : float
        Rounding of the scores of rows up to 1000 under the least variance that a fit allows,
        relative to the largest score of the call. (Terms of that size cancel in every score, so
        that a small score keeps fewer digits of its own.)
    learnable : callable
        ``learnable(n_rows, seed) -> ndarray``: rows whose dependence the scores can see, if those
        of ``make_rows`` are none.
    independent : bool
        True for a model whose features are independent by definition: instead of learning how they
        depend on each other, its scores must see each feature alone.
    targets : callable
        ``targets(X) -> y`` for models of targets, if ``make_targets`` of the registry does not
        suit them.
    """

    quick: Mapping[str, Any] = field(default_factory=dict)
    untrained: Mapping[str, Any] = field(default_factory=dict)
    variants: tuple[Mapping[str, Any], ...] = ()
    seeded: Mapping[str, Any] = field(default_factory=dict)
    free_energy: Callable[[Any, Any], Any] | None = field(default=None, repr=False)
    normalised: Mapping[str, Any] = field(default_factory=dict)
    rounding: float = 1e-9
    learnable: Callable[..., Any] | None = None
    independent: bool = False
    targets: Callable[[Any], Any] | None = field(default=None, repr=False)
