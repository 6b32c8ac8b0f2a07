"""Learning-rate schedules on hand-made courses."""

import math
from itertools import pairwise

import numpy as np
import pytest

from sklebm import BernoulliRBM
from sklebm.training.schedules import (
    SCHEDULES,
    ConstantRate,
    CosineDecay,
    LinearDecay,
    NonMonotoneDecay,
)

ROWS = np.random.default_rng(0).integers(2, size=(60, 5)).astype(np.float32)


def factors(schedule, n_epochs, losses=()):
    return [schedule.factor(epoch, n_epochs, losses) for epoch in range(n_epochs)]


def test_constant_rate():
    assert factors(ConstantRate(), 4) == [1.0] * 4


def test_linear_decay_ends_at_one_part_in_max_epochs():
    assert factors(LinearDecay(), 4) == [1.0, 0.75, 0.5, 0.25]
    assert factors(LinearDecay(), 1) == [1.0]


def test_cosine_decay_is_half_a_cosine():
    truth = [0.5 * (1 + math.cos(math.pi * t)) for t in (0.125, 0.375, 0.625, 0.875)]
    assert factors(CosineDecay(), 4) == pytest.approx(truth, abs=1e-15)


@pytest.mark.parametrize("schedule", [LinearDecay(), CosineDecay()])
def test_decays_fall_and_stay_positive(schedule):
    values = factors(schedule, 50)
    assert all(a > b > 0 for a, b in pairwise(values))


@pytest.mark.parametrize(
    ("losses", "n_divisions"),
    [
        ([], 0),
        ([5, 4, 3, 2, 1, 0], 0),
        # The fourth loss is above the best of all but the last two: 5 of the first two.
        ([5, 6, 7, 8], 2),
        # One bad epoch is forgiven if it is no worse than an older loss.
        ([5, 4, 4.5, 3], 0),
        # A plateau is not an excess.
        ([5, 5, 5, 5, 5], 0),
        # Negative losses count the same way.
        ([-5, -6, -7, -5.5, -7.5], 1),
        # Every epoch that stays too high divides again.
        ([1, 2, 3, 4, 5, 6], 4),
    ],
)
def test_non_monotone_decay_on_hand_made_losses(losses, n_divisions):
    schedule = NonMonotoneDecay(divisor=3.0, patience=2)
    assert schedule.factor(len(losses), 100, losses) == pytest.approx(3.0**-n_divisions)


@pytest.mark.parametrize(
    "settings", [{"divisor": 1.0}, {"divisor": -2}, {"patience": 0}, {"patience": 2.5}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        NonMonotoneDecay(**settings)


def rates_of(**settings):
    """Learning rate of every epoch, as a callback of the net sees it."""
    from skorch.callbacks import Callback

    class Rates(Callback):
        def __init__(self):
            self.seen = []

        def on_epoch_end(self, net, **kwargs):
            self.seen.append(net.optimizer_.param_groups[0]["lr"])

    callback = Rates()
    settings.setdefault("net_params", {"callbacks": [callback]})
    BernoulliRBM(3, learning_rate=0.4, max_epochs=4, random_state=0, **settings).fit(ROWS)
    return callback.seen


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_fit_follows_the_schedule(name):
    truth = [0.4 * factor for factor in factors(SCHEDULES[name](), 4)]
    assert rates_of(learning_rate_schedule=name) == pytest.approx(truth)
    assert rates_of(learning_rate_schedule=SCHEDULES[name]()) == pytest.approx(truth)


def test_fit_divides_the_rate_when_validation_gets_worse(monkeypatch):
    scores = iter([-5.0, -6.0, -7.0, -4.0])
    monkeypatch.setattr(BernoulliRBM, "_validation_score", lambda *args, **kwargs: next(scores))
    rates = rates_of(
        learning_rate_schedule=NonMonotoneDecay(divisor=2.0, patience=1), validation_fraction=0.2
    )
    # The second score is below the first, the third below both.
    assert rates == pytest.approx([0.4, 0.4, 0.2, 0.1])


def test_a_schedule_that_follows_validation_needs_it():
    with pytest.raises(ValueError, match="set validation_fraction"):
        BernoulliRBM(3, learning_rate_schedule="non_monotone").fit(ROWS)


def test_a_learning_rate_scheduler_of_skorch_keeps_its_say():
    import torch
    from skorch.callbacks import Callback, LRScheduler

    class Rates(Callback):
        def __init__(self):
            self.seen = []

        def on_epoch_begin(self, net, **kwargs):
            self.seen.append(net.optimizer_.param_groups[0]["lr"])

    watch = Rates()
    scheduler = LRScheduler(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    rates_of(
        learning_rate_schedule="constant",
        net_params={"callbacks": [("schedule", scheduler), ("watch", watch)]},
    )
    assert watch.seen == pytest.approx([0.4, 0.2, 0.1, 0.05])
