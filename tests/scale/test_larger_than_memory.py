"""Tables on disk: read in blocks, within bounded memory, with the answers of arrays in memory."""

import inspect
import sys

import numpy as np
import pytest
import sklearn
import torch

import sklebm
from sklebm._shell.rows import Rows
from sklebm._shell.tables import DaskTable, LazyTable, MappedTable, read_table
from sklebm.training.batches import TensorBatches, TrainingRows
from sklebm.training.streamed_rows import StreamedRows
from tests.registry import (
    DEPEND_ON_NEIGHBOURS,
    NAMES,
    entry,
    fitted_state,
    freeze,
    is_gradient_trained,
    make,
    make_brief,
    make_rows,
    row_methods,
)
from tests.sampling import FULL
from tests.subprocesses import ALLOCATOR, run_python

SMALL = 0.008  # MiB: less than half of the rows
ROWS = make_rows(400)


@pytest.fixture(autouse=True)
def _little_memory():
    with sklearn.config_context(working_memory=SMALL):
        yield


def mapped(folder, X):
    """A read-only memory map of a new file that holds X."""
    path = folder / "rows.bin"
    np.ascontiguousarray(X).tofile(path)
    return np.memmap(path, dtype=X.dtype, mode="r", shape=X.shape)


def dask_array(X, chunks=(90, 4)):
    array = pytest.importorskip("dask.array", reason="needs dask: pip install sklebm[dask]")
    return array.from_array(X, chunks=chunks)


KINDS = {"memory map": lambda folder, X: mapped(folder, X), "dask": lambda _, X: dask_array(X)}
kinds = pytest.mark.parametrize("kind", KINDS)


# ---------------------------------------------------------------- rows as they are stored


@kinds
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.uint8, bool, ">f4"])
def test_any_part_is_that_of_the_array(kind, dtype, tmp_path):
    X = (ROWS * 9).astype(dtype)
    table = read_table(KINDS[kind](tmp_path, X), "Model")
    assert isinstance(table, LazyTable)
    single = X.dtype.kind == "f" and X.dtype.itemsize <= 4
    expected = X.astype(np.float32 if single else np.float64)
    order = np.random.default_rng(0).permutation(len(X))[:50]
    for index in (slice(None), slice(3, 200), slice(5, 5), slice(0, 400, 7), order, order[:0]):
        part = table[index]
        np.testing.assert_array_equal(part, expected[index])
        assert part.dtype == expected.dtype
    blocks = table.blocks(64)
    np.testing.assert_array_equal(np.concatenate([table[b] for b in blocks]), expected)


def test_what_fits_into_memory_is_an_ordinary_array(tmp_path):
    """So that small memory maps, as joblib makes them, change nothing about a fit."""
    X = mapped(tmp_path, ROWS)
    with sklearn.config_context(working_memory=1):
        assert read_table(X, "Model") is X
    assert isinstance(read_table(X, "Model"), MappedTable)
    assert isinstance(read_table(X[10:, ::2], "Model"), MappedTable)
    assert not isinstance(read_table(X[np.arange(400)], "Model"), LazyTable)  # a copy
    assert not isinstance(read_table(X + 1.0, "Model"), LazyTable)


def test_small_dask_arrays_are_computed_and_large_ones_are_not():
    X = dask_array(ROWS)
    assert isinstance(read_table(X, "Model"), DaskTable)
    with sklearn.config_context(working_memory=1):
        np.testing.assert_array_equal(read_table(X, "Model"), ROWS)


def test_a_block_of_dask_is_computed_once_in_a_scan():
    import_dask = dask_array(ROWS)  # skips without dask
    seen = []

    def note(block):
        seen.append(len(block))
        return block

    X = import_dask.rechunk((100, -1)).map_blocks(note, dtype=ROWS.dtype, meta=ROWS[:0])
    table = read_table(X, "Model")
    for start in range(0, 400, 10):
        table[start : start + 10]
    assert seen == [100] * 4


# ---------------------------------------------------------------- epochs


def stream(X, kept=None):
    return StreamedRows(Rows(read_table(X, "Model"), torch.device("cpu")), kept)


def rows_of(parts):
    return torch.cat([x for x, _ in parts])


@kinds
def test_an_epoch_holds_every_row_once_in_a_new_order(kind, tmp_path):
    X = ROWS.astype(np.float32)
    X[:, 0] = np.arange(400)
    rows, generator = stream(KINDS[kind](tmp_path, X)), torch.Generator().manual_seed(0)
    epochs = [rows_of(rows.batches(16, generator)) for _ in range(2)]
    for epoch in epochs:
        np.testing.assert_array_equal(epoch[epoch[:, 0].argsort()], X)
    assert not torch.equal(*epochs)
    again = rows_of(rows.batches(16, torch.Generator().manual_seed(0)))
    assert torch.equal(again, epochs[0])
    assert [len(x) for x, _ in rows.batches(16, generator)] == [16] * 25
    assert [len(x) for x, _ in rows.batches(150, generator)] == [150, 150, 100]
    np.testing.assert_array_equal(rows_of(rows.batches(16, None)), X)


def test_batches_mix_rows_of_distant_places(tmp_path):
    """A file that is sorted by class must not give batches of one class."""
    X = np.zeros((4000, 6), np.float32)
    X[:, 0] = np.arange(4000)
    with sklearn.config_context(working_memory=0.02):  # a pool of 400 rows in 16 blocks
        batches = list(stream(mapped(tmp_path, X)).batches(50, torch.Generator().manual_seed(0)))
    spreads = [float(x[:, 0].std()) for x, _ in batches]
    assert np.mean(spreads) > 0.8 * X[:, 0].std()


@kinds
def test_rows_held_out_are_not_trained_on(kind, tmp_path):
    X = ROWS.astype(np.float32)
    X[:, 0] = np.arange(400)
    indices = np.random.default_rng(0).permutation(400)[:60]
    numbers = torch.arange(400.0)
    rows = TrainingRows(stream(KINDS[kind](tmp_path, X)), columns={"target": numbers})
    held = rows.take(torch.from_numpy(indices)).batch(torch.device("cpu"))
    np.testing.assert_array_equal(held.x, X[np.sort(indices)])
    np.testing.assert_array_equal(held.target, np.sort(indices))
    rest = np.setdiff1d(np.arange(400), indices)
    kept = rows.take(torch.from_numpy(rest))
    assert kept.X.shape == (340, 6)
    batches = list(TensorBatches(kept, 16, torch.Generator().manual_seed(0)))
    seen = torch.cat([batch.x for batch in batches])[:, 0]
    assert sorted(seen.tolist()) == rest.tolist()
    # What stands beside a row comes with it.
    assert torch.equal(torch.cat([batch.target for batch in batches]), seen)


def test_the_loader_of_torch_takes_single_rows(tmp_path):
    X = mapped(tmp_path, ROWS)
    rows = TrainingRows(stream(X)).take(torch.arange(1, 400, 2))
    assert len(rows) == 200
    np.testing.assert_array_equal(rows[7], ROWS[15].astype(np.float32))
    options = {"iterator_train": torch.utils.data.DataLoader, "iterator_train__shuffle": False}
    model = make("BernoulliRBM", max_epochs=1, net_params=options)
    assert np.isfinite(model.fit(X).score_samples(ROWS)).all()


# ---------------------------------------------------------------- estimators


IN_PARTS = {
    # By default, a Gaussian machine follows the exact likelihood of rows in memory only.
    "GaussianRBM": {"objective": "pcd"},
    # These rows have many local minima: a long search whose sums round otherwise ends in another.
    "SubspaceICA": {"group_size": 1, "max_iter": 3},
}


@pytest.mark.table(14)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_estimator_learns_from_tables_on_disk(kind, name, tmp_path):
    """Sums are those of the array; gradients see the rows in another order, and learn."""
    before = freeze(ROWS)
    same, X = IN_PARTS.get(name, {}), KINDS[kind](tmp_path, ROWS)
    by_gradients = is_gradient_trained(make(name))
    build = make_brief if by_gradients else make
    scores = build(name, **same).fit(X).score_samples(ROWS)
    assert np.isfinite(scores).all()
    assert freeze(ROWS) == before
    if by_gradients:
        # Two seeds of each: those of short fits differ by more than the kinds of tables. Half of
        # what two fits of the array learn is far from nothing, and more than seeds differ by.
        means = {"disk": [], "memory": [], "untrained": []}
        for seed in (0, 1):
            settings = {"random_state": seed, **same}
            start = {**settings, **entry(name).untrained}
            means["disk"].append(build(name, **settings).fit(X).score_samples(ROWS).mean())
            means["memory"].append(build(name, **settings).fit(ROWS).score_samples(ROWS).mean())
            means["untrained"].append(build(name, **start).fit(ROWS).score_samples(ROWS).mean())
        learnt = {key: np.mean(found) for key, found in means.items()}
        gain = learnt["memory"] - learnt["untrained"]
        assert learnt["disk"] - learnt["untrained"] > 0.5 * gain
    elif name != "LikelihoodRegretScorer":  # whose member follows gradients
        expected = make(name, **same).fit(ROWS).score_samples(ROWS)
        np.testing.assert_allclose(scores, expected, rtol=1e-8, atol=1e-8)
        if same:  # a whole fit: the minima of these rows differ by less than 0.05 nats
            whole = [make(name).fit(table).score(ROWS) for table in (X, ROWS)]
            assert abs(whole[0] - whole[1]) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_answers_to_a_memory_map_are_those_to_an_array(name, tmp_path):
    model, X = make_brief(name).fit(ROWS), mapped(tmp_path, ROWS)
    for method in row_methods(model):
        with sklearn.config_context(working_memory=0.018):
            assert isinstance(read_table(X, name), MappedTable)
            answer = getattr(model, method)(X)
        assert type(answer) is np.ndarray
        np.testing.assert_allclose(answer, getattr(model, method)(ROWS), rtol=1e-10, atol=1e-10)


MODELS = [name for name in NAMES if hasattr(getattr(sklebm, name), "_map_rows")]


@pytest.mark.parametrize("name", MODELS)
def test_answers_to_a_dask_array_are_computed_when_asked_for(name):
    model, X = make_brief(name).fit(ROWS), dask_array(ROWS)
    for method in row_methods(model):
        answer = getattr(model, method)(X)
        expected = getattr(model, method)(ROWS)
        assert answer.shape == expected.shape
        assert answer.dtype == expected.dtype
        # An answer that depends on rows of other blocks is computed at once.
        if name not in DEPEND_ON_NEIGHBOURS:
            assert type(answer).__module__.startswith("dask")
            answer = answer.compute()
        np.testing.assert_allclose(answer, expected, rtol=1e-10, atol=1e-10)
    if hasattr(model, "score"):
        assert model.score(X) == pytest.approx(model.score(ROWS), rel=1e-6)


def has_pairs(name):
    """Whether the model has an energy of rows and latents."""
    energy = getattr(make(name), "energy", None)
    return energy is not None and len(inspect.signature(energy).parameters) == 2


@pytest.mark.parametrize("name", [name for name in MODELS if has_pairs(name)])
def test_pairs_with_rows_of_a_dask_array_have_the_same_energy(name):
    model = make_brief(name).fit(ROWS)
    # What transform returns may be pooled.
    Z = getattr(model, "codes", model.transform)(ROWS)
    answer = model.energy(dask_array(ROWS), Z)
    np.testing.assert_allclose(answer, model.energy(ROWS, Z), rtol=1e-10, atol=1e-10)


def test_a_dask_array_of_another_width_is_refused_at_once():
    model = make("PCAWhitener").fit(ROWS)
    with pytest.raises(ValueError, match="X has 5 features"):
        model.transform(dask_array(ROWS[:, :5]))


SUMS = ["PCAWhitener", "ZCAWhitener", "EnergyPCA", "GaussianEnergy"]


@pytest.mark.parametrize("name", SUMS)
def test_blocks_one_by_one_are_one_fit(name):
    X = dask_array(ROWS, chunks=(90, -1))
    model, whole = make(name), make(name).fit(X)
    for block in X.blocks:
        model.partial_fit(block)
    for key, value in fitted_state(whole).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(getattr(model, key), value, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.score_samples(ROWS), whole.score_samples(ROWS), rtol=1e-9)


def test_validation_and_early_stopping_stream_as_well(tmp_path):
    settings = {"validation_fraction": 0.2, "n_iter_no_change": 3, "max_epochs": 8}
    model = make("BernoulliRBM", **settings).fit(mapped(tmp_path, ROWS))
    assert np.isfinite(model.validation_scores_).all()
    assert len(model.validation_scores_) == len(model.loss_curve_)


# ---------------------------------------------------------------- refusals


@kinds
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["PCAWhitener", "BernoulliRBM", "EnergyKMeans"])
def test_a_bad_value_anywhere_is_found(name, value, kind, tmp_path):
    bad = ROWS.copy()
    bad[333, 4] = value
    X = KINDS[kind](tmp_path, bad)
    model = make(name).fit(ROWS)
    before = freeze(vars(model))
    what = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(ValueError, match=f"Input X contains {what}"):
        model.fit(X)
    assert freeze(vars(model)) == before
    with pytest.raises(ValueError, match=f"Input X contains {what}"):
        np.asarray(model.score_samples(X))


@pytest.mark.parametrize("optimizer", ["gradient_descent", "lbfgs"])
def test_optimisers_that_need_all_rows_say_so(optimizer, tmp_path):
    model = make("BernoulliRBM", optimizer=optimizer, objective="maximum_likelihood")
    with pytest.raises(ValueError, match="needs all rows at every step"):
        model.fit(mapped(tmp_path, ROWS))


def test_tables_without_a_shape_are_refused():
    X = dask_array(ROWS)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        make("PCAWhitener").fit(X[X[:, 0] > 0.5])
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        make("PCAWhitener").fit(X[:, 0])


# ---------------------------------------------------------------- memory


def mapped_mebibytes():
    """Pages of files that count as memory of this process."""
    with open("/proc/self/status") as status:
        sizes = dict(line.split(":") for line in status)
    return sum(int(sizes[key].split()[0]) for key in ("RssFile", "RssShmem")) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")
@pytest.mark.parametrize("read_in", ["blocks", "single rows"])
def test_pages_of_a_file_are_given_back(read_in, tmp_path):
    n_rows = 2**18  # 128 MiB
    np.memmap(tmp_path / "rows.bin", dtype=np.float64, mode="w+", shape=(n_rows, 64)).flush()
    X = np.memmap(tmp_path / "rows.bin", dtype=np.float64, mode="r", shape=(n_rows, 64))
    table, before = MappedTable(X, "Model"), mapped_mebibytes()
    if read_in == "blocks":
        parts = table.blocks(2**12)
    else:
        parts = np.split(np.random.default_rng(0).permutation(n_rows)[: 2**13], 2)
    for part in parts:
        assert not table[part].any()
        assert mapped_mebibytes() - before < 70
    view = table[-10:]
    table[parts[0]]
    assert not view.any()
    assert X[:].sum() == 0.0
    assert mapped_mebibytes() - before > 100  # what is read past the table is not given back


def test_changes_that_only_memory_holds_are_kept(tmp_path):
    ROWS.tofile(tmp_path / "rows.bin")
    X = np.memmap(tmp_path / "rows.bin", dtype=ROWS.dtype, mode="c", shape=ROWS.shape)
    X[7] = 5.0
    table = MappedTable(X, "Model")
    for _ in range(2**25 // X.nbytes + 2):
        table[:]
    assert (table[7:8] == 5.0).all()


N_ROWS, BOUND = (4_000_000, 200) if FULL else (500_000, 40)  # 977 and 122 MiB of rows; MiB

# The kernel refuses memory beyond the limit: a copy of the rows, even for a moment, is an error.
BOUNDED = """
import re, resource, sys
import numpy as np, sklearn, torch
import sklebm

path, n_rows, bound = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
sklearn.set_config(working_memory=8)
generator = np.random.default_rng(0)
X = np.memmap(path, dtype=np.float32, mode="w+", shape=(n_rows, 64))
for start in range(0, n_rows, 20_000):
    part = X[start : start + 20_000]
    part[:] = 0.25 + 0.5 * (generator.random((len(part), 1)) > 0.5)
    part += 0.2 * generator.random(part.shape, dtype=np.float32)
X.flush()
X = np.memmap(path, dtype=np.float32, mode="r", shape=(n_rows, 64))
print(X.nbytes // 2**20)

settings = {"batch_size": 2000, "max_epochs": 1, "random_state": 0}
models = [
    sklebm.PCAWhitener(),
    sklebm.BernoulliRBM(8, log_partition=None, validation_fraction=0.01, **settings),
    sklebm.Autoencoder(4, hidden_sizes=(), learning_rate=0.01, optimizer="adam", **settings),
    sklebm.EnergyKMeans(2, random_state=0),
    sklebm.EnergyGaussianMixture(2, covariance_type="diag", random_state=0, max_iter=5, tol=0.1),
]
small = np.array(X[:3000])
for model in models:
    model.fit(small).score_samples(small)  # what libraries keep for themselves

models[-2].fit(np.array(X[:140_000]))  # enough for compiled kernels

def bind():
    status = open("/proc/self/status").read()
    used = int(re.search(r"VmData:\\s+(\\d+) kB", status)[1]) * 1024
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (used + bound * 2**20, hard))


for model in models:
    bind()  # what allocators keep after one model is not held against the next
    try:
        model.fit(X)
        scores = model.score_samples(X)
        print(type(model).__name__, len(scores), bool(np.isfinite(scores).all()))
    except MemoryError as error:
        print(type(model).__name__, "MemoryError", "fewer rows" in str(error))
try:
    np.array(X)
except MemoryError:
    print("all rows at once: MemoryError")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_fit_stays_within_its_memory(tmp_path):
    """A copy of the rows shows that the limit would be noticed."""
    report = run_python(BOUNDED, tmp_path / "rows.bin", N_ROWS, BOUND, **ALLOCATOR)
    mebibytes, *lines = report.splitlines()
    assert int(mebibytes) > 3 * BOUND
    assert lines == [
        f"PCAWhitener {N_ROWS} True",
        f"BernoulliRBM {N_ROWS} True",
        f"Autoencoder {N_ROWS} True",
        f"EnergyKMeans {N_ROWS} True",
        f"EnergyGaussianMixture {N_ROWS} True",
        "all rows at once: MemoryError",
    ]
