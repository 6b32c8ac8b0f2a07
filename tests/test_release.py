"""What a checkout keeps to itself, and what a release carries."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from fnmatch import fnmatch

import pytest

from tests.sampling import FULL
from tests.subprocesses import ROOT

SMOKE = ROOT / "tests" / "smoke.py"
COMMANDS = [
    ROOT / "CONTRIBUTING.md",
    ROOT / "README.md",
    ROOT / "tests" / "mutate.py",
    *(ROOT / "docs").rglob("*.rst"),
    *(ROOT / "benchmarks").glob("*.py"),
    *(ROOT / "benchmarks" / "results").glob("*.json"),
]


def written_by_documented_commands():
    """Files that commands, as the documentation shows them, write into the folder they run in."""
    for path in COMMANDS:
        text = path.read_text(encoding="utf-8")
        yield from re.findall(r"--(?:results|cache|runs|folder)[ =]((?!needs)[a-z][\w.]*)", text)
        yield from re.findall(r"--figure[ =](\w+\.png)", text)
        yield from re.findall(r'default=Path\("([\w.]+)"\)', text)
    demo = (ROOT / "examples" / "demo.py").read_text(encoding="utf-8")
    yield from re.findall(r'Path\("([\w.]+)"\)\.resolve\(\)', demo)


def test_git_ignores_what_documented_commands_write():
    lines = (ROOT / ".gitignore").read_text().splitlines()
    written = set(written_by_documented_commands())
    assert {"demo.png", "faults.json", "members", "machines", "redundancy.png"} <= written
    patterns = [line.strip("/") for line in lines if line and not line.startswith("#")]
    assert not {name for name in written if not any(fnmatch(name, p) for p in patterns)}


def test_clean_removes_what_the_demo_writes(tmp_path):
    make = shutil.which("make") or pytest.skip("needs make")
    for folder in ("benchmarks", "docs", "examples", "sklebm", "tests"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "demo.png").touch()
    subprocess.run([make, "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "demo.png").exists()


def tracked():
    """Names of the files under version control; skips where there is none, as in a release."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    found = subprocess.run(
        [git, "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [name for name in found.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_a_source_distribution_carries_every_file_but_the_set_up_of_the_server(tmp_path):
    """So that the tests pass in an unpacked one."""
    names = tracked()
    for name in names:
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "checkout" / name)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "checkout", check=True, capture_output=True
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        carried = {name.partition("/")[2] for name in file.getnames()}
    assert {name for name in names if not name.startswith(".ci/")} - carried == set()


def test_what_a_release_is_checked_with_passes_here(tmp_path):
    """``make release-check`` runs the script where only the wheel is; this is the checkout."""
    if not FULL:
        pytest.skip("two processes that fit four models: in make test-full")
    code = "import sys, runpy; sys.modules['matplotlib'] = sys.modules['rich'] = None; "
    code += f"sys.argv = ['smoke']; runpy.run_path({str(SMOKE)!r}, run_name='__main__')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "works in" in done.stdout
    assert not list(tmp_path.iterdir())
