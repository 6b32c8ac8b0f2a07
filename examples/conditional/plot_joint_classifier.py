"""
A classifier that notices what no class explains
================================================

A softmax is confident even far from the data, because it depends only on differences between
classes. A classifier that also learns log p(x), from the same energies as p(y | x), can tell that a
row lies there.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons
from sklearn.metrics import roc_auc_score

from sklebm import EnergyClassifier

# %%
# Two moons are the classes. A third cloud, beside them, was never seen in training.
X, y = make_moons(1000, noise=0.1, random_state=0)
X_test, y_test = make_moons(500, noise=0.1, random_state=1)
strangers = np.random.default_rng(0).normal([2.6, 1.2], 0.3, size=(500, 2))

plain = EnergyClassifier(max_epochs=60, random_state=0).fit(X, y)
joint = EnergyClassifier(joint="pcd", max_epochs=60, random_state=0).fit(X, y)
print(f"accuracy: {plain.score(X_test, y_test):.3f}, joint {joint.score(X_test, y_test):.3f}")

# %%
# How well do three scores separate known rows from those of the unseen cloud?
rows = np.vstack([X_test, strangers])
known = np.repeat([1, 0], [len(X_test), len(strangers)])
scores = {
    "largest p(y | x)": lambda x: plain.predict_proba(x).max(axis=1),
    "-F(x), labels only": plain.score_samples,
    "-F(x), joint": joint.score_samples,
}
areas = {name: roc_auc_score(known, score(rows)) for name, score in scores.items()}
for name, area in areas.items():
    print(f"{name}: AUROC {area:.2f}")

# %%
# The level sets show why. The confidence of the softmax grows along rays that leave the data; the
# score of the joint model falls off in all directions.
steps = np.linspace(-2.5, 4.5, 120), np.linspace(-2.5, 3.0, 100)
grid = np.stack(np.meshgrid(*steps), axis=-1).reshape(-1, 2)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained", sharey=True)
for axis, (name, score) in zip(axes, scores.items(), strict=True):
    values = score(grid).reshape(100, 120)
    levels = np.quantile(values, np.linspace(0.0, 1.0, 16))
    axis.contourf(*steps, values, levels=np.unique(levels), cmap="viridis")
    axis.scatter(*X_test[::3].T, c=y_test[::3], cmap="coolwarm", s=6)
    axis.scatter(*strangers[::5].T, c="white", edgecolors="black", s=12, linewidths=0.5)
    axis.set(title=f"{name}\nAUROC {areas[name]:.2f}", xticks=[], yticks=[])
plt.show()
