r"""
Bars and stripes, exactly
=========================

The partition function of a small machine can be summed exactly: the log-likelihood is not an
estimate, and minus the entropy of the patterns bounds it. The patterns are 3 x 3 images of vertical
bars or horizontal stripes; each of the 16 draws is equally likely, and the empty and the full image
occur twice. No model can score above -2.5993 nats.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklebm import BernoulliRBM

side = 3
on = ((np.arange(2**side)[:, None] >> np.arange(side)) & 1).astype(np.float32)
stripes = np.repeat(on[:, :, None], side, axis=2).reshape(len(on), -1)
bars = np.repeat(on[:, None, :], side, axis=1).reshape(len(on), -1)
patterns = np.vstack([stripes, bars])
_, counts = np.unique(patterns, axis=0, return_counts=True)
probabilities = counts / counts.sum()
bound = float(probabilities @ np.log(probabilities))
print(f"bound: {bound:.4f} nats")

# %%
# **Three ways to learn.** The gradient of the exact likelihood, persistent chains that continue
# from update to update, and chains that start at the data. All scores below are exact:
# ``log_partition="exact"`` sums over the 256 states of the hidden units.
X = np.tile(patterns, (50, 1))  # an epoch of 50 updates
settings = {"n_components": 8, "batch_size": 16, "learning_rate": 0.3, "log_partition": "exact"}
objectives = ["maximum_likelihood", "pcd", "cd"]
scores = {
    objective: [
        BernoulliRBM(objective=objective, max_epochs=60, random_state=seed, **settings)
        .fit(X)
        .score(patterns)
        for seed in range(4)
    ]
    for objective in objectives
}

# %%
# The exact gradient has no noise, so a quasi-Newton method can follow it until convergence. Some
# runs end in a local maximum; the best of them reach the bound.
newton = {"optimizer": "lbfgs", "learning_rate": 1.0, "learning_rate_schedule": "constant"}
machines = [
    BernoulliRBM(
        8,
        objective="maximum_likelihood",
        max_epochs=100,
        log_partition="exact",
        random_state=seed,
        **newton,
    ).fit(patterns)
    for seed in range(4)
]
scores["maximum_likelihood, L-BFGS"] = [machine.score(patterns) for machine in machines]
for name, values in scores.items():
    print(f"{name}: best {max(values):.4f}, worst {min(values):.4f}")
best = max(machines, key=lambda machine: machine.score(patterns))
assert best.score(patterns) > bound - 0.01

# %%
# On the left, every run compared with the bound. On the right, all 512 images in order of their
# probability under the best machine: the 14 patterns have nearly all of it, two of them twice the
# share of the others.
images = ((np.arange(2**side**2)[:, None] >> np.arange(side**2)) & 1).astype(np.float32)
p = np.exp(best.score_samples(images).astype(float))
assert abs(p.sum() - 1.0) < 1e-4
order = np.argsort(-p)

figure, (left, right) = plt.subplots(
    1, 2, figsize=(12, 4), layout="constrained", width_ratios=[2, 3]
)
for row, values in enumerate(scores.values()):
    left.plot(values, np.full(len(values), row), "o", color="C0", alpha=0.7)
left.axvline(bound, color="black", linewidth=0.8, linestyle="--", label="bound")
left.legend(loc="upper left")
left.set(xlabel="exact log-likelihood (nats)", title="Four starts each")
left.set_yticks(range(len(scores)), [name.replace(", ", ",\n") for name in scores])
left.invert_yaxis()
right.bar(range(20), p[order[:20]], color=["C0"] * 14 + ["C1"] * 6)
for rank, index in enumerate(order[:20]):
    inset = right.inset_axes([(rank + 0.12) / 20, -0.11, 0.76 / 20, 0.1])
    inset.imshow(images[index].reshape(side, side), cmap="gray_r", vmin=0, vmax=1)
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set_color("0.6")
right.set(xlim=(-0.5, 19.5), xticks=[], ylabel="probability", title="The 20 likeliest images")
plt.show()
