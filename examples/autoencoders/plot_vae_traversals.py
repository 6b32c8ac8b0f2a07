r"""
Latents of a variational auto-encoder
=====================================

A density over digits with latent variables: how many of them are used, what each of them does, and
what the model draws. The weight :math:`\beta` of the divergence controls how much information a
code may carry.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklebm import VAE
from sklebm.plotting import ComponentsDisplay

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0)

# %%
# The same model with three weights. The held-out likelihood is best at weight 1, which corresponds
# to the likelihood itself; with a much larger weight, some latents gain less than they cost and
# remain unused.
models = {}
for beta in (0.2, 1.0, 10.0):
    vae = VAE(
        10, beta=beta, noise_scale=0.15, learning_rate=0.003, max_epochs=60, batch_size=50,
        random_state=0,
    ).fit(X_train)  # fmt: skip
    models[beta] = vae
    n_active = int((vae.latent_variances_ > 0.01).sum())
    print(
        f"beta={beta}: {vae.score(X_test):6.2f} nats a test digit (bound "
        f"{vae.lower_bound(X_test).mean():6.2f}), {n_active} latents in use"
    )
assert models[1.0].score(X_test) > max(models[beta].score(X_test) for beta in (0.2, 10.0))
assert (models[10.0].latent_variances_ < 0.01).any()

# %%
# Traversals: one test digit, one latent at a time from -3 to 3. Each row of the picture is one
# latent; the middle column is the digit with that latent at 0.
vae = models[1.0]
order = np.argsort(-vae.latent_variances_)[:6]
digit = X_test[y_test == 5][:1]
moved = vae.traverse(digit, components=order, values=np.linspace(-3, 3, 9))
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
ComponentsDisplay(moved.reshape(-1, 64).clip(0, 1), (8, 8)).plot(
    axis, n_columns=9, title="a 5 under its six busiest latents, from -3 to 3", cmap="gray_r"
)

# %%
# Means of the pixels for draws from the prior. None is a row of the data; many could be, and some
# lie between two digits.
noise = np.random.default_rng(0).standard_normal((30, 10)).astype(np.float32)
figure, axes = plt.subplots(2, 1, figsize=(8, 2.9), layout="constrained")
for axis, rows, title in [
    (axes[0], X_test[:30], "test digits"),
    (axes[1], vae.inverse_transform(noise).clip(0, 1), "drawn from the model"),
]:
    ComponentsDisplay(rows, (8, 8)).plot(axis, n_columns=15, title=title, cmap="gray_r")
plt.show()
