"""Precisions of visible units: which entries are free, where they start, how they stay positive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sklebm._shell.rows import Rows
from sklebm.boltzmann import _gaussian_start as gaussian
from sklebm.energies import Bernoulli
from sklebm.energies.correlated_gaussian import CorrelatedBilinearEnergy, CorrelatedGaussian
from sklebm.energies.whitened_machine import WhitenedMachine
from sklebm.training.architecture import check_image_shape

#: Structures of which every factor is positive definite and has the structure.
FACTORED = ("full", "diagonal")
STRUCTURES = ("full", "diagonal", "neighbours")
# Least eigenvalue of a precision whose diagonal is scaled to one.
_FLOOR = 1e-5
# Least variance of a feature relative to the largest: units of features may differ a lot.
_LEAST_VARIANCE = 1e-30
# Least share of independent features in the covariance that rows start with: for equal columns.
_LEAST_SHRINKAGE = 1e-4
# Sum of squares, in units of the variances, below which rows differ by rounding only.
_NOTHING = 1e-12
# Variance of clusters around rows, relative to that of all rows.
_NOISE = 0.6
# Rows, and steps, among which directions with two modes are sought, and how many of them at most.
_SAMPLE, _ITERATIONS, _MOST_AXES = 5000, 100, 32
# Excess kurtosis of two modes that noise of their size leaves apart, and least share of the noise.
_LEAST_DIP, _LEAST_NOISE = 0.4, 0.05
# As in GaussianRBM, hidden units start on in few rows.
_SHARE = 0.03


def free_entries(structure: Any, image_shape: Any, n_features: int, owner: str) -> torch.Tensor:
    """The symmetric mask of free entries of the precision, its diagonal included.

    Raises
    ------
    ValueError
        If a mask is not a symmetric boolean square of that size, or the image has another size.
    """
    if image_shape is not None and not (isinstance(structure, str) and structure == "neighbours"):
        raise ValueError(
            f'{owner}: image_shape={image_shape!r} applies only to structure="neighbours": '
            "leave it out, or set the structure."
        )
    if not isinstance(structure, str):
        mask = np.asarray(structure)
        if mask.dtype != bool or mask.shape != (n_features, n_features):
            raise ValueError(
                f"{owner}: structure has shape {mask.shape} and dtype {mask.dtype}, but a mask "
                f"must be boolean of shape {(n_features, n_features)}, True where the precision "
                "may differ from 0."
            )
        if not (mask == mask.T).all():
            raise ValueError(f"{owner}: structure must be symmetric: pass structure | structure.T.")
        return torch.from_numpy(mask | np.eye(n_features, dtype=bool))
    if structure == "full":
        return torch.ones(n_features, n_features, dtype=torch.bool)
    if structure == "diagonal":
        return torch.eye(n_features, dtype=torch.bool)
    height, width = 1, n_features
    if image_shape is not None:
        channels, height, width = check_image_shape(image_shape, n_features)
        if channels > 1:
            raise ValueError(f"{owner}: image_shape={image_shape!r} must be (height, width).")
    row, column = np.divmod(np.arange(height * width), width)
    near = np.abs(row[:, None] - row) <= 1
    return torch.from_numpy(near & (np.abs(column[:, None] - column) <= 1))


def made_positive(precision: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The nearest positive definite matrix on the line to its diagonal; keeps zeros. O(d^3).

    With the diagonal scaled to one, C = D^-1/2 L D^-1/2, the eigenvalues of
    (1 - t) I + t C are 1 - t (1 - e).
    """
    diagonal = precision.diagonal()
    diagonal = diagonal.clamp(min=diagonal.max() * _LEAST_VARIANCE)
    scale = diagonal.sqrt()
    sizes = torch.outer(scale, scale)
    eye = torch.eye(len(scale), dtype=precision.dtype, device=precision.device)
    inner = torch.where(mask, 0.5 * (precision + precision.T) / sizes, 0.0)
    inner = inner - torch.diag(inner.diagonal()) + eye
    _, failed = torch.linalg.cholesky_ex(inner - _FLOOR * eye)
    if bool(failed) and bool(torch.isfinite(inner).all()):
        least = torch.linalg.eigvalsh(inner)[0]
        # Twice the floor: rounding must not lead back below it.
        inner = eye + (inner - eye) * ((1.0 - 2.0 * _FLOOR) / (1.0 - least)).clamp(max=1.0)
    positive: torch.Tensor = inner * sizes
    return positive


def root_of_covariance(rows: Rows, means: torch.Tensor) -> torch.Tensor:
    """The lower triangular root of the covariance, in float64 on the CPU."""
    variance = gaussian.independent_variance(rows, means, False)
    variance = variance.clamp(1e-30, 1e30)
    variance = variance.clamp(min=variance.max() * _LEAST_VARIANCE)
    scale, d = variance.sqrt(), len(means)
    products = torch.zeros(d, d, dtype=torch.float64)
    for part in rows.chunks(floats_per_row=3 * d):
        gap = (rows[part].double().cpu() - means) / scale
        products += gap.T @ gap
    n_rows = rows.total()
    correlation = rows.ranks.sum(products) / n_rows
    # Few rows say little about pairs: shrunk by Oracle Approximating Shrinkage (Chen et al., 2010).
    square, trace = float(correlation.square().sum()), float(correlation.trace())
    excess = (n_rows + 1.0 - 2.0 / d) * (square - trace**2 / d)
    wanted = ((1.0 - 2.0 / d) * square + trace**2) / excess if excess > 0.0 else 1.0
    share = min(max(wanted, _LEAST_SHRINKAGE), 1.0)
    # Equal rows have no covariance: they start with the variance that stands in for theirs.
    mean = trace / d if trace > _NOTHING else 1.0
    correlation = (1.0 - share) * correlation + share * mean * torch.eye(d, dtype=torch.float64)
    if not bool(torch.isfinite(correlation).all()):
        # Beyond the numbers of double precision: training reports how to scale them.
        correlation = torch.eye(d, dtype=torch.float64)
    root: torch.Tensor = torch.linalg.cholesky(correlation)
    scaled: torch.Tensor = scale[:, None] * root
    return scaled


def _masked_inverse(covariance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A precision with these free entries: of two candidates that which suits a Gaussian better."""
    candidates = [
        made_positive(torch.linalg.inv(covariance), mask),
        torch.diag(1.0 / covariance.diagonal()),
    ]
    losses = [
        float((precision * covariance).sum() - torch.linalg.slogdet(precision)[1])
        for precision in candidates
    ]
    return candidates[int(np.argmin(losses))]


def two_modes(
    white: torch.Tensor, most: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Orthogonal directions along which white rows are a bit under Gaussian noise.

    Projections of independent bits and noise have the least fourth cumulant along the bits,
    whatever the noise is. Their length and probability follow from the cumulants of a bit: with
    q = p (1 - p), k3 = length^3 q (1 - 2 p) and k4 = length^4 q (1 - 6 q).

    Returns
    -------
    directions, lengths, probabilities : Tensor
        Of the ``most`` with two modes, (n_found, n_features), (n_found,) and (n_found,).
    """
    n_rows, d = white.shape
    if most == 0 or not bool(torch.isfinite(white.pow(4).sum())):
        return white.new_empty(0, d), white.new_empty(0), white.new_empty(0)
    # More than are wanted: some end where there are no bits.
    start = torch.randn(min(d, _MOST_AXES), d, generator=generator, dtype=white.dtype)
    axes = _orthonormal(start)
    for _ in range(_ITERATIONS):
        along = white @ axes.T
        # Of the cumulants: shrinkage leaves variances that differ from 1, which moments would mix.
        slope = (along.pow(3) - 3.0 * along.square().mean(dim=0) * along).T @ white / n_rows
        # Half of the step at which the steepest direction would turn round.
        axes = _orthonormal(
            axes - 0.5 / torch.linalg.matrix_norm(slope, 2).clamp(min=1e-12) * slope
        )
    along = white @ axes.T
    along = along - along.mean(dim=0)
    square = along.square().mean(dim=0)
    third, fourth = along.pow(3).mean(dim=0), along.pow(4).mean(dim=0) - 3.0 * square.square()
    # Directions of normal rows reach this by chance, the more so the more features there are.
    chance = min(1.2 * math.sqrt(24.0 * d / n_rows), 1.5)
    kept = torch.argsort(fourth)[:most]
    kept = kept[fourth[kept] < -max(_LEAST_DIP, chance)]
    third, fourth, square = third[kept], -fourth[kept], square[kept]
    q = torch.linspace(1.0 / 6.0, 0.25, 1002, dtype=white.dtype)[1:]
    skews = q.square() * (1.0 - 4.0 * q) / (q * (6.0 * q - 1.0)).pow(1.5)
    wanted = third.square() / fourth.pow(1.5)
    q = q[(skews - wanted[:, None]).abs().argmin(dim=1)]
    lengths = (fourth / (q * (6.0 * q - 1.0))).pow(0.25)
    # The noise is what is left of a variance of 1, which that of few rows may exceed.
    lengths = torch.minimum(lengths, ((1.0 - _LEAST_NOISE) * square.clamp(max=1.0) / q).sqrt())
    return axes[kept], lengths, 0.5 * (1.0 - third.sign() * (1.0 - 4.0 * q).clamp(min=0.0).sqrt())


def _orthonormal(directions: torch.Tensor) -> torch.Tensor:
    """The nearest orthonormal rows."""
    left, _, right = torch.linalg.svd(directions, full_matrices=False)
    nearest: torch.Tensor = left @ right
    return nearest


def _far_rows(
    white: torch.Tensor, axes: torch.Tensor, n_units: int, generator: torch.Generator
) -> torch.Tensor:
    """Directions towards white rows far from the mean, away from those that are taken."""
    d = white.shape[1]
    if n_units == 0:
        return white.new_empty(0, d)
    white = white[torch.randint(len(white), (10 * n_units,), generator=generator)]
    if len(axes) < d:
        white = white - (white @ axes.T) @ axes
    return gaussian.towards_far(white, n_units, generator).double()


def _around_rows(
    white: torch.Tensor,
    root: torch.Tensor,
    mask: torch.Tensor,
    n_components: int,
    generator: torch.Generator,
) -> CorrelatedBilinearEnergy:
    """Clusters around random rows: each hidden unit leads from one of them to another."""
    some = white[torch.randint(len(white), (n_components + 1,), generator=generator)]
    visible, weights = root @ some[0], (some[1:] - some[0]) @ root.T
    precision = _masked_inverse(_NOISE * root @ root.T, mask)
    bias = -0.5 * ((weights @ precision) * weights).sum(dim=1) - weights @ (precision @ visible)
    # About one unit is on at a time.
    bias = bias + math.log(2.0 / n_components)
    units = CorrelatedGaussian(visible.float(), precision.float())
    return CorrelatedBilinearEnergy(units, Bernoulli(bias.float()), weights.float())


def initial_energy(
    n_components: int,
    mask: torch.Tensor,
    root: torch.Tensor,
    rows: Rows,
    means: torch.Tensor,
    generator: torch.Generator,
    *,
    exact: bool = False,
    one_of_many: bool = False,
) -> CorrelatedBilinearEnergy:
    """The machine before training, for rows around their mean with this root of the covariance.

    As in ``GaussianRBM``, hidden units are at first on in few rows, which describes heavy tails,
    and the noise has the covariance of the rows. If the likelihood is ``exact``, hidden units start
    at directions in which the rows have two modes, and the noise at what these leave: no small step
    leads there from a Gaussian. (Chains would find them, but rarely cross from one mode to the
    other.) With ``one_of_many``, half of such starts use clusters around rows instead.
    """
    d = len(means)
    n_rows = rows.total()
    some = torch.randint(n_rows, (_SAMPLE,), generator=generator)
    some = some if n_rows > _SAMPLE else torch.arange(n_rows)
    gaps = rows.ranks.take(rows, some).cpu().double() - means
    white = torch.linalg.solve_triangular(root, gaps.T, upper=False).T
    if one_of_many and float(torch.rand((), generator=generator)) < 0.5:
        return _around_rows(white, root, mask, n_components, generator)
    axes, lengths, chances = two_modes(white, n_components if exact else 0, generator)
    kept = len(axes)
    moved = axes * lengths[:, None]
    noise = (
        torch.eye(d, dtype=root.dtype) - (moved * (chances * (1.0 - chances))[:, None]).T @ moved
    )
    precision = _masked_inverse(root @ noise @ root.T, mask)
    # The other units, in directions of their own: one standard deviation of the noise.
    total = n_components - kept
    weights = torch.cat([moved, _far_rows(white, axes, total, generator)]) @ root.T
    sizes = ((weights @ precision) * weights).sum(dim=1)
    weights[kept:] /= sizes[kept:, None].sqrt()
    sizes[kept:] = 1.0
    chances = torch.cat([chances, chances.new_full((total,), _SHARE)])
    visible = -(chances[:kept] @ weights[:kept])
    bias = torch.logit(chances) - 0.5 * sizes - weights @ (precision @ visible)
    units = CorrelatedGaussian(visible.float(), precision.float())
    return CorrelatedBilinearEnergy(units, Bernoulli(bias.float()), weights.float())


def plain(energy: Any) -> Any:
    """The machine in the coordinates of the rows."""
    return energy.machine() if isinstance(energy, WhitenedMachine) else energy


def keep_positive(energy: Any, mask: torch.Tensor) -> None:
    """Keep the precision positive definite after a step, and its zeros zero."""
    held = energy.visible.precision
    held.data.copy_(made_positive(held.data, mask))


def check_precision(precision: Any, owner: str) -> None:
    """Raise ValueError unless the precision is symmetric and positive definite."""
    found = np.asarray(precision, dtype=np.float64)
    if not (found.diagonal() > 0).all():
        raise ValueError(f"{owner}.precision_ must be positive definite.")
    # Features may differ in their units.
    scale = np.sqrt(found.diagonal())
    found = found / scale / scale[:, None]
    if np.abs(found - found.T).max() > 1e-5:
        raise ValueError(f"{owner}.precision_ must be symmetric.")
    if np.linalg.eigvalsh(found)[0] <= 0:
        raise ValueError(f"{owner}.precision_ must be positive definite.")


def around_zero(state: Mapping[str, Any]) -> dict[str, Any]:
    """Intercepts for uncentred rows, from those around ``offset_``, in double precision."""
    offset = state["offset_"]
    if offset is None:
        return {}
    shift = state["components_"].astype(np.float64) @ (state["precision_"].astype(float) @ offset)
    return {
        "intercept_visible_": state["intercept_visible_"] + offset,
        "intercept_hidden_": state["intercept_hidden_"] - shift,
    }


def around_offset(parameters: Mapping[str, torch.Tensor], offset: Any) -> dict[str, torch.Tensor]:
    """Parameters around an offset, in double precision: the inverse of ``around_zero``."""
    if offset is None:
        return dict(parameters)
    double = {name: value.double() for name, value in parameters.items()}
    shift = torch.from_numpy(offset).to(double["components_"])
    sent = double["components_"] @ (double["precision_"] @ shift)
    double["intercept_visible_"] = double["intercept_visible_"] - shift
    double["intercept_hidden_"] = double["intercept_hidden_"] + sent
    return double
