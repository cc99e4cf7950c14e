"""The short versions of `benchmarks/fuzz.py`, `soak.py` and `kill.py`; those of `corrupt.py` are in test_damaged.py and
test_disk.py.
"""

import os
import subprocess
import sys

import pytest

from helpers import TESTS

sys.path.insert(0, str(TESTS / "benchmarks"))


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A shell on a small store with one of everything."""
    import cells
    import corrupt
    from IPython.core.interactiveshell import InteractiveShell

    for name in ("HOME", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"JUPYTER_GPT_{name}", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    InteractiveShell.clear_instance()
    ip = cells.shell()
    corrupt.build(ip)
    yield ip
    InteractiveShell.clear_instance()


def test_magic_lines_at_random(shell):
    import fuzz

    lines, faults = fuzz.attack(shell, 100, seed=7)
    assert [fault for fault in faults if not fault.startswith("slow")] == [] and lines < 100  # a busy machine is slow


def test_rounds_of_everything_leave_nothing_behind(shell):
    import soak

    ran, faults = soak.attack(shell, 0, 3, seed=1, tell=lambda *_, **__: None)
    assert [
        fault for fault in faults if not fault.startswith(("memory", "files"))
    ] == [] and ran > 50  # settles in more rounds


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes that are killed are forked")
def test_killed_at_calls_to_the_file_system():
    """In a process of its own: one that has threads must not be forked."""
    file = TESTS / "benchmarks" / "kill.py"
    done = subprocess.run([sys.executable, str(file), "--kills", "2"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("2 processes killed, 0 faults"), done.stdout + done.stderr
