"""What the README says works: its code runs, its commands exist."""

import re

import pytest

from tests.subprocesses import ROOT, run_python

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCKS = [
    (page.name, number, code)
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize(("page", "number", "code"), BLOCKS, ids=[f"{p} {n}" for p, n, _ in BLOCKS])
def test_code_block_runs(page, number, code):
    """Without a warning; it prints what its comments say, behind the last colon and a space."""
    printed = run_python(f"import warnings\nwarnings.simplefilter('error')\n{code}").splitlines()
    said = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert len(said) == len(printed)
    for comment, line in zip(said, printed, strict=True):
        if re.fullmatch(r"-?\d+\.\d+", line):  # the last digit may round the other way elsewhere
            assert float(comment.rpartition(": ")[2]) == pytest.approx(float(line), abs=0.1)
        else:
            assert comment.endswith(f": {line}")


def test_the_first_example_is_short():
    assert BLOCKS[0][0] == "README.md"
    assert len(BLOCKS[0][2].strip().splitlines()) <= 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"\bmake ([a-z-]+)(?= |`|\n|\))", page.read_text()):
        if target not in ("sure", "it", "the", "and"):
            assert target in targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (ROOT / target).exists(), target
