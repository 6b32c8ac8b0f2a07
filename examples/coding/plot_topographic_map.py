"""
=============================================
A topographic map of the filters of images
=============================================

Neighbouring neurons of the visual cortex prefer similar positions and orientations. Such a map
emerges when the units of a code lie on a sheet and the activity of pools of neighbours is
penalised: the penalty is smaller if units that are active together are close together (Kavukcuoglu,
Ranzato, Fergus and LeCun, 2009). :class:`~sklebm.PredictiveSparseDecomposition` learns the filters,
and an encoder that predicts their responses.
"""

# %%
# Patches that move
# -----------------
# Strips of 10 x 14 pixels of the photographs that come with scikit-learn; the first 10 columns are
# the patch, and later windows are the same patch after the image has moved.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

from sklebm import PredictiveSparseDecomposition, ZCAWhitener
from sklebm.energies import Topographic
from sklebm.plotting import ComponentsDisplay

SIZE, SIDE, POOL = 10, 10, 3
strips = np.concatenate(
    [
        extract_patches_2d(photo.mean(axis=2), (SIZE, SIZE + 4), max_patches=6_000, random_state=0)
        for photo in load_sample_images().images
    ]
)
strips = strips[np.random.default_rng(0).permutation(len(strips))]
windows = [strips[:, :, shift : shift + SIZE].reshape(len(strips), -1) for shift in range(5)]
windows = [x - x.mean(axis=1, keepdims=True) for x in windows]
whitener = ZCAWhitener(ridge=0.01).fit(windows[0])
windows = [whitener.transform(x).astype(np.float32) for x in windows]
windows = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in windows]
train, test = windows[0][:-2000], [x[-2000:] for x in windows]

# %%
# With and without a map
# ----------------------
# The same model twice: penalised by pools of 3 x 3 units on a 10 x 10 torus, and unit by unit.

settings = {"prediction_weight": 0.3, "learning_rate": 0.01, "random_state": 0}
sheet = PredictiveSparseDecomposition(
    SIDE**2, penalty=Topographic((SIDE, SIDE), POOL), alpha=0.03, max_epochs=5, **settings
).fit(train)
plain = PredictiveSparseDecomposition(SIDE**2, alpha=0.15, max_epochs=5, **settings).fit(train)

figure, axes = plt.subplots(1, 2, figsize=(10, 5))
for axis, model, title in zip(axes, (sheet, plain), ("by pools", "unit by unit"), strict=True):
    ComponentsDisplay(model.components_, (SIZE, SIZE)).plot(ax=axis)
    axis.set_title(f"atoms, charged {title}")
figure.tight_layout()

# %%
# Neighbours look alike
# ---------------------

place = np.arange(SIDE**2).reshape(SIDE, SIDE)
for name, model in (("by pools", sheet), ("unit by unit", plain)):
    atoms = model.components_ / np.linalg.norm(model.components_, axis=1, keepdims=True)
    overlap = np.abs(atoms @ atoms.T)
    near = np.mean([overlap[place, np.roll(place, 1, axis)] for axis in (0, 1)])
    every = (overlap.sum() - len(atoms)) / (len(atoms) * (len(atoms) - 1))
    print(f"{name:12s} overlap of neighbours {near:.3f}, of any two atoms {every:.3f}")

# %%
# Pools are more invariant to a shift
# -----------------------------------
# The distance between the responses to a patch and to the same patch shifted by some pixels,
# relative to the distance between the responses to two unrelated patches.


def distances(respond):
    """Mean squared distance by shift, relative to that of unrelated patches."""
    responses = [respond(x) for x in test]
    first = responses[0]
    unrelated = ((first - np.roll(first, 1, axis=0)) ** 2).sum(axis=1).mean()
    return [((z - first) ** 2).sum(axis=1).mean() / unrelated for z in responses]


def unit_sizes(model):
    """Magnitudes of the units: the sign of a response tells phase, not presence."""
    return lambda x: np.abs(model.transform(x))


def pool_sizes(x):
    """Euclidean norm of every pool of the sheet."""
    squares = sheet.transform(x).reshape(-1, SIDE, SIDE) ** 2
    shifts = [(i, j) for i in range(POOL) for j in range(POOL)]
    return np.sqrt(sum(np.roll(squares, s, axis=(1, 2)) for s in shifts)).reshape(len(x), -1)


figure, axis = plt.subplots(figsize=(5.5, 4))
curves = {
    "plain units": distances(unit_sizes(plain)),
    "units of the sheet": distances(unit_sizes(sheet)),
    "pools of the sheet": distances(pool_sizes),
}
for name, curve in curves.items():
    axis.plot(curve, "o-", label=name)
    print(f"{name:20s}", *(f"{value:.2f}" for value in curve))
axis.set(xlabel="shift (pixels)", ylabel="relative distance of the responses", xticks=range(5))
axis.legend()
figure.tight_layout()
plt.show()
