"""Points that fill the cube evenly."""

import numpy as np
import pytest
import torch

from sklebm.inference.quasi_monte_carlo import MAX_DIMENSIONS, uniform_points
from tests.subprocesses import global_states


def test_points_are_the_same_at_every_call_and_draw_from_nobody():
    before = global_states()
    points = uniform_points(64, 5)
    assert torch.equal(uniform_points(64, 5), points)
    assert torch.equal(uniform_points(16, 5), points[:16])
    assert global_states() == before


@pytest.mark.parametrize("n_dimensions", [1, 7, 200])
def test_every_dimension_is_filled_evenly(n_dimensions):
    points = uniform_points(256, n_dimensions).numpy()
    assert ((points > 0) & (points < 1)).all()
    counts = [np.histogram(column, bins=16, range=(0, 1))[0] for column in points.T]
    assert set(np.ravel(counts)) == {16}


def test_smooth_integrals_need_fewer_points():
    points = uniform_points(1024, 4)
    z = torch.special.ndtri(points)
    assert float((0.5 * z).exp().prod(dim=1).mean()) == pytest.approx(np.exp(0.5), abs=0.01)


def test_more_dimensions_than_the_table_has():
    points = uniform_points(2, MAX_DIMENSIONS + 1)
    assert points.shape == (2, MAX_DIMENSIONS + 1)
    assert torch.equal(uniform_points(2, MAX_DIMENSIONS + 1), points)
