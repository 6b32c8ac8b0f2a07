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

from sklebm import PCAWhitener, SparseCoder, ZCAWhitener
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

pca = PCAWhitener().fit(patches)
usage = np.abs(codes).sum(axis=0).argsort()[::-1]
figure, axes = plt.subplots(1, 2, figsize=(9, 4.5))
ComponentsDisplay(coder.components_[usage[:100]], (SIZE, SIZE)).plot(ax=axes[0])
axes[0].set_title("atoms of the sparse code")
ComponentsDisplay(pca.components_[:100], (SIZE, SIZE)).plot(ax=axes[1])
axes[1].set_title("principal components")
figure.tight_layout()

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
