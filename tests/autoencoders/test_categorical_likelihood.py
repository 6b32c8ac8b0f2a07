"""VAE with categorical rows: sums over all rows, missing features, and what is learnt."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.preprocessing import OneHotEncoder
from torch.distributions import OneHotCategorical

from sklebm import VAE, load, save
from sklebm.energies.likelihoods import BernoulliLikelihood, CategoricalLikelihood

SIZES = [3, 2, 4]
# Two classes of rows; within a class the three features are independent.
CLASSES = np.array([[0.8, 0.1, 0.1, 0.9, 0.1, 0.7, 0.1, 0.1, 0.1],
                    [0.1, 0.2, 0.7, 0.2, 0.8, 0.05, 0.05, 0.1, 0.8]])  # fmt: skip


def one_hot(labels):
    return np.hstack([np.eye(size)[labels[:, g]] for g, size in enumerate(SIZES)])


def draw(n_rows, seed):
    generator = np.random.default_rng(seed)
    probabilities = np.split(CLASSES[generator.integers(2, size=n_rows)], [3, 5], axis=1)
    return one_hot(
        np.stack([[generator.choice(len(q), p=q / q.sum()) for q in p] for p in probabilities], 1)
    )


def log_truth(X):
    normalised = np.hstack([b / b.sum(1, keepdims=True) for b in np.split(CLASSES, [3, 5], axis=1)])
    return np.log(0.5 * np.exp(X @ np.log(normalised).T).sum(axis=1))


ALL = one_hot(np.array(list(itertools.product(*map(range, SIZES)))))
SETTINGS = {
    "n_components": 2,
    "hidden_sizes": (16,),
    "likelihood": "categorical",
    "n_categories": SIZES,
    "learning_rate": 0.005,
    "max_epochs": 60,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def binary():
    """Latents are bits, so that log p(x) is exact."""
    return VAE(**SETTINGS, posterior="bernoulli").fit(draw(2000, 0))


@pytest.mark.parametrize("sizes", [SIZES, [3, 3, 3]])
def test_densities_and_draws_are_those_of_torch(sizes):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 9, generator=generator, dtype=torch.float64)
    likelihood = CategoricalLikelihood(sizes)
    x = likelihood.draw(logits, generator)
    blocks = zip(x.split(sizes, 1), logits.split(sizes, 1), strict=True)
    expected = sum(OneHotCategorical(logits=b).log_prob(a) for a, b in blocks)
    torch.testing.assert_close(likelihood.log_density(x, logits), expected)
    table = likelihood.log_density_table(x, logits)
    torch.testing.assert_close(table.diagonal(), expected)
    many = likelihood.draw(logits[:1].expand(20_000, -1), generator)
    torch.testing.assert_close(many.mean(0), likelihood.mean(logits[0]), atol=0.015, rtol=0)


def test_two_categories_are_a_bit():
    generator = torch.Generator().manual_seed(0)
    odds = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    bits = (torch.rand(odds.shape, generator=generator) < 0.5).double()
    pairs = torch.stack([bits, 1 - bits], dim=2).flatten(1)
    logits = torch.stack([odds, torch.zeros_like(odds)], dim=2).flatten(1)
    torch.testing.assert_close(
        CategoricalLikelihood([2, 2, 2]).log_density(pairs, logits),
        BernoulliLikelihood().log_density(bits, odds),
    )


def test_probabilities_of_all_rows_add_up_to_one(binary):
    assert np.exp(binary.score_samples(ALL)).sum() == pytest.approx(1.0, abs=1e-9)


def test_a_missing_feature_is_summed_over(binary):
    missing = ALL.copy()
    missing[:, 3:5] = 0.0
    known = [tuple(row) for row in np.delete(ALL, [3, 4], axis=1)]
    density = np.exp(binary.score_samples(ALL))
    expected = [sum(p for p, other in zip(density, known, strict=True) if other == k)
                for k in known]  # fmt: skip
    np.testing.assert_allclose(np.exp(binary.score_samples(missing)), expected, rtol=1e-9)


def test_the_density_comes_close_to_the_truth(binary):
    held_out = draw(4000, 1)
    truth = log_truth(held_out).mean()
    shares = draw(2000, 0).mean(axis=0)
    independent = (held_out @ np.log(shares)).mean()
    for model in (binary, VAE(**SETTINGS, objective="iwae").fit(draw(2000, 0))):
        score = model.score(held_out)
        assert truth - score < 0.1 * (truth - independent)
        assert score <= truth + 0.01


def test_samples_are_one_hot_and_follow_the_model(binary):
    drawn = binary.sample(4000, random_state=0)
    for block in np.split(drawn, [3, 5], axis=1):
        np.testing.assert_array_equal(block.sum(axis=1), 1.0)
    density = np.exp(binary.score_samples(ALL))
    np.testing.assert_allclose(drawn.mean(axis=0), density @ ALL, atol=0.03)
    decoded = binary.inverse_transform(np.array([[0.0, 1.0]]))
    np.testing.assert_allclose([b.sum() for b in np.split(decoded[0], [3, 5])], 1.0, rtol=1e-6)


def test_rows_of_a_one_hot_encoder(tmp_path):
    labels = np.random.default_rng(0).choice(["a", "b", "c"], size=(60, 4))
    encoder = OneHotEncoder(sparse_output=False).fit(labels)
    X = encoder.transform(labels)
    settings = {**SETTINGS, "n_categories": [len(c) for c in encoder.categories_], "max_epochs": 2}
    model, twin = VAE(**settings).fit(X), VAE(**{**settings, "n_categories": 3}).fit(X)
    np.testing.assert_array_equal(model.score_samples(X), twin.score_samples(X))
    save(model, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(
        load(tmp_path / "model.safetensors").score_samples(X), model.score_samples(X)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_categories": None}, "needs n_categories"),
        ({"n_categories": 4}, "does not fit X with 9 features"),
        ({"n_categories": [3, 2]}, "does not fit X with 9 features"),
        ({"n_categories": [3, 2.5, 3.5]}, "does not fit X with 9 features"),
        ({"likelihood": "gaussian"}, "n_categories counts one-hot columns"),
        ({"noise_scale": 0.5}, 'not apply to likelihood="categorical"'),
    ],
)
def test_wrong_parameters(changes, message):
    with pytest.raises(ValueError, match=message):
        VAE(**{**SETTINGS, **changes}).fit(ALL)


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0])
def test_rows_that_are_not_one_hot(value, binary):
    X = ALL.copy()
    X[5, 3:5] = value, 0.0
    for method in (VAE(**SETTINGS).fit, binary.score_samples):
        with pytest.raises(ValueError, match=r"columns 3 to 4 of X .* in row 5"):
            method(X)
