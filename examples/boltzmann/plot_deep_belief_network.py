r"""
Two layers instead of one
=========================

A restricted Boltzmann machine with few hidden units has a poor prior over their states. A second
layer learns a better one: the likelihood of new digits rises, and so does the quality of samples.
Finally, the two layers are used for classification.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn

from sklebm import BernoulliRBM, DeepBeliefNetwork
from sklebm.plotting import ComponentsDisplay

X, y = load_digits(return_X_y=True)
X = (X > 8).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0)

# %%
# The likelihood of new digits
# ----------------------------
# Ten hidden units can be summed over, so that all likelihoods are exact, not bounds. The second
# layer is initialised as the first one upside down, which leaves the likelihood unchanged; then all
# layers are trained together.
settings = {"learning_rate": 0.2, "batch_size": 20, "max_epochs": 40, "random_state": 0}
machine = BernoulliRBM(10, **settings).fit(X_train)
greedy = DeepBeliefNetwork((10, 64), init="transpose", **settings).fit(X_train)
tuning = {"fine_tuning_epochs": 20, "fine_tuning_rate": 0.05}
tuned = DeepBeliefNetwork((10, 64), init="transpose", **settings, **tuning).fit(X_train)
exact = {"one layer": machine.score(X_test)}
for name, network in {"two layers": greedy, "fine-tuned": tuned}.items():
    exact[name] = network.score(X_test, bound="importance")
    print(f"{name}: the bound is {network.score(X_test):.2f} nats a test digit")
for name, value in exact.items():
    print(f"{name}: log p is {value:.2f}")
assert exact["one layer"] < exact["two layers"] < exact["fine-tuned"]

# %%
# Samples
# -------
# Means of the pixels, given the last states of the chains of the top machine.
wide = {**settings, "max_epochs": 30, "log_partition": None}
deep = DeepBeliefNetwork((100, 100), **wide).fit(X_train)
figure, axes = plt.subplots(2, 1, figsize=(8, 3.6), layout="constrained")
draws = deep.sample(20, n_steps=500, random_state=0)
for axis, rows, title in [
    (axes[0], X_test[:20], "binarised test digits"),
    (axes[1], deep.inverse_transform(deep.transform(draws)), "drawn from the network"),
]:
    ComponentsDisplay(rows, (8, 8)).plot(axis, n_columns=10, title=title, cmap="gray_r")

# %%
# A classifier
# ------------
# A linear classifier on the codes, or a feed-forward network initialised with the layers, each
# trained on 100 labels.
few = np.random.default_rng(0).choice(len(X_train), 100, replace=False)
codes = LogisticRegression(C=10, max_iter=2000).fit(deep.transform(X_train[few]), y_train[few])
layers = []
for part in deep.named_estimators_.values():
    linear = nn.Linear(part.n_features_in_, len(part.components_))
    linear.weight.data = torch.from_numpy(part.components_.copy())
    linear.bias.data = torch.from_numpy(part.intercept_hidden_.copy())
    layers += [linear, nn.Sigmoid()]
head = nn.Linear(layers[-2].out_features, 10)
nn.init.zeros_(head.weight)
nn.init.zeros_(head.bias)
net = nn.Sequential(*layers, head)
optimizer = torch.optim.Adam(net.parameters(), lr=0.003, weight_decay=1e-4)
for _step in range(150):
    optimizer.zero_grad()
    outputs = net(torch.from_numpy(X_train[few]))
    nn.functional.cross_entropy(outputs, torch.from_numpy(y_train[few])).backward()
    optimizer.step()
with torch.no_grad():
    answers = net(torch.from_numpy(X_test)).argmax(dim=1).numpy()
pixels = LogisticRegression(C=10, max_iter=2000).fit(X_train[few], y_train[few])
found = {
    "pixels": pixels.score(X_test, y_test),
    "codes": codes.score(deep.transform(X_test), y_test),
    "fine-tuned": (answers == y_test).mean(),
}
for name, value in found.items():
    print(f"{name:11s} {value:.3f} of the test digits are right, with 100 labels")
assert found["fine-tuned"] > found["pixels"]
plt.show()
