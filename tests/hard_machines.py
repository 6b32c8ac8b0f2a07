"""Twenty machines that mix badly and whose log Z is known by summing over all states.

Their densities have modes that block Gibbs chains do not leave: magnets below their critical
temperature (with and without a field that makes one side metastable), stored patterns, spin glasses,
machines trained for long on few rows, and sharp clusters of real-valued rows.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

from sklebm import BernoulliRBM, GaussianRBM
from sklebm.energies import Bernoulli, BilinearEnergy


def _tensor(values):
    return torch.tensor(np.asarray(values, dtype=np.float64))


def from_spins(couplings, visible_field, hidden_field):
    """The machine of E = -s' J' h - f's - g'h with spins -1 and 1, for units u = (1 + s) / 2."""
    couplings = np.asarray(couplings, dtype=float)  # (n_hidden, n_visible)
    visible = 2 * np.asarray(visible_field) - 2 * couplings.sum(axis=0)
    hidden = 2 * np.asarray(hidden_field) - 2 * couplings.sum(axis=1)
    return BilinearEnergy(
        Bernoulli(_tensor(visible)), Bernoulli(_tensor(hidden)), _tensor(4 * couplings)
    )


def torus(height, width, coupling, field=0.0):
    """Ising spins on a torus; one colour of a chequerboard is visible, the other hidden."""
    fields = [(i, j) for i in range(height) for j in range(width)]
    black = {f: n for n, f in enumerate(f for f in fields if sum(f) % 2 == 0)}
    white = [f for f in fields if sum(f) % 2]
    couplings = np.zeros((len(white), len(black)))
    for n, (i, j) in enumerate(white):
        for near in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            couplings[n, black[near[0] % height, near[1] % width]] += coupling
    return from_spins(couplings, np.full(len(black), field), np.full(len(white), field))


def patterns(n_visible, n_hidden, strength, seed, tilt=0.0):
    """Every hidden unit stores a random pattern of spins; ``tilt`` makes some of them likelier."""
    rng = np.random.default_rng(seed)
    stored = rng.choice([-1.0, 1.0], size=(n_hidden, n_visible))
    # Hidden units that are on one at a time: a pattern pays for being shown with any other.
    couplings = strength * stored / np.sqrt(n_visible)
    return from_spins(
        couplings, np.zeros(n_visible), tilt * rng.normal(size=n_hidden) - 0.5 * strength
    )


def glass(n_visible, n_hidden, scale, seed):
    """Random couplings of spins."""
    rng = np.random.default_rng(seed)
    couplings = scale * rng.normal(size=(n_hidden, n_visible)) / np.sqrt(n_visible + n_hidden)
    return from_spins(couplings, np.zeros(n_visible), np.zeros(n_hidden))


def magnet(n_visible, n_hidden, coupling, field):
    """All spins coupled alike, in a weak field."""
    couplings = np.full((n_hidden, n_visible), coupling / np.sqrt(n_visible * n_hidden))
    return from_spins(couplings, np.full(n_visible, field), np.full(n_hidden, field))


def digits(n_components, n_rows, max_epochs, rate, seed=0):
    """A machine trained for long on few small images."""
    rows = (load_digits().data[:n_rows] > 8).astype(np.float32)
    return BernoulliRBM(
        n_components, max_epochs=max_epochs, learning_rate=rate, random_state=seed,
        batch_size=50, log_partition=None,
    ).fit(rows), rows  # fmt: skip


def stripes(n_components, seed):
    """A machine trained on horizontal and vertical bars, 6 x 6."""
    rng = np.random.default_rng(seed)
    lines = rng.random((600, 6)) < 0.5
    rows = np.repeat(lines[:, :, None], 6, axis=2)
    rows[300:] = rows[300:].transpose(0, 2, 1)
    rows = rows.reshape(600, 36).astype(np.float32)
    return BernoulliRBM(
        n_components, max_epochs=300, learning_rate=0.2, random_state=seed, batch_size=50,
        log_partition=None,
    ).fit(rows), rows  # fmt: skip


def clusters(n_features, n_clusters, n_hidden, seed):
    """A machine trained on sharp clusters, ten or more standard deviations apart."""
    rng = np.random.default_rng(seed)
    centres = 10.0 * rng.normal(size=(n_clusters, n_features))
    rows = centres[rng.integers(n_clusters, size=600)] + rng.normal(size=(600, n_features))
    return GaussianRBM(
        n_hidden, objective="pcd", optimizer="sgd", learning_rate=0.2, max_epochs=100,
        random_state=seed, log_partition=None,
    ).fit(rows), rows  # fmt: skip


#: Name -> function that makes the machine, or the fitted estimator with its training rows.
HARD = {
    "torus 4 x 4, K = 0.6": lambda: torus(4, 4, 0.6),
    "torus 4 x 8, K = 0.6": lambda: torus(4, 8, 0.6),
    "torus 4 x 8, K = 1": lambda: torus(4, 8, 1.0),
    "torus 4 x 8, K = 0.6, in a field": lambda: torus(4, 8, 0.6, 0.1),
    "magnet": lambda: magnet(30, 15, 3.0, 0.0),
    "magnet in a field": lambda: magnet(30, 15, 3.0, 0.05),
    "large magnet in a field": lambda: magnet(60, 15, 3.0, 0.02),
    "glass, scale 2": lambda: glass(30, 15, 2.0, 0),
    "glass, scale 4": lambda: glass(30, 15, 4.0, 1),
    "narrow glass": lambda: glass(15, 60, 4.0, 2),
    "patterns": lambda: patterns(30, 10, 4.0, 0),
    "strong patterns": lambda: patterns(40, 12, 8.0, 1),
    "tilted patterns": lambda: patterns(40, 12, 8.0, 2, tilt=2.0),
    "digits, 12 units": lambda: digits(12, 300, 300, 0.2),
    "digits, 15 units": lambda: digits(15, 500, 400, 0.3, 1),
    "ten digits, 12 units": lambda: digits(12, 10, 1000, 0.3),
    "bars, 12 units": lambda: stripes(12, 0),
    "bars, 15 units": lambda: stripes(15, 1),
    "clusters in the plane": lambda: clusters(2, 3, 8, 0),
    "clusters, 10 features": lambda: clusters(10, 6, 12, 1),
}
