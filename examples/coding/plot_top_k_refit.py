r"""
Few atoms, fitted again
=======================

The L1 penalty finds which atoms a patch consists of, and makes their coefficients too small:
:math:`\alpha` is subtracted from each. The penalty ``TopK`` keeps the largest entries of the L1
code and refits them by least squares. With the same number of non-zeros, its error is half as
large.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.decomposition import sparse_encode
from sklearn.feature_extraction.image import extract_patches_2d

from sklebm import PCAWhitener, SparseCoder
from sklebm.energies import TopK
from sklebm.plotting import ComponentsDisplay

# %%
# Patches of one photograph train the dictionary; those of the other are coded. All are scaled to
# length one: otherwise L1, with the same threshold for all, would spend its non-zeros on
# high-contrast patches, and methods could not be compared by the number of non-zeros per patch.
SIZE = 8
train, test = (
    extract_patches_2d(photo.mean(axis=2) / 255, (SIZE, SIZE), max_patches=5_000, random_state=0)
    for photo in load_sample_images().images
)
train, test = (x.reshape(len(x), -1) - x.mean(axis=(1, 2))[:, None] for x in (train, test))
train, test = (x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-3) for x in (train, test))
test = test[:1500]
coder = SparseCoder(128, alpha=0.1, max_iter=5, random_state=0).fit(train)
atoms = coder.components_

# %%
# Each method codes the test patches with more and more atoms: L1 alone with decreasing ``alpha``,
# the largest entries refitted, orthogonal matching pursuit, which chooses atoms one by one, and the
# leading principal components, which are the same for all patches.
counts = [1, 2, 3, 5, 8, 12]
power = (test**2).sum()


def share_left(reconstruction):
    """Part of the power of the patches that a reconstruction misses."""
    return ((test - reconstruction) ** 2).sum() / power


curves = {"L1": [], "L1, k largest fitted again": [], "matching pursuit": [], "PCA": []}
for alpha in (0.6, 0.45, 0.35, 0.25, 0.18, 0.13):
    model = SparseCoder(dictionary=atoms, alpha=alpha).fit(train)
    codes = model.transform(test)
    curves["L1"].append(((codes != 0).sum(axis=1).mean(), share_left(codes @ atoms)))
pca = PCAWhitener(n_components=max(counts)).fit(train)
for k in counts:
    refit = SparseCoder(dictionary=atoms, alpha=0.1, penalty=TopK(n_nonzero=k)).fit(train)
    codes = refit.transform(test)
    used = (codes != 0).sum(axis=1).mean()
    curves["L1, k largest fitted again"].append((used, share_left(codes @ atoms)))
    greedy = sparse_encode(test, atoms, algorithm="omp", n_nonzero_coefs=k)
    used = (greedy != 0).sum(axis=1).mean()
    curves["matching pursuit"].append((used, share_left(greedy @ atoms)))
    axes_ = PCAWhitener(n_components=k).fit(train)
    curves["PCA"].append((k, share_left(axes_.inverse_transform(axes_.transform(test)))))
for name, points in curves.items():
    print(f"{name:28s}" + "  ".join(f"{used:5.1f}: {left:6.2%}" for used, left in points))
fitted_again, shrunk_ones = curves["L1, k largest fitted again"][4], curves["L1"][4]
assert fitted_again[0] < shrunk_ones[0]
assert fitted_again[1] < 0.7 * shrunk_ones[1]

# %%
# Left, the share of the power of the patches that is missed. Right, with three atoms per patch: the
# test patch, its code by L1 alone, and the three largest refitted.
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
for name, points in curves.items():
    left.plot(*np.transpose(points), "o-", label=name, markersize=4)
left.set(xscale="log", yscale="log", xlabel="non-zeros a patch", ylabel="power missed")
left.set_xticks(counts, counts)
left.set_yticks([0.1, 0.2, 0.4, 0.8], ["10 %", "20 %", "40 %", "80 %"])
left.minorticks_off()
left.legend()

shown = test[np.argsort(-test.var(axis=1))[::20][:10]]
shrunk = SparseCoder(dictionary=atoms, alpha=0.35).fit(train).transform(shown) @ atoms
refitted = SparseCoder(dictionary=atoms, alpha=0.1, penalty=TopK(n_nonzero=3)).fit(train)
rows = np.vstack([shown, shrunk, refitted.transform(shown) @ atoms])
ComponentsDisplay(rows, (SIZE, SIZE)).plot(
    right, n_columns=10, title="patches; L1; three atoms fitted again", cmap="gray"
)
plt.show()
