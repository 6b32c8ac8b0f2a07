"""Speed and held-out perplexity of topic models on the Associated Press articles.

Peers: scikit-learn's NMF with the Kullback-Leibler divergence, which has the fixed points of PLSA;
scikit-learn's LatentDirichletAllocation, batch and online; and gensim's LdaModel where gensim is
installed. Contestants of a group take the same number of passes with the same priors and
tolerances, in turns.

Quality is measured by one estimator for all: held-out perplexity of half of the tokens of the test
documents, for shares of topics inferred from the other half with the topics of each contestant (by
folding-in for PLSA, by variational inference for latent Dirichlet allocation), and for the latter
the bound per token of whole test documents. ``--quick`` takes few documents, topics and passes, and
records nothing. Needs ``topics_ap.npz`` in the folder of SKLEBM_DATA.

    python benchmarks/bench_topics.py [--quick]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import sklearn.decomposition
from _common import save_results, set_threads, timed_ratio

from sklebm import PLSA, LatentDirichletAllocation

N_THREADS = 2


class Sizes(NamedTuple):
    """How much is learnt, and how often."""

    n_documents: int = 2000
    n_topics: int = 50
    n_steps: int = 50  # of expectation maximisation
    n_passes: int = 20  # of variational Bayes
    repeats: int = 5


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


def shares_model(components: Any) -> PLSA:
    """Folding-in with given topics; a word without probability gets a little, for all alike."""
    smooth = components / components.sum(axis=1, keepdims=True) + 1e-6
    smooth /= smooth.sum(axis=1, keepdims=True)
    weights = np.full(len(smooth), 1 / len(smooth))
    return PLSA.from_parameters(components=smooth, topic_weights=weights)


def dirichlet_model(components: Any) -> LatentDirichletAllocation:
    """Variational inference with given topics, under the same prior for all."""
    prior = np.full(len(components), 1 / len(components))
    return LatentDirichletAllocation.from_parameters(components=components, doc_topic_prior=prior)


def gensim_fit(X: Any, fitted: dict[str, Any], sizes: Sizes) -> Callable[[], None]:
    """A call that fits gensim's model, online, in chunks as large as those of the others."""
    from gensim.matutils import Sparse2Corpus
    from gensim.models import LdaModel

    corpus = list(Sparse2Corpus(X.tocsr(), documents_columns=False))
    names = {i: str(i) for i in range(X.shape[1])}

    def fit() -> None:
        fitted["gensim LdaModel online"] = LdaModel(
            corpus,
            num_topics=sizes.n_topics,
            id2word=names,
            chunksize=128,
            passes=sizes.n_passes,
            decay=0.7,
            offset=10.0,
            iterations=100,
            gamma_threshold=1e-3,
            eval_every=None,
            alpha="symmetric",
            eta=1 / sizes.n_topics,
            random_state=0,
        ).state.get_lambda()

    return fit


def groups(
    train: Any, sizes: Sizes
) -> dict[str, tuple[dict[str, Callable[[], Any]], dict[str, Any]]]:
    """Calls by contestant for each reference, and where their topics are found."""
    k = sizes.n_topics
    steps = {"max_iter": sizes.n_steps, "tol": 0.0, "random_state": 0}
    nmf = sklearn.decomposition.NMF
    models: dict[str, dict[str, Any]] = {
        "sklearn NMF": {
            "sklearn NMF": nmf(k, beta_loss="kullback-leibler", solver="mu", **steps),
            "sklebm PLSA": PLSA(k, **steps),
            "sklebm PLSA beta=0.8": PLSA(k, beta=0.8, **steps),
        }
    }
    for method in ("batch", "online"):
        passes = {"learning_method": method, "max_iter": sizes.n_passes, "random_state": 0}
        # scikit-learn shares documents among processes, this library among threads.
        peer = sklearn.decomposition.LatentDirichletAllocation(k, n_jobs=N_THREADS, **passes)
        own = LatentDirichletAllocation(k, tol=0.0, **passes)
        models[f"sklearn LDA {method}"] = {
            f"sklearn LDA {method}": peer,
            f"sklebm LDA {method}": own,
        }
    found: dict[str, tuple[dict[str, Callable[[], Any]], dict[str, Any]]] = {}
    for reference, members in models.items():
        calls = {name: (lambda model=model: model.fit(train)) for name, model in members.items()}
        found[reference] = calls, dict(members)
    if importlib.util.find_spec("gensim"):
        calls, members = found["sklearn LDA online"]
        calls["gensim LdaModel online"] = gensim_fit(train, members, sizes)
    else:
        print("gensim is not installed: it takes no part.")
    return found


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing recorded")
    quick = parser.parse_args().quick
    sizes = Sizes(200, 5, 5, 3, 2) if quick else Sizes()
    set_threads(N_THREADS)
    X = documents()
    order = np.random.default_rng(0).permutation(X.shape[0])
    train, test = X[order[: sizes.n_documents]], X[order[2000:]]
    given, other = halves(test)
    rows = []
    for reference, (calls, members) in groups(train, sizes).items():
        is_dirichlet = "LDA" in reference
        timings = timed_ratio(calls, reference=reference, repeats=sizes.repeats)
        for name, timing in timings.items():
            topics = getattr(members[name], "components_", members[name])
            judge = dirichlet_model(topics) if is_dirichlet else shares_model(topics)
            row = [name, round(timing.median, 2), round(timing.spread, 2), round(timing.ratio, 2)]
            whole = round(judge.perplexity(test)) if is_dirichlet else None
            rows.append([*row, round(judge.perplexity(other, given=given)), whole or "–"])
            print(*rows[-1], sep="\t")
    if quick:
        return
    save_results(
        "topics",
        "Topics of 2000 articles of the Associated Press",
        ["contestant", "fit (s)", "spread", "ratio", "perplexity of other half", "by the bound"],
        rows,
        notes=f"{sizes.n_topics} topics, 10,473 words, {N_THREADS} threads; {sizes.n_steps} "
        f"steps of NMF and PLSA, {sizes.n_passes} passes of LDA with priors of 1/{sizes.n_topics}. "
        "Ratios are to the contestant of scikit-learn above. Held out: 246 documents. "
        "Perplexities of a group are by one estimator, see the script. gensim has one thread.",
    )


if __name__ == "__main__":
    main()
