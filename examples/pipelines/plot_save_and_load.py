"""
======================
Save and load a model
======================

:func:`sklebm.save` writes an estimator to one file and :func:`sklebm.load` reads it back, identical
to the last bit. The file contains numbers and names but no code: loading one from a stranger is
safe, unlike a pickle.
"""

# %%
# A round trip
# ------------
# A detector for digits: the energy of k-means, with a threshold.
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import safetensors.numpy
from sklearn.datasets import load_digits

import sklebm
from sklebm import EnergyKMeans, EnergyOutlierDetector
from sklebm.plotting import ComponentsDisplay

images = load_digits().data / 16
detector = EnergyOutlierDetector(EnergyKMeans(30, random_state=0)).fit(images)

folder = Path(tempfile.mkdtemp())
path = folder / "detector.safetensors"
sklebm.save(detector, path)
loaded = sklebm.load(path)

print(loaded)
print("equal scores:", np.array_equal(loaded.score_samples(images), detector.score_samples(images)))

# %%
# What is in the file
# -------------------
# Eight bytes of length, a JSON header, then the arrays: the `safetensors
# <https://github.com/huggingface/safetensors>`__ format, which many tools read. The header contains
# one document with parameters, small values, versions and a checksum. It names the class of each
# object but contains no instructions to *construct* it; ``load`` looks the name up in a short table
# of its own.
with open(path, "rb") as file:
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
document = json.loads(header["__metadata__"]["sklebm"])

print("versions:", document["versions"])
print("class:   ", document["estimator"]["class"])
print("offset_: ", document["estimator"]["state"]["offset_"])

# %%
# The arrays can be read even without sklebm.
tensors = safetensors.numpy.load_file(path)
for name, tensor in tensors.items():
    print(f"{name:45} {tensor.dtype!s:8} {tensor.shape}")

# %%
# Damage is noticed
# -----------------
# The checksum covers the document and every array. Here one bit is flipped at each of 300 random
# positions in turn.
original = path.read_bytes()
generator = np.random.default_rng(0)
refused = 0
for place in generator.integers(len(original), size=300):
    damaged = bytearray(original)
    damaged[place] ^= 1
    path.write_bytes(damaged)
    try:
        sklebm.load(path)
    except ValueError:
        refused += 1
path.write_bytes(original)
print(f"{refused} of 300 damaged files were refused")

# %%
# If a save fails, because the disk is full or the process is killed, the previous file remains: the
# new one is written next to it and moved into place in one step.
#
# Other files are not opened
# --------------------------
# A pickle is a program, and opening it runs it. ``load`` never does, whatever the file is called.
(folder / "model.pkl").write_bytes(b"\x80\x04.")
(folder / "renamed.safetensors").write_bytes(b"\x80\x04\x95" + bytes(20))
for name in ("model.pkl", "renamed.safetensors"):
    try:
        sklebm.load(folder / name)
    except ValueError as error:
        print(str(error).replace(str(folder), "..."))

# %%
# The prototypes, drawn from the file, and what it is made of.
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
centers = tensors["named_estimators_.energykmeans.cluster_centers_"]
ComponentsDisplay(centers, (8, 8)).plot(ax=left, n_columns=6, title="cluster_centers_ in the file")
sizes = {"header": len(original) - sum(tensor.nbytes for tensor in tensors.values())}
sizes |= {name.split(".")[-1]: tensor.nbytes for name, tensor in tensors.items()}
sizes = dict(sorted(sizes.items(), key=lambda item: item[1]))
right.barh(list(sizes), [size / 1000 for size in sizes.values()], color="#0072B2")
right.set(xlabel="kilobytes", title=f"{path.name}: {len(original) / 1000:.0f} kB")
plt.show()

# %%
# Custom estimators, scikit-learn's own, and pipelines
# ----------------------------------------------------
# ``save`` stores estimators of sklebm and rejects all others. For a pipeline use `skops
# <https://skops.readthedocs.io>`__, which lists the types that a file asks you to trust;
# :doc:`/persistence` describes what each method guarantees.
