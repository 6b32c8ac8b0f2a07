"""
==========================================
Whitening filters of natural image patches
==========================================

Neighbouring pixels of a photograph are nearly equal, and most of the variance of a patch lies in a
few smooth patterns. Whitening removes this: :class:`~sklebm.ZCAWhitener` subtracts from each pixel
the prediction from its surround, with filters like those of the retina, positive in the centre
(red) and negative around it (blue). The rotated form, :class:`~sklebm.PCAWhitener`, has filters
that look like waves.

The patches come from the two photographs that scikit-learn ships.
"""

# %%
# Patches
# -------
# 20,000 grey patches of 12 x 12 pixels with values in [0, 1]. Subtracting its mean from each patch
# leaves 143 of 144 directions: the constant patch has no variance, and whitening must not divide
# by it.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

from sklebm import PCAWhitener, ZCAWhitener
from sklebm.plotting import ComponentsDisplay

SIZE = 12
photographs = [image.mean(axis=2) / 255 for image in load_sample_images().images]
patches = np.concatenate(
    [
        extract_patches_2d(photograph, (SIZE, SIZE), max_patches=10_000, random_state=0)
        for photograph in photographs
    ]
).reshape(-1, SIZE * SIZE)
patches -= patches.mean(axis=1, keepdims=True)

# Patches without a mean do not vary along the direction of equal pixels.
zca = ZCAWhitener(SIZE * SIZE - 1, ridge=0).fit(patches)
pca = PCAWhitener(SIZE * SIZE - 1).fit(patches)
kept = np.count_nonzero(zca.explained_variance_)
print(f"{kept} of {SIZE * SIZE} directions have variance")

# %%
# The output is white: on the kept subspace its covariance is the identity, although the variances
# of the input differ by a factor of hundreds.

covariance = np.cov(pca.transform(patches)[:, :kept].T)
print(f"largest entry of cov(z) - I: {np.abs(covariance - np.eye(kept)).max():.1e}")
print(
    f"largest / smallest variance: "
    f"{zca.explained_variance_[0] / zca.explained_variance_[kept - 1]:.0f}"
)

# %%
# The filters
# -----------
# A ZCA filter belongs to one pixel; here are nine from the middle of the patch. A PCA filter is a
# principal component divided by its standard deviation, so fine patterns are amplified most.

middle = [SIZE * row + column for row in (4, 6, 8) for column in (4, 6, 8)]
figure, axes = plt.subplots(1, 2, figsize=(8, 4))
ComponentsDisplay(zca.filters_[middle], (SIZE, SIZE)).plot(ax=axes[0])
axes[0].set_title("ZCA: centre and surround")
ComponentsDisplay(pca.components_[:36], (SIZE, SIZE)).plot(ax=axes[1])
axes[1].set_title("PCA: 36 leading directions")
figure.tight_layout()

# %%
# What a whitened patch looks like
# --------------------------------
# Edges are preserved, and uniform surfaces fade. ``ridge`` damps the directions of lowest variance,
# which contain mostly noise.

rng = np.random.default_rng(0)
strong = np.argsort(patches.var(axis=1))[-8000:]
some = patches[rng.choice(strong, 8, replace=False)]
damped = ZCAWhitener(ridge=0.1).fit(patches)
rows = {
    "patch": some,
    "whitened": zca.transform(some),
    "whitened, ridge=0.1": damped.transform(some),
}
figure, axes = plt.subplots(3, 1, figsize=(8, 4))
for axis, (title, images) in zip(axes, rows.items(), strict=True):
    image = np.hstack([np.pad(x.reshape(SIZE, SIZE) / np.abs(x).max(), 1) for x in images])
    axis.imshow(image, cmap="gray", vmin=-1, vmax=1)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
figure.tight_layout()

# %%
# The same covariance is a density
# --------------------------------
# ``score_samples`` is the log density of the Gaussian. Shuffled pixels have the same values but no
# smoothness, and adding a constant moves a patch in a direction in which no patch varies: both are
# improbable, the second even though ``transform`` is unaffected by it.

shuffled = rng.permuted(some, axis=1)
brighter = some + 0.05
for name, images in (("patches", some), ("shuffled", shuffled), ("plus 0.05", brighter)):
    print(f"{name:10s} {zca.score_samples(images).mean():12.0f} nats")
print(f"change of the codes: {np.abs(zca.transform(brighter) - zca.transform(some)).max():.1e}")
plt.show()
