"""Which detector finds most outliers without tuning: one default, or PyOD's.

``EnergyOutlierDetector()`` beside PyOD's detectors in their default settings, and on demand the
mean of the standardised scores of five textbook detectors, on the 23 tables of
``$SKLEBM_DATA/adbench_dev`` and ``adbench_more`` (ADBench's "Classical" ones; npz files with ``X``
and ``y``, 1 for anomalies). Each is split 70/30, stratified; at most 4,000 training rows,
standardised. The training rows are all of the 70 % ("contaminated") or the normal ones among them
("normals only"); the AUROC is that of the 30 %. ``pip install pyod`` brings the peers; ``--deep``
takes its three neural ones instead.
``--plain`` adds the mean of five, whose robust covariance takes minutes on the widest table;
``--cache FILE`` keeps the AUROC of the peers, so that a run that was stopped goes on, and another
default is measured without them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from _common import area_under_roc, save_results, set_threads
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from sklearn.covariance import MinCovDet
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from sklebm import EnergyOutlierDetector

OURS = "EnergyOutlierDetector"
PLAIN = "mean of five"
FOLDERS = ("adbench_dev", "adbench_more")
MAX_ROWS = 4000
MODES = ("contaminated", "normals only")
SEEDED = ("CBLOF", "GMM", "IForest", "INNE", "MCD", "PCA")
UNSEEDED = ("COPOD", "ECOD", "HBOS", "KNN", "LOF", "OCSVM")

Scores = dict[tuple[str, str, str], list[float]]


def pyod_class(module: str, name: str) -> Any:
    """A detector of PyOD; says what to install if there is none."""
    try:
        return getattr(importlib.import_module(f"pyod.models.{module}"), name)
    except ImportError as error:
        sys.exit(f"The peers are PyOD's detectors: pip install pyod ({error}).")


def peers() -> dict[str, Callable[[int, int], Any]]:
    """Makers of PyOD's classical detectors from a seed and a number of features."""
    makers: dict[str, Callable[[int, int], Any]] = {}
    for name in sorted(SEEDED + UNSEEDED):
        cls = pyod_class(name.lower(), name)
        seeded = name in SEEDED
        makers[name] = lambda seed, _, cls=cls, seeded=seeded: (
            cls(random_state=seed) if seeded else cls()
        )
    return makers


def neural_peers() -> dict[str, Callable[[int, int], Any]]:
    """Makers of PyOD's neural detectors."""
    auto_encoder = pyod_class("auto_encoder", "AutoEncoder")
    deep_svdd = pyod_class("deep_svdd", "DeepSVDD")
    vae = pyod_class("vae", "VAE")
    return {
        "AutoEncoder": lambda seed, _: auto_encoder(random_state=seed, verbose=0),
        "DeepSVDD": lambda seed, d: deep_svdd(n_features=d, random_state=seed, verbose=0),
        "VAE": lambda seed, _: vae(random_state=seed, verbose=0),
    }


def find_tables() -> list[Path]:
    """The files of all tables, by the number that begins their name."""
    root = Path(os.environ["SKLEBM_DATA"])
    found = [path for folder in FOLDERS for path in (root / folder).glob("*.npz")]
    return sorted(found, key=lambda path: int(path.stem.split("_")[0]))


def read_split(path: Path, seed: int, mode: str) -> tuple[Any, Any, Any]:
    """Training rows, test rows and labels of the test rows; units are those of the training."""
    with np.load(path) as table:
        X, y = table["X"].astype(np.float64), table["y"]
    train, test, labels, y = train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
    if mode == MODES[1]:
        train = train[labels == 0]
    if len(train) > MAX_ROWS:
        chosen = np.random.default_rng(seed).choice(len(train), MAX_ROWS, replace=False)
        train = train[np.sort(chosen)]
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test), y


def mean_of_five(train: Any, test: Any) -> Any:
    """Anomaly scores: forest, robust covariance, clusters, 20 neighbours, mixture of 4."""
    forest = IsolationForest(random_state=0).fit(train)
    robust = MinCovDet(random_state=0).fit(train)
    clusters = KMeans(8, n_init=1, random_state=0).fit(train)
    near = NearestNeighbors(n_neighbors=min(20, len(train) - 1)).fit(train)
    mixture = GaussianMixture(4, reg_covar=1e-3, random_state=0).fit(train)
    pairs = [
        (-forest.score_samples(train), -forest.score_samples(test)),
        (robust.mahalanobis(train), robust.mahalanobis(test)),
        (clusters.transform(train).min(axis=1), clusters.transform(test).min(axis=1)),
        (near.kneighbors()[0][:, -1], near.kneighbors(test)[0][:, -1]),
        (-mixture.score_samples(train), -mixture.score_samples(test)),
    ]
    return sum((new - old.mean()) / old.std() for old, new in pairs)


def score(name: str, maker: Callable[[int, int], Any], seed: int, train: Any, test: Any) -> Any:
    """Anomaly scores of the test rows; None if a peer fails on this table."""
    if name == OURS:
        return -EnergyOutlierDetector().fit(train).score_samples(test)
    if name == PLAIN:
        return mean_of_five(train, test)
    try:
        return maker(seed, train.shape[1]).fit(train).decision_function(test)
    except ValueError as error:
        print(f"  {name} failed: {error}", flush=True)
        return None


def measure(
    seeds: int, makers: dict[str, Any], cache: Path | None
) -> tuple[Scores, dict[str, float]]:
    """AUROC by detector, table and mode, one for each seed, and the seconds of each detector."""
    auroc: Scores = {}
    seconds = dict.fromkeys(makers, 0.0)
    known = json.loads(cache.read_text()) if cache is not None and cache.exists() else {}
    for path in find_tables():
        for seed in range(seeds):
            for mode in MODES:
                train, test, y = read_split(path, seed, mode)
                for name, maker in makers.items():
                    key = f"{name}|{path.stem}|{seed}|{mode}"
                    if key not in known or name == OURS:
                        start = time.perf_counter()
                        scores = score(name, maker, seed, train, test)
                        seconds[name] += time.perf_counter() - start
                        # A detector that fails tells nothing apart.
                        known[key] = 0.5 if scores is None else area_under_roc(y, scores)
                    auroc.setdefault((name, path.stem, mode), []).append(known[key])
            if cache is not None:
                cache.write_text(json.dumps(known))
        print(path.stem, flush=True)
    return auroc, seconds


def tabulate(auroc: Scores, mode: str, names: list[str], tables: list[str]) -> Any:
    """Mean AUROC over seeds, shape (n_detectors, n_tables)."""
    return np.array([[np.mean(auroc[name, table, mode]) for table in tables] for name in names])


def summary(
    auroc: Scores, seconds: dict[str, float], tables: list[str], timed: bool
) -> list[list[Any]]:
    """One row a detector, the best first: mean, mean rank and lowest AUROC of each mode."""
    names = list(seconds)
    values = {mode: tabulate(auroc, mode, names, tables) for mode in MODES}
    ranks = {mode: rankdata(-values[mode], axis=0).mean(axis=1) for mode in MODES}
    rows = []
    for i in np.argsort(-sum(values.values()).mean(axis=1)):
        cells: list[Any] = [names[i]]
        for mode in MODES:
            own = values[mode][i]
            cells += [round(own.mean(), 3), round(ranks[mode][i], 2), round(own.min(), 2)]
        rows.append([*cells, round(seconds[names[i]], 1)] if timed else cells)
    return rows


def by_table(auroc: Scores, names: list[str], tables: list[str]) -> list[list[Any]]:
    """One row a table: the default's AUROC and the best peer's."""
    values = {mode: tabulate(auroc, mode, names, tables) for mode in MODES}
    first = 2 if PLAIN in names else 1  # peers come after the default and the mean of five
    rows = []
    for j, table in enumerate(tables):
        cells: list[Any] = [table]
        for mode in MODES:
            best = first + int(values[mode][first:, j].argmax())
            cells += [round(values[mode][0, j], 3), round(values[mode][best, j], 3), names[best]]
        rows.append(cells)
    return rows


def main() -> None:
    """Measure, and write the two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--deep", action="store_true", help="beside AutoEncoder, DeepSVDD and VAE")
    parser.add_argument("--plain", action="store_true", help="the mean of five too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="JSON file that keeps the AUROC of the peers")
    parser.add_argument("--name", help="of the result files; ood, or ood_neural with --deep")
    arguments = parser.parse_args()
    if "SKLEBM_DATA" not in os.environ:
        sys.exit("Set SKLEBM_DATA to the folder that holds adbench_dev/ and adbench_more/.")
    set_threads(arguments.threads)
    warnings.simplefilter("ignore")
    ours = [OURS, PLAIN] if arguments.plain else [OURS]
    makers = {**dict.fromkeys(ours), **(neural_peers() if arguments.deep else peers())}
    results = arguments.name or ("ood_neural" if arguments.deep else "ood")
    auroc, seconds = measure(arguments.seeds, makers, arguments.cache)
    timed = arguments.cache is None  # seconds of a part of the work say nothing
    tables = list(dict.fromkeys(table for _, table, _ in auroc))
    about = {
        "notes": f"{len(tables)} tables, {arguments.seeds} stratified 70/30 split(s), "
        f"at most {MAX_ROWS} training rows, standardised, {arguments.threads} thread(s); PyOD "
        f"{version('pyod')}, default settings; where a peer raised, its AUROC counts as 0.5; "
        "infinite scores rank beyond all others, a NaN is a wrong answer. The default was chosen "
        "with these tables in view: bench_ood_choice.py has nested figures.",
    }
    headings = [f"{what}, {mode}" for mode in MODES for what in ("AUROC", "mean rank", "lowest")]
    save_results(
        results,
        "Outlier detection without tuning" + (", neural peers" if arguments.deep else ""),
        ["detector", *headings, *(["total time (s)"] if timed else [])],
        summary(auroc, seconds, tables, timed),
        **about,
    )
    if arguments.deep:
        return
    headings = [f"{what}, {mode}" for mode in MODES for what in ("default", "best peer", "which")]
    save_results(
        f"{results}_by_table",
        "Outlier detection without tuning: AUROC of the default and of each table's best peer",
        ["table", *headings],
        by_table(auroc, list(makers), tables),
        **about,
    )


if __name__ == "__main__":
    main()
