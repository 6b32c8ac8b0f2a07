"""Sequences: chorales, planted anomalies in series, and the cost of an epoch.

Each question is one section, named on the command line:

- `chorales`: negative log-likelihood per time step of the J. S. Bach chorales in the split of
  Boulanger-Lewandowski, Bengio and Vincent (2012), mean over all steps of the test pieces, of
  models that learn from the training pieces as they are, and in eleven keys. Settings, but for
  those of the machine in eleven keys, were chosen on the validation pieces. Needs the folder of
  data sets named by SKLEBM_DATA.
- `anomalies`: AUROC of the surprise of steps against planted anomalies in periodic and switching
  series, against an isolation forest on sliding windows. Each has its settings chosen, per kind of
  series, on series of their own; medians over five seeds, each with new series to learn from.
- `speed`: an epoch of an LSTM against a bare torch loop on padded batches.

    python benchmarks/bench_sequences.py chorales anomalies speed [--quick]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import save_results, set_threads, timed_ratio
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from torch import nn

from sklebm import SequenceEnergy
from sklebm.datasets import SwitchingProcess

Table = list[list[object]]


def load_chorales() -> tuple[Any, Any, Any]:
    """Piano rolls, the piece of each step, and its part: 0 train, 1 validation, 2 test."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("SKLEBM_DATA is not set: this section needs the folder of data sets.")
    with np.load(Path(folder) / "chorales.npz") as file:
        roll = np.unpackbits(file["roll"], axis=1, count=88).astype(np.float32)
        lengths, split = file["lengths"], file["split"]
    return roll, np.repeat(np.arange(len(lengths)), lengths), np.repeat(split, lengths)


# Width, dropout, weight decay and the number of epochs were chosen on the validation pieces. In
# eleven keys, the machine takes those of the LSTM, and fewer epochs, without a search.
_COMMON: dict[str, Any] = {"n_components": 256, "learning_rate": 0.01, "optimizer": "adamw"}
_AS_THEY_ARE = {"dropout": 0.5, "net_params": {"optimizer__weight_decay": 0.1}, "max_epochs": 20}
_IN_KEYS = {"dropout": 0.3, "net_params": {"optimizer__weight_decay": 0.01}, "max_epochs": 16}
_MACHINE = {"cell": "gru", "output": "rbm", "n_latents": 12, "n_gibbs_steps": 5}
ONE_KEY, ELEVEN_KEYS = range(1), range(-5, 6)
CHORALES: dict[str, tuple[range, dict[str, Any]]] = {
    "LSTM, Bernoulli": (ONE_KEY, {**_AS_THEY_ARE, "cell": "lstm", "output": "bernoulli"}),
    "GRU, Bernoulli": (ONE_KEY, {**_AS_THEY_ARE, "cell": "gru", "output": "bernoulli"}),
    "GRU, RBM of 12 hidden units": (ONE_KEY, {**_AS_THEY_ARE, **_MACHINE, "max_epochs": 28}),
    "LSTM, Bernoulli, in eleven keys": (
        ELEVEN_KEYS,
        {**_IN_KEYS, "cell": "lstm", "output": "bernoulli"},
    ),
    "GRU, RBM of 12 hidden units, in eleven keys": (
        ELEVEN_KEYS,
        {**_IN_KEYS, **_MACHINE, "max_epochs": 12},
    ),
}


def transposed(roll: Any, piece: Any, keys: range) -> tuple[Any, Any]:
    """The pieces in several keys: a chorale a few semitones higher is as good a chorale."""
    rolls = [np.roll(roll, key, axis=1) for key in keys]  # no note is near either end
    return np.concatenate(rolls), np.concatenate([piece + 1000 * key for key in keys])


def measure_chorales(quick: bool) -> Table:
    """Nats per step on the pieces of each part that was not learnt from."""
    roll, piece, part = load_chorales()
    train, valid, test = (part == number for number in range(3))
    if quick:
        train &= piece < 8
        valid &= piece < np.unique(piece[valid])[2]
        test &= piece < np.unique(piece[test])[2]
    table: Table = []
    for name, (keys, settings) in CHORALES.items():
        settings = {**_COMMON, **settings, "random_state": 0}
        if quick:
            settings |= {"max_epochs": 1, "n_components": 8, "n_latents": 4}
        X, groups = transposed(roll[train], piece[train], keys)
        begun = time.perf_counter()
        model = SequenceEnergy(**settings).fit(X, groups=groups)
        seconds = time.perf_counter() - begun
        losses = [-model.score(roll[rows], groups=piece[rows]) for rows in (train, valid, test)]
        table.append([name, *(round(loss, 2) for loss in losses), model.n_iter_, round(seconds)])
        print(*table[-1], flush=True)
    return table


def planted(kind: str, n_sequences: int, seed: int, rate: float = 0.01) -> tuple[Any, Any, Any]:
    """Series, their names, and the steps that were changed: each to a value of another time."""
    n_steps = 200
    random = np.random.default_rng(seed)
    if kind == "periodic":
        phase = random.uniform(0.0, 2.0 * np.pi, (n_sequences, 1))
        t = np.arange(n_steps)
        X = np.sin(0.3 * t + phase) + 0.5 * np.sin(0.9 * t + 3.0 * phase)
        X = (X + 0.05 * random.standard_normal(X.shape)).reshape(-1, 1)
        groups = np.repeat(np.arange(n_sequences), n_steps)
    else:
        process = SwitchingProcess((0.98, -0.95), (0.0, 0.0), (0.1, 0.1), stay=0.99)
        X, groups = process.sample(n_sequences, n_steps, random_state=seed)
    where = random.uniform(size=len(X)) < rate
    where &= np.arange(len(X)) % n_steps >= 20
    changed = X.copy()
    changed[where] = random.permutation(X)[where]
    # A value that happens to be nearly the one that was there is no anomaly.
    where &= np.abs(changed - X)[:, 0] > 0.5 * X.std()
    changed[~where] = X[~where]
    return changed, groups, where


def windows(values: Any, groups: Any, width: int) -> Any:
    """Each step with the ones before it; those before the first are the first."""
    table = np.empty((len(values), width), dtype=values.dtype)
    for name in np.unique(groups):
        own = values[groups == name]
        padded = np.concatenate([np.full(width - 1, own[0]), own])
        table[groups == name] = np.lib.stride_tricks.sliding_window_view(padded, width)
    return table


def auroc_of_surprise(clean: Any, test: Any, seed: int, epochs: int, **settings: Any) -> float:
    """All steps count, those after an anomaly as well."""
    (X, groups, _), (X_test, names, truth) = clean, test
    model = SequenceEnergy(cell="gru", max_epochs=epochs, random_state=seed, **settings)
    model.fit(X, groups=groups)
    return float(roc_auc_score(truth, -model.score_samples(X_test, groups=names)))


def auroc_of_forest(clean: Any, test: Any, seed: int, width: int, n_estimators: int) -> float:
    """An anomaly is the window that ends on it; the others that contain it do not count."""
    (X, groups, _), (X_test, names, truth) = clean, test
    forest = IsolationForest(n_estimators=n_estimators, random_state=seed)
    forest.fit(windows(X[:, 0], groups, width))
    counts = truth | ~windows(truth, names, width).any(axis=1)
    scores = -forest.score_samples(windows(X_test[:, 0], names, width)[counts])
    return float(roc_auc_score(truth[counts], scores))


def measure_anomalies(quick: bool) -> Table:
    """AUROC of steps of new series; learnt from series without anomalies."""
    n_sequences, epochs, n_seeds = (8, 2, 2) if quick else (25, 30, 5)
    surprises: list[dict[str, Any]] = [
        {"n_components": width, "learning_rate": rate, "batch_size": 1000}
        for width, rate in ((32, 0.01), (32, 0.03), (64, 0.03))
    ]
    forests: list[dict[str, Any]] = [
        {"width": width, "n_estimators": n_trees}
        for width in (1, 2, 3, 5, 10, 20)
        for n_trees in (100, 300)
    ]
    if quick:
        surprises, forests = surprises[1:], forests[::4]
    table: Table = []
    for kind in ("periodic", "switching"):

        def series(seed: int, kind: str = kind) -> tuple[Any, Any, int]:
            clean = planted(kind, n_sequences, 2 * seed, rate=0.0)
            return clean, planted(kind, n_sequences, 2 * seed + 1), seed

        choice = series(n_seeds)
        own = max(surprises, key=lambda given: auroc_of_surprise(*choice, epochs, **given))
        other = max(forests, key=lambda given: auroc_of_forest(*choice, **given))
        print(kind, own, other, flush=True)
        seeds = [series(seed) for seed in range(n_seeds)]
        found = [
            (auroc_of_surprise(*each, epochs, **own), auroc_of_forest(*each, **other))
            for each in seeds
        ]
        n_planted = sum(int(test[2].sum()) for _, test, _ in seeds)
        medians = np.median(found, axis=0).round(3).tolist()
        spreads = np.ptp(found, axis=0).round(3).tolist()
        chosen = (", ".join(f"{k}={v}" for k, v in given.items()) for given in (own, other))
        table.append([kind, n_planted, *medians, *spreads, *chosen])
        print(*table[-1], flush=True)
    return table


class Bare(nn.Module):
    """The same model as a torch user would write it."""

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        self.net = nn.LSTM(n_features, width)
        self.readout = nn.Linear(width, n_features)

    def forward(self, x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Mean loss of the real steps of a padded batch."""
        shifted = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
        logits = self.readout(self.net(shifted)[0])
        losses = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
        return losses.sum(dim=2)[real].mean()


def measure_speed(quick: bool) -> Table:
    """An epoch of each, in turns; batches of about as many rows, sequences of 60 to 80 steps."""
    random = np.random.default_rng(0)
    lengths = random.integers(60, 81, size=20 if quick else 200)
    X = (random.uniform(size=(lengths.sum(), 88)) < 0.05).astype(np.float32)
    groups = np.repeat(np.arange(len(lengths)), lengths)
    n_epochs, width, per_batch = (1, 8, 8) if quick else (4, 128, 8)
    sequences = [torch.from_numpy(part) for part in np.split(X, np.cumsum(lengths)[:-1])]

    def bare() -> None:
        torch.manual_seed(0)
        model = Bare(88, width)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.003, fused=True)
        for _ in range(n_epochs):
            for part in torch.randperm(len(sequences)).split(per_batch):
                chosen = [sequences[index] for index in part]
                x = nn.utils.rnn.pad_sequence(chosen)
                own = torch.tensor([len(sequence) for sequence in chosen])
                loss = model(x, torch.arange(len(x))[:, None] < own)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()

    def ours() -> None:
        SequenceEnergy(
            width,
            output="bernoulli",
            batch_size=int(per_batch * 70 - 35),
            max_epochs=n_epochs,
            random_state=0,
        ).fit(X, groups=groups)

    timings = timed_ratio(
        {"bare": bare, "sklebm": ours}, reference="bare", repeats=2 + 3 * (not quick)
    )
    table: Table = [
        [name, round(timing.median / n_epochs, 3), round(timing.ratio, 2)]
        for name, timing in timings.items()
    ]
    for row in table:
        print(*row, flush=True)
    return table


SECTIONS = {
    "chorales": (
        "Chorales: nats per time step",
        ["model", "train", "validation", "test", "epochs", "seconds"],
        measure_chorales,
    ),
    "anomalies": (
        "Planted anomalies: median AUROC of single steps",
        [
            "series",
            "anomalies",
            "surprise",
            "isolation forest on windows",
            "largest minus least surprise",
            "largest minus least forest",
            "settings of SequenceEnergy",
            "settings of the forest",
        ],
        measure_anomalies,
    ),
    "speed": ("An epoch of an LSTM", ["loop", "seconds", "ratio"], measure_speed),
}


def main() -> None:
    """Measure the sections that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sections", nargs="+", choices=SECTIONS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true", help="write the results")
    options = parser.parse_args()
    set_threads(options.threads)
    for name in options.sections:
        title, columns, measure = SECTIONS[name]
        table = measure(options.quick)
        if options.save and not options.quick:
            save_results(
                f"sequences_{name}",
                title,
                columns,
                table,
            )


if __name__ == "__main__":
    main()
