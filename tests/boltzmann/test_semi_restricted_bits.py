"""SemiRestrictedBM of bits: sums over all states, and a BoltzmannMachine without hidden pairs."""

import numpy as np
import pytest
from scipy.special import logsumexp

from sklebm import BernoulliRBM, BoltzmannMachine, SemiRestrictedBM
from sklebm.inference.gibbs import BlockGibbs
from sklebm.objectives import ContrastiveDivergence, PseudoLikelihood
from tests.machines import all_states

BITS = {"visible": "bernoulli", "random_state": 0}


def parameters(d=5, k=3, seed=0):
    rng = np.random.default_rng(seed)
    pairs = np.triu(rng.normal(size=(d, d)), 1)
    return {
        "components": rng.normal(size=(k, d)),
        "intercept_visible": rng.normal(size=d),
        "intercept_hidden": rng.normal(size=k),
        "couplings": pairs + pairs.T,
    }


def given(**changes):
    return SemiRestrictedBM.from_parameters(visible="bernoulli", **{**parameters(), **changes})


def joint(p):
    """-E of every row with every hidden state, term by term."""
    x, h = all_states(len(p["intercept_visible"])), all_states(len(p["intercept_hidden"]))
    of_rows = x @ p["intercept_visible"] + 0.5 * np.einsum("ni,ij,nj->n", x, p["couplings"], x)
    return of_rows[:, None] + h @ p["intercept_hidden"] + x @ p["components"].T @ h.T


def bits(n_rows, seed):
    """Two hidden causes of three features each, and one feature that mostly copies another."""
    rng = np.random.default_rng(seed)
    causes = np.kron(rng.integers(2, size=(n_rows, 2)), np.ones(3))
    x = (rng.random((n_rows, 6)) < 0.1 + 0.6 * causes).astype(float)
    copied = rng.random(n_rows) < 0.9
    x[copied, 5] = x[copied, 0]
    return x


def test_densities_and_means_are_those_of_enumeration():
    p, model = parameters(), given().estimate_log_partition("exact")
    weights, x = joint(p), all_states(5)
    log_z = logsumexp(weights)
    assert model.log_partition_ == pytest.approx(log_z, rel=1e-12)
    np.testing.assert_allclose(model.score_samples(x), logsumexp(weights, axis=1) - log_z)
    on = np.exp(weights - logsumexp(weights, axis=1, keepdims=True)) @ all_states(3)
    np.testing.assert_allclose(model.transform(x), on, rtol=1e-12)
    h = all_states(3)
    np.testing.assert_allclose(model.energy(np.tile(x[19], (8, 1)), h), -weights[19], rtol=1e-12)
    model.estimate_log_partition("ais", n_temperatures=300, random_state=0)
    low, high = model.log_partition_interval_
    assert low <= log_z <= high
    assert high - low < 0.5


def test_clamped_chains_draw_from_the_conditional_density():
    p, n_chains = parameters(), 10_000
    known = [1.0, np.nan, 0.0, np.nan, np.nan]
    drawn = given().sample(n_chains, n_steps=20, clamped=known, random_state=0)
    assert (drawn[:, [0, 2]] == [1.0, 0.0]).all()
    x = all_states(5)
    log_p = np.where((x[:, 0] == 1) & (x[:, 2] == 0), logsumexp(joint(p), axis=1), -np.inf)
    expected = np.exp(log_p - logsumexp(log_p))
    found = np.array([(drawn == row).all(axis=1).mean() for row in x])
    # Five standard errors of each share.
    assert (np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / n_chains)).all()


@pytest.mark.parametrize("objective", ["pseudo_likelihood", "pcd"])
@pytest.mark.parametrize("structure", ["full", "neighbours"])
def test_it_is_a_boltzmann_machine_without_hidden_pairs(objective, structure):
    """To the last bit, from the first step on, and in its draws."""
    X = bits(200, 0)
    settings = {"objective": objective, "batch_size": 50, "max_epochs": 3, "random_state": 0}
    image = {"image_shape": (2, 3)} if structure == "neighbours" else {}
    model = SemiRestrictedBM(2, visible="bernoulli", structure=structure, **image, **settings)
    model.fit(X)
    place = np.array([(i, j) for i in range(2) for j in range(3)])
    near = np.abs(place[:, None] - place).max(axis=2) <= (1 if image else 2)
    near &= ~np.eye(6, dtype=bool)
    other = BoltzmannMachine(2, structure=near, learning_rate=0.2, **settings).fit(X)
    np.testing.assert_array_equal(model.score_samples(X), other.score_samples(X))
    np.testing.assert_array_equal(model.transform(X), other.transform(X))
    np.testing.assert_array_equal(model.couplings_, other.couplings_[:6, :6])
    np.testing.assert_array_equal(model.components_, other.couplings_[6:, :6])
    assert (model.couplings_ != 0).tolist() == near.tolist()
    draws = [m.sample(5, n_steps=3, random_state=0) for m in (model, other)]
    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize(
    "objective",
    [
        "auto",
        "ratio_matching",
        "minimum_probability_flow",
        "noise_contrastive",
        "cd",
        "pcd",
        "maximum_likelihood",
    ],
)
def test_every_objective_beats_its_start(objective):
    X, test = bits(400, 0), bits(1000, 1)
    model = SemiRestrictedBM(2, objective=objective, **BITS).fit(X)
    start = SemiRestrictedBM(2, objective=objective, learning_rate=1e-12, max_epochs=1, **BITS)
    assert model.score(test) > start.fit(X).score(test) + 0.3
    if objective == "auto":
        # The copy is a coupling, which takes a hidden unit of a restricted machine.
        plain = BernoulliRBM(2, max_epochs=40, objective="pseudo_likelihood", random_state=0)
        assert model.score(test) > plain.fit(X).score(test) + 0.02


def test_without_couplings_it_is_a_restricted_machine():
    p = parameters()
    model = given(couplings=np.zeros((5, 5))).estimate_log_partition("exact")
    del p["couplings"]
    plain = BernoulliRBM.from_parameters(**p).estimate_log_partition("exact")
    x = all_states(5)
    np.testing.assert_allclose(model.score_samples(x), plain.score_samples(x), rtol=1e-12)
    fitted = SemiRestrictedBM(2, structure="diagonal", max_epochs=2, **BITS).fit(bits(50, 0))
    assert not fitted.couplings_.any()


def test_one_estimator_learns_either_kind_of_rows_but_never_mixes_them():
    X = bits(60, 0)
    model = SemiRestrictedBM(2, objective="pcd", max_epochs=1, random_state=0).fit(X)
    assert model.couplings_ is None
    assert hasattr(model, "inverse_transform")
    model.set_params(visible="bernoulli")
    with pytest.raises(ValueError, match="set it back"):
        model.partial_fit(X)
    assert model.precision_ is not None  # as it was
    model.fit(X)
    assert model.precision_ is None
    assert model.offset_ is None
    assert not hasattr(model, "inverse_transform")
    fresh = SemiRestrictedBM(2, objective="pcd", max_epochs=1, **BITS).fit(X)
    np.testing.assert_array_equal(model.score_samples(X), fresh.score_samples(X))
    with pytest.raises(ValueError, match="set it back"):
        model.set_params(visible="gaussian", warm_start=True).fit(X)


def test_going_on_learns_couplings_that_are_zero():
    X = bits(60, 0)
    model = given(
        components=np.zeros((3, 6)), couplings=np.zeros((6, 6)), intercept_visible=[0] * 6
    )
    assert (model.partial_fit(X).couplings_ != 0).sum() == 30


def test_what_does_not_fit_is_refused():
    X = bits(30, 0)
    one_sided = np.zeros((5, 5))
    one_sided[0, 1] = 1.0
    with pytest.raises(ValueError, match="symmetric"):
        given(couplings=one_sided)
    with pytest.raises(ValueError, match="diagonal"):
        given(couplings=np.eye(5))
    with pytest.raises(ValueError, match="either precision_ or"):
        given(precision=np.eye(5))
    for objective in ("score_matching", ContrastiveDivergence(sampler=BlockGibbs())):
        with pytest.raises(ValueError, match='"bernoulli": use one of "pseudo_likelihood"'):
            SemiRestrictedBM(2, objective=objective, **BITS).fit(X)
    for objective in ("pseudo_likelihood", PseudoLikelihood()):
        with pytest.raises(ValueError, match='"gaussian": use one of "pcd"'):
            SemiRestrictedBM(2, objective=objective).fit(X)
    with pytest.raises(ValueError, match="not apply"):
        SemiRestrictedBM(2, objective="pseudo_likelihood", n_gibbs_steps=2, **BITS).fit(X)
    with pytest.raises(ValueError, match="of all 32"):
        SemiRestrictedBM(2, objective="maximum_likelihood", **BITS).fit(np.ones((4, 30)))
    with pytest.warns(UserWarning, match='or visible="gaussian"'):
        SemiRestrictedBM(2, max_epochs=1, **BITS).fit(3 * X)
