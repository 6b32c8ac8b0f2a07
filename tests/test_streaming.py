"""Rows stream through in chunks: the same answers whatever the memory, and no more than allowed."""

import warnings

import numpy as np
import pytest
import sklearn
import torch

import sklebm._shell.rows
from sklebm._shell.rows import chunk_size
from tests.registry import NAMES, all_row_methods, make, make_rows, make_variants, row_methods

every = pytest.mark.parametrize("name", NAMES)
TINY = 0.001  # MiB: a row or a few at a time
SMALL = 0.004  # MiB: at least two rows at a time, so that a chunk can be halved


@every
def test_answers_do_not_depend_on_working_memory(name):
    X = make_rows(120, seed=1)
    for model in make_variants(name):
        model.fit(make_rows())
        calls = [(method, X) for method in all_row_methods(model)]
        if hasattr(model, "inverse_transform"):
            calls.append(("inverse_transform", model.transform(X)))
        for method, rows in calls:
            whole = getattr(model, method)(rows)
            with sklearn.config_context(working_memory=TINY):
                pieces = getattr(model, method)(rows)
            np.testing.assert_allclose(pieces, whole, rtol=1e-10, atol=1e-10, err_msg=method)


@every
def test_fits_do_not_depend_on_working_memory(name):
    X = make_rows(400)
    whole = make(name).fit(X).score_samples(X)
    with sklearn.config_context(working_memory=TINY):
        model = make(name).fit(X)
    # Its batches are cut, so that sums of gradients in float32 are rounded in another order.
    rtol = 1e-5 if name == "ConvPredictiveSparseDecomposition" else 1e-8
    np.testing.assert_allclose(model.score_samples(X), whole, rtol=rtol, atol=1e-8)


class FailsOnce:
    """Stands in for ``Rows.__getitem__``: runs out of memory at one chunk, or at all large ones."""

    def __init__(self, monkeypatch, error, *, at_chunk=None, larger_than=None):
        self.error, self.at_chunk, self.larger_than = error, at_chunk, larger_than
        self.n_calls = 0
        original = sklebm._shell.rows.Rows.__getitem__
        monkeypatch.setattr(
            sklebm._shell.rows.Rows, "__getitem__", lambda rows, index: self(original, rows, index)
        )

    def __call__(self, original, rows, index):
        part = original(rows, index)
        self.n_calls += 1
        if self.n_calls == self.at_chunk or (self.larger_than and len(part) > self.larger_than):
            raise self.error
        return part


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
]


@every
@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "python", "torch cpu"])
@pytest.mark.parametrize("fault", [{"at_chunk": 1}, {"at_chunk": 3}, {"larger_than": 1}])
def test_out_of_memory_means_smaller_chunks(name, error, fault, monkeypatch):
    X = make_rows(150, seed=1)
    model = make(name).fit(make_rows())
    # A model that compares each row with stored ones needs more for two rows.
    floats = model._floats_per_row() if hasattr(model, "_floats_per_row") else 0
    small = max(SMALL, 2.5 * 8 * floats / 2**20)
    for method in row_methods(model):
        expected = getattr(model, method)(X)
        with monkeypatch.context() as patch, sklearn.config_context(working_memory=small):
            FailsOnce(patch, error, **fault)
            with pytest.warns(RuntimeWarning, match=r"ran out of memory.*working_memory") as caught:
                result = getattr(model, method)(X)
        assert len(caught) == 1
        np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:.*ran out of memory:RuntimeWarning")
def test_chunks_are_halved_not_shortened(monkeypatch):
    """From 4,000 rows to the 100 that fit: six attempts, not thousands."""
    X = make_rows(4000, seed=1)
    model = make("PCAWhitener").fit(make_rows())
    expected = model.score_samples(X)
    sizes, original = [], sklebm._shell.rows.Rows.__getitem__

    def at_most_a_hundred(rows, index):
        part = original(rows, index)
        sizes.append(len(part))
        if len(part) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return part

    monkeypatch.setattr(sklebm._shell.rows.Rows, "__getitem__", at_most_a_hundred)
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-10)
    failed = [size for size in sizes if size > 100]
    assert failed == [4000, 2000, 1000, 500, 250, 125]
    assert max(size for size in sizes if size <= 100) == 62


@pytest.mark.parametrize("place", [0, 1234, 3999])
def test_a_row_without_an_answer_is_named_by_its_place_in_x(place):
    X = make_rows(4000, seed=1)
    X[place, 2] = 1e200  # its square overflows
    model = make("PCAWhitener").fit(make_rows())
    for memory in (0.05, 1024):
        with (
            sklearn.config_context(working_memory=memory),
            pytest.raises(
                FloatingPointError, match=rf"for row {place} \(largest \|X\| there: 1e\+200"
            ),
        ):
            model.score_samples(X)


@every
@pytest.mark.filterwarnings("ignore:.*ran out of memory:RuntimeWarning")
def test_not_even_one_row_fits(name, monkeypatch):
    model = make(name).fit(make_rows())
    FailsOnce(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"), larger_than=0.5)
    with pytest.raises(MemoryError, match="even for one row"):
        model.score_samples(make_rows())


@every
def test_other_faults_are_not_taken_for_memory(name, monkeypatch):
    model = make(name).fit(make_rows())
    FailsOnce(monkeypatch, RuntimeError("a bug"), at_chunk=1)
    with pytest.raises(RuntimeError, match="a bug"):
        model.score_samples(make_rows())


def test_chunks_are_larger_on_a_gpu():
    """Small ones would leave it waiting for launches; working_memory bounds both."""
    with sklearn.config_context(working_memory=1024):
        here, there = (chunk_size(10**9, 1024, torch.device(name)) for name in ("cpu", "cuda"))
        assert here == 64 * 128
        assert there == 1024 * 128
    with sklearn.config_context(working_memory=1):
        assert chunk_size(10**9, 1024, torch.device("cuda")) == 128


def test_a_row_too_large_for_caches_but_not_for_working_memory_is_no_cause_for_a_warning():
    large = 65 * 2**20 // 8  # numbers in a row of 65 MiB
    with sklearn.config_context(working_memory=128), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chunk_size(10, large) == 1
    with (
        sklearn.config_context(working_memory=64),
        pytest.warns(UserWarning, match="working_memory config. Currently 64MiB, 65MiB required"),
    ):
        assert chunk_size(10, large) == 1
