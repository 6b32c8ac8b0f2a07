r"""F(x) = sum_i |x_i - m_i| / b_i, log Z = sum_i log 2 b_i: features with heavy tails."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn

from sklebm._shell.state import Array
from sklebm.base import EnergyEstimator


class AbsoluteDeviation(nn.Module):
    """The energy: what is low? It knows torch, and no scikit-learn."""

    def __init__(self, location: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("location", location)
        self.register_buffer("scale", scale)

    def deviations(self, x: Tensor) -> Tensor:
        """Signed distance of each feature from its median, in units of its scale."""
        return (x - self.location) / self.scale

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x) of shape (n_rows,)."""
        return self.deviations(x).abs().sum(dim=1)

    def log_density(self, x: Tensor) -> Tensor:
        """-F(x) - log Z of shape (n_rows,)."""
        return -self.free_energy(x) - (2 * self.scale).log().sum()


class LaplaceEnergy(EnergyEstimator):
    """Independent Laplace features, by maximum likelihood in closed form.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).laplace([0.0, 5.0], [1.0, 3.0], (5000, 2))
    >>> model = LaplaceEnergy().fit(X)
    >>> model.location_.round(1), model.scale_.round(1)
    (array([0., 5.]), array([1., 3.]))
    >>> float(round(model.score(X), 1))  # nats: -2 - log(2 * 1) - log(2 * 3)
    -4.5
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyEstimator._parameter_constraints,
        "min_scale": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, *, min_scale: float = 1e-6, device: str | torch.device = "auto") -> None:
        self.min_scale = min_scale
        self.device = device

    def _fit(self, rows: Any, progress: Any, **data: Any) -> dict[str, Any]:
        x = rows.all()
        location = x.median(dim=0).values
        scale = (x - location).abs().mean(dim=0).clamp(min=self.min_scale)
        return {"location_": location.cpu().numpy(), "scale_": scale.cpu().numpy()}

    def _state_spec(self) -> dict[str, Any]:
        return {
            "location_": Array("f", ("n_features_in_",), of="location"),
            "scale_": Array("f", ("n_features_in_",), of="scale"),
        }

    def _rebuild(self, parameters: dict[str, Tensor]) -> AbsoluteDeviation:
        return AbsoluteDeviation(parameters["location_"], parameters["scale_"])

    @property
    def _n_features_out(self) -> int:
        return int(self.n_features_in_)

    def transform(self, X: Any) -> Any:
        """Return each feature's signed deviation."""
        return self._map_rows(X, AbsoluteDeviation.deviations, "transform")

    def free_energy(self, X: Any) -> Any:
        """Return F(x) of each row."""
        return self._map_rows(X, AbsoluteDeviation.free_energy, "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return the log density of each row, in nats."""
        return self._map_rows(X, AbsoluteDeviation.log_density, "score_samples")
