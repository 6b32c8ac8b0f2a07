"""
=======================================
Monitor a classifier that is in service
=======================================

A classifier assigns a class to any row. A detector calibrated on held-out rows can tell which rows
are unlike the training rows, with a specified rate of false alarms.
"""

# %%
# The service
# -----------
# The classifier is trained on the digits 0 to 6. In service it also receives sevens, eights and
# nines, and images that a faulty camera turned upside down.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklebm import EnergyKMeans, EnergyOutlierDetector, LogitEnergyScorer, PCAWhitener

images, digits = load_digits(return_X_y=True)
images = images / 16
known = digits < 7
X, X_test, y, y_test = train_test_split(
    images[known], digits[known], test_size=0.4, random_state=0, stratify=digits[known]
)
unknown = images[~known]
turned = X_test.reshape(-1, 8, 8)[:, ::-1, ::-1].reshape(-1, 64)

classifier = LogisticRegression(max_iter=1000).fit(X, y)
print(f"accuracy on known digits: {classifier.score(X_test, y_test):.3f}")
confidence = classifier.predict_proba(unknown).max(axis=1)
print(f"mean confidence on unknown digits: {confidence.mean():.2f}")

# %%
# The monitor
# -----------
# Pixels share a unit, so the energy is chosen for them instead of ``"auto"``. Half of the rows
# calibrate it. Its settings were chosen on batches like the one below, so its detection rates there
# are optimistic; the rate of false alarms does not depend on the settings. For your own service,
# choose them on known incidents, with :func:`sklebm.metrics.make_ood_scorer`.
energy = make_pipeline(
    PCAWhitener(n_components=20, ridge=1.0), EnergyKMeans(n_clusters=100, random_state=0)
)
monitor = EnergyOutlierDetector(energy, calibration=0.5, random_state=0).fit(X)
n_calibration = len(monitor.calibration_scores_)
print(f"smallest p-value: {1 / (n_calibration + 1):.4f}")

# %%
# One row at a time
# -----------------
# At ``alpha=0.05``, about one known digit in twenty is flagged, whatever the energy.
streams = {"known digits": X_test, "unknown digits": unknown, "turned images": turned}
for name, rows in streams.items():
    flagged = monitor.predict(rows, alpha=0.05) == -1
    print(f"{name}: {flagged.mean():.1%} flagged")

# %%
# Without a second model
# ----------------------
# The classifier's own logits are an energy that needs no further computation. The frozen classifier
# is not refitted; known digits that it has not seen calibrate the threshold. It detects as many
# unknown digits as the monitor does, but fewer inverted images: upside down, they still have
# strokes that the classifier takes as evidence for one digit or another.
calibration, fresh = train_test_split(X_test, test_size=0.5, random_state=0)
logits = LogitEnergyScorer(FrozenEstimator(classifier))
free_monitor = EnergyOutlierDetector(logits, calibration=0.99, random_state=0).fit(calibration)
for name, rows in {**streams, "known digits": fresh}.items():
    flagged = free_monitor.predict(rows, alpha=0.05) == -1
    print(f"{name}: {flagged.mean():.1%} flagged")

# %%
# A day's batch
# -------------
# In a batch, the work depends on the share of false alarms *among the flagged rows*. The
# Benjamini-Hochberg procedure keeps its expected value below ``fdr`` by accounting for how many
# false alarms a batch of this size would bring.
batch = np.vstack([X_test[:200], unknown[:50]])
found = np.flatnonzero(monitor.predict_fdr(batch, fdr=0.2) == -1)
print(f"{len(found)} rows flagged, {np.mean(found < 200):.0%} of them known digits")

# %%
# The picture
# -----------
# p-values of rows like the calibration rows are uniform: the diagonal. Rows of another kind
# accumulate on the left. If the cumulative histogram of a day's p-values departs from the diagonal,
# the data have changed; no labels are needed to see this.
fig, axis = plt.subplots(figsize=(5, 4), layout="constrained")
for name, rows in streams.items():
    p_values = np.sort(monitor.p_values(rows))
    axis.plot(p_values, np.arange(1, len(p_values) + 1) / len(p_values), label=name)
axis.plot([0, 1], [0, 1], "k:", label="uniform")
axis.set(xlabel="p-value", ylabel="share of rows as low")
axis.legend()
plt.show()
