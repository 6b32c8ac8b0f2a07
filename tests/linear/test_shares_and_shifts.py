"""Shrinkage of what is not kept, and where noise-contrastive estimation puts the mean."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from sklebm import GaussianEnergy, PCAWhitener, ZCAWhitener


@pytest.mark.parametrize("kind", [PCAWhitener, ZCAWhitener])
@pytest.mark.parametrize(("shrinkage", "ridge"), [(0.5, 0.0), (0.5, 0.2), (None, 0.2)])
@pytest.mark.parametrize("n_components", [1, 3])
def test_directions_that_are_not_kept_are_shrunk_too(kind, shrinkage, ridge, n_components):
    """The covariance of the model by NumPy: shrunk first, then averaged over what is left."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 5)) @ np.diag([5.0, 3.0, 2.0, 1.0, 0.5]) @ rng.normal(size=(5, 5))
    model = kind(n_components, shrinkage=shrinkage, ridge=ridge).fit(X)
    sample, share = np.cov(X.T), shrinkage or 0.0
    mean_variance = np.trace(sample) / 5
    shrunk = (1 - share) * sample + (share + ridge) * mean_variance * np.eye(5)
    variances, axes = np.linalg.eigh(shrunk)
    variances[: 5 - n_components] = variances[: 5 - n_components].mean()
    assert model.noise_variance_ == pytest.approx(variances[0])
    covariance = axes @ np.diag(variances) @ axes.T
    expected = multivariate_normal(X.mean(axis=0), covariance).logpdf(X)
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-9)


def expected_noise_contrast(X, n_noise):
    """Mean, variances and log Z of the diagonal Gaussian of least expected loss, by quadrature."""
    mean, deviation = X.mean(axis=0), X.std(axis=0)
    u = (X - mean) / deviation
    noise = multivariate_normal(np.zeros(2), ledoit_wolf(u)[0])
    axis = np.linspace(-7, 7, 241)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mass = noise.pdf(grid) * (axis[1] - axis[0]) ** 2

    def loss(point):
        precision, linear, constant = np.exp(point[:2]), point[2:4], point[4]

        def margin(rows):
            f = -0.5 * rows**2 @ precision + rows @ linear + constant
            return f - noise.logpdf(rows) - math.log(n_noise)

        wrong = np.logaddexp(0, margin(grid)) @ mass
        # What one more row of unit covariance adds.
        prior = (precision - point[:2]).sum() / (2 * len(X))
        return np.logaddexp(0, -margin(u)).mean() + n_noise * wrong + prior

    found = minimize(loss, [0.0, 0.0, 0.0, 0.0, -1.8], options={"gtol": 1e-8}).x
    precision, linear = np.exp(found[:2]), found[2:4]
    shift = linear / precision
    log_z = np.log(deviation).sum() - found[4] - 0.5 * linear @ shift
    return mean + deviation * shift, deviation**2 / precision, log_z


def test_noise_contrastive_finds_another_centre_for_skewed_rows():
    """Told from correlated noise, skewed rows are best seen as independent around another point."""
    rng = np.random.default_rng(0)
    size = np.minimum(rng.exponential(size=400), 3.0)
    X = np.stack([size, size * (1.0 + 0.5 * rng.standard_normal(400))], axis=1)
    location, variances, log_z = expected_noise_contrast(X, 20)
    found = []
    for seed in range(8):
        model = GaussianEnergy(
            "diagonal", objective="noise_contrastive", n_noise=20, random_state=seed
        ).fit(X)
        values = model.location_, np.diag(model.covariance_), [model.estimated_log_partition_]
        found.append(np.concatenate(values))
    truth = np.concatenate([location, variances, [log_z]])
    error = np.std(found, axis=0, ddof=1) / math.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - truth) < 4.5 * error).all()
    # The mean of the rows, where the noise is centred, is another point.
    assert abs(location[0] - X[:, 0].mean()) > 4.5 * error[0]
