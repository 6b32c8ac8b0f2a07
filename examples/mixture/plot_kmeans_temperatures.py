r"""
The free energy of k-means at several temperatures
==================================================

K-means is an energy with a discrete latent, :math:`E(y, z) = \|y - c_z\|^2`. Its free energy

.. math:: F_\beta(y) = -\frac{1}{\beta} \log \sum_z e^{-\beta \|y - c_z\|^2}

takes all centres into account at high temperature (small :math:`\beta`): it has one smooth minimum.
As the temperature falls, a minimum forms at each centre, until in the limit the free energy is the
squared distance to the nearest centre, with ridges along the borders of the Voronoi cells.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_blobs

from sklebm import EnergyKMeans
from sklebm.plotting import EnergyLandscapeDisplay

X = make_blobs(400, centers=5, cluster_std=0.6, random_state=3)[0]
model = EnergyKMeans(5, random_state=0).fit(X)

# %%
# The same fitted centres at four temperatures; the darkest colour covers half of each map.

axis_x, axis_y = (np.linspace(X[:, i].min() - 2, X[:, i].max() + 2, 120) for i in (0, 1))
grid = np.stack([part.ravel() for part in np.meshgrid(axis_x, axis_y)], axis=1)

figure, axes = plt.subplots(2, 2, figsize=(8.4, 7), layout="constrained")
for ax, beta in zip(axes.flat, (0.02, 0.1, 0.5, np.inf), strict=True):
    energy = model.free_energy(grid, beta=beta).reshape(120, 120)
    display = EnergyLandscapeDisplay(axis_x, axis_y, energy, "free energy (squared distance)")
    display.plot(ax, data=X if beta == np.inf else None, gradient=True)
    ax.plot(*model.cluster_centers_.T, "k+", markersize=10)
    ax.set_title(f"β = {beta}".replace("inf", "∞"))

# %%
# The distance to the nearest centre is the limit, approached from below: no point differs from it
# by more than log(k) / β.

hard = model.free_energy(X, beta=np.inf)
for beta in (0.02, 0.1, 0.5, 2.5):
    gap = (hard - model.free_energy(X, beta=beta)).max()
    print(f"β = {beta:4}: at most {gap:.4f} below it, bound {np.log(5) / beta:.4f}")
