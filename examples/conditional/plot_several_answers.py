"""
=========================
Several answers for a row
=========================

A row may have more than one answer, and a latent selects one of them. In
:class:`~sklebm.LatentVariableRegressor` a custom network can define how: here an ellipse, whose
axes are the only parameters. The angle is the latent.
"""

# %%
# An ellipse
# ----------
# y = (w1 cos z, w2 sin z) plus noise. There are no inputs, so ``fit`` gets the targets alone: the
# model explains each by an angle. The free energy at zero temperature is the minimum of the energy
# over the angle; at a positive temperature it is the soft minimum.

import matplotlib.pyplot as plt
import numpy as np
import torch

from sklebm import LatentVariableRegressor


class Ellipse(torch.nn.Module):
    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.axes = torch.nn.Parameter(torch.ones(2))

    def forward(self, z):
        return self.axes * torch.cat([z.cos(), z.sin()], dim=1)


rng = np.random.default_rng(0)
angle = rng.uniform(-np.pi, np.pi, size=200)
Y = np.stack([2.0 * np.cos(angle), 0.8 * np.sin(angle)], axis=1) + 0.05 * rng.normal(size=(200, 2))

angles = {
    "latent": "grid",
    "latent_range": (-np.pi, np.pi),
    "n_points": 97,
    "standardize": False,
    "alpha": 0.0,
    "optimizer": "lbfgs",
    "learning_rate": 1.0,
    "max_epochs": 40,
    "random_state": 0,
}
models = {
    beta: LatentVariableRegressor(1, network=Ellipse, beta=beta, **angles).fit(Y)
    for beta in (1.0, 10.0, np.inf)
}
for beta, model in models.items():
    print(f"beta = {beta}: axes {np.abs(model.weights_['network.axes']).round(3)}, truth [2, 0.8]")

# %%
# At high temperature every point is explained by many angles at once, and the axes are
# underestimated: the soft minimum is correct where the temperature matches the noise of the data.
# The lower the temperature, the narrower the valley around the curve.

side = np.linspace(-3, 3, 121)
plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
figure, panels = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained", sharey=True)
for axis, (beta, model) in zip(panels, models.items(), strict=True):
    values = model.free_energy(plane).reshape(121, 121)
    levels = np.linspace(values.min(), values.min() + 1.5, 16)
    image = axis.contourf(side, side, values, levels=levels, cmap="viridis", extend="max")
    axis.plot(*Y.T, ".", color="white", markersize=2)
    axis.plot(*model.predict_set(Y[:1])[0].T, color="tab:red")
    axis.set(title=f"free energy, beta = {beta}", aspect="equal", xticks=[-2, 0, 2])
figure.colorbar(image, ax=panels)

# %%
# A horn
# ------
# Now the ellipse grows with a row x: the set of answers is a curve that depends on x.


class Horn(torch.nn.Module):
    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.axes = torch.nn.Parameter(torch.ones(2))
        self.growth = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pairs):
        x, z = pairs[:, :1], pairs[:, 1:]
        return torch.exp(self.growth * x) * self.axes * torch.cat([z.cos(), z.sin()], dim=1)


X = rng.uniform(size=(300, 1))
angle = rng.uniform(-np.pi, np.pi, size=(300, 1))
Y = np.exp(1.5 * X) * np.hstack([0.7 * np.cos(angle), 0.4 * np.sin(angle)])
Y = Y + 0.05 * rng.normal(size=Y.shape)
horn = LatentVariableRegressor(1, network=Horn, beta=np.inf, **angles).fit(X, Y)
print(f"growth {horn.weights_['network.growth'][0]:.3f}, truth 1.5")

figure = plt.figure(figsize=(6, 5), layout="constrained")
axis = figure.add_subplot(projection="3d")
axis.scatter(X[:, 0], *Y.T, s=4, color="black", alpha=0.4)
places = np.linspace(0, 1, 9)[:, None]
for x, curve in zip(places[:, 0], horn.predict_set(places), strict=True):
    axis.plot(np.full(len(curve), x), *curve.T, color="tab:red")
axis.set(xlabel="x", ylabel="y1", zlabel="y2", title="all answers for nine rows")
plt.show()
