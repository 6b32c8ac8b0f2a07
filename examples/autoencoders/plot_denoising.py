r"""
Denoising, and what each penalty keeps
======================================

Six auto-encoders of the same width reconstruct noisy digits; some were trained for such noise,
others not. A large reconstruction error, which is the energy, shows that a row is not a digit.
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
from sklebm.plotting import ComponentsDisplay, ReconstructionDisplay

X = (load_digits().data / 16).astype(np.float32)
X_train, X_test = train_test_split(X, test_size=0.3, random_state=0)
noise = np.random.default_rng(0).normal(0, 0.3, X_test.shape).astype(np.float32)
noisy = X_test + noise

# %%
# All codes have 64 units, as many as there are pixels, so width alone does not prevent copying.
settings = {"hidden_sizes": (), "learning_rate": 0.005, "max_epochs": 40, "random_state": 0}
models = {
    "plain": Autoencoder(64, **settings),
    "denoising": DenoisingAutoencoder(64, code_activation="sigmoid", **settings),
    "masked": MaskedAutoencoder(64, code_activation="sigmoid", masked_fraction=0.5, **settings),
    "sparse": SparseAutoencoder(64, alpha=0.1, **settings),
    "contractive": ContractiveAutoencoder(64, alpha=0.3, **settings),
    # Units that reach a flat piece of the activation stay there; small steps avoid this.
    "saturating": SaturatingAutoencoder(
        64, alpha=0.1, **{**settings, "learning_rate": 0.001, "max_epochs": 80}
    ),
}

# %%
# The error of reconstructions of noisy test digits, compared with the clean ones, and how well the
# energy separates digits from images whose pixels were shuffled between digits, which have the same
# marginal distributions.
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
# Reconstructions of digits that were not used for training: with noise, their codes, and what the
# codes decode to, all within the range of grey levels. The plain auto-encoder reproduces the noise;
# the denoiser removes most of it, along with fine strokes.
figure, axes = plt.subplots(3, 1, figsize=(9, 6), layout="constrained", height_ratios=[1, 3, 3])
ComponentsDisplay(X_test[:12], (8, 8)).plot(axes[0], n_columns=12, title="test digits, clean")
for axis, name in zip(axes[1:], ("denoising", "plain"), strict=True):
    output = models[name].reconstruct(noisy[:12]).clip(0, 1)
    codes = models[name].transform(noisy[:12])
    ReconstructionDisplay(noisy[:12].clip(0, 1), output, codes).plot(axis)
    axis.set_title(f"{name}: {left[name]:.0%} of the noise is left")
plt.show()
