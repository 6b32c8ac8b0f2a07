"""
===========================================
What the units of a second layer stand for
===========================================

:class:`~sklebm.DeconvolutionalNetwork` codes handwritten digits in two layers. The strongest entry
of a unit is projected back to pixels through the layers below: units of the first layer represent
pieces of three by three pixels, those of the second large parts of a digit.
"""

# %%
# Two layers
# ----------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sklebm import DeconvolutionalNetwork

X = load_digits().data / 16
train, test = X[:100], X[100:160]
model = DeconvolutionalNetwork(
    (6, 12), (3, 3), image_shape=(8, 8), alpha=(0.1, 0.03), penalty="nonnegative", max_iter=6,
    batch_size=20, random_state=0,
).fit(train)  # fmt: skip
for layer in (1, 2):
    error = ((test - model.reconstruct(test, layer=layer)) ** 2).mean() / test.var()
    print(f"layer {layer} leaves {100 * error:.0f} % of the variance of new digits")

# %%
# Every unit in the digit that excites it most
# --------------------------------------------
# For each unit, the digit in which its strongest entry is largest, and the reconstruction from this
# entry alone. An upper unit uses several kernels of the first layer, at the positions given by the
# switches of this digit.


def strongest_pictures(layer, n_units):
    """For each unit, its picture and the digit that it comes from."""
    for unit in range(n_units):
        pictures = model.project(test, unit=unit, layer=layer)
        best = np.argmax((pictures**2).sum(axis=1))
        yield pictures[best].reshape(8, 8), test[best].reshape(8, 8)


figure, axes = plt.subplots(4, 12, figsize=(12, 4.4), layout="constrained")
for axis in axes.flat:
    axis.set_axis_off()
for layer, n_units in ((1, 6), (2, 12)):
    for unit, pair in enumerate(strongest_pictures(layer, n_units)):
        for row, (picture, colours) in enumerate(zip(pair, ("RdBu_r", "gray_r"), strict=True)):
            size = np.abs(picture).max() or 1.0
            least = -size if row == 0 else 0.0
            axes[2 * layer - 2 + row, unit].imshow(picture, cmap=colours, vmin=least, vmax=size)
    axes[2 * layer - 2, 0].set_title(f"layer {layer}: units, and their digits", loc="left")
plt.show()
