r"""
Codes for a classifier, and fine-tuning
=======================================

Codes learnt without labels can feed a classifier directly, or initialise a network that is then
trained on labels as a whole. The fitted weights are NumPy arrays under torch's own names, so the
second option takes a dozen lines of PyTorch.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn

from sklebm import Autoencoder, ContractiveAutoencoder, DenoisingAutoencoder

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0)
# Labels are known for only 60 images. The result depends on which ones, so it is averaged over six
# draws.
generator = np.random.default_rng(0)
draws = [generator.choice(len(X_train), 60, replace=False) for _ in range(6)]


# %%
# A helper that puts a softmax head on the encoder's single layer, and takes some steps on labels.
def fine_tune(model, X, y, n_steps=100):
    """Return a network that begins as the encoder of a fitted one-layer sigmoid model."""
    weights = {name: torch.from_numpy(array) for name, array in model.weights_.items()}
    n_units, n_features = weights["encoder.0.weight"].shape
    net = nn.Sequential(nn.Linear(n_features, n_units), nn.Sigmoid(), nn.Linear(n_units, 10))
    net[0].load_state_dict({name: weights[f"encoder.0.{name}"] for name in ("weight", "bias")})
    nn.init.zeros_(net[2].weight)
    nn.init.zeros_(net[2].bias)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003, weight_decay=1e-4)
    rows, classes = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(n_steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(rows), classes).backward()
        optimizer.step()
    return net


def accuracy(net, X, y):
    """Share of correct answers."""
    with torch.no_grad():
        return float((net(torch.from_numpy(X)).argmax(dim=1).numpy() == y).mean())


# %%
# The codes are learnt from all images, the classifiers from 60 labels. "untrained" is the same
# network with its initial weights.
shared = {"hidden_sizes": (), "code_activation": "sigmoid", "tied": True, "random_state": 0}
shared |= {"learning_rate": 0.01, "max_epochs": 60, "batch_size": 50}
models = {
    "untrained": Autoencoder(128, **{**shared, "learning_rate": 1e-12, "max_epochs": 1}),
    "plain": Autoencoder(128, **shared),
    "masking noise": DenoisingAutoencoder(
        128, corruption="masking", corruption_level=0.5, **shared
    ),
    "contractive": ContractiveAutoencoder(128, alpha=0.3, **shared),
}
found = {}
for name, model in models.items():
    codes, codes_test = model.fit(X_train).transform(X_train), model.transform(X_test)
    scores = []
    for rows in draws:
        probe = LogisticRegression(C=10, max_iter=2000).fit(codes[rows], y_train[rows])
        net = fine_tune(model, X_train[rows], y_train[rows])
        scores.append((probe.score(codes_test, y_test), accuracy(net, X_test, y_test)))
    found[name] = np.mean(scores, axis=0)
    print(f"{name:14s} codes {found[name][0]:.3f}   fine-tuned {found[name][1]:.3f}")
assert found["contractive"][0] > found["untrained"][0] + 0.02
assert found["contractive"][1] > found["untrained"][1]

# %%
# Codes learnt without labels help both uses. With as few labels as here, a linear classifier on the
# learnt codes does better than fine-tuning all weights.
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for label, index in (("codes as they are", 0), ("fine-tuned", 1)):
    values = [100 * pair[index] for pair in found.values()]
    axis.plot(values, list(found), "os"[index], markersize=8, label=label)
axis.invert_yaxis()
axis.margins(y=0.2)
axis.grid(axis="y", alpha=0.4)
axis.set(xlabel="test accuracy (%), mean over six draws of 60 labels")
axis.legend()
plt.show()
