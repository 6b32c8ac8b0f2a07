"""Toy models that no estimator of the package is: targets, two players, a greedy stack.

Each is written as an author of a model would write it, without touching the engine or the shell.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import sklebm
from sklebm._shell.random import draw_seed, make_generator
from sklebm._shell.state import Array
from sklebm.energies.gradients import dense
from sklebm.gradient import GradientEstimator
from sklebm.objectives import Batch, Objective
from sklebm.training.start import Start
from sklebm.training.transforms import GradientTransform

SETTINGS = {
    "learning_rate": 0.1,
    "batch_size": 20,
    "max_epochs": 30,
    "optimizer": "sgd",
    "learning_rate_schedule": "constant",
    "validation_fraction": None,
    "n_iter_no_change": None,
    "tol": 1e-4,
    "warm_start": False,
    "net_params": None,
    "random_state": 0,
    "verbose": 0,
    "device": "cpu",
    "strategy": None,
}


def with_settings(cls):
    """A constructor with the parameters that all gradient models share."""
    names = list(SETTINGS)
    arguments = ", ".join(f"{name}=SETTINGS[{name!r}]" for name in names)
    body = "\n".join(f"    self.{name} = {name}" for name in names)
    scope = {"SETTINGS": SETTINGS}
    exec(f"def __init__(self, *, {arguments}):\n{body}", scope)  # noqa: S102
    cls.__init__ = scope["__init__"]
    return cls


# ---------------------------------------------------------------- a target beside each row


class LinearGaussian(nn.Module):
    """E(x, y) = (y - w'x)^2 / 2."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def energy(self, x, y):
        return 0.5 * (y - x @ self.weights).square()


class ConditionalLikelihood(Objective):
    """The mean energy of rows with their targets, weighted if they have weights."""

    needs = ("energy",)
    is_stochastic = False
    loss_is_comparable = True

    def loss(self, energy, batch, state, generator):
        return batch.mean(energy.energy(batch.x, batch.target)), state


@with_settings
class ToyRegressor(GradientEstimator):
    def fit(self, X, y, *, sample_weight=None):
        return self._learn(X, self._fit, columns={"target": y, "weight": sample_weight})

    def _initial_energy(self, rows, means, generator):
        return LinearGaussian(torch.zeros(rows.shape[1]))

    def _rebuild(self, parameters):
        return LinearGaussian(parameters["coef_"])

    def _state_spec(self):
        return {**super()._state_spec(), "coef_": Array("f", ("n_features_in_",), of="weights")}

    def _objective(self, energy):
        return ConditionalLikelihood()

    def _validation_score(self, energy, batch, seed):
        return -float(batch.mean(energy.energy(batch.x, batch.target)))

    @property
    def _n_features_out(self):
        return 1

    def predict(self, X):
        return self._map_rows(X, lambda energy, x: x @ energy.weights, "predict")

    def score_samples(self, X):
        return self._map_rows(X, lambda energy, x: -x.square().sum(1), "score_samples")

    def score(self, X, y):
        return -float(np.mean((self.predict(X) - y) ** 2))


def make_targets(n_rows=200):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 3))
    return X, X @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=n_rows)


def test_targets_reach_the_objective():
    X, y = make_targets()
    model = ToyRegressor().fit(X, y)
    truth = np.linalg.lstsq(X, y, rcond=None)[0]
    # The last steps of constant-rate descent wander around the minimum.
    np.testing.assert_allclose(model.coef_, truth, atol=0.02)
    held = ToyRegressor(validation_fraction=0.25, random_state=0).fit(X, y)
    assert held.validation_scores_[-1] > held.validation_scores_[0]
    # Of the rows held out, whose targets must have come along.
    order = torch.randperm(200, generator=make_generator(draw_seed(0), "validation"))
    rows = order[:50].numpy()
    energies = 0.5 * np.square(X[rows] @ held.coef_ - y[rows])
    assert held.validation_scores_[-1] == pytest.approx(-energies.mean(), rel=1e-4)


def test_weights_reach_the_objective():
    """Rows of weight zero, however absurd, teach nothing; all rows at once take the same steps."""
    X, y = make_targets()
    settings = {"optimizer": "gradient_descent", "learning_rate": 0.3, "max_epochs": 10}
    plain = ToyRegressor(**settings).fit(X, y)
    wrong = np.r_[y, 100.0 * np.ones(50)]
    weight = np.r_[np.ones(200), np.zeros(50)]
    weighted = ToyRegressor(**settings).fit(np.r_[X, X[:50]], wrong, sample_weight=weight)
    np.testing.assert_allclose(weighted.coef_, plain.coef_, rtol=1e-5)


def test_a_conditional_model_works_in_pipelines_and_searches():
    X, y = make_targets()
    pipeline = make_pipeline(StandardScaler(), ToyRegressor()).fit(X, y)
    assert pipeline.score(X, y) > -0.05
    search = GridSearchCV(ToyRegressor(), {"learning_rate": [1e-6, 0.1]}, cv=3).fit(X, y)
    assert search.best_params_ == {"learning_rate": 0.1}
    copy = ToyRegressor.from_parameters(coef=search.best_estimator_.coef_)
    np.testing.assert_array_equal(copy.predict(X), search.best_estimator_.predict(X))
    assert clone(copy).get_params() == copy.get_params()


def test_targets_of_another_length_are_refused():
    X, y = make_targets()
    with pytest.raises(ValueError, match="y has 199 entries, but X has 200 rows"):
        ToyRegressor().fit(X, y[1:])


# ---------------------------------------------------------------- two players


class Forger(nn.Module):
    """A generator that shifts noise, and a critic D(x) = c'x - |c|^2 / 2 that tells it from data.

    The critic's slope is that of the optimal witness between Gaussians of unit variance, so that
    the only rest of the game is where the shift is the mean of the data.
    """

    def __init__(self, shift, slope):
        super().__init__()
        self.generator = nn.ParameterDict({"shift": shift})
        self.critic = nn.ParameterDict({"slope": slope})

    def forged(self, like, generator):
        return torch.empty_like(like).normal_(generator=generator) + self.generator["shift"]

    def judge(self, x):
        return x @ self.critic["slope"]


class Tell(Objective):
    """The critic's loss: minus the gap of its means, held by a quadratic penalty."""

    needs = ("judge", "forged")

    def loss(self, energy, batch, state, generator):
        forged = energy.forged(batch.x, generator).detach()
        gap = energy.judge(batch.x).mean() - energy.judge(forged).mean()
        return 0.5 * energy.critic["slope"].square().sum() - gap, state


class Fool(Objective):
    """The generator's loss: minus what the critic says of its rows."""

    needs = ("judge", "forged")

    def loss(self, energy, batch, state, generator):
        return -energy.judge(energy.forged(batch.x, generator)).mean(), state


@with_settings
class ToyGame(GradientEstimator):
    def _initial_energy(self, rows, means, generator):
        return Forger(torch.zeros(rows.shape[1]), torch.zeros(rows.shape[1]))

    def _players(self, energy, start):
        return [
            self._player(energy, Tell(), start, moved=energy.critic, name="critic", n_steps=2),
            self._player(energy, Fool(), start, moved=energy.generator, name="generator"),
        ]

    def _objective(self, energy):
        return Tell()

    def _validation_score(self, energy, batch, seed):
        return 0.0

    def _rebuild(self, parameters):
        return Forger(parameters["shift_"], parameters["slope_"])

    def _state_spec(self):
        return {
            **super()._state_spec(),
            "shift_": Array("f", ("n_features_in_",), of="generator.shift"),
            "slope_": Array("f", ("n_features_in_",), of="critic.slope"),
        }

    @property
    def _n_features_out(self):
        return int(self.n_features_in_)

    def score_samples(self, X):
        return self._map_rows(X, lambda energy, x: energy.judge(x), "score_samples")


def test_two_players_train_against_each_other():
    X = np.random.default_rng(0).normal(loc=[2.0, -1.0], size=(400, 2))
    model = ToyGame(max_epochs=60, optimizer="adam", learning_rate=0.02).fit(X)
    # The game circles around the means of the rows, far from its start at zero.
    np.testing.assert_allclose(model.shift_, X.mean(axis=0), atol=0.25)
    state = model.training_state_
    assert state["objective_kind"].startswith("Tell")
    assert state["generator/objective_kind"].startswith("Fool")
    assert {"optimizer.0.exp_avg", "generator/optimizer.0.exp_avg"} <= state.keys()
    shift = model.shift_.copy()
    again = ToyGame(max_epochs=60, optimizer="adam", learning_rate=0.02).fit(X)
    np.testing.assert_array_equal(again.shift_, shift)
    model.partial_fit(X[:100])
    assert not np.array_equal(model.shift_, shift)


def test_each_player_moves_its_own_parameters_only():
    X = np.random.default_rng(0).normal(size=(40, 2)) + 3.0

    class CriticAlone(ToyGame):
        def _players(self, energy, start):
            return super()._players(energy, start)[:1]

    CriticAlone.__name__ = "ToyGame"
    model = CriticAlone(max_epochs=5).fit(X)
    np.testing.assert_array_equal(model.shift_, 0.0)
    assert np.abs(model.slope_).min() > 0.5


class Counted(Tell):
    """The critic's loss, which counts its steps."""

    def init_state(self, energy, batch_size, generator):
        return {"n_steps": torch.zeros((), dtype=torch.int64)}

    def loss(self, energy, batch, state, generator):
        value, _ = super().loss(energy, batch, {}, generator)
        return value, {"n_steps": state["n_steps"] + 1}


def test_the_state_of_the_first_player_is_found_again():
    class CountedGame(ToyGame):
        def _players(self, energy, start):
            players = [(Counted(), energy.critic, "critic"), (Fool(), energy.generator, "own")]
            return [
                self._player(energy, objective, start, moved=moved, name=name)
                for objective, moved, name in players
            ]

    X = np.random.default_rng(0).normal(size=(40, 2))
    model = CountedGame(max_epochs=3, warm_start=True).fit(X)
    assert int(model.training_state_["objective.n_steps"]) == 3 * 2
    model.fit(X)
    assert int(model.training_state_["objective.n_steps"]) == 2 * 3 * 2


@pytest.mark.parametrize(
    ("rules", "kinds"),
    [
        # RMSprop has no setting "fused", which Adam's rule brings along.
        (("adam", "rmsprop"), ("Adam", "RMSprop")),
        (("momentum", "sgd"), ("SGD", "SGD")),
        (("sgd", "momentum"), ("SGD", "SGD")),
    ],
)
def test_settings_of_one_players_rule_are_not_those_of_another(rules, kinds):
    class TwoRules(ToyGame):
        def _options(self, seed):
            named = dict(zip(("critic", "generator"), rules, strict=True))
            return replace(super()._options(seed), optimizers=named)

    X = np.random.default_rng(0).normal(size=(40, 2))
    state = TwoRules(max_epochs=1).fit(X).training_state_
    for rule, kind, prefix in zip(rules, kinds, ("", "generator/"), strict=True):
        assert state[f"{prefix}optimizer_kind"] == kind
        has_velocity = f"{prefix}optimizer.0.momentum_buffer" in state
        assert has_velocity == (rule == "momentum")


# ---------------------------------------------------------------- layer by layer


class Layers(nn.Module):
    """Linear layers; E(x) is the squared error of reconstructing x through the first k of them."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ParameterList(layers)
        self.depth = len(layers)

    def free_energy(self, x):
        z = x
        for layer in self.layers[: self.depth]:
            z = z @ layer.T
        for layer in reversed(self.layers[: self.depth]):
            z = z @ layer
        return (x - z).square().sum(dim=1)


class Reconstruct(Objective):
    needs = ("free_energy",)
    is_stochastic = False
    loss_is_comparable = True

    def loss(self, energy, batch, state, generator):
        return batch.mean(energy.free_energy(batch.x)), state


@with_settings
class ToyStack(GradientEstimator):
    """Two layers, of which the second is trained when the first is done."""

    sizes = (4, 2)

    def _max_steps(self, rows):
        return len(self.sizes) * int(self.max_epochs)

    def _initial_energy(self, rows, means, generator):
        widths = (rows.shape[1], *self.sizes)
        pairs = zip(widths[1:], widths, strict=False)
        return Layers([0.3 * torch.randn(k, d, generator=generator) for k, d in pairs])

    def _train(self, energy, start, options, progress=None, seen=None):
        for depth in range(1, len(self.sizes) + 1):
            energy.depth = depth
            for place, layer in enumerate(energy.layers):
                layer.requires_grad_(place == depth - 1)
            course = super()._train(energy, start, options, progress, seen)
        return course

    def _objective(self, energy):
        return Reconstruct()

    def _validation_score(self, energy, batch, seed):
        return -float(energy.free_energy(batch.x).mean())

    def _rebuild(self, parameters):
        return Layers([parameters["first_"], parameters["second_"]])

    def _state_spec(self):
        return {
            **super()._state_spec(),
            "first_": Array("f", (4, "n_features_in_"), of="layers.0"),
            "second_": Array("f", (2, 4), of="layers.1"),
        }

    @property
    def _n_features_out(self):
        return 2

    def score_samples(self, X):
        return self._map_rows(X, lambda energy, x: -energy.free_energy(x), "score_samples")


def test_a_stack_is_trained_layer_by_layer():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6)) + 0.01 * rng.normal(size=(300, 6))
    X /= X.std()
    settings = {"optimizer": "adam", "learning_rate": 0.02, "max_epochs": 60}
    model = ToyStack(**settings).fit(X)
    start = ToyStack(optimizer="adam", learning_rate=1e-12, max_epochs=1).fit(X)
    # Two dimensions hold the rows but for a deviation of .01 in six features.
    assert model.score(X) > -0.05
    assert start.score(X) < -1.0
    shallow = type("ToyStack", (ToyStack,), {"sizes": (4, 2), "_train": GradientEstimator._train})
    assert not np.array_equal(model.first_, shallow(**settings).fit(X).first_)
    np.testing.assert_array_equal(model.first_, ToyStack(**settings).fit(X).first_)


# ---------------------------------------------------------------- a transform of one's own


class Clip(GradientTransform):
    """Gradients of at most unit length; counts the rows that it has seen."""

    def init(self):
        return {"n_rows": 0}

    def update(self, gradients, batch, state, share):
        clipped = [(p, dense(g) / max(1.0, float(dense(g).norm()))) for p, g in gradients]
        return clipped, {"n_rows": state["n_rows"] + len(batch)}


@with_settings
class Clipped(ToyRegressor):
    def _transforms(self, energy: object, start: Start):
        return (Clip(),)

    def _projections(self, energy):
        return (lambda: energy.weights.data.clamp_(-1.0, 1.0),)

    def _export_transforms(self, states):
        return {"n_rows_": states[0]["n_rows"]}


def test_transforms_carry_a_state_and_projections_hold():
    X, y = make_targets()
    model = Clipped(learning_rate=0.05, max_epochs=1).fit(X, y)
    assert model.n_rows_ == 200
    assert np.linalg.norm(model.coef_) <= 10 * 0.05 + 1e-6  # ten steps of at most .05
    bounded = Clipped(max_epochs=100).fit(X, y)
    assert bounded.coef_[1] == -1.0  # the truth is -2


def test_batches_count_their_rows():
    batch = Batch(torch.zeros(3, 2), weight=torch.tensor([1.0, 1.0, 2.0]))
    assert len(batch) == 3
    assert float(batch.mean(torch.tensor([0.0, 0.0, 4.0]))) == 2.0
    assert sklebm.__version__
