"""How many random patterns Hebb's rule holds, by the number of units.

For N units, alpha N random patterns are stored, and recall starts at some of them. Below the
critical share, the final state overlaps with the pattern by more than 0.96; above, it is lost
(Amit, Gutfreund and Sompolinsky, Physical Review Letters 55, 1985: 0.138 in the limit of many
units). Two figures describe the transition: where the share of patterns that keep an overlap of at
least 0.9 passes through one half, which falls with N towards the limit, and where the curve of the
largest network crosses that of the smallest. Below the critical share a larger network keeps more
patterns, above it fewer, so that the crossing depends much less on N.

    python benchmarks/bench_hopfield_capacity.py [--quick] [--plot capacity.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _common import save_results, set_threads

from sklebm import HopfieldNetwork

SIZES = (500, 1000, 2000, 4000)
SHARES = (0.12, 0.13, 0.135, 0.14, 0.145, 0.15, 0.155, 0.16, 0.17, 0.2)


def kept(n_units, share, n_starts, seed):
    """Share of patterns whose recall keeps an overlap of 0.9, and the mean overlap."""
    rng = np.random.default_rng([seed, n_units, round(1000 * share)])
    patterns = rng.choice([-1.0, 1.0], size=(round(share * n_units), n_units))
    memory = HopfieldNetwork(states="signs", random_state=seed).fit(patterns)
    starts = patterns[:n_starts]
    overlaps = (memory.transform(starts) * starts).mean(axis=1)
    return float((overlaps >= 0.9).mean()), float(overlaps.mean())


def transition(shares, rates):
    """Where the rates, which fall, pass through one half; None if they do not."""
    for left, right, high, low in zip(shares, shares[1:], rates, rates[1:], strict=False):
        if high >= 0.5 > low:
            return left + (high - 0.5) / (high - low) * (right - left)
    return None


def crossing(shares, small, large):
    """Where the large network begins to keep fewer patterns than the small one for good."""
    gaps = [b - a for a, b in zip(small, large, strict=True)]
    last = max((i for i, gap in enumerate(gaps) if gap > 0), default=None)
    if last is None or last + 1 == len(gaps):
        return None
    high, low = gaps[last], gaps[last + 1]
    return shares[last] + high / (high - low) * (shares[last + 1] - shares[last])


def main() -> None:
    """Measure every size, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 and 200 units, nothing saved")
    parser.add_argument("--plot", type=Path, help="write the figure to this file")
    parser.add_argument("--networks", type=int, default=5, help="networks for each size and share")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    sizes = (100, 200) if options.quick else SIZES
    shares = SHARES[1::4] if options.quick else SHARES
    rows, curves = [], {}
    for n_units in sizes:
        rates = []
        for share in shares:
            n_networks = 1 if options.quick else options.networks
            found = [kept(n_units, share, 40, seed) for seed in range(n_networks)]
            rate, overlap = np.mean(found, axis=0).tolist()
            rates.append(rate)
            rows.append([n_units, share, round(rate, 3), round(overlap, 3)])
            print(rows[-1], flush=True)
        curves[n_units] = rates
        print(n_units, "transition at", transition(shares, rates), flush=True)
    first, *_, last = curves
    cross = crossing(shares, curves[first], curves[last])
    print(f"curves of {first} and {last} units cross at", cross, flush=True)
    if options.plot:
        draw(shares, curves, options.plot)
    if not options.quick:
        places = {n: transition(SHARES, rates) for n, rates in curves.items()}
        save_results(
            "hopfield_capacity",
            title="Capacity of Hebb's rule",
            columns=["units", "patterns per unit", "share kept", "mean overlap"],
            rows=rows,
            notes="Half of the patterns are kept at "
            + ", ".join(f"{place:.4f} (N = {n})" for n, place in places.items() if place)
            + (f"; the curves of {first} and {last} units cross at {cross:.4f}" if cross else "")
            + "; 0.138 in the limit. Asynchronous recall from the patterns themselves.",
        )


def draw(shares, curves, path):
    """The share of patterns that are kept against patterns per unit, one line a size."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for n_units, rates in curves.items():
        axis.plot(shares, rates, marker=".", label=f"N = {n_units}")
    axis.axvline(0.138, color="gray", linestyle=":", label="0.138")
    axis.set(xlabel="patterns per unit", ylabel="share of patterns kept")
    axis.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
