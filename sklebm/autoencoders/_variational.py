"""The methods of variational auto-encoders: bounds, likelihoods, samples, traversals."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows, resolve_device, row_slices
from sklebm._shell.value_range import apply_value_range
from sklebm.autoencoders._categories import block_sizes, check_one_hot
from sklebm.autoencoders._estimator import AutoencoderEstimator, count, sigmoid_bias
from sklebm.energies.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    Likelihood,
)
from sklebm.energies.posteriors import DiagonalGaussian, FullGaussian
from sklebm.energies.variational import (
    BernoulliLatentEnergy,
    GaussianLatentEnergy,
    LatentVariableEnergy,
)
from sklebm.gradient import Start
from sklebm.inference.quasi_monte_carlo import uniform_points
from sklebm.objectives import Batch, Objective, check_needs, resolve_objective
from sklebm.objectives.discrete_evidence import (
    MAX_LATENTS,
    DiscreteEvidenceLowerBound,
    DiscreteGradient,
)
from sklebm.objectives.evidence import (
    DoublyReparametrizedBound,
    EvidenceLowerBound,
    ImportanceWeightedBound,
)

_CONTINUOUS: dict[str, type[Objective]] = {
    "elbo": EvidenceLowerBound,
    "iwae": ImportanceWeightedBound,
    "dreg": DoublyReparametrizedBound,
}
_DISCRETE: dict[str, type[Objective]] = {"elbo": DiscreteEvidenceLowerBound}
_ALL = (*_CONTINUOUS.values(), *_DISCRETE.values())
_FAMILIES: dict[str, type[DiagonalGaussian] | type[FullGaussian]] = {
    "diagonal": DiagonalGaussian,
    "full": FullGaussian,
}
#: Parameters that belong to an objective given by name.
_FLAT = {
    "n_samples": None,
    "beta": 1.0,
    "beta_warmup": 0,
    "free_bits": 0.0,
    "binarize": False,
    "discrete_gradient": "auto",
}
# Numbers of one block of decoded samples: it stays in the caches.
_BLOCK = 2**19


class VariationalAutoencoder(AutoencoderEstimator):
    """Base of auto-encoders with a prior, a likelihood and an approximate posterior."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **AutoencoderEstimator._parameter_constraints,
        "likelihood": [StrOptions({"bernoulli", "categorical", "gaussian"})],
        "n_categories": [Interval(Integral, 1, None, closed="left"), "array-like", None],
        "noise_scale": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"shared", "learned"}),
        ],
        "posterior": [StrOptions({"diagonal", "full", "bernoulli"})],
        "objective": [StrOptions(set(_CONTINUOUS)), Objective],
        "n_samples": [Interval(Integral, 1, None, closed="left"), None],
        "beta": [Interval(Real, 0, None, closed="neither")],
        "beta_warmup": [Interval(Integral, 0, None, closed="left")],
        "free_bits": [Interval(Real, 0, None, closed="left")],
        "binarize": ["boolean"],
        "discrete_gradient": [StrOptions(set(get_args(DiscreteGradient)))],
        "n_importance_samples": [Interval(Integral, 1, None, closed="left")],
        "value_range": [StrOptions({"warn", "raise", "clip"})],
    }
    # Burda et al.: a latent is active if the variance of its posterior mean exceeds 0.01.
    _least_variance = 0.01

    # ------------------------------------------------------------------ input and networks

    def _open(self, X: Any, probe: Any, *, reset: bool, min_rows: int = 1) -> Rows:
        rows = super()._open(X, probe, reset=reset, min_rows=min_rows)
        owner = f'{type(self).__name__} with likelihood="{self.likelihood}"'
        if self.likelihood == "bernoulli":
            learning = reset or probe is not self
            apply_value_range(rows, self.value_range, owner=owner, learning=learning)
        elif self.likelihood == "categorical":
            check_one_hot(rows, block_sizes(self.n_categories, rows.shape[1]), owner)
        return rows

    def _noise(self) -> str:
        return self.noise_scale if isinstance(self.noise_scale, str) else "fixed"

    def _architecture(self, n_features: int) -> dict[str, Any]:
        gaussian, categorical = (self.likelihood == n for n in ("gaussian", "categorical"))
        if not gaussian and self.noise_scale != "shared":
            raise ValueError(
                f"noise_scale={self.noise_scale!r} is the scale of Gaussian noise and has no "
                f'meaning for likelihood="{self.likelihood}": leave it out.'
            )
        if self.n_categories is not None and not categorical:
            raise ValueError(
                "n_categories counts one-hot columns and has no meaning for "
                f'likelihood="{self.likelihood}": leave it out, or choose "categorical".'
            )
        if self.binarize and self.likelihood != "bernoulli":
            raise ValueError('binarize=True draws binary rows, which needs likelihood="bernoulli".')
        sizes = block_sizes(self.n_categories, n_features) if categorical else []
        return {
            **super()._architecture(n_features),
            "likelihood": str(self.likelihood),
            "noise": self._noise() if gaussian else "none",
            "n_categories": np.array(sizes, dtype=np.int64),
            "posterior": str(self.posterior),
        }

    def _n_encoder_outputs(self) -> int:
        family = _FAMILIES.get(self.posterior)
        return family.n_outputs(self.n_components) if family else int(self.n_components)

    def _n_per_feature(self) -> int:
        return 2 if self.likelihood == "gaussian" and self.noise_scale == "learned" else 1

    def _assemble(self, architecture: dict[str, Any]) -> LatentVariableEnergy:
        likelihood: Likelihood = BernoulliLikelihood()
        if architecture["likelihood"] == "gaussian":
            likelihood = GaussianLikelihood(architecture["noise"])
        elif architecture["likelihood"] == "categorical":
            likelihood = CategoricalLikelihood(architecture["n_categories"].tolist())
        n_components = architecture["n_components"]
        family = _FAMILIES.get(architecture["posterior"])
        n_outputs = family.n_outputs(n_components) if family else n_components
        encoder = self._make_encoder(architecture, n_outputs, "identity")
        decoder = self._make_decoder(
            architecture, "identity", n_per_feature=likelihood.n_per_feature
        )
        if family is None:
            return BernoulliLatentEnergy(encoder, decoder, likelihood, n_components)
        return GaussianLatentEnergy(encoder, decoder, likelihood, n_components, family)

    def _prepare_encoder(self, energy: Any) -> None:
        """Posteriors begin close to the covariance of the prior, whatever the scale of the rows."""
        if self.posterior != "bernoulli":
            with torch.no_grad():
                energy.encoder[-1].weight[self.n_components :] *= 0.1

    def _output_bias(self, mean: torch.Tensor) -> torch.Tensor:
        if self.likelihood == "categorical":
            return mean.double().clamp(min=1e-3).log().float()
        return sigmoid_bias(mean) if self.likelihood == "bernoulli" else mean

    def _starting_energy(self, start: Start) -> Any:
        energy = super()._starting_energy(start)
        if self.likelihood == "gaussian" and not start.resume:
            likelihood: Any = energy.likelihood
            fixed = self._noise() == "fixed"
            likelihood.start_at(self.noise_scale if fixed else _deviation(start.rows, start.means))
        return energy

    def _objective(self, energy: Any) -> Objective:
        options = {
            name: getattr(self, name) for name in _FLAT if getattr(self, name) != _FLAT[name]
        }
        choices = _DISCRETE if self.posterior == "bernoulli" else _CONTINUOUS
        if isinstance(self.objective, str) and self.objective not in choices:
            raise ValueError(
                f'objective={self.objective!r} needs a Gaussian posterior: posterior="bernoulli" '
                f"is trained by {', '.join(map(repr, choices))}."
            )
        objective = resolve_objective(self.objective, choices, options)
        check_needs(objective, energy, [choice() for choice in _ALL])
        return objective

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        x = batch.x
        energy.eval()
        noise = common_noise(energy, 8, x)
        parts = row_slices(len(x), 8 * self._floats_of(energy.architecture))
        total = sum(float(energy.lower_bound(x[part], noise).double().sum()) for part in parts)
        return total / len(x)

    def _collapse_message(self, n_latents: int) -> str:
        return (
            f"The posterior of {type(self).__name__} has collapsed: none of its {n_latents} "
            f"latents says anything about a row (the variances of their means are below "
            f"{self._least_variance}). Lower beta, set beta_warmup or free_bits, raise max_epochs, "
            "or check that the rows differ."
        )

    # ------------------------------------------------------------------ bounds and densities

    def _block(self, x: torch.Tensor) -> int:
        """Samples that are decoded at a time for the rows ``x``."""
        return int(max(1, _BLOCK // (len(x) * self._floats_per_row())))

    def _log_marginal(self, energy: Any, x: torch.Tensor) -> torch.Tensor:
        binary = isinstance(energy, BernoulliLatentEnergy)
        if binary and energy.n_components <= MAX_LATENTS:
            scores: torch.Tensor = energy.exact_log_marginal(x, self._block(x))
        else:
            noise = common_noise(energy, self.n_importance_samples, x)
            scores = energy.log_marginal(x, noise, self._block(x))
        return scores

    def score_samples(self, X: Any) -> Any:
        """Return log p(x) of each row, importance-weighted with the encoder's proposals.

        All rows share one fixed set of ``n_importance_samples`` draws (scrambled Sobol points),
        so that equal rows have equal scores, in any order. The estimate is a lower bound of
        log p(x) on average, and rises with the number of draws. With at most 12 Bernoulli
        latents it is exact.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            In nats; higher is more typical. Deterministic.
        """
        return self._map_rows(X, self._log_marginal, "score_samples")

    def free_energy(self, X: Any) -> Any:
        """Return F(x) = -log p(x), estimated as by ``score_samples``.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.

        Returns
        -------
        free_energy : array or tensor of shape (n_samples,)
            ``-score_samples(X)``, in nats.
        """
        return self._map_rows(X, lambda energy, x: -self._log_marginal(energy, x), "free_energy")

    def lower_bound(self, X: Any) -> Any:
        """Return the evidence lower bound E_q log p(x|z) - KL(q(z|x) || p(z)) of each row.

        Its distance from ``score_samples`` is what the approximate posterior costs.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to measure.

        Returns
        -------
        bound : array or tensor of shape (n_samples,)
            In nats, averaged over ``n_importance_samples`` draws; the divergence is exact.
        """

        def bound(energy: Any, x: torch.Tensor) -> torch.Tensor:
            noise = common_noise(energy, self.n_importance_samples, x)
            parts = torch.split(noise, self._block(x))
            total = sum(len(part) * energy.lower_bound(x, part) for part in parts)
            return torch.as_tensor(total / self.n_importance_samples)

        return self._map_rows(X, bound, "lower_bound")

    def energy(self, X: Any, Z: Any) -> Any:
        """Return E(x, z) = -log p(x | z) - log p(z) of each row with a latent of its own.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows.
        Z : array-like or tensor of shape (n_samples, n_components)
            A latent for each row.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            In nats.
        """
        return self._pair_energies(X, Z)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean held-out log p(x), importance-weighted.

        Comparable over all parameters but ``likelihood`` and ``n_importance_samples``, for the
        same X: ``n_components``, networks, posteriors and objectives all compete for nats.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Held-out rows.
        y : Ignored
            Present for compatibility with scikit-learn pipelines.

        Returns
        -------
        score : float
            Mean of ``score_samples(X)`` in nats.
        """
        return super().score(X)

    # ------------------------------------------------------------------ draws

    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> Any:
        """Draw rows from the model: z from the prior, x from p(x | z).

        ``inverse_transform`` of such latents gives means without the noise of p(x | z).

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Rows, float32; 0 and 1 under a Bernoulli or categorical likelihood.
        """
        n_samples = count("n_samples", n_samples)
        check_is_fitted(self)
        device = resolve_device(self.device, None, self._prefers_cuda)
        generator = make_generator(draw_seed(random_state), "sampling", device=device)
        energy = self._energy(device).float()
        out = np.empty((n_samples, self.n_features_in_), dtype=np.float32)
        with torch.no_grad():
            for part in row_slices(n_samples, self._floats_per_row()):
                z = energy.draw_prior(len(out[part]), generator, torch.zeros(1, device=device))
                out[part] = energy.likelihood.draw(energy.decoder(z), generator).cpu().numpy()
        return out

    def traverse(self, X: Any, *, components: Any = None, values: Any = None) -> Any:
        """Return what each row becomes as one latent at a time takes given values.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to start from; their other latents stay at the posterior mean.
        components : array-like of int or None, default=None
            Latents to move; None moves all.
        values : array-like of float or None, default=None
            Values to take; None takes 7 from -3 to 3, or 0 and 1 if latents are binary.

        Returns
        -------
        X_traversed : ndarray of shape (n_samples, n_chosen, n_values, n_features)
            Means of p(x | z).
        """
        Z = np.asarray(torch.as_tensor(self.transform(X)).cpu())
        binary = self.architecture_["posterior"] == "bernoulli"
        default = np.array([0.0, 1.0]) if binary else np.linspace(-3.0, 3.0, 7)
        steps = default if values is None else np.asarray(values, dtype=Z.dtype)
        chosen = np.arange(Z.shape[1]) if components is None else np.asarray(components)
        if steps.ndim != 1 or not steps.size or not np.isfinite(steps).all():
            raise ValueError(f"values={values!r} must be a list of finite numbers.")
        if chosen.ndim != 1 or not np.isin(chosen, np.arange(Z.shape[1])).all():
            raise ValueError(
                f"components={components!r} must be a list of latents from 0 to {Z.shape[1] - 1}."
            )
        moved = np.repeat(Z[:, None], len(chosen) * len(steps), axis=1)
        moved = moved.reshape(len(Z), len(chosen), len(steps), -1)
        for index, component in enumerate(chosen):
            moved[:, index, :, component] = steps
        decoded = self.inverse_transform(moved.reshape(-1, Z.shape[1]))
        return decoded.reshape(*moved.shape[:3], -1)


def common_noise(energy: LatentVariableEnergy, n_samples: int, like: torch.Tensor) -> torch.Tensor:
    """The draws that every row of every call is scored with, (n_samples, n_components)."""
    uniform = uniform_points(n_samples, energy.n_components)
    return energy.shape_noise(uniform).to(like.device, like.dtype)


def _deviation(rows: Rows, means: torch.Tensor) -> float:
    """Root mean square of the distances from the mean, per feature; 1 if there are none."""
    parts = rows.chunks(2 * rows.shape[1])
    total = sum(float((rows[part].double().cpu() - means).square().sum()) for part in parts)
    deviation = math.sqrt(rows.ranks.total(total) / (rows.total() * rows.shape[1]))
    return deviation if 0.0 < deviation < math.inf else 1.0
