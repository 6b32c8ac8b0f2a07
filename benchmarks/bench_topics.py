"""Speed and held-out perplexity of topic models on the Associated Press articles.

Peers: scikit-learn's NMF with the Kullback-Leibler divergence, which has the fixed points of PLSA.
Both take the same number of steps, so that the ratio compares steps; the training perplexity stands
beside it. Held-out perplexity is that of half of the tokens of the test documents, for shares
folded in on the other half, by the same code for all: PLSA with the topics of each contestant.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from _common import save_results, set_threads, timed_ratio
from sklearn.decomposition import NMF

from sklebm import PLSA

N_TOPICS = 50
N_STEPS = 50


def documents() -> Any:
    """Counts of the articles, csr."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit(
            "bench_topics.py needs topics_ap.npz: set SKLEBM_DATA to the folder that holds it."
        )
    with np.load(Path(folder) / "topics_ap.npz") as stored:
        parts = (stored["data"].astype(np.float64), stored["indices"].astype(np.int32))
        return scipy.sparse.csr_array((*parts, stored["indptr"]), shape=tuple(stored["shape"]))


def halves(X: Any, seed: int = 0) -> tuple[Any, Any]:
    """Every token at random in one of two tables."""
    first = X.copy()
    first.data = np.random.default_rng(seed).binomial(X.data.astype(int), 0.5).astype(np.float64)
    return first, X - first


def held_out(components: Any, given: Any, other: Any) -> float:
    """Perplexity of ``other`` for shares folded in on ``given``."""
    smooth = components + 1e-6  # a word that one contestant gives no probability costs all the same
    smooth = smooth / smooth.sum(axis=1, keepdims=True)
    weights = np.full(len(smooth), 1 / len(smooth))
    model = PLSA.from_parameters(components=smooth, topic_weights=weights)
    return float(model.perplexity(other, given=given))


def main() -> None:
    """Measure and record."""
    set_threads(2)
    X = documents()
    order = np.random.default_rng(0).permutation(X.shape[0])
    train, test = X[order[:2000]], X[order[2000:]]
    given, other = halves(test)
    options = {"max_iter": N_STEPS, "tol": 0.0, "random_state": 0}
    models: dict[str, Any] = {
        "sklearn NMF": NMF(N_TOPICS, beta_loss="kullback-leibler", solver="mu", **options),
        "sklebm PLSA": PLSA(N_TOPICS, **options),
        "sklebm PLSA beta=0.8": PLSA(N_TOPICS, beta=0.8, **options),
    }
    calls = {name: (lambda model=model: model.fit(train)) for name, model in models.items()}
    timings = timed_ratio(calls, reference="sklearn NMF", repeats=5)
    rows = []
    for name, timing in timings.items():
        topics = models[name].components_
        topics = topics / topics.sum(axis=1, keepdims=True)
        row = [name, round(timing.median, 2), round(timing.spread, 2), round(timing.ratio, 2)]
        rows.append(
            [*row, round(held_out(topics, train, train)), round(held_out(topics, given, other))]
        )
    for row in rows:
        print(*row, sep="\t")
    save_results(
        "topics",
        "Topics of 2000 articles of the Associated Press",
        ["contestant", "fit (s)", "spread", "ratio", "training perplexity", "held-out perplexity"],
        rows,
        command="make bench BENCHMARKS=benchmarks/bench_topics.py",
        notes=f"{N_TOPICS} topics, {N_STEPS} steps each, 10,473 words, 2 threads. Held out: 246 "
        "documents, topics from one half of the tokens, perplexity of the other.",
    )


if __name__ == "__main__":
    main()
