r"""
One exercise, four energies: patches, a Gaussian's draws, and digits
====================================================================

A two-layer energy of image patches,

.. math:: F(x) = \frac{|x - m|^2}{2 \sigma^2} - b^\top (x - m) -
          \sum_k \log\left(1 + e^{w_k^\top s(V (x - m) + a) + c_k}\right),

has one free setting, the width of its Gaussian factor, and its rows may be whitened first or not.
Two widths, with and without whitening, make four cases. What does the energy learn in each of them,
and how does it compare with a Gaussian whose precision connects neighbouring pixels only?
``benchmarks/bench_patch_energies.py`` asks the same of larger patches and many more of them.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.metrics import roc_auc_score

from sklebm import DeepEnergyModel, GaussianEnergy, PCAWhitener
from sklebm.plotting import ComponentsDisplay

# %%
# Patches of 8 x 8 grey levels between 0 and 1, from the upper two thirds of scikit-learn's
# photographs; others from the lower third. Handwritten digits have the same size, and are no
# photographs.
SIZE = 8
photographs = [photo.mean(axis=2) / 255 for photo in load_sample_images().images]


def cut(images, n_rows):
    """Patches at random places."""
    parts = [
        extract_patches_2d(i, (SIZE, SIZE), max_patches=n_rows, random_state=0) for i in images
    ]
    return np.concatenate(parts).reshape(-1, SIZE * SIZE).astype(np.float32)


X = cut([photo[: 2 * len(photo) // 3] for photo in photographs], 4000)
held_out = cut([photo[2 * len(photo) // 3 :] for photo in photographs], 500)
digits = (load_digits().data[:1000] / 16).astype(np.float32)

# %%
# The Gaussian needs no sampling: score matching solves a linear system for the free entries of its
# precision, those between pixels at most two rows and columns apart. Its draws have the spectrum of
# patches and no edges.
gaussian = GaussianEnergy(
    "banded", objective="score_matching", image_shape=(SIZE, SIZE), radius=2
).fit(X)
draws = gaussian.sample(1000, random_state=0).astype(np.float32)
sets = {"patches": held_out, "draws": draws, "digits": digits}


def describe(name, model, view):
    """Mean log density of the sets, and how well it tells patches from draws."""
    scores = {key: model.score_samples(view(rows)) for key, rows in sets.items()}
    labels = np.repeat([1, 0], [len(held_out), len(draws)])
    auroc = roc_auc_score(labels, np.concatenate([scores["patches"], scores["draws"]]))
    nats = "  ".join(f"{key} {v.mean():8.1f} +- {v.std():6.1f}" for key, v in scores.items())
    print(f"{name:20s} {nats}  AUROC {auroc:.3f}")
    return auroc


auroc = {"Gaussian": describe("Gaussian", gaussian, lambda rows: rows)}

# %%
# Four energies, by noise-contrastive estimation. Where draws of a known Gaussian show the learnt
# :math:`\log Z` to be wrong, ``fit`` warns and anneals it: the warnings are counted here. A density
# of whitened coordinates can be compared with one of pixels only by how it ranks rows.
whitener = PCAWhitener(n_components=0.99).fit(X)
views = {"pixels": lambda rows: rows, "whitened": whitener.transform}
models = {}
for view_name, view in views.items():
    for sigma in (1.0, 0.1):
        model = DeepEnergyModel(
            64, hidden_sizes=(64,), activation="sigmoid", sigma=sigma, max_epochs=12, random_state=0
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(view(X))
        name = f"{view_name}, sigma {sigma:g}"
        auroc[name] = describe(name, model, view)
        print(f"{'':20s} log Z {model.log_partition_:.1f}, warnings: {len(caught)}")
        models[name] = model

# %%
# Filters of the first layer, those of whitened rows mapped back to pixels, and below them the
# points that rows reach by descending the energy. On pixels the filters still look like their
# random initialisation; on whitened rows, where every direction has equal weight, many become
# oriented. Compare the AUROC above each panel with that of the Gaussian: it is worse if the
# Gaussian factor is too narrow for grey levels.
figure, axes = plt.subplots(2, 4, figsize=(13, 6.5), layout="constrained")
for (name, model), column in zip(models.items(), axes.T, strict=True):
    filters = model.weights_["network.0.weight"]
    view = views[name.partition(",")[0]]
    modes = model.modes(view(held_out[:24]))
    if name.startswith("whitened"):
        filters, modes = filters @ whitener.components_, whitener.inverse_transform(modes)
    title = f"{name}: AUROC {auroc[name]:.3f}"
    ComponentsDisplay(filters, (SIZE, SIZE)).plot(column[0], n_columns=8, title=title, cmap="gray")
    ComponentsDisplay(modes, (SIZE, SIZE)).plot(column[1], n_columns=8, title="modes", cmap="gray")
figure.suptitle(f"Patches against draws of the Gaussian (which has {auroc['Gaussian']:.3f} itself)")
plt.show()
