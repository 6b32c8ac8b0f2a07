"""Microseconds of a training step on small data, beside a bare torch loop of the same work.

Digits (1,797 x 64) in batches of 128; the default networks of an auto-encoder, a variational one, a
deep energy by noise-contrastive estimation, and LISTA with 64 atoms. The loops are written by hand:
the same layers, losses, noise and optimisers, and one gather of rows for each batch. They have no
checks, schedules, callbacks, records or weights of rows.

Seconds of a fit of few passes are subtracted from those of one of many, for both, so that starts
and ends of fits (validation, solving for targets, log Z) do not count.

    python benchmarks/bench_steps.py [--quick]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import torch
from _common import save_results, set_threads, timed_ratio
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import relu, softplus

from sklebm import VAE, Autoencoder, DeepEnergyModel, LISTAEncoder

BATCH, FEATURES, FEW = 128, 64, 5
Loss = Callable[[torch.Tensor], torch.Tensor]


def bare_loop(x: torch.Tensor, loss: Loss, optimizer: Any, n_epochs: int) -> None:
    """What one would write by hand."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(n_epochs):
        total = torch.zeros(())
        for index in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            value = loss(index)
            value.backward()
            optimizer.step()
            total += value.detach()
        total.item()


def autoencoder(x: torch.Tensor, n_epochs: int) -> None:
    """Squared error of 64-128-32-128-64."""
    net = nn.Sequential(
        *(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32)),
        *(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 64)),
    )

    def loss(index: torch.Tensor) -> torch.Tensor:
        rows = x[index]
        return 0.5 * (net(rows) - rows).square().sum(dim=1).mean()

    adam = torch.optim.Adam(net.parameters(), lr=3e-3, fused=True)
    bare_loop(x, loss, adam, n_epochs)


def variational(x: torch.Tensor, n_epochs: int) -> None:
    """ELBO of 20 latents, Gaussian noise of a learnt scale."""
    encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 40))
    decoder = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 64))
    log_scale = nn.Parameter(torch.zeros(()))
    generator = torch.Generator().manual_seed(0)

    def loss(index: torch.Tensor) -> torch.Tensor:
        rows = x[index]
        mean, log_deviation = encoder(rows).chunk(2, dim=1)
        log_deviation = log_deviation.clamp(-15, 15)
        noise = torch.randn(mean.shape, generator=generator)
        z = mean + log_deviation.exp() * noise
        divergence = 0.5 * (mean.square() + (2 * log_deviation).exp() - 1) - log_deviation
        variance = 1e-6 + (2 * log_scale).exp()
        squares = (decoder(z) - rows).square().sum(dim=1)
        constant = variance.log() + math.log(2 * math.pi)
        return (
            divergence.sum() / len(rows) + 0.5 * (squares / variance + FEATURES * constant).mean()
        )

    parameters = [*encoder.parameters(), *decoder.parameters(), log_scale]
    bare_loop(x, loss, torch.optim.Adam(parameters, lr=3e-3, fused=True), n_epochs)


def deep_energy(x: torch.Tensor, n_epochs: int) -> None:
    """64 experts on two layers of 64, four rows of Gaussian noise for each row."""
    net = nn.Sequential(
        *(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
    )
    bias, log_z = nn.Parameter(torch.zeros(64)), nn.Parameter(torch.zeros(()))
    mean, factor = x.mean(dim=0), torch.linalg.cholesky(x.T.cov() + 0.01 * torch.eye(64))
    precision = 1 / x.var(dim=0).mean()
    generator = torch.Generator().manual_seed(0)
    constant = 32 * math.log(2 * math.pi) + factor.diagonal().log().sum() + math.log(4)

    def log_ratio(u: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            white = torch.linalg.solve_triangular(factor, (u - mean).T, upper=False)
            log_q = -0.5 * white.square().sum(dim=0) - constant
        energy = 0.5 * precision * u.square().sum(dim=1) - u @ bias - softplus(net(u)).sum(dim=1)
        return -energy - log_z - log_q

    def loss(index: torch.Tensor) -> torch.Tensor:
        rows = x[index]
        white = torch.randn(4 * len(rows), FEATURES, generator=generator)
        noise = torch.addmm(mean, white, factor.T)
        both = log_ratio(torch.cat([rows, noise]))
        n = len(rows)
        return softplus(-both[:n]).mean() + softplus(both[n:]).sum() / n

    parameters = [*net.parameters(), bias, log_z]
    bare_loop(x, loss, torch.optim.RMSprop(parameters, lr=5e-3), n_epochs)


def lista(x: torch.Tensor, n_epochs: int) -> None:
    """Three layers after a first shrink, with shared matrices, that predict given codes."""
    codes = relu(torch.randn(len(x), 64, generator=torch.Generator().manual_seed(0)) - 1)
    filters = nn.Parameter(0.1 * torch.randn(64, 64))
    inhibition, thresholds = nn.Parameter(torch.eye(64)), nn.Parameter(torch.full((4, 64), 0.1))

    def shrink(u: torch.Tensor, layer: int) -> torch.Tensor:
        return torch.sign(u.detach()) * relu(u.abs() - thresholds[layer])

    def loss(index: torch.Tensor) -> torch.Tensor:
        fields = x[index] @ filters.T
        z = shrink(fields, 0)
        for layer in (1, 2, 3):
            z = shrink(torch.addmm(fields, z, inhibition.T), layer)
        return 0.5 * (z - codes[index]).square().sum(dim=1).mean()

    adam = torch.optim.Adam([filters, inhibition, thresholds], lr=1e-3, fused=True)
    bare_loop(x, loss, adam, n_epochs)


COMMON = {"batch_size": BATCH, "random_state": 0, "device": "cpu"}
MODELS: dict[str, tuple[Callable[..., None], Callable[[int], Any]]] = {
    "Autoencoder": (autoencoder, lambda n: Autoencoder(max_epochs=n, **COMMON)),
    "VAE": (variational, lambda n: VAE(max_epochs=n, beta_warmup=0, **COMMON)),
    "DeepEnergyModel": (
        deep_energy,
        lambda n: DeepEnergyModel(max_epochs=n, log_partition=None, **COMMON),
    ),
    "LISTAEncoder": (lista, lambda n: LISTAEncoder(64, max_epochs=n, **COMMON)),
}


def measure(name: str, x: torch.Tensor, many: int, repeats: int) -> list[Any]:
    """One row of the table."""
    loop, make = MODELS[name]
    contestants: dict[str, Callable[[], object]] = {}
    for n in (FEW, many):
        contestants[f"bare {n}"] = lambda n=n: loop(x, n)
        contestants[f"sklebm {n}"] = lambda n=n: make(n).fit(x)
    timings = timed_ratio(contestants, reference=f"bare {many}", repeats=repeats)
    n_steps = (many - FEW) * -(-len(x) // BATCH)
    bare, ours = (
        1e6 * (timings[f"{who} {many}"].median - timings[f"{who} {FEW}"].median) / n_steps
        for who in ("bare", "sklebm")
    )
    return [name, round(bare), round(ours), round(ours - bare), round(ours / bare, 2)]


def main() -> None:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few passes, nothing recorded")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    set_threads(options.threads)
    x = torch.from_numpy(load_digits().data).float() / 16
    many, repeats = (10, 2) if options.quick else (55, 7)
    rows = []
    for name in MODELS:
        rows.append(measure(name, x, many, repeats))
        print(*rows[-1], sep="\t", flush=True)
    if not options.quick:
        save_results(
            "steps",
            "Training steps on digits beside a bare torch loop",
            ["model", "bare loop (us)", "sklebm (us)", "over bare (us)", "ratio"],
            rows,
            notes=f"Batches of {BATCH}, {options.threads} thread(s), float32; differences of fits "
            f"of {many} and {FEW} passes, medians of {repeats}.",
        )


if __name__ == "__main__":
    main()
