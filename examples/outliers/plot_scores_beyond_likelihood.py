"""
========================================
When the density calls outliers probable
========================================

A Gaussian is fitted to images of digits. It detects noise easily, but gives some images that are
not digits a higher density than any digit. The other scores below detect what the density misses;
none of them is best for all kinds of outliers.
"""

# %%
# Images that are too probable
# ----------------------------
# *Averages* are the mean image with a little noise, close to the mode of the Gaussian. *Faint*
# images are digits at half their brightness, which are simpler and closer to the mean.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from sklebm import (
    VAE,
    EnergyGaussianMixture,
    EnergyKMeans,
    InputComplexityScorer,
    LikelihoodRatioScorer,
    LikelihoodRegretScorer,
    PCAWhitener,
    TypicalityScorer,
)

images, digits = load_digits(return_X_y=True)
images = images / 16
known = digits < 7
train, test = train_test_split(images[known], test_size=0.4, random_state=0)

generator = np.random.default_rng(0)
outliers = {
    "averages": train.mean(axis=0) + 0.02 * generator.standard_normal((300, 64)),
    "faint": 0.5 * test,
    "noise": generator.random((300, 64)),
    "sevens to nines": images[~known],
}

# %%
# Five scores
# -----------
# Typicality compares the density with that of held-out rows. Input complexity adds the length of a
# PNG code. Likelihood regret measures how much a better posterior than that of the encoder would
# improve the bound of a variational auto-encoder. The last score is the ratio of a mixture of
# Gaussians to a single spherical Gaussian, which models how bright pixels are but not the digits.
density = PCAWhitener(ridge=1.0)
mixture = EnergyGaussianMixture(5, reg_covar=0.01, random_state=0)
scorers = {
    "density": density,
    "typicality": TypicalityScorer(density, calibration=0.2, random_state=0),
    "complexity": InputComplexityScorer(density, image_shape=(8, 8), n_levels=17),
    "regret": LikelihoodRegretScorer(VAE(max_epochs=30, random_state=0), n_steps=30),
    "ratio": LikelihoodRatioScorer(mixture, background=EnergyKMeans(1)),
}
auroc = np.empty((len(scorers), len(outliers)))
for i, scorer in enumerate(scorers.values()):
    scorer.fit(train)
    normal = scorer.score_samples(test)
    for j, rows in enumerate(outliers.values()):
        scores = np.concatenate([normal, scorer.score_samples(rows)])
        auroc[i, j] = roc_auc_score(np.arange(len(scores)) < len(normal), scores)

print("AUROC        " + "  ".join(f"{name:>15}" for name in outliers))
for name, values in zip(scorers, auroc, strict=True):
    print(f"{name:12} " + "  ".join(f"{value:15.3f}" for value in values))

# %%
# The picture
# -----------
# Typicality finds the averages but misses the faint digits, whose density happens to be typical;
# complexity does the opposite. Compare scores on outliers like those that you expect.
fig, axes = plt.subplots(2, 4, figsize=(9, 4.2), layout="constrained", height_ratios=[1, 1.6])
for axis, (name, rows) in zip(axes[0], outliers.items(), strict=True):
    axis.imshow(rows[0].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    axis.set(title=name, xticks=[], yticks=[])
for j, axis in enumerate(axes[1]):
    axis.barh(list(scorers), auroc[:, j], color=["0.6", "#0072B2", "#009E73", "#CC79A7", "#D55E00"])
    axis.axvline(0.5, color="k", linewidth=0.8)
    axis.set(xlim=(0, 1), xticks=[0, 0.5, 1], xlabel="AUROC")
    axis.invert_yaxis()
    if j:
        axis.set_yticks([])
plt.show()
