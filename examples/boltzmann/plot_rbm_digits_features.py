r"""
Features, likelihoods and samples of a Boltzmann machine
========================================================

One machine fitted to unlabelled digits serves three purposes: its hidden units are features for a
classifier, its likelihood measures how well it models digits, and it draws new ones.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import shift
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklebm import BernoulliRBM
from sklebm.plotting import ComponentsDisplay, SampleChainDisplay

# %%
# Digits of 8 x 8 pixels in [0, 1]. Shifting every image by a pixel in each direction makes the
# classes harder to tell apart by single pixels, and gives the machine more to learn from.
digits, labels = load_digits(return_X_y=True)
directions = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
images = digits.reshape(-1, 8, 8) / 16
X = np.concatenate([[shift(image, step) for image in images] for step in directions])
X = X.reshape(-1, 64).clip(0, 1).astype(np.float32)
y = np.tile(labels, len(directions))
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=0)

# %%
# Features
# --------
# The hidden probabilities of 200 units, learnt without labels, against raw pixels.
settings = {"learning_rate": 0.2, "batch_size": 20, "max_epochs": 20}
rbm = BernoulliRBM(200, **settings, log_partition=None, random_state=0)
on_features = make_pipeline(rbm, LogisticRegression(C=10, max_iter=3000)).fit(X_train, y_train)
on_pixels = LogisticRegression(C=10, max_iter=3000).fit(X_train, y_train)
accuracy = {
    "raw pixels": on_pixels.score(X_test, y_test),
    "hidden units": on_features.score(X_test, y_test),
}
for name, value in accuracy.items():
    print(f"logistic regression on {name}: {value:.3f} of the test digits are right")
assert accuracy["hidden units"] > accuracy["raw pixels"] + 0.03

# %%
# What the units respond to: strokes and their ends (red: a pixel that activates the unit).
rbm = on_features[0]
ComponentsDisplay.from_estimator(rbm, order="norm", max_components=60, n_columns=15)

# %%
# Likelihoods
# -----------
# A likelihood needs binary pixels. With 12 hidden units the partition function is summed exactly;
# with 200 it is estimated by annealed importance sampling, which reports its interval. Both can be
# compared with independent pixels, in nats.
binary_train, binary_test = ((rows > 0.5).astype(np.float32) for rows in (X_train, X_test))
mean = binary_train.mean(axis=0).clip(1e-3, 1 - 1e-3)
base_rate = (binary_test * np.log(mean) + (1 - binary_test) * np.log(1 - mean)).sum(axis=1).mean()
print(f"independent pixels:  {base_rate:.2f} nats a test digit")

likelihood = {}
for n_components in (12, 200):
    machine = BernoulliRBM(n_components, max_epochs=30, learning_rate=0.1, random_state=0)
    machine.fit(binary_train)
    low, high = machine.log_partition_interval_
    how = "exact" if low == high else f"log Z within {low:.2f} .. {high:.2f}"
    likelihood[n_components] = machine.score(binary_test)
    print(f"{n_components:3d} hidden units:    {likelihood[n_components]:.2f} nats ({how})")
assert base_rate + 3 < likelihood[12] < likelihood[200]

# %%
# Samples
# -------
# Each draw is the end of its own Gibbs chain. The means in the last step show grey levels, which
# the binary draws do not.
draws = machine.sample(20, n_steps=2000, random_state=0)
shown = machine.inverse_transform(machine.transform(draws))
figure, axes = plt.subplots(2, 1, figsize=(8, 3.6), layout="constrained")
for axis, rows, title in [
    (axes[0], binary_test[:20], "binarised test digits"),
    (axes[1], shown, "drawn from the machine"),
]:
    ComponentsDisplay(rows, (8, 8)).plot(axis, n_columns=10, title=title, cmap="gray_r")

# %%
# Chains that start from noise leave it within about ten steps, and then move from shape to shape.
noise = np.random.default_rng(0).integers(0, 2, size=(4, 64)).astype(np.float32)
SampleChainDisplay.from_estimator(machine, noise, random_state=0)
plt.show()
