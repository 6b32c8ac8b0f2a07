"""What fitted prototypes can do: assignments, codes, free energies and the density they define."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from sklearn.utils.metaestimators import available_if

from sklebm._shell.ranks import Ranks
from sklebm._shell.state import Array, Scalar, Spec
from sklebm.base import EnergyEstimator
from sklebm.energies import PrototypeEnergy
from sklebm.inference.lloyd import Search

# The variance of a model that fits its rows exactly, as a fraction of the rows' mean variance.
_RELATIVE_FLOOR = 1e-6
_ABSOLUTE_FLOOR = 1e-12


def _decodes(estimator: Any) -> bool:
    if estimator.output in ("onehot", "responsibility"):
        return True
    raise AttributeError(
        f'inverse_transform needs codes that sum to one: output="onehot" or "responsibility", not '
        f'"{estimator.output}".'
    )


class PrototypeEstimator(EnergyEstimator):
    """Base of models with prototypes; a subclass says how they are fitted."""

    _computes_in_double = True

    n_clusters: int
    output: str
    cluster_centers_: Any
    beta_: float
    log_partition_: float

    def _check_row_count(self, n_rows: int) -> None:
        if n_rows < self.n_clusters:
            raise ValueError(
                f"n_samples={n_rows} should be >= n_clusters={self.n_clusters}: the first rows "
                "seed the prototypes. Lower n_clusters or pass more rows (of positive weight)."
            )

    def _density(self, variance: float, n_features: int, spread: float) -> dict[str, Any]:
        """The spherical mixture of this variance, unless it is degenerate."""
        variance = max(variance, _RELATIVE_FLOOR * spread, _ABSOLUTE_FLOOR)
        beta = 0.5 / variance
        log_z = math.log(self.n_clusters) + 0.5 * n_features * math.log(2 * math.pi * variance)
        return {"noise_variance_": variance, "beta_": beta, "log_partition_": log_z}

    def _state(
        self,
        search: Search,
        centers: torch.Tensor,
        weights: torch.Tensor,
        n_iter: int,
        ranks: Ranks,
    ) -> dict[str, Any]:
        """Every fitted attribute for the given centres; labels agree with ``predict``."""
        # Weights count as copies of a row; weights that only sum to one count as one copy each.
        n_rows, total = ranks.sum((weights > 0).sum()), ranks.sum(weights.sum())
        copies = weights * max(1.0, float(n_rows / total))
        fit = search.measure(centers, copies)
        expected, n_features = fit.leave_one_out, centers.shape[1]
        # A single row has nothing else to be compared with.
        variance = (
            expected / float(ranks.sum(copies.sum())) / n_features
            if math.isfinite(expected)
            else 0.0
        )
        return {
            "cluster_centers_": centers.cpu().numpy(),
            "labels_": fit.labels.to(torch.int32).cpu().numpy(),
            "cluster_counts_": fit.counts.cpu().numpy(),
            "inertia_": fit.inertia,
            "n_iter_": n_iter,
            **self._density(variance, n_features, search.mean_variance),
        }

    def _state_spec(self) -> Spec:
        return {
            "cluster_centers_": Array("f", (self.n_clusters, self.n_features_in_)),
            "labels_": Array("i", (None,)),
            "cluster_counts_": Array("f", (self.n_clusters,)),
            "n_iter_": Scalar(int, 1),
            "inertia_": Scalar(float, 0.0),
            "noise_variance_": Scalar(float, 0.0),
            "beta_": Scalar(float, 0.0),
            "log_partition_": Scalar(float),
        }

    def _energy(self, device: torch.device) -> PrototypeEnergy:
        return PrototypeEnergy(torch.from_numpy(self.cluster_centers_).to(device).double())

    def _floats_per_row(self) -> int:
        return 3 * int(self.n_features_in_) + 3 * len(self.cluster_centers_)

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def predict(self, X: Any) -> Any:
        """Return the index of the prototype of least energy.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to assign.

        Returns
        -------
        labels : array or tensor of shape (n_samples,)
            Index into ``cluster_centers_``.
        """
        return self._map_rows(X, lambda energy, x: energy.assign(x).to(torch.int32), "predict")

    def transform(self, X: Any) -> Any:
        """Return the latent code of each row, in the form that ``output`` chooses.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_clusters)
            Distances (Euclidean), one-hot codes, responsibilities, or triangle codes.
        """

        def encode(energy: PrototypeEnergy, x: torch.Tensor) -> torch.Tensor:
            if self.output == "onehot":
                codes = torch.nn.functional.one_hot(energy.assign(x), len(energy.centers))
                return codes.to(x.dtype)
            if self.output == "responsibility":
                return energy.responsibilities(x, self.beta_)
            distances = energy.squared_distances(x).sqrt_()
            if self.output == "distance":
                return distances
            return (distances.mean(dim=1, keepdim=True) - distances).clamp_(min=0.0)

        return self._map_rows(X, encode, "transform")

    @available_if(_decodes)
    def inverse_transform(self, Z: Any) -> Any:
        """Return the mixtures of prototypes Z W; needs ``output="onehot"`` or "responsibility".

        Parameters
        ----------
        Z : array-like or tensor of shape (n_samples, n_clusters)
            One-hot codes or responsibilities.

        Returns
        -------
        X : array or tensor of shape (n_samples, n_features)
            Reconstructed rows.
        """
        decode = lambda energy, z: z @ energy.centers  # noqa: E731
        return self._map_rows(Z, decode, "inverse_transform", latents=True)

    def free_energy(self, X: Any, beta: float | None = None) -> Any:
        r"""Return :math:`F_\beta(x)`, the energy with the latent summed out.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.
        beta : float or None, default=None
            Inverse temperature; ``math.inf`` gives the squared distance to the closest
            prototype; None uses the fitted ``beta_``.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In squared units of X.
        """
        if beta is not None and not (isinstance(beta, Real) and beta > 0):
            raise ValueError(f"beta={beta!r} must be positive; math.inf gives the hard minimum.")

        def free_energy(energy: PrototypeEnergy, x: torch.Tensor) -> torch.Tensor:
            return energy.free_energy(x, self.beta_ if beta is None else float(beta))

        return self._map_rows(X, free_energy, "free_energy")

    def score_samples(self, X: Any) -> Any:
        r"""Return :math:`\log p(x) = -\beta F_\beta(x) - \log Z` at the fitted temperature.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_density : array or tensor of shape (n_samples,)
            Log density in nats of the mixture of K equally weighted spherical Gaussians with
            variance ``noise_variance_``; exactly normalised. Higher is more typical.
        """

        def log_density(energy: PrototypeEnergy, x: torch.Tensor) -> torch.Tensor:
            return energy.free_energy(x, self.beta_).mul_(-self.beta_).sub_(self.log_partition_)

        return self._map_rows(X, log_density, "score_samples")
