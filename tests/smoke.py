"""What an installed sklebm must do: import, fit, score, save, and load in another process.

    cd /tmp && environment/bin/python -I /path/to/tests/smoke.py

``make release-check`` runs it in environments that hold nothing but a wheel and its dependencies.
"""

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import sklebm

# One that solves, one that compiles, one that takes gradient steps, one made of others.
MODELS = {
    "mixture": sklebm.EnergyGaussianMixture(2, random_state=0),
    "coder": sklebm.SparseCoder(4, random_state=0),
    "autoencoder": sklebm.Autoencoder(2, max_epochs=2, random_state=0),
    "detector": sklebm.EnergyOutlierDetector(random_state=0),
}


def rows() -> np.ndarray:
    """Two clusters."""
    normal = np.random.default_rng(0).standard_normal((120, 5))
    normal[::2] += 4.0
    return normal


def check_installation() -> None:
    """The package is that of this environment, whole, and of the version that it says."""
    version = importlib.metadata.version("sklebm")
    if version != sklebm.__version__:
        raise SystemExit(f"the wheel is of version {version}, the package of {sklebm.__version__}")
    home = Path(sklebm.__file__).parent
    if sys.flags.isolated and not home.is_relative_to(sys.prefix):
        raise SystemExit(f"sklebm comes from {home}, not from the environment {sys.prefix}")
    if not (home / "py.typed").is_file():
        raise SystemExit(f"py.typed is missing in {home}: type checkers ignore the annotations")
    for name in sklebm.__all__:  # without the extras, too
        getattr(sklebm, name)


def save_and_load(folder: Path) -> None:
    """Fit, score and save each model; another process loads and scores it."""
    for name, model in MODELS.items():
        sklebm.save(model.fit(rows()), folder / f"{name}.safetensors")
        np.save(folder / f"{name}.npy", model.score_samples(rows()))
    options = ["-I"] if sys.flags.isolated else []
    subprocess.run([sys.executable, *options, __file__, str(folder)], cwd=folder, check=True)


def load_and_compare(folder: Path) -> None:
    """Score with what another process saved."""
    for name in MODELS:
        scores = sklebm.load(folder / f"{name}.safetensors").score_samples(rows())
        np.testing.assert_array_equal(scores, np.load(folder / f"{name}.npy"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        load_and_compare(Path(sys.argv[1]))
    else:
        check_installation()
        with tempfile.TemporaryDirectory() as temporary:
            save_and_load(Path(temporary))
        print(f"sklebm {sklebm.__version__} works in {sys.prefix}")
