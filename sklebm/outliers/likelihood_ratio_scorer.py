r"""s(x) = log p(x) - log q(x), q a model of what is common to all rows: the background."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import clone

from sklebm._shell.private import HasMethods, Interval
from sklebm._shell.random import draw_seed
from sklebm._shell.rows import Rows
from sklebm.composite import MemberFits
from sklebm.outliers._base import EnergyScorer
from sklebm.outliers._members import require_scores


class LikelihoodRatioScorer(EnergyScorer):
    r"""Score rows by the ratio of two densities, so that what both models know cancels.

    .. math:: s(x) = \log p(x) - \log q(x).

    p is fitted to the rows. The background model q is another density of the same rows or, if none
    is given, a copy of the estimator fitted to rows with some values replaced at random: it keeps
    population-level statistics, such as how much of an image is empty, but loses how features
    depend on each other [1]_.

    Parameters
    ----------
    estimator : "auto" or estimator, default="auto"
        Any estimator whose ``score_samples`` is a log density or log probability in nats, from this
        library or scikit-learn, pipelines included. "auto" is a Gaussian,
        :class:`~sklebm.PCAWhitener`.
    background : estimator or None, default=None
        The model q, fitted to the same rows, or already fitted to background data if it is a
        ``FrozenEstimator``. None: a clone of ``estimator``, fitted to perturbed rows.
    mutation_rate : float in (0, 1], default=0.2
        Probability that a value is replaced, independently of others, by one drawn uniformly
        between the lowest and highest training value of its feature. Used only without
        ``background``.
    random_state : int, RandomState instance or None, default=None
        Seed for the replacements.

    Attributes
    ----------
    estimator_ : estimator
        The fitted model p.
    background_ : estimator
        The fitted model q.
    named_estimators_ : dict
        Both, under the names "estimator" and "background".
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    InputComplexityScorer : Compares with a compressor instead of a second model.
    sklearn.frozen.FrozenEstimator : Leaves an already fitted model unchanged.

    Notes
    -----
    If q is the density of the outliers, no score is more powerful (Neyman and Pearson). Two
    unnormalised energies in the same units may be used as well: their constants do not change the
    ranking of rows.

    Cost: that of the two estimators, plus O(n d) for the perturbed rows.

    References
    ----------
    .. [1] J. Ren, P. J. Liu, E. Fertig, J. Snoek, R. Poplin, M. A. DePristo, J. V. Dillon and
       B. Lakshminarayanan, "Likelihood ratios for out-of-distribution detection", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.metrics import roc_auc_score
    >>> from sklebm import LikelihoodRatioScorer, PCAWhitener
    >>> generator = np.random.default_rng(0)
    >>> X, shifted = generator.normal(size=(2000, 10)), 0.63 + generator.normal(size=(2000, 10))
    >>> outliers = FrozenEstimator(PCAWhitener().fit(shifted))
    >>> scorer = LikelihoodRatioScorer(PCAWhitener(), background=outliers).fit(X)
    >>> rows = np.vstack([generator.normal(size=(2000, 10)), shifted])
    >>> is_inlier = np.repeat([1, 0], 2000)
    >>> density = scorer.estimator_.score_samples(rows)
    >>> print(f"{roc_auc_score(is_inlier, density):.1f}")
    0.7
    >>> print(f"{roc_auc_score(is_inlier, scorer.score_samples(rows)):.1f}")
    0.9
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyScorer._parameter_constraints,
        "background": [HasMethods("fit"), None],
        "mutation_rate": [Interval(Real, 0, 1, closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any = "auto",
        *,
        background: Any = None,
        mutation_rate: float = 0.2,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.background = background
        self.mutation_rate = mutation_rate
        self.random_state = random_state

    @property
    def background_(self) -> Any:
        """The fitted background model."""
        return self.named_estimators_["background"]

    def _max_steps(self, X: Any) -> int:
        return 2

    @property
    def _reads_numbers(self) -> bool:
        return True

    def _fit(self, X: Rows, members: MemberFits, **data: Any) -> dict[str, Any]:
        member = self._density()
        if self.background is not None:
            require_scores("background", self.background, type(self).__name__)
        values = X.to_numpy()
        if self.background is None:
            seen = perturb(values, float(self.mutation_rate), draw_seed(self.random_state))
            background = clone(member)
        else:
            seen, background = values, clone(self.background)
        members.fit("estimator", member, values, data["y"])
        members.fit("background", background, seen, data["y"])
        return {"named_estimators_": {"estimator": member, "background": background}}

    def score_samples(self, X: Any) -> Any:
        """Return the log ratio of the two densities for each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            In nats; higher is more typical.
        """

        def score(values: Any) -> Any:
            return self._scores_of("estimator", values) - self._scores_of("background", values)

        return self._map_values(X, score)


def perturb(values: Any, rate: float, seed: int) -> Any:
    """Rows with a share of their values redrawn, uniformly over the range of each feature."""
    generator = np.random.default_rng(seed)
    low, high = values.min(axis=0), values.max(axis=0)
    share = generator.random(values.shape)
    drawn = low * (1 - share) + high * share  # avoids a difference that could overflow
    return np.where(generator.random(values.shape) < rate, drawn, values).astype(values.dtype)
