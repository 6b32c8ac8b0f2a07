r"""
Natural patches beyond their covariance
=======================================

Draws from a Gaussian with the covariance of image patches look like clouds: they have the spectrum
of patches but no edges. A deep energy model that learns to tell patches from these clouds must find
what the covariance does not capture. It needs no normaliser for this.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.metrics import roc_auc_score

from sklebm import DeepEnergyModel, PCAWhitener
from sklebm.plotting import ComponentsDisplay

# %%
# Patches of 8 x 8 pixels from the photographs that come with scikit-learn, without their means, in
# 32 whitened components: what remains to be learnt is not covariance. Flat patches, mostly of sky,
# are left out because they would be too easy. The lower third of each photograph is held out.
SIZE = 8
photographs = [photo.mean(axis=2) / 255 for photo in load_sample_images().images]


def cut(images):
    """Textured patches at random places, without their means."""
    parts = [
        extract_patches_2d(image, (SIZE, SIZE), max_patches=10_000, random_state=0)
        for image in images
    ]
    rows = np.concatenate(parts).reshape(-1, SIZE * SIZE)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows[rows.std(axis=1) > 0.03]


train = cut([photo[: 2 * len(photo) // 3] for photo in photographs])
test = cut([photo[2 * len(photo) // 3 :] for photo in photographs])[::4]
whitener = PCAWhitener(n_components=32).fit(train)
X, X_test = (whitener.transform(rows).astype(np.float32) for rows in (train, test))

# %%
# The clouds are draws from the Gaussian with the moments of the training patches. They are the hard
# case: a score that depends only on second moments cannot see the difference. log Z is left out:
# the noise that the model is compared with never falls on almost flat patches, in the middle of all
# others, so that nothing limits the density there. Orders and AUROC do not depend on it.
clouds = np.random.default_rng(0).standard_normal(X_test.shape).astype(np.float32)
model = DeepEnergyModel(
    64,
    hidden_sizes=(128, 128),
    objective="noise_contrastive",
    sigma=2.0,
    learning_rate=0.003,
    max_epochs=60,
    log_partition=None,
    random_state=0,
).fit(X)
gaussian = PCAWhitener().fit(X)
labels = np.repeat([1, 0], len(X_test))
both = np.vstack([X_test, clouds])
scores = {name: m.score_samples(both) for name, m in (("Gaussian", gaussian), ("deep", model))}
auroc = {name: roc_auc_score(labels, values) for name, values in scores.items()}
ratio = scores["deep"] - scores["Gaussian"]
auroc["deep - Gaussian"] = roc_auc_score(labels, ratio)
for name, value in auroc.items():
    print(f"{name:16s} AUROC {value:.3f}, held-out patches against clouds")
assert auroc["deep - Gaussian"] > auroc["Gaussian"] + 0.2

# %%
# Left, patches and clouds. In the middle, the held-out patches that look most and least like a
# cloud to the model: fine texture, and the smooth ramps and edges that no Gaussian draws. Right,
# the log ratio of the two densities up to a constant, which is all that the model has learnt beyond
# the Gaussian.
figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
order = np.argsort(ratio[labels == 1])
panels = {
    "above: held-out patches; below: clouds": np.vstack([X_test[:40], clouds[:40]]),
    "above: most like clouds; below: least": X_test[np.r_[order[:40], order[-40:]]],
}
for axis, (title, rows) in zip(axes, panels.items(), strict=False):
    pixels = whitener.inverse_transform(rows)
    ComponentsDisplay(pixels, (SIZE, SIZE)).plot(axis, n_columns=10, title=title, cmap="gray")
bins = np.linspace(*np.percentile(ratio, [0.5, 99]), 60)
for kind, name in ((1, "held-out patches"), (0, "clouds")):
    axes[2].hist(ratio[labels == kind].clip(bins[0], bins[-1]), bins, alpha=0.6, label=name)
axes[2].set(xlabel="deep - Gaussian (nats, up to a constant)", ylabel="rows")
axes[2].set_title(f"AUROC {auroc['deep - Gaussian']:.3f}; Gaussian alone {auroc['Gaussian']:.3f}")
axes[2].legend()
plt.show()
