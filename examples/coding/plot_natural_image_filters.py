"""
==========================================
Sparse codes of natural images: edges
==========================================

Natural image patches have sparse codes, and requiring sparse codes makes the atoms look like the
receptive fields of the visual cortex: localised, oriented, band-pass (Olshausen and Field, 1996).
Principal components, a dictionary without a penalty on its codes, are waves that fill the patch.
"""

# %%
# Whitened patches
# ----------------
# 30,000 patches of 12 x 12 pixels from the photographs that come with scikit-learn, whitened, so
# that fine and coarse structure have equal weight.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

from sklebm import EnergyKMeans, GaussianRBM, PCAWhitener, SparseCoder, ZCAWhitener
from sklebm.plotting import ComponentsDisplay

SIZE = 12
patches = np.concatenate(
    [
        extract_patches_2d(photo.mean(axis=2), (SIZE, SIZE), max_patches=15_000, random_state=0)
        for photo in load_sample_images().images
    ]
).reshape(-1, SIZE * SIZE)
patches -= patches.mean(axis=1, keepdims=True)
white = ZCAWhitener(ridge=0.01).fit_transform(patches)
white /= np.linalg.norm(white, axis=1, keepdims=True)

# %%
# Atoms
# -----

coder = SparseCoder(144, alpha=0.15, max_iter=4, random_state=0).fit(white)
codes = coder.transform(white[:2000])
print(f"non-zeros per patch: {(codes != 0).sum(axis=1).mean():.1f} of {codes.shape[1]}")

# %%
# Other models give other filters for the same patches. Principal components are waves that fill the
# patch. Each whitening filter subtracts its surround from one pixel. The codes of k-means have a
# single non-zero, so one centre has to represent a whole patch. The hidden units of a Boltzmann
# machine are on or off, and most of them again add pieces of edges to a patch; it is trained on the
# leading 80 principal components, which leaves out fine noise. The most-used filters are shown.

pca = PCAWhitener(80).fit(patches)
zca = ZCAWhitener().fit(patches)
clusters = EnergyKMeans(100, max_iter=15, random_state=0).fit(white)
rows = pca.transform(patches)
rows *= np.sqrt(80) / np.linalg.norm(rows, axis=1, keepdims=True)
machine = GaussianRBM(80, learning_rate=0.5, max_epochs=30, log_partition=None, random_state=0).fit(
    rows.astype(np.float32)
)


def most(tiles, usage):
    """The 64 with the largest usage."""
    return tiles[usage.argsort()[::-1][:64]]


middle = [SIZE * row + column for row in (3, 5, 6, 8) for column in (3, 5, 6, 8)]
hidden = machine.transform(rows[:5000].astype(np.float32))
pictures = {
    "whitened patches": white[:64],
    "SparseCoder: atoms": most(coder.components_, np.abs(codes).sum(axis=0)),
    "GaussianRBM: hidden units": most(machine.components_ @ pca.components_, hidden.sum(axis=0)),
    "EnergyKMeans: centres": most(clusters.cluster_centers_, clusters.cluster_counts_),
    "PCAWhitener: principal components": pca.components_[:64],
    "ZCAWhitener: filters of 16 pixels": zca.filters_[middle],
}
figure, axes = plt.subplots(2, 3, figsize=(12.4, 8.8), layout="constrained")
for axis, (title, filters) in zip(axes.flat, pictures.items(), strict=True):
    ComponentsDisplay(filters, (SIZE, SIZE)).plot(axis, title=title)

# %%
# Few large coefficients
# ----------------------
# Excess kurtosis is 0 for Gaussian coefficients, and large if a few are large and most are zero.
# The same number of random atoms describe a patch less well, so its energy is higher, and their
# coefficients are less unequal.

random_atoms = np.random.default_rng(0).standard_normal(coder.components_.shape)
random_atoms /= np.linalg.norm(random_atoms, axis=1, keepdims=True)
blind = SparseCoder(dictionary=random_atoms, alpha=0.15).fit(white[:2000])
for name, model in (("learnt", coder), ("random", blind)):
    z = model.transform(white[:2000])
    kurtosis = ((z - z.mean()) ** 4).mean() / z.var() ** 2 - 3
    print(
        f"{name:7s} atoms: energy {model.free_energy(white[:2000]).mean():.4f}, "
        f"non-zeros {(z != 0).sum(axis=1).mean():.1f}, excess kurtosis {kurtosis:.0f}"
    )
plt.show()
