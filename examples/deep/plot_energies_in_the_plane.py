r"""
What an objective can see: deep energies in the plane
=====================================================

In two dimensions densities can be integrated numerically, so the divergence of a model from the
true density is computed, not estimated. The same network learns three densities with three
objectives.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklebm import DeepEnergyModel
from sklebm.datasets import GaussianCircle, Moons, Rings

# %%
# A ring, two moons, and two Gaussians of unequal mass that are far apart.
densities = {
    "ring": Rings(noise=0.15),
    "moons": Moons(noise=0.15),
    "two modes, 80 to 20": GaussianCircle(n_modes=2, noise=0.4, weights=(0.8, 0.2)),
}
objectives = {
    "noise_contrastive": "told from Gaussian noise",
    "score_matching": "score matching",
    "denoising_score_matching": "denoising",
}
settings = {
    "hidden_sizes": (32, 32),
    "n_components": 32,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "max_epochs": 25,
    "random_state": 0,
}

# %%
# Noise-contrastive estimation also learns the normaliser, so its ``score`` is a log-likelihood. The
# others leave it unknown here, and quadrature normalises them all.
models, divergences = {}, {}
for name, density in densities.items():
    X = density.sample(3000, random_state=0)
    for objective in objectives:
        model = DeepEnergyModel(
            objective=objective,
            log_partition=None if objective != "noise_contrastive" else "auto",
            **settings,
        ).fit(X)
        models[name, objective] = model
        divergences[name, objective] = density.kl_divergence(model.score_samples)
        print(f"{name}, {objective}: {divergences[name, objective]:.3f} nats from the truth")

# %%
# Score matching uses only gradients at the data. Between distant modes there are no data, so
# nothing determines how the mass is divided between them: it can learn the shape of both modes
# correctly and their weights wrongly. Denoising learns the density of rows with noise of 0.3 added,
# which is wider than the truth.
figure, axes = plt.subplots(3, 4, figsize=(10, 7.5), layout="constrained")
for row, (name, density) in zip(axes, densities.items(), strict=True):
    grid, area = density.grid(120)
    box = (-density.limit, density.limit) * 2
    pictures = {"truth": density.log_density(grid)}
    for objective, title in objectives.items():
        divergence = divergences[name, objective]
        log_q = models[name, objective].score_samples(grid)
        pictures[f"{title}\n{divergence:.3f} nats"] = log_q
    for axis, (title, log_p) in zip(row, pictures.items(), strict=True):
        p = np.exp(log_p - log_p.max())
        p /= p.sum() * area
        axis.imshow(p.reshape(120, 120), origin="lower", extent=box, cmap="magma")
        axis.set(xticks=[], yticks=[], title=title)
    row[0].set_ylabel(name)
plt.show()

# %%
# ``modes`` climbs from points of the plane to where the density is highest nearby.
density = densities["two modes, 80 to 20"]
model = models["two modes, 80 to 20", "noise_contrastive"]
peaks = model.modes(density.sample(200, random_state=1))
right = peaks[peaks[:, 0] > 0].mean(axis=0)
print("the mode on the right is at", np.round(right, 2), "; the truth is", density.centres[0])
assert np.abs(right - density.centres[0]).max() < 0.3
assert max(divergences[name, "noise_contrastive"] for name in densities) < 0.1
