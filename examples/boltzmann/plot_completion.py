r"""
Completing images
=================

A density over whole images can fill in missing parts. With some pixels given
(``sample(clamped=...)``), the chains of a Boltzmann machine draw the others from
:math:`p(x_\text{unknown} \mid x_\text{known})`: not a single best guess, but draws from all
plausible completions.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklebm import BernoulliRBM

images = (load_digits().data > 7).astype(np.float32)
train, test = train_test_split(images, test_size=0.2, random_state=0)
machine = BernoulliRBM(
    128, learning_rate=0.2, batch_size=50, max_epochs=100, log_partition=None, random_state=0
).fit(train)

# %%
# The lower half of unseen digits is hidden: NaN marks the pixels to fill in. Each of 50 chains
# draws a completion; their mean is the conditional probability of each pixel.
clamped = test.copy()
clamped[:, 32:] = np.nan
shown = test[:8]
draws = np.stack(
    [
        machine.sample(50, clamped=row, n_steps=200, random_state=index)
        for index, row in enumerate(clamped[:8])
    ]
)
expected = draws.mean(axis=1)
assert (draws[:, :, :32] == shown[:, None, :32]).all()

# %%
# Does the upper half help? Over all unseen digits, the mean of the completions predicts the hidden
# pixels better than the mean training digit, which ignores the given pixels.
means = np.stack(
    [
        machine.sample(10, clamped=row, n_steps=100, random_state=index).mean(axis=0)
        for index, row in enumerate(clamped[:60])
    ]
)
error = np.square(means - test[:60])[:, 32:].mean()
ignorant = np.square(train.mean(axis=0) - test[:60])[:, 32:].mean()
print(f"squared error per hidden pixel: {error:.3f}, of the mean digit {ignorant:.3f}")
assert error < ignorant

# %%
# From the top: the digit, its given pixels, three completions, and the mean of 50.
rows = {
    "unseen digit": shown,
    "given": clamped[:8],
    "draw 1": draws[:, 0],
    "draw 2": draws[:, 1],
    "draw 3": draws[:, 2],
    "mean of 50": expected,
}
figure, axes = plt.subplots(len(rows), 8, figsize=(7, 5.6), layout="constrained")
for row, (name, digits) in zip(axes, rows.items(), strict=True):
    for axis, digit in zip(row, digits, strict=True):
        axis.imshow(digit.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.set_facecolor("lightsteelblue")
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
figure.suptitle("The lower half completed by a Boltzmann machine")
plt.show()
