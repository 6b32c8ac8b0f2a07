"""
=======================================
A map of filters, and what stands still
=======================================

The filters of :class:`~sklebm.SubspaceICA` can lie on a torus, with a pool around each: a filter
and its eight neighbours. Training favours few active pools in each row, so that filters that are
active together become neighbours. On patches of photographs this arranges edge detectors by
orientation and position, as in the visual cortex, and a pool responds to an edge anywhere in its
neighbourhood.

The patches come from the two photographs that scikit-learn ships.
"""

# %%
# Patches
# -------
# Windows are larger than a patch, so that patches can later be moved within them. The mean of each
# patch is subtracted.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

from sklebm import SubspaceICA

SIZE, MARGIN, SHAPE = 10, 6, (8, 8)
rng = np.random.default_rng(0)
photographs = [image.mean(axis=2) / 255 for image in load_sample_images().images]


def windows(n_samples, margin):
    """Square windows from random places."""
    side = SIZE + 2 * margin
    found = np.empty((n_samples, side, side))
    for i in range(n_samples):
        photograph = photographs[i % 2]
        top, left = (rng.integers(0, length - side) for length in photograph.shape)
        found[i] = photograph[top : top + side, left : left + side]
    return found


def patches(large, shift=0):
    """The middle of each window, moved to the right, without its mean."""
    first = (large.shape[1] - SIZE) // 2
    cut = large[:, first : first + SIZE, first - shift : first - shift + SIZE]
    return (cut - cut.mean(axis=(1, 2), keepdims=True)).reshape(len(cut), -1)


model = SubspaceICA(
    64, topography=SHAPE, density="student_t", max_iter=300, tol=0.03, random_state=0
)
model.fit(patches(windows(n_samples=5000, margin=0)))

# %%
# The map
# -------
# What each source adds to a patch, at its position on the map. The right and left edges of the map
# are adjacent, and so are the upper and lower ones.

images = model.mixing_.T.reshape(-1, SIZE, SIZE)


def orientations(images):
    """Angle of the strongest grating, in degrees: twice the angle is a mean over frequencies."""
    power = np.abs(np.fft.fft2(images)) ** 2
    frequency = np.fft.fftfreq(SIZE) + 1j * np.fft.fftfreq(SIZE)[:, None]
    return np.degrees(np.angle((power * frequency**2).sum(axis=(1, 2)))) / 2


angles = orientations(images)
figure, axes = plt.subplots(1, 2, figsize=(9, 4.4))
tiles = [np.pad(image / np.abs(image).max(), 1, constant_values=1) for image in images]
rows_of_tiles = [np.hstack(tiles[i : i + SHAPE[1]]) for i in range(0, len(tiles), SHAPE[1])]
axes[0].imshow(np.vstack(rows_of_tiles), cmap="gray", vmin=-1, vmax=1)
axes[0].set_title("filters")
drawn = axes[1].imshow(angles.reshape(SHAPE), cmap="hsv", vmin=-90, vmax=90)
axes[1].set_title("direction in which the grey changes")
figure.colorbar(drawn, ax=axes[1], label="degrees", ticks=[-90, -45, 0, 45, 90])
for axis in axes:
    axis.set(xticks=[], yticks=[])
figure.tight_layout()

# %%
# Is the map smooth?
# ------------------
# The mean difference in orientation between neighbours, compared with that of shuffled maps.
# Unrelated angles differ by 45 degrees on average.


def roughness(angles):
    """Mean difference between neighbours on the torus, in degrees."""
    grid, gaps = angles.reshape(SHAPE), []
    for axis in (0, 1):
        gap = np.abs(grid - np.roll(grid, 1, axis)) % 180
        gaps.append(np.minimum(gap, 180 - gap))
    return float(np.mean(gaps))


shuffled = [roughness(rng.permutation(angles)) for _ in range(1000)]
print(f"neighbours: {roughness(angles):.1f} degrees")
print(f"shuffled maps: {np.mean(shuffled):.1f} degrees, at least {np.min(shuffled):.1f}")

# %%
# What changes when a patch moves
# -------------------------------
# Distances between the responses to a patch and to the same patch shifted by some pixels, relative
# to the distance to another patch. All responses are scaled to length one, and none keeps the sign
# of a source. Pools change least, and those of the map less than pools of the same filters at
# random positions.

order = rng.permutation(len(images))
random_pools = SubspaceICA.from_parameters(
    mean=model.mean_,
    components=model.components_[order],
    mixing=model.mixing_[:, order],
    scale=model.scale_,
    group_scales=model.group_scales_,
    noise_variance=model.noise_variance_,
    topography=SHAPE,
    density="student_t",
)
answers = {
    "single filters": lambda x: np.abs(model.transform(x)),
    "pools of a shuffled map": random_pools.pool,
    "pools of the map": model.pool,
}
large = windows(n_samples=1000, margin=MARGIN)
shifts = range(MARGIN + 1)


def changes(answer):
    """For each shift, the mean squared distance relative to that between different patches."""
    rows = [answer(patches(large, shift)) for shift in shifts]
    rows = [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]
    apart = np.square(rows[0] - np.roll(rows[0], 1, axis=0)).sum()
    return [np.square(row - rows[0]).sum() / apart for row in rows]


figure, axis = plt.subplots(figsize=(5, 3.6))
for name, answer in answers.items():
    axis.plot(shifts, changes(answer), "o-", label=name)
axis.set(xlabel="shift (pixels)", ylabel="distance / distance to another patch", ylim=0)
axis.legend()
figure.tight_layout()
plt.show()
