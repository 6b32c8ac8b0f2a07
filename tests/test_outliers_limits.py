"""Limits and settings of detectors that only show on many rows, in few steps or in a file."""

import numpy as np
import pytest

import sklebm
from sklebm import VAE, EnergyOutlierDetector, LikelihoodRegretScorer
from sklebm._shell.tensor_file import read_file, to_bytes
from sklebm.outliers._default import default_members
from tests.registry import make_rows


def test_members_learn_from_10_000_rows_at_most():
    X = np.random.default_rng(0).standard_normal((24_000, 1))
    members = EnergyOutlierDetector().fit(X).named_estimators_
    assert members["marginals"].cluster_counts_.sum() == 10_000
    assert members["core"].n_samples_seen_ == 7_500  # three quarters of the sample
    assert members["mixture"].n_samples_seen_ == 10_000
    assert len(members["neighbours"].samples_) <= 10_000
    # As many rows more do not make the mixture of a wide table any smaller.
    sizes = [dict(default_members(n, 300))["mixture"].n_components for n in (10_000, 10**6)]
    assert sizes == [2, 2]


def test_fewer_rows_are_all_learnt_from():
    members = EnergyOutlierDetector().fit(make_rows(200)).named_estimators_
    assert members["marginals"].cluster_counts_.sum() == 200
    assert members["core"].n_samples_seen_ == 150
    assert members["mixture"].n_samples_seen_ == 200
    assert len(members["neighbours"].samples_) == 200


def test_the_regret_is_searched_for_in_steps_of_the_learning_rate():
    """Adam moves every parameter by about the rate: tiny steps find nothing, larger ones more."""
    model = VAE(2, hidden_sizes=(), max_epochs=3, random_state=0)
    X, regrets = make_rows(60), []
    for rate in (1e-7, 1e-3, 1e-2, 0.1):
        scorer = LikelihoodRegretScorer(model, n_steps=2, learning_rate=rate).fit(X)
        regrets.append(-scorer.score_samples(X).mean())
        assert scorer.learning_rate_ == rate
    # The bound has slopes of the order of one.
    assert 0.0 <= regrets[0] < 1e-4
    assert (np.diff(regrets) > 0).all()
    # For small steps the gain is proportional to them.
    assert 5 < regrets[2] / regrets[1] < 15


# ---------------------------------------------------------------- files

KINDS = [{}, {"calibration": 0.25, "random_state": 0}]


def stored(path, **settings):
    """The document and the tensors of a fitted default detector, without the checksum."""
    sklebm.save(EnergyOutlierDetector(**settings).fit(make_rows()), path)
    document, tensors = read_file(path)
    del document["sha256"]
    return document, {name: array.copy() for name, array in tensors.items()}


@pytest.mark.parametrize(
    "attribute", ["training_quantiles_", "feature_quantiles_", "calibration_scores_"]
)
def test_values_that_fall_are_refused_whatever_their_shape(attribute, tmp_path):
    """Stored values in another order: the right shape, dtype and range, and no ranks."""
    path = tmp_path / "detector.safetensors"
    document, tensors = stored(path, **KINDS[attribute == "calibration_scores_"])
    name = next(name for name in tensors if name.endswith(attribute))
    path.write_bytes(to_bytes(document, tensors))
    sklebm.load(path)  # untouched, it is accepted
    values = tensors[name]
    assert (values[..., -1] > values[..., 0]).all()
    values[..., [0, -1]] = values[..., [-1, 0]]
    path.write_bytes(to_bytes(document, tensors))
    with pytest.raises(ValueError, match=f"{attribute} must ascend"):
        sklebm.load(path)
