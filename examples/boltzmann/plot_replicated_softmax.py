r"""
Topics that multiply
====================

Documents about two subjects at once: a replicated softmax turns on a hidden unit for each, and
multiplies what they say about the words; latent Dirichlet allocation divides the words among its
topics. Both are compared by the perplexity of held-out documents.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklebm import LatentDirichletAllocation, ReplicatedSoftmax

# %%
# Six subjects, each of which makes some of 40 words more likely. A document has each subject with
# probability 0.4, and the factors of its subjects multiply.
rng = np.random.default_rng(0)
N_WORDS, N_SUBJECTS = 40, 6
factors = rng.normal(scale=1.2, size=(N_SUBJECTS, N_WORDS))
subjects = rng.random((1500, N_SUBJECTS)) < 0.4
logits = subjects @ factors
p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
X = np.array(
    [rng.multinomial(n, row) for n, row in zip(rng.integers(20, 80, 1500), p, strict=True)]
)
X_train, X_test = X[:1000], X[1000:]

# %%
# log Z is exact for up to ten hidden units, for documents of any length.
model = ReplicatedSoftmax(
    8, learning_rate=0.03, batch_size=20, max_epochs=60, n_gibbs_steps=5, random_state=0
).fit(X_train)
dirichlet = LatentDirichletAllocation(8, random_state=0).fit(X_train)
found = {
    "independent words": np.exp(
        -(X_test * np.log(X_train.sum(axis=0) / X_train.sum())).sum() / X_test.sum()
    ),
    "latent Dirichlet allocation": dirichlet.perplexity(X_test, method="importance"),
    "replicated softmax": model.perplexity(X_test),
    "the truth": np.exp(-(X_test * np.log(p[1000:])).sum() / X_test.sum()),
}
for name, value in found.items():
    print(f"{name}: {value:.1f} words")
assert found["replicated softmax"] < found["latent Dirichlet allocation"]

# %%
# What the hidden units know about the subjects of a held-out document.
correlation = np.corrcoef(model.transform(X_test).T, subjects[1000:].T)[:8, 8:]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.barh(list(found), list(found.values()), color="0.6")
left.set(xlabel="perplexity of held-out documents (words)")
left.invert_yaxis()
picture = right.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1)
right.set(xlabel="subject", ylabel="hidden unit", title="correlation over documents")
figure.colorbar(picture, ax=right)
plt.show()
