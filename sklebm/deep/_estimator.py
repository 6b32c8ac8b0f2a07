"""What a deep energy model is made of: its network, its fitted state, its objectives."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.random import make_generator, purpose_seed
from sklebm._shell.rows import Rows, row_slices
from sklebm._shell.state import Array, Record, Scalar, Spec
from sklebm.energies.deep import DeepEnergy
from sklebm.energies.networks import make_encoder, n_activations
from sklebm.energies.reference import ReferenceGaussian
from sklebm.gradient import GradientEstimator, Start
from sklebm.objectives import (
    Batch,
    ConditionalNoiseContrastive,
    DenoisingScoreMatching,
    Objective,
    ReferenceNoiseContrastive,
    SampledContrastiveDivergence,
    SampledPersistentContrastiveDivergence,
    ScoreMatching,
    SlicedScoreMatching,
    VariationalReferenceNoiseContrastive,
    check_needs,
    resolve_objective,
)
from sklebm.training.architecture import (
    build_user_module,
    check_arrays,
    check_image_shape,
    check_record,
    check_resumable,
    check_sizes,
    check_user_module,
    export_weights,
    import_weights,
    seeded,
)

OBJECTIVES: dict[str, type[Objective]] = {
    "noise_contrastive": ReferenceNoiseContrastive,
    "variational_noise_contrastive": VariationalReferenceNoiseContrastive,
    "conditional_noise_contrastive": ConditionalNoiseContrastive,
    "score_matching": ScoreMatching,
    "sliced_score_matching": SlicedScoreMatching,
    "denoising_score_matching": DenoisingScoreMatching,
    "cd": SampledContrastiveDivergence,
    "pcd": SampledPersistentContrastiveDivergence,
}
#: Smooth functions only: samplers and score matching follow derivatives, of up to third order.
ACTIVATIONS = ("sigmoid", "softplus", "tanh", "silu")
# Standard deviation of the first weights times the root of the number of inputs. A sigmoid is a
# tanh of half the argument.
_GAINS = {"sigmoid": 3.0, "softplus": 1.5, "tanh": 1.5, "silu": 1.5}
# Variances of the reference are at least this share of their mean, so that it covers rows that
# happen not to vary along some direction.
_LEAST_VARIANCE = 1e-4
# Distances, in standard deviations of the data, at which the energy is looked at for a fall that
# does not end.
_FAR = (10.0, 100.0, 1000.0)


class DeepEnergyEstimator(GradientEstimator):
    """Network, reference density, objectives and fitted state of deep energies."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GradientEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "image_shape": ["array-like", None],
        "network": [callable, None],
        "layer_training": [StrOptions({"joint", "greedy"})],
        "sigma": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "learn_sigma": ["boolean"],
        "objective": [StrOptions(set(OBJECTIVES)), Objective],
        "log_partition": [StrOptions({"auto", "ais"}), None],
    }

    architecture_: dict[str, Any]
    weights_: dict[str, Any]

    # ------------------------------------------------------------------ the energy

    def _architecture(self, n_features: int) -> dict[str, Any]:
        """The network as plain values, from checked parameters."""
        check_image_shape(self.image_shape, n_features)
        shape = () if self.image_shape is None else self.image_shape
        return {
            "n_features": n_features,
            "n_components": int(self.n_components),
            "hidden_sizes": np.array(check_sizes(self.hidden_sizes), dtype=np.int64),
            "image_shape": np.array(shape, dtype=np.int64),
            "activation": str(self.activation),
            "own_network": "built in" if self.network is None else "given",
        }

    def _make_network(self, architecture: dict[str, Any]) -> nn.Module:
        n_features, n_components = architecture["n_features"], architecture["n_components"]
        if self.network is not None:
            return build_user_module(self.network, "network", n_features, n_components)
        sizes = architecture["hidden_sizes"].tolist()
        shape, activation = _shape(architecture), architecture["activation"]
        return make_encoder(shape, sizes, n_components, activation, "identity")

    def _initial_energy(self, rows: Rows, means: torch.Tensor, generator: torch.Generator) -> Any:
        covariance = _covariance(rows, means)
        if not bool(torch.isfinite(covariance.float()).all()):
            raise FloatingPointError(
                f"{type(self).__name__}: the variances of X overflow single precision. "
                "Scale X, for example with StandardScaler."
            )
        scale = math.sqrt(float(covariance.diagonal().mean()))
        sigma = scale if self.sigma == "auto" else float(self.sigma)
        architecture = self._architecture(len(means))
        with seeded(purpose_seed(generator.initial_seed(), "modules")):
            network = self._make_network(architecture)
        if self.network is None:
            initialize(network, _GAINS[self.activation], means, scale, generator)
        else:
            check_user_module(network, "network", len(means), int(self.n_components))
        energy = DeepEnergy(
            network.float().train(),
            (means / sigma**2).float(),
            torch.tensor(math.log(sigma)).float(),
            ReferenceGaussian(means.float(), torch.linalg.cholesky(covariance).float()),
            torch.tensor(0.0),
        )
        if self.layer_training == "greedy":
            adopt_layers(energy, self._shallower(rows, generator))
        with torch.no_grad():  # log Z of the start, by importance sampling
            draws = energy.reference.draw(1000, generator)
            log_weights = -energy.free_energy(draws) - energy.reference.log_density(draws)
            energy.log_partition.fill_(float(torch.logsumexp(log_weights, 0)) - math.log(1000))
        energy.architecture = architecture
        return energy

    def _energy(self, device: torch.device) -> Any:
        with seeded(None):
            energy = self._assemble(self.architecture_)
        import_weights(energy, self.weights_, device)
        energy.architecture = self.architecture_
        return energy.eval()

    def _assemble(self, architecture: dict[str, Any]) -> DeepEnergy:
        """The energy with numbers yet to come, on the meta device."""
        d = architecture["n_features"]
        empty = torch.empty(d, device="meta"), torch.empty(d, d, device="meta")
        reference = ReferenceGaussian(*empty)
        scalars = torch.empty((), device="meta"), torch.empty((), device="meta")
        network = self._make_network(architecture)
        return DeepEnergy(network, empty[0], scalars[0], reference, scalars[1])

    def _export(self, energy: Any) -> dict[str, Any]:
        weights = export_weights(energy, self)
        learnt = energy.log_partition.requires_grad
        return {
            "architecture_": dict(energy.architecture),
            "weights_": weights,
            "sigma_": float(np.exp(np.float64(weights["log_sigma"]))),
            "log_partition_": float(weights["log_partition"]) if learnt else None,
            "log_partition_interval_": None,
        }

    # ------------------------------------------------------------------ training

    def _objective(self, energy: Any) -> Objective:
        objective = resolve_objective(self.objective, OBJECTIVES, {})
        check_needs(objective, energy, [choice() for choice in OBJECTIVES.values()])
        energy.log_sigma.requires_grad_(self.learn_sigma)
        energy.log_partition.requires_grad_(objective.learns_log_partition)
        for layer in maps_of(energy.network)[:-1] if self.layer_training == "greedy" else ():
            layer.requires_grad_(False)
        return objective

    # ------------------------------------------------------------------ layer by layer

    def _resumes(self) -> bool:
        return super()._resumes() and not self._grows()

    def _starting_energy(self, start: Start) -> Any:
        if start.n_calls and not start.resume and self.layer_training == "greedy":
            raise ValueError(
                'layer_training="greedy" trains the lower layers on all rows before the last: call '
                'fit first, or set layer_training="joint".'
            )
        return super()._starting_energy(start)

    def _grows(self) -> bool:
        """Whether warm_start puts a layer on top of the fitted model."""
        fitted = self.architecture_
        layers = (*fitted["hidden_sizes"].tolist(), fitted["n_components"])
        return self.layer_training == "greedy" and layers == check_sizes(self.hidden_sizes)

    def _shallower(self, rows: Rows, generator: torch.Generator) -> dict[str, Any]:
        """Parameters of the model that ends with the last hidden layer; none without one."""
        sizes = check_sizes(self.hidden_sizes)
        if self.network is not None or self.image_shape is not None:
            given = "network" if self.network is not None else "image_shape"
            raise ValueError(
                f'layer_training="greedy" trains layers of widths hidden_sizes, and cannot with '
                f'{given}: leave {given} out, or set layer_training="joint".'
            )
        if not sizes:
            return {}
        if super()._resumes() and self._grows():
            GradientEstimator._check_resumable(self, rows)
            return self.weights_
        settings = {
            **self.get_params(deep=False),
            "n_components": sizes[-1],
            "hidden_sizes": sizes[:-1],
            "log_partition": None,
            "warm_start": False,
            "random_state": purpose_seed(generator.initial_seed(), "layers") % 2**32,
        }
        shallower: DeepEnergyEstimator = type(self)(**settings).fit(rows.all())
        return shallower.weights_

    def _check_resumable(self, rows: Rows) -> None:
        super()._check_resumable(rows)
        check_resumable(self, self._architecture(rows.shape[1]), self.architecture_)

    def _check_epoch(self, energy: Any) -> None:
        """Look for a fall without end: exp(-F) would have no integral."""
        with torch.no_grad():
            generator = make_generator(0, "far away", device=energy.visible_bias.device)
            mean = energy.reference.mean
            ray = energy.reference.draw(64, generator) - mean
            near, far, farther = (energy.free_energy(mean + r * ray) for r in _FAR)
            falls = (near > far) & (far > farther)
            worst = int(torch.where(falls, farther, torch.inf).argmin())
            if not bool(falls[worst]):
                return
        raise FloatingPointError(
            f"{type(self).__name__}: the energy falls without end, from {float(near[worst]):.3g} "
            f"at {_FAR[0]:.0f} standard deviations from the data to {float(farther[worst]):.3g} at "
            f"{_FAR[-1]:.0f}, so that it is no density. Bound the outputs of network, for example "
            f"by a tanh, lower sigma or learning_rate={self.learning_rate}. The estimator was "
            "left as it was."
        )

    def _validation_score(self, energy: Any, batch: Batch, seed: int) -> float:
        """Minus the held-out objective, on the same random numbers every time."""
        x = batch.x
        energy.eval()
        objective = resolve_objective(self.objective, OBJECTIVES, {})
        if isinstance(objective, SampledContrastiveDivergence):
            # A difference of energies is no quality. Slopes and curvatures at the data are.
            objective = SlicedScoreMatching()
        generator = make_generator(seed, "validation", device=x.device)
        total, floats = 0.0, self._floats_of(energy.architecture)
        if isinstance(objective, ScoreMatching):
            floats *= x.shape[1]  # Jacobians
        for part in row_slices(len(x), floats):
            loss, _ = objective.loss(energy, Batch(x[part]), {}, generator)
            total += float(loss.detach()) * len(x[part])
        energy.train()
        return -total / len(x)

    # ------------------------------------------------------------------ state

    def _state_spec(self) -> Spec:
        return {
            **super()._state_spec(),
            "architecture_": Record(),
            "weights_": Record(),
            "sigma_": Scalar(float, 0.0),
            "log_partition_": Scalar(float, optional=True),
            "log_partition_interval_": Array("f", (2,), optional=True),
        }

    def _check_state(self) -> None:
        super()._check_state()
        if not self._is_fitted():
            return
        name = type(self).__name__
        check_record(self._architecture(self.n_features_in_), self.architecture_, name)
        with seeded(None):
            energy = self._assemble(self.architecture_)
        check_arrays(energy, self.weights_, name)

    def _floats_of(self, architecture: dict[str, Any]) -> int:
        hidden = n_activations(_shape(architecture), architecture["hidden_sizes"].tolist())
        return 4 * int(hidden + architecture["n_components"] + architecture["n_features"])

    def _floats_per_row(self) -> int:
        return self._floats_of(self.architecture_)

    @property
    def _n_features_out(self) -> int:
        return int(self.architecture_["n_components"])


def _shape(architecture: dict[str, Any]) -> tuple[int, ...]:
    """(n_features,), or (channels, height, width) of a row."""
    sides = architecture["image_shape"].tolist()
    return check_image_shape(sides or None, int(architecture["n_features"]))


def _covariance(rows: Rows, means: torch.Tensor) -> torch.Tensor:
    """Covariance of the rows in float64, on the host, with a floor under its variances."""
    d = rows.shape[1]
    total = torch.zeros(d, d, dtype=torch.float64)
    for part in rows.chunks(2 * d):
        centred = rows[part].double().cpu() - means
        total += centred.T @ centred
    covariance = rows.ranks.sum(total) / rows.total()
    scale = float(covariance.diagonal().mean()) or 1.0
    covariance.diagonal().add_(_LEAST_VARIANCE * scale)
    return covariance


def maps_of(network: nn.Module) -> list[Any]:
    """Affine maps and convolutions of the built-in network, in order."""
    return [module for module in network.modules() if hasattr(module, "bias")]


def adopt_layers(energy: DeepEnergy, weights: dict[str, Any]) -> None:
    """Begin where a shallower model ended: its experts are the last layer of g here."""
    own = energy.state_dict()
    kept = ("network.", "visible_bias", "log_sigma")
    with torch.no_grad():
        for name in filter(lambda name: name.startswith(kept), weights):
            own[name].copy_(torch.from_numpy(weights[name]))


def initialize(
    network: nn.Module, gain: float, means: torch.Tensor, scale: float, generator: torch.Generator
) -> None:
    """First numbers of the built-in network.

    Weights are normal with a standard deviation of gain / sqrt(inputs), the last of 1 /
    sqrt(inputs); hidden biases are uniform in (-1, 1), so that units bend at different places. The
    first map sees rows as if they were standardised.
    """
    network.to_empty(device="cpu")
    maps = maps_of(network)
    with torch.no_grad():
        for index, module in enumerate(maps):
            weight, bias = module.weight, module.bias
            is_last = index == len(maps) - 1
            spread = (1.0 if is_last else gain) / math.sqrt(weight[0].numel())
            weight.normal_(0.0, spread, generator=generator)
            bias.zero_() if is_last else bias.uniform_(-1.0, 1.0, generator=generator)
        first = maps[0]
        first.weight.div_(scale)
        if isinstance(first, nn.Linear):
            first.bias.sub_(first.weight @ means.float())
