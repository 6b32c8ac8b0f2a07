"""Bounds of deep machines on the fixed binarisation of MNIST, beside one layer trained as long.

The protocol of R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief
networks", ICML 2008: 60,000 training and 10,000 test rows, log Z annealed. ``--model belief`` is a
DeepBeliefNetwork of 500 and 2000 units (published: bound -86.22, importance-sampled -84.55), its
second layer started at random (the default) and as the first one turned over, with four passes for
the first layer to one for the second; ``--model boltzmann`` a DeepBoltzmannMachine of 500 and 1000
(published: -84.62; a re-implementation of 512 and 1024: -86.37), whose layers first learn one after
the other, and whose bound is also recorded along the way. One layer of 500 units has the same time:
60 minutes for belief, 90 for boltzmann. Epochs follow from the speed of a trial epoch; with
``--epochs`` they are given, and bounds no longer depend on the speed of the computer. With
``--validate``, models learn from the first 50,000 rows and are judged on the next 2,000, to choose
``--rates``; nothing is recorded. ``--folder`` keeps trained machines and their seconds; a later run
with the same ``--epochs`` judges those that it finds there. ``--only`` trains one machine and
records nothing: machines can be trained on cores of their own, and judged together. ``--without``
leaves one out, such as a single layer that the record of the other model already has. Needs the
folder of ``SKLEBM_DATA`` with ``mnist_binarized.npz``.

    python benchmarks/bench_deep_machines.py --model belief [--quick] [--validate]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import save_results, set_threads
from bench_binarized_mnist import load_rows

from sklebm import BernoulliRBM, DeepBeliefNetwork, DeepBoltzmannMachine, load, save
from sklebm.callbacks import EnergyMonitor

COLUMNS = [
    "model",
    "epochs",
    "training (s)",
    "what",
    "test log-likelihood (nats)",
    "at the ends of the interval of log Z",
]
Rows = np.ndarray[Any, Any]
#: Passes of the bottom machine of a belief network for each pass of the one above.
BOTTOM = 4
#: Passes in which each layer of a deep Boltzmann machine first learns alone.
GREEDY = 15


def timed(model: Any, x: Rows) -> float:
    """Seconds of a fit."""
    began = time.perf_counter()
    model.fit(x)
    return time.perf_counter() - began


@dataclass
class Curve:
    """Judges a machine every so many epochs; the time that this takes does not count."""

    name: str
    test: Rows
    temperatures: int
    every: int
    rows: list[list[Any]]
    epoch: int = 0
    judging: float = 0.0
    began: float = 0.0

    def after_epoch(self, model: Any, _: Any) -> float:
        """Scoring function of a monitor."""
        self.epoch += 1
        start = time.perf_counter()
        if self.epoch % self.every == 0:
            seconds = start - self.began - self.judging
            name = f"{self.name}, on the way"
            self.rows += judged(name, model, self.epoch, seconds, self.test, self.temperatures)
        self.judging += time.perf_counter() - start
        return 0.0


def trained(
    make: Callable[[int], Any], x: Rows, budget: float, epochs: int, curve: Curve | None = None
) -> tuple[Any, int, float]:
    """A model after these epochs, or, for 0, the number that fills the budget in seconds."""
    if not epochs:  # the first one takes longer if layers first learn alone
        first, third = (timed(make(n), x) for n in (1, 3))
        if third <= first:
            sys.exit("An epoch is too short to be timed here: give the number by --epochs.")
        epochs = 1 + max(0, int(2 * (budget - first) / (third - first)))
    model = make(epochs)
    if curve is not None:
        model.set_callbacks(EnergyMonitor(curve.test[:1], scoring=curve.after_epoch))
        curve.began = time.perf_counter()
    seconds = timed(model, x)
    return model, epochs, seconds - (0.0 if curve is None else curve.judging)


def kept(
    folder: Path, name: str, train: Callable[[], tuple[Any, int, float]], rows: list[list[Any]]
) -> tuple[Any, int, float]:
    """The machine of this name in the folder, or else a new one, which is put there.

    Bounds on the way, which training adds to ``rows``, are kept with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.replace(', ', '_').replace(' ', '_')}.safetensors"
    beside = path.with_suffix(".json")
    if beside.exists():
        found = json.loads(beside.read_text())
        rows += found["rows"]
        return load(path), found["epochs"], found["seconds"]
    n_before = len(rows)
    model, epochs, seconds = train()
    save(model.set_callbacks(), path)
    found = {"epochs": epochs, "seconds": seconds, "rows": rows[n_before:]}
    beside.write_text(json.dumps(found))
    return model, epochs, seconds


def judged(
    name: str, model: Any, epochs: int, seconds: float, test: Rows, temperatures: int
) -> list[list[Any]]:
    """One row for each way to score the test rows; the interval is that of log Z alone."""
    model.estimate_log_partition("ais", n_temperatures=temperatures, random_state=0)
    what = "bound" if isinstance(model, DeepBoltzmannMachine) else "log p"
    ways: dict[str, dict[str, Any]] = {what: {}}
    if isinstance(model, DeepBeliefNetwork):
        ways = {"bound": {"bound": "variational"}, "importance": {"bound": "importance"}}
    rows = []
    for what, options in ways.items():
        value = float(model.score_samples(test, **options).mean())
        low, high = (float(end) for end in model.log_partition_interval_)
        ends = [value + model.log_partition_ - end for end in (high, low)]
        shown = f"{ends[0]:.2f}, {ends[1]:.2f}"
        rows.append([name, epochs, round(seconds), what, round(value, 2), shown])
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Train the deep model and one layer for the same time, and judge both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["belief", "boltzmann"], default="belief")
    parser.add_argument("--minutes", type=float, default=0.0, help="0: those of the model")
    parser.add_argument(
        "--epochs",
        type=int,
        nargs=2,
        default=(0, 0),
        metavar=("ONE", "DEEP"),
        help="of one layer and of the deep machine (its top), instead of minutes",
    )
    parser.add_argument("--every", type=int, default=10, help="epochs between bounds on the way")
    parser.add_argument(
        "--temperatures", type=int, default=10_000, help="of annealing, at first; doubled if needed"
    )
    parser.add_argument("--rates", type=float, nargs="+", help="of the deep machine or its top")
    parser.add_argument("--validate", action="store_true", help="judge on training rows; no record")
    parser.add_argument("--only", help="name of a machine, such as 'one layer'; no record")
    parser.add_argument("--without", help="name of a machine that is left out")
    parser.add_argument("--folder", type=Path, help="where trained machines are kept")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; nothing is saved")
    options = parser.parse_args()
    set_threads(options.threads)
    x, test = load_rows()
    if options.validate:
        x, test = x[:50_000], x[50_000:52_000]
    minutes = options.minutes or {"belief": 60.0, "boltzmann": 90.0}[options.model]
    budget, temperatures = 60.0 * minutes, options.temperatures
    sizes = {"belief": (500, 2000), "boltzmann": (500, 1000)}[options.model]
    if options.quick:
        x, test, budget, temperatures, sizes = x[:1000], test[:100], 2.0, 50, (20, 800)
    shared = {"log_partition": None, "random_state": 0, "device": "cpu"}

    def stack(n: int, **settings: Any) -> Any:
        """Passes of the bottom machine take a third of the time of those above, and get more."""
        bottom = BernoulliRBM(max_epochs=BOTTOM * n)
        return DeepBeliefNetwork(sizes, bottom=bottom, max_epochs=n, **shared, **settings)

    def boltzmann(n: int, rate: float) -> Any:
        return DeepBoltzmannMachine(
            sizes, pretraining_epochs=GREEDY, max_epochs=n, learning_rate=rate, **shared
        )

    makers: dict[str, Callable[[int], Any]] = {
        "one layer": lambda n: BernoulliRBM(sizes[0], max_epochs=n, **shared)
    }
    rates = options.rates or {"belief": [0.003], "boltzmann": [0.05]}[options.model]
    if options.model == "belief":
        makers["belief"] = stack
    for rate in rates:
        if options.model == "belief":
            makers[f"belief, turned over, rate {rate:g}"] = partial(
                stack, init="transpose", learning_rate=rate
            )
        else:
            makers[f"boltzmann, rate {rate:g}"] = partial(boltzmann, rate=rate)
    if options.validate:
        makers = {name: make for name, make in makers.items() if "rate" in name}
    if options.folder and not all(options.epochs):
        parser.error("--folder needs --epochs of both kinds")
    for option in ("only", "without"):
        if getattr(options, option) not in (None, *makers):
            parser.error(f"--{option}: no machine of this name, but {', '.join(makers)}")
    makers.pop(options.without, None)
    makers = {name: makers[name] for name in ([options.only] if options.only else makers)}
    # What is loaded once must not count against one of them.
    BernoulliRBM(2, max_epochs=1, **shared).fit(x[:100])
    rows: list[list[Any]] = []
    one, deep = options.epochs
    for name, make in makers.items():
        deep_machine = options.model == "boltzmann" and name != "one layer"
        watch = Curve(name, test, temperatures, options.every, rows) if deep_machine else None
        given = one if name == "one layer" else deep
        train = partial(trained, make, x, budget, given, watch)
        if options.folder:
            called = f"{name}, {given} passes of {len(x)}"
            if watch:
                called += f", {temperatures} temperatures every {options.every}"
            model, epochs, seconds = kept(options.folder, called, train, rows)
        else:
            model, epochs, seconds = train()
        rows += judged(name, model, epochs, seconds, test, temperatures)
        if isinstance(model, DeepBeliefNetwork) and not any("bottom" in row[0] for row in rows):
            bottom, passes = model.named_estimators_["layer1"], BOTTOM * epochs
            rows += judged("bottom of belief", bottom, passes, 0.0, test, temperatures)
    length = "given epochs" if any(options.epochs) else f"{minutes:.0f} minutes each"
    if not (options.quick or options.validate or options.only):
        save_results(
            f"deep_machines_{options.model}",
            f"Deep machines ({options.model}) and one layer, trained for {length}, "
            "on binarised MNIST",
            COLUMNS,
            rows,
            notes=f"{f'Left out here: {options.without}. ' if options.without else ''}"
            f"Layers: {sizes}; the bottom of a belief network has {BOTTOM} passes for each "
            f"of its top; each layer of a Boltzmann machine first has {GREEDY} alone. "
            "Rates of the turned-over layer and of the Boltzmann machine are not the default 0.1: "
            "the former was chosen on training rows, the latter not searched for. "
            f"{options.threads} thread(s). Annealed in both directions with "
            f"100 chains and {temperatures:,} temperatures at first, doubled at most twice; 100 "
            "draws a row for bound and estimate.",
        )


if __name__ == "__main__":
    main()
