"""
===================================
A ring of modes, and their energies
===================================

A ring of eight Gaussians is the classical test of adversarial models: a generator that has found
one of the modes can fool its critic, and may never find the others. :class:`~sklebm.EnergyGAN`
learns the ring; we count the modes that its samples cover, and look at the energy of its critic.
"""

# %%
# The game
# --------
# The critic is an auto-encoder; its reconstruction error is the energy. The energy distance to
# held-out rows is recorded after every epoch.

import matplotlib.pyplot as plt
import numpy as np

from sklebm import EnergyGAN
from sklebm.datasets import GaussianCircle

ring = GaussianCircle(n_modes=8, noise=0.2)
X = ring.sample(2000, random_state=0)
model = EnergyGAN(
    2,
    hidden_sizes=(64, 64),
    validation_fraction=0.2,
    max_epochs=40,
    random_state=0,
).fit(X)

# %%
# Modes
# -----
# A mode is covered if at least one sample in a hundred lies within three standard deviations of it,
# where nearly all of the data lie. A continuous generator cannot avoid bridges between modes: here,
# its samples form a ring that is thinner than the modes are wide. The loss does not show whether a
# mode is missing: count the modes, or monitor the distance.

samples = model.sample(1000, random_state=0)
away = np.linalg.norm(samples[:, None] - ring.centres, axis=2)
near = away.min(axis=1) < 3 * ring.noise
counts = np.bincount(away.argmin(axis=1)[near], minlength=8)
n_modes = int((counts >= 10).sum())
data = np.linalg.norm(X[:, None] - ring.centres, axis=2).min(axis=1) < 3 * ring.noise
print(f"{n_modes} of 8 modes; near one are {near.mean():.0%} of samples, {data.mean():.0%} of data")

# %%
# The energy
# ----------
# Dark is low. During training, the critic lowers the energy where data outnumber samples, and
# raises it where samples outnumber data, so its energy is not a map of the density. The distance
# falls fast, and shows when further steps bring no improvement.

limit = 1.3 * np.abs(X).max()
axis = np.linspace(-limit, limit, 150)
grid = np.stack([part.ravel() for part in np.meshgrid(axis, axis)], axis=1)
energy = model.free_energy(grid).reshape(150, 150)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
left.pcolormesh(axis, axis, -np.log(energy + 1e-3), cmap="Greys")
left.plot(*X[:1000].T, ".", markersize=2, color="tab:blue", alpha=0.5, label="data")
left.plot(*samples.T, ".", markersize=2, color="tab:orange", label="samples")
left.plot(*ring.centres.T, "k+", markersize=12, markeredgewidth=2, label="centres")
left.set(title=f"{n_modes} of 8 modes", aspect="equal")
left.legend(loc="upper right")
right.semilogy(np.maximum(-model.validation_scores_, 1e-4))
right.set(xlabel="epoch", ylabel="energy distance to held-out rows")
plt.show()
