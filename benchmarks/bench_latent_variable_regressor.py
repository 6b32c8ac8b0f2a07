"""LatentVariableRegressor: axes of an ellipse recovered, and the density of two branches.

The ellipse is (w1 cos z, w2 sin z) with Gaussian noise; the error is the larger of the two axes',
relative to the truth, averaged over seeds. Beside it stands that of maximum likelihood with the
true noise, by SciPy on an angle grid of its own: what it misses, the rows do not tell. The branches
are ``sklebm.datasets.TwoBranches``, whose density is known: beta is chosen on a third of the
training rows, and the figure is nats a row below the truth on new rows, beside ridge with Gaussian
residuals.

    python benchmarks/bench_latent_variable_regressor.py [--quick]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from _common import save_results, set_threads
from scipy.optimize import minimize
from scipy.special import logsumexp

from sklebm import EnergyRegressor, LatentVariableRegressor
from sklebm.datasets import TwoBranches
from sklebm.metrics import score_conditional_density

AXES = np.array([2.0, 0.8])
BETAS = (10.0, 30.0, 100.0, 300.0)


class Ellipse(torch.nn.Module):
    """(w1 cos z, w2 sin z)."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.axes = torch.nn.Parameter(torch.ones(2))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """The points at angles z."""
        return self.axes * torch.cat([z.cos(), z.sin()], dim=1)


def most_likely(Y: Any, noise: float) -> Any:
    """The axes of highest likelihood, the angle being uniform."""
    z = np.linspace(-np.pi, np.pi, 721)[:-1]
    circle = np.stack([np.cos(z), np.sin(z)], axis=1)

    def loss(axes: Any) -> float:
        distance = np.square(Y[:, None] - axes * circle).sum(axis=2)
        return -float(logsumexp(-0.5 * distance / noise**2, axis=1).mean())

    return minimize(loss, AXES, method="Nelder-Mead", options={"xatol": 1e-5}).x


def ellipse(n_rows: int, noise: float, seed: int) -> tuple[float, float]:
    """Largest relative error of an axis, and that of maximum likelihood."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-np.pi, np.pi, size=n_rows)
    Y = AXES * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    Y = Y + noise * rng.normal(size=Y.shape)
    model = LatentVariableRegressor(
        1,
        latent="grid",
        latent_range=(-np.pi, np.pi),
        n_points=193,
        beta=1.0 / noise**2,
        network=Ellipse,
        standardize=False,
        alpha=0.0,
        optimizer="lbfgs",
        learning_rate=1.0,
        max_epochs=60,
        random_state=seed,
    ).fit(Y)
    learnt, best = np.abs(model.weights_["network.axes"]), most_likely(Y, noise)
    return float(np.abs(learnt / AXES - 1.0).max()), float(np.abs(best / AXES - 1.0).max())


def branches(n_rows: int, seed: int) -> tuple[float, float, float]:
    """Nats below the truth of branches and of a Gaussian, and the beta that was chosen."""
    curve = TwoBranches()
    X, y = curve.sample(n_rows, random_state=seed)
    X_new, y_new = curve.sample(2000, random_state=1000 + seed)
    truth = float(np.mean(curve.conditional_log_density(X_new, y_new)))
    kept = np.arange(n_rows) % 3 > 0
    scores = []
    for beta in BETAS:
        model = LatentVariableRegressor(2, beta=beta, random_state=seed).fit(X[kept], y[kept])
        scores.append(score_conditional_density(model, X[~kept], y[~kept]))
    best = BETAS[int(np.argmax(scores))]
    model = LatentVariableRegressor(2, beta=best, random_state=seed).fit(X, y)
    gaussian = EnergyRegressor(()).fit(X, y)
    found = (score_conditional_density(m, X_new, y_new) for m in (model, gaussian))
    return *(truth - score for score in found), best  # type: ignore[return-value]


def main() -> None:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, few rows")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    n_seeds, n_rows = (1, 300) if options.quick else (5, 2000)
    rows: list[list[Any]] = []
    for noise, size in ((0.02, 500), (0.1, 500), (0.1, 2000)):
        start = time.perf_counter()
        errors = np.array([ellipse(size, noise, seed) for seed in range(n_seeds)])
        seconds = (time.perf_counter() - start) / n_seeds
        (mean, likely), (worst, worst_likely) = 100 * errors.mean(axis=0), 100 * errors.max(axis=0)
        shown = f"{mean:.2f} % (worst {worst:.2f} %)"
        shown += f"; maximum likelihood {likely:.2f} % (worst {worst_likely:.2f} %)"
        rows.append([f"ellipse, {size} rows, noise {noise}", shown, round(seconds, 2)])
        print(*rows[-1], sep="  ", flush=True)
    start = time.perf_counter()
    found = [branches(n_rows, seed) for seed in range(n_seeds)]
    seconds = (time.perf_counter() - start) / n_seeds
    own, gaussian, _ = np.mean(found, axis=0)
    betas = sorted({pair[2] for pair in found})
    rows.append(
        [
            f"two branches, {n_rows} rows",
            f"{own:.3f} nats below the truth (Gaussian {gaussian:.3f}); beta {betas}",
            round(seconds, 2),
        ]
    )
    print(*rows[-1], sep="  ", flush=True)
    if not options.quick:
        save_results(
            "latent_variable_regressor",
            "LatentVariableRegressor: an ellipse, and two branches",
            ["task", "result", "seconds a run"],
            rows,
            notes=f"Mean of {n_seeds} seeds. Errors of the axes are relative to the truth.",
        )


if __name__ == "__main__":
    main()
