"""Defaults of Autoencoder and VAE, chosen by what they learn on development sets.

Every candidate (updates, learning rate, width of the code) is fitted to every set. What is
measured, on rows that training did not see:

- labelled sets: accuracy of a linear classifier on the codes, beside that on the raw features and
  on as many principal components (scikit-learn's nearest estimator);
- tables: mean log density of the VAE, beside that of probabilistic PCA (`PCA.score`), both of
  standardised rows.

`leave_one_out` says which candidate the other sets would have chosen for each set, and what it
gets there. Sets: scikit-learn's digits, wine and breast cancer; MNIST and Fashion-MNIST, every
other pixel of 300 and 3,000 (`--quick`: 1,500) training images; tables of `adbench_dev` without
their labels. All are development sets: no result is reported on them elsewhere. `--quick` saves
nothing.

Needs the folder of data sets named by SKLEBM_DATA.

    python benchmarks/bench_autoencoder_defaults.py [--quick] [--only Autoencoder]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from typing import Any

from _common import save_results, set_threads
from _development_sets import accuracy, labelled_sets, leave_one_out, tables
from sklearn.decomposition import PCA

from sklebm import VAE, Autoencoder
from sklebm.training.pace import Pace

BEFORE: dict[str, dict[str, Any]] = {
    "Autoencoder": {"n_components": 16, "learning_rate": 1e-3, "max_epochs": 50},
    "VAE": {"n_components": 10, "learning_rate": 1e-3, "max_epochs": 50},
}
MODELS: dict[str, Any] = {"Autoencoder": Autoencoder, "VAE": VAE}
N_UPDATES = 3000
WIDTHS = {"Autoencoder": (16, 32), "VAE": (10, 20)}


def candidates(name: str) -> dict[str, dict[str, Any]]:
    """Settings by what the tables call them."""
    found = {"before": BEFORE[name]}
    narrow, wide = WIDTHS[name]
    for rate, width in ((1e-3, narrow), (3e-3, narrow), (3e-3, wide)):
        found[f"{N_UPDATES} updates, rate {rate:g}, {width} latents"] = {
            "n_components": width,
            "learning_rate": rate,
            "max_epochs": Pace(N_UPDATES),
        }
    return found


def fitted(name: str, settings: dict[str, Any], X: Any) -> tuple[Any, float]:
    """The model and the processor seconds of its fit."""
    settings = dict(settings)
    if isinstance(settings["max_epochs"], Pace):
        settings["max_epochs"] = settings["max_epochs"].epochs(len(X), 128)
    began = time.process_time()
    model = MODELS[name](random_state=0, **settings).fit(X)
    return model, time.process_time() - began


def measure(name: str, quick: bool) -> list[list[Any]]:
    """Rows of set, candidate, score, seconds."""
    out: list[list[Any]] = []

    def add(title: str, candidate: str, score: float, seconds: float = 0.0) -> None:
        out.append([title, candidate, round(score, 4), round(seconds, 2)])
        print(*out[-1], sep="\t", flush=True)

    for title, (X, y, X_test, y_test) in labelled_sets(quick).items():
        add(title, "raw features", accuracy(X, y, X_test, y_test))
        for width in WIDTHS[name]:
            pca = PCA(min(width, X.shape[1]), random_state=0).fit(X)
            score = accuracy(pca.transform(X), y, pca.transform(X_test), y_test)
            add(title, f"PCA, {width} components", score)
        for candidate, settings in candidates(name).items():
            model, seconds = fitted(name, settings, X)
            score = accuracy(model.transform(X), y, model.transform(X_test), y_test)
            add(title, candidate, score, seconds)
    for title, (X, X_test) in tables().items() if name == "VAE" else ():
        width = min(WIDTHS[name][0], X.shape[1] - 1)
        add(title, "PCA.score", float(PCA(width).fit(X).score(X_test)))
        for candidate, settings in candidates(name).items():
            model, seconds = fitted(name, settings, X)
            add(title, candidate, float(model.score(X_test)), seconds)
    return out


def main() -> None:
    """Measure what is named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows, nothing saved")
    parser.add_argument("--only", choices=list(MODELS), help="one model")
    arguments = parser.parse_args()
    if "SKLEBM_DATA" not in os.environ:
        sys.exit("SKLEBM_DATA is not set: this benchmark needs the folder of data sets.")
    set_threads(1)
    warnings.simplefilter("ignore")
    for name in [arguments.only] if arguments.only else list(MODELS):
        measured = measure(name, arguments.quick)
        chosen = leave_one_out([c for c in candidates(name) if c != "before"], measured)
        for row in chosen:
            print(*row, sep="\t")
        if arguments.quick:
            continue
        save_results(
            f"autoencoder_defaults_{name.lower()}",
            f"Defaults of {name} on development sets",
            ["set", "settings", "score", "seconds"],
            measured,
            notes=f"One thread. Chosen on all sets: {chosen[-1][1]}.",
        )


if __name__ == "__main__":
    main()
