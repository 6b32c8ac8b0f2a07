"""
Regression with several answers, or with honest doubt
=====================================================

Least squares predicts a mean, even where no target lies. An energy of rows and targets gives a
whole density of y for every row, which may have two branches, or a width that depends on x.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklebm import EnergyRegressor
from sklebm.datasets import Trumpet, TwoBranches
from sklebm.metrics import score_conditional_density

# %%
# Two curves whose conditional density is known, so that the error of a learnt density can be
# measured in nats. Without a network the model is ridge regression with Gaussian residuals.
curves = {"two branches": TwoBranches(), "a growing width": Trumpet()}
settings = {"batch_size": 64, "max_epochs": 25, "random_state": 0}
models = {}
for name, curve in curves.items():
    X, y = curve.sample(2000, random_state=0)
    X_test, y_test = curve.sample(500, random_state=1)
    truth = curve.conditional_log_density(X_test, y_test).mean()
    models[name] = EnergyRegressor((32, 32), **settings).fit(X, y)
    gaussian = EnergyRegressor(()).fit(X, y)
    for kind, model in {"energy": models[name], "Gaussian": gaussian}.items():
        missing = truth - score_conditional_density(model, X_test, y_test)
        print(f"{name}, {kind}: {missing:.2f} nats from the truth")

# %%
# Shades show the learnt density, bars the smallest sets that contain 90 % of it: they split where
# the branches do. The line is the prediction, the y of lowest energy.
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
x = np.linspace(-1, 1, 100)[:, None]
for axis, (name, curve) in zip(axes, curves.items(), strict=True):
    X, y = curve.sample(500, random_state=2)
    grid = np.linspace(y.min() - 0.3, y.max() + 0.3, 200)
    density = models[name].predict_density(x, grid)
    axis.pcolormesh(x[:, 0], grid, np.sqrt(density.T), cmap="Blues", shading="nearest")
    axis.plot(*[X[::2, 0], y[::2]], ".", color="black", markersize=2)
    places = x[5::15]
    for place, pieces in zip(places, models[name].predict_interval(places, 0.9), strict=True):
        for low, high in pieces:
            axis.plot([place[0]] * 2, [low, high], color="tab:orange", linewidth=3)
    axis.plot(x[:, 0], models[name].predict(x), color="tab:red", linewidth=1)
    axis.set(title=name, xlabel="x", ylabel="y")
plt.show()
