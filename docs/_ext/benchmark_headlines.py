"""The directive ``benchmark-headlines``: one table and one figure over all recorded comparisons.

Each headline names a result file in ``benchmarks/results/`` and which of its rows are ours and the
peers'. Times, qualities, dates and commands are read from these files when the pages are built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark_results import RESULTS, read_result, table
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from sklebm.plotting._canvas import COLOURS

COLUMNS = ["task", "our time / best peer's", "our quality", "best peer's", "peer", "recorded"]


@dataclass(frozen=True)
class Headline:
    """One comparison.

    Parameters
    ----------
    family, task : str
        Where it stands, and what was done.
    file : str
        Stem of the result file.
    name : str
        Column with the contestants.
    ours : str
        Our row in it.
    peers : tuple of str
        The peers' rows.
    time : str or None
        Column of times; the best peer is the fastest. None if the table has none.
    quality : str or None
        Column of qualities.
    best : {"highest", "lowest"}
        Which quality makes the best peer if there is no time.
    where : mapping of str to object
        Columns and values that select rows.
    """

    family: str
    task: str
    file: str
    name: str
    ours: str
    peers: tuple[str, ...]
    time: str | None = None
    quality: str | None = None
    best: str = "highest"
    where: Mapping[str, Any] = field(default_factory=dict)


_PYOD = ("KNN", "GMM", "MCD", "INNE", "IForest", "CBLOF", "OCSVM", "LOF", "HBOS", "PCA")
_LASSO = {
    "file": "sparse_coding",
    "name": "solver",
    "ours": "sklebm, compiled, float32",
    "time": "seconds",
    "quality": "largest gap",
}
_SPAMS = "SPAMS lars, float32"
_SCIKIT_LASSO = ("scikit-learn lasso_cd", "scikit-learn lasso_lars")
_KMEANS = {
    "file": "kmeans",
    "name": "library",
    "ours": "sklebm",
    "peers": ("scikit-learn lloyd", "scikit-learn elkan", "faiss"),
    "time": "seconds",
    "quality": "inertia",
}
_MIXTURE = {
    "file": "gmm",
    "name": "library",
    "ours": "sklebm",
    "peers": ("scikit-learn",),
    "time": "seconds a step",
    "quality": "log likelihood (nats a row)",
}
_SMALL = {
    "file": "bernoulli_rbm_small",
    "name": "library",
    "ours": "sklebm",
    "peers": ("scikit-learn",),
    "time": "fit (s)",
}
HEADLINES = (
    Headline(
        "Boltzmann machines",
        "BernoulliRBM, an epoch of MNIST",
        "bernoulli_rbm",
        "contestant",
        "sklebm",
        ("scikit-learn",),
        "epoch (s)",
        "test log-likelihood after 5 epochs (nats, annealed)",
    ),
    *(
        Headline(
            "Boltzmann machines",
            f"ten epochs of digits, {units} units, batches of {batch}",
            where={"hidden units": units, "batch": batch},
            **_SMALL,
        )
        for units in (64, 256)
        for batch in (10, 500)
    ),
    *(
        Headline(
            "Boltzmann machines",
            f"annealed log Z, 500 units, {number} temperatures",
            "log_partition",
            "method",
            "sklebm, own ladder",
            ("NumPy, even ladder",),
            "seconds for a width of 1 nat",
            "width (nats, median)",
            where={"temperatures": number},
        )
        for number in (300, 1000)
    ),
    Headline("Mixtures", "k-means, MNIST", where={"data": "MNIST"}, **_KMEANS),
    Headline("Mixtures", "k-means, blobs", where={"data": "blobs, std 1"}, **_KMEANS),
    Headline("Mixtures", "k-means, wide blobs", where={"data": "blobs, std 5"}, **_KMEANS),
    *(
        Headline(
            "Mixtures",
            f"k-means, {data}, {k} clusters",
            "kmeans_few",
            "library",
            "sklebm",
            ("scikit-learn",),
            "seconds",
            where={"data": data, "K": k},
        )
        for data in ("noise, 300,000 x 20", "blobs, 1,000,000 x 10")
        for k in (8, 16)
    ),
    Headline("Mixtures", "EM step, full", where={"covariance": "full"}, **_MIXTURE),
    Headline("Mixtures", "EM step, diagonal", where={"covariance": "diag"}, **_MIXTURE),
    *(
        Headline(
            "Sparse codes",
            f"{density} non-zeros, {threads} thread{'s' if threads > 1 else ''}",
            peers=(_SPAMS, *(_SCIKIT_LASSO if threads == 2 and density != "1.11" else ())),
            where={"non-zeros a row": density, "threads": threads},
            **_LASSO,
        )
        for density in ("23.49", "3.09", "1.11")
        for threads in (1, 2)
    ),
    Headline(
        "Sparse codes",
        "held-out energy of a dictionary after 8 s",
        "dictionary_learning",
        "",
        "sklebm",
        ("scikit-learn", "SPAMS"),
        quality="after 8 s",
        best="lowest",
    ),
    Headline(
        "Linear energies",
        "whitening, 50,000 x 784, float64",
        "whitening",
        "contestant",
        "sklebm PCAWhitener",
        ("sklearn PCA covariance_eigh", "sklearn PCA full"),
        "fit, median (s)",
        "distance to identity",
        where={"input": "float64"},
    ),
    *(
        Headline(
            "Linear energies",
            f"principal components, {shape}",
            "pca",
            "contestant",
            "sklebm EnergyPCA",
            tuple(f"sklearn PCA {solver}" for solver in solvers),
            "fit (s)",
            "error",
            where={"rows x features, components": shape},
        )
        for shape, solvers in (
            ("60 x 5,000, 5", ("full", "arpack", "randomized")),
            ("5,000 x 2,000, 20", ("covariance_eigh", "arpack", "randomized")),
            ("50,000 x 784, all", ("covariance_eigh",)),
        )
    ),
    *(
        Headline(
            "Linear energies",
            f"independent components, {shape}",
            "subspace_ica",
            "contestant",
            "sklebm SubspaceICA, log cosh",
            (
                "sklearn FastICA, log cosh",
                "python-picard, Picard-O, tanh",
                "python-picard, ortho=False, tanh",
            ),
            "fit (s)",
            "Amari",
            where={"rows x sources": shape},
        )
        for shape in ("50,000 x 2", "20,000 x 20", "20,000 x 60")
    ),
    *(
        Headline(
            "Topics",
            f"{ours.removeprefix('sklebm ')}, articles of the Associated Press",
            "topics",
            "contestant",
            ours,
            peers,
            "fit (s)",
            "perplexity of other half",
        )
        for ours, peers in (
            ("sklebm PLSA", ("sklearn NMF",)),
            ("sklebm LDA batch", ("sklearn LDA batch",)),
            ("sklebm LDA online", ("sklearn LDA online", "gensim LdaModel online")),
        )
    ),
    Headline(
        "Auto-encoders",
        "VAE, an epoch of MNIST",
        "autoencoders_speed",
        "contestant",
        "sklebm",
        ("pythae 0.1.2", "PyOD 3.6.7"),
        "median (s)",
        "test bound after 5 epochs (nats)",
    ),
    *(
        Headline(
            "Labels and numbers",
            f"accuracy of labels, {data}, one hidden layer",
            "energy_classifier",
            "model",
            "EnergyClassifier",
            ("MLPClassifier", "torch loop"),
            quality="accuracy (%)",
            where={"data": data},
        )
        for data in ("digits", "cifar10_small")
    ),
    # With l1, ours ends at 200 iterations, above the objective of the peer: times do not compare.
    Headline(
        "Labels and numbers",
        "chunks of CoNLL-2000, l2",
        "chain_crf",
        "algorithm",
        "nll, l2, L-BFGS",
        ("python-crfsuite, l2",),
        "fit (s)",
        "F1 (%)",
    ),
    Headline(
        "Outlier detection",
        "scoring a million rows of 30",
        "ood_speed",
        "detector: training table",
        "EnergyOutlierDetector: 10,000 x 30, scoring 1,000,000",
        ("IForest: 10,000 x 30, scoring 1,000,000",),
        "score (s)",
    ),
    Headline(
        "Outlier detection",
        "AUROC on 23 tables, contaminated",
        "ood",
        "detector",
        "EnergyOutlierDetector",
        (*_PYOD, "COPOD", "ECOD"),
        quality="AUROC, contaminated",
    ),
    Headline(
        "Outlier detection",
        "AUROC on 23 tables, normals only",
        "ood",
        "detector",
        "EnergyOutlierDetector",
        (*_PYOD, "COPOD", "ECOD"),
        quality="AUROC, normals only",
    ),
)


def compare(headline: Headline, result: Mapping[str, Any]) -> tuple[list[str], float | None]:
    """Cells of the table, and our time as a share of the best peer's.

    Raises
    ------
    ValueError
        If the result file has no row for us, or none for a peer that the headline names.
    """
    columns = list(result["columns"])
    rows = [dict(zip(columns, row, strict=True)) for row in result["rows"]]
    rows = [row for row in rows if all(row[k] == v for k, v in headline.where.items())]
    found = {row[headline.name]: row for row in rows}
    if missing := {headline.ours, *headline.peers} - found.keys():
        raise ValueError(f"{headline.file}.json has no rows of {sorted(missing)}")
    ours, peers = found[headline.ours], [found[name] for name in headline.peers]
    share = None
    if headline.time:
        peer = min(peers, key=lambda row: float(row[headline.time]))
        share = float(ours[headline.time]) / float(peer[headline.time])
    else:
        sign = 1.0 if headline.best == "lowest" else -1.0
        peer = min(peers, key=lambda row: sign * float(row[headline.quality]))
    of_ours, of_peer = (
        _shown(row[headline.quality]) if headline.quality else "" for row in (ours, peer)
    )
    cells = [
        f"{headline.family}: {headline.task}",
        "" if share is None else f"{share:.2f}",
        of_ours,
        of_peer,
        str(peer[headline.name]),
        f"{result['date']}: {result['command']}",
    ]
    return cells, share


def _shown(value: object) -> str:
    """A cell of the table; numbers with at most six digits."""
    return f"{value:.6g}" if isinstance(value, float) else f"{value}"


class BenchmarkHeadlines(SphinxDirective):
    """Insert the table of all headlines, and their ratios as bars."""

    def run(self) -> list[nodes.Node]:
        """Return the table and the figure."""
        rows, bars = [], []
        for headline in HEADLINES:
            path = RESULTS / f"{headline.file}.json"
            self.env.note_dependency(str(path))
            cells, share = compare(headline, read_result(path))
            rows.append(cells)
            if share is not None:
                bars.append((headline.family, headline.task, share))
        path = Path(self.env.srcdir) / "generated" / "benchmark_headlines.svg"
        draw_bars(bars, path)
        described = "Our time as a share of the fastest peer's; the table has the numbers."
        return [table(COLUMNS, rows), nodes.image(uri=f"/generated/{path.name}", alt=described)]


def draw_bars(bars: list[tuple[str, str, float]], path: Path) -> None:
    """Draw one panel per family, with a line where we and the best peer are equally fast."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    families = list(dict.fromkeys(family for family, _, _ in bars))
    sizes = [sum(family == name for name, _, _ in bars) for family in families]
    figure = Figure(figsize=(8.0, 0.9 * len(families) + 0.3 * sum(sizes)), layout="constrained")
    axes = figure.subplots(
        len(families), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": sizes}
    )[:, 0]
    for ax, family, colour in zip(axes, families, COLOURS * len(families), strict=False):
        own = [(task, share) for name, task, share in bars if name == family][::-1]
        ax.barh([task for task, _ in own], [share for _, share in own], color=colour)
        ax.axvline(1.0, color="gray", linewidth=1.0)
        ax.set_title(family, loc="left", fontsize="medium")
    axes[-1].set_xlabel("our time / fastest peer's (left of 1: faster)")
    path.parent.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "sklebm"}):
        figure.savefig(path, metadata={"Date": None})


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("benchmark-headlines", BenchmarkHeadlines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
