r"""
GaussianRBM filters on natural patches
======================================

A restricted Boltzmann machine with real-valued visible units decomposes a patch of a photograph:
each hidden unit that is on adds its filter to the mean. Trained on whitened patches, it gives them
a log density several nats above that of the Gaussian with the same covariance.
"""

# %%
# Whitened patches
# ----------------
# Grey patches of 8 x 8 pixels without their mean, from the two photographs that come with
# scikit-learn. Whitening removes what a Gaussian can model: only the shape of the density remains
# to be learnt. The faintest 24 directions, mostly noise, are left out, and log densities below are
# those of the 40 whitened coordinates that remain.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.model_selection import train_test_split

from sklebm import GaussianRBM, PCAWhitener
from sklebm.plotting import ComponentsDisplay

SIZE = 8
patches = np.concatenate(
    [
        extract_patches_2d(photo.mean(axis=2), (SIZE, SIZE), max_patches=15_000, random_state=0)
        for photo in load_sample_images().images
    ]
).reshape(-1, SIZE * SIZE)
patches -= patches.mean(axis=1, keepdims=True)
patches = train_test_split(patches, test_size=1 / 6, random_state=0)
whitener = PCAWhitener(40).fit(patches[0])
train, test = (whitener.transform(part).astype(np.float32) for part in patches)

# %%
# Likelihood
# ----------
# With 80 hidden units, log Z is estimated by annealing, with an interval.

rbm = GaussianRBM(80, max_epochs=60, learning_rate=0.5, random_state=0).fit(train)
low, high = rbm.log_partition_interval_
normal = -0.5 * (test**2).sum(axis=1).mean() - 0.5 * test.shape[1] * np.log(2 * np.pi)
print(f"Gaussian:        {normal:.1f} nats a test patch")
print(f"80 hidden units: {rbm.score(test):.1f} nats (log Z within {low:.2f} .. {high:.2f})")
assert rbm.score(test) > normal + 3

# %%
# Filters
# -------
# What a hidden unit adds to a patch, in pixels, for the 36 units that are on most often: spots and
# pieces of edges, many of them localised. The leading principal components are waves over the whole
# patch.

filters = whitener.inverse_transform(rbm.components_) - whitener.mean_
usage = rbm.transform(test).mean(axis=0)
figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
pictures = {
    "filters of hidden units": filters[usage.argsort()[::-1]],
    "principal components": whitener.components_,
}
for axis, (title, tiles) in zip(axes, pictures.items(), strict=True):
    ComponentsDisplay(tiles, (SIZE, SIZE)).plot(axis, max_components=36, title=title)

# %%
# Few units at a time
# -------------------
print(
    f"hidden units that are on in a test patch: {rbm.transform(test).sum(axis=1).mean():.1f} of 80"
)
print(f"noise left in each coordinate: {np.exp(0.5 * rbm.log_variance_[0]):.2f} of 1")
plt.show()
