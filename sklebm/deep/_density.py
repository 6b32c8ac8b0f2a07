"""What a deep energy model says of rows: scores and log Z, samples, modes."""

from __future__ import annotations

import copy
import warnings
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import resolve_device, row_slices
from sklebm.deep._estimator import DeepEnergyEstimator
from sklebm.inference import annealing
from sklebm.inference.chains import run
from sklebm.inference.hamiltonian import HMC
from sklebm.inference.modes import descend
from sklebm.training.diagnosis import warn_of_collapsed_chains, warn_of_constant_network

_ADAPTATION = 0.1
# Rows near the data at which a network is looked at.
_N_PROBES = 256
# Proposals that are all refused only if something is wrong.
_ENOUGH_PROPOSALS = 30


class DeepDensity(DeepEnergyEstimator):
    """Row-wise methods, the normaliser, samples and modes."""

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        self._look_at_fit(energy, state, seed)
        wanted = self.log_partition == "ais" or (
            self.log_partition == "auto" and state["log_partition_"] is None
        )
        if self.log_partition is None:
            return {**state, "log_partition_": None}
        return {**state, **_anneal(energy, seed, {})} if wanted else state

    def _look_at_fit(self, energy: Any, state: dict[str, Any], seed: int) -> None:
        """Warn of a network without influence, and of chains that sit together."""
        name = type(self).__name__
        generator = make_generator(seed, "diagnosis", device=energy.visible_bias.device)
        with torch.no_grad():
            fields = energy.eval().network(energy.reference.draw(_N_PROBES, generator))
        if bool((fields == fields[0]).all()):
            warn_of_constant_network(name, fields.shape[1])
        chains = state["training_state_"].get("objective.position")
        if chains is not None:
            data_variance = float(energy.reference.factor.square().sum())
            warn_of_collapsed_chains(
                name, float(chains.var(axis=0).sum()), data_variance, len(chains)
            )

    def transform(self, X: Any) -> Any:
        """Return the probability that each hidden unit is on.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_components)
            p(z_k = 1 | x).
        """
        return self._map_rows(X, lambda energy, x: energy.hidden_mean(x), "transform")

    def free_energy(self, X: Any) -> Any:
        """Return F(x) = -log p(x) - log Z.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._map_rows(X, lambda energy, x: energy.free_energy(x), "free_energy")

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) of each row with a state of the hidden units.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_components)
            Hidden states, one for each row.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._pair_energies(X, Z)

    def score_samples(self, X: Any) -> Any:
        """Return log p(x) where log Z is known, else the unnormalised -F(x).

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            ``-F(x) - log_partition_`` in nats, or ``-F(x)`` if ``log_partition_`` is None. Higher
            is more typical. Deterministic. log Z is learnt, and has no error bar, after
            noise-contrastive estimation; annealed, with ``log_partition_interval_``, otherwise.
        """
        check_is_fitted(self)
        log_z = self.log_partition_ or 0.0
        return self._map_rows(X, lambda energy, x: -energy.free_energy(x) - log_z, "score_samples")

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean held-out log-likelihood, or minus the held-out objective.

        With a known log Z it is the log-likelihood, at the pessimistic end of the interval of log Z
        where there is one, and compares all models of the same X. Without, it is minus the
        objective (for "cd" and "pcd" minus sliced score matching) on random numbers that are the
        same in every call: it then compares networks, rates and epochs, but neither objectives nor
        their settings.

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
        mean = float(self.score_samples(X).mean())
        interval = self.log_partition_interval_
        return mean if interval is None else mean + self.log_partition_ - float(interval[1])

    def estimate_log_partition(
        self, *, n_chains: int = 100, n_temperatures: int = 200, random_state: RandomState = None
    ) -> Self:
        """Estimate log Z by annealed importance sampling from a Gaussian, there and back.

        Parameters
        ----------
        n_chains : int, default=100
            Number of annealed chains.
        n_temperatures : int, default=200
            Number of annealing steps, each a trajectory of Hamiltonian Monte Carlo.
        random_state : int, RandomState instance or None, default=None
            Seed of the chains.

        Returns
        -------
        self : object
            The estimator with ``log_partition_`` and ``log_partition_interval_`` set.
        """
        check_is_fitted(self)
        options = {"n_chains": n_chains, "n_temperatures": n_temperatures}
        for name, value in options.items():
            if not isinstance(value, Integral) or value < 2:
                raise ValueError(f"{name}={value!r} must be an integer of at least 2.")
        energy = self._energy(resolve_device(self.device, None, self._prefers_cuda))
        self.__dict__.update(_anneal(energy, draw_seed(random_state), options))
        return self

    def sample(
        self, n_samples: int = 1, *, n_steps: int = 200, random_state: RandomState = None
    ) -> Any:
        """Draw rows from the model, by a chain of Hamiltonian Monte Carlo for each.

        The chains start at a Gaussian with mean and covariance of the training rows; the step size
        is adapted in the first half of the steps. Draws are exact in the limit of many steps, and
        a chain can stay in one of several separated modes for very long.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        n_steps : int, default=200
            Trajectories of every chain, of ten leapfrog steps.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows, float32.
        """
        _check_count("n_samples", n_samples)
        _check_count("n_steps", n_steps)
        check_is_fitted(self)
        seed = draw_seed(random_state)
        device = resolve_device(self.device, None, self._prefers_cuda)
        generator = make_generator(seed, "sampling", device=device)
        energy = self._energy(device).float()
        out = np.empty((n_samples, self.n_features_in_), dtype=np.float32)
        sampler, warm_up = HMC(), n_steps // 2
        log_step = (sampler.step_size * energy.reference.scale()).log()
        moved = 0
        for part in row_slices(n_samples, 4 * self._floats_per_row()):
            start = energy.reference.draw(len(out[part]), generator)
            chains = sampler.resume(start, log_step, energy)
            chains = run(sampler, generator, chains, energy, warm_up, _ADAPTATION)
            before = chains.position
            chains = run(sampler, generator, chains, energy, n_steps - warm_up)
            moved += int((chains.position != before).any(dim=1).sum())
            out[part] = chains.position.cpu().numpy()
        if not moved and n_samples * (n_steps - warm_up) >= _ENOUGH_PROPOSALS:
            warnings.warn(
                f"{type(self).__name__}.sample: no proposal of {n_samples} chain(s) was accepted "
                f"in {n_steps - warm_up} steps, so that the rows are where the chains were "
                f"before and no draws of the model. Raise n_steps={n_steps}, which adapts the "
                "step size for longer; if that does not help, the energy is too steep: fit with "
                "a lower learning_rate, or scale X.",
                UserWarning,
                stacklevel=2,
            )
        return out

    def modes(self, X: Any, *, max_iter: int = 1000, tol: float = 1e-3) -> Any:
        """Climb log p from each row to where it comes to rest.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to start from: data, samples, or noise.
        max_iter : int, default=1000
            Steps of gradient descent on F, with a step size for each row.
        tol : float, default=1e-3
            A row rests when the norm of the gradient of F times the root mean variance of the
            features is at most this.

        Returns
        -------
        X_modes : array or tensor of shape (n_samples, n_features)
            Points of (locally) highest density, one for each row; equal modes are not merged.
        """
        _check_count("max_iter", max_iter)
        if not (isinstance(tol, Real) and tol >= 0.0):
            raise ValueError(f"tol={tol!r} must be a number of at least 0.")

        def climb(energy: Any, x: torch.Tensor) -> torch.Tensor:
            scale = float(energy.reference.scale())
            return descend(energy, x, step_size=0.01 * scale**2, max_iter=max_iter, tol=tol / scale)

        return self._map_rows(X, climb, "modes")


def _anneal(energy: Any, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """log Z and its interval, in float64, as fitted attributes."""
    double = copy.deepcopy(energy).double().eval()
    generator = make_generator(seed, "annealing", device=double.visible_bias.device)
    estimate = annealing.log_partition(double, double.reference, generator, **options)
    interval = np.array([estimate.low, estimate.high])
    return {"log_partition_": estimate.value, "log_partition_interval_": interval}


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer.")
