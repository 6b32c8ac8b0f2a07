"""
======================================
Sources that are loud at the same time
======================================

Independent component analysis looks for independent sources. Often some sources share their
loudness: the edges of one object, or the instruments of one band. :class:`~sklebm.SubspaceICA`
finds such groups, and held-out likelihood shows how large they are.
"""

# %%
# Four groups of three
# --------------------
# The members of a group are Gaussian noise, multiplied by a loudness that they share. We observe
# twelve random mixtures of them.

import matplotlib.pyplot as plt
import numpy as np

from sklebm import SubspaceICA

rng = np.random.default_rng(0)
loudness = rng.gamma(2.0, size=(3_000, 4, 1))
sources = (np.sqrt(loudness) * rng.standard_normal((3_000, 4, 3))).reshape(3_000, 12)
mixing = rng.standard_normal((12, 12))
rows = sources @ mixing.T
train, test = rows[:2_000], rows[2_000:]

# %%
# How large are the groups?
# -------------------------
# Each model is a normalised density of the same rows, so held-out rows can choose the size.

sizes = [1, 2, 3, 4, 6]
models = {size: SubspaceICA(group_size=size, random_state=0).fit(train) for size in sizes}
scores = [model.score(test) for model in models.values()]

figure, axis = plt.subplots(figsize=(5, 3.4))
axis.plot(sizes, scores, "o-")
axis.axvline(3, color="black", linestyle=":", label="true size")
axis.set(xlabel="group_size", ylabel="held-out log density (nats)")
axis.legend()
figure.tight_layout()

# %%
# What the filters hear
# ---------------------
# Gains from the true sources to the estimated ones: with groups of three, each group of filters
# responds to one group of sources. How the sources are divided among its filters is arbitrary.

figure, axes = plt.subplots(1, 2, figsize=(7, 3.4))
for axis, size in zip(axes, (1, 3), strict=True):
    axis.imshow(np.abs(models[size].components_ @ mixing), cmap="gray_r")
    axis.set(xlabel="true source", ylabel="found source", title=f"group_size={size}")
figure.tight_layout()
plt.show()
