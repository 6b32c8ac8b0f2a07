"""
=======================================
A sparse precision for a grid of pixels
=======================================

The covariance of images is dense: every pixel is correlated with every other. Its inverse, the
precision, is nearly sparse, because a pixel depends on distant ones only through those in between.
:class:`~sklebm.GaussianEnergy` turns this into a model. Its precision is zero between pixels that
are not neighbours, and the rest is fitted by one of four objectives.
"""

# %%
# A neighbourhood is a good prior for few rows
# --------------------------------------------
# The digits have 64 pixels, so a full precision has 2,080 free entries, and a neighbourhood of
# radius 1 has 274. Uniform noise of one grey level turns counts into a density. With few rows, the
# full model overfits.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklebm import GaussianEnergy

rng = np.random.default_rng(0)
digits = load_digits().data
digits = digits + rng.uniform(size=digits.shape)
train, test = train_test_split(digits, test_size=600, random_state=0)

structures = {
    "diagonal": {"structure": "diagonal"},
    "radius 1": {"structure": "banded", "radius": 1},
    "radius 2": {"structure": "banded", "radius": 2},
    "full": {"structure": "full"},
}
sizes = [80, 150, 300, 600, 1197]
figure, axis = plt.subplots(figsize=(6, 4))
for name, arguments in structures.items():
    scores = [
        GaussianEnergy(image_shape=(8, 8), **arguments).fit(train[:size]).score(test)
        for size in sizes
    ]
    axis.plot(sizes, scores, marker="o", label=name)
axis.set(
    xscale="log",
    xlabel="training rows",
    ylabel="held-out log likelihood (nats)",
    ylim=(-170, -125),
)
axis.set_xticks(sizes, sizes)
axis.minorticks_off()
axis.legend(loc="lower right")
figure.tight_layout()

# %%
# Four objectives, one energy
# ---------------------------
# On rows drawn from the model itself, all four recover it; they differ in the variance of their
# estimates. Maximum likelihood is the most accurate, and the only one that needs the normaliser. In
# many dimensions, noise as large as the data is too easy to tell from it to be informative, so the
# conditional objective uses less noise the more features there are (``noise_scale``).

truth = GaussianEnergy("banded", image_shape=(8, 8)).fit(digits)
rows = truth.sample(n_samples=4000, random_state=0)
free = truth.precision_ != 0
figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), sharex=True, sharey=True)
for axis, objective in zip(
    axes,
    (
        "maximum_likelihood",
        "score_matching",
        "noise_contrastive",
        "conditional_noise_contrastive",
    ),
    strict=True,
):
    model = GaussianEnergy(
        "banded",
        image_shape=(8, 8),
        objective=objective,
        n_noise=2,
        tol=1e-5,
        random_state=0,
    ).fit(rows)
    scale = np.sqrt(np.outer(np.diag(truth.precision_), np.diag(truth.precision_)))
    ours, theirs = (model.precision_ / scale)[free], (truth.precision_ / scale)[free]
    error = np.sqrt(((ours - theirs) ** 2).mean())
    axis.plot([-1, 1.5], [-1, 1.5], color="0.7", linewidth=1)
    axis.plot(theirs, ours, ".", markersize=3)
    axis.set_title(f"{objective.replace('_', ' ')}\nerror {error:.3f}", fontsize=9)
    axis.set_xlabel("true entry")
axes[0].set_ylabel("estimate (scaled)")
figure.tight_layout()
plt.show()
