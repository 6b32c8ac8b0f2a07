r"""
Which spins are coupled?
========================

Features may be correlated although they do not interact directly, such as two neighbours of a
third. A Boltzmann machine without hidden units distinguishes correlation from interaction. Its
couplings describe the dependence of two features given all others, and in the Ising model, a graph
of magnets, they are the bonds.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklebm import BoltzmannMachine

# %%
# Spins on a 6 x 6 lattice. Each bond is kept with probability 0.7, and pulls its two ends together
# (J = 0.4) or apart (J = -0.4). Spins of -1 and +1 are bits of 0 and 1 with W = 4 J.
side, rng = 6, np.random.default_rng(3)
row, column = np.divmod(np.arange(side**2), side)
near = np.abs(row[:, None] - row) + np.abs(column[:, None] - column) == 1
bonds = np.triu(near) * (rng.random(near.shape) < 0.7) * rng.choice([-0.4, 0.4], size=near.shape)
J = bonds + bonds.T
magnet = BoltzmannMachine.from_parameters(couplings=4 * J, intercept_visible=-2 * J.sum(axis=0))
X = magnet.sample(4000, n_steps=100, random_state=0)

# %%
# The model is given no information about the lattice: all 630 pairs may be coupled. Minimum
# probability flow needs neither chains nor the partition function.
machine = BoltzmannMachine(
    objective="minimum_probability_flow",
    optimizer="lbfgs",
    learning_rate=1.0,
    learning_rate_schedule="constant",
    max_epochs=3,
    log_partition=None,
).fit(X)
found = machine.couplings_ / 4
correlations = np.corrcoef(X.T)

# %%
# All pairs, by their correlation and by their learnt coupling. Two spins without a bond may be
# nearly as correlated as two with one, but their coupling is near zero.
pairs = np.triu_indices(side**2, 1)
bonded = J[pairs] != 0
print("bonds found:", f"{(np.abs(found[pairs][bonded]) > 0.2).mean():.0%}")
print("false bonds:", f"{(np.abs(found[pairs][~bonded]) > 0.2).mean():.1%}")
assert (np.abs(found[pairs][bonded]) > 0.2).mean() > 0.9
assert (np.abs(found[pairs][~bonded]) > 0.2).mean() < 0.05

figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
for axis, matrix, title in zip(
    axes[:2],
    (correlations - np.eye(side**2), found),
    ("correlations", "couplings / 4"),
    strict=True,
):
    image = axis.imshow(matrix, cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    axis.set(title=title, xlabel="spin", ylabel="spin")
figure.colorbar(image, ax=axes[:2], shrink=0.8)
axes[2].scatter(np.abs(correlations[pairs])[~bonded], np.abs(found[pairs])[~bonded], s=8)
axes[2].scatter(np.abs(correlations[pairs])[bonded], np.abs(found[pairs])[bonded], s=14, marker="x")
axes[2].axhline(0.2, color="gray", linewidth=0.8)
axes[2].set(xlabel="|correlation|", ylabel="|coupling| / 4", title="couplings tell bonds apart")
axes[2].legend(["no bond", "bond"])
plt.show()
