"""How well does the encoder of a predictive sparse decomposition predict, and what is learnt.

Whitened 12 x 12 patches of natural photographs and MNIST digits, 256 atoms: share of the variance
of optimal codes, found without the encoder, that the encoder explains; share of the atoms that a
Gabor function fits with R2 >= 0.8. Needs SKLEBM_DATA.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from _common import save_results, set_threads
from _patches import whitened_patches
from scipy.optimize import least_squares

from sklebm import PredictiveSparseDecomposition, SparseCoder

N_TEST = 5_000


def waves(parameters, rows, columns):
    """Even and odd Gabor waves of length one with these centre, angle, widths and frequency."""
    top, left, angle, wide, tall, frequency = parameters
    along = (columns - left) * np.cos(angle) + (rows - top) * np.sin(angle)
    across = (rows - top) * np.cos(angle) - (columns - left) * np.sin(angle)
    envelope = np.exp(-0.5 * ((along / wide) ** 2 + (across / tall) ** 2))
    phase = 2 * np.pi * frequency * along
    return np.stack([envelope * np.cos(phase), envelope * np.sin(phase)], axis=-1).reshape(-1, 2)


def gabor_residual(parameters, atom, rows, columns):
    """What is left of an atom when amplitude and phase are fitted by least squares."""
    basis = waves(parameters, rows, columns)
    return atom - basis @ np.linalg.lstsq(basis, atom, rcond=None)[0]


def gabor_r2(atom, size):
    """R2 of the best Gabor function, from several starts."""
    atom = atom / np.linalg.norm(atom)
    rows, columns = np.mgrid[:size, :size].astype(float)
    power = (atom**2).reshape(size, size)
    top, left = (power * rows).sum(), (power * columns).sum()
    bounds = ([-3, -3, -np.pi, 0.5, 0.5, 0.0], [size + 2, size + 2, 2 * np.pi, 12, 12, 0.7])
    starts = [
        (top, left, angle, 2.0, 2.0, frequency)
        for angle in np.pi * np.arange(8) / 8
        for frequency in (0.08, 0.18, 0.3)
    ]
    starts.sort(key=lambda p: (gabor_residual(p, atom, rows, columns) ** 2).sum())
    fits = (
        least_squares(gabor_residual, start, bounds=bounds, args=(atom, rows, columns), max_nfev=60)
        for start in starts[:2]
    )
    return 1 - min(2 * fit.cost for fit in fits)


def measure(name, train, test, alpha, n_epochs, size=None, **settings):
    """A row of the table for one encoder."""
    model = PredictiveSparseDecomposition(
        256, alpha=alpha, max_epochs=n_epochs, prediction_weight=0.1, random_state=0, **settings
    ).fit(train)
    coder = SparseCoder(dictionary=model.components_, alpha=alpha).fit(test)
    optimal = coder.transform(test)
    error = ((model.transform(test) - optimal) ** 2).sum()
    explained = 1 - error / ((optimal - optimal.mean(axis=0)) ** 2).sum()
    encoder = settings.get("encoder", f"lista, {settings.get('n_layers', 3)} layers")
    fitted = "-"
    if size is not None:
        r2 = np.array([gabor_r2(atom, size) for atom in model.components_.astype(float)])
        fitted = f"{(r2 >= 0.8).mean():.2f} (median R2 {np.median(r2):.2f})"
    row = [
        name,
        encoder,
        f"{(optimal != 0).sum(axis=1).mean():.1f}",
        f"{explained:.3f}",
        f"{model.score(test) / coder.score(test) - 1:.3f}",
        fitted,
    ]
    print(*row, sep="\t", flush=True)
    return row


def main() -> None:
    """Measure and record."""
    set_threads(1)
    patches = whitened_patches(30_000 + N_TEST, 12).astype(np.float32)
    train, test = patches[:-N_TEST], patches[-N_TEST:]
    rows = [
        measure("patches", train, test, 0.15, 8, size=12),
        measure("patches", train, test, 0.15, 8, encoder="shrink"),
    ]
    images = np.load(Path(os.environ["SKLEBM_DATA"]) / "mnist.npz")
    digits = images["x_train"].reshape(-1, 784)[:15_000].astype(np.float32)
    digits /= np.linalg.norm(digits, axis=1, keepdims=True)
    rows.append(measure("MNIST", digits[:10_000], digits[10_000:], 0.1, 10))
    save_results(
        "predictive_sparse_decomposition",
        "What the encoder of a predictive sparse decomposition explains",
        [
            "rows",
            "encoder",
            "non-zeros of optimal codes",
            "variance of optimal codes explained",
            "energy above the optimum (share)",
            "atoms with Gabor R2 >= 0.8",
        ],
        rows,
        notes="256 atoms. 30,000 whitened 12 x 12 patches of length one at alpha = 0.15, 8 epochs; "
        "10,000 digits of length one at alpha = 0.1, 10 epochs; weight 0.1; 5,000 others "
        "to test. Optimal codes are those of the learnt dictionary, without the encoder's term.",
    )


if __name__ == "__main__":
    main()
