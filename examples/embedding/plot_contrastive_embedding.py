"""
=====================================
Few labels, and a cylinder of images
=====================================

:class:`~sklebm.ContrastiveEmbedding` learns which rows belong together from pairs. In the first
part, pairs are two altered copies of one image, so that no label is needed; in the second they are
near neighbours, which gives a map of all images.
"""

# %%
# Digits with ten labels a class
# ------------------------------
# The encoder sees images without labels. A classifier is then trained on ten labels a class, from
# the raw pixels, from twenty principal components, and from the embeddings, for twenty draws of the
# labels.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import trustworthiness
from sklearn.model_selection import train_test_split

from sklebm import ContrastiveEmbedding
from sklebm.inference.image_views import ImageAugmentation
from sklebm.inference.views import Neighbours
from sklebm.objectives.embedding import MarginContrast

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)

views = ImageAugmentation(shift=0.12, crop=0.15, rotate=12.0, blur=0.0, erase=0.25)
model = ContrastiveEmbedding(
    64, image_shape=(8, 8), hidden_sizes=(32, 64), views=views, max_epochs=150, random_state=0
).fit(X_train)
pca = PCA(20, random_state=0).fit(X_train)
features = {
    "pixels": (X_train, X_test),
    "PCA": (pca.transform(X_train), pca.transform(X_test)),
    "embedding": (model.transform(X_train), model.transform(X_test)),
}

rng = np.random.default_rng(0)
labelled = [
    np.concatenate([rng.permutation(np.flatnonzero(y_train == k))[:10] for k in range(10)])
    for _ in range(20)
]
accuracies = {
    name: [
        LogisticRegression(C=10.0, max_iter=2000)
        .fit(train[rows], y_train[rows])
        .score(test, y_test)
        for rows in labelled
    ]
    for name, (train, test) in features.items()
}

# %%
# A cylinder
# ----------
# A spot on a ring of pixels varies in position and brightness: two numbers describe each image.
# Pairs are near neighbours in pixel space; all other images are pushed away up to a margin, in
# Euclidean distance. The map in three dimensions closes the circle and preserves brightness.

n_images = 500
position, light = rng.uniform(0, 2 * np.pi, n_images), rng.uniform(0.5, 1.5, n_images)
pixels = 2 * np.pi * np.arange(40) / 40
images = light[:, None] * np.exp(3.0 * np.cos(pixels - position[:, None]) - 3.0)
cylinder = ContrastiveEmbedding(
    3,
    objective=MarginContrast(1.5),
    views=Neighbours(10),
    unit_length=False,
    head_sizes=(),
    hidden_sizes=(64, 64),
    batch_size=128,
    learning_rate=0.005,
    max_epochs=60,
    random_state=0,
).fit(images)
points = cylinder.transform(images)
truth = np.c_[np.cos(position), np.sin(position), light]
trust = trustworthiness(truth, points, n_neighbors=10)
assert trust > 0.98

# %%
# What was learnt
# ---------------

figure = plt.figure(figsize=(11, 3.8), layout="constrained")
left = figure.add_subplot(1, 3, 1)
left.boxplot(list(accuracies.values()), tick_labels=list(accuracies))
left.set(ylabel="accuracy on test digits", title="ten labels a class")
for place, (values, title) in enumerate(((position, "position"), (light, "light")), start=2):
    axis = figure.add_subplot(1, 3, place, projection="3d")
    colours = "twilight" if title == "position" else "viridis"
    axis.scatter(*points.T, c=values, s=6, cmap=colours)
    axis.set_title(f"cylinder, coloured by {title}")
plt.show()
