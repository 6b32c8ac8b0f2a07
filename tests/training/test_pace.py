"""Passes that max_epochs="auto" stands for."""

import numpy as np
import pytest

from sklebm import Autoencoder
from sklebm.training.pace import Pace
from tests.registry import make_rows


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "epochs"),
    [
        (1280, 128, 300),  # 10 batches an epoch: 3000 updates
        (1281, 128, 273),  # 11 batches
        (60_000, 128, 20),  # at least 20 passes
        (100, 128, 1000),  # at most 1000
        (1, 1, 1000),
    ],
)
def test_epochs_make_up_the_updates_within_bounds(n_rows, batch_size, epochs):
    assert Pace(3000).epochs(n_rows, batch_size) == epochs


def test_the_time_of_a_fit_is_bounded():
    """In rows visited: that of the updates, or of the passes over many rows."""
    pace = Pace(3000)
    for n_rows in (1, 50, 128, 1000, 19_000, 20_000, 10**6):
        n_epochs = pace.epochs(n_rows, 128)
        n_updates = n_epochs * -(-n_rows // 128)
        assert n_updates <= max(3000 + -(-n_rows // 128), 20 * -(-n_rows // 128))
        assert n_updates >= min(3000, 1000 * -(-n_rows // 128))


def test_auto_is_the_number_that_it_stands_for():
    X = make_rows(100)
    settings = {"n_components": 2, "batch_size": 1, "random_state": 0}
    model = Autoencoder(**settings).fit(X)
    assert model.n_iter_ == 30
    again = Autoencoder(**settings, max_epochs=30).fit(X)
    np.testing.assert_array_equal(model.loss_curve_, again.loss_curve_)
    with pytest.raises(ValueError, match="max_epochs"):
        Autoencoder(max_epochs="automatic").fit(X)
