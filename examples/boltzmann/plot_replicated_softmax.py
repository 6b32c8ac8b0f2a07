r"""
Topics that multiply
====================

For documents about several subjects at once, a replicated softmax turns on a hidden unit for each
subject, and multiplies their effects on the probabilities of words; latent Dirichlet allocation
divides the words among its topics. Both are compared by the perplexity of held-out documents.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

from sklebm import LatentDirichletAllocation, ReplicatedSoftmax

# %%
# Six subjects, each of which makes some of 40 words more likely. A document has each subject with
# probability 0.4, and the factors of its subjects multiply.
rng = np.random.default_rng(0)
N_WORDS, N_SUBJECTS, N_DOCUMENTS = 40, 6, 2000
factors = rng.normal(scale=1.2, size=(N_SUBJECTS, N_WORDS))
subjects = rng.random((N_DOCUMENTS, N_SUBJECTS)) < 0.4
p = softmax(subjects @ factors, axis=1)
lengths = rng.integers(20, 80, N_DOCUMENTS)
X = np.array([rng.multinomial(n, row) for n, row in zip(lengths, p, strict=True)])
X_train, X_valid, X_test = X[:1200], X[1200:1500], X[1500:]

# %%
# The states of few hidden units can be summed over, for documents of any length: training follows
# the exact gradient of the likelihood. The learning rate of one model and the number of topics of
# the other are chosen by the perplexity of validation documents; test documents are scored once.
exact = {"objective": "maximum_likelihood", "batch_size": 20, "max_epochs": 15, "random_state": 0}
machines = [ReplicatedSoftmax(8, learning_rate=rate, **exact).fit(X_train) for rate in (0.03, 0.1)]
model = min(machines, key=lambda machine: machine.perplexity(X_valid))
topics = [LatentDirichletAllocation(k, random_state=0).fit(X_train) for k in (6, 12)]
dirichlet = min(topics, key=lambda model: model.perplexity(X_valid, method="importance"))

# The model that drew the documents, summed over all sets of subjects.
sets = np.array(list(itertools.product([0, 1], repeat=N_SUBJECTS)))
log_prior = np.log(0.4) * sets.sum(axis=1) + np.log(0.6) * (1 - sets).sum(axis=1)
log_joint = X_test @ log_softmax(sets @ factors, axis=1).T + log_prior
found = {
    "independent words": np.exp(
        -(X_test * np.log(X_train.sum(axis=0) / X_train.sum())).sum() / X_test.sum()
    ),
    "latent Dirichlet allocation": dirichlet.perplexity(X_test, method="importance"),
    "replicated softmax": model.perplexity(X_test),
    "the truth": np.exp(-logsumexp(log_joint, axis=1).sum() / X_test.sum()),
}
for name, value in found.items():
    print(f"{name}: {value:.1f} words")
assert found["replicated softmax"] < found["latent Dirichlet allocation"]

# %%
# How the hidden units are correlated with the subjects of held-out documents.
correlation = np.corrcoef(model.transform(X_test).T, subjects[1500:].T)[:8, 8:]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.barh(list(found), list(found.values()), color="0.6")
left.set(xlabel="perplexity of held-out documents (words)")
left.invert_yaxis()
picture = right.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1)
right.set(xlabel="subject", ylabel="hidden unit", title="correlation over documents")
figure.colorbar(picture, ax=right)
plt.show()
