r"""
Seven ways to shape an energy
=============================

Lowering the energy of the data is easy; learning methods differ in what keeps it high elsewhere
(:doc:`/user_guide/energies`). Here are all seven on the same two moons: three that raise the energy
explicitly, and four that limit the volume of low energy.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklebm import (
    VAE,
    ContractiveAutoencoder,
    DeepEnergyModel,
    DenoisingAutoencoder,
    EnergyGaussianMixture,
    EnergyKMeans,
)
from sklebm.datasets import Moons
from sklebm.plotting import EnergyLandscapeDisplay

density = Moons(noise=0.1)
X = density.sample(2000, random_state=0).astype(np.float32)
X_test = density.sample(1000, random_state=1).astype(np.float32)

# %%
# Each way is an estimator with its objective.
network = {"learning_rate": 0.005, "random_state": 0}
deep = {"hidden_sizes": (64, 64), "n_components": 64, "max_epochs": 100, **network}
codes = {"hidden_sizes": (64, 64), "max_epochs": 120, **network}
ways = {
    "C1: likelihood, up everywhere": EnergyGaussianMixture(12, random_state=0),
    "C2: up at points of noise": DeepEnergyModel(objective="noise_contrastive", **deep),
    "C3: noise is mapped back": DenoisingAutoencoder(64, corruption_level=0.15, **codes),
    "A1: few points to decode": EnergyKMeans(24, random_state=0),
    "A2: a code of little information": VAE(1, noise_scale=0.1, **{**codes, "max_epochs": 200}),
    "A3: constant where data are not": ContractiveAutoencoder(
        2, alpha=0.01, tied=False, code_activation="identity", **codes
    ),
    "A4: flat and curved at the data": DeepEnergyModel(objective="score_matching", **deep),
}
for model in ways.values():
    model.fit(X)

# %%
# Lines enclose the region of lower energy that contains 95 % of the held-out rows. The smaller the
# region, the better the model; that of the density itself is the smallest possible.
low, high = X.min(axis=0) - 0.8, X.max(axis=0) + 0.8
x, y = np.linspace(low, high, 120).T
grid = np.stack([axis.ravel() for axis in np.meshgrid(x, y)], axis=1)


def share_of_plane(energy, at_data):
    """Part of the plane whose energy is below that of 95 % of the data."""
    threshold = np.quantile(at_data, 0.95)
    return np.mean(energy < threshold), threshold


least, _ = share_of_plane(-density.log_density(grid), -density.log_density(X_test))
print(f"{'the density itself':34s}{least:6.1%} of the plane")
figure, axes = plt.subplots(2, 4, figsize=(12, 5.2), layout="constrained")
axes[0, 0].plot(*X.T, ".", markersize=2, color="black")
axes[0, 0].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
axes[0, 0].set_title(f"the data\ndensity: {least:.0%} of the plane", fontsize=10)
for axis, (name, model) in zip(axes.flat[1:], ways.items(), strict=True):
    energy = model.free_energy(grid)
    share, threshold = share_of_plane(energy, model.free_energy(X_test))
    print(f"{name:34s}{share:6.1%} of the plane")
    landscape = energy.reshape(len(y), len(x))
    EnergyLandscapeDisplay(x, y, landscape).plot(axis, colorbar=False)
    axis.contour(x, y, landscape, levels=[threshold], colors="k", linestyles="-")
    axis.set_title(f"{name}\n{type(model).__name__}, {share:.0%}", fontsize=10)
    assert least < share < 0.3
for axis in axes.flat:
    axis.set(xticks=[], yticks=[], xlabel="", ylabel="", aspect="equal")
plt.show()

# %%
# Likelihood and its substitutes (C1, C2, A4) come close to the density. The moons are curves with
# some width, and a one-number code (A2) fits a curve. K-means (A1) covers them with discs. Models
# that reconstruct (C3, A3) are exact along the data and learn what is next to it; nothing
# constrains them further away, so they fill the gaps between the moons.
