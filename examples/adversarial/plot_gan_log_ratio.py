"""
=========================================
What a critic knows, and rows of one kind
=========================================

The best critic of a generator is the log ratio of two densities, that of the data and that of the
generated rows. In one dimension both are known, so we can measure how close the critic of a
:class:`~sklebm.GAN` comes to it. The second part conditions generator and critic on a label: a
conditional GAN generates either of two moons on demand.
"""

# %%
# A generator that stays where it is
# ----------------------------------
# The data are a mixture of two Gaussians. The generator is a custom network whose output training
# cannot change, so that the critic can converge: in standardised units it returns 1.2 z.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import norm
from sklearn.datasets import make_moons

from sklebm import GAN
from sklebm.objectives.adversarial import NonSaturating


class Gaussian(torch.nn.Module):
    """A normal distribution that stays as it is."""

    def __init__(self, n_components, n_features):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, z):
        return 1.2 * z + 0.0 * self.unused


rng = np.random.default_rng(0)
X = np.where(rng.integers(2, size=4000) == 1, 2.0, -2.0) + 0.7 * rng.normal(size=4000)
fixed = GAN(
    1,
    objective=NonSaturating(r1=0.0),
    generator=Gaussian,
    hidden_sizes=(32, 32),
    activation="silu",  # a ratio of two densities is smooth
    learning_rate=0.003,
    batch_size=500,
    max_epochs=60,
    random_state=0,
).fit(X[:, None])

# %%
# The ratio
# ---------
# Both densities are known. The critic has seen rows drawn from both, but neither density.

points = np.linspace(-3.5, 3.5, 200)
p = 0.5 * norm.pdf(points, -2.0, 0.7) + 0.5 * norm.pdf(points, 2.0, 0.7)
q = norm.pdf(points, fixed.offset_[0], 1.2 * fixed.scale_[0])
found = 1.0 / (1.0 + np.exp(-fixed.score_samples(points[:, None])))
largest = np.abs(found - p / (p + q)).max()
print(f"largest difference between the critic and p / (p + q): {largest:.3f}")

# %%
# Rows of one kind
# ----------------
# With ``conditional=True`` the generator and the critic also get the label. The samples follow the
# moons, but are narrower than the data: a generator gains little from reproducing the noise across
# them.

rows, moon = make_moons(1000, noise=0.08, random_state=0)
model = GAN(
    2,
    objective=NonSaturating(r1=0.1),
    conditional=True,
    hidden_sizes=(64, 64),
    activation="silu",
    learning_rate=0.002,
    max_epochs=80,
    random_state=0,
).fit(rows, moon)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
left.plot(points, p / (p + q), "k--", label="p / (p + q)")
left.plot(points, found, label="critic")
left.set(xlabel="x", ylabel="probability that x is data", title="a fixed generator")
left.legend()
right.plot(*rows.T, ".", color="0.8", markersize=3, label="data")
for label in (0, 1):
    right.plot(
        *model.sample(300, random_state=0, y=label).T, ".", markersize=3, label=f"y = {label}"
    )
right.set(title="samples given y", aspect="equal")
right.legend(loc="upper right")
plt.show()
