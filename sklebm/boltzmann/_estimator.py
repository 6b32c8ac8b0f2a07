"""What restricted Boltzmann machines share: objectives, normaliser, sampling, value range."""

from __future__ import annotations

import math
import warnings
from inspect import signature
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._private import Interval, StrOptions
from sklebm._random import RandomState, draw_seed, make_generator
from sklebm._rows import Rows, resolve_device, row_slices
from sklebm._state import Array, Record, Scalar, Spec
from sklebm.boltzmann._partition import PartitionMethod, compute_partition, no_partition
from sklebm.energies import BilinearEnergy
from sklebm.inference import gibbs
from sklebm.objectives import (
    ContrastiveDivergence,
    MaximumLikelihood,
    Objective,
    PersistentContrastiveDivergence,
    check_needs,
    resolve_objective,
)
from sklebm.objectives.pseudo_likelihood import pseudo_log_likelihood
from sklebm.training.gradient_estimator import GradientEstimator

OBJECTIVES: dict[str, type[Objective]] = {
    "cd": ContrastiveDivergence,
    "pcd": PersistentContrastiveDivergence,
    "maximum_likelihood": MaximumLikelihood,
}


class BoltzmannEstimator(GradientEstimator):
    """Base of the restricted Boltzmann machines with Bernoulli units."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GradientEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "objective": [StrOptions(set(OBJECTIVES)), Objective],
        "n_gibbs_steps": [Interval(Integral, 1, None, closed="left")],
        "log_partition": [StrOptions({"auto", "exact", "ais"}), None],
        "value_range": [StrOptions({"warn", "raise", "clip"})],
    }
    _accepts_sparse = True

    # ------------------------------------------------------------------ input

    def _open(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Rows:
        rows = super()._open(X, probe, reset=reset, min_rows=min_rows)
        learning = reset or probe is not self
        if self.value_range == "clip":
            rows.limits = (0.0, 1.0)
        elif self.value_range == "raise" or learning:
            self._check_range(rows)
        return rows

    def _check_range(self, rows: Rows) -> None:
        parts = rows.chunks(rows.shape[1])
        low = min(float(rows[part].min()) for part in parts)
        high = max(float(rows[part].max()) for part in parts)
        if low >= 0.0 and high <= 1.0:
            return
        message = (
            f"X contains values outside [0, 1] (min={low:.4g}, max={high:.4g}): the units of "
            f"{type(self).__name__} are probabilities. Scale with MinMaxScaler, or set "
            'value_range="clip".'
        )
        if self.value_range == "raise":
            raise ValueError(message)
        warnings.warn(message + " They are used as they are.", UserWarning, stacklevel=6)

    # ------------------------------------------------------------------ training

    def _objective(self, energy: Any) -> Objective:
        default = signature(type(self)).parameters["n_gibbs_steps"].default
        options = {} if self.n_gibbs_steps == default else {"n_gibbs_steps": self.n_gibbs_steps}
        objective = resolve_objective(self.objective, OBJECTIVES, options)
        check_needs(objective, energy, [choice() for choice in OBJECTIVES.values()])
        return objective

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        fitted = self.components_.shape[0]
        if fitted != self.n_components:
            raise ValueError(
                f"n_components={self.n_components} differs from the {fitted} fitted components "
                "that training would continue from: set it back, or fit with warm_start=False."
            )

    def _validation_score(self, energy: Any, x: torch.Tensor, seed: int) -> float:
        # The same bits in every epoch: what moves the score is the model alone.
        generator = make_generator(seed, "pseudo-likelihood")
        return float(pseudo_log_likelihood(energy, x, generator).double().mean())

    def _state_spec(self) -> Spec:
        n_hidden, n_visible = self.n_components, self.n_features_in_
        return {
            "components_": Array("f", (n_hidden, n_visible)),
            "intercept_hidden_": Array("f", (n_hidden,)),
            "intercept_visible_": Array("f", (n_visible,)),
            "feature_means_": Array("f", (n_visible,)),
            "loss_curve_": Array("f", (None,)),
            "validation_scores_": Array("f", (None,)),
            "n_iter_": Scalar(int, 1),
            "n_samples_seen_": Scalar(int, 1),
            "log_partition_": Scalar(float, optional=True),
            "log_partition_interval_": Array("f", (2,), optional=True),
            "training_state_": Record(),
        }

    # ------------------------------------------------------------------ normaliser

    def _complete(self, energy: Any, state: dict[str, Any], seed: int) -> dict[str, Any]:
        if self.log_partition is None:
            return {**state, **no_partition()}
        mean = state["feature_means_"]
        return {**state, **compute_partition(energy, mean, self.log_partition, seed, {})}

    def estimate_log_partition(
        self,
        method: PartitionMethod = "auto",
        *,
        n_chains: int = 100,
        n_temperatures: int = 1000,
        random_state: RandomState = None,
    ) -> Self:
        """Compute log Z, which turns ``score_samples`` into a log-likelihood.

        Parameters
        ----------
        method : {"auto", "exact", "ais"}, default="auto"
            "exact" sums over all states of the smaller layer (at most 25 units); "ais" is
            annealed importance sampling; "auto" is exact up to 20 units and "ais" beyond.
        n_chains : int, default=100
            Number of annealed chains.
        n_temperatures : int, default=1000
            Number of annealing steps.
        random_state : int, RandomState instance or None, default=None
            Seed of the annealed chains.

        Returns
        -------
        self : object
            The estimator with ``log_partition_`` and ``log_partition_interval_`` set.
        """
        check_is_fitted(self)
        if method not in ("auto", "exact", "ais"):
            raise ValueError(f'method={method!r} must be one of "auto", "exact" and "ais".')
        options = {"n_chains": n_chains, "n_temperatures": n_temperatures}
        for name, value in options.items():
            if not isinstance(value, Integral) or value < 2:
                raise ValueError(f"{name}={value!r} must be an integer of at least 2.")
        energy = self._energy(resolve_device(self.device, None, self._prefers_cuda))
        seed = draw_seed(random_state)
        self.__dict__.update(compute_partition(energy, self.feature_means_, method, seed, options))
        return self

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean held-out log-likelihood, at the pessimistic end of the interval of log Z.

        Comparable between machines of any size and training on the same binary X. Annealed
        importance sampling flatters machines that mix badly; the upper end of
        ``log_partition_interval_`` keeps a search from choosing them for it.

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

    # ------------------------------------------------------------------ row-wise methods

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

    def inverse_transform(self, Z: Any) -> Any:
        """Return the mean of the visible units given hidden units.

        Parameters
        ----------
        Z : array-like or tensor of shape (n_samples, n_components)
            Hidden states or probabilities.

        Returns
        -------
        X : array or tensor of shape (n_samples, n_features)
            p(x_i = 1 | h).
        """

        def decode(energy: BilinearEnergy, h: torch.Tensor) -> torch.Tensor:
            return energy.visible.mean(energy.visible_field(h))

        return self._map_rows(Z, decode, "inverse_transform", latents=True)

    def free_energy(self, X: Any, beta: float = 1.0) -> Any:
        r"""Return :math:`F_\beta(x) = -\frac1\beta \log \sum_h e^{-\beta E(x, h)}`.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to measure.
        beta : float, default=1.0
            Inverse temperature of the hidden units; the model itself is at 1.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats; at ``beta=1`` it is ``-log p(x) - log Z``.
        """
        if not (isinstance(beta, Real) and 0.0 < beta < math.inf):
            raise ValueError(f"beta={beta!r} must be a positive number.")
        return self._map_rows(X, lambda energy, x: energy.free_energy(x, beta), "free_energy")

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
        check_is_fitted(self)
        latents = self._open_latents(Z)
        energies = self._energy(latents.device).to(latents.dtype)
        x = self._open(X, self, reset=False)
        if len(x) != len(latents):
            raise ValueError(f"X has {len(x)} rows and Z has {len(latents)}: pass one z per x.")
        with torch.no_grad():
            values = energies.energy(x.all().to(latents.dtype), latents.all())
        return values if isinstance(X, torch.Tensor) else values.cpu().numpy()

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

    # ------------------------------------------------------------------ sampling

    def gibbs(self, X: Any, n_steps: int = 1, *, random_state: RandomState = None) -> Any:
        """Move rows by block Gibbs steps, which leave the model's distribution invariant.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Visible states to start from.
        n_steps : int, default=1
            Number of steps, each a draw of all hidden and then all visible units.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        V : array or tensor of shape (n_samples, n_features)
            Visible states, 0 or 1.
        """
        _check_count("n_steps", n_steps)
        check_is_fitted(self)
        seed = draw_seed(random_state)
        generators: dict[torch.device, torch.Generator] = {}

        def move(energy: BilinearEnergy, v: torch.Tensor) -> torch.Tensor:
            if v.device not in generators:
                generators[v.device] = make_generator(seed, "gibbs", device=v.device)
            generator = generators[v.device]
            state = gibbs.init(generator, v, energy)
            for _ in range(n_steps - 1):
                state = gibbs.step(generator, state, energy)
            return energy.draw_visible(state.hidden, generator)

        return self._map_rows(X, move, "gibbs")

    def sample(
        self,
        n_samples: int = 1,
        *,
        n_steps: int = 1000,
        random_state: RandomState = None,
    ) -> Any:
        """Draw rows from the model, by a block Gibbs chain for each.

        The chains start from the units' base rate. Draws are exact only in the limit of many
        steps; a machine with separated modes can need very many.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        n_steps : int, default=1000
            Gibbs steps of every chain.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Visible states, 0 or 1, float32.
        """
        _check_count("n_samples", n_samples)
        _check_count("n_steps", n_steps)
        check_is_fitted(self)
        seed = draw_seed(random_state)
        device = resolve_device(self.device, None, self._prefers_cuda)
        generator = make_generator(seed, "sampling", device=device)
        energy = self._energy(device)
        mean = torch.from_numpy(self.feature_means_.clip(0.0, 1.0)).to(device, torch.float32)
        out = np.empty((n_samples, len(mean)), dtype=np.float32)
        with torch.no_grad():
            for part in row_slices(n_samples, self._floats_per_row()):
                start = mean.expand(len(out[part]), -1).contiguous()
                v = energy.visible.draw(start, generator)
                for _ in range(n_steps):
                    v = energy.draw_visible(energy.draw_hidden(v, generator), generator)
                out[part] = v.cpu().numpy()
        return out


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer.")
