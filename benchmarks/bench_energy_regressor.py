"""EnergyRegressor against known densities, and beside other densities on the diabetes data.

First the distance from the truth, in nats a row, on two curves whose conditional density is known:
two branches, and a width that grows. Then log density and R^2 on the diabetes data of scikit-learn,
over the same folds: ridge with Gaussian residuals, gradient boosting of 19 quantiles (its density
is constant between them, with exponential tails), and a mixture density network in plain torch.
In each fold every method takes those of its settings whose log density is highest in three folds
of the training rows.

`--penalties` prints how the default of ``alpha`` was chosen, on generated tables apart from these:
log density of new rows, for penalties worth so many rows, and for the former 1e-4.

    python benchmarks/bench_energy_regressor.py [--quick] [--penalties]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch
from _common import save_results, set_threads
from sklearn.datasets import (
    load_diabetes,
    make_friedman1,
    make_friedman2,
    make_friedman3,
    make_regression,
    make_sparse_uncorrelated,
)
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


def ridge(X: Any, y: Any, quick: bool, alpha: float) -> Fitted:
    """Gaussian residuals, their variance from the training rows."""
    model = Ridge(alpha).fit(X, y)
    scale = np.std(y - model.predict(X))

    def log_density(rows: Any, t: Any) -> Any:
        gap = (t - model.predict(rows)) / scale
        return -0.5 * gap**2 - np.log(scale * np.sqrt(2 * np.pi))

    return model.predict, log_density


def quantiles(X: Any, y: Any, quick: bool, rate: float) -> Fitted:
    """One boosted model for each level, sorted; the median is the prediction."""
    settings = {"n_estimators": 10 if quick else 100, "max_depth": 2, "random_state": 0}
    models = [
        GradientBoostingRegressor(loss="quantile", alpha=level, learning_rate=rate, **settings).fit(
            X, y
        )
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


def mixture(X: Any, y: Any, quick: bool, n_steps: int, decay: float) -> Fitted:
    """Trained by Adam with weight decay; the mean is the prediction."""
    torch.manual_seed(0)
    shift, scale = y.mean(), y.std()
    rows, targets = torch.from_numpy(X).float(), torch.from_numpy((y - shift) / scale).float()
    model = MixtureDensity(X.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=decay)
    for _ in range(20 if quick else n_steps):
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


def energy(X: Any, y: Any, quick: bool, hidden_sizes: tuple[int, ...], alpha: float) -> Fitted:
    """Ours: a network of this size, held back by its penalty."""
    settings = {"max_epochs": 3 if quick else 60, "random_state": 0, "device": "cpu"}
    model = EnergyRegressor(hidden_sizes, alpha=alpha, **settings).fit(X, y)
    return model.predict, model.conditional_log_density


CANDIDATES: dict[Callable[..., Fitted], list[tuple[Any, ...]]] = {
    ridge: [(alpha,) for alpha in (0.1, 1.0, 10.0, 100.0)],
    quantiles: [(rate,) for rate in (0.03, 0.1)],
    mixture: list(product((30, 100, 300), (0.01, 0.1, 1.0))),
    energy: list(product(((), (16,), (64,)), (0.01, 0.1, 1.0))),
}


def chosen(fit: Callable[..., Fitted], X: Any, y: Any, quick: bool) -> tuple[Any, ...]:
    """The settings of highest log density in three folds."""
    candidates = CANDIDATES[fit][:2] if quick else CANDIDATES[fit]
    folds = list(KFold(3, shuffle=True, random_state=1).split(X))
    found = []
    for settings in candidates:
        densities = [fit(X[a], y[a], quick, *settings)[1](X[b], y[b]).mean() for a, b in folds]
        found.append(np.mean(densities))
    return candidates[int(np.argmax(found))]


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
    for fit in CANDIDATES:
        densities, scores, start = [], [], time.perf_counter()
        for train, test in KFold(2 if quick else 10, shuffle=True, random_state=0).split(X):
            scaler = StandardScaler().fit(X[train])
            rows, rows_test = scaler.transform(X[train]), scaler.transform(X[test])
            settings = chosen(fit, rows, y[train], quick)
            predict, log_density = fit(rows, y[train], quick, *settings)
            densities.append(log_density(rows_test, y[test]).mean())
            scores.append(r2_score(y[test], predict(rows_test)))
        loss, score = -round(float(np.mean(densities)), 3), round(float(np.mean(scores)), 3)
        seconds = round((time.perf_counter() - start) / len(scores), 2)
        found.append(["diabetes", fit.__name__, loss, score, seconds])
        print(*found[-1], sep="  ", flush=True)
    return found


def skewed(n: int) -> tuple[Any, Any]:
    """Exponential noise, whose scale depends on a feature."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(n, 4))
    return X, X[:, 0] + np.exp(0.5 * X[:, 1]) * generator.exponential(size=n)


def two_widths(n: int) -> tuple[Any, Any]:
    """A wave and a line with noise of two widths."""
    generator = np.random.default_rng(0)
    X = generator.uniform(-1, 1, size=(n, 6))
    widths = np.where(X[:, 2] > 0, 1.0, 0.2)
    return X, np.sin(3 * X[:, 0]) + X[:, 1] + widths * generator.normal(size=n)


TABLES: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "Friedman 1": lambda n: make_friedman1(n, noise=1.0, random_state=0),
    "Friedman 1, loud": lambda n: make_friedman1(n, noise=6.0, random_state=0),
    "Friedman 2": lambda n: make_friedman2(n, noise=100.0, random_state=0),
    "Friedman 3": lambda n: make_friedman3(n, noise=0.1, random_state=0),
    "linear": lambda n: make_regression(n, 12, n_informative=5, noise=80.0, random_state=0),
    "sparse": lambda n: make_sparse_uncorrelated(n, random_state=0),
    "skewed": skewed,
    "two widths": two_widths,
}


def penalties() -> None:
    """Print log density of 1,000 new rows and R^2, by table, size and penalty."""
    for name, make in TABLES.items():
        for n in (120, 400):
            X, y = make(n + 1000)
            for label, alpha in {"1e-4": 1e-4, **{f"{k} / n": k / n for k in (1, 2, 3, 5)}}.items():
                model = EnergyRegressor(alpha=alpha, random_state=0, device="cpu").fit(X[:n], y[:n])
                density = model.conditional_log_density(X[n:], y[n:]).mean()
                score = model.score(X[n:], y[n:])
                print(name, n, label, f"{density:.3f}", f"{score:.3f}", sep="\t", flush=True)


def main() -> None:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rows, epochs and folds")
    parser.add_argument("--penalties", action="store_true", help="how alpha was chosen; no record")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    if options.penalties:
        penalties()
        return
    rows = curves(options.quick) + diabetes(options.quick)
    if options.quick:
        return
    save_results(
        "energy_regressor",
        "EnergyRegressor: nats from known densities, and the diabetes data",
        ["data", "model", "nats from the truth, or minus log density", "R^2", "fit (s)"],
        rows,
        notes="Curves: 5,000 rows for training and test, mean of 3 seeds, 40 epochs, the default "
        "network. Diabetes: the same 10 folds for all, standardised rows, settings chosen in each; "
        f"seconds with that choice. {options.threads} threads; a machine with other work.",
    )


if __name__ == "__main__":
    main()
