r"""
MeanCovarianceRBM: filters of means and of covariances
======================================================

A machine with two kinds of hidden units is trained on patches of photographs. Covariance units
model which pixels vary together: many of their filters become edges, bars and gratings. Mean units
model how bright pixels are, given this covariance.
"""

# %%
# Whitened patches
# ----------------
# Grey patches of 8 x 8 pixels without their mean, from the two photographs that come with
# scikit-learn. Flat ones are left out and the others divided by their contrast: sky and foliage
# together would otherwise give a density with two scales, between which chains hardly move. Rows
# are the 40 principal directions of largest variance, each of variance one.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.model_selection import train_test_split

from sklebm import GaussianRBM, MeanCovarianceRBM, PCAWhitener
from sklebm.plotting import ComponentsDisplay

SIZE = 8
patches = np.concatenate(
    [
        extract_patches_2d(photo.mean(axis=2), (SIZE, SIZE), max_patches=10_000, random_state=0)
        for photo in load_sample_images().images
    ]
).reshape(-1, SIZE * SIZE)
patches -= patches.mean(axis=1, keepdims=True)
contrast = patches.std(axis=1, keepdims=True)
patches = (patches / np.maximum(contrast, 1.0))[contrast[:, 0] > 5.0]  # of 255 levels of grey
patches = train_test_split(patches, test_size=1 / 4, random_state=0)
whitener = PCAWhitener(40).fit(patches[0])
train, test = (whitener.transform(part).astype(np.float32) for part in patches)

# %%
# Two kinds of hidden units
# -------------------------

model = MeanCovarianceRBM(36, 64, n_leapfrog=5, max_epochs=10, random_state=0).fit(train)
peer = GaussianRBM(100, max_epochs=10, random_state=0).fit(train)
normal = -0.5 * (test**2).sum(axis=1).mean() - 0.5 * test.shape[1] * np.log(2 * np.pi)
print(f"Gaussian:                            {normal:.1f} nats a test patch")
for name, machine in {"100 mean units": peer, "36 mean, 64 covariance units": model}.items():
    low, high = machine.log_partition_interval_
    mean = -float(machine.free_energy(test).mean())
    print(f"{name + ':':36s} between {mean - high:.1f} and {mean - low:.1f} nats")

# %%
# Filters
# -------
# In pixels: the pattern whose variance a covariance unit suppresses, and the pattern that a mean
# unit adds.

dewhitened = {
    "covariances: columns of R": model.filters_,
    "means: columns of W": model.components_,
}
figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
for axis, (title, filters) in zip(axes, dewhitened.items(), strict=True):
    tiles = whitener.inverse_transform(filters) - whitener.mean_
    ComponentsDisplay(tiles, (SIZE, SIZE)).plot(axis, max_components=36, title=title)
plt.show()
