r"""
A high density is not typicality
================================

A variational auto-encoder trained on *textured* patches of photographs gives smooth patches, which
it never saw, a higher log density than textured ones: any image model predicts a smooth patch
easily. By raw log p(x), these outliers are then the most typical rows of all. Typicality measures
how far a density is from its usual value, in either direction; input complexity compares the
density with the code length of a general-purpose compressor.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.metrics import roc_auc_score

from sklebm import VAE, InputComplexityScorer, TypicalityScorer
from sklebm.plotting import EnergyHistogramDisplay

# %%
# Patches of 8 x 8 pixels from the two photographs that come with scikit-learn. The model is trained
# on the half with the higher contrast; the smooth patches are the outliers. Shuffling pixels
# between textured patches gives a second kind of outlier, in which no pair of pixels is related as
# in photographs.
patches = np.concatenate(
    [
        extract_patches_2d(image.mean(axis=2) / 255, (8, 8), max_patches=3000, random_state=0)
        for image in load_sample_images().images
    ]
).reshape(-1, 64)
patches = np.random.default_rng(0).permutation(patches).astype(np.float32)
contrast = patches.std(axis=1)
textured, smooth = patches[contrast > np.median(contrast)], patches[contrast < 0.02]
X_train, X_test = textured[:2000], textured[2000:2500]
others = {
    "smooth patches": smooth[:500],
    "shuffled pixels": np.random.default_rng(1).permuted(X_test, axis=0),
}

# %%
# One model, four scores.
vae = VAE(16, learning_rate=0.003, max_epochs=30, n_importance_samples=32, random_state=0)
typicality = TypicalityScorer(vae).fit(X_train)
complexity = InputComplexityScorer(vae, image_shape=(8, 8)).fit(X_train)
vae.fit(X_train)
scores = {
    "log p(x)": vae.score_samples,
    "reconstruction": lambda rows: -((rows - vae.reconstruct(rows)) ** 2).sum(axis=1),
    "typicality": typicality.score_samples,
    "input complexity": complexity.score_samples,
}
auroc = {}
print(f"{'AUROC against':18s}" + "".join(f"{name:>18s}" for name in scores))
for kind, rows in others.items():
    both, labels = np.vstack([X_test, rows]), np.repeat([1, 0], [len(X_test), len(rows)])
    auroc[kind] = {name: roc_auc_score(labels, score(both)) for name, score in scores.items()}
    print(f"{kind:18s}" + "".join(f"{value:18.3f}" for value in auroc[kind].values()))

# %%
# On smooth patches the density fails: its AUROC is far below chance. So does the reconstruction
# error. Both detect shuffled pixels.
assert auroc["smooth patches"]["log p(x)"] < 0.2
assert auroc["smooth patches"]["typicality"] > auroc["smooth patches"]["log p(x)"] + 0.4
assert auroc["smooth patches"]["input complexity"] > 0.9
assert auroc["shuffled pixels"]["log p(x)"] > 0.9

# %%
# The distributions of the scores; right is more typical. The density puts smooth patches to the
# right of the test patches. Typicality moves them to the left of most test patches, input
# complexity to the left of nearly all. Up to a twentieth of a group, its lowest scores, may be
# drawn in the first bin.
groups = {"textured patches": X_test, **others}
figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
for axis, name in zip(axes, ("log p(x)", "typicality", "input complexity"), strict=True):
    drawn = {kind: scores[name](rows) for kind, rows in groups.items()}
    EnergyHistogramDisplay.from_predictions(
        drawn, score_name=f"{name} (nats)", ax=axis, n_bins=40, clip=0.05
    )
plt.show()
