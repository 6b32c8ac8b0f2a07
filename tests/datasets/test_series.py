"""Series with known likelihood, against joint densities and sums over all regimes."""

import itertools

import numpy as np
import pytest
from scipy.linalg import toeplitz
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from sklebm.datasets import AutoregressiveProcess, SwitchingProcess


@pytest.mark.parametrize("phi", [0.9, -0.5])
def test_the_likelihood_of_order_one_is_that_of_the_joint_gaussian(phi):
    process = AutoregressiveProcess(phi, noise=0.7)
    X, groups = process.sample(3, 12, random_state=0)
    lags = phi ** np.arange(12) * 0.7**2 / (1 - phi**2)
    joint = multivariate_normal(np.zeros(12), toeplitz(lags))
    found = process.log_density(X, groups).reshape(3, 12).sum(axis=1)
    np.testing.assert_allclose(found, joint.logpdf(X.reshape(3, 12)), rtol=1e-10)


def test_the_likelihood_of_order_two_is_that_of_the_joint_gaussian():
    process = AutoregressiveProcess((1.2, -0.5))
    X, groups = process.sample(2, 10, random_state=0)
    lags = [1.0, 1.2 / 1.5]  # Yule-Walker: rho_1 = phi_1 / (1 - phi_2)
    for _ in range(8):
        lags.append(1.2 * lags[-1] - 0.5 * lags[-2])
    variance = 1.0 / (1.0 - 1.2 * lags[1] + 0.5 * lags[2])
    joint = multivariate_normal(np.zeros(10), variance * toeplitz(lags))
    found = process.log_density(X, groups).reshape(2, 10).sum(axis=1)
    np.testing.assert_allclose(found, joint.logpdf(X.reshape(2, 10)), rtol=1e-10)


def test_draws_are_stationary():
    X, _ = AutoregressiveProcess(0.9).sample(20_000, 2, random_state=0)
    steps = X.reshape(-1, 2)
    # Four standard errors of a variance (its own times sqrt(2 / n)) and of a correlation.
    np.testing.assert_allclose(steps.var(axis=0), 1 / (1 - 0.81), rtol=4 * np.sqrt(2 / 20_000))
    assert np.corrcoef(steps.T)[0, 1] == pytest.approx(0.9, abs=4 * (1 - 0.81) / np.sqrt(20_000))


def test_regimes_are_summed_out():
    process = SwitchingProcess((0.9, -0.5), (0.0, 1.0), (0.3, 0.6), stay=0.8)
    X, groups = process.sample(2, 7, random_state=0)
    phi, mean, noise = (np.array(v) for v in (process.coefficients, process.means, process.noise))
    for x, found in zip(X.reshape(2, 7), process.log_density(X, groups).reshape(2, 7), strict=True):
        terms = []
        for path in itertools.product([0, 1], repeat=7):
            k = np.array(path)
            log_p = np.log(0.5) + np.log(np.where(k[1:] == k[:-1], 0.8, 0.2)).sum()
            log_p += norm.logpdf(x[0], mean[k[0]], 1.0)
            expected = mean[k[1:]] + phi[k[1:]] * (x[:-1] - mean[k[1:]])
            terms.append(log_p + norm.logpdf(x[1:], expected, noise[k[1:]]).sum())
        assert found.sum() == pytest.approx(logsumexp(terms), rel=1e-12)


def test_the_truth_scores_its_own_draws_best():
    process = SwitchingProcess()
    X, groups = process.sample(50, 100, random_state=0)
    others = (SwitchingProcess((0.9, -0.7)), SwitchingProcess(stay=0.9))
    assert all(
        process.log_density(X, groups).mean() > other.log_density(X, groups).mean()
        for other in others
    )


def test_draws_repeat_and_belong_to_their_seed():
    for process in (AutoregressiveProcess(), SwitchingProcess()):
        first, groups = process.sample(2, 5, random_state=0)
        assert first.shape == (10, 1)
        assert groups.tolist() == [0] * 5 + [1] * 5
        np.testing.assert_array_equal(process.sample(2, 5, random_state=0)[0], first)
        assert not np.array_equal(process.sample(2, 5, random_state=1)[0], first)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoregressiveProcess(1.0), "not stationary"),
        (lambda: AutoregressiveProcess(0.5, noise=0.0), "noise"),
        (lambda: SwitchingProcess((0.5,), (0.0,), (1.0,)), "two regimes"),
        (lambda: SwitchingProcess(stay=1.0), "stay"),
        (lambda: AutoregressiveProcess().sample(0), "n_sequences"),
        (lambda: SwitchingProcess().sample(1, 0), "n_steps"),
        (lambda: AutoregressiveProcess().log_density(np.zeros((3, 2))), "one value per step"),
        (lambda: AutoregressiveProcess().log_density(np.zeros((3, 1)), [0]), "1 entries"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("process", [AutoregressiveProcess(0.5), SwitchingProcess()])
def test_groups_may_be_a_column(process):
    X, groups = process.sample(2, 5, random_state=0)
    expected = process.log_density(X, groups)
    np.testing.assert_array_equal(process.log_density(X, groups[:, None]), expected)
    names = np.where(groups, "b", None)[:, None]
    with pytest.raises(ValueError, match="missing values in 5 of 10 rows"):
        process.log_density(X, names)
    with pytest.raises(ValueError, match=r"one entry per row.*got shape \(10, 2\)"):
        process.log_density(X, np.zeros((10, 2)))
