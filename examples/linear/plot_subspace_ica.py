"""
=================================================
Components, subspaces and maps of natural images
=================================================

Patches of photographs are sparse in edges. :class:`~sklebm.SubspaceICA` finds them, alone, in
groups that share a place and an orientation, or on a map where neighbours are similar.

The patches come from the two photographs that scikit-learn ships.
"""

# %%
# How large should groups be?
# ---------------------------
# Each model is a normalised density of the same patches. Held-out patches choose the size of the
# groups and the density of their norms.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

from sklebm import PCAWhitener, SubspaceICA
from sklebm.plotting import ComponentsDisplay

SIZE = 8
photographs = [image.mean(axis=2) / 255 for image in load_sample_images().images]
patches = np.concatenate(
    [
        extract_patches_2d(photograph, (SIZE, SIZE), max_patches=5_000, random_state=0)
        for photograph in photographs
    ]
).reshape(-1, SIZE * SIZE)
patches -= patches.mean(axis=1, keepdims=True)
# A patch without its mean has one direction less than pixels: coordinates in the others.
axes = PCAWhitener(SIZE * SIZE - 1).fit(patches)
rows = (patches @ axes.components_.T)[np.random.default_rng(0).permutation(len(patches))]
train, test = rows[:7_000], rows[7_000:]

sizes = [1, 2, 4, 8, 16]
figure, axis = plt.subplots(figsize=(6, 3.5))
for density in ("laplace", "logistic", "student_t"):
    models = [SubspaceICA(group_size=g, density=density, random_state=0) for g in sizes]
    axis.plot(sizes, [model.fit(train).score(test) for model in models], "o-", label=density)
axis.axhline(PCAWhitener().fit(train).score(test), color="black", linestyle=":", label="Gaussian")
axis.set(xlabel="group_size", ylabel="held-out log density (nats)", xscale="log")
axis.set_xticks(sizes, sizes)
axis.legend()
figure.tight_layout()

# %%
# Groups of four
# --------------
# What each source adds to a patch, one group after the other along the rows: members of a group
# have the same orientation and place, at different phases.

groups = SubspaceICA(group_size=4, random_state=0).fit(train)
parts = groups.mixing_.T @ axes.components_
ComponentsDisplay(parts[:60], image_shape=(SIZE, SIZE)).plot(n_columns=12)

# %%
# A map
# -----
# With ``topography`` the pools are neighbourhoods on a torus of 7 x 9 filters. Neighbours are
# similar, and opposite edges of the map meet.

model = SubspaceICA(topography=(7, 9), random_state=0).fit(train)
ComponentsDisplay(model.mixing_.T @ axes.components_, image_shape=(SIZE, SIZE)).plot(n_columns=9)
plt.show()
