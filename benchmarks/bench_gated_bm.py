"""What gated machines learn about pairs of dot images that differ by a known transformation.

Shifts with wrap-around:

- factors whose two filters peak at one frequency of the Fourier transform;
- frequencies whose factors span cosine and sine: the second singular value of their coefficients
  is at least 0.3 of the first, for both sides;
- accuracy of the nearest code among other pairs in naming the shift;
- correlation of analogies with the truth: the code of a pair, applied to the image of another pair
  with the same shift.

Rotations and scalings have no discrete labels: there, the code of a pair is applied to another
pair whose angle (or logarithm of the factor) is nearest, and the correlation is compared with that
of the image itself.

The number of factors was chosen among 128, 160 and 256 on shifts of other images: with more of them
than the frequencies need, half stay idle, near their random start.

    python benchmarks/bench_gated_bm.py [--quick]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from _common import save_results, set_threads

from sklebm import GatedBM
from sklebm.datasets import make_rotated_pairs, make_scaled_pairs, make_shifted_pairs


def frequency(image: Any) -> tuple[int, int]:
    """The frequency of largest amplitude, one of each pair of opposite signs."""
    spectrum = np.abs(np.fft.rfft2(image - image.mean()))
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    if column in (0, image.shape[1] / 2):
        row = min(row, len(image) - row)
    return int(row), int(column)


def fourier_factors(model: Any, shape: tuple[int, int]) -> dict[str, float]:
    """Share of factors with one frequency, and of frequencies with cosine and sine."""
    sides = [f.reshape(-1, *shape) for f in (model.left_factors_, model.right_factors_)]
    peaks = [[frequency(image) for image in side] for side in sides]
    agree = [a == b for a, b in zip(*peaks, strict=True)]
    spanned = []
    for row, column in sorted({a for a, same in zip(peaks[0], agree, strict=True) if same}):
        if (2 * row) % shape[0] == 0 and (2 * column) % shape[1] == 0:
            continue  # its own opposite: there is no sine
        chosen = [a == (row, column) and same for a, same in zip(peaks[0], agree, strict=True)]
        ratios = []
        for side in sides:
            waves = np.fft.rfft2(side[np.array(chosen)])[:, row, column]
            values = np.linalg.svd(np.column_stack([waves.real, waves.imag]), compute_uv=False)
            ratios.append(values[1] / values[0] if len(values) > 1 else 0.0)
        spanned.append(min(ratios) >= 0.3)
    return {
        "factors of one frequency": float(np.mean(agree)),
        "frequencies with cosine and sine": float(np.mean(spanned)) if spanned else 0.0,
        "frequencies": len(spanned),
    }


def nearest_code(codes: Any, labels: Any) -> float:
    """Accuracy of the label of the nearest code, of the first half among the second."""
    half = len(codes) // 2
    found = []
    for code in codes[:half]:
        found.append(labels[half:][((codes[half:] - code) ** 2).sum(axis=1).argmin()])
    return float(np.mean(np.array(found) == labels[:half]))


def analogies(model: Any, X: Any, codes: Any, partner: Any) -> float:
    """Mean correlation of y with what the code of each pair's partner makes of its x."""
    n_left = model.n_left_
    predicted = model.apply(X[:, :n_left], codes[partner])
    pairs = zip(predicted, X[:, n_left:], strict=True)
    return float(np.mean([np.corrcoef(p, y)[0, 1] for p, y in pairs if y.std() > 0]))


def shifts(quick: bool, seed: int) -> dict[str, Any]:
    """The figures of shifted pairs."""
    side, n_rows, settings = (6, 4000, (32, 64, 50)) if quick else (10, 20_000, (128, 160, 100))
    data = {"image_shape": (side, side), "max_shift": 1 if quick else 3, "density": 0.2}
    X, _ = make_shifted_pairs(n_rows, **data, random_state=seed)
    X_test, moved = make_shifted_pairs(n_rows // 5, **data, random_state=seed + 1)
    n_components, n_factors, max_epochs = settings
    start = time.perf_counter()
    model = GatedBM(n_components, n_factors=n_factors, max_epochs=max_epochs, random_state=seed)
    model.fit(X)
    seconds = time.perf_counter() - start
    codes, labels = model.transform(X_test), moved @ np.array([100, 1])
    partner = np.arange(len(X_test))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        partner[rows] = np.roll(rows, 1)
    return {
        **fourier_factors(model, (side, side)),
        "nearest code names the shift": nearest_code(codes, labels),
        "correlation of analogies": analogies(model, X_test, codes, partner),
        "log p(y | x), nats": model.score(X_test[:200]),
        "fit, s": seconds,
    }


def continuous(kind: str, quick: bool, seed: int) -> dict[str, Any]:
    """The figures of rotated or scaled pairs."""
    side, n_rows, settings = (9, 4000, (32, 64, 50)) if quick else (13, 20_000, (128, 160, 100))
    make: Any = make_rotated_pairs if kind == "rotations" else make_scaled_pairs
    reach = {"max_angle": 90} if kind == "rotations" else {"max_factor": 1.5}
    data = {"image_shape": (side, side), "density": 0.15, **reach}
    X, _ = make(n_rows, **data, random_state=seed)
    X_test, amount = make(n_rows // 5, **data, random_state=seed + 1)
    amount = amount if kind == "rotations" else np.log(amount)
    n_components, n_factors, max_epochs = settings
    start = time.perf_counter()
    model = GatedBM(n_components, n_factors=n_factors, max_epochs=max_epochs, random_state=seed)
    model.fit(X)
    seconds = time.perf_counter() - start
    order = np.argsort(amount)
    partner = np.empty(len(order), int)
    partner[order] = np.roll(order, 1)
    partner[order[0]] = order[1]
    unmoved = [np.corrcoef(*np.split(row, 2))[0, 1] for row in X_test]
    return {
        "correlation of analogies": analogies(model, X_test, model.transform(X_test), partner),
        "correlation of the image itself": float(np.nanmean(unmoved)),
        "fit, s": seconds,
    }


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="small images, seconds, no record")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    quick = options.quick
    set_threads(options.threads)
    rows = []
    for kind in ("shifts", "rotations", "scalings"):
        found = shifts(quick, 0) if kind == "shifts" else continuous(kind, quick, 0)
        rows += [[kind, name, round(float(value), 4)] for name, value in found.items()]
    for row in rows:
        print(*row, sep="\t")
    if not quick:
        save_results(
            "gated_bm",
            "Gated Boltzmann machines: what pairs of images teach",
            ["pairs", "figure", "value"],
            rows,
            notes="20,000 pairs of random dots, 10 x 10 pixels (shifts of up to 3 pixels either "
            "way, with wrap-around) or 13 x 13; 128 hidden units, 160 factors, 100 epochs; "
            f"measured on 4,000 other pairs. {options.threads} thread(s); seconds on a machine "
            "with other work.",
        )


if __name__ == "__main__":
    main()
