"""Mean squared error of the precision that ``GaussianEnergy`` recovers, against theory.

Each objective fits the same 10,000 draws of a Gaussian of 4 features whose precision is a chain,
many times. An M-estimator with loss l has the asymptotic covariance A^-1 B A^-1 / n, with
A = E[l''] and B = Cov[l'] at the truth (Huber, 1967). It is computed here from these definitions,
by averages over a million draws, independently of the library. The ratio of the mean squared error
to that variance must be near one; the ratio of the variance to that of maximum likelihood says what
the objective costs.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from _common import save_results, set_threads

from sklebm import GaussianEnergy

N_ROWS = 10_000
N_NOISE = 5
NOISE_SCALE = 1.0
PRECISION = np.array(
    [[1.5, -0.6, 0.0, 0.0], [-0.6, 2.0, 0.5, 0.0], [0.0, 0.5, 1.0, -0.3], [0.0, 0.0, -0.3, 0.8]]
)
PAIRS = [(i, j) for i in range(4) for j in range(i + 1) if PRECISION[i, j] != 0]
OBJECTIVES = (
    "maximum_likelihood",
    "score_matching",
    "noise_contrastive",
    "conditional_noise_contrastive",
)


def features(u: Any, *, constant: bool) -> Any:
    """Derivatives of log p(u) = -1/2 u'Pu + h'u + c by the free entries of P, h and c."""
    columns = [u[:, i] * u[:, j] * (-0.5 if i == j else -1.0) for i, j in PAIRS]
    return np.column_stack([*columns, u, *([np.ones(len(u))] if constant else [])])


class Sums:
    """Averages that give A and B: second derivatives and outer products of first ones."""

    def __init__(self) -> None:
        self.curvature: Any = 0.0
        self.outer: Any = 0.0
        self.n_rows = 0

    def add(self, slopes: Any, curvature: Any) -> None:
        """Add a batch: slopes (n, p), and the sum of the second derivatives (p, p)."""
        self.curvature = self.curvature + curvature
        self.outer = self.outer + slopes.T @ slopes
        self.n_rows += len(slopes)

    def variances(self) -> Any:
        """Diagonal of A^-1 B A^-1 for the entries of P."""
        inverse = np.linalg.inv(self.curvature / self.n_rows)
        return np.diag(inverse @ (self.outer / self.n_rows) @ inverse)[: len(PAIRS)]


def score_matching_slopes(x: Any) -> tuple[Any, Any]:
    """First derivatives of 1/2 |P x - h|^2 - tr P at h = 0, and the sum of the second ones."""
    d = x.shape[1]
    linear = np.zeros((len(PAIRS) + d, len(x), d))
    for index, (i, j) in enumerate(PAIRS):
        linear[index, :, i] += x[:, j]
        if i != j:
            linear[index, :, j] += x[:, i]
    for i in range(d):
        linear[len(PAIRS) + i, :, i] = -1.0
    slopes = np.einsum("nd,pnd->np", x @ PRECISION, linear)
    slopes[:, : len(PAIRS)] -= [float(i == j) for i, j in PAIRS]
    return slopes, np.einsum("pnd,qnd->pq", linear, linear)


def contrastive_slopes(
    x: Any, factor: Any, generator: np.random.Generator, *, conditional: bool
) -> tuple[Any, Any]:
    """The same for the logistic losses, with noise from the truth or around each row."""
    phi = features(x, constant=not conditional)
    slopes, curvature = np.zeros_like(phi), 0.0
    if not conditional:
        wrong = N_NOISE / (1 + N_NOISE)
        slopes -= wrong * phi
        curvature = wrong * (1 - wrong) * phi.T @ phi
    for _ in range(N_NOISE):
        noise = generator.standard_normal(x.shape) @ factor.T
        if conditional:
            y = x + NOISE_SCALE * noise
            gap = phi - features(y, constant=False)
            margin = 0.5 * (((y @ PRECISION) * y).sum(axis=1) - ((x @ PRECISION) * x).sum(axis=1))
            wrong = 1 / (1 + np.exp(margin))
            slopes -= wrong[:, None] * gap
            curvature = curvature + (gap * (wrong * (1 - wrong))[:, None]).T @ gap
        else:
            psi = features(noise, constant=True)
            slopes += (1 - wrong) * psi
            curvature = curvature + wrong * (1 - wrong) * psi.T @ psi
    return slopes, curvature


def asymptotic_variances(objective: str, n_draws: int) -> Any:
    """n times the asymptotic variance of each free entry."""
    generator = np.random.default_rng(12345)
    factor = np.linalg.cholesky(np.linalg.inv(PRECISION))
    sums, fisher = Sums(), Sums()
    for _ in range(n_draws // 20_000):
        x = generator.standard_normal((20_000, 4)) @ factor.T
        if objective == "maximum_likelihood":
            phi = features(x, constant=False)
            # B = A = the covariance of the statistics, so that A^-1 B A^-1 is its inverse
            fisher.add(phi - phi.mean(axis=0), 0.0)
        elif objective == "score_matching":
            sums.add(*score_matching_slopes(x))
        else:
            conditional = objective.startswith("conditional")
            sums.add(*contrastive_slopes(x, factor, generator, conditional=conditional))
    if objective == "maximum_likelihood":
        return np.diag(np.linalg.inv(fisher.outer / fisher.n_rows))[: len(PAIRS)]
    return sums.variances()


def squared_errors(objective: str, n_replicates: int) -> tuple[Any, Any]:
    """Squared errors of the free entries, (n_replicates, n_entries), and biases."""
    factor = np.linalg.cholesky(PRECISION).T
    errors = []
    for seed in range(n_replicates):
        white = np.random.default_rng(seed).standard_normal((N_ROWS, 4))
        model = GaussianEnergy(
            "banded",
            objective=objective,
            n_noise=N_NOISE,
            noise_scale=NOISE_SCALE,
            tol=1e-6,
            random_state=seed,
        ).fit(np.linalg.solve(factor, white.T).T)
        errors.append([model.precision_[pair] - PRECISION[pair] for pair in PAIRS])
    return np.square(errors), np.mean(errors, axis=0)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=600)
    parser.add_argument("--draws", type=int, default=1_000_000)
    arguments = parser.parse_args()
    set_threads(1)  # the products are too small for two
    efficient = asymptotic_variances("maximum_likelihood", arguments.draws)
    rows = []
    for objective in OBJECTIVES:
        theory = asymptotic_variances(objective, arguments.draws)
        squares, _ = squared_errors(objective, arguments.replicates)
        ratios = N_ROWS * squares / theory
        overall = ratios.mean(axis=1)
        error = overall.std(ddof=1) / np.sqrt(len(overall))
        each = ratios.mean(axis=0)
        row = [objective, round(float(N_ROWS * squares.mean()), 3), round(float(theory.mean()), 3)]
        row += [f"{overall.mean():.3f} +- {error:.3f}", f"{each.min():.2f} to {each.max():.2f}"]
        rows.append([*row, round(float((theory / efficient).mean()), 2)])
        print(*rows[-1], sep="\t", flush=True)
    save_results(
        "gaussian_energy",
        "Error of a recovered precision against its asymptotic variance",
        [
            "objective",
            "n x mean squared error",
            "n x asymptotic variance",
            "ratio, mean over entries",
            "ratio, single entries",
            "variance / maximum likelihood's",
        ],
        rows,
        notes=f"{arguments.replicates} replicates of {N_ROWS:,} rows, 4 features, precision a "
        f"chain of 7 free entries; {N_NOISE} noise points for each row, noise scale {NOISE_SCALE}. "
        f"Asymptotic variances by averages over {arguments.draws:,} draws of the truth.",
    )


if __name__ == "__main__":
    main()
