r"""
A map of digits
===============

Two numbers per image are enough to arrange digits on a page. Principal components do so with a
linear map; an auto-encoder with hidden layers learns a curved surface, and preserves more of each
image. A variational auto-encoder is also a density over the page: its codes are drawn towards a
standard normal distribution.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from sklebm import VAE, Autoencoder, PCAWhitener
from sklebm.plotting import ComponentsDisplay, LatentDisplay

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0)

# %%
# Two-dimensional codes from a linear and from nonlinear encoders.
network = {"hidden_sizes": (128, 32), "learning_rate": 0.003, "max_epochs": 150, "batch_size": 50}
maps = {
    "principal components": PCAWhitener(2),
    "auto-encoder": Autoencoder(2, **network, random_state=0),
    "variational auto-encoder": VAE(2, noise_scale=0.15, **network, random_state=0),
}
error, accuracy = {}, {}
for name, model in maps.items():
    codes, test_codes = model.fit(X_train).transform(X_train), model.transform(X_test)
    error[name] = ((X_test - model.inverse_transform(test_codes)) ** 2).sum(axis=1).mean()
    accuracy[name] = KNeighborsClassifier(15).fit(codes, y_train).score(test_codes, y_test)
    print(
        f"{name:24s} mean squared error of a test image {error[name]:.2f}, "
        f"{accuracy[name]:.0%} named by 15 neighbours"
    )
for name in ("auto-encoder", "variational auto-encoder"):
    assert error[name] < 0.85 * error["principal components"]
    assert accuracy[name] > accuracy["principal components"] + 0.1

# %%
# Neighbours on the map are mostly of one class, although no label was used to draw it.
figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
for axis, (name, model) in zip(axes, maps.items(), strict=True):
    LatentDisplay.from_estimator(model, X_test, y_test, ax=axis, size=14)
    axis.set_title(f"{name}: {accuracy[name]:.0%} by 15 neighbours")
for axis in axes[:-1]:
    axis.get_legend().remove()

# %%
# Any point of the map can be decoded. Walking in a straight line from one digit to another passes
# through images between them.
model = maps["auto-encoder"]
codes = model.transform(X_test)
ends = np.array([codes[np.flatnonzero(y_test == digit)[0]] for digit in (0, 4, 1, 7)])
steps = np.linspace(0, 1, 9)[:, None]
path = np.concatenate([(1 - steps) * a + steps * b for a, b in itertools.pairwise(ends)])
figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
ComponentsDisplay(model.inverse_transform(path).clip(0, 1), (8, 8)).plot(
    axis, n_columns=9, title="from a 0 to a 4, a 1 and a 7", cmap="gray_r"
)

# %%
# The codes of the variational model approximately follow a standard normal distribution, so that
# its whole page can be shown: each tile decodes one point, at quantiles of the prior.
quantiles = norm.ppf(np.linspace(0.03, 0.97, 15))
page = np.stack(np.meshgrid(quantiles, quantiles[::-1]), axis=-1).reshape(-1, 2)
tiles = maps["variational auto-encoder"].inverse_transform(page.astype(np.float32))
figure, axis = plt.subplots(figsize=(6, 6), layout="constrained")
ComponentsDisplay(tiles.clip(0, 1), (8, 8)).plot(
    axis, n_columns=15, max_components=225, title="every point of the page, decoded", cmap="gray_r"
)
plt.show()
