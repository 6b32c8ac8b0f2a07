"""Faults inside training: each is named, warned of or survived, and nothing is half-fitted."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import sklebm._shell.rows
import sklebm.deep._chains
from sklebm import BernoulliRBM, DeepEnergyModel, EnergyOutlierDetector
from sklebm.boltzmann._compiled_pass import CompiledPass
from sklebm.datasets import Rings
from sklebm.inference.hamiltonian import HMC
from sklebm.training.loop import EnergyTraining
from tests.registry import (
    NAMES,
    fitted_state,
    freeze,
    is_gradient_trained,
    make,
    make_brief,
    make_rows,
    row_methods,
)

GRADIENT_TRAINED = [name for name in NAMES if is_gradient_trained(make(name))]
gradient_trained = pytest.mark.parametrize("name", GRADIENT_TRAINED)


class AtBatch:
    """Stands in for both ways to take a step; does something to one of the batches."""

    def __init__(self, monkeypatch, number, change):
        self.number, self.change, self.n_batches = number, change, 0
        for method in ("forward", "descend"):
            original = getattr(EnergyTraining, method)

            def step(training, *args, original=original):
                loss = original(training, *args)
                self.n_batches += 1
                return self.change(training, loss) if self.n_batches == self.number else loss

            monkeypatch.setattr(EnergyTraining, method, step)
        # Compiled passes do not come by here.
        monkeypatch.setattr(CompiledPass, "suits", lambda *arguments: False)


# The default of a Gaussian machine goes on with chains where its line search diverges.
NAMED = {"GaussianRBM": {"objective": "pcd"}}


def batches_of_a_fit(name):
    with pytest.MonkeyPatch.context() as patch:
        counter = AtBatch(patch, None, None)
        make_brief(name, **NAMED.get(name, {})).fit(make_rows())
    return counter.n_batches


def loss_is_nan(training, loss):
    return loss * math.nan


def gradient_is_infinite(training, loss):
    """The loss stays finite and its gradient does not; parameters moved in place are spoilt."""
    parameter = next(p for p in training.parameters() if p.requires_grad)
    if not loss.requires_grad:
        parameter.data.fill_(math.inf)
        return loss
    return loss + (parameter.sum() - parameter.sum().detach()) * math.inf


def spoil_and_fit(model, fault, number, monkeypatch):
    """Fit and go on with a fault at one batch; the estimator must stay as it was."""
    before = freeze(vars(model))
    for method in ("fit", "partial_fit"):
        with monkeypatch.context() as patch:
            AtBatch(patch, 1 if method == "partial_fit" else number, fault)
            with pytest.raises(FloatingPointError, match="left unchanged"):
                getattr(model, method)(make_rows())
        assert freeze(vars(model)) == before


@gradient_trained
@pytest.mark.parametrize("was_fitted", [False, True])
@pytest.mark.parametrize("fault", [loss_is_nan, gradient_is_infinite])
@pytest.mark.parametrize("place", ["first batch", "last batch"])
def test_numbers_that_are_not_finite_are_caught(name, place, fault, was_fitted, monkeypatch):
    number = 1 if place == "first batch" else batches_of_a_fit(name)
    model = make_brief(name, **NAMED.get(name, {}))
    if was_fitted:
        model.fit(make_rows(seed=1))
    spoil_and_fit(model, fault, number, monkeypatch)


# ---------------------------------------------------------------- spoilt parameters


def spoil(value):
    """Every number of fitted state that is NaN, also in estimators inside."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return np.full_like(value, math.nan)
    if isinstance(value, dict):
        return {key: spoil(item) for key, item in value.items()}
    if hasattr(value, "get_params"):
        vars(value).update({key: spoil(item) for key, item in fitted_state(value).items()})
    return value


@pytest.mark.parametrize("name", NAMES)
def test_spoilt_parameters_are_named(name):
    """Every answer, also one that is an index and would look as good as any other."""
    X = make_rows()
    model = make_brief(name).fit(X)
    members = getattr(model, "named_estimators_", None)
    if members is None:
        spoil(model)
    else:
        spoil(members)
    for method in row_methods(model):
        with pytest.raises(FloatingPointError, match=r"the fitted attribute .* holds NaN"):
            getattr(model, method)(X)


# ---------------------------------------------------------------- surfaces without shape


class Unbounded(nn.Module):
    """Fields that grow faster than any Gaussian factor."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(n_components))

    def forward(self, x):
        return self.scale * x.square().sum(dim=1, keepdim=True).square()


@pytest.mark.parametrize("objective", ["cd", "pcd", "noise_contrastive", "score_matching"])
def test_an_energy_without_a_bottom_is_caught_within_ten_epochs(objective):
    epochs = []

    class Counter:
        def __deepcopy__(self, memo):
            return self

        def setup(self, estimator, context): ...

        def teardown(self, estimator, context): ...

        def on_fit_task_begin(self, estimator, context):
            epochs.append(context.task_name)

        def on_fit_task_end(self, estimator, context): ...

    model = DeepEnergyModel(4, network=Unbounded, objective=objective, max_epochs=50)
    with pytest.raises(FloatingPointError, match="DeepEnergyModel"):
        model.set_callbacks(Counter()).fit(Rings().sample(200, random_state=0))
    assert 1 <= epochs.count("epoch") <= 10
    assert not fitted_state(model)


def dead_network(n_features, n_components):
    """A rectifier that no row gets through."""
    layer = nn.Linear(n_features, n_components)
    nn.init.constant_(layer.bias, -1e6)
    return nn.Sequential(layer, nn.ReLU())


@pytest.mark.filterwarnings("ignore:.*callable:UserWarning")
def test_a_dead_network_warns_that_scores_are_constant():
    X = Rings().sample(200, random_state=0)
    with pytest.warns(UserWarning, match="scores are constant .* units are dead"):
        DeepEnergyModel(4, network=dead_network, max_epochs=1, random_state=0).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DeepEnergyModel(4, max_epochs=1, random_state=0).fit(X)


def test_a_detector_of_equal_scores_warns():
    with pytest.warns(UserWarning, match="cannot tell them apart"):
        EnergyOutlierDetector(make_brief("PCAWhitener")).fit(np.ones((30, 2)))


# ---------------------------------------------------------------- chains


@pytest.mark.parametrize("objective", ["pcd", "fast_pcd"])
def test_chains_that_all_sit_in_one_mode_are_warned_of(objective, monkeypatch):
    """Rows are two opposite patterns; all chains are put into one of them at the end."""
    rows = np.repeat([[1.0] * 8, [0.0] * 8], 50, axis=0)
    settings = {"batch_size": 10, "max_epochs": 60, "learning_rate": 0.5, "random_state": 0}
    model = BernoulliRBM(4, objective=objective, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(rows)
    code = model.transform(rows[:1]).round()

    def collapse(training, loss):
        one_mode = {"hidden": code, "visible": rows[:1]}
        training.objective_state = {
            name: torch.from_numpy(one_mode[name]).float().expand_as(chains)
            if name in one_mode
            else chains
            for name, chains in training.objective_state.items()
        }
        return loss

    model.set_params(warm_start=True, max_epochs=1, learning_rate=1e-9)
    AtBatch(monkeypatch, -(-len(rows) // model.batch_size), collapse)
    with pytest.warns(UserWarning, match="persistent chains hold .* all sit in one mode"):
        model.fit(rows)


def test_chains_of_deep_energies_that_sit_together_are_warned_of(monkeypatch):
    X = Rings().sample(128, random_state=0)
    settings = {"objective": "pcd", "max_epochs": 1, "log_partition": None, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DeepEnergyModel(4, **settings).fit(X)

    def collapse(training, loss):
        state = training.objective_state
        position = state["position"][:1].expand_as(state["position"])
        training.objective_state = {**state, "position": position}
        return loss

    AtBatch(monkeypatch, 1, collapse)
    with pytest.warns(UserWarning, match="persistent chains hold 0.0% of the variance"):
        DeepEnergyModel(4, **settings).fit(X)


def test_an_acceptance_of_zero_is_warned_of(monkeypatch):
    """Steps that are far too long: every proposal is refused, and every row is the start."""
    X = Rings().sample(200, random_state=0)
    model = DeepEnergyModel(4, max_epochs=1, random_state=0).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        good = model.sample(20, n_steps=10, random_state=0)
    monkeypatch.setattr(sklebm.deep._chains, "HMC", lambda: HMC(step_size=1e6))
    with pytest.warns(UserWarning, match=r"no proposal .* was accepted"):
        stuck = model.sample(20, n_steps=10, random_state=0)
    assert np.isfinite(stuck).all()
    assert good.shape == stuck.shape


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("was_fitted", [False, True])
def test_a_fit_that_runs_out_of_memory_says_what_to_do(name, was_fitted, monkeypatch):
    """Whatever asks for memory while a model learns."""
    model = make_brief(name)
    if was_fitted:
        model.fit(make_rows(seed=1))
    before = freeze(vars(model))
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    def no_memory(*args, **kwargs):
        raise error

    monkeypatch.setattr(sklebm._shell.rows.Rows, "__getitem__", no_memory)
    monkeypatch.setattr(sklebm._shell.rows.Rows, "to_numpy", no_memory)
    with pytest.raises((MemoryError, torch.OutOfMemoryError)) as caught:
        model.fit(make_rows())
    if not hasattr(model, "named_estimators_") and hasattr(model, "device"):
        assert "fewer rows" in str(caught.value)
    assert freeze(vars(model)) == before


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("name", ["BernoulliRBM", "EnergyKMeans", "VAE"])
def test_a_clock_that_runs_backwards_changes_nothing(name, monkeypatch, capsys):
    import time

    expected = freeze(fitted_state(make(name).fit(make_rows())))
    now = [1e9]

    def backwards():
        now[0] -= 3600.0
        return now[0]

    for clock in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, clock, backwards)
    model = make(name)
    if is_gradient_trained(model):
        model.set_params(verbose=1)  # prints the duration of every epoch
    assert freeze(fitted_state(model.fit(make_rows()))) == expected
    capsys.readouterr()
