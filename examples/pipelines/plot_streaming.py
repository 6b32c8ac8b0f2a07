r"""
Learning from chunks that are never in memory together
======================================================

``partial_fit`` takes rows as they arrive. For models based on sums, any division into chunks gives
the same result as one fit on all rows; models that learn step by step approximate it. Here a
whitener, a mixture and a Boltzmann machine learn from a stream of digits, and their held-out scores
are compared with those of a ``fit`` on all rows.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklebm import BernoulliRBM, EnergyGaussianMixture, PCAWhitener

rows = np.random.default_rng(0).permutation(load_digits().data / 16)
train, test = train_test_split(rows, test_size=0.25, random_state=0)

# %%
# A whitener keeps a mean and a scatter matrix. Chunks of any size give the same axes, up to
# rounding errors.

whole = PCAWhitener(n_components=20).fit(train)
for size in (30, 100, 1000):
    streamed = PCAWhitener(n_components=20)
    for start in range(0, len(train), size):
        streamed.partial_fit(train[start : start + size])
    gap = np.abs(streamed.score_samples(test) - whole.score_samples(test)).max()
    print(f"chunks of {size:4} rows: scores differ by at most {gap:.1e} nats")

# %%
# A mixture and a Boltzmann machine go through the stream five times, in chunks of 100 rows. After
# every chunk the model can be used. ``fit`` lowers the learning rate of the machine to zero, and
# ends when the mixture has converged; a stream has no known end at which the rate should reach
# zero, so the score keeps fluctuating.


def stream(model, train, test, passes=5, size=100):
    """Held-out score after each chunk."""
    scores = []
    for _ in range(passes):
        for start in range(0, len(train), size):
            model.partial_fit(train[start : start + size])
            if isinstance(model, BernoulliRBM):
                model.estimate_log_partition()  # new parameters have a new normaliser
            scores.append(model.score(test))
    return np.array(scores)


codes, test_codes = whole.transform(train), whole.transform(test)
bits, test_bits = (np.round(part) for part in (train, test))
settings = {"n_components": 16, "learning_rate": 0.1, "batch_size": 10, "random_state": 0}
cases = {
    "EnergyGaussianMixture on 20 whitened components": (
        EnergyGaussianMixture(10, covariance_type="diag", random_state=0),
        codes,
        test_codes,
    ),
    "BernoulliRBM on 64 bits": (BernoulliRBM(**settings, max_epochs=5), bits, test_bits),
}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for ax, (name, (model, X, X_test)) in zip(axes, cases.items(), strict=True):
    fitted = model.fit(X).score(X_test)
    streamed = stream(type(model)(**model.get_params()), X, X_test)
    ax.plot(100 * np.arange(1, len(streamed) + 1), streamed, label="partial_fit, chunks of 100")
    ax.axhline(fitted, color="black", linestyle="--", label="fit on all rows")
    ax.axvline(len(train), color="0.8", zorder=0, label="one pass")
    ax.set(title=name, xlabel="rows seen", ylabel="held-out nats per row")
    ax.legend(frameon=False, fontsize="small")
    print(f"{name}: {streamed[-1]:.2f} nats streamed, {fitted:.2f} fitted at once")
