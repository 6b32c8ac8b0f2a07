"""Where machine code is kept: found again by the next process, in a folder of the user alone."""

import os
import sys

import pytest

from sklebm.inference import _compiled
from tests.subprocesses import run_python

posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions as POSIX has them")

COMPILE = """
import numpy as np
from sklebm.inference._distances import down, exact_distance
print(float(down(1.0)) < 1.0, exact_distance(np.ones(3), np.zeros(3)))
stats = exact_distance.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    _compiled._folder.cache_clear()
    yield
    _compiled._folder.cache_clear()


@pytest.mark.skipif(sys.platform == "darwin", reason="the folder of a user is fixed there")
def test_the_second_process_does_not_compile(tmp_path):
    assert run_python(COMPILE).split() == ["True", "3.0", "0", "1"]
    assert any((tmp_path / "sklebm").rglob("*.nbi"))
    assert run_python(COMPILE).split() == ["True", "3.0", "1", "0"]


@posix
@pytest.mark.parametrize("mode", [0o770, 0o777])
def test_a_folder_that_others_may_write_to_is_not_used(mode, monkeypatch, tmp_path):
    monkeypatch.setattr(_compiled, "_user_caches", lambda: tmp_path)
    folder = _compiled._folder()
    assert os.stat(folder).st_mode & 0o077 == 0
    os.chmod(folder, mode)
    _compiled._folder.cache_clear()
    assert _compiled._folder() == ""


def test_another_text_of_the_kernels_has_another_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(_compiled, "_user_caches", lambda: tmp_path)
    (tmp_path / "code").mkdir()
    monkeypatch.setattr(_compiled, "__file__", str(tmp_path / "code" / "_compiled.py"))
    kernels = tmp_path / "code" / "kernels.py"
    folders = []
    for text in ("import _compiled\n1", "import _compiled\n2", "import _compiled\n1"):
        kernels.write_text(text)
        _compiled._folder.cache_clear()
        folders.append(_compiled._folder())
    assert folders[0] == folders[2] != folders[1]


@posix
def test_without_a_place_to_write_code_stays_in_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(_compiled, "_user_caches", lambda: tmp_path / "file" / "below")
    (tmp_path / "file").write_text("no folder")
    assert _compiled._folder() == ""
    add = _compiled.compiled()(lambda a, b: a + b)
    assert add(1, 2) == 3
