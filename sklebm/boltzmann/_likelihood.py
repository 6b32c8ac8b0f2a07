"""log Z as fitted state, and the likelihoods that follow from it."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Self

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.random import RandomState, draw_seed
from sklebm._shell.rows import resolve_device
from sklebm.boltzmann._partition import (
    METHODS,
    Effort,
    PartitionMethod,
    compute_partition,
    no_partition,
)
from sklebm.gradient import GradientEstimator
from sklebm.training.diagnosis import warn_of_collapsed_chains


class LikelihoodEstimator(GradientEstimator):
    """A machine whose normaliser is summed or estimated at the end of ``fit``."""

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        hidden = state["training_state_"].get("objective.hidden")
        # The variance of bits follows from their mean; that of real-valued rows is not kept.
        if hidden is not None and energy.domain == "binary":
            self._look_at_chains(energy, hidden, state["feature_means_"])
        if self.log_partition is None:
            return {**state, **no_partition()}
        mean = state["feature_means_"]
        return {**state, **compute_partition(energy, mean, self.log_partition, seed, Effort())}

    def _look_at_chains(self, energy: Any, hidden: Any, mean: Any) -> None:
        """Compare the spread of the visible units over the chains with that over the rows."""
        with torch.no_grad():
            states = torch.from_numpy(hidden).to(energy.weights)
            of_chains = energy.visible.mean(energy.visible_field(states)).mean(dim=0)
        warn_of_collapsed_chains(
            type(self).__name__,
            float((of_chains * (1.0 - of_chains)).sum()),
            float((mean * (1.0 - mean)).clip(0.0).sum()),
            len(hidden),
        )

    def estimate_log_partition(
        self,
        method: PartitionMethod = "auto",
        *,
        n_chains: int = 100,
        n_temperatures: int | None = None,
        n_steps: int = 100,
        random_state: RandomState = None,
    ) -> Self:
        """Compute log Z, which turns ``score_samples`` into a log-likelihood.

        Parameters
        ----------
        method : {"auto", "exact", "ais", "bridge"}, default="auto"
            "exact" sums over all states of the smaller layer (at most 25 units); "ais" is
            annealed importance sampling, forwards from the base rate and backwards from
            tempered chains; "bridge" runs a ladder of tempered chains and bridges from each
            temperature to the next (Bennett, 1976). "auto" is exact up to 20 units and "ais"
            beyond.
        n_chains : int, default=100
            Number of annealed chains, or of ladders.
        n_temperatures : int or None, default=None
            Number of annealing steps, 1000 if None; or of rungs of each ladder, 20 if None.
        n_steps : int, default=100
            Steps of the ladders of "bridge", after half as many to forget their start.
        random_state : int, RandomState instance or None, default=None
            Seed of the chains.

        Returns
        -------
        self : object
            The estimator with ``log_partition_`` and ``log_partition_interval_`` set.
        """
        check_is_fitted(self)
        if method not in METHODS:
            names = ", ".join(f'"{name}"' for name in METHODS[:-1])
            raise ValueError(f'method={method!r} must be one of {names} and "{METHODS[-1]}".')
        counts = {"n_chains": n_chains, "n_temperatures": n_temperatures, "n_steps": n_steps}
        for name, value in counts.items():
            given = value is not None or name != "n_temperatures"
            if given and (not isinstance(value, Integral) or value < 2):
                raise ValueError(f"{name}={value!r} must be an integer of at least 2.")
        energy = self._energy(resolve_device(self.device, None, self._prefers_cuda))
        effort = Effort(n_chains, n_temperatures, n_steps)
        seed = draw_seed(random_state)
        self.__dict__.update(compute_partition(energy, self.feature_means_, method, seed, effort))
        return self

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean held-out log-likelihood, at the pessimistic end of the interval of log Z.

        Comparable between machines of any size and training on the same X. Annealed importance
        sampling flatters machines that mix badly; the upper end of ``log_partition_interval_``
        keeps a search from choosing them for it.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean log-likelihood in nats.

        Raises
        ------
        ValueError
            If log Z is unknown, as after ``partial_fit``.
        """
        check_is_fitted(self)
        if self.log_partition_ is None:
            raise ValueError(
                "score is a log-likelihood and needs the partition function, which is not known "
                "(log_partition=None, or partial_fit changed the parameters): call "
                "estimate_log_partition() first, or compare free energies with score_samples."
            )
        return -float(self.free_energy(X).mean()) - float(self.log_partition_interval_[1])

    def score_samples(self, X: Any) -> Any:
        """Return log p(x) where log Z is known, else the unnormalised -F(x).

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            ``-F(x) - log_partition_`` in nats, or ``-F(x)`` if ``log_partition_`` is None.
            Higher is more typical. Deterministic.
        """
        check_is_fitted(self)
        log_z = self.log_partition_ or 0.0
        return self._map_rows(X, lambda energy, x: -energy.free_energy(x) - log_z, "score_samples")
