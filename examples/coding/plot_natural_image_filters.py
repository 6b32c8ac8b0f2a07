"""
==========================================
Sparse codes of natural images: edges
==========================================

The codes of natural image patches are sparse, and asking for sparse codes makes the atoms look like
the receptive fields of the visual cortex: localised, oriented, band-pass (Olshausen and Field,
1996). A dictionary without a price on its codes, the principal components, has none of this.
"""

# %%
# Whitened patches
# ----------------
# 30,000 patches of 12 x 12 pixels from the photographs that come with scikit-learn, whitened, so
# that fine and coarse structure count alike.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

from sklebm import EnergyKMeans, PCAWhitener, SparseCoder, ZCAWhitener
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
# The same patches give other pictures to other models. Principal components are waves that fill the
# patch. Each whitening filter subtracts its surround from one pixel. The codes of k-means have a
# single non-zero, so that one centre has to stand for a whole patch.

pca = PCAWhitener().fit(patches)
zca = ZCAWhitener().fit(patches)
clusters = EnergyKMeans(100, max_iter=15, random_state=0).fit(white)
usage = np.abs(codes).sum(axis=0).argsort()[::-1]
pictures = {
    "SparseCoder: atoms": coder.components_[usage[:100]],
    "EnergyKMeans: centres": clusters.cluster_centers_,
    "PCAWhitener: principal components": pca.components_[:100],
    "ZCAWhitener: filters of the middle pixels": zca.filters_.reshape(SIZE, SIZE, -1)[
        1:-1, 1:-1
    ].reshape(100, -1),
}
figure, axes = plt.subplots(2, 2, figsize=(8.4, 8.8), layout="constrained")
for axis, (title, filters) in zip(axes.flat, pictures.items(), strict=True):
    ComponentsDisplay(filters, (SIZE, SIZE)).plot(axis, n_columns=10, title=title)

# %%
# Few large coefficients
# ----------------------
# Excess kurtosis is 0 for Gaussian coefficients. The same patches have sparse codes with the
# learnt atoms, much less so with random ones, which need more atoms for the same patch.

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
