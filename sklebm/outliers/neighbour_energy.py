r"""F(x) = d log r_k(x), r_k the distance to the k-th nearest training row: k nearest neighbours."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch

from sklebm._shell.private import Interval
from sklebm._shell.progress import Progress
from sklebm._shell.random import draw_seed
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import warn_of_unequal_scales
from sklebm._shell.state import Array, Scalar, Spec
from sklebm.base import EnergyEstimator
from sklebm.energies.neighbours import NeighbourDistance

_SAMPLE = 1000  # stored rows whose distances set the floor
_RELATIVE_FLOOR = 1e-3
_ABSOLUTE_FLOOR = 1e-12  # of the largest coordinate, where all rows are the same


class NeighbourEnergy(EnergyEstimator):
    r"""Energy of a row by its distance to the k-th nearest training row.

    .. math:: F(x) = d \log r_k(x), \qquad
              \log \hat p(x) = \log \frac{k}{n V_d} - d \log r_k(x),

    with the Euclidean distance :math:`r_k` to the k-th nearest of n stored rows with d features,
    and the volume :math:`V_d` of the unit ball: where rows are dense, the ball around x that holds
    k rows is small. ``score_samples`` is this estimate of the log density [1]_.

    The model makes no assumptions about the shape of the data, and its fitted state **stores
    training rows**: do not share it if the rows are confidential.

    Parameters
    ----------
    n_neighbors : int, default=5
        The number k of neighbours. A group of up to k outliers in the training rows does not make
        its own members typical.
    max_samples : int or None, default=None
        Maximum number of rows to store, drawn without replacement. None stores all.
    random_state : int, RandomState instance or None, default=None
        Seed for drawing the stored rows.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise the CPU.

    Attributes
    ----------
    samples_ : ndarray of shape (n_stored, n_features_in_)
        The stored rows.
    n_neighbors_ : int
        The number k used in ``fit``.
    floor_ : float
        Lower limit of distances, a thousandth of the median distance to the k-th other stored row,
        so that rows that occur more than k times have a finite energy.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    EnergyKMeans : The distance to the nearest of a few prototypes instead of many rows.
    EnergyOutlierDetector : Adds a threshold, or p-values, to this energy.
    sklearn.neighbors.LocalOutlierFactor : Compares the density with that of the neighbours.

    Notes
    -----
    A stored row is its own nearest neighbour, so ``score_samples`` of a training row considers k -
    1 others. The estimate is not a normalised density: it falls like a power of the distance, so
    its integral diverges. Distances weigh features by their units: scale X first; a warning is
    raised if the scales of two columns differ by more than 1e3.

    Cost: ``fit`` O(n d), and O(n d) per row of ``score_samples``, in blocks of matrix products.

    References
    ----------
    .. [1] D. O. Loftsgaarden and C. P. Quesenberry, "A nonparametric estimate of a multivariate
       density function", Annals of Mathematical Statistics 36, 1965.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import NeighbourEnergy
    >>> angles = np.random.default_rng(0).uniform(0, 2 * np.pi, size=500)
    >>> ring = np.column_stack([np.cos(angles), np.sin(angles)])
    >>> model = NeighbourEnergy().fit(ring)
    >>> on_the_ring, centre = model.score_samples([[0.0, 1.0], [0.0, 0.0]])
    >>> bool(on_the_ring > centre)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "device": EnergyEstimator._parameter_constraints["device"],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "max_samples": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
    }
    _computes_in_double = True

    samples_: Any
    n_neighbors_: int
    floor_: float

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        max_samples: int | None = None,
        random_state: Any = None,
        device: str | torch.device = "auto",
    ) -> None:
        self.n_neighbors = n_neighbors
        self.max_samples = max_samples
        self.random_state = random_state
        self.device = device

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        limit = len(rows) if self.max_samples is None else min(self.max_samples, len(rows))
        if limit < self.n_neighbors:
            raise ValueError(
                f"n_samples={limit} rows to store should be >= n_neighbors={self.n_neighbors}: "
                "lower n_neighbors, or pass more rows."
            )
        generator = np.random.default_rng(draw_seed(self.random_state))
        chosen: Any = slice(None)
        if limit < len(rows):
            chosen = np.sort(generator.choice(len(rows), limit, replace=False))
        stored = rows[chosen].double().contiguous()
        if len(stored) > 1:
            warn_of_unequal_scales(
                type(self).__name__, stored.std(dim=0), "standard deviation", rows.feature_names
            )
        return {
            "samples_": stored.cpu().numpy().copy(),
            "n_neighbors_": int(self.n_neighbors),
            "floor_": self._floor(stored),
        }

    def _floor(self, stored: torch.Tensor) -> float:
        """A thousandth of the median distance to the k-th other row, of evenly spaced rows."""
        step = max(1, len(stored) // _SAMPLE)
        others = min(self.n_neighbors + 1, len(stored))
        reach = NeighbourDistance(stored, others, 0.0).distances(stored[::step])[:, -1]
        typical = float(reach.median())
        if typical == 0:  # most rows occur more than k times
            typical = float(reach.mean())
        if typical > 0:
            return _RELATIVE_FLOOR * typical
        return _ABSOLUTE_FLOOR * max(float(stored.abs().max()), 1.0)

    def _state_spec(self) -> Spec:
        return {
            "samples_": Array("f", (None, "n_features_in_")),
            "n_neighbors_": Scalar(int, 1),
            "floor_": Scalar(float, 0.0),
        }

    def _energy(self, device: torch.device) -> NeighbourDistance:
        stored = torch.from_numpy(self.samples_).to(device)
        return NeighbourDistance(stored, self.n_neighbors_, self.floor_)

    def _floats_per_row(self) -> int:
        return 2 * len(self.samples_) + (2 * self.n_neighbors_ + 2) * int(self.n_features_in_)

    @property
    def _n_features_out(self) -> int:
        return self.n_neighbors_

    def transform(self, X: Any) -> Any:
        """Return the distances to the nearest stored rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        Z : array or tensor of shape (n_samples, n_neighbors)
            Distances, ascending, in units of X.
        """
        return self._map_rows(X, lambda energy, x: energy.distances(x), "transform")

    def free_energy(self, X: Any) -> Any:
        r"""Return :math:`F(x) = d \log r_k(x)`.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            In nats, up to a constant that depends on the units of X.
        """
        return self._map_rows(X, lambda energy, x: energy.free_energy(x), "free_energy")

    def score_samples(self, X: Any) -> Any:
        r"""Return :math:`\log k - \log n - \log V_d - F(x)`.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_density : array or tensor of shape (n_samples,)
            An estimate of the log density in nats, not normalised; higher is more typical.
        """

        def log_density(energy: NeighbourDistance, x: torch.Tensor) -> torch.Tensor:
            half = 0.5 * x.shape[1]
            ball = half * math.log(math.pi) - math.lgamma(half + 1)
            share = math.log(energy.n_neighbors / len(energy.rows))
            return share - ball - energy.free_energy(x)

        return self._map_rows(X, log_density, "score_samples")
