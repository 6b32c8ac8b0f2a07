"""Dictionaries with encoders: joint inference, what is learnt, what the encoder predicts."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sklebm import PredictiveSparseDecomposition, SparseCoder
from sklebm.energies import (
    L1,
    ElasticNet,
    GroupL2,
    Lq,
    NonNegativeL1,
    PredictiveSparseCodingEnergy,
    TopK,
    Topographic,
)
from sklebm.inference.sparse import solve_codes, solve_near
from sklebm.inference.unfolded import Unfolding
from sklebm.objectives import Batch, PredictiveDecomposition
from tests.coding.test_sparse_coder import make_sparse_rows, recovered
from tests.registry import freeze, make, make_rows

UNTRAINED = {"learning_rate": 1e-12, "max_epochs": 1}
ALPHA = 0.2


def make_tensors(n_rows=30, n_components=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, atoms, near = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((n_rows, 8), (n_components, 8), (n_rows, n_components))
    )
    return x, atoms / atoms.norm(dim=1, keepdim=True), near


# ---------------------------------------------------------------- inference


@pytest.mark.parametrize("weight", [0.3, 5.0])
@pytest.mark.parametrize("penalty", [L1(), ElasticNet(), GroupL2(3), Topographic((4, 3), 2)])
def test_joint_codes_beat_every_neighbour(penalty, weight):
    x, atoms, near = make_tensors()

    def energy(z):
        error = (x - z @ atoms).square().sum(1) + weight * (z - near).square().sum(1)
        return 0.5 * error + ALPHA * penalty.value(z)

    z = solve_near(x, atoms, near, weight, penalty, ALPHA).codes
    least = energy(z)
    generator = torch.Generator().manual_seed(1)
    for scale in (1e-4, 1e-2, 1.0):
        for _ in range(20):
            other = z + scale * torch.randn(z.shape, generator=generator, dtype=torch.float64)
            assert (energy(other) >= least - 1e-9).all()
    for name in ("zero", "near"):
        assert (energy(torch.zeros_like(z) if name == "zero" else near) >= least).all()


def test_a_weak_tie_leaves_the_optimal_code_and_a_strong_one_the_prediction():
    x, atoms, near = make_tensors(n_components=6)
    weak = solve_near(x, atoms, near, 1e-9, L1(), ALPHA).codes
    torch.testing.assert_close(weak, solve_codes(x, atoms, L1(), ALPHA).codes, rtol=1e-5, atol=1e-5)
    strong = solve_near(x, atoms, near, 1e9, L1(), ALPHA).codes
    torch.testing.assert_close(strong, near, rtol=1e-6, atol=1e-6)


def test_the_gradient_is_that_of_the_least_energy():
    """Codes are held (Danskin): compare with differences of the minimum itself."""
    x, atoms, _ = make_tensors()
    encoder = Unfolding("lista", 1).start(atoms, ALPHA)
    energy = PredictiveSparseCodingEnergy(encoder, 0.7 * atoms, L1(), ALPHA, weight=0.5)
    objective = PredictiveDecomposition(tol=1e-14)

    def loss():
        return objective.loss(energy, Batch(x), {}, torch.Generator())[0]

    loss().backward()
    generator = np.random.default_rng(0)
    for name, parameter in energy.named_parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        assert gradient.any(), name
        for place in generator.choice(len(flat), 4):
            values = []
            for change in (1e-6, -2e-6):
                flat[place] += change
                values.append(float(loss().detach()))
            flat[place] += 1e-6
            slope = (values[0] - values[1]) / 2e-6
            assert slope == pytest.approx(float(gradient[place]), rel=1e-3, abs=1e-7), name


# ---------------------------------------------------------------- learning


def test_the_atoms_that_made_the_rows_are_found():
    X, atoms = make_sparse_rows()
    options = {"alpha": 0.1, "prediction_weight": 0.3, "random_state": 0}
    model = PredictiveSparseDecomposition(
        15, max_epochs=30, learning_rate=0.01, batch_size=50, **options
    ).fit(X)
    start = PredictiveSparseDecomposition(15, **options, **UNTRAINED).fit(X)
    assert recovered(model, atoms) >= 0.8
    assert recovered(model, atoms) > recovered(start, atoms)


def explained(model, X, penalty="l1"):
    """Share of the variance of optimal codes, found without the encoder, that it predicts."""
    coder = SparseCoder(dictionary=model.components_, alpha=model.alpha_, penalty=penalty)
    optimal = coder.fit(X).transform(X)
    error = ((model.transform(X) - optimal) ** 2).sum()
    return 1 - error / ((optimal - optimal.mean(axis=0)) ** 2).sum()


def test_the_encoder_predicts_optimal_codes_of_new_rows():
    X, X_test = (make_sparse_rows(seed=0)[0][part] for part in (slice(1500), slice(1500, None)))
    settings = {"alpha": 0.1, "learning_rate": 0.01, "batch_size": 50, "random_state": 0}
    model = PredictiveSparseDecomposition(15, n_layers=3, max_epochs=30, **settings).fit(X)
    shallow = PredictiveSparseDecomposition(15, encoder="shrink", max_epochs=30, **settings).fit(X)
    assert explained(model, X_test) >= 0.9
    assert explained(model, X_test) > explained(shallow, X_test)


@pytest.mark.table(4)
@pytest.mark.parametrize(
    "options",
    [
        {"encoder": "linear_tanh"},
        {"encoder": "shrink"},
        {"penalty": GroupL2(4)},
        {"penalty": Lq(0.7)},
    ],
    ids=str,
)
def test_every_kind_learns(options):
    X = load_digits().data / 16
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    settings = {"alpha": 0.05, "random_state": 0, **options}
    model = PredictiveSparseDecomposition(32, max_epochs=5, **settings).fit(X[:1000])
    start = PredictiveSparseDecomposition(32, **settings, **UNTRAINED).fit(X[:1000])
    assert model.score(X[1000:]) > start.score(X[1000:])
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def smoothness(model, side):
    """Mean absolute product of an atom with its neighbours on the torus."""
    atoms = model.components_ / np.linalg.norm(model.components_, axis=1, keepdims=True)
    products = np.abs(atoms @ atoms.T)
    place = np.arange(side**2).reshape(side, side)
    near = [products[place, np.roll(place, 1, axis)].mean() for axis in (0, 1)]
    return np.mean(near) / (products.sum() - len(atoms)) * len(atoms) * (len(atoms) - 1)


def test_neighbours_on_the_torus_become_alike():
    X = load_digits().data / 16
    X -= X.mean(axis=0)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    settings = {"alpha": 0.06, "max_epochs": 8, "learning_rate": 0.01, "random_state": 0}
    ratios = [
        smoothness(PredictiveSparseDecomposition(36, penalty=penalty, **settings).fit(X), 6)
        for penalty in (Topographic((6, 6), 3), L1())
    ]
    assert ratios[0] > 1.3
    assert ratios[0] > ratios[1] + 0.2


def test_atoms_are_no_longer_than_one():
    model = make("PredictiveSparseDecomposition").fit(make_rows())
    assert np.linalg.norm(model.components_, axis=1).max() <= 1 + 1e-6


def test_energies_count_the_distance_to_the_prediction():
    X = make_rows()
    model = make("PredictiveSparseDecomposition", prediction_weight=3.0).fit(X)
    Z, weight = model.transform(X), 3.0
    np.testing.assert_allclose(model.energy(X, Z), model.free_energy(X), rtol=1e-6)
    other = Z + np.random.default_rng(0).normal(size=Z.shape)
    errors = ((X - model.inverse_transform(other)) ** 2).sum(axis=1)
    prices = model.alpha_ * np.abs(other).sum(axis=1)
    distances = weight * ((other - Z) ** 2).sum(axis=1)
    model.set_params(prediction_weight=50.0)  # the fitted weight counts
    np.testing.assert_allclose(
        model.energy(X, other), 0.5 * errors + prices + 0.5 * distances, rtol=1e-5
    )


def test_validation_scores_are_minus_the_least_energy():
    X = make_rows()
    seen = []

    class Watch(PredictiveSparseDecomposition):
        def _validation_score(self, energy, batch, seed):
            seen.append(batch.x.numpy())
            return super()._validation_score(energy, batch, seed)

    Watch.__name__ = "PredictiveSparseDecomposition"
    model = Watch(4, max_epochs=2, validation_fraction=0.25, random_state=0).fit(X)
    x, atoms = (torch.from_numpy(a).double() for a in (seen[-1], model.components_))
    near = torch.from_numpy(model.transform(seen[-1])).double()
    z = solve_near(x, atoms, near, 1.0, L1(), 0.1).codes
    error = (x - z @ atoms).square().sum(1) + (z - near).square().sum(1)
    energy = (0.5 * error + 0.1 * z.abs().sum(1)).mean()
    assert model.validation_scores_[-1] == pytest.approx(-float(energy), rel=1e-3)


@pytest.mark.parametrize("penalty", [TopK(), NonNegativeL1()])
def test_penalties_out_of_reach_are_refused(penalty):
    with pytest.raises(ValueError, match="rules out codes that an encoder predicts"):
        make("PredictiveSparseDecomposition", penalty=penalty).fit(make_rows())


@pytest.mark.parametrize("change", [{"encoder": "shrink"}, {"alpha": 0.3}, {"penalty": "group"}])
def test_training_goes_on_with_the_same_model_only(change):
    model = make("PredictiveSparseDecomposition", warm_start=True).fit(make_rows())
    model.set_params(**change)
    before = freeze(vars(model))
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=f"{next(iter(change))}=.* differs from the fitted"):
            getattr(model, method)(make_rows())
        assert freeze(vars(model)) == before
