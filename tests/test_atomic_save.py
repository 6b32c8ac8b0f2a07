"""A save that fails, or a process that is killed while saving, leaves the old file whole."""

import errno
import os
import stat
import subprocess
import sys
import textwrap

import pytest

import sklebm
from sklebm import PCAWhitener
from sklebm._shell import tensor_file
from tests.registry import make_rows


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_files_have_the_permissions_of_any_new_file(path):
    sklebm.save(PCAWhitener(), path)
    other = path.with_name("other")
    other.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file_alone(step, fault, path, monkeypatch):
    sklebm.save(PCAWhitener(2).fit(make_rows()[:, :3]), path)
    whole = path.read_bytes()

    def fail(*args):
        raise fault

    if step == "write":
        monkeypatch.setattr(tensor_file, "open", HalfWriter(fail), raising=False)
    else:
        monkeypatch.setattr(tensor_file.os, step, fail)
    with pytest.raises(type(fault)):
        sklebm.save(PCAWhitener().fit(make_rows()), path)
    monkeypatch.undo()
    assert path.read_bytes() == whole
    assert [item.name for item in path.parent.iterdir()] == [path.name]


class HalfWriter:
    """Stands in for ``open``: half of what is written arrives, and then something happens."""

    def __init__(self, then):
        self.then = then

    def __call__(self, *args):
        self.file = open(*args)  # noqa: SIM115
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        self.then()


CRASHES = """
    import os, resource, signal, sys
    from pathlib import Path
    import numpy as np, sklebm
    from sklebm._shell import tensor_file
    from tests.test_atomic_save import HalfWriter

    path = Path(sys.argv[1])
    old, new = (sklebm.PCAWhitener(ridge=r).fit(np.eye(50)) for r in (0.1, 0.2))
    sklebm.save(old, path)
    before = path.read_bytes()

    def die(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    def die_after(function):
        return lambda *args: (function(*args), die())

    def limit_file_size():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    steps = {
        "open": lambda: setattr(tensor_file, "open", die),
        "write": lambda: setattr(tensor_file, "open", HalfWriter(die)),
        "fsync": lambda: setattr(tensor_file.os, "fsync", die),
        "replace": lambda: setattr(tensor_file.os, "replace", die),
        "replaced": lambda: setattr(tensor_file.os, "replace", die_after(os.replace)),
        "full": limit_file_size,
    }
    for name, prepare in steps.items():
        child = os.fork()
        if child == 0:
            prepare()
            try:
                sklebm.save(new, path)
            except OSError as error:
                os._exit(0 if name == "full" and "large" in str(error) else 1)
            os._exit(2)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed == (name != "full") and status in (0, signal.SIGKILL), (name, status)
        assert (path.read_bytes() == before) == (name != "replaced"), name
        assert sklebm.load(path).ridge == (0.2 if name == "replaced" else 0.1), name
        left = [item for item in path.parent.iterdir() if item != path]
        assert len(left) == (name in ("write", "fsync", "replace")), (name, left)
        for item in left:
            item.unlink()
        sklebm.save(old, path)
    print("survived")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, SIGKILL and resource limits")
def test_a_killed_save_and_a_full_disk_leave_the_old_file(path):
    command = [sys.executable, "-c", textwrap.dedent(CRASHES), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout == "survived\n", done.stderr
