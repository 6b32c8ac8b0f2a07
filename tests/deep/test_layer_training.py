"""DeepEnergyModel trained layer by layer, and grown by a layer."""

import copy

import numpy as np
import pytest

from sklebm import DeepEnergyModel
from sklebm.datasets import Rings

RING = Rings(noise=0.2)
X, HELD_OUT = (RING.sample(n, random_state=seed) for seed, n in enumerate((2000, 4000)))
SETTINGS = {
    "hidden_sizes": (24,),
    "n_components": 24,
    "layer_training": "greedy",
    "optimizer": "adam",
    "learning_rate": 0.01,
    "max_epochs": 25,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def shallow():
    return DeepEnergyModel(**{**SETTINGS, "hidden_sizes": ()}).fit(X)


@pytest.fixture(scope="module")
def greedy():
    return DeepEnergyModel(**SETTINGS).fit(X)


@pytest.fixture(scope="module")
def grown(shallow):
    model = copy.deepcopy(shallow)
    model.set_params(hidden_sizes=(24,), warm_start=True)
    return model.fit(X)


def test_the_layer_below_is_the_trained_one_and_stays(shallow, grown):
    for name in ("network.0.weight", "network.0.bias"):
        np.testing.assert_array_equal(grown.weights_[name], shallow.weights_[name])
    assert "network.2.weight" in grown.weights_
    assert "network.2.weight" not in shallow.weights_


def test_a_layer_more_explains_rows_better(shallow, greedy, grown):
    scores = [model.score(HELD_OUT) for model in (shallow, greedy, grown)]
    assert scores[0] + 0.2 < min(scores[1:])
    assert max(scores) < RING.log_density(HELD_OUT).mean()  # log Z is not flattered


def test_joint_training_goes_on_with_all_layers(grown):
    before, score = grown.weights_["network.0.weight"].copy(), grown.score(HELD_OUT)
    twin = DeepEnergyModel(**grown.get_params())
    twin.__dict__.update({k: v for k, v in vars(grown).items() if k.endswith("_")})
    twin.set_params(
        layer_training="joint",
    ).fit(X)
    assert not np.array_equal(twin.weights_["network.0.weight"], before)
    assert twin.score(HELD_OUT) > score + 0.1
    np.testing.assert_array_equal(grown.weights_["network.0.weight"], before)


def test_greedy_layers_are_drawn_from_the_seed(greedy):
    again = DeepEnergyModel(**SETTINGS).fit(X)
    for name, array in greedy.weights_.items():
        np.testing.assert_array_equal(again.weights_[name], array)


def test_layers_below_are_trained_too(greedy):
    start = DeepEnergyModel(**{**SETTINGS, "learning_rate": 1e-12, "max_epochs": 1}).fit(X)
    moved = greedy.weights_["network.0.weight"] - start.weights_["network.0.weight"]
    # 25 passes; one alone moves a weight by 0.06 on average.
    assert np.abs(moved).mean() > 0.2


def test_without_hidden_layers_nothing_changes(shallow):
    joint = DeepEnergyModel(**{**SETTINGS, "hidden_sizes": (), "layer_training": "joint"}).fit(X)
    for name, array in joint.weights_.items():
        np.testing.assert_array_equal(shallow.weights_[name], array)


def test_three_layers():
    model = DeepEnergyModel(**{**SETTINGS, "hidden_sizes": (12, 8), "max_epochs": 2}).fit(X)
    assert {"network.0.weight", "network.2.weight", "network.4.weight"} < model.weights_.keys()
    assert model.transform(X).shape == (len(X), 24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shape": (1, 2)}, "leave image_shape out"),
        ({"network": lambda n, k: None}, "network"),
    ],
)
def test_what_has_no_layers_of_widths_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DeepEnergyModel(**{**SETTINGS, **changes}).fit(X)


def test_chunks_cannot_train_the_layers_below(greedy):
    with pytest.raises(ValueError, match="call fit first"):
        DeepEnergyModel(**SETTINGS).partial_fit(X)


def test_growing_wants_the_same_features():
    model = DeepEnergyModel(**{**SETTINGS, "hidden_sizes": (), "max_epochs": 1}).fit(X)
    model.set_params(hidden_sizes=(24,), warm_start=True)
    with pytest.raises(ValueError, match="has 3 features"):
        model.fit(np.hstack([X, X[:, :1]]))
    assert model.n_features_in_ == 2
