r"""Two models fitted by several processes together, each with a part of the rows.

Run it by ``torchrun --standalone --nproc-per-node=2 fit_with_torchrun.py``, or by ``python`` alone.
"""

import os

import numpy as np
from sklearn.datasets import load_digits

from sklebm import BernoulliRBM, EnergyKMeans, save


def main() -> None:
    """Fit on the part of this process; the first one writes and prints."""
    rank, n_ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))

    # Every process reads a part of its own: a slice of a memory map, or files of its own.
    X = (load_digits().data / 16).astype(np.float32)
    part = np.array_split(X, n_ranks)[rank]

    kmeans = EnergyKMeans(10, random_state=0, strategy="ddp").fit(part)
    rbm = BernoulliRBM(
        32, learning_rate=0.1, batch_size=100, max_epochs=5, random_state=0, strategy="ddp"
    ).fit(part)

    # All processes hold the same models now.
    save(rbm, "rbm.safetensors")  # the first one writes
    if rank == 0:
        print(f"k-means inertia {kmeans.inertia_:.3f}")
        print(f"RBM log likelihood {rbm.score(X):.1f} nats a row")


if __name__ == "__main__":
    main()
