"""ChainCRF on CoNLL-2000 chunking: F1 over exact chunks, seconds, and python-crfsuite beside it.

Words and parts of speech in a window of two steps and their bigrams, as dictionaries. Needs
``conll2000_train.txt.gz`` and ``conll2000_test.txt.gz`` in ``SKLEBM_DATA``; python-crfsuite is
optional (``pip install python-crfsuite``). Penalties are those of the same objective: crfsuite's
``c2`` |w|^2 is C = 1 / (2 c2), and its ``c1`` |w|_1 is l1_ratio / C. C of l2 was chosen among 0.2,
0.5, 1.5, 4 and 12 by F1 on sentences 1,700 to 2,499 of the training file, after training on those
before them.

``--memory`` measures instead by how much fresh processes grow from the dictionaries of features to
a model, in 12 iterations of each: more than the steps that L-BFGS remembers.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import peak_memory, save_results, set_threads
from sklearn.feature_extraction import DictVectorizer

from sklebm import ChainCRF, window_features

ALGORITHMS: dict[str, dict[str, Any]] = {
    "nll, l2, L-BFGS": {"C": 4.0},
    "nll, l1, L-BFGS": {"C": 2.0, "l1_ratio": 1.0},
    "nll, l2, stochastic": {"C": 4.0, "solver": "sgd", "max_iter": 20},
    "perceptron": {"loss": "perceptron", "max_iter": 20},
    "hinge": {"loss": "hinge", "C": 0.5, "max_iter": 20},
}
SEED = 0
SETUP = """
import sys, warnings
sys.path.insert(0, "benchmarks")
warnings.simplefilter("ignore")
from bench_chain_crf import *
steps, y, groups = read("train", {limit})
steps = window_features(steps, groups, bigrams=True)
few = DictVectorizer().fit_transform(steps[:50])
ChainCRF(tol=1.0).fit(few, y[:50], groups[:50])
"""
PEER_MODEL = """
import os, pycrfsuite
trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
trainer.set_params({"c1": 0.0, "c2": 0.125, "max_iterations": 12})
for features, tags in by_sentence(steps, y, groups):
    trainer.append(features, tags)
trainer.train(os.devnull)
"""
OUR_MODEL = """
X = DictVectorizer().fit_transform(steps)
ChainCRF(C=4.0, feature_weights="observed", max_iter=12).fit(X, y, groups)
"""


def read(name: str, limit: int | None) -> tuple[list[dict[str, str]], Any, Any]:
    """Steps, chunk tags and the sentence of each step."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("bench_chain_crf.py needs conll2000_*.txt.gz: set SKLEBM_DATA to their folder")
    steps, tags, sentences, sentence = [], [], [], 0
    with gzip.open(Path(folder) / f"conll2000_{name}.txt.gz", "rt") as lines:
        for line in lines:
            if not line.strip():
                sentence += 1
                if limit is not None and sentence >= limit:
                    break
                continue
            word, part, tag = line.split()
            steps.append({"word": word, "part": part})
            tags.append(tag)
            sentences.append(sentence)
    return steps, np.array(tags), np.array(sentences)


def chunks(tags: Any, sentences: Any) -> set[tuple[int, int, str]]:
    """First step, last step and kind of each chunk in the IOB2 notation."""
    found, start, kind = set(), 0, ""
    for t, tag in enumerate([*tags, "O"]):
        new = t == len(tags) or (t > 0 and sentences[t] != sentences[t - 1])
        if kind and (new or tag[0] in "OB" or tag[2:] != kind):
            found.add((start, t - 1, kind))
            kind = ""
        if tag[0] == "B" or (tag[0] == "I" and not kind):
            start, kind = t, tag[2:]
    return found


def f1(truth: Any, predicted: Any, sentences: Any) -> float:
    """Harmonic mean of precision and recall over exact chunks, in percent."""
    right, found = chunks(truth, sentences), chunks(predicted, sentences)
    return 200.0 * len(right & found) / max(len(right) + len(found), 1)


def crfsuite(train: Any, test: Any, settings: dict[str, float]) -> dict[str, Any] | None:
    """The same features and penalty by python-crfsuite; None if it is not installed."""
    try:
        import pycrfsuite
    except ImportError:
        return None
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params(settings)
    for features, tags in by_sentence(*train):
        trainer.append(features, tags)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model")
        trainer.train(path)
        seconds = time.perf_counter() - start
        tagger = pycrfsuite.Tagger()
        tagger.open(path)
        predicted = [tag for features, _ in by_sentence(*test) for tag in tagger.tag(features)]
    steps = trainer.logparser.iterations
    return {
        "seconds": seconds,
        "iterations": len(steps),
        "objective": steps[-1]["loss"],
        "f1": f1(test[1], predicted, test[2]),
    }


def by_sentence(features: Any, tags: Any, sentences: Any) -> Any:
    """Features as strings, and tags, one sentence at a time."""
    starts = np.flatnonzero(np.diff(sentences, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(tags)], strict=True):
        yield (
            [[f"{k}={v}" for k, v in step.items()] for step in features[start:stop]],
            [str(tag) for tag in tags[start:stop]],
        )


def _rounded(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value


def measure_memory(limit: int | None) -> None:
    """Measure and record the growth of processes that fit."""
    rows = []
    for name, statement in (("ChainCRF", OUR_MODEL), ("python-crfsuite", PEER_MODEL)):
        rows.append([name, round(peak_memory(statement, setup=SETUP.format(limit=limit)))])
        print(*rows[-1], sep="\t", flush=True)
    if limit is None:
        save_results(
            "chain_crf_memory",
            "ChainCRF on CoNLL-2000: memory from dictionaries of features to a model",
            ["library", "memory (MiB)"],
            rows,
            notes="Peak growth of a fresh process that holds the features as dictionaries already, "
            "over 12 iterations of L-BFGS with an l2 penalty.",
        )


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="300 sentences to train on")
    parser.add_argument("--algorithms", nargs="*", default=list(ALGORITHMS), choices=ALGORITHMS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-peer", action="store_true", help="leave python-crfsuite out")
    parser.add_argument("--memory", action="store_true", help="measure memory instead")
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    limit = 300 if arguments.quick else None
    if arguments.memory:
        measure_memory(limit)
        return
    (steps, y, groups), (steps_test, y_test, groups_test) = (
        read("train", limit),
        read("test", limit),
    )
    steps = window_features(steps, groups, bigrams=True)
    steps_test = window_features(steps_test, groups_test, bigrams=True)
    table = DictVectorizer()
    X, X_test = table.fit_transform(steps), table.transform(steps_test)
    # The first call compiles, or loads what an earlier process has compiled.
    ChainCRF(tol=1.0).fit(X[:50], y[:50], groups[:50])
    ChainCRF(tol=1.0, solver="sgd").fit(X[:50], y[:50], groups[:50]).predict(X[:50])
    rows: list[dict[str, Any]] = []
    for name in arguments.algorithms:
        settings = {"feature_weights": "observed", "decoding": "viterbi", **ALGORITHMS[name]}
        model = ChainCRF(random_state=SEED, **settings)
        start = time.perf_counter()
        model.fit(X, y, groups)
        seconds = time.perf_counter() - start
        predicted = model.predict(X_test, groups_test)
        row = {
            "algorithm": name,
            "f1": f1(y_test, predicted, groups_test),
            "accuracy": float((predicted == y_test).mean()),
            "seconds": seconds,
            "iterations": model.n_iter_,
            "objective": model.objective_,
            "weights": int((model.coef_ != 0).sum()),
        }
        rows.append(row)
        print(row, flush=True)
    if not arguments.no_peer:
        train, test = (steps, y, groups), (steps_test, y_test, groups_test)
        for name, settings in (
            ("python-crfsuite, l2", {"c1": 0.0, "c2": 0.125}),
            ("python-crfsuite, l1", {"c1": 0.5, "c2": 0.0}),
        ):
            found = crfsuite(train, test, settings)
            if found is not None:
                rows.append({"algorithm": name, **found})
                print(rows[-1], flush=True)
    if not arguments.quick:
        columns = ["algorithm", "f1", "seconds", "iterations", "objective", "weights"]
        save_results(
            "chain_crf",
            f"ChainCRF on CoNLL-2000: {len(y):,} steps, {X.shape[1]:,} features",
            ["algorithm", "F1 (%)", "fit (s)", "iterations", "objective (nats)", "weights"],
            [[_rounded(row.get(column, "")) for column in columns] for row in rows],
            notes=(
                "F1 over exact chunks of the test sentences. Words and parts of speech in a window "
                f"of two and their bigrams; {arguments.threads} threads (python-crfsuite uses one)."
            ),
        )


if __name__ == "__main__":
    main()
