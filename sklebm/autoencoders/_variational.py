"""The choices of a variational auto-encoder: likelihoods, posteriors, objectives."""

from __future__ import annotations

import math
import re
from numbers import Integral, Real
from typing import Any, get_args

import numpy as np
import torch

from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.rows import Rows
from sklebm._shell.scaling import Scaling
from sklebm.autoencoders._base import NETWORKS, BaseAutoencoder
from sklebm.autoencoders._categories import block_sizes
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
from sklebm.objectives import Objective, check_needs, resolve_objective
from sklebm.objectives.discrete_evidence import DiscreteEvidenceLowerBound, DiscreteGradient
from sklebm.objectives.evidence import (
    DoublyReparametrizedBound,
    EvidenceLowerBound,
    ImportanceWeightedBound,
)
from sklebm.training.architecture import NetworkRecord
from sklebm.training.start import Start

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
    "beta_warmup": "auto",
    "free_bits": 0.0,
    "binarize": False,
    "discrete_gradient": "auto",
}
# Updates over which the divergence of binary latents is phased in: a fraction of those of a fit,
# and a number for chunks, whose total is unknown.
_WARMUP_SHARE, _WARMUP_OF_CHUNKS = 0.25, 500

CONSTRAINTS: dict[str, list[Any]] = {
    **BaseAutoencoder._parameter_constraints,
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
    "beta_warmup": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
    "free_bits": [Interval(Real, 0, None, closed="left")],
    "binarize": ["boolean"],
    "discrete_gradient": [StrOptions(set(get_args(DiscreteGradient)))],
    "n_importance_samples": [Interval(Integral, 1, None, closed="left")],
    "value_range": [StrOptions({"warn", "raise", "clip"})],
}


def has_fixed_noise(model: Any) -> bool:
    """Whether the noise of the rows is fixed, in the units of X."""
    return not isinstance(model.noise_scale, str)


def variational_record(model: Any, n_features: int) -> NetworkRecord:
    """The networks, likelihood and posterior that the parameters specify."""
    gaussian, categorical = (model.likelihood == n for n in ("gaussian", "categorical"))
    if not gaussian and model.noise_scale != "shared":
        raise ValueError(
            f"noise_scale={model.noise_scale!r} is the scale of Gaussian noise and does "
            f'not apply to likelihood="{model.likelihood}": leave it out.'
        )
    if model.n_categories is not None and not categorical:
        raise ValueError(
            "n_categories counts one-hot columns and does not apply to "
            f'likelihood="{model.likelihood}": leave it out, or choose "categorical".'
        )
    if model.binarize and model.likelihood != "bernoulli":
        raise ValueError('binarize=True draws binary rows, which needs likelihood="bernoulli".')
    sizes = block_sizes(model.n_categories, n_features) if categorical else []
    noise = "fixed" if has_fixed_noise(model) else str(model.noise_scale)
    return NetworkRecord.from_parameters(
        model,
        n_features,
        NETWORKS,
        likelihood=str(model.likelihood),
        noise=noise if gaussian else "none",
        n_categories=np.array(sizes, dtype=np.int64),
        posterior=str(model.posterior),
    )


def n_encoder_outputs(record: NetworkRecord) -> int:
    """Number of values that describe one posterior."""
    family = _FAMILIES.get(record["posterior"])
    n_components = int(record["n_components"])
    return family.n_outputs(n_components) if family else n_components


def variational_energy(record: NetworkRecord) -> LatentVariableEnergy:
    """Networks, likelihood and prior of a record, with built-in networks on the meta device."""
    likelihood: Likelihood = BernoulliLikelihood()
    if record["likelihood"] == "gaussian":
        likelihood = GaussianLikelihood(record["noise"])
    elif record["likelihood"] == "categorical":
        likelihood = CategoricalLikelihood(record["n_categories"].tolist())
    encoder = record.encoder(n_encoder_outputs(record))
    decoder = record.decoder(n_per_feature=likelihood.n_per_feature)
    family = _FAMILIES.get(record["posterior"])
    if family is None:
        return BernoulliLatentEnergy(encoder, decoder, likelihood, record["n_components"])
    return GaussianLatentEnergy(encoder, decoder, likelihood, record["n_components"], family)


def begin(model: Any, energy: Any, rows: Rows, means: torch.Tensor) -> None:
    """Initialise the posterior and the likelihood, given standardised rows."""
    if model.posterior != "bernoulli" and model.encoder is None:
        # Close to the covariance of the prior.
        with torch.no_grad():
            energy.encoder[-1].weight[int(model.n_components) :] *= 0.1
    if model.likelihood == "gaussian":
        scale = _root_mean_square(rows, means)
        if has_fixed_noise(model):  # in the units of X
            scale = float(model.noise_scale) / float(energy.scaling.scale[0])
        energy.likelihood.start_at(scale)


def check_noise(model: Any) -> None:
    """Refuse a fixed scale of the noise that differs from that of the fit."""
    fitted = model.weights_.get("likelihood.log_scale")
    if not has_fixed_noise(model) or fitted is None or model.scale_ is None:
        return
    held = float(np.exp(np.float64(np.ravel(fitted)[0]))) * float(model.scale_[0])
    if not math.isclose(held, float(model.noise_scale), rel_tol=1e-4):
        raise ValueError(
            f"noise_scale={model.noise_scale} differs from noise_scale={held:.6g} of the fitted "
            "model that training would continue from: set it back, or fit with warm_start=False."
        )


def log_volume(scaling: Scaling | None) -> float:
    """Log density of standardised rows minus that of the original rows, in nats."""
    return 0.0 if scaling is None else float(np.log(scaling.scale).sum())


def warmup(model: Any, start: Start) -> int:
    """Updates over which the divergence is phased in, if the parameters say "auto"."""
    if not isinstance(model.beta_warmup, str):
        return int(model.beta_warmup)
    if model.posterior != "bernoulli":
        return 0
    # At full weight from the start, bits that the decoder cannot use yet are switched off.
    if start.resume:
        # A fit has warmed up; chunks may still be at it.
        kind = str(model.training_state_.get("objective_kind", ""))
        of_chunks = start.n_calls and re.search(rf"beta_warmup={_WARMUP_OF_CHUNKS}\b", kind)
        return _WARMUP_OF_CHUNKS if of_chunks else 0
    if start.n_calls:
        return _WARMUP_OF_CHUNKS
    n_rows = model._n_learnt(start.rows)
    whole = model._optimizer_choice().full_batch
    per_epoch = 1 if whole else -(-n_rows // int(model.batch_size))
    n_updates = per_epoch * int(model._n_epochs(start.rows))
    return math.ceil(_WARMUP_SHARE * n_updates)


def variational_objective(model: Any, energy: Any) -> Objective:
    """The bound that the parameters specify, checked against the energy."""
    options = {name: getattr(model, name) for name in _FLAT if getattr(model, name) != _FLAT[name]}
    binary = model.posterior == "bernoulli"
    choices = _DISCRETE if binary else _CONTINUOUS
    if isinstance(model.objective, str):
        if model.objective not in choices:
            raise ValueError(
                f'objective={model.objective!r} needs a Gaussian posterior: posterior="bernoulli" '
                f"is trained by {', '.join(map(repr, choices))}."
            )
        if binary and model.beta_warmup == "auto":
            options["beta_warmup"] = energy.warmup
    objective = resolve_objective(model.objective, choices, options)
    check_needs(objective, energy, [choice() for choice in _ALL])
    return objective


def _root_mean_square(rows: Rows, means: torch.Tensor) -> float:
    """Root mean square distance from the means, over all features; 1 if it is zero."""
    parts = rows.chunks(2 * rows.shape[1])
    total = sum(float((rows[part].double().cpu() - means).square().sum()) for part in parts)
    deviation = math.sqrt(rows.ranks.total(total) / (rows.total() * rows.shape[1]))
    return deviation if 0.0 < deviation < math.inf else 1.0


def count(name: str, value: Any) -> int:
    """A positive integer, or ValueError."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer.")
    return int(value)
