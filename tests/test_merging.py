"""Equal rows with equal targets become one weighted row, in whatever form X comes."""

import numpy as np
import pytest
import scipy.sparse
import torch

from sklebm._shell.merging import merge_repeated
from sklebm._shell.rows import Rows


def make_table():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, size=(60, 3)).astype(float)
    return X, rng.integers(0, 2, size=60), rng.integers(0, 3, size=60).astype(float)


def merged(X, y, weight=None):
    rows = Rows(X, torch.device("cpu"))
    rows.columns["target"] = torch.from_numpy(y)
    if weight is not None:
        rows.columns["weight"] = torch.from_numpy(weight)
    return merge_repeated(rows)


FORMS = {
    "array": lambda X: X,
    "single": lambda X: X.astype(np.float32),
    "csr": scipy.sparse.csr_array,
    "tensor": torch.from_numpy,
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_those_of_a_dictionary(form):
    X, y, weight = make_table()
    found = merged(FORMS[form](X), y, weight)
    sums = {}
    for row, label, w in zip(X, y, weight, strict=True):
        sums[*row, label] = sums.get((*row, label), 0.0) + w
    sums = {key: value for key, value in sums.items() if value > 0}
    assert len(found) == len(sums)
    mean = np.mean(list(sums.values()))
    for index, row in enumerate(found.all().numpy()):
        key = (*row.astype(float), int(found.columns["target"][index]))
        assert float(found.columns["weight"][index]) == pytest.approx(sums[key] / mean)


def test_order_and_form_of_repetition_do_not_matter():
    X, y, weight = make_table()
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(60), weight.astype(int)))
    once, again = merged(X, y, weight), merged(X[order], y[order])
    assert torch.equal(once.all(), again.all())
    for name in ("target", "weight"):
        assert torch.equal(once.columns[name], again.columns[name])


def test_distinct_rows_have_no_weights():
    X = np.random.default_rng(0).normal(size=(20, 3))
    y = np.random.default_rng(1).normal(size=(20, 2))
    found = merged(X, y, np.full(20, 2.5))
    assert "weight" not in found.columns
    assert sorted(map(tuple, found.all().tolist())) == sorted(map(tuple, X.tolist()))
    pairs = {tuple(x): tuple(t) for x, t in zip(X.tolist(), y.tolist(), strict=True)}
    for row, target in zip(found.all().tolist(), found.columns["target"].tolist(), strict=True):
        assert pairs[tuple(row)] == tuple(target)
