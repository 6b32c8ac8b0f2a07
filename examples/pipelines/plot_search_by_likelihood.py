r"""
Let held-out likelihood choose
==============================

A density can be evaluated without labels: the mean log density of held-out rows shows how well it
fits the data, and falls if it overfits the training rows. ``score`` returns it, so ``GridSearchCV``
can choose the size and kind of a model as it does for a classifier.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from sklebm import BernoulliRBM, EnergyGaussianMixture, PCAWhitener

images = load_digits().data / 16
train, test = train_test_split(images, test_size=0.3, random_state=0)

# %%
# How many Gaussians, and of which kind
# -------------------------------------
# The rows are 16 whitened components of digits. They are computed once, outside the search:
# densities can be compared only on the same coordinates, and a search over the whitener's
# ``n_components`` would compare densities in spaces of different dimension.
whitener = PCAWhitener(n_components=16).fit(train)
codes, test_codes = whitener.transform(train), whitener.transform(test)
kinds, sizes = ["full", "tied", "diag", "spherical"], [1, 2, 4, 8, 16, 32]
mixtures = GridSearchCV(
    EnergyGaussianMixture(reg_covar=0.01, random_state=0),
    {"covariance_type": kinds, "n_components": sizes},
    cv=3,
    return_train_score=True,
).fit(codes)
print(mixtures.best_params_)
print(f"{mixtures.best_score_:.2f} nats held out, {mixtures.score(test_codes):.2f} on test rows")

# %%
# How many hidden units
# ---------------------
# The likelihood of a Boltzmann machine needs its partition function, which is summed exactly here.
# The bits are digits again, thresholded.
bits, test_bits = ((part > 0.5).astype(np.float32) for part in (train, test))
units = [1, 2, 4, 8, 16]
machines = GridSearchCV(
    BernoulliRBM(learning_rate=0.1, batch_size=20, max_epochs=60, random_state=0),
    {"n_components": units},
    cv=3,
    return_train_score=True,
).fit(bits)
print(machines.best_params_, f"{machines.score(test_bits):.2f} nats on test rows")

# %%
# The picture
# -----------
# Solid lines are held-out rows, dotted lines training rows. Gains on training rows alone do not
# carry over: with many full covariances, the mixture fits each training digit, and no others. The
# held-out score of the machine still rises at 16 units, the largest number tried.
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")


def draw(axis, sizes, results, label, colour):
    """Scores of held-out and of training rows by size."""
    axis.plot(sizes, results["mean_test_score"], "o-", color=colour, label=label, markersize=4)
    axis.plot(sizes, results["mean_train_score"], ":", color=colour)


table = mixtures.cv_results_
for number, kind in enumerate(kinds):
    rows = [row for row, used in enumerate(table["param_covariance_type"]) if used == kind]
    results = {name: table[name][rows] for name in ("mean_test_score", "mean_train_score")}
    draw(left, sizes, results, kind, f"C{number}")
best = mixtures.best_params_["n_components"], mixtures.best_score_
left.plot(*best, "*", color="black", markersize=14, label="chosen")
left.set(title="EnergyGaussianMixture on 16 components", xlabel="n_components")
draw(right, units, machines.cv_results_, "held-out rows", "C0")
right.plot([], [], ":", color="C0", label="training rows")
best = machines.best_params_["n_components"], machines.best_score_
right.plot(*best, "*", color="black", markersize=14, label="chosen")
right.set(title="BernoulliRBM on 64 bits", xlabel="n_components")
left.set_ylim(mixtures.best_score_ - 6, mixtures.best_score_ + 4)
for axis, ticks in ((left, sizes), (right, units)):
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, ticks)
    axis.set_ylabel("mean log density (nats)")
    axis.legend(fontsize="small")
plt.show()
