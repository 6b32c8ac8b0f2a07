"""Compiled steps keep BLAS to one thread, and put back what the user had."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from sklebm import BernoulliRBM
from sklebm.inference import contrast_steps
from sklebm.training.one_thread import one_blas_thread


def blas_threads():
    return {part["num_threads"] for part in threadpool_info() if part["user_api"] == "blas"}


@pytest.fixture
def _two_threads():
    import scipy.linalg.cython_blas  # noqa: F401

    with threadpool_limits(2, user_api="blas"):
        assert blas_threads() == {2}
        yield


@pytest.mark.usefixtures("_two_threads")
def test_the_limit_holds_inside_and_ends_with_the_outermost_block():
    with one_blas_thread():
        with one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {2}


@pytest.mark.usefixtures("_two_threads")
def test_a_thread_inside_another_leaves_the_limit_alone():
    """It finds one thread, which is not what the program had set."""
    entered, left = threading.Event(), threading.Event()

    def second():
        with one_blas_thread():
            entered.set()
            left.wait(10)

    with one_blas_thread():
        other = threading.Thread(target=second)
        other.start()
        assert entered.wait(10)
        assert blas_threads() == {1}
    assert blas_threads() == {2}
    left.set()
    other.join()
    assert blas_threads() == {2}
    with one_blas_thread():
        assert blas_threads() == {1}
    assert blas_threads() == {2}


@pytest.mark.usefixtures("_two_threads")
def test_the_limit_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        raise ZeroDivisionError
    assert blas_threads() == {2}


@pytest.mark.usefixtures("_two_threads")
def test_compiled_steps_of_a_machine_run_on_one_thread(monkeypatch):
    seen, steps = [], contrast_steps.contrast_steps

    def watched(*arguments):
        seen.append(blas_threads())
        return steps(*arguments)

    monkeypatch.setattr(contrast_steps, "contrast_steps", watched)
    X = np.random.default_rng(0).integers(2, size=(40, 6)).astype(np.float32)
    BernoulliRBM(3, max_epochs=2, batch_size=10, random_state=0, device="cpu").fit(X)
    assert seen
    assert all(threads == {1} for threads in seen)
    assert blas_threads() == {2}
