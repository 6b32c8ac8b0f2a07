"""Processes that fit together: sums are those of one process, and all get the same model."""

import contextlib
import inspect
import io
import os
import runpy
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import sklearn
import torch
from sklearn.datasets import load_digits
from torch import nn

import sklebm
from sklebm import load, save
from tests.ranks import N_RANKS, needs_gloo
from tests.registry import (
    NAMES,
    fitted_state,
    freeze,
    is_gradient_trained,
    make,
    make_brief,
    make_rows,
)
from tests.sampling import FULL
from tests.subprocesses import ROOT

pytestmark = needs_gloo

ROWS = make_rows(400)
HELD_OUT = make_rows(300, seed=5)
CUT = 230  # rows of rank 0: ranks hold different numbers of them


def divides_rows(name):
    return "strategy" in inspect.signature(getattr(sklebm, name)).parameters


DIVIDED = [name for name in NAMES if divides_rows(name)]
GRADIENT = [name for name in DIVIDED if is_gradient_trained(make(name))]


def own_part(rank, X):
    return X[:CUT] if rank == 0 else X[CUT:]


def common(model):
    """Fitted state without what every rank has for itself."""
    return {k: v for k, v in fitted_state(model).items() if k not in model._own_to_each_rank}


# ---------------------------------------------------------------- sums


def fit_state(rank, name, settings, dtype=np.float64, weights=None):
    model = make(name, strategy="ddp", **settings)
    data = {} if weights is None else {"sample_weight": own_part(rank, weights)}
    return fitted_state(model.fit(own_part(rank, ROWS.astype(dtype)), **data))


SUMS = [
    ("PCAWhitener", {}),
    ("ZCAWhitener", {"ridge": 0.1}),
    ("EnergyPCA", {"shrinkage": "oas"}),
    ("GaussianEnergy", {}),
    ("GaussianEnergy", {"structure": "banded", "objective": "score_matching", "ridge": 0.1}),
    ("EnergyKMeans", {}),
    ("EnergyKMeans", {"n_clusters": 7, "n_init": 3}),  # runs that differ
    ("EnergyKMeans", {"n_clusters": 30}),
    # All but one of these own no row at first, and move onto rows of any rank.
    ("EnergyKMeans", {"init": np.eye(4, 6) * 100.0 + 50.0}),
    ("EnergyGaussianMixture", {}),
    ("EnergyGaussianMixture", {"covariance_type": "full", "n_init": 2}),
    ("EnergyGaussianMixture", {"covariance_type": "tied", "init": "random"}),
    ("EnergyGaussianMixture", {"covariance_type": "spherical", "means_init": ROWS[:4]}),
    ("SparseCoder", {"algorithm": "batch", "fit_intercept": True, "max_iter": 5}),
    # More atoms than rows need: some die, and point at rows of any rank.
    ("SparseCoder", {"n_components": 12, "batch_size": 50, "max_iter": 3, "alpha": 0.5}),
    ("SparseCoder", {"algorithm": "gradient", "batch_size": 100, "max_iter": 3}),
    ("SparseCoder", {"n_components": None, "dictionary": np.eye(6)}),
]


def assert_same_fit(states, whole, tolerance=1e-6):
    """The state of each rank is that of one process with all rows."""
    assert "n_features_in_" in whole
    for key, value in whole.items():
        found = states[0][key]
        if key == "labels_":
            found = np.concatenate([state[key] for state in states])
        if isinstance(value, (float, np.ndarray)):
            scale = np.abs(value).max(initial=1e-300)
            np.testing.assert_allclose(found, value, rtol=0, atol=tolerance * scale, err_msg=key)
        elif not isinstance(value, dict):
            assert found == value, key


@pytest.mark.parametrize(("name", "settings"), SUMS)
def test_sums_over_ranks_are_those_of_one_process(name, settings, world):
    states = world.run(fit_state, name, settings)
    assert_same_fit(states, fitted_state(make(name, **settings).fit(ROWS)))


def test_weights_and_single_precision(world):
    weights = np.random.default_rng(0).integers(0, 4, 400).astype(float)
    for name in ("EnergyKMeans", "EnergyGaussianMixture"):
        states = world.run(fit_state, name, {}, np.float32, weights)
        whole = make(name).fit(ROWS.astype(np.float32), sample_weight=weights)
        assert_same_fit(states, fitted_state(whole), 1e-5)


def fit_chunks(rank):
    model = make("PCAWhitener", strategy="ddp")
    for chunk in np.array_split(own_part(rank, ROWS), 3):
        model.partial_fit(chunk)
    return fitted_state(model)


def test_chunks_of_every_rank_are_one_fit(world):
    assert_same_fit(world.run(fit_chunks), fitted_state(make("PCAWhitener").fit(ROWS)))


# ---------------------------------------------------------------- gradients


def fit_and_compare(rank, name, settings, parts=(ROWS[:CUT], ROWS[CUT:]), *, agreed=True):
    """What the ranks have in common as bytes, chains, and the scores of rows held out."""
    from sklebm._shell.ranks import Ranks

    original = Ranks.agreed
    if not agreed:  # each rank keeps the numbers that it trained
        Ranks.agreed = lambda self, state, own: dict(state)
    try:
        model = make_brief(name, strategy="ddp", **settings).fit(parts[rank])
    finally:
        Ranks.agreed = original
    chains = [v for k, v in model.training_state_.items() if k.startswith("objective.")]
    return freeze(common(model)), chains, model.score_samples(HELD_OUT), model.n_samples_seen_


VARIANTS = [
    ("BernoulliRBM", {"optimizer": "momentum", "centering": False}),
    ("BernoulliRBM", {"objective": "fast_pcd"}),
    ("GaussianRBM", {"variance": "diagonal", "validation_fraction": 0.2}),
    ("Autoencoder", {"optimizer": "adamw"}),
    ("DeepEnergyModel", {"objective": "pcd", "log_partition": None}),
    ("DeepEnergyModel", {"layer_training": "greedy", "log_partition": None}),
]


@pytest.mark.table(8)
@pytest.mark.parametrize(("name", "settings"), [(name, {}) for name in GRADIENT] + VARIANTS)
def test_ranks_train_the_same_weights_to_the_bit(name, settings, world):
    """Also before the numbers of rank 0 are handed round at the end of the fit."""
    kept = world.run(fit_and_compare, name, settings)
    assert kept[0][0] == kept[1][0]
    assert all(np.isfinite(scores).all() for _, _, scores, _ in kept)
    assert [n_rows for *_, n_rows in kept] == [400, 400]


def test_training_itself_never_parts_the_ranks(world):
    for name in ("BernoulliRBM", "GaussianRBM", "Autoencoder"):
        first, second = (
            frozen for frozen, *_ in world.run(_fit_without_agreement, name, {"max_epochs": 5})
        )
        assert first == second, name


def _fit_without_agreement(rank, name, settings):
    return fit_and_compare(rank, name, settings, agreed=False)


def test_chains_are_those_of_each_rank(world):
    settings = {"objective": "pcd", "max_epochs": 3, "batch_size": 20}
    # On the same rows, or they would differ for that reason alone.
    (_, first, *_), (_, second, *_) = world.run(
        fit_and_compare, "BernoulliRBM", settings, (ROWS[:200], ROWS[:200])
    )
    assert len(first) == 2  # hidden and visible states
    for own, other in zip(first, second, strict=True):
        assert own.shape == other.shape
        assert len(own) == settings["batch_size"] // N_RANKS
        assert (own != other).any()


SORTED = ROWS[ROWS.sum(axis=1).argsort()]  # parts that differ
EXACT = [
    ("BernoulliRBM", {"objective": "maximum_likelihood", "optimizer": "gradient_descent"}),
    ("GaussianRBM", {"objective": "score_matching", "optimizer": "lbfgs", "variance": 0.05}),
    ("PredictiveSparseDecomposition", {"optimizer": "gradient_descent"}),
]


def fit_exactly(rank, name, settings):
    return common(make(name, strategy="ddp", **settings).fit(own_part(rank, SORTED)))


@pytest.mark.parametrize(("name", "settings"), EXACT)
def test_steps_on_all_rows_are_those_of_one_process(name, settings, world):
    """Nothing is drawn and every step sees all rows: the course itself must be the same."""
    # A line search in single precision amplifies rounding.
    settings = {**settings, "max_epochs": 2 if settings["optimizer"] == "lbfgs" else 10}
    state = world.run(fit_exactly, name, settings)[0]
    whole = common(make(name, **settings).fit(SORTED))
    np.testing.assert_allclose(state["loss_curve_"], whole["loss_curve_"], rtol=1e-5)
    for key in ("hidden_means_", "components_"):
        if settings["optimizer"] != "lbfgs" and key in whole:
            np.testing.assert_allclose(state[key], whole[key], rtol=1e-3, atol=1e-5, err_msg=key)


#: Curves, and what follows the rows of single batches.
FOLLOWS_BATCHES = ("loss_curve_", "free_energy_gaps_", "hidden_means_", "log_partition_interval_")


BEGIN = [(name, {}) for name in GRADIENT] + [("VAE", {"likelihood": "gaussian"})]


def begin_only(rank, cases):
    """Arrays of models that have not moved from where they began."""
    begun = {}
    for name, settings in cases:
        model = make_brief(name, learning_rate=1e-12, max_epochs=1, **settings)
        if rank is not None:
            model.set_params(strategy="ddp")
        state = common(model.fit(SORTED if rank is None else own_part(rank, SORTED)))
        arrays = {**state, **state.get("weights_", {})}
        begun |= {
            f"{name}{settings}.{key}": value
            for key, value in arrays.items()
            if isinstance(value, np.ndarray) and value.dtype.kind == "f"
            if key not in FOLLOWS_BATCHES
        }
    return begun


def test_training_begins_where_that_of_one_process_does(world):
    whole = begin_only(None, BEGIN)
    begun = world.run(begin_only, BEGIN)[0]
    assert begun.keys() == whole.keys()
    for key, value in whole.items():
        np.testing.assert_allclose(begun[key], value, rtol=1e-3, atol=1e-5, err_msg=key)


SHORT = {"batch_size": 40, "max_epochs": 12}


def score_of(rank, name):
    model = make(name, strategy="ddp", **SHORT).fit(own_part(rank, ROWS))
    return model.score_samples(HELD_OUT).mean()


NOISY = ["BernoulliRBM", "DenoisingAutoencoder", *(["DeepEnergyModel"] if FULL else [])]


@pytest.mark.parametrize("name", NOISY)
def test_scores_are_those_of_one_process_within_noise(name, world):
    found, same = world.run(score_of, name)
    assert found == same
    models = [make(name, **SHORT, random_state=seed).fit(ROWS) for seed in range(5)]
    seeds = [model.score_samples(HELD_OUT).mean() for model in models]
    assert abs(found - np.mean(seeds)) < 4 * np.std(seeds, ddof=1)
    untrained = make(name, learning_rate=1e-12, max_epochs=1).fit(ROWS)
    assert found > untrained.score_samples(HELD_OUT).mean()


class Normalised(nn.Sequential):
    """Layers that keep running means of the rows they saw."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__(nn.BatchNorm1d(n_inputs), nn.Linear(n_inputs, n_outputs))


def fit_normalised(rank):
    """Running means after fit and partial_fit, where the rows of the ranks lie apart."""
    X, means = own_part(rank, ROWS) + 10.0 * rank, []
    model = make("Autoencoder", strategy="ddp", encoder=Normalised, batch_size=20)
    for learn in (model.fit, model.partial_fit):
        learn(X)
        means.append(model.weights_["encoder.0.running_mean"] * model.scale_ + model.offset_)
    return np.array(means)


def test_running_means_of_layers_are_those_of_all_rows(world):
    first, second = world.run(fit_normalised)
    np.testing.assert_array_equal(first, second)
    middle = (ROWS[:CUT].mean(axis=0) + ROWS[CUT:].mean(axis=0)) / 2 + 5.0
    # Running means weigh batches by .1 x .9^age: those of two ranks, with rows of standard
    # deviation .4, have standard errors of .4 / sqrt(2 * 20 * 19) = .015; short batches add to it.
    np.testing.assert_allclose(first, [middle, middle], atol=0.1)


class Masked(nn.Linear):
    """A layer with buffers of types that are no numbers to take means of."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__(n_inputs, n_outputs)
        self.register_buffer("used", torch.tensor([True, False]))
        self.register_buffer("order", torch.tensor([2, 0, 1]))


def fit_masked(rank):
    model = make_brief("Autoencoder", strategy="ddp", encoder=Masked).fit(own_part(rank, ROWS))
    return [model.weights_[f"encoder.{name}"].tolist() for name in ("used", "order")]


def test_other_buffers_stay_as_they_are(world):
    first, second = world.run(fit_masked)
    assert first == second == [[True, False], [2, 0, 1]]


def fit_with_stopping(rank):
    settings = {"validation_fraction": 0.2, "n_iter_no_change": 2, "max_epochs": 60, "tol": 1e-3}
    model = make("BernoulliRBM", strategy="ddp", **settings).fit(own_part(rank, ROWS))
    return model.n_iter_, model.validation_scores_.tolist(), freeze(common(model))


def test_ranks_stop_at_the_same_epoch(world):
    first, second = world.run(fit_with_stopping)
    assert first == second
    assert first[0] < 60


def learn_from_disk_and_chunks(rank, folder):
    path = f"{folder}/rows-{rank}.bin"
    part = np.ascontiguousarray(own_part(rank, ROWS))
    part.tofile(path)
    X = np.memmap(path, dtype=part.dtype, mode="r", shape=part.shape)
    model = make("BernoulliRBM", strategy="ddp", max_epochs=2)
    with sklearn.config_context(working_memory=0.004):
        model.fit(X)
    for chunk in np.array_split(X, 3):
        model.partial_fit(chunk)
    seen = model.n_samples_seen_
    model.set_params(warm_start=True).fit(scipy.sparse.csr_matrix(part))
    return freeze(common(model)), seen, model.n_iter_, model.score_samples(HELD_OUT).mean()


def test_rows_on_disk_chunks_and_sparse_rows(world, tmp_path):
    first, second = world.run(learn_from_disk_and_chunks, str(tmp_path))
    assert first == second
    _, seen, n_epochs, score = first
    assert (seen, n_epochs) == (800, 2)
    assert score > make("BernoulliRBM", max_epochs=1).fit(ROWS).score_samples(HELD_OUT).mean()


# ---------------------------------------------------------------- around the fit


class StopAfterTwo:
    """A callback of one rank."""

    def __init__(self):
        self.n_steps = 0

    def __deepcopy__(self, memo):
        return self

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        assert np.isfinite(fitted_estimator.score_samples(HELD_OUT)).all()
        self.n_steps += 1
        return self.n_steps >= 2


def fit_watched(rank, name):
    model = make(name, strategy="ddp")
    if rank == 1:
        model.set_callbacks(StopAfterTwo())
    return model.fit(own_part(rank, ROWS)).n_iter_


@pytest.mark.parametrize("name", ["BernoulliRBM", "EnergyKMeans", "EnergyGaussianMixture"])
def test_a_callback_of_one_rank_stops_all(name, world):
    assert world.run(fit_watched, name) == [2, 2]


def fit_and_save(rank, path):
    # Rank 0 says whether to print.
    models = [
        make_brief("BernoulliRBM", strategy="ddp", verbose=1),
        make("EnergyKMeans", strategy="ddp", verbose=rank == 0),
    ]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for model in models:
            model.fit(own_part(rank, ROWS))
    save(models[0], path.replace("RANK", str(rank)))
    return printed.getvalue().splitlines(), freeze(common(models[0]))


def test_only_rank_0_prints_and_saves(world, tmp_path):
    first, second = world.run(fit_and_save, str(tmp_path / "model-RANK.safetensors"))
    assert [line.split()[0] for line in first[0]][:5] == ["epoch", "-------", "1", "2", "iteration"]
    assert float(first[0][-1].split()[1]) == pytest.approx(make("EnergyKMeans").fit(ROWS).inertia_)
    assert second[0] == []
    assert os.listdir(tmp_path) == ["model-0.safetensors"]
    assert freeze(common(load(tmp_path / "model-0.safetensors"))) == first[1] == second[1]


@pytest.mark.parametrize("name", ["BernoulliRBM", "EnergyKMeans", "SparseCoder"])
def test_one_process_alone_is_an_ordinary_fit(name):
    one, other = make_brief(name).fit(ROWS), make_brief(name, strategy="ddp").fit(ROWS)
    assert freeze(fitted_state(one)) == freeze(fitted_state(other))


REFUSED = [
    ("PCAWhitener", {"shrinkage": "ledoit_wolf"}, "fit", "ledoit_wolf"),
    ("GaussianEnergy", {"objective": "noise_contrastive"}, "fit", "noise_contrastive"),
    ("EnergyKMeans", {"batch_size": 40}, "fit", "batch_size=40"),
    ("EnergyKMeans", {}, "partial_fit", "partial_fit"),
    ("EnergyGaussianMixture", {}, "partial_fit", "partial_fit"),
    ("SparseCoder", {}, "partial_fit", "partial_fit"),
    (
        "BernoulliRBM",
        {"net_params": {"iterator_train": torch.utils.data.DataLoader}},
        "fit",
        "same number of batches",
    ),
]


def learn(rank, name, settings, method):
    getattr(make_brief(name, strategy="ddp", **settings), method)(own_part(rank, ROWS))


@pytest.mark.parametrize(("name", "settings", "method", "words"), REFUSED)
def test_what_needs_all_rows_in_one_process_says_so(name, settings, method, words, world):
    for _, error in world.outcomes(learn, name, settings, method):
        assert error.startswith("ValueError")
        assert words in error


def make_other_call(rank, what):
    X, model = own_part(rank, ROWS), make_brief("BernoulliRBM", strategy="ddp")
    if what == "features":
        X = X[:, : 6 - rank]
    elif what == "type":
        X = X.astype([np.float64, np.float32][rank])
    elif what == "batch_size":
        model.set_params(batch_size=len(X) // 2)
    elif what == "fitted model" and rank == 0:
        model = make_brief("BernoulliRBM").fit(X).set_params(strategy="ddp", warm_start=True)
    elif what == "fitted model":
        model.set_params(warm_start=True)
    model.fit(X)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("features", "the number of features of X is 5 on rank 1, but 6 on rank 0"),
        ("type", "the type of X is 'torch.float32' on rank 1, but 'torch.float64' on rank 0"),
        ("batch_size", "batch_size is 85 on rank 1, but 115 on rank 0"),
        ("fitted model", "from a fitted model is False on rank 1, but True on rank 0"),
    ],
)
def test_other_calls_are_refused(what, message, world):
    (_, first), (_, second) = world.outcomes(make_other_call, what)
    assert second.startswith("ValueError: ")
    assert message in second
    assert first.startswith("RuntimeError: Another process")
    assert message in first


def test_torch_without_gloo_is_named(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_gloo_available", lambda: False)
    with pytest.raises(ImportError, match="pip install torch"):
        make("PCAWhitener", strategy="ddp").fit(ROWS)


SCRIPT = ROOT / "docs" / "fit_with_torchrun.py"


def run_script(rank, folder):
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return printed.getvalue()


def check_script(printed, folder):
    X = (load_digits().data / 16).astype(np.float32)
    alone = sklebm.EnergyKMeans(10, random_state=0).fit(X).inertia_
    assert printed.count("k-means inertia") == 1
    assert f"k-means inertia {alone:.3f}" in printed
    assert load(folder / "rbm.safetensors").n_samples_seen_ == len(X)


def test_the_script_of_the_documentation(world, tmp_path):
    first, second = world.run(run_script, str(tmp_path))
    assert second == ""
    check_script(first, tmp_path)


def test_the_script_of_the_documentation_does_nothing_when_it_is_imported(tmp_path):
    """pytest imports it from the checkout, to look for doctests."""
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(str(SCRIPT), run_name="fit_with_torchrun")
    assert printed.getvalue() == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not FULL, reason="SKLEBM_TEST_FULL=1 starts torchrun, which takes long")
def test_the_script_of_the_documentation_under_torchrun(tmp_path):
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={N_RANKS}"]
    result = subprocess.run(
        [sys.executable, *launch, str(SCRIPT)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    check_script(result.stdout, tmp_path)
