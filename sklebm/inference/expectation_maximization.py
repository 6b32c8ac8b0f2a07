r"""Expectation maximisation for Gaussian mixtures: maximise sum_i v_i log p(x_i) over w, m, S.

E step: r_ik = p(k | x_i). M step: w_k = n_k / n, m_k = sum_i v_i r_ik x_i / n_k,
S_k = sum_i v_i r_ik (x_i - m_k)(x_i - m_k)' / n_k + R, with n_k = sum_i v_i r_ik
(Dempster, Laird & Rubin, 1977). R is a diagonal of small variances. Weights v and repetition are
equivalent.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sklebm._shell.ranks import ALONE, Ranks
from sklebm.energies import GaussianMixture, GaussianMixtureEnergy
from sklebm.energies.gaussian_mixture import CovarianceType, row_moments
from sklebm.inference.lloyd import RowSource, Slices

# Rows of one block of sums on a CPU.
_BLOCK_ROWS = 8192
# A posterior below this changes no sum beyond rounding: full covariances leave such rows out.
_NEGLIGIBLE = 1e-20
_TINY = 10 * torch.finfo(torch.float64).eps


class Statistics(NamedTuple):
    """Sums over rows, relative to the means of the mixture that gave the posteriors.

    ``total`` is the rows' weight and ``log_likelihood`` its sum of log p. For each component,
    ``counts`` (K,) sums the posteriors, ``shifts`` (K, d) the gaps x - m_k and ``scatter`` their
    products: (K, d, d) for "full", squares (K, d) for "diag", their sum (K,) for "spherical", and
    for "tied" the products of all components together, (d, d). All are float64.
    """

    total: Tensor
    log_likelihood: Tensor
    counts: Tensor
    shifts: Tensor
    scatter: Tensor

    def __add__(self, other: object) -> Statistics:
        """Statistics of the rows of both."""
        if not isinstance(other, Statistics):
            return NotImplemented
        return Statistics(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def over(self, ranks: Ranks) -> Statistics:
        """Statistics of the rows of all ranks."""
        return Statistics(*ranks.sum_each(self))


def expect(
    energy: GaussianMixtureEnergy, x: RowSource, weights: Tensor, parts: Slices
) -> Statistics:
    """The E step, chunk by chunk, in float64. O(n K d^2) for "full".

    ``x`` may be float32; ``weights`` are float64, one a row.
    """
    total: Statistics | None = None
    kind = energy.covariance_type
    for part in parts:
        for block in _blocks(part, len(x), x.device):
            chunk, mass = x[block].double(), weights[block]
            moments = None if kind == "full" else row_moments(chunk, energy.means)
            log_joint = energy.log_joint(chunk, moments)
            weighted, counted, log_likelihood = _weigh(log_joint, mass)
            sums = _sums(chunk, weighted, counted, energy.means, kind, moments)
            new = Statistics(mass.sum(), log_likelihood, *sums)
            total = new if total is None else total + new
    if total is None:
        raise ValueError("expect needs at least one row.")
    return total


def _blocks(part: slice, n_rows: int, device: torch.device) -> list[slice]:
    """Cut a chunk into blocks whose temporaries stay in a CPU's cache; a GPU takes it whole."""
    start, stop, _ = part.indices(n_rows)
    step = _BLOCK_ROWS if device.type == "cpu" else max(1, stop - start)
    return [slice(first, min(first + step, stop)) for first in range(start, stop, step)]


def _weigh(log_joint: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Posteriors times the rows' weights, which of them matter, and the log likelihood.

    Overwrites ``log_joint``; each exponential is taken once.
    """
    top = log_joint.amax(dim=1)
    relative = log_joint.sub_(top[:, None]).exp_()
    counted = relative > _NEGLIGIBLE
    shares = relative.sum(dim=1)
    return relative.mul_((mass / shares)[:, None]), counted, mass @ (top + shares.log())


def _sums(
    x: Tensor,
    weighted: Tensor,
    counted: Tensor,
    means: Tensor,
    covariance_type: CovarianceType,
    moments: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``counts``, ``shifts`` and ``scatter`` of one block, from weighted posteriors.

    ``counted`` says which posteriors matter; ``moments`` are those of ``row_moments``, if known.
    """
    counts = weighted.sum(dim=0)
    if covariance_type == "full":
        return counts, *_full_sums(x, weighted, counted, means)
    x, squares = row_moments(x, means) if moments is None else moments
    m = means - means.mean(dim=0)
    first = weighted.T @ x
    shifts = first - counts[:, None] * m
    if covariance_type == "tied":
        cross = first.T @ m
        everything = (x * weighted.sum(dim=1, keepdim=True)).T @ x
        return counts, shifts, everything - cross - cross.T + (counts * m.T) @ m
    if covariance_type == "diag":
        scatter = weighted.T @ squares - 2.0 * m * first + m.square() * counts[:, None]
        return counts, shifts, scatter.clamp_(min=0.0)
    scatter = weighted.T @ squares.sum(dim=1) - 2.0 * torch.sum(m * first, dim=1)
    return counts, shifts, (scatter + m.square().sum(dim=1) * counts).clamp_(min=0.0)


def _full_sums(
    x: Tensor, weighted: Tensor, counted: Tensor, means: Tensor
) -> tuple[Tensor, Tensor]:
    """``shifts`` and ``scatter`` of full covariances, from the rows that matter to each."""
    shifts = torch.zeros_like(means)
    scatter = means.new_zeros(len(means), means.shape[1], means.shape[1])
    # In many dimensions most posteriors vanish, and so does most of the work.
    chosen = counted.T.contiguous()
    sizes = chosen.sum(dim=1).tolist()
    rows = torch.split(chosen.nonzero()[:, 1], sizes)
    pulls = torch.split(weighted.T[chosen], sizes)
    for k, size in enumerate(sizes):
        if size:
            gaps = x[rows[k]].sub_(means[k])
            torch.mv(gaps.T, pulls[k], out=shifts[k])
            torch.mm(gaps.T, gaps * pulls[k][:, None], out=scatter[k])
    return shifts, scatter


def maximise(
    mixture: GaussianMixture, statistics: Statistics, regularisation: Tensor, step: float = 1.0
) -> GaussianMixture:
    r"""The M step, or a partial one: moments become (1 - step) old + step new. O(K d^3) for "full".

    ``regularisation`` is added to the variances: one number for each feature, or for all.

    Raises
    ------
    ValueError
        If a covariance is not positive definite; the message says which and what to do.
    """
    kind, n_features = mixture.covariance_type, mixture.means.shape[1]
    total = statistics.total
    shares = (1 - step) * mixture.weights + step * statistics.counts / total + _TINY
    moved = step * statistics.shifts / total / shares[:, None]
    scatter = step * statistics.scatter / total
    if step < 1:
        old = add_to_diagonal(mixture.covariances, -regularisation, kind)
        mass = mixture.weights.view(-1, *[1] * (old.ndim - 1)) if kind != "tied" else 1.0
        scale = n_features if kind == "spherical" else 1
        scatter = scatter + (1 - step) * mass * old * scale
    if kind == "full":
        covariances = scatter / shares[:, None, None] - moved[:, :, None] * moved[:, None, :]
        covariances = 0.5 * (covariances + covariances.mT)
    elif kind == "tied":
        covariances = scatter - (shares * moved.T) @ moved
        covariances = 0.5 * (covariances + covariances.mT)
    elif kind == "diag":
        covariances = (scatter / shares[:, None] - moved.square()).clamp_(min=0.0)
    else:
        covariances = (scatter / shares - moved.square().sum(dim=1)).clamp_(min=0.0) / n_features
    covariances = add_to_diagonal(covariances, regularisation, kind)
    factors = precision_factors(covariances, kind, regularisation)
    return GaussianMixture(shares / shares.sum(), mixture.means + moved, covariances, factors, kind)


def add_to_diagonal(covariances: Tensor, amounts: Tensor, kind: CovarianceType) -> Tensor:
    """Add ``amounts`` to the variances of the features, or their mean; returns new covariances."""
    if kind == "diag":
        return covariances + amounts
    if kind == "spherical":
        return covariances + (amounts.mean() if amounts.ndim else amounts)
    n_features = covariances.shape[-1]
    return covariances + torch.diag(amounts.expand(n_features).to(covariances))


def precision_factors(
    covariances: Tensor, kind: CovarianceType, regularisation: Tensor | None = None
) -> Tensor:
    """Upper triangular U with S^-1 = U U', all components in one batch. O(K d^3) for "full".

    ``regularisation`` is what the variances hold already, for the message of a failure.
    """
    if kind in ("diag", "spherical"):
        bad = ~(covariances > 0).reshape(len(covariances), -1).all(dim=1)
        _refuse(bad, kind, regularisation)
        return covariances.rsqrt()
    lower, info = torch.linalg.cholesky_ex(covariances)
    finite = torch.isfinite(lower).flatten(-2).all(dim=-1)
    _refuse(((info != 0) | ~finite).reshape(-1), kind, regularisation)
    identity = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    inverse = torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False)
    factors: Tensor = inverse.mT.contiguous()
    return factors


def _refuse(bad: Tensor, kind: CovarianceType, regularisation: Tensor | None) -> None:
    if not bool(bad.any()):
        return
    which = "The tied covariance" if kind == "tied" else f"The covariance of component {_list(bad)}"
    amount = "" if regularisation is None else f"={float(regularisation.max()):g}"
    raise ValueError(
        f"{which} is not positive definite: its rows lie in a subspace, or on one point. Increase "
        f"reg_covar{amount}, lower n_components, choose a smaller covariance_type, or scale or "
        "reduce X (for example with PCAWhitener)."
    )


def _list(bad: Tensor) -> str:
    indices = bad.nonzero().flatten().tolist()
    return ", ".join(map(str, indices[:5])) + (", ..." if len(indices) > 5 else "")


def em_step(
    mixture: GaussianMixture,
    x: RowSource,
    weights: Tensor,
    parts: Slices,
    regularisation: Tensor,
    ranks: Ranks = ALONE,
) -> tuple[float, GaussianMixture]:
    """One step of EM: the mean log likelihood before it, and the mixture after it.

    Without ``regularisation`` the log likelihood never falls.
    """
    statistics = expect(mixture.energy(), x, weights, parts).over(ranks)
    bound = float(statistics.log_likelihood / statistics.total)
    return bound, maximise(mixture, statistics, regularisation)


def mixture_from_labels(
    labels: Tensor,
    centers: Tensor,
    x: RowSource,
    weights: Tensor,
    parts: Slices,
    covariance_type: CovarianceType,
    regularisation: Tensor,
    ranks: Ranks = ALONE,
) -> GaussianMixture:
    """The mixture of the groups that ``labels`` define: one M step from hard posteriors.

    ``centers`` are points near the rows of each group, about which sums are taken.
    """
    centers = centers.double()
    nobody = GaussianMixture(
        centers.new_zeros(len(centers)), centers, centers, centers, covariance_type
    )
    total: Statistics | None = None
    for part in parts:
        hard = torch.nn.functional.one_hot(labels[part].long(), len(centers)).double()
        mass = weights[part]
        sums = _sums(x[part].double(), hard * mass[:, None], hard > 0, centers, covariance_type)
        new = Statistics(mass.sum(), mass.new_zeros(()), *sums)
        total = new if total is None else total + new
    if total is None:
        raise ValueError("mixture_from_labels needs at least one row.")
    return maximise(nobody, total.over(ranks), regularisation)
