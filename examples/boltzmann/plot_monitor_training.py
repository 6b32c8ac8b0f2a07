r"""
Watching a machine learn, and stopping in time
==============================================

There are no labels, so there is no accuracy to watch. Instead, ``EnergyMonitor`` scores held-out
rows after every epoch and stops the fit when the score no longer rises.
"""

import copy

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklebm import BernoulliRBM
from sklebm.callbacks import EnergyMonitor
from sklebm.plotting import LearningCurveDisplay

# %%
# With few digits and many epochs, the machine memorises the training rows. Twelve hidden units can
# be summed over, so the objective is the exact likelihood and curves are smooth.
X = (load_digits().data > 8).astype(np.float32)
X_train, X_rest = train_test_split(X, train_size=80, random_state=0)
X_val, X_test = train_test_split(X_rest, test_size=0.5, random_state=0)
settings = {
    "n_components": 12,
    "objective": "maximum_likelihood",
    "optimizer": "adam",
    "batch_size": 20,
    "learning_rate_schedule": "constant",
    "max_epochs": 80,
    "random_state": 0,
}


# %%
# Without ``scoring``, the monitor uses a score of the model that is comparable between epochs: for
# a Boltzmann machine the log pseudo-likelihood, which needs no partition function. A custom scoring
# function can use the exact likelihood of such a small machine.
def exact_log_likelihood(model, rows):
    """Mean log-likelihood in nats."""
    return copy.deepcopy(model).estimate_log_partition("exact").score(rows)


monitors = {
    "held-out log-likelihood": EnergyMonitor(X_val, scoring=exact_log_likelihood),
    "held-out log pseudo-likelihood": EnergyMonitor(X_val),
}
overfitted = BernoulliRBM(**settings).set_callbacks(*monitors.values()).fit(X_train)
curves = {
    name: [row["score"] for row in monitor.get_logs().data] for name, monitor in monitors.items()
}

# %%
# With ``patience``, the same monitor stops the fit.
stopper = EnergyMonitor(X_val, scoring=exact_log_likelihood, patience=10)
stopped = BernoulliRBM(**settings).set_callbacks(stopper).fit(X_train)
print(f"all {overfitted.n_iter_} epochs: {overfitted.score(X_test):.2f} nats a test digit")
print(f"stopped after {stopped.n_iter_}: {stopped.score(X_test):.2f} nats a test digit")
assert stopped.score(X_test) > overfitted.score(X_test)

# %%
# The loss, here minus the log-likelihood of the training rows, keeps falling after the likelihood
# of held-out rows has begun to fall. The pseudo-likelihood is on a different scale but moves with
# it.
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
LearningCurveDisplay.from_estimator(overfitted, scores=curves, ax=axis)
axis.axvline(stopped.n_iter_, color="black", linewidth=0.8, linestyle=":")
axis.set_title(f"Twelve hidden units on 80 digits; dotted: stopped after {stopped.n_iter_} epochs")
plt.show()
