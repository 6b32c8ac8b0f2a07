"""
========================
Find outliers in a table
========================

A table of thirteen measurements of wines, in units from 0.1 to 1,700. The wines of two growers are
normal; those of a third are the outliers to find. The default detector is fitted twice: to normal
wines only, and to a mixture that contains some of the others.
"""

# %%
# The task
# --------
# Half of the normal wines are kept for the test. Features need no scaling: the default detector
# scales them.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from sklebm import EnergyOutlierDetector

wines, grower = load_wine(return_X_y=True)
train, test = train_test_split(wines[grower != 2], test_size=0.5, random_state=0)
strange = wines[grower == 2]
mixed = np.vstack([train, strange[:5]])

X_test = np.vstack([test, strange[5:]])
is_outlier = np.repeat([0, 1], [len(test), len(strange) - 5])

# %%
# Clean and contaminated training rows
# ------------------------------------
# ``score_samples`` is higher for typical rows, so its negative ranks outliers first. The scores are
# log shares of training rows: -4.6 means that one training row in a hundred is as atypical.
scores = {}
for name, rows in {"normal rows only": train, "contaminated": mixed}.items():
    detector = EnergyOutlierDetector().fit(rows)
    scores[name] = detector.score_samples(X_test)
    forest = IsolationForest(random_state=0).fit(rows)
    ours, theirs = (
        roc_auc_score(is_outlier, -values)
        for values in (scores[name], forest.score_samples(X_test))
    )
    print(f"{name}: AUROC {ours:.3f}, isolation forest {theirs:.3f}")

# %%
# The picture
# -----------
# Five outliers among the 65 normal wines make the other outliers look less atypical, also to the
# forest. Clean training rows are worth the effort.
fig, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
for axis, (name, values) in zip(axes, scores.items(), strict=True):
    bins = np.linspace(values.min(), 0, 30)
    axis.hist(values[is_outlier == 0], bins=bins, label="normal", alpha=0.7)
    axis.hist(values[is_outlier == 1], bins=bins, label="outliers", alpha=0.7)
    axis.set(title=name, xlabel="score (nats)")
axes[0].set_ylabel("rows")
axes[0].legend()
plt.show()
