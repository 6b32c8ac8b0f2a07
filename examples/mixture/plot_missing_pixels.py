r"""
Filling in missing pixels with a mixture
========================================

A mixture of Gaussians fitted to digits models how pixels depend on each other. Given the upper half
of a digit, the conditional mean :math:`E[x_u \mid x_o]` fills in the lower half, and predicts it
better than the mean pixel or a single Gaussian does.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklebm import EnergyGaussianMixture

# %%
# Digits have 8 x 8 pixels from 0 to 16. ``reg_covar`` is in squared units of X: it gives pixels
# that are always blank a positive variance.
X_train, X_test = train_test_split(load_digits().data, test_size=0.3, random_state=0)
models = {
    "one Gaussian": EnergyGaussianMixture(reg_covar=1.0),
    "mixture of 20": EnergyGaussianMixture(20, covariance_type="tied", reg_covar=1.0, n_init=5),
}
for name, model in models.items():
    model.set_params(random_state=0, max_iter=500).fit(X_train)
    print(f"{name}: {model.score(X_test):.1f} nats a held-out digit")

# %%
# Hide the lower half of every held-out digit and fill it in.
missing = np.zeros(64, dtype=bool)
missing[32:] = True
holes = np.where(missing, np.nan, X_test)
answers = {"mean pixel": np.where(missing, X_train.mean(axis=0), X_test)}
answers |= {name: model.complete(holes) for name, model in models.items()}
errors = {name: np.mean((answer - X_test)[:, missing] ** 2) for name, answer in answers.items()}
for name, error in errors.items():
    print(f"{name}: squared error {error:.1f} a pixel")
assert errors["mixture of 20"] < errors["one Gaussian"] < errors["mean pixel"]

# %%
# The first digits: as given, with a half missing, and as filled in.
rows = {"digit": X_test, "given": holes, **answers}
figure, axes = plt.subplots(len(rows), 10, figsize=(8, 4.2))
for line, (name, images) in zip(axes, rows.items(), strict=True):
    for axis, image in zip(line, images[:10], strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        axis.set(xticks=[], yticks=[])
        axis.set_facecolor("lightsteelblue")
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
figure.tight_layout()
plt.show()
