r"""
A deep machine completes digits
===============================

In a deep Boltzmann machine the upper layer influences the states of the lower one. Here, the upper
half of a digit is known: chains draw the rest from the density over digits that agree with it, and
the average of many draws shows which pixels the machine is certain of.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklebm import BernoulliRBM, DeepBoltzmannMachine
from sklebm.plotting import ComponentsDisplay

X = (load_digits().data > 8).astype(np.float32)
X_train, X_test = train_test_split(X, test_size=0.2, random_state=0)

# %%
# A machine with two hidden layers, and one with a single layer as large as the first of these. log
# Z of both is exact, so that the score of the shallow machine is its likelihood, and that of the
# deep one a lower bound.
settings = {"learning_rate": 0.2, "batch_size": 20, "max_epochs": 30, "random_state": 0}
deep = DeepBoltzmannMachine((16, 32), **settings).fit(X_train)
shallow = BernoulliRBM(16, **settings).fit(X_train)
mean = X_train.mean(axis=0).clip(1e-3, 1 - 1e-3)
base_rate = (X_test * np.log(mean) + (1 - X_test) * np.log(1 - mean)).sum(axis=1).mean()
print(f"independent pixels:     {base_rate:.2f} nats a test digit")
print(f"16 hidden units:        {shallow.score(X_test):.2f}")
print(f"16 + 32, lower bound:   {deep.score(X_test):.2f}")
assert deep.score(X_test) > base_rate + 4

# %%
# The lower half of ten test digits, drawn 200 times each.
known = X_test[:10].copy()
known[:, 32:] = np.nan
wide = {**settings, "max_epochs": 60, "log_partition": None}
machine = DeepBoltzmannMachine((128, 64), **wide).fit(X_train)
draws = np.stack([machine.sample(200, n_steps=100, clamped=row, random_state=0) for row in known])
figure, axes = plt.subplots(3, 1, figsize=(7, 4.2), layout="constrained")
for axis, rows, title in [
    (axes[0], X_test[:10], "test digits"),
    (axes[1], np.nan_to_num(known, nan=0.5), "what is known of them"),
    (axes[2], draws.mean(axis=1), "mean of 200 completions"),
]:
    ComponentsDisplay(rows, (8, 8)).plot(axis, n_columns=10, title=title, cmap="gray_r")

# %%
# Errors in the pixels of the lower half, when predicted by the mean completion and by their base
# rates.
lower = X_test[:10, 32:]
wrong = (np.round(draws.mean(axis=1)[:, 32:]) != lower).mean()
wrong_by_base_rate = (np.round(mean[32:]) != lower).mean()
print(f"wrong pixels of the lower half: {wrong:.1%}, by base rates {wrong_by_base_rate:.1%}")
assert wrong < wrong_by_base_rate
plt.show()
