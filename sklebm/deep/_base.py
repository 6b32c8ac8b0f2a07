"""Shared code of deep energy models: network, fitted state, objectives."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm import likelihood, settling
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState, make_generator, purpose_seed
from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm.deep._layers import layer_by_layer
from sklebm.deep._network import (
    adopt_layers,
    assembled,
    covariance,
    fall_without_end,
    fitted_record,
    is_log_factor,
    maps_of,
    record_of,
    start_values,
)
from sklebm.gradient import GradientEstimator
from sklebm.likelihood import DensityCheck
from sklebm.objectives import (
    Batch,
    ConditionalNoiseContrastive,
    ContrastiveDivergence,
    DenoisingScoreMatching,
    NoiseContrastive,
    Objective,
    PersistentContrastiveDivergence,
    ScoreMatching,
    SlicedScoreMatching,
    VariationalNoiseContrastive,
    check_needs,
    resolve_objective,
)
from sklebm.training.architecture import NetworkRecord, check_sizes, export_weights
from sklebm.training.diagnosis import warn_of_constant_network, warn_of_unusual_scale
from sklebm.training.start import Start

OBJECTIVES: dict[str, type[Objective]] = {
    "noise_contrastive": NoiseContrastive,
    "variational_noise_contrastive": VariationalNoiseContrastive,
    "conditional_noise_contrastive": ConditionalNoiseContrastive,
    "score_matching": ScoreMatching,
    "sliced_score_matching": SlicedScoreMatching,
    "denoising_score_matching": DenoisingScoreMatching,
    "cd": ContrastiveDivergence,
    "pcd": PersistentContrastiveDivergence,
}
#: Smooth functions only: samplers and score matching need derivatives up to third order.
ACTIVATIONS = ("sigmoid", "softplus", "tanh", "silu")
# Number of rows near the data at which a network is checked.
_N_PROBES = 256


class DeepEnergyEstimator(GradientEstimator):
    """Network, reference density, objectives and fitted state of deep energies."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GradientEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "image_shape": ["array-like", None],
        "network": [callable, None],
        "log_factor": [callable, None],
        "layer_training": [StrOptions({"joint", "greedy"})],
        "sigma": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"}), None],
        "learn_sigma": ["boolean"],
        "objective": [StrOptions(set(OBJECTIVES)), Objective],
        "log_partition": [StrOptions({"auto", "ais"}), None],
    }
    _settle_chains = settling.settle_chains

    architecture_: dict[str, Any]
    weights_: dict[str, Any]

    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        spread = covariance(rows, means, owner=type(self).__name__)
        return self._fresh(spread, record_of(self, len(means)), {}, generator)

    def _fresh(
        self,
        spread: torch.Tensor,
        record: NetworkRecord,
        below: dict[str, Any],
        generator: torch.Generator,
    ) -> Any:
        """An energy of rows around zero with this covariance, on layers trained ``below``."""
        if not bool(torch.isfinite(spread.float()).all()):
            raise FloatingPointError(
                f"{type(self).__name__}: the variances of X overflow single precision. "
                "Scale X, for example with StandardScaler."
            )
        scale = math.sqrt(float(spread.diagonal().mean()))
        warn_of_unusual_scale(type(self).__name__, scale, self.learning_rate)
        energy = record.build(assembled, purpose_seed(generator.initial_seed(), "modules"))
        start_values(self, energy, spread, generator)
        adopt_layers(energy, below)
        with torch.no_grad():  # log Z of the start, by importance sampling
            draws = energy.reference.draw(1000, generator)
            log_weights = -energy.eval().free_energy(draws) - energy.reference.log_density(draws)
            energy.train().log_partition.fill_(
                float(torch.logsumexp(log_weights, 0)) - math.log(1000)
            )
        return energy

    def _energy(self, device: torch.device) -> Any:
        return fitted_record(self).restore(assembled, self.weights_, device)

    def _export(self, energy: Any) -> dict[str, Any]:
        weights = export_weights(energy, self)
        log_sigma = weights.get("log_sigma")
        learnt = energy.log_partition.requires_grad
        return {
            "architecture_": dict(energy.record.values),
            "weights_": weights,
            "sigma_": None if log_sigma is None else float(np.exp(np.float64(log_sigma))),
            "log_partition_": float(weights["log_partition"]) if learnt else None,
            "log_partition_interval_": None,
        }

    def _shaped_by(self, energy: Any) -> Objective:
        """The objective; parameters of the energy that it may update require gradients."""
        objective = resolve_objective(self.objective, OBJECTIVES, {})
        check_needs(objective, energy, OBJECTIVES.values())
        if energy.log_sigma is not None:
            energy.log_sigma.requires_grad_(self.learn_sigma)
        energy.log_partition.requires_grad_(objective.learns_log_partition)
        for layer in maps_of(energy.network)[:-1] if self.layer_training == "greedy" else ():
            layer.requires_grad_(False)
        return objective

    def _resumes(self) -> bool:
        return super()._resumes() and not self._grows()

    def _open(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Rows:
        rows = super()._open(X, probe, reset=reset, min_rows=min_rows)
        return likelihood.set_origin(self, rows, reset=reset)

    def _starting_energy(self, start: Start) -> Any:
        greedy = self.layer_training == "greedy"
        if start.n_calls and not start.resume and greedy:
            raise ValueError(
                'layer_training="greedy" trains the lower layers on all rows before the last: call '
                'fit first, or set layer_training="joint".'
            )
        kept = start.resume or super()._resumes()
        start.rows.origin = likelihood.training_origin(self, start, kept=kept)
        if start.resume or not greedy:
            return super()._starting_energy(start)
        return layer_by_layer(self, start)

    def _trained(self, course: Any, seed: int, seen: Any, n_calls: int = 0) -> dict[str, Any]:
        state = super()._trained(course, seed, seen, n_calls)
        kept = self._is_fitted() if n_calls else super()._resumes()
        state["offset_"] = getattr(self, "offset_", None) if kept else seen["feature_means_"]
        return state

    def _grows(self) -> bool:
        """Whether warm_start adds a layer on top of the fitted model."""
        fitted = fitted_record(self)
        if is_log_factor(fitted):
            return False
        layers = (*fitted["hidden_sizes"].tolist(), fitted["n_components"])
        return self.layer_training == "greedy" and layers == check_sizes(self.hidden_sizes)

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        fitted_record(self).check_resumable(record_of(self, rows.shape[1]), self)
        asked = self.sigma
        if self.learn_sigma or not isinstance(asked, Real) or self.sigma_ is None:
            return
        if not math.isclose(self.sigma_, float(asked), rel_tol=1e-4):
            raise ValueError(
                f"sigma={asked} differs from sigma={self.sigma_:.6g} of the fitted model that "
                f"training would continue from: set sigma={self.sigma_:.6g}, or fit with "
                "warm_start=False."
            )

    def _check_epoch(self, energy: Any) -> None:
        energy.eval()  # the check's rows, far away, are none to learn statistics from
        fall = fall_without_end(energy)
        energy.train()
        if fall is not None:
            remedy = "Bound the outputs of network, for example by a tanh, lower sigma or"
            if self.log_factor is not None:
                remedy = "Let log_factor fall far from the data, or lower sigma or"
            raise FloatingPointError(
                f"{type(self).__name__}: {fall}, so it is not a density. {remedy} learning_rate="
                f"{self.learning_rate}. The estimator was left unchanged."
            )

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        """Negative held-out objective, with the same random numbers every time."""
        x = batch.x
        energy.eval()
        objective = resolve_objective(self.objective, OBJECTIVES, {})
        if isinstance(objective, ContrastiveDivergence):
            # A difference of energies is no measure of quality; slopes and curvatures are.
            objective = SlicedScoreMatching()
        generator = make_generator(seed, "validation", device=x.device)
        total, floats = 0.0, _floats_of(energy.record)
        if isinstance(objective, ScoreMatching):
            floats *= x.shape[1]  # Jacobians
        for part in row_slices(len(x), floats):
            loss, _ = objective.loss(energy, Batch(x[part]), {}, generator)
            total += float(loss.detach()) * len(x[part])
        energy.train()
        return -total / len(x)

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        generator = make_generator(seed, "diagnosis", device=energy.log_partition.device)
        with torch.no_grad():
            features = energy.eval().features(energy.reference.draw(_N_PROBES, generator))
        if bool((features == features[0]).all()):
            warn_of_constant_network(type(self).__name__, features.shape[1])
        return likelihood.complete(self, energy, state, seed, learnt=state["log_partition_"])

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "architecture_": Record(),
            "weights_": Record(),
            "sigma_": Scalar(float, 0.0, optional=True),
            "offset_": Array("f", ("n_features_in_",), optional=True),
            **likelihood.STATE,
        }

    def _check_state(self) -> None:
        super()._check_state()
        if not self._is_fitted():
            return
        name, record = type(self).__name__, fitted_record(self)
        record.check_fitted(record_of(self, self.n_features_in_), name)
        record.check_weights(assembled, self.weights_, name)

    def _floats_per_row(self) -> int:
        return _floats_of(fitted_record(self))

    @property
    def _n_features_out(self) -> int:
        return int(self.architecture_["n_components"])

    def free_energy(self, X: Any) -> Any:
        """Return F(x) = -log p(x) - log Z.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._map_rows(X, lambda energy, x: energy.free_energy(x), "free_energy")

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean held-out log-likelihood, or minus the held-out objective.

        If log Z is known, this is the log-likelihood, at the pessimistic end of the interval of log
        Z if there is one, and is comparable between all models of the same X. Otherwise it is minus
        the objective (for "cd" and "pcd", minus sliced score matching) with the same random numbers
        in every call; it then is comparable between networks, learning rates and numbers of epochs,
        but not between objectives or their settings.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean log-likelihood in nats, or minus the mean objective. Higher is better.
        """
        check_is_fitted(self)
        if self.log_partition_ is None:
            return self._monitor_score(X)
        return likelihood.pessimistic_mean(self, X)

    def estimate_log_partition(
        self, *, n_chains: int = 100, n_temperatures: int = 200, random_state: RandomState = None
    ) -> Self:
        """Estimate log Z by annealed importance sampling from a Gaussian, forwards and backwards.

        Parameters
        ----------
        n_chains : int, default=100
            Number of annealed chains.
        n_temperatures : int, default=200
            Number of annealing steps, each a trajectory of Hamiltonian Monte Carlo. It is doubled,
            at most twice, while the two directions disagree or the interval is wider than 0.8 nats.
        random_state : int, RandomState instance or None, default=None
            Seed for the chains.

        Returns
        -------
        self : object
            The estimator with ``log_partition_`` and ``log_partition_interval_`` set.

        Warns
        -----
        UserWarning
            If the two directions still disagree after the last doubling. The interval covers both.
        """
        found = likelihood.estimate(self, "ais", n_chains, n_temperatures, 100, random_state)
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


def _floats_of(record: NetworkRecord) -> int:
    """Number of temporary values per row."""
    return 8 * int(record["n_features"]) if is_log_factor(record) else 4 * record.floats_per_row()
