r"""
GatedBM: filters of shifts and rotations
========================================

A gated Boltzmann machine sees pairs of images, and learns how the second follows from the first.
The images below are dots at random positions, so that the transformation is all that the pairs have
in common.
"""

# %%
# Pairs
# -----
# The second image of a pair is the first, shifted by up to two pixels with wrap-around.

import matplotlib.pyplot as plt
import numpy as np

from sklebm import GatedBM
from sklebm.datasets import make_rotated_pairs, make_shifted_pairs
from sklebm.plotting import ComponentsDisplay

SHAPE = (8, 8)
X, _ = make_shifted_pairs(6000, SHAPE, max_shift=2, density=0.15, random_state=0)
X_test, shifts = make_shifted_pairs(1000, SHAPE, max_shift=2, density=0.15, random_state=1)
model = GatedBM(48, n_factors=96, max_epochs=40, random_state=0).fit(X)

# %%
# Shifts: Fourier components
# --------------------------
# A shift changes the phase of every wave but not its frequency: the two filters of a factor are
# waves of the same frequency, and several factors with different phases together measure the
# change.

turned, _ = make_rotated_pairs(6000, (11, 11), max_angle=90, density=0.15, random_state=0)
rotations = GatedBM(48, n_factors=96, max_epochs=40, random_state=0).fit(turned)


def draw(axis, machine, side, shape, title):
    """The 36 factors of largest effect on the code."""
    order = np.linalg.norm(machine.hidden_factors_, axis=1).argsort()[::-1]
    filters = getattr(machine, f"{side}_factors_")[order]
    ComponentsDisplay(filters, shape).plot(axis, max_components=36, title=title)


figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
draw(axes[0], model, "left", SHAPE, "shifts: filters of x")
draw(axes[1], model, "right", SHAPE, "shifts: filters of y")

# %%
# Rotations: circular harmonics
# -----------------------------
# A rotation changes the phase of waves around the centre, so filters look like rosettes and
# spirals.

figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
draw(axes[0], rotations, "left", (11, 11), "rotations: filters of x")
draw(axes[1], rotations, "right", (11, 11), "rotations: filters of y")

# %%
# The code names the shift, whatever the image
# --------------------------------------------
# For most pairs, the nearest code of another pair has the same shift.

codes = model.transform(X_test)
half = len(codes) // 2
gaps = ((codes[:half, None] - codes[None, half:]) ** 2).sum(axis=2)
right = (shifts[half:][gaps.argmin(axis=1)] == shifts[:half]).all(axis=1).mean()
print(f"nearest code has the same shift: {right:.1%} of pairs, 4 % by chance")
assert right > 0.9

# %%
# Analogies
# ---------
# The code of one pair, applied to another image, is a prediction: A is to B as C is to ... ?

C = np.zeros(SHAPE)
C[2:5, 2] = C[4, 2:6] = 1.0
figure, axes = plt.subplots(4, 4, figsize=(6.4, 6.8), layout="constrained")
for row, pair, code in zip(axes, X_test[:4], codes, strict=False):
    answer = model.apply(C.reshape(1, -1), code[None])[0]
    pictures = {"A": pair[:64], "B": pair[64:], "C": C, "?": answer}
    for axis, (title, picture) in zip(row, pictures.items(), strict=True):
        axis.imshow(picture.reshape(SHAPE), cmap="gray", vmin=0.0, vmax=1.0)
        axis.set(xticks=[], yticks=[], title=title)
plt.show()
