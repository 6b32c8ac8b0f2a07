"""
=======================================
Layers of sparse codes of handwriting
=======================================

:class:`~sklebm.DeepSparseCoder` codes digits by atoms, and these codes by groups of atoms that are
used together. How do codes change when those of both layers are optimised together?
"""

# %%
# Two layers
# ----------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sklebm import DeepSparseCoder

X, y = load_digits(return_X_y=True)
X = X / 16
SIZES, ALPHA = (60, 30), (0.2, 0.1)
coder = DeepSparseCoder(
    SIZES,
    ALPHA,
    penalty="nonnegative",
    inference="multilayer_fista",
    learning="joint",
    random_state=0,
).fit(X[:1200])

# %%
# What inference finds
# --------------------
# Inference over all layers together gives the lowest energy. One threshold per layer amounts to a
# network of rectified linear units: these atoms overlap too much for it, and its energy is far
# above that of zero codes.

test = X[1200:]
energies = {"zero codes": 0.5 * (test**2).sum(axis=1).mean()}
for inference in ("layered_thresholding", "layered_fista", "multilayer_fista"):
    other = DeepSparseCoder.from_parameters(
        components=coder.components_,
        upper_components=coder.upper_components_,
        alpha=ALPHA,
        penalty="nonnegative",
        inference=inference,
    )
    energies[inference.replace("_", "\n")] = other.free_energy(test).mean()
print({name.replace("\n", " "): round(float(energy), 2) for name, energy in energies.items()})

# %%
# Atoms of both layers, and the energies
# --------------------------------------
# An atom of the second layer is drawn in pixels, as its combination of atoms of the first.

first = coder.components_
second = coder.upper_components_["layer2"] @ first
used = np.argsort(-coder.transform(test)[:, SIZES[0] :].sum(axis=0))


def sheet(atoms):
    """A picture of 5 x 5 atoms, each with a gap beside it."""
    tiles = np.full((5, 9, 5, 9), np.nan)
    tiles[:, :8, :, :8] = (
        (atoms[:25] / np.abs(atoms[:25]).max(axis=1, keepdims=True))
        .reshape(5, 5, 8, 8)
        .transpose(0, 2, 1, 3)
    )
    return tiles.reshape(45, 45)


figure, axes = plt.subplots(1, 3, figsize=(12, 4))
for axis, atoms, title in (
    (axes[0], first, "first layer"),
    (axes[1], second[used], "second layer"),
):
    axis.imshow(sheet(atoms), cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set_title(title)
    axis.set_axis_off()
axes[2].bar(list(energies), list(energies.values()))
axes[2].set(yscale="log", ylabel="mean energy of other digits", title="inference")
axes[2].tick_params(axis="x", labelsize=8)
figure.tight_layout()
plt.show()
