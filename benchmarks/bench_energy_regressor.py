"""EnergyRegressor against known densities, and beside other densities on the diabetes data.

First the distance from the truth, in nats a row, on two curves whose conditional density is known:
two branches, and a width that grows. Then log density and R^2 on the diabetes data of scikit-learn,
over the same folds: ridge with Gaussian residuals, gradient boosting of 19 quantiles (its density
is constant between them, with exponential tails), and a mixture density network in plain torch.

    python benchmarks/bench_energy_regressor.py [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _common import save_results, set_threads
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklebm import EnergyRegressor
from sklebm.datasets import Trumpet, TwoBranches
from sklebm.metrics import score_conditional_density

LEVELS = np.linspace(0.05, 0.95, 19)
Fitted = tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]


def ridge(X: Any, y: Any, quick: bool) -> Fitted:
    """Gaussian residuals, their variance from the training rows."""
    model = Ridge(1.0).fit(X, y)
    scale = np.std(y - model.predict(X))

    def log_density(rows: Any, t: Any) -> Any:
        gap = (t - model.predict(rows)) / scale
        return -0.5 * gap**2 - np.log(scale * np.sqrt(2 * np.pi))

    return model.predict, log_density


def quantiles(X: Any, y: Any, quick: bool) -> Fitted:
    """One boosted model for each level, sorted; the median is the prediction."""
    n_trees = 10 if quick else 100
    models = [
        GradientBoostingRegressor(
            loss="quantile", alpha=level, n_estimators=n_trees, max_depth=2, random_state=0
        ).fit(X, y)
        for level in LEVELS
    ]

    def all_levels(rows: Any) -> Any:
        return np.sort(np.stack([model.predict(rows) for model in models], axis=1), axis=1)

    def log_density(rows: Any, t: Any) -> Any:
        q = all_levels(rows)
        width = np.maximum(np.diff(q, axis=1), 1e-3 * np.ptp(y))
        place = np.clip((q < t[:, None]).sum(axis=1) - 1, 0, len(LEVELS) - 2)
        inside = 0.05 / width[np.arange(len(t)), place]
        # Beyond the outer levels: exponential tails that continue the density.
        outer = (
            np.maximum(q[:, 0] - t, 0) / width[:, 0] + np.maximum(t - q[:, -1], 0) / width[:, -1]
        )
        return np.log(inside) - outer

    return lambda rows: all_levels(rows)[:, len(LEVELS) // 2], log_density


class MixtureDensity(nn.Module):
    """Five Gaussians whose weights, means and widths are outputs of a network."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(n_features, 64), nn.SiLU(), nn.Linear(64, 15))

    def forward(self, x: Any) -> Any:
        """The mixtures."""
        logits, means, log_scales = self.network(x).chunk(3, dim=1)
        parts = torch.distributions.Normal(means, log_scales.clamp(-5, 5).exp())
        return torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=logits), parts
        )


def mixture(X: Any, y: Any, quick: bool) -> Fitted:
    """Trained by Adam with weight decay; the mean is the prediction."""
    torch.manual_seed(0)
    shift, scale = y.mean(), y.std()
    rows, targets = torch.from_numpy(X).float(), torch.from_numpy((y - shift) / scale).float()
    model = MixtureDensity(X.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.1)
    for _ in range(20 if quick else 300):
        loss = -model(rows).log_prob(targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def predict(x: Any) -> Any:
        with torch.no_grad():
            return model(torch.from_numpy(x).float()).mean.numpy() * scale + shift

    def log_density(x: Any, t: Any) -> Any:
        with torch.no_grad():
            at = torch.from_numpy((t - shift) / scale).float()
            return model(torch.from_numpy(x).float()).log_prob(at).numpy() - np.log(scale)

    return predict, log_density


def energy(X: Any, y: Any, quick: bool) -> Fitted:
    """The default network, held back by its penalty."""
    model = EnergyRegressor(
        (16,), alpha=0.03, max_epochs=3 if quick else 60, random_state=0, device="cpu"
    ).fit(X, y)
    return model.predict, model.conditional_log_density


def curves(quick: bool) -> list[list[Any]]:
    """Nats from the truth."""
    n_rows, n_seeds = (300, 1) if quick else (5000, 3)
    found = []
    for curve in (TwoBranches(), Trumpet()):
        X_test, y_test = curve.sample(n_rows, random_state=100)
        truth = curve.conditional_log_density(X_test, y_test).mean()
        choices = {"Gaussian": {"hidden_sizes": ()}}
        choices |= {name: {"objective": name} for name in ("nll", "nce", "score_matching")}
        for name, settings in choices.items():
            gaps, start = [], time.perf_counter()
            for seed in range(n_seeds):
                X, y = curve.sample(n_rows, random_state=seed)
                epochs = 2 if quick else 40
                model = EnergyRegressor(
                    **settings, max_epochs=epochs, random_state=seed, device="cpu"
                ).fit(X, y)
                gaps.append(truth - score_conditional_density(model, X_test, y_test))
            seconds = (time.perf_counter() - start) / n_seeds
            gap = round(float(np.mean(gaps)), 3)
            found.append([type(curve).__name__, name, gap, "–", round(seconds, 1)])
            print(*found[-1], sep="  ", flush=True)
    return found


def diabetes(quick: bool) -> list[list[Any]]:
    """Negative log density and R^2 over ten folds."""
    X, y = load_diabetes(return_X_y=True)
    found = []
    for fit in (ridge, quantiles, mixture, energy):
        densities, scores, start = [], [], time.perf_counter()
        for train, test in KFold(2 if quick else 10, shuffle=True, random_state=0).split(X):
            scaler = StandardScaler().fit(X[train])
            rows, rows_test = scaler.transform(X[train]), scaler.transform(X[test])
            predict, log_density = fit(rows, y[train], quick)
            densities.append(log_density(rows_test, y[test]).mean())
            scores.append(r2_score(y[test], predict(rows_test)))
        loss, score = -round(float(np.mean(densities)), 3), round(float(np.mean(scores)), 3)
        seconds = round((time.perf_counter() - start) / len(scores), 2)
        found.append(["diabetes", fit.__name__, loss, score, seconds])
        print(*found[-1], sep="  ", flush=True)
    return found


def main() -> None:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rows, epochs and folds")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    rows = curves(options.quick) + diabetes(options.quick)
    if options.quick:
        return
    save_results(
        "energy_regressor",
        "EnergyRegressor: nats from known densities, and the diabetes data",
        ["data", "model", "nats from the truth, or minus log density", "R^2", "fit (s)"],
        rows,
        notes="Curves: 5,000 rows for training and test, mean of 3 seeds, 40 epochs, the default "
        "network. Diabetes: the same 10 folds for all, standardised rows, settings as they are in "
        f"the script. {options.threads} threads; seconds on a machine with other work.",
    )


if __name__ == "__main__":
    main()
