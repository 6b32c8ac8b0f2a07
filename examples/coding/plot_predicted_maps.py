"""
======================================================
Kernels with an encoder, and atoms that repeat shifts
======================================================

:class:`~sklebm.ConvPredictiveSparseDecomposition` learns kernels for whole images, and a few
convolutions that predict where each of them occurs. An atom of a patch dictionary is tied to a
position within the patch, so the dictionary may need the same edge at several positions, where a
single kernel suffices.
"""

# %%
# Windows of a photograph
# -----------------------
# The smooth part, which has no sparse description, is subtracted by the model; from the patches it
# is subtracted here.

import matplotlib.pyplot as plt
import numpy as np
from scipy.signal import correlate2d
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

from sklebm import (
    ConvPredictiveSparseDecomposition,
    ConvSparseCoder,
    PredictiveSparseDecomposition,
)
from sklebm.plotting import ComponentsDisplay

SIDE, KERNEL, N_KERNELS = 24, 7, 16
photograph = load_sample_images().images[0].mean(axis=2) / 255
photograph = photograph[:426].reshape(213, 2, 320, 2).mean(axis=(1, 3))
places = np.random.default_rng(0).integers(0, [213 - SIDE, 320 - SIDE], (40, 2))
windows = np.stack([photograph[i : i + SIDE, j : j + SIDE] for i, j in places]).reshape(40, -1)
train, test = windows[:32], windows[32:]

# %%
# Kernels, and an encoder with three layers
# -----------------------------------------

settings = {"kernel_size": KERNEL, "image_shape": (SIDE, SIDE), "alpha": 0.05, "low_pass": 5.0}
model = ConvPredictiveSparseDecomposition(
    N_KERNELS, learning_rate=0.01, batch_size=8, max_epochs=10, random_state=0, **settings
).fit(train)
optimal = ConvSparseCoder(dictionary=model.components_, code_tol=1e-3, **settings).fit(test)
excess = model.free_energy(test).sum() / optimal.free_energy(test).sum() - 1
print(f"energy of new windows: {100 * excess:.0f} % above that of the optimal codes")

# %%
# Atoms of patches, at equal size
# -------------------------------

smooth = optimal.reconstruct(train) - optimal.set_params(pool=None).inverse_transform(
    optimal.codes(train)
)
sharp = (train - smooth).reshape(-1, SIDE, SIDE)
patches = np.concatenate(
    [
        extract_patches_2d(image, (KERNEL, KERNEL), max_patches=100, random_state=0)
        for image in sharp
    ]
).reshape(-1, KERNEL**2)
atoms = (
    PredictiveSparseDecomposition(
        N_KERNELS, alpha=0.05, learning_rate=0.02, max_epochs=12, random_state=0
    )
    .fit(patches)
    .components_
)


def best_shift(filters):
    """Of each filter, the largest normalised correlation with a shift of any other."""
    planes = filters.reshape(-1, KERNEL, KERNEL)
    planes = planes / np.linalg.norm(planes, axis=(1, 2), keepdims=True)
    peaks = np.array([[np.abs(correlate2d(a, b)).max() for a in planes] for b in planes])
    np.fill_diagonal(peaks, 0.0)
    return peaks.max(axis=1)


# %%
# What the two have learnt
# ------------------------
# "Similarity" is the largest normalised correlation of a filter with a shift of any other. Atoms of
# patches are closer to shifts of each other than kernels are; with so few of either, no similarity
# exceeds 0.9. On the right: the maps of one new window, summed over all kernels, as predicted by
# the encoder and as found by optimisation. The encoder spreads small entries over most positions,
# where the optimal code has only a few.

predicted, found = (
    np.abs(coder.codes(test[:1])).reshape(N_KERNELS, SIDE, SIDE).sum(axis=0)
    for coder in (model, optimal)
)
figure, axes = plt.subplots(1, 4, figsize=(14, 3.8), layout="constrained")
for axis, (name, filters) in zip(
    axes, {"atoms of patches": atoms, "kernels": model.components_}.items(), strict=False
):
    ComponentsDisplay(filters, (KERNEL, KERNEL)).plot(
        axis, title=f"{name}: median similarity {np.median(best_shift(filters)):.2f}"
    )
top = max(predicted.max(), found.max())
for axis, (title, picture) in zip(
    axes[2:], {"predicted maps": predicted, "optimal maps": found}.items(), strict=True
):
    axis.imshow(picture, cmap="magma", vmin=0, vmax=top)
    axis.set(title=title, xticks=[], yticks=[])
plt.show()
