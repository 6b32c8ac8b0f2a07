"""Settings and sums of the coders: tolerances, replaced atoms, a support that grows."""

import numpy as np
import pytest

from sklebm import LISTAEncoder, SparseCoder
from sklebm.energies import GroupL2

ROWS = np.random.default_rng(0).standard_normal((60, 6))
ATOMS = np.random.default_rng(1).standard_normal((8, 6))
ATOMS /= np.linalg.norm(ATOMS, axis=1, keepdims=True)
GROUPS = GroupL2(group_size=2)


def optimality_residual(model, X):
    """Largest violation of the conditions of the group lasso, in units of alpha.

    The slope of a group is alpha times its direction where it is on, at most alpha long where not.
    """
    z, atoms = model.transform(X), model.components_.astype(np.float64)
    slope = ((X - model.intercept_ - z @ atoms) @ atoms.T).reshape(len(X), -1, 2)
    groups = z.reshape(slope.shape)
    norms = np.linalg.norm(groups, axis=2, keepdims=True)
    on = np.abs(slope - model.alpha_ * groups / np.maximum(norms, 1e-300)).max(axis=2)
    off = np.maximum(np.linalg.norm(slope, axis=2) - model.alpha_, 0.0)
    return np.where(norms[..., 0] > 0, on, off).max() / model.alpha_


def test_codes_are_as_exact_as_code_tol_asks():
    residuals = [
        optimality_residual(
            SparseCoder(dictionary=ATOMS, alpha=0.2, penalty=GROUPS, code_tol=tol).fit(ROWS), ROWS
        )
        for tol in (1e-10, 0.3)
    ]
    # A relative gap of tol leaves slopes of the order of its root.
    assert residuals[0] < 1e-3
    assert residuals[1] > 0.01


def test_codes_in_learning_are_as_exact_as_code_tol_asks():
    """With loose codes the same rows teach other atoms; with tight ones it no longer matters."""
    atoms = [
        SparseCoder(
            8, alpha=0.2, penalty=GROUPS, max_iter=1, batch_size=60, random_state=0, code_tol=tol
        )
        .fit(ROWS)
        .components_
        for tol in (1e-12, 1e-10, 0.3)
    ]
    np.testing.assert_allclose(atoms[1], atoms[0], atol=1e-4)
    assert np.abs(atoms[2] - atoms[0]).max() > 1e-3


def test_what_was_summed_for_a_replaced_atom_is_forgotten():
    """An atom for rows a million times smaller than the others counts as dead and is replaced."""
    X = np.array([[1e6, 0.0, 0.0], [0.0, 1.0, 0.0], [10.0, 1.0, 0.0]])
    options = {"alpha": 0.1, "batch_size": 3, "random_state": 0, "dict_init": np.eye(3)[:2]}
    coder = SparseCoder(2, **options).partial_fit(X)
    replaced = np.abs(coder.components_[:, 1]) < 0.5
    np.testing.assert_allclose(coder.components_, [[1.0, 0.0, 0.0]] * 2, atol=1e-9)
    sums = {
        name.removeprefix("history."): value
        for name, value in coder.online_state_.items()
        if name.startswith("history.")
    }
    assert replaced.all()
    # The sums of the two codes before the replacement: 10^12, and 2 * 0.81, shared in one row.
    usage = np.diag(sums["code_products"])
    kept = int(usage.argmax())
    assert usage[kept] == pytest.approx(1e12, rel=1e-6)
    assert usage[1 - kept] == 0.0
    for name in ("code_products", "row_products", "code_sum"):
        assert not sums[name][1 - kept].any()
    assert not sums["code_products"][:, 1 - kept].any()
    # What does not belong to an atom stays.
    assert sums["weight"] == 3
    np.testing.assert_allclose(sums["row_sum"], X.sum(axis=0))


# ---------------------------------------------------------------- LISTA


def coupled_codes(model, X, shares):
    """z <- h(z + g W (x - z D)) layer by layer; the largest entries pass whole if they pass."""
    weights, atoms = model.weights_["weights"].astype(float), model.components_.astype(float)
    z = np.zeros((len(X), len(atoms)))
    for t, share in enumerate(shares):
        gain, threshold = model.weights_["steps"][t], np.abs(model.weights_["thresholds"][t])
        v = z + gain * ((X - z @ atoms) @ weights[t % len(weights)].T)
        shrunk = np.sign(v) * np.maximum(np.abs(v) - threshold, 0.0)
        order = np.argsort(-np.abs(v), axis=1, kind="stable")
        z = shrunk.copy()
        for row in range(len(X)):
            largest = order[row, : int(share * len(atoms))]
            passing = largest[shrunk[row, largest] != 0]
            z[row, passing] = v[row, passing]
    return z


@pytest.mark.parametrize("shared", [True, False])
def test_the_support_that_passes_whole_grows_with_the_layer(shared):
    """Layer t lets (t + 1) rate of the entries pass, up to the largest share."""
    rng = np.random.default_rng(2)
    atoms = rng.standard_normal((20, 10))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    X = (rng.standard_normal((40, 20)) * (rng.random((40, 20)) < 0.2)) @ atoms
    model = LISTAEncoder(
        dictionary=atoms,
        variant="coupled",
        n_layers=4,
        alpha=0.05,
        shared_weights=shared,
        selection_rate=0.05,
        max_selection=0.2,
        max_epochs=1,
        random_state=0,
    ).fit(X)
    grown = [0.05, 0.10 + 1e-9, 0.15 + 1e-9, 0.2, 0.2]
    codes = model.transform(X)
    # The network computes in single precision.
    np.testing.assert_allclose(codes, coupled_codes(model, X, grown), atol=2e-5)
    for shares in ([0.05] * 5, [0.05, 0.1 + 1e-9, 0.15 + 1e-9, 0.2, 0.25], [0.0] * 5):
        assert np.abs(codes - coupled_codes(model, X, shares)).max() > 1e-3
