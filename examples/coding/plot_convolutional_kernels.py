"""
=============================================
Kernels of a photograph, and missing pixels
=============================================

:class:`~sklebm.ConvSparseCoder` describes a photograph by a few small kernels, each at a few
positions. Half of the pixels are missing during training; the codes of the observed pixels predict
them.
"""

# %%
# A photograph with holes
# -----------------------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

from sklebm import ConvSparseCoder
from sklebm.plotting import ComponentsDisplay

SIDE, KERNEL = 64, 7
photograph = load_sample_images().images[1].mean(axis=2) / 255
photograph = photograph[: len(photograph) // 2 * 2].reshape(-1, 2, 320, 2).mean(axis=(1, 3))
clean = photograph[50 : 50 + SIDE, 130 : 130 + SIDE]
mask = np.random.default_rng(0).random(clean.shape) < 0.5


def psnr(image):
    """Peak signal-to-noise ratio in decibels, at the missing pixels."""
    return -10 * np.log10(((image - clean)[~mask] ** 2).mean())


# %%
# Learn from the pixels that are left
# -----------------------------------
# The smooth part, which has no sparse description, is subtracted first: on its own, it already
# fills the holes with a blurred picture. The kernels add edges and texture.

row, seen = clean.reshape(1, -1), mask.reshape(1, -1)
coder = ConvSparseCoder(
    16,
    kernel_size=KERNEL,
    image_shape=clean.shape,
    alpha=0.02,
    low_pass=5.0,
    max_iter=10,
    code_tol=1e-2,
    random_state=0,
).fit(row, mask=seen)
filled = coder.reconstruct(row, mask=seen).reshape(clean.shape)
smooth = filled - coder.set_params(pool=None).inverse_transform(
    coder.codes(row, mask=seen)
).reshape(clean.shape)
print(f"smooth part {psnr(smooth):.1f} dB, with kernels {psnr(filled):.1f} dB")

# %%
# What was seen, and what was filled in
# -------------------------------------

pictures = {
    "photograph": clean,
    "half of its pixels": np.where(mask, clean, 0.0),
    f"smooth part: {psnr(smooth):.1f} dB": smooth,
    f"with kernels: {psnr(filled):.1f} dB": filled,
}
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4))
for axis, (title, image) in zip(axes, pictures.items(), strict=True):
    axis.imshow(image, cmap="gray", vmin=0, vmax=1)
    axis.set_title(title)
    axis.set_axis_off()
figure.tight_layout()

# %%
# The kernels
# -----------
ComponentsDisplay(coder.components_, (KERNEL, KERNEL)).plot(title="16 kernels")
plt.show()
