"""
=================================
What a sequence did not announce
=================================

A recurrent network learns a series that switches between two regimes. The surprise of a step, -log
p(x_t | past), is close to that under the true process, and is high at an inserted anomaly that no
single value reveals. On the right: how far back the gradient of the loss reaches in a tanh network
and in an LSTM with a forget bias, before training.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklebm import SequenceEnergy
from sklebm.datasets import SwitchingProcess
from sklebm.plotting import GradientFlowDisplay

process = SwitchingProcess()
X, groups = process.sample(40, 80, random_state=0)
model = SequenceEnergy(16, cell="gru", learning_rate=0.02, max_epochs=15, random_state=0)
model.fit(X, groups=groups)

# %%
# A new series, in which every other one of ten steps has its sign flipped: every value is one that
# the series often takes, but not at that point.
series, _ = process.sample(1, 160, random_state=5)
planted = series.copy()
planted[100:110:2] *= -1.0
surprise = -model.score_samples(planted)
truth = -process.log_density(planted)
print(f"correlation with the true surprise: {np.corrcoef(surprise, truth)[0, 1]:.2f}")

# %%
# The forecast of every step uses the steps before it only.
forecast = model.predict(planted)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained", width_ratios=(2, 2, 1.2))
axes[0].plot(planted[:, 0], color="black", linewidth=1, label="series")
axes[0].plot(np.arange(1, 160), forecast[:-1, 0], color="#D55E00", linewidth=1, label="forecast")
axes[0].axvspan(100, 109, color="#E69F00", alpha=0.3, linewidth=0)
axes[0].set(title="a series and its forecast", xlabel="step")
axes[0].legend(frameon=False, fontsize="small")
axes[1].plot(surprise, color="#0072B2", linewidth=1.2, label="learnt")
axes[1].plot(truth, color="black", linewidth=0.8, linestyle=":", label="true process")
axes[1].axvspan(100, 109, color="#E69F00", alpha=0.3, linewidth=0)
axes[1].set(title="surprise of each step", xlabel="step", ylabel="nats")
axes[1].legend(frameon=False, fontsize="small")
start = {"learning_rate": 1e-9, "max_epochs": 1, "random_state": 0}
for name, settings in {
    "tanh": {"cell": "rnn"},
    "LSTM, forget bias 3": {"cell": "lstm", "forget_bias": 3.0},
}.items():
    untrained = SequenceEnergy(32, **settings, **start).fit(X, groups=groups)
    GradientFlowDisplay.from_estimator(untrained, series[:60], ax=axes[2], name=name)
axes[2].set_title("gradients through time")
plt.show()
