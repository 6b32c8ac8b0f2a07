"""
==========================
Labels of pixels of images
==========================

Two kinds of ground, in noisy images: a single pixel is often assigned to the wrong kind, but
neighbours are mostly of the same kind. :class:`~sklebm.GridMRF` learns from labelled images how
labels depend on colours, and how often neighbours agree.
"""

# %%
# Images
# ------
# A row is one pixel with two noisy colours. ``groups`` gives its image, ``positions`` its row and
# column in the image.

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

from sklebm import GridMRF

SIZE = 48


def draw(n_images, seed):
    rng = np.random.default_rng(seed)
    ground = rng.normal(size=(n_images, SIZE, SIZE))
    ground = (np.stack([gaussian_filter(image, 4) for image in ground]) > 0).astype(int)
    colours = ground.reshape(-1, 1) * [1.0, -1.0] + rng.normal(scale=1.2, size=(ground.size, 2))
    positions = np.stack(np.meshgrid(range(SIZE), range(SIZE), indexing="ij"), axis=-1)
    where = {
        "groups": np.repeat(np.arange(n_images), SIZE**2),
        "positions": np.tile(positions.reshape(-1, 2), (n_images, 1)),
    }
    return colours, ground.ravel(), where


X, y, where = draw(2, seed=0)
X_new, y_new, where_new = draw(2, seed=1)

# %%
# With and without neighbours
# ---------------------------
# Without positions pixels have no neighbours, and the model is logistic regression. ``inference``
# may be changed after ``fit``: ICM changes one pixel at a time and soon stops at a local minimum;
# the graph cut finds the labels of lowest energy; message passing on reweighted trees, the default,
# approximates the probabilities of the labels of each pixel, and takes the most probable one.

alone = GridMRF().fit(X, y)
model = GridMRF().fit(X, y, **where)
found = {"pixels alone": alone.predict(X_new)}
for inference in ("icm", "cut", "reweighted_trees"):
    found[inference] = model.set_params(inference=inference).predict(X_new, **where_new)
for name, labels in found.items():
    print(f"{name:20} {np.mean(labels != y_new):.1%} of new pixels wrong")

# %%
# The first new image.


def image(column):
    return column[: SIZE**2].reshape(SIZE, SIZE)


probability = model.predict_proba(X_new, **where_new)[:, 1]
panels = {"truth": image(y_new), "first colour": image(X_new[:, 0])}
for name, labels in found.items():
    title = f"{name.replace('_', ' ')}: {np.mean(image(labels) != image(y_new)):.1%} wrong"
    panels[title] = image(labels)
panels["probability, reweighted trees"] = image(probability)
panels["wrong pixels, cut"] = image(found["cut"] != y_new)

figure, axes = plt.subplots(2, 4, figsize=(11, 6), layout="constrained")
for axis, (title, picture) in zip(axes.flat, panels.items(), strict=True):
    limits = {} if title == "first colour" else {"vmin": 0, "vmax": 1}
    axis.imshow(picture, cmap="gray", **limits)
    axis.set_title(title, fontsize="medium")
    axis.set_axis_off()
plt.show()
