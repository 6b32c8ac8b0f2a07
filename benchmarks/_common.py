"""What every benchmark shares: fair timing, peak memory, and one form of result file.

Timings of one machine say little on another, so a benchmark reports ratios: the contestants
take turns within one run, and each is compared with a named reference.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

RESULTS = Path(__file__).parent / "results"


# The contestants that took turns since results were last saved; recorded with the next ones.
_took_turns: list[list[str]] = []


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant, and how they compare with the reference of its run.

    Attributes
    ----------
    median, best : float
        Seconds over the repeats.
    spread : float
        Interquartile range of the repeats divided by the median.
    ratio : float
        Median over the rounds of (own seconds / the reference's seconds in the same round), so that
        a disturbance that lasts longer than a round cancels. Above 1: slower than the reference.
    seconds : tuple of float
        Of each round.
    """

    median: float
    best: float
    spread: float
    ratio: float
    seconds: tuple[float, ...] = ()


def set_threads(n_threads: int) -> None:
    """Limit torch and the native thread pools (BLAS, OpenMP) for the rest of the process."""
    torch.set_num_threads(n_threads)
    threadpool_limits(limits=n_threads)


def timed_ratio(
    contestants: Mapping[str, Callable[[], object]],
    *,
    reference: str,
    repeats: int = 7,
    warmups: int = 1,
) -> dict[str, Timing]:
    """Time callables in turns, so that a slow spell of the machine meets all of them.

    Parameters
    ----------
    contestants : mapping of str to callable
        What to time; called without arguments, results discarded. Work on CUDA is waited for.
    reference : str
        The contestant that ratios are relative to.
    repeats : int, default=7
        Rounds; within each, every contestant runs once, in an order that rotates.
    warmups : int, default=1
        Untimed rounds before.

    Returns
    -------
    timings : dict of str to Timing
        In the order of ``contestants``.
    """
    if reference not in contestants:
        raise ValueError(f"reference={reference!r} is not one of {sorted(contestants)}.")
    if repeats < 2:
        raise ValueError(f"repeats={repeats}: a spread needs at least 2.")
    names = list(contestants)
    for name in names * warmups:
        contestants[name]()
    _took_turns.append(names)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(repeats):
        shift = round_number % len(names)
        for name in names[shift:] + names[:shift]:
            seconds[name].append(_seconds(contestants[name]))
    return {name: _summarise(seconds[name], seconds[reference]) for name in names}


def _seconds(call: Callable[[], object]) -> float:
    gc.collect()
    _wait_for_device()
    start = time.perf_counter()
    call()
    _wait_for_device()
    return time.perf_counter() - start


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _summarise(own: Sequence[float], reference: Sequence[float]) -> Timing:
    lower, median, upper = statistics.quantiles(own, n=4, method="inclusive")
    ratios = [mine / theirs for mine, theirs in zip(own, reference, strict=True)]
    spread = (upper - lower) / median
    return Timing(median, min(own), spread, statistics.median(ratios), tuple(own))


# The high-water mark is read from /proc and reset after the set-up: ru_maxrss of a child begins at
# its parent's value, and could not tell the set-up's peak from the statement's.
_MEASURE = """
import re
def _status(key):
    with open("/proc/self/status") as status:
        return int(re.search(key + r":\\s+(\\d+) kB", status.read()).group(1))
{setup}
with open("/proc/self/clear_refs", "w") as _references:
    _references.write("5")
_before = _status("VmRSS")
{statement}
print("peak-kib", max(_status("VmHWM") - _before, 0))
"""


def peak_memory(statement: str, *, setup: str = "") -> float:
    """Peak resident memory of a statement in a fresh interpreter, in MiB above the set-up's.

    Parameters
    ----------
    statement : str
        Python source whose memory is measured.
    setup : str, default=""
        Python source that runs before and is not measured: imports, data.

    Returns
    -------
    peak : float
        MiB by which the process grew beyond its size after ``setup``.

    Raises
    ------
    OSError
        Where there is no ``/proc`` (the measurement is for Linux).
    RuntimeError
        If the statement or its set-up fails; the message ends with its traceback.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise OSError("peak_memory reads /proc/self/status, which this system does not have.")
    run = subprocess.run(
        [sys.executable, "-c", _MEASURE.format(setup=setup, statement=statement)],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise RuntimeError(f"the measured program failed:\n{run.stderr}")
    return int(run.stdout.rsplit("peak-kib", 1)[1]) / 1024


def area_under_roc(positive: ArrayLike, scores: ArrayLike) -> float:
    """Chance that a positive row scores higher than another, from ranks: scores may be infinite.

    Parameters
    ----------
    positive : array-like of bool, shape (n_rows,)
        The rows that should score high.
    scores : array-like of float, shape (n_rows,)
        Infinite scores lie beyond all finite ones, and tie with their like. A NaN is the worst
        answer: below all others for a positive row, above them for another.

    Returns
    -------
    area : float
    """
    positive, scores = np.asarray(positive, bool), np.asarray(scores, float)
    ranks = rankdata(scores, nan_policy="omit")
    missing = np.isnan(scores)
    ranks[missing] = np.where(positive[missing], 0.0, len(scores) + 1.0)
    return float(roc_auc_score(positive, ranks))


def machine() -> dict[str, Any]:
    """What a reader needs to know of the machine and versions behind a result."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "cores": os.cpu_count(),
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sklearn": sklearn.__version__,
    }


def command_line() -> str:
    """The command of this process, as to be typed in the repository's root.

    Raises
    ------
    RuntimeError
        If the process was not started from a file of benchmarks: nobody could repeat it.
    """
    script = Path(sys.argv[0]).resolve()
    if script.parent != Path(__file__).resolve().parent or not script.name.startswith("bench_"):
        raise RuntimeError(f"results are recorded by benchmarks/bench_*.py only, not by {script}")
    needs_data = "SKLEBM_DATA" in script.read_text(encoding="utf-8")
    prefix = "SKLEBM_DATA=... " if needs_data else ""
    threads = os.environ.get("OMP_NUM_THREADS")
    prefix += f"OMP_NUM_THREADS={threads} " if threads else ""
    return prefix + shlex.join(["python", f"benchmarks/{script.name}", *sys.argv[1:]])


def save_results(
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    notes: str = "",
    figure: Sequence[str] = (),
    turns: bool | str | None = None,
) -> Path:
    """Write ``results/<name>.json``, which the documentation shows as a table.

    The command that repeats the measurement is that of this process, with all of its options.

    Parameters
    ----------
    name : str
        File name without its ending.
    title : str
        Heading of the table.
    columns : sequence of str
        Column headings, with units.
    rows : sequence of sequences
        One list of strings and numbers a row, as long as ``columns``.
    notes : str, default=""
        Protocol and caveats: sizes, threads, versions of the peers.
    figure : sequence of four str, default=()
        The columns by which the documentation also draws the rows, on logarithmic axes: the panel,
        the line within it, and what stands on the axes.
    turns : bool, str or None, default=None
        Whether the contestants took turns; a sentence if only some of them did. None: True if
        ``timed_ratio`` has run since results were last saved.

    Returns
    -------
    path : pathlib.Path
        The file written.

    Raises
    ------
    RuntimeError
        In a process with ``--quick``, which would overwrite the result of a full run, and in a
        program that is no benchmark.
    ValueError
        If a row has not as many cells as there are columns.
    """
    if "--quick" in sys.argv:
        raise RuntimeError("a run with --quick records nothing: return before save_results")
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(f"row {number} has {len(row)} cells for {len(columns)} columns: {row}")
    result = {
        "title": title,
        "command": command_line(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "turns": bool(_took_turns) if turns is None else turns,
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "notes": notes,
    }
    if figure:
        result["figure"] = [list(columns).index(name) for name in figure]
    _took_turns.clear()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
