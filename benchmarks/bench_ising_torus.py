"""log Z of the Ising model on a 16 x 16 torus: estimates beside Kaufman's exact formula.

Spins of +-1 with coupling K between neighbours, in the disordered phase, at the critical point and
in the ordered phase. No training: the parameters are given. Each row has the estimate, its
interval, and the truth, B. Kaufman, "Crystal statistics II", Physical Review 76, 1949.

    python benchmarks/bench_ising_torus.py [--quick]
"""

from __future__ import annotations

import argparse

import numpy as np
from _common import save_results, set_threads
from scipy.special import logsumexp

from sklebm import BoltzmannMachine

SIDE = 16
COUPLINGS = (0.2, 0.4406868, 0.6)
#: Chains and steps of each method.
EFFORT = {
    "ais": {"n_chains": 400, "n_temperatures": 2000},
    "bridge": {"n_chains": 100, "n_temperatures": 40, "n_steps": 200},
}
QUICK = {
    "ais": {"n_chains": 20, "n_temperatures": 50},
    "bridge": {"n_chains": 10, "n_temperatures": 10, "n_steps": 10},
}


def kaufman(side, K):
    """log Z of the spins on a square torus: Kaufman's four products, in logarithms."""
    numbers = np.arange(2 * side)
    cosh = np.cosh(2 * K) / np.tanh(2 * K) - np.cos(np.pi * numbers / side)
    gamma = np.arccosh(np.maximum(cosh, 1.0))
    gamma[0] = 2 * K + np.log(np.tanh(K))  # negative in the disordered phase
    half = 0.5 * side * gamma
    terms, signs = [], []
    for part in (half[1::2], half[::2]):
        for sign in (1.0, -1.0):  # 2 cosh and 2 sinh
            terms.append((np.abs(part) + np.log1p(sign * np.exp(-2 * np.abs(part)))).sum())
            signs.append(1.0 if sign > 0 else np.prod(np.sign(part)))
    total = logsumexp(terms, b=signs)
    return total - np.log(2) + 0.5 * side**2 * np.log(2 * np.sinh(2 * K))


def torus(side, K):
    """The machine of bits: W_ij = 4 K between neighbours, b_i = -8 K."""
    row, column = np.divmod(np.arange(side**2), side)
    W = np.zeros((side**2, side**2))
    for i, (r, c) in enumerate(zip(row, column, strict=True)):
        for j in (r * side + (c + 1) % side, (r + 1) % side * side + c):
            W[i, j] += 4 * K
            W[j, i] += 4 * K
    return BoltzmannMachine.from_parameters(
        couplings=W, intercept_visible=np.full(side**2, -8.0 * K)
    )


def main() -> None:
    """Estimate by both methods at every coupling."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few chains, nothing saved")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    rows = []
    for K in COUPLINGS:
        truth, shift = kaufman(SIDE, K), 2 * SIDE**2 * K
        for method, effort in (QUICK if options.quick else EFFORT).items():
            model = torus(SIDE, K)
            model.estimate_log_partition(method, random_state=0, **effort)
            low, high = model.log_partition_interval_ + shift
            value = model.log_partition_ + shift
            inside = "yes" if low <= truth <= high else "no"
            rows.append(
                [K, method, *(round(float(x), 3) for x in (truth, value, value - truth, low, high)),
                 inside]
            )  # fmt: skip
            print(rows[-1], flush=True)
    if not options.quick:
        save_results(
            "ising_torus",
            title="log Z of a 16 x 16 Ising torus",
            columns=["K", "method", "Kaufman", "estimate", "error", "low", "high", "inside"],
            rows=rows,
            notes="; ".join(f"{name}: {effort}" for name, effort in EFFORT.items()),
        )  # fmt: skip


if __name__ == "__main__":
    main()
