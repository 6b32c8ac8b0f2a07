"""Held-out perplexity of a replicated softmax beside two latent Dirichlet allocations.

The Associated Press articles with 50 hidden units or topics, one split for all: 2000 articles to
learn from and 246 to score. Every model has its defaults but for the number of topics and, of the
peers, of passes; those of the replicated softmax were chosen with ``--validate``. One protocol
judges them: log p of whole test documents as ordered sequences of words, without a multinomial
coefficient, by annealing for the replicated softmax and by importance sampling for the topics of
both peers; no bound stands in for either. What annealing leaves open is shown: the perplexity at
both ends of the intervals of log Z, of which the upper end speaks against the machine; and
importance sampling with a tenth of the draws. Salakhutdinov and Hinton (2009) give 953 against 1091
on 20 newsgroups with 2000 words.

    python benchmarks/bench_replicated_softmax.py [--quick] [--threads 2]

``--validate`` scores the last 200 training articles instead, with the rest to learn from: choices
are made there.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import sklearn.decomposition
from _common import save_results, set_threads
from bench_topics import documents

from sklebm import LatentDirichletAllocation, ReplicatedSoftmax

COLUMNS = ["model", "fit (s)", "perplexity", "at the ends of log Z, or with a tenth of the draws"]


def annealed(model: ReplicatedSoftmax, test: Any, n_chains: int, n_steps: int) -> list[str]:
    """Perplexity by the estimates of log Z, and by the lower and the upper end of each."""
    longest = int(test.sum(axis=1).max())
    model.estimate_log_partition(
        "ais", longest=longest, n_chains=n_chains, n_steps=n_steps, random_state=0
    )
    lengths = np.asarray(test.sum(axis=1)).ravel().astype(int)
    free_energies = np.asarray(model.free_energy(test))
    tables = (model.log_partitions_, *model.log_partition_intervals_.T)
    value, *ends = (
        np.exp((free_energies + table[lengths]).sum() / lengths.sum()) for table in tables
    )
    return [f"{value:.0f}", " to ".join(f"{end:.0f}" for end in ends)]


def sampled(model: Any, test: Any, n_draws: int) -> list[str]:
    """Perplexity by importance sampling over the shares of each document, with two sizes."""
    if not isinstance(model, LatentDirichletAllocation):
        prior = np.full(len(model.components_), model.doc_topic_prior_)
        model = LatentDirichletAllocation.from_parameters(
            components=model.components_, doc_topic_prior=prior
        )
    options = {"method": "importance", "random_state": 0}
    found = (model.perplexity(test, n_samples=n, **options) for n in (n_draws, n_draws // 10))
    return [f"{value:.0f}" for value in found]


def main() -> None:
    """Fit and judge in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-components", type=int, default=50)
    parser.add_argument("--passes", type=int, default=50, help="of the peers")
    parser.add_argument("--epochs", type=int, default=15, help="of the replicated softmax")
    parser.add_argument("--gibbs-steps", type=int, default=5, help="of the replicated softmax")
    parser.add_argument("--learning-rate", type=float, default=0.01, help="of the same")
    parser.add_argument("--validate", action="store_true", help="score training articles")
    parser.add_argument(
        "--annealing-steps", type=int, default=40, help="Gibbs steps for each length"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; nothing is saved")
    options = parser.parse_args()
    set_threads(options.threads)
    X = documents()
    order = np.random.default_rng(0).permutation(X.shape[0])
    parts = (order[:1800], order[1800:2000]) if options.validate else (order[:2000], order[2000:])
    train, test = X[parts[0]], X[parts[1]]
    k, passes, epochs = options.n_components, options.passes, options.epochs
    n_chains, n_steps, n_draws = 100, options.annealing_steps, 2000
    if options.quick:
        often = np.argsort(-train.sum(axis=0))[:500]
        train, test = train[:300, often], test[:50, often]
        k, passes, epochs, n_chains, n_steps, n_draws = 5, 5, 5, 10, 1, 40
    passed = {"max_iter": passes, "random_state": 0}
    machine = ReplicatedSoftmax(
        k,
        n_gibbs_steps=options.gibbs_steps,
        learning_rate=options.learning_rate,
        max_epochs=epochs,
        log_partition=None,
        random_state=0,
        device="cpu",
    )
    models: dict[str, Any] = {
        "ReplicatedSoftmax": machine,
        "LatentDirichletAllocation": LatentDirichletAllocation(k, tol=0.0, **passed),
        "scikit-learn's": sklearn.decomposition.LatentDirichletAllocation(k, **passed),
        "scikit-learn's, online": sklearn.decomposition.LatentDirichletAllocation(
            k, learning_method="online", **passed
        ),
    }
    rows: list[list[Any]] = []
    for name, model in models.items():
        began = time.perf_counter()
        model.fit(train)
        seconds = round(time.perf_counter() - began, 1)
        is_machine = isinstance(model, ReplicatedSoftmax)
        judged = annealed(model, test, n_chains, n_steps) if is_machine else None
        rows.append([name, seconds, *(judged or sampled(model, test, n_draws))])
        print(*rows[-1], sep="\t", flush=True)
    if not options.quick and not options.validate:
        save_results(
            "replicated_softmax",
            f"Perplexity of {test.shape[0]} articles of the Associated Press",
            COLUMNS,
            rows,
            notes=f"{k} hidden units or topics, {X.shape[1]:,} words, {train.shape[0]} articles, "
            f"{epochs} passes of the machine and {passes} of the others, {options.threads} "
            f"threads. Ordered words of whole documents. Annealing: {n_chains} chains, {n_steps} "
            f"Gibbs steps per length; importance sampling: {n_draws} draws for each document.",
        )


if __name__ == "__main__":
    main()
