"""
=================================
Tune a detector on known outliers
=================================

A detector learns from normal rows only, but a few labelled outliers are often available. They can
guide the choice of its parameters: they must never be fitted, and every candidate must be judged on
rows that it has not seen. :class:`~sklebm.metrics.InlierTrainSplit` and
:func:`~sklebm.metrics.make_ood_scorer` make ``GridSearchCV`` work this way.
"""

# %%
# The task
# --------
# Images of the digits 0 to 8 are normal. Thirty nines are known outliers; the detector must find
# the other nines.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline

from sklebm import EnergyKMeans, EnergyOutlierDetector, PCAWhitener
from sklebm.metrics import InlierTrainSplit, fpr_at_tpr, make_ood_scorer

images, digits = load_digits(return_X_y=True)
images = images / 16
train, test = train_test_split(images[digits < 9], random_state=0)
nines = images[digits == 9]
known, unknown = nines[:30], nines[30:]

X = np.vstack([train, known])
y = np.repeat([1, -1], [len(train), len(known)])

# %%
# The search
# ----------
# The energy is that of k-means on whitened principal components. Its own held-out likelihood cannot
# choose how many components to keep, because that changes the space of the density; how well
# outliers are ranked can.
model = Pipeline([("whiten", PCAWhitener()), ("clusters", EnergyKMeans(random_state=0))])
detector = EnergyOutlierDetector(model, contamination=0.05)
grid = {
    "estimator__whiten__n_components": [10, 20, 40],
    "estimator__clusters__n_clusters": [10, 30, 100],
}
search = GridSearchCV(
    detector,
    grid,
    scoring=make_ood_scorer("roc_auc"),
    cv=InlierTrainSplit(3),  # training folds without outliers, test folds with their share
    refit=False,  # refitting would fit X, known outliers included
)
search.fit(X, y)
print(search.best_params_)
print(f"AUROC in cross-validation: {search.best_score_:.3f}")

# %%
# The result
# ----------
# The best candidate is fitted to all normal training rows. The threshold is the fifth percentile of
# their scores.
candidates = {
    "tuned": clone(detector).set_params(**search.best_params_),
    "not tuned": detector,
    "IsolationForest": IsolationForest(contamination=0.05, random_state=0),
}
rows = np.vstack([test, unknown])
is_normal = np.repeat([1, -1], [len(test), len(unknown)])

print(f"{'':16} {'AUROC':>6} {'FPR at 95 % TPR':>16} {'found':>6} {'false alarms':>13}")
for name, candidate in candidates.items():
    scores = candidate.fit(train).score_samples(rows)
    found = np.mean(candidate.predict(unknown) == -1)
    alarms = np.mean(candidate.predict(test) == -1)
    auroc, fpr = roc_auc_score(is_normal, scores), fpr_at_tpr(is_normal, scores)
    print(f"{name:16} {auroc:6.3f} {fpr:16.3f} {found:6.0%} {alarms:13.0%}")

# %%
# Left, the results of the search. Right, the scores of the tuned detector: rows to the left of the
# line are called outliers. More than a twentieth of new normal rows may fall there, because the
# model fits its training rows better than new ones.
tuned = candidates["tuned"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
components, clusters = grid.values()
# The grid runs through its parameters in alphabetical order, clusters before components.
table = search.cv_results_["mean_test_score"].reshape(len(clusters), len(components)).T
left.imshow(table, cmap="cividis", aspect="auto")
for (row, column), value in np.ndenumerate(table):
    dark = value < table.mean()
    left.text(column, row, f"{value:.3f}", ha="center", va="center", color="w" if dark else "k")
left.set_xticks(range(len(clusters)), clusters)
left.set_yticks(range(len(components)), components)
left.set(xlabel="n_clusters", ylabel="n_components", title="AUROC on known outliers")

bins = np.linspace(*np.percentile(tuned.decision_function(rows), [0.5, 99.5]), 40)
for group, label, colour in ((test, "new digits 0 to 8", "#0072B2"), (unknown, "nines", "#D55E00")):
    values = np.clip(tuned.decision_function(group), bins[0], bins[-1])
    right.hist(values, bins, density=True, alpha=0.6, label=label, color=colour)
right.axvline(0, color="k", linewidth=1)
right.set(xlabel="decision_function (nats)", ylabel="density", title="Scores of the tuned detector")
right.margins(y=0.35)
right.legend()
plt.show()
