r"""
Denoising, and what each penalty keeps
======================================

Six auto-encoders of the same width reconstruct digits under noise that they did or did not train
for. Where reconstruction goes wrong on purpose, the energy says that a row is no digit.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from sklebm import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    MaskedAutoencoder,
    SaturatingAutoencoder,
    SparseAutoencoder,
)
from sklebm.plotting import ComponentsDisplay

X = (load_digits().data / 16).astype(np.float32)
X_train, X_test = train_test_split(X, test_size=0.3, random_state=0)
noise = np.random.default_rng(0).normal(0, 0.3, X_test.shape).astype(np.float32)
noisy = X_test + noise

# %%
# All codes have 64 units, as many as there are pixels, so that width alone stops no one from
# copying.
settings = {"hidden_sizes": (), "learning_rate": 0.005, "max_epochs": 40, "random_state": 0}
models = {
    "plain": Autoencoder(64, **settings),
    "denoising": DenoisingAutoencoder(64, code_activation="sigmoid", **settings),
    "masked": MaskedAutoencoder(64, code_activation="sigmoid", masked_fraction=0.5, **settings),
    "sparse": SparseAutoencoder(64, alpha=0.1, **settings),
    "contractive": ContractiveAutoencoder(64, alpha=0.3, **settings),
    "saturating": SaturatingAutoencoder(64, alpha=0.1, **settings),
}

# %%
# Error of the reconstruction of noisy test digits, against the clean ones; and how well the energy
# tells digits from images whose pixels were shuffled between digits, which pixel by pixel look the
# same.
shuffled = np.random.default_rng(1).permuted(X_test, axis=0)
labels = np.repeat([1, 0], len(X_test))
left, auroc = {}, {}
for name, model in models.items():
    model.fit(X_train)
    left[name] = ((model.reconstruct(noisy) - X_test) ** 2).sum(1).mean() / (noise**2).sum(1).mean()
    auroc[name] = roc_auc_score(labels, model.score_samples(np.vstack([X_test, shuffled])))
    print(f"{name:12s} noise left: {left[name]:5.0%}   digits against shuffled: {auroc[name]:.3f}")
assert left["denoising"] < 0.5 * left["plain"]
assert auroc["denoising"] > auroc["plain"]

# %%
# What the denoiser makes of noise.
rows = np.vstack([X_test[:12], noisy[:12], models["denoising"].reconstruct(noisy[:12])])
figure, axis = plt.subplots(figsize=(7, 2.2), layout="constrained")
ComponentsDisplay(rows.clip(0, 1), (8, 8)).plot(
    axis, n_columns=12, title="test digits, with noise, and denoised", cmap="gray_r"
)
plt.show()
