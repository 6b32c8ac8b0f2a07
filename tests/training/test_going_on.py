"""Training that goes on, holds rows out, or meets networks of others: what stays as it was."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sklebm import VAE, Autoencoder, ContractiveAutoencoder, DeepEnergyModel, DenoisingAutoencoder
from sklebm.callbacks import EnergyMonitor
from sklebm.energies.derivatives import expand, is_expandable
from sklebm.objectives import Batch
from sklebm.objectives.discrete_evidence import _antithetic
from sklebm.training.optimizers import keep_levels
from tests.registry import make_rows

BRIEF = {"max_epochs": 3, "random_state": 0}


# ---------------------------------------------------------------- far from zero


@pytest.mark.parametrize("kind", [Autoencoder, VAE])
def test_offsets_change_neither_diagnosis_nor_monitor(kind):
    X = np.random.default_rng(0).normal(size=(200, 6)) @ np.random.default_rng(1).normal(
        size=(6, 6)
    )
    found = []
    for shift in (0.0, 1e9):
        monitor = EnergyMonitor(X[150:] + shift)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a code that has collapsed
            model = kind(2, max_epochs=20, random_state=0).set_callbacks(monitor)
            model.fit(X[:150] + shift)
        scores = [row["score"] for row in monitor.get_logs().data]
        found.append((model.latent_variances_, scores))
    # Values of 1e9 are known to 1e-7.
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-3)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-3)


# ---------------------------------------------------------------- settings that changed


def test_another_corruption_is_refused_when_learning_goes_on():
    model = DenoisingAutoencoder(2, **BRIEF).fit(make_rows())
    with pytest.raises(ValueError, match=r"corruption='masking' writes 0 and 1"):
        model.set_params(corruption="masking").partial_fit(make_rows())
    masked = DenoisingAutoencoder(2, corruption="masking", **BRIEF).fit(make_rows())
    masked.set_params(corruption="salt_pepper").partial_fit(make_rows())


def test_another_fixed_noise_is_refused_when_learning_goes_on():
    X = make_rows()
    model = VAE(2, noise_scale=0.1, **BRIEF).fit(X).partial_fit(X)
    with pytest.raises(ValueError, match=r"noise_scale=0.5 differs from noise_scale=0.1 "):
        model.set_params(noise_scale=0.5).partial_fit(X)
    deep = (
        DeepEnergyModel(4, hidden_sizes=(4,), sigma=1.0, learn_sigma=False, **BRIEF)
        .fit(X)
        .partial_fit(X)
    )
    with pytest.raises(ValueError, match=r"sigma=3.0 differs from sigma=1 "):
        deep.set_params(sigma=3.0).partial_fit(X)


def test_a_fitted_categorical_model_checks_rows_by_what_it_learnt():
    rng = np.random.default_rng(0)
    X = np.hstack([np.eye(2)[rng.integers(2, size=60)], np.eye(3)[rng.integers(3, size=60)]])
    model = VAE(2, likelihood="categorical", n_categories=[2, 3], **BRIEF).fit(X)
    expected = model.score_samples(X)
    model.set_params(n_categories=5)
    np.testing.assert_array_equal(model.score_samples(X), expected)


def test_chunks_after_a_fit_do_not_warm_up_again():
    X = (make_rows() > 0.5).astype(float)
    settings = {"posterior": "bernoulli", "likelihood": "bernoulli", **BRIEF}
    model = VAE(4, **settings).fit(X).partial_fit(X)
    assert "beta_warmup=0" in model.training_state_["objective_kind"]
    chunks = VAE(4, **settings).partial_fit(X).partial_fit(X)
    assert "beta_warmup=500" in chunks.training_state_["objective_kind"]


# ---------------------------------------------------------------- rows that are held out


def test_automatic_lengths_count_the_rows_that_are_learnt_from():
    X = np.random.default_rng(0).normal(size=(12_800, 2))
    from sklebm._shell.rows import open_rows

    def epochs(**settings):
        model = Autoencoder(1, **settings)
        rows = open_rows(model, X, device=torch.device("cpu"), reset=True)
        return model._n_epochs(rows)

    assert epochs() == 30  # 100 batches of 128
    assert epochs(validation_fraction=0.5) == 60
    assert epochs(optimizer="gradient_descent") == 1000


def test_lower_layers_do_not_see_the_rows_that_are_held_out(monkeypatch):
    """Of the last layer as of the ones below."""
    held = []
    original = DeepEnergyModel._split

    def split(self, energy, start, *, whole):
        kept, out = original(self, energy, start, whole=whole)
        held.append(None if out is None else out.x.sort(dim=0).values)
        return kept, out

    monkeypatch.setattr(DeepEnergyModel, "_split", split)
    DeepEnergyModel(
        4,
        hidden_sizes=(6,),
        layer_training="greedy",
        validation_fraction=0.2,
        log_partition=None,
        **BRIEF,
    ).fit(make_rows())
    assert len(held) == 2
    torch.testing.assert_close(held[0], held[1])


# ---------------------------------------------------------------- networks of others


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def test_derivatives_in_closed_form_are_those_of_plain_layers_alone():
    assert is_expandable(nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 3)))
    assert not is_expandable(nn.Sequential(nn.Linear(3, 4), nn.Softplus(beta=5)))
    assert not is_expandable(Residual(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)))
    network = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh())
    x = torch.randn(5, 3)
    torch.testing.assert_close(expand(network, x).value, network(x))


def test_a_residual_encoder_is_contracted_as_it_is():
    """Not as the affine map that it holds."""
    from sklebm.objectives.penalties import is_single_layer

    assert not is_single_layer(Residual(nn.Linear(3, 3)))
    assert ContractiveAutoencoder(2, **BRIEF).fit(make_rows()).score(make_rows()) <= 0


class Normed(nn.Module):
    def __init__(self, n_features, n_components):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, n_components)
        )

    def forward(self, x):
        return self.layers(x)


def test_the_check_for_a_fall_leaves_running_statistics_alone():
    X = make_rows()
    model = DeepEnergyModel(4, network=Normed, log_partition=None, **BRIEF).fit(X)
    variance = model.weights_["network.layers.1.running_var"]
    assert variance.max() < 100.0  # rows 1,000 deviations away would make it 1e5


# ---------------------------------------------------------------- engine


def test_decay_of_weights_spares_single_numbers():
    weight, level = nn.Parameter(torch.ones(2)), nn.Parameter(torch.tensor(5.0))
    optimizer = torch.optim.AdamW([weight, level], lr=0.1, weight_decay=0.5)
    keep_levels(optimizer)
    (weight.sum() * 0 + level * 0).backward()
    optimizer.step()
    assert float(level) == 5.0
    assert bool((weight < 1.0).all())


def test_statistics_stay_with_their_parameters_when_decay_is_switched_on():
    """Single numbers move to a group of their own, which must not shift those after them."""
    X = make_rows()
    model = DeepEnergyModel(4, optimizer="adam", log_partition=None, warm_start=True, **BRIEF).fit(
        X
    )
    before = {k: np.shape(v) for k, v in model.training_state_.items() if "exp_avg" in k}
    model.set_params(net_params={"optimizer__weight_decay": 0.01}, max_epochs=1).fit(X)
    after = {k: np.shape(v) for k, v in model.training_state_.items() if "exp_avg" in k}
    assert after == before
    alone = torch.optim.AdamW([{"params": [nn.Parameter(torch.tensor(1.0))]}], weight_decay=0.1)
    keep_levels(alone)
    assert alone.param_groups[0]["weight_decay"] == 0.0


def test_groups_of_parameters_keep_their_own_rates_under_a_schedule():
    params = {"optimizer__param_groups": [("*encoder*", {"lr": 0.0})]}
    X = make_rows()
    start = Autoencoder(
        2, hidden_sizes=(4,), max_epochs=1, learning_rate=1e-12, random_state=0
    ).fit(X)
    names = [name for name in start.weights_ if name.startswith("encoder")]
    held = Autoencoder(2, hidden_sizes=(4,), net_params=params, **BRIEF).fit(X)
    for name in names:
        np.testing.assert_allclose(held.weights_[name], start.weights_[name], atol=1e-6)
    moved = Autoencoder(2, hidden_sizes=(4,), **BRIEF).fit(X)
    assert any(np.abs(moved.weights_[n] - start.weights_[n]).max() > 1e-3 for n in names)


def test_weighted_antithetic_bounds_average_over_rows_and_draws():
    class Energy:
        def log_likelihood(self, x, z):
            return z.sum(dim=-1)

    class Posterior:
        logits = torch.zeros(5, 3, requires_grad=True)

    noise = torch.rand(4, 5, 3, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0])
    value = _antithetic(
        Energy(), torch.zeros(5, 2), Posterior(), noise, Batch(torch.zeros(5, 2), weight=weight)
    )
    z = (noise < 0.5).float().sum(dim=-1)
    mirrored = (1.0 - noise < 0.5).float().sum(dim=-1)
    expected = (0.5 * (z + mirrored)).mean(dim=0) @ weight / weight.sum()
    assert float(value) == pytest.approx(float(expected))
