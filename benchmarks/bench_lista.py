"""Layers of LISTA against steps of solvers, on patches of natural photographs.

10 x 10 patches, 100 and 400 atoms; squared error of the codes, relative to their squared
length, beside ISTA, FISTA (with restarts) and coordinate descent. Needs SKLEBM_DATA.
"""

from __future__ import annotations

import argparse

import torch
from _common import save_results, set_threads
from _patches import plain_patches

from sklebm import LISTAEncoder, SparseCoder
from sklebm.energies import L1
from sklebm.inference import proximal
from sklebm.inference.sparse_problem import make_problem

ALPHA = 0.15
DEPTHS = (1, 3, 7)
N_STEPS = 100
# Each layer of 400 atoms has 160,000 weights of its own: they need more rows, and several layers
# learn faster from the loss of all.
N_ROWS = {100: 40_000, 400: 300_000}


def settings(n_atoms, n_layers):
    """Those of a network."""
    if n_atoms == 100:
        return {"max_epochs": 30}
    if n_layers == 1:
        return {"shared_weights": False, "max_epochs": 8}
    return {"shared_weights": False, "max_epochs": 4, "supervised_layers": "all"}


def solver_errors(x, atoms, optimal):
    """Relative code error of each solver after 1, 2, ..., 100 steps from zero."""
    problem = make_problem(torch.from_numpy(x), torch.from_numpy(atoms), L1(), ALPHA)
    target = torch.from_numpy(optimal)
    zero = proximal.start_at_zero(problem)
    starts = {
        "ISTA": (zero, proximal.ista_step),
        "FISTA": (proximal.start_fista(problem, zero), proximal.fista_step),
        "CoD": (zero, proximal.coordinate_step),
    }
    errors = {}
    for name, (state, step) in starts.items():
        errors[name] = []
        for _ in range(N_STEPS):
            state = step(problem, state)
            distance = (state[0] - target).square().sum() / target.square().sum()
            errors[name].append(float(distance))
    return errors


def steps_needed(errors, level):
    """The first number of steps with an error of at most ``level``."""
    return next((str(n) for n, error in enumerate(errors, 1) if error <= level), f"> {N_STEPS}")


def table(n_atoms, n_rows):
    """Rows of the table for one dictionary."""
    x = plain_patches(n_rows + 5_000, 10)
    train, test = x[:n_rows], x[n_rows:]
    coder = SparseCoder(n_atoms, alpha=ALPHA, max_iter=3, unit_norm=True, random_state=0)
    coder.fit(train[:40_000])
    atoms, optimal, targets = coder.components_, coder.transform(test), coder.transform(train)
    print("non-zeros", (optimal != 0).sum(axis=1).mean(), flush=True)
    errors = solver_errors(test, atoms, optimal)
    for variant in ("lista", "lcod"):
        for n_layers in DEPTHS:
            encoder = LISTAEncoder(
                dictionary=atoms,
                alpha=ALPHA,
                n_layers=n_layers,
                variant=variant,
                random_state=0,
                **settings(n_atoms, n_layers),
            ).fit(train, codes=targets)
            codes = encoder.transform(test)
            error = float(((codes - optimal) ** 2).sum() / (optimal**2).sum())
            row = [variant, n_layers, f"{error:.4f}"]
            row += [f"{errors[name][n_layers]:.4f}" for name in ("ISTA", "FISTA", "CoD")]
            row += [steps_needed(errors[name], error) for name in ("ISTA", "FISTA", "CoD")]
            print(*row, sep="\t", flush=True)
            yield row


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atoms", type=int, nargs="+", choices=[*N_ROWS], default=[*N_ROWS])
    arguments = parser.parse_args()
    set_threads(1)
    for n_atoms in arguments.atoms:
        chosen = "; ".join(
            f"T = {n_layers}: "
            + ", ".join(f"{k} = {v}" for k, v in settings(n_atoms, n_layers).items())
            for n_layers in DEPTHS
        )
        save_results(
            f"lista_{n_atoms}",
            f"LISTA on natural patches, {n_atoms} atoms",
            [
                "variant",
                "T",
                "code error",
                *(f"{name}, T + 1 steps" for name in ("ISTA", "FISTA", "CoD")),
                *(f"{name} steps as good" for name in ("ISTA", "FISTA", "CoD")),
            ],
            list(table(n_atoms, N_ROWS[n_atoms])),
            notes=f"{N_ROWS[n_atoms]:,} patches of 10 x 10 pixels, without their mean and of "
            f"length one, to train on, 5,000 others to test; alpha = {ALPHA}; {chosen}. Atoms "
            "learnt from the first 40,000. "
            "Errors are squared distances from the optimal codes relative to their squared length. "
            "FISTA restarts its momentum, which makes it faster than the plain one; a step of CoD "
            "costs 1 / k of the others.",
        )


if __name__ == "__main__":
    main()
