"""
=====================================
Sparse coding cleans up a photograph
=====================================

:class:`~sklebm.SparseCoder` learns a dictionary from the patches of a noisy photograph. Few atoms
describe structure, whereas noise needs many: the reconstruction from sparse codes keeps the
structure and removes most of the noise. The learnt atoms are small edges.
"""

# %%
# A noisy photograph
# ------------------
# One of the two photographs that come with scikit-learn, at half its size, with Gaussian noise of
# 20 grey levels out of 255.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d, reconstruct_from_patches_2d

from sklebm import SparseCoder
from sklebm.plotting import ComponentsDisplay

SIZE, NOISE = 8, 20 / 255
CROP = 160
clean = load_sample_images().images[0].mean(axis=2) / 255
clean = clean[: len(clean) // 2 * 2].reshape(-1, 2, clean.shape[1] // 2, 2).mean(axis=(1, 3))
clean = clean[-CROP:, : CROP * 5 // 4]
noisy = clean + NOISE * np.random.default_rng(0).standard_normal(clean.shape)


def psnr(image):
    """Peak signal-to-noise ratio in decibels."""
    return -10 * np.log10(((image - clean) ** 2).mean())


# %%
# Learn on its own patches
# ------------------------
# Every patch of 8 x 8 pixels, minus its mean. The noise determines the threshold ``alpha``: the
# product of pure noise with an atom of length one has the same standard deviation as the noise.

patches = extract_patches_2d(noisy, (SIZE, SIZE)).reshape(-1, SIZE * SIZE)
means = patches.mean(axis=1, keepdims=True)
coder = SparseCoder(128, alpha=2 * NOISE, max_iter=5, random_state=0).fit(patches - means)
codes = coder.transform(patches - means)
print(f"non-zeros per patch: {(codes != 0).sum(axis=1).mean():.1f} of {codes.shape[1]}")

# %%
# The codes select the atoms; shrinkage makes their values too small, so they are refitted by least
# squares on the selected atoms. Every pixel is the mean over the 64 patches that cover it.


def fit_again(rows, codes, atoms):
    """Least squares on the support of each code."""
    fitted = np.zeros_like(codes)
    for row, code, out in zip(rows, codes, fitted, strict=True):
        support = np.flatnonzero(code)
        out[support] = np.linalg.lstsq(atoms[support].T, row, rcond=None)[0]
    return fitted


def assemble(codes):
    """The photograph from the codes of its patches."""
    rows = coder.inverse_transform(codes) + means
    return reconstruct_from_patches_2d(rows.reshape(-1, SIZE, SIZE), clean.shape)


shrunk = assemble(codes)
denoised = assemble(fit_again(patches - means, codes, coder.components_))
print(
    f"noisy {psnr(noisy):.2f} dB, sparse codes {psnr(shrunk):.2f} dB, "
    f"fitted again {psnr(denoised):.2f} dB"
)

best = max([shrunk, denoised], key=psnr)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.5))
for axis, (title, image) in zip(
    axes, {"clean": clean, "noisy": noisy, "denoised": best}.items(), strict=True
):
    axis.imshow(image, cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"{title}" if image is clean else f"{title}: {psnr(image):.1f} dB")
    axis.set_axis_off()
figure.tight_layout()

# %%
# The atoms
# ---------
usage = np.abs(codes).sum(axis=0).argsort()[::-1]
most_used = ComponentsDisplay(coder.components_[usage[:64]], (SIZE, SIZE))
most_used.plot(title="the 64 atoms that are used most")
plt.show()
