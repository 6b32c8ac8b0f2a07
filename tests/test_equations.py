"""Displayed equations of the pages end their lines where there is room to."""

import importlib
import sys

import pytest

from tests.subprocesses import ROOT

LONG = (
    r"E(x, z) = \tfrac12 \|x - \sum_k z_k d_k\|^2 + \alpha \|z\|_1 + \beta \|z - f(x)\|^2"
    r" + \gamma \|D\|^2"
)


@pytest.fixture(scope="module")
def mathml():
    pytest.importorskip("sphinx", reason="the pages are built with sphinx")
    folder = str(ROOT / "docs" / "_ext")
    sys.path.append(folder)
    try:
        yield importlib.import_module("mathml")
    finally:
        sys.path.remove(folder)


def test_signs_are_counted_not_their_names(mathml):
    assert mathml.n_signs("a + b_1") == mathml.n_signs(r"\alpha + \beta_{1}") == 4
    assert mathml.n_signs(r"\tfrac12 \log x") == 6


def test_a_long_line_ends_at_a_wide_space(mathml):
    short, second = r"F(x) = \min_z E(x, z)", r"\|d_k\| \le 1"
    assert mathml.broken(rf"{short}, \qquad {second}") == [rf"{short}, \qquad {second}"]
    lines = mathml.broken(rf"{LONG}, \qquad {short}, \qquad {second}")
    assert lines == [f"{LONG},", rf"{short}, \qquad {second}"]


@pytest.mark.parametrize("tex", [rf"{LONG} \\ {LONG}", rf"{{{LONG} \qquad {LONG}}}", LONG * 2])
def test_a_line_without_such_a_place_stays(mathml, tex):
    assert mathml.broken(tex) == [tex]
