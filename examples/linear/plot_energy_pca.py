"""
========================================
How many directions do the digits fill?
========================================

Principal components span the plane that is closest to the rows. :class:`~sklebm.EnergyPCA` makes
the squared distance to that plane an energy, and gives it a probabilistic form whose density is
exact.
"""

# %%
# The energy of an image is the part that the plane misses
# --------------------------------------------------------
# A plane of 8 dimensions is fitted to images of the digit 3. Other digits lie further from it.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklebm import EnergyPCA

X, y = load_digits(return_X_y=True)
train, test, train_labels, test_labels = train_test_split(X, y, random_state=0)
model = EnergyPCA(n_components=8).fit(train[train_labels == 3])

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), width_ratios=[3, 2])
energies = [model.free_energy(test[test_labels == digit]) for digit in range(10)]
left.boxplot(energies, tick_labels=range(10), showfliers=False)
left.set(xlabel="digit", ylabel="free energy", title="distance to the plane of the threes")

chosen = np.concatenate([test[test_labels == 3][:3], test[test_labels == 8][:3]])
seen = model.inverse_transform(model.transform(chosen))
rows = [np.hstack([image.reshape(8, 8) for image in images]) for images in (chosen, seen)]
right.imshow(np.vstack(rows), cmap="gray_r")
right.set(title="above: threes and eights\nbelow: their points in the plane", xticks=[], yticks=[])
figure.tight_layout()

# %%
# Held-out rows choose the number of directions
# ---------------------------------------------
# On the training rows, the likelihood rises with every direction. On held-out rows, it falls once
# the directions describe noise. ``"held_out"`` finds the peak over five folds of the training rows.

rng = np.random.default_rng(0)
X = X + rng.uniform(size=X.shape)  # counts become a density
train, test = train_test_split(X, train_size=300, random_state=0)
sizes = range(1, 64, 2)
models = [EnergyPCA(size).fit(train) for size in sizes]
found = EnergyPCA("held_out").fit(train)

figure, axis = plt.subplots(figsize=(6, 3.5))
axis.plot(sizes, [model.score(train) for model in models], label="training rows")
axis.plot(sizes, [model.score(test) for model in models], label="held-out rows")
axis.axvline(found.n_components_, color="black", linestyle=":", label='"held_out"')
axis.set(xlabel="n_components", ylabel="log density (nats)")
axis.legend()
figure.tight_layout()
