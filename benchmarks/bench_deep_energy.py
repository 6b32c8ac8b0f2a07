"""Deep energy models: what each objective learns of known densities, and the speed of its chains.

- `plane`: nats that `DeepEnergyModel` loses against the truth, by quadrature, for each objective in
  stock settings on densities of the plane, over three seeds. Denoising score matching learns the
  density of the rows plus noise, and is measured against that.
- `engine`: an update of persistent contrastive divergence with Hamiltonian Monte Carlo beside a
  bare torch loop that does the same work.

    python benchmarks/bench_deep_energy.py [plane] [engine] [--seeds 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from _common import save_results, set_threads, timed_ratio
from scipy.ndimage import gaussian_filter

from sklebm import DeepEnergyModel
from sklebm.datasets import Checkerboard, GaussianCircle, Moons, Rings
from sklebm.objectives import SampledPersistentContrastiveDivergence

DENSITIES = {
    "ring": Rings(),
    "moons": Moons(),
    "mixture": GaussianCircle(),
    "checkerboard": Checkerboard(),
}
OBJECTIVES = (
    "noise_contrastive",
    "conditional_noise_contrastive",
    "cd",
    "pcd",
    "score_matching",
    "sliced_score_matching",
    "denoising_score_matching",
)
N_ROWS = 5000
N_EPOCHS = 10  # of the timed fits
NOISE = 0.3  # of denoising score matching, its default


def smoothed_divergence(density, score_samples):
    """Nats lost against the density of the rows plus noise, on the grid of ``kl_divergence``."""
    X, area = density.grid()
    side = round(np.sqrt(len(X)))
    p = np.exp(density.log_density(X)).reshape(side, side)
    p = gaussian_filter(p, NOISE / np.sqrt(area), mode="constant").ravel()
    p /= p.sum()
    log_q = np.asarray(score_samples(X), dtype=np.float64)
    log_q -= np.logaddexp.reduce(log_q)
    inside = p > 0
    return float(np.sum(p[inside] * (np.log(p[inside]) - log_q[inside])))


def plane(options):
    """Objective x density."""
    rows = []
    for objective in OBJECTIVES:
        cells, seconds = [], []
        for density in DENSITIES.values():
            losses = []
            for seed in range(options.seeds):
                X = density.sample(N_ROWS, random_state=seed)
                start = time.perf_counter()
                model = DeepEnergyModel(objective=objective, log_partition=None, random_state=seed)
                model.fit(X)
                seconds.append(time.perf_counter() - start)
                smooth = objective == "denoising_score_matching"
                loss = (
                    smoothed_divergence(density, model.score_samples)
                    if smooth
                    else density.kl_divergence(model.score_samples)
                )
                losses.append(loss)
            cells.append(f"{np.mean(losses):.3f} ({min(losses):.3f} to {max(losses):.3f})")
        rows.append([objective, *cells, round(float(np.mean(seconds)), 1)])
        print(*rows[-1], sep="\t", flush=True)
    save_results(
        "deep_energy_plane",
        "Nats that a deep energy model loses in the plane",
        ["objective", *DENSITIES, "fit (s)"],
        rows,
        notes=f"KL(truth || model) by quadrature, mean (least to largest) over {options.seeds} "
        f"seeds; {N_ROWS} rows, stock settings of DeepEnergyModel. Score matching and conditional "
        "noise-contrastive estimation are blind to the weights of separated modes, and the edges "
        "of the checkerboard have no score. Denoising score matching is measured against the truth "
        f"smoothed by its noise of {NOISE}. Seconds: {options.threads} thread(s), with other work "
        "on the machine.",
    )


class BareEnergy(torch.nn.Module):
    """The stock network, by hand."""

    def __init__(self, n_features):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(n_features, 64),
            torch.nn.Tanh(),
            torch.nn.Linear(64, 64),
            torch.nn.Tanh(),
            torch.nn.Linear(64, 64),
        )
        self.b = torch.nn.Parameter(torch.zeros(n_features))

    def forward(self, x):
        """F(x)."""
        experts = torch.nn.functional.softplus(self.net(x)).sum(1)
        return 0.5 * x.square().sum(1) - x @ self.b - experts


def slope(energy, x):
    """Energy and its gradient."""
    x = x.detach().requires_grad_()
    value = energy(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def bare_loop(X, n_epochs, batch_size=128, n_leapfrog=5):
    """Persistent chains and Hamiltonian Monte Carlo as one writes them by hand."""
    energy = BareEnergy(X.shape[1])
    optimizer = torch.optim.RMSprop(energy.parameters(), lr=0.005)
    chains, log_step = torch.randn(batch_size, X.shape[1]), torch.full((batch_size,), -2.3)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(X)).split(batch_size):
            value, g = slope(energy, chains)
            p = torch.randn_like(chains)
            step = (log_step.exp() * (0.8 + 0.4 * torch.rand(batch_size)))[:, None]
            x, q, new = chains, p - 0.5 * step * g, value
            for index in range(n_leapfrog):
                x = x + step * q
                new, g = slope(energy, x)
                q = q - (step if index < n_leapfrog - 1 else 0.5 * step) * g
            log_ratio = value - new + 0.5 * (p.square() - q.square()).sum(1)
            accept = log_ratio.nan_to_num(nan=-torch.inf).clamp(max=0).exp()
            moved = torch.rand(batch_size) < accept
            chains = torch.where(moved[:, None], x, chains)
            log_step = log_step + 0.1 * (accept - 0.65)
            optimizer.zero_grad()
            both = energy(torch.cat([X[rows], chains]))
            loss = both[: len(rows)].mean() - both[len(rows) :].mean()
            loss.backward()
            optimizer.step()


def engine(options):
    """Time of one update, by width of the rows."""
    rows = []
    for n_features in (2, 64, 784):
        X = np.random.default_rng(0).normal(size=(128 * 40, n_features)).astype(np.float32)
        tensor = torch.from_numpy(X)
        models = {
            name: DeepEnergyModel(
                objective=SampledPersistentContrastiveDivergence(jump=jump),
                max_epochs=N_EPOCHS,
                log_partition=None,
                random_state=0,
            )
            for name, jump in (("sklebm", None), ("sklebm, no jumps", 0.0))
        }
        calls = {"bare loop": lambda tensor=tensor: bare_loop(tensor, N_EPOCHS)}
        calls.update({n: (lambda m=m, X=X: m.fit(X)) for n, m in models.items()})
        timings = timed_ratio(calls, reference="bare loop", repeats=options.repeats)
        for name, timing in timings.items():
            microseconds = 1e6 * timing.median / (40 * N_EPOCHS)
            rows.append([n_features, name, round(microseconds), round(timing.ratio, 3)])
            print(*rows[-1], sep="\t", flush=True)
    save_results(
        "deep_energy_engine",
        "An update of persistent contrastive divergence with Hamiltonian Monte Carlo",
        ["features", "contestant", "microseconds an update", "ratio to the bare loop"],
        rows,
        notes="128 rows and 128 chains, 5 leapfrog steps, a network 64-64-64, RMSprop; whole fits "
        f"of {N_EPOCHS} epochs of 40 batches, with all that comes before and after. The bare loop "
        f"has no jumps. {options.threads} thread(s), median of {options.repeats}.",
    )


def main():
    """Run what is named, or both."""
    sections = {"plane": plane, "engine": engine}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", choices=[*sections, []])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    set_threads(options.threads)
    for name in options.sections or sections:
        sections[name](options)


if __name__ == "__main__":
    main()
