"""
=================================
Labels of the steps of a sequence
=================================

A machine is idle, warms up, runs and cools down, in this order. A noisy sensor alone hardly
distinguishes warming up from cooling down, but the order does. :class:`~sklebm.ChainCRF` learns
both the sensor readings and the order from labelled recordings; the order may also be given.
"""

# %%
# Recordings
# ----------
# Each recording is a sequence of steps, one per row; ``groups`` names the recording of each row.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

from sklebm import ChainCRF

states = np.array(["1 idle", "2 warming", "3 running", "4 cooling"])
level = np.array([0.0, 0.5, 1.0, 0.5])
length = np.array([12, 6, 20, 8])


def record(n_recordings, seed):
    rng = np.random.default_rng(seed)
    codes, groups = [], []
    for recording in range(n_recordings):
        state = rng.integers(4)
        for _ in range(6):
            steps = 1 + rng.poisson(length[state])
            codes += [state] * steps
            groups += [recording] * steps
            state = (state + 1) % 4
    codes, groups = np.array(codes), np.array(groups)
    sensors = level[codes, None] + 0.35 * rng.normal(size=(len(codes), 2))
    return sensors, states[codes], groups


X, y, groups = record(30, seed=0)
X_new, y_new, groups_new = record(30, seed=1)

# %%
# With and without neighbours
# ---------------------------
# Logistic regression is a chain model whose sequences have one step. ``allowed`` forbids what
# cannot happen: ``allowed[i][j]`` says whether state j may follow state i.

alone = LogisticRegression().fit(X, y)
chain = ChainCRF().fit(X, y, groups)
follows = np.eye(4, dtype=bool) | np.roll(np.eye(4, dtype=bool), 1, axis=1)
ordered = ChainCRF(allowed=follows).fit(X, y, groups)

scores = {
    "each step alone": alone.score(X_new, y_new),
    "chain": chain.score(X_new, y_new, groups=groups_new),
    "chain, order given": ordered.score(X_new, y_new, groups=groups_new),
}
for name, score in scores.items():
    print(f"{name:20} {score:.3f} of new steps right")

# %%
# Probabilities are computed from the whole recording: a step in the middle of a run is certain,
# whatever the sensor reads there.

first = groups_new == 0
steps = np.arange(first.sum())
panels = {
    "sensors": None,
    "truth": (y_new[first][:, None] == states).astype(float),
    "each step alone": alone.predict_proba(X_new[first]),
    "chain": chain.predict_proba(X_new[first]),
}
figure, axes = plt.subplots(4, 1, figsize=(8, 6), sharex=True, layout="constrained")
for axis, (name, shares) in zip(axes, panels.items(), strict=True):
    if shares is None:
        axis.plot(steps, X_new[first], ".", markersize=3)
    else:
        axis.stackplot(steps, shares.T, labels=[state[2:] for state in states])
        axis.set(ylim=(0, 1), yticks=[0, 1])
    title = f"{name}: {scores[name]:.0%} right" if name in scores else name
    axis.set_title(title, loc="left", fontsize="medium")
    axis.margins(x=0)
axes[1].legend(loc="upper right", ncols=4, fontsize="small")
axes[-1].set_xlabel("step")

# %%
# What the model has learnt about the order: scores of transitions, high on the diagonal and next to
# it.

figure, axis = plt.subplots(figsize=(4.5, 3.6), layout="constrained")
image = axis.imshow(chain.transitions_, cmap="RdBu_r", vmin=-5, vmax=5)
names = [state[2:] for state in states]
axis.set_xticks(range(4), names)
axis.set_yticks(range(4), names)
axis.set(xlabel="to", ylabel="from", title="transitions_")
figure.colorbar(image, label="nats")
plt.show()
