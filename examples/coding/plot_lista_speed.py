"""
======================================
LISTA against FISTA: speed, accuracy
======================================

The optimal sparse code of a patch is the limit of an iteration. :class:`~sklebm.LISTAEncoder`
unfolds the first few steps of that iteration into a network, and learns its matrices from optimal
codes. A layer costs as much as a step of ISTA or FISTA, but brings the code much closer to the
optimum.
"""

# %%
# Patches, a dictionary, optimal codes
# ------------------------------------
# 10 x 10 patches of a photograph that comes with scikit-learn, whitened; 100 atoms. The other
# photograph gives the patches for the test.

import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

from sklebm import LISTAEncoder, SparseCoder, ZCAWhitener
from sklebm.energies import L1
from sklebm.inference.sparse import solve_codes

SIZE, ALPHA = 10, 0.15
patches = [
    extract_patches_2d(photo.mean(axis=2), (SIZE, SIZE), max_patches=15_000, random_state=0)
    for photo in load_sample_images().images
]
train, test = (x.reshape(-1, SIZE**2) - x.mean(axis=(1, 2)).reshape(-1, 1) for x in patches)
whitener = ZCAWhitener(ridge=0.01).fit(train)
train, test = (whitener.transform(x).astype(np.float32) for x in (train, test[:2000]))
train /= np.linalg.norm(train, axis=1, keepdims=True)
test /= np.linalg.norm(test, axis=1, keepdims=True)

coder = SparseCoder(100, alpha=ALPHA, max_iter=3, random_state=0).fit(train)
optimal = coder.transform(test)
print(f"non-zeros per patch: {(optimal != 0).sum(axis=1).mean():.1f} of {optimal.shape[1]}")


def code_error(codes):
    """Squared distance from the optimal codes, relative to their squared length."""
    return ((codes - optimal) ** 2).sum() / (optimal**2).sum()


# %%
# The solvers, stopped early
# --------------------------

dictionary, rows = torch.from_numpy(coder.components_), torch.from_numpy(test)
steps = np.array([1, 2, 3, 4, 6, 8, 12, 18, 27, 40, 60])
errors = {
    name: [
        code_error(
            solve_codes(
                rows, dictionary, L1(), ALPHA, method=method, tol=0.0, max_iter=int(n)
            ).codes.numpy()
        )
        for n in steps
    ]
    for name, method in (("ISTA", "ista"), ("FISTA", "fista"))
}

# %%
# Networks of 1, 3 and 7 layers
# -----------------------------
# A network of T layers applies T + 1 shrinkages, like T + 1 steps of a solver.

depths, learnt, start = [0, 1, 3, 7], [], []
for n_layers in depths:
    settings = {"dictionary": coder.components_, "alpha": ALPHA, "n_layers": n_layers}
    encoder = LISTAEncoder(**settings, max_epochs=20, random_state=0).fit(train)
    learnt.append(code_error(encoder.transform(test)))
    untrained = LISTAEncoder(**settings, max_epochs=1, learning_rate=1e-12, random_state=0)
    start.append(code_error(untrained.fit(train[:100]).transform(test)))
    as_good = steps[np.array(errors["FISTA"]) > learnt[-1]].max(initial=0)
    print(
        f"{n_layers} layers: error {start[-1]:.3f} before learning, {learnt[-1]:.3f} after; FISTA "
        f"needs more than {as_good} steps for that"
    )

figure, axis = plt.subplots(figsize=(6.5, 4))
for name, values in errors.items():
    axis.loglog(steps, values, "o-", label=name, markersize=4)
axis.loglog(np.array(depths) + 1, learnt, "s-", label="LISTA, learnt", color="C3")
axis.loglog(np.array(depths) + 1, start, "x", label="LISTA, untrained", color="C3")
axis.set(xlabel="steps, or shrinks of the network", ylabel="relative code error")
axis.grid(visible=True, which="both", alpha=0.3)
axis.legend()
figure.tight_layout()

# %%
# What it buys
# ------------
# With this number of atoms and non-zeros, the exact solver is fast too. A network is a fixed number
# of matrix products: differentiable, equally fast for every row, and able to run on any device.

for name, model in (("optimal codes", coder), ("network of 7 layers", encoder)):
    began = time.perf_counter()
    model.transform(test)
    seconds = time.perf_counter() - began
    print(
        f"{name:20s} {1e6 * seconds / len(test):6.1f} microseconds a patch, "
        f"mean energy {-model.score(test):.4f}"
    )
plt.show()
