"""
======================================
Slow pools find what stays in a scene
======================================

Gratings drift over small patches: the strength of each is constant over a sequence, but its phase
changes at every step, so that neither pixels nor responses of linear filters are slow. An
auto-encoder with pools of two filters, whose common length is penalised for changing, finds pairs
of filters that differ only in phase. Below: the slow sine that slow feature analysis recovers from
products of two fast signals, in closed form.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklebm import SlowFeatureAutoencoder
from sklebm.metrics import slowness
from sklebm.plotting import ComponentsDisplay

side, n_sequences, n_frames = 8, 100, 12
waves = [(0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0), (2, 1), (2, -1)]


def make_drifting_gratings(seed):
    """Sums of gratings of random strength, each drifting at its own speed."""
    random = np.random.default_rng(seed)
    row, column = np.mgrid[:side, :side].reshape(2, -1)
    sequences = []
    for _ in range(n_sequences):
        t = np.arange(n_frames)[:, None]
        frames = np.zeros((n_frames, side**2))
        for wave in waves:
            place = 2 * np.pi * (wave[0] * row + wave[1] * column) / side
            phase = random.uniform(0, 2 * np.pi) + random.uniform(0.5, 1.5) * t
            frames += random.exponential() ** 2 * np.cos(place + phase)
        sequences.append(frames)
    return np.concatenate(sequences), np.repeat(np.arange(n_sequences), n_frames)


X, groups = make_drifting_gratings(0)
X_test, groups_test = make_drifting_gratings(1)
settings = {"pool_size": 2, "code_activation": "identity", "alpha": 0.0, "learning_rate": 0.03}
models = {}
for weight in (0.0, 10.0):
    model = SlowFeatureAutoencoder(
        2 * len(waves), slowness=weight, max_epochs=60, random_state=0, **settings
    )
    models[weight] = model.fit(X, groups=groups)
    error = -model.score(X_test) / X_test.var(axis=0).sum()
    change = slowness(model.pool(X_test), groups_test).mean()
    print(f"slowness={weight}: error {error:.3f}, change of the pools {change:.3f}")

# %%
# Slow feature analysis of Wiskott and Sejnowski's two signals.
t = np.linspace(0, 2 * np.pi, 2000)
signals = np.column_stack([np.sin(t) + np.cos(11 * t) ** 2, np.cos(11 * t)])
linear = SlowFeatureAutoencoder(1, method="linear", degree=2).fit(signals)
found = linear.transform(signals)[:, 0]
print(f"correlation with the sine: {abs(np.corrcoef(found, np.sin(t))[0, 1]):.4f}")

# %%
figure, axes = plt.subplot_mosaic(
    [["without", "with", "codes"], ["without", "with", "toy"]],
    figsize=(11, 4.2),
    layout="constrained",
    width_ratios=(1.1, 1.1, 1.6),
)
for name, model in zip(("without", "with"), models.values(), strict=True):
    # A tile is a pool, its two filters side by side.
    filters = model.weights_["encoder.0.weight"].reshape(-1, 2, side, side)
    tiles = np.concatenate([filters[:, 0], filters[:, 1]], axis=2)
    display = ComponentsDisplay(tiles.reshape(len(tiles), -1), (side, 2 * side))
    display.plot(axes[name], n_columns=2, title=f"pools of filters {name} slowness")
show = slice(0, 5 * n_frames)
strongest = int(models[10.0].pool(X_test)[show].std(axis=0).argmax())
axes["codes"].plot(
    models[10.0].transform(X_test)[show, 2 * strongest], color="#56B4E9", label="a latent"
)
axes["codes"].plot(
    models[10.0].pool(X_test)[show, strongest], color="#D55E00", linewidth=2, label="its pool"
)
axes["codes"].set(title="five sequences: pools stay, latents turn", xlabel="step")
axes["codes"].legend(frameon=False, fontsize="small", loc="upper right")
axes["toy"].plot(t, signals[:, 0], color="#999999", linewidth=0.8, label="first signal")
axes["toy"].plot(t, found * np.sign(found[500]), color="#0072B2", linewidth=2, label="slow feature")
axes["toy"].set(title="slow feature analysis, quadratic", xlabel="t")
axes["toy"].legend(frameon=False, fontsize="small", loc="upper right")
plt.show()
