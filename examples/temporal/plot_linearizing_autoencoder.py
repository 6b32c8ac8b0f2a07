"""
==================================
Digits that move instead of fading
==================================

Codes with phase pooling describe what is in a frame and where it is. Extrapolated along a straight
line, they predict the next frame of a moving digit; halfway between two codes, the digit is halfway
between two positions. Halfway between two codes of a plain auto-encoder, it fades.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklebm import Autoencoder, LinearizingAutoencoder
from sklebm.datasets import make_bouncing_digits

side = 16
X, groups = make_bouncing_digits(150, 12, size=side, speed=0.5, random_state=0)
model = LinearizingAutoencoder(
    16,
    image_shape=(side, side),
    hidden_sizes=(),
    kernel_size=9,
    learning_rate=0.01,
    max_epochs=8,
    random_state=0,
).fit(X, groups=groups)
plain = Autoencoder(32, hidden_sizes=(128,), max_epochs=20, random_state=0).fit(X)

# %%
# How well are the frames of new sequences predicted, from the third frame on?
X_test, groups_test = make_bouncing_digits(40, 12, size=side, speed=0.5, random_state=1)
third = np.flatnonzero(np.arange(len(X_test)) % 12 >= 2)
error = model.free_energy(X_test, groups=groups_test)[third].mean()
copied = ((X_test[third] - X_test[third - 1]) ** 2).sum(axis=1).mean()
continued = ((X_test[third] - 2 * X_test[third - 1] + X_test[third - 2]) ** 2).sum(axis=1).mean()
print(f"squared error: {error:.2f}, of the last frame {copied:.2f}, of its pixels {continued:.2f}")

# %%
# A new digit in motion: positions of the groups of units, and six frames interpolated between two
# frames that are eight steps apart.
path, _ = make_bouncing_digits(1, 12, size=side, speed=0.5, random_state=6)
codes = model.transform(path)
n_groups = model.n_components
magnitudes, rows, columns = codes[:, :n_groups], codes[:, n_groups:-n_groups], codes[:, -n_groups:]
strongest = np.argsort(-np.abs(magnitudes).mean(axis=0))[:6]
ends = path[2], path[10]
between = np.linspace(0, 1, 6)[:, None]
latent = plain.transform(np.stack(ends))
strips = {
    "what happened": path[np.linspace(2, 10, 6).round().astype(int)],
    "between codes": model.interpolate(*ends, n=6),
    "plain auto-encoder": plain.inverse_transform((1 - between) * latent[0] + between * latent[1]),
}
figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=(2, 1))
canvas = np.full((3 * (side + 1), 6 * (side + 1)), np.nan)
for row, frames in enumerate(strips.values()):
    for column, frame in enumerate(frames):
        top, left = row * (side + 1), column * (side + 1)
        canvas[top : top + side, left : left + side] = frame.reshape(side, side)
axes[0].imshow(canvas, cmap="gray", vmin=0, vmax=1)
axes[0].set_yticks((side + 1) * np.arange(3) + side / 2, strips)
axes[0].set_xticks([])
axes[0].spines[:].set_visible(False)
axes[0].set_title("from one frame to another")
for group in strongest:
    axes[1].plot(columns[:, group], rows[:, group], marker="o", markersize=3)
axes[1].set(
    title="places of six groups of units",
    xlabel="column, pixels",
    ylabel="row, pixels",
    aspect="equal",
)
axes[1].invert_yaxis()
plt.show()
