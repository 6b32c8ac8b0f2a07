r"""
A map of digits
===============

Two numbers per image are enough to lay digits out on a page. Principal components do it with a
linear map; an auto-encoder with hidden layers bends the page to the data, and keeps more of each
image.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from sklebm import Autoencoder
from sklebm.plotting import ComponentsDisplay

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0)

# %%
# The same two numbers, linear and curved.
pca = PCA(2).fit(X_train)
model = Autoencoder(
    2, hidden_sizes=(128, 32), learning_rate=0.003, max_epochs=150, batch_size=50, random_state=0
).fit(X_train)
error = {
    "principal components": ((X_test - pca.inverse_transform(pca.transform(X_test))) ** 2).sum(1),
    "auto-encoder": model.free_energy(X_test),
}
for name, values in error.items():
    print(f"{name}: mean squared error of a test image {values.mean():.2f}")
assert error["auto-encoder"].mean() < 0.85 * error["principal components"].mean()

# %%
# Neighbours on the map are mostly of one class, although no label was used to draw it.
maps = {"principal components": pca, "auto-encoder": model}
figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
accuracy = {}
for axis, (name, coder) in zip(axes, maps.items(), strict=True):
    neighbours = KNeighborsClassifier(15).fit(coder.transform(X_train), y_train)
    codes = coder.transform(X_test)
    accuracy[name] = neighbours.score(codes, y_test)
    points = axis.scatter(*codes.T, c=y_test, cmap="tab10", s=8)
    axis.set(title=f"{name}: {accuracy[name]:.0%} by 15 neighbours", xticks=[], yticks=[])
figure.colorbar(points, ax=axes, ticks=range(10), label="digit")
assert accuracy["auto-encoder"] > accuracy["principal components"] + 0.1

# %%
# Any point of the map can be decoded. Walking in a straight line from one digit to another passes
# through images between them.
ends = np.array([codes[np.flatnonzero(y_test == digit)[0]] for digit in (0, 4, 1, 7)])
steps = np.linspace(0, 1, 9)[:, None]
path = np.concatenate([(1 - steps) * a + steps * b for a, b in itertools.pairwise(ends)])
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
ComponentsDisplay(model.inverse_transform(path), (8, 8)).plot(
    axis, n_columns=9, title="from a 0 to a 4, a 1 and a 7", cmap="gray_r"
)
plt.show()
