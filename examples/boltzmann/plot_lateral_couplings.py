r"""
SemiRestrictedBM: noise that is smooth, and what hidden units are then left for
===============================================================================

Signals with a few bumps, under noise that is correlated between neighbouring positions. A model
with hidden units only treats the noise as independent; a model with couplings only treats the bumps
as noise. With both, the precision models the smooth noise, and each hidden unit one bump.
"""

# %%
# Signals
# -------
# Each of four bumps is present or absent at random; the noise is a moving average.

import matplotlib.pyplot as plt
import numpy as np

from sklebm import GaussianEnergy, GaussianRBM, SemiRestrictedBM

rng = np.random.default_rng(0)
place = np.arange(24)
bumps = 5.0 * np.exp(-0.5 * ((place - np.array([[3], [9], [15], [21]])) / 1.0) ** 2)


def draw(n_rows):
    noise = rng.normal(size=(n_rows, 28))
    noise = sum(noise[:, shift : shift + 24] for shift in range(5)) / np.sqrt(5)
    return rng.integers(2, size=(n_rows, 4)) @ bumps + noise + rng.normal(size=(n_rows, 24)) / 3


train, test = draw(2000), draw(1000)

# %%
# Three densities
# ---------------
# Held-out log density of the same four hidden units with and without couplings, and of couplings
# alone.

models = {
    "couplings alone": GaussianEnergy().fit(train),
    "hidden units alone": GaussianRBM(4, random_state=0).fit(train),
    "both": SemiRestrictedBM(4, max_epochs=10, random_state=0).fit(train),
}
scores = {name: model.score_samples(test).mean() for name, model in models.items()}
for name, score in scores.items():
    print(f"{name:20} {score:8.2f} nats a row")
assert scores["both"] > max(scores["couplings alone"], scores["hidden units alone"]) + 0.5

# %%
# What they learnt
# ----------------
# Both machines find the bumps; the second also models how the noise is correlated between
# positions, in the bands of its precision.

figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
for axis, name in zip(axes, ("hidden units alone", "both"), strict=False):
    axis.plot(place, bumps.T, color="0.8", linewidth=5)
    axis.plot(place, models[name].components_.T)
    axis.set(title=f"{name}: weights", xlabel="place")
axes[2].imshow(models["both"].precision_, cmap="RdBu", vmin=-3, vmax=3)
axes[2].set(title="both: precision", xlabel="place", ylabel="place")
plt.show()
