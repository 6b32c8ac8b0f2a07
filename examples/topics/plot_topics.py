"""
===============================
Topics of documents as pictures
===============================

The classic test of topic models: words are the pixels of a small square, topics are its bars, and a
document is a handful of words from a few bars. :class:`~sklebm.PLSA` and
:class:`~sklebm.LatentDirichletAllocation` are given the counts only.
"""

# %%
# Documents, and the topics behind them
# -------------------------------------
# Ten topics: the rows and columns of a 5 x 5 square. Each document mixes some of them.

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import csr_array
from sklearn.base import clone

from sklebm import PLSA, LatentDirichletAllocation

rng = np.random.default_rng(0)
side = 5
bars = np.zeros((2 * side, side, side))
for i in range(side):
    bars[i, i] = bars[side + i, :, i] = 1 / side
bars = bars.reshape(2 * side, -1)
shares = rng.dirichlet(np.full(2 * side, 0.3), size=400)
X = csr_array([rng.multinomial(60, row) for row in shares @ bars])
X_again = csr_array([rng.multinomial(60, row) for row in shares @ bars])


def draw(axes, pictures, label):
    for axis, picture in zip(axes, pictures, strict=True):
        axis.imshow(picture.reshape(side, side), cmap="gray_r")
        axis.set(xticks=[], yticks=[])
    axes[0].set_ylabel(label, rotation=0, ha="right", va="center")


plsa = PLSA(n_components=10, max_iter=500, random_state=0).fit(X)
lda = LatentDirichletAllocation(n_components=10, max_iter=500, random_state=0).fit(X)

figure, axes = plt.subplots(4, 10, figsize=(10, 4.2))
draw(axes[0], X[:10].toarray(), "documents")
draw(axes[1], bars, "true topics")
draw(axes[2], plsa.components_, "PLSA")
draw(axes[3], lda.components_, "LDA")
figure.tight_layout()

# %%
# Other words of the same documents choose the number of topics
# -------------------------------------------------------------
# On its training words, a model with more topics always fits better. Held-out words of the same
# documents show when further topics only fit noise. A temperature or a prior compensates for too
# many topics.

sizes = [4, 7, 10, 15, 20]
figure, axis = plt.subplots(figsize=(6, 3.5))
contestants = {
    "PLSA": PLSA(max_iter=500, tol=1e-4, random_state=0),
    "PLSA, beta=0.8": PLSA(beta=0.8, max_iter=500, tol=1e-4, random_state=0),
    "LDA": LatentDirichletAllocation(max_iter=500, random_state=0),
}
for label, model in contestants.items():
    fitted = [clone(model).set_params(n_components=size).fit(X) for size in sizes]
    perplexities = [each.perplexity(X_again, given=X) for each in fitted]
    axis.plot(sizes, perplexities, marker="o", label=label)
axis.set(xlabel="n_components", ylabel="perplexity of unseen words")
axis.legend()
figure.tight_layout()
