"""
Recall from half a picture
==========================

An associative memory stores pictures in the couplings between pixels. Given a part of one, it
descends to the nearest minimum of its energy. Hebb's rule, which adds up products of pixels, blends
pictures that resemble each other; the pseudo-inverse makes each picture a separate minimum.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sklebm import HopfieldNetwork

# %%
# A digit of each kind from 0 to 7, with pixels on or off, and the upper halves to start from.
digits = load_digits()
chosen = [np.flatnonzero(digits.target == number)[3] for number in range(8)]
pictures = (digits.data[chosen] > 7).astype(float)
known = np.arange(64) < 32
halves = np.where(known, pictures, np.nan)

rules = {
    "Hebb": HopfieldNetwork("hebb", random_state=0),
    "Storkey": HopfieldNetwork("storkey", random_state=0),
    "pseudo-inverse": HopfieldNetwork("pseudo_inverse", random_state=0),
    "dense, n = 3": HopfieldNetwork("dense", power=3, random_state=0),
}
recalled = {name: memory.fit(pictures).recall(halves) for name, memory in rules.items()}

# %%
# Share of the hidden pixels that are recalled correctly.
for name, rows in recalled.items():
    print(f"{name:15s} {(rows == pictures)[:, ~known].mean():.0%}")
right = {name: (rows == pictures)[:, ~known].mean() for name, rows in recalled.items()}
assert right["pseudo-inverse"] == 1.0
assert right["pseudo-inverse"] > right["Hebb"]

# %%
# The pictures that each rule recalls from the upper halves, above the stored pictures.
lines = {"given": halves, **recalled, "stored": pictures}
figure, axes = plt.subplots(len(lines), 8, figsize=(7, 5.6), layout="constrained")
for row, (name, images) in zip(axes, lines.items(), strict=True):
    for axis, image in zip(row, images, strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.set_facecolor("lightsteelblue")
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
figure.suptitle("The lower half recalled by associative memories")
plt.show()
