"""Shared code of restricted Boltzmann machines: objectives, centring, state, log Z, chains."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, ClassVar, Self

import torch
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood, settling
from sklebm._checks import check_beta
from sklebm._shell.available import available_if
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Spec
from sklebm.boltzmann import _chains
from sklebm.boltzmann._objectives import OBJECTIVES
from sklebm.gradient import GradientEstimator
from sklebm.inference.gibbs_langevin import GibbsLangevin
from sklebm.likelihood import DensityCheck, PartitionMethod
from sklebm.objectives import Objective, check_needs, resolve_objective
from sklebm.training.centring import Centring
from sklebm.training.start import Start
from sklebm.training.transforms import TransformState

# Default of n_gibbs_steps; objectives given as objects have their own.
_DEFAULT_GIBBS_STEPS = 1


def free_energy_gap(energy: Any, held_out: torch.Tensor, sample: torch.Tensor) -> float:
    """Mean F of held-out rows minus that of training rows; log Z cancels."""
    means = [energy.free_energy(x).double().mean() for x in (held_out, sample)]
    return float(means[0] - means[1])


def check_components(machine: Any) -> None:
    """Refuse to continue from fitted parameters of another number of hidden units."""
    fitted = len(machine.components_)
    if fitted != machine.n_components:
        raise ValueError(
            f"n_components={machine.n_components} differs from the {fitted} fitted components "
            "that training would continue from: set it back, or fit with warm_start=False."
        )


def _has_decoder(machine: Any) -> bool:
    if not machine._decodes and not _has_hidden_units(machine):
        raise AttributeError("there are no hidden units to decode from.")
    return bool(machine._decodes)


def _has_hidden_units(machine: Any) -> bool:
    """Whether there are any: fitted ones, or before a fit those that the parameters ask for."""
    if not hasattr(machine, "n_features_in_"):
        return bool(machine.n_components)
    fitted = getattr(machine, "intercept_hidden_", None)
    return fitted is not None and len(fitted) > 0


class BoltzmannEstimator(GradientEstimator):
    """Base class of the Boltzmann machines."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GradientEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "objective": [StrOptions(set(OBJECTIVES)), Objective],
        "n_gibbs_steps": [Interval(Integral, 1, None, closed="left")],
        "centering": ["boolean"],
        "log_partition": [StrOptions(set(likelihood.METHODS)), None],
    }
    _settle_chains = settling.settle_chains
    _accepts_sparse = True
    # Whether visible units are independent given the hidden ones.
    _decodes = True
    # Smallest and largest state of a visible unit.
    _visible_range = (-math.inf, math.inf)
    _monitors: ClassVar[dict[str, Any]] = {"free_energy_gap": free_energy_gap}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Machines define their public methods in one line each; the docstrings are here.
        for name in ("transform", "score_samples", "sample"):
            own = vars(cls).get(name)
            if own is not None and not own.__doc__:
                own.__doc__ = getattr(BoltzmannEstimator, name).__doc__
        super().__init_subclass__(**kwargs)

    def _objective(self, energy: Any) -> Objective:
        given = self.n_gibbs_steps != _DEFAULT_GIBBS_STEPS
        options = {"n_gibbs_steps": self.n_gibbs_steps} if given else {}
        name = "pcd" if self.objective == "auto" else self.objective
        objective = resolve_objective(name, OBJECTIVES, options)
        check_needs(objective, energy, OBJECTIVES.values())
        return objective

    def _transforms(self, energy: Any, start: Start) -> tuple[Centring, ...]:
        """Centre gradients at the means of both layers, continuing those of an earlier fit."""
        if not self.centering:
            return ()
        return (Centring(energy, *self._offsets(energy, start)),)

    def _offsets(self, energy: Any, start: Start) -> tuple[torch.Tensor, torch.Tensor]:
        """Initial means of the visible and hidden units for centring."""
        # Without input, hidden units are on half of the time.
        hidden, means = torch.full_like(energy.hidden.bias.data, 0.5), start.means
        if start.resume:
            means = torch.from_numpy(self.feature_means_)
            if self.hidden_means_ is not None:
                hidden = torch.from_numpy(self.hidden_means_).to(hidden)
        if start.rows.origin is not None:
            means = means - start.rows.origin
        return means.to(hidden), hidden

    def _export_transforms(self, states: list[TransformState]) -> dict[str, Any]:
        means = states[0]["hidden_mean"].cpu().numpy().copy() if self.centering else None
        return {"hidden_means_": means}

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        check_components(self)

    def _export(self, energy: Any) -> dict[str, Any]:
        # Any change of the parameters invalidates an earlier normaliser.
        return {**super()._export(energy), **likelihood.unknown()}

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "components_": Array("f", ("n_components", "n_features_in_"), of="weights"),
            "intercept_hidden_": Array("f", ("n_components",), of="hidden.bias"),
            "intercept_visible_": Array("f", ("n_features_in_",), of="visible.bias"),
            "hidden_means_": Array("f", ("n_components",), optional=True),
            **likelihood.STATE,
        }

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        # Annealing and chains start from the means implied by the visible biases.
        held = {name: torch.as_tensor(value) for name, value in given.items()}
        visible = self._rebuild(held).visible
        means = visible.mean(visible.bias.detach()).double().numpy()
        return {**super()._untrained_state(given), "feature_means_": means}

    _check_completion = likelihood.need_summable

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        return likelihood.complete(self, energy, state, seed)

    def _floats_per_row(self) -> int:
        return 3 * int(self.n_features_in_) + 4 * len(self.components_)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def transform(self, X: Any) -> Any:
        """Return the mean of the hidden units given each row.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        H : array or tensor of shape (n_samples, n_components)
            p(h_k = 1 | x).
        """
        return self._map_rows(X, lambda energy, x: energy.hidden_mean(x), "transform")

    @available_if(_has_decoder, "the units of a row depend on each other even given Z.")
    def inverse_transform(self, X: Any) -> Any:
        """Return the mean of the visible units given hidden units.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            Hidden states or probabilities.

        Returns
        -------
        X_original : array or tensor of shape (n_samples, n_features)
            p(x_i = 1 | h), or the mean of p(x_i | h) for real-valued rows.
        """

        def decode(energy: Any, h: torch.Tensor) -> torch.Tensor:
            return likelihood.from_origin(self, energy.visible.mean(energy.visible_field(h)))

        return self._map_rows(X, decode, "inverse_transform", latents=True)

    def free_energy(self, X: Any, beta: float = 1.0) -> Any:
        r"""Return :math:`F_\beta(x) = -\frac1\beta \log \sum_h e^{-\beta E(x, h)}`.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to evaluate.
        beta : float, default=1.0
            Inverse temperature of the hidden units; the model itself is at 1.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats; at ``beta=1`` it is ``-log p(x) - log Z``.
        """
        check_beta(beta)
        return self._map_rows(X, lambda energy, x: energy.free_energy(x, beta), "free_energy")

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
        return likelihood.score_samples(self, X)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean held-out log-likelihood, at the pessimistic end of the interval of log Z.

        Scores on the same X can be compared between machines of any size, however they were
        trained. Annealed importance sampling overrates machines that mix badly; the upper end of
        ``log_partition_interval_`` keeps a search from preferring them.

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
        likelihood.need_log_partition(self, "score is a log-likelihood and")
        return likelihood.pessimistic_mean(self, X)

    @available_if(_has_hidden_units, "there are no hidden units: use free_energy.")
    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each row with its own hidden state.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Visible states.
        Z : array-like or tensor of shape (n_samples, n_components)
            Hidden states.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._pair_energies(X, Z)

    def sample(
        self,
        n_samples: int = 1,
        *,
        n_steps: int = 1000,
        init: Any = None,
        clamped: Any = None,
        sampler: GibbsLangevin | None = None,
        random_state: RandomState = None,
    ) -> Any:
        """Draw rows from the model, with one block Gibbs chain per row.

        Draws are exact only in the limit of many steps, and a machine with separated modes can
        need very many. With ``clamped``, chains keep the known features of each row and draw the
        others given them (completion).

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        n_steps : int, default=1000
            Gibbs steps of every chain.
        init : array-like of shape (n_features,) or (n_samples, n_features), default=None
            Initial states of the chains; None starts from the base rate of the units.
        clamped : array-like of shape (n_features,) or (n_samples, n_features), default=None
            Values of known features, and NaN for those to draw. A single row applies to all chains.
        sampler : GibbsLangevin, default=None
            How real-valued visible units move in a step; None redraws them given the hidden units
            (block Gibbs).
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Visible states, float32; drawn states of binary units are 0 or 1.
        """
        check_is_fitted(self)
        return _chains.drawn(self, n_samples, n_steps, init, clamped, sampler, random_state)

    def gibbs(self, X: Any, n_steps: int = 1, *, random_state: RandomState = None) -> Any:
        """Move rows by block Gibbs steps, which leave the model's distribution invariant.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Visible states to start from.
        n_steps : int, default=1
            Number of steps, each a draw of all hidden and then all visible units.
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        V : array or tensor of shape (n_samples, n_features)
            Visible states: 0 or 1, or real values.
        """
        check_is_fitted(self)
        return _chains.moved(self, X, n_steps, random_state)

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
            tempered chains; "bridge" runs ladders of tempered chains and bridges from each
            temperature to the next (Bennett, 1976). Half of the ladders start at the base rate,
            half where persistent or annealed chains ended. "auto" is exact up to 20 units and
            "ais" beyond.
        n_chains : int, default=100
            Number of annealed chains, or of ladders.
        n_temperatures : int or None, default=None
            Number of annealing steps (None: 1000), or of rungs of each ladder (None: 20).
        n_steps : int, default=100
            Steps of the ladders of "bridge", after half as many burn-in steps. Steps and
            temperatures are doubled, at most twice, while the two ends disagree or the interval
            is wider than 0.8 nats.
        random_state : int, RandomState instance or None, default=None
            Seed for the chains.

        Returns
        -------
        self : object
            The estimator with ``log_partition_`` and ``log_partition_interval_`` set.

        Warns
        -----
        UserWarning
            If the two ends still disagree after the last doubling. The interval covers both.
        """
        found = likelihood.estimate(self, method, n_chains, n_temperatures, n_steps, random_state)
        likelihood.keep(self, found)
        return self

    def check_density(self, random_state: RandomState = None) -> DensityCheck:
        """Compare log p with a known density, over draws from the latter.

        Averaged over draws from a density q, no log density exceeds log q (Gibbs' inequality).
        A log Z that is too low can fail the check; passing it proves nothing.

        Parameters
        ----------
        random_state : int, RandomState instance or None, default=None
            Seed for the draws.

        Returns
        -------
        check : DensityCheck
            ``mean_log_density``, ``reference_log_density``, ``standard_error`` and ``passed``.

        Raises
        ------
        ValueError
            If log Z is unknown.
        """
        return likelihood.check_density(self, random_state)
