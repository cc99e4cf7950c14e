"""The short versions of the attacks in `benchmarks/`: fuzz, soak, corrupt, disk and kill."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import TESTS

sys.path.insert(0, str(TESTS / "benchmarks"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A shell, and a small store with one of everything, made once."""
    import cells
    import corrupt
    import torch
    from IPython.core.interactiveshell import InteractiveShell

    threads, folder = torch.get_num_threads(), tmp_path_factory.mktemp("store")
    torch.set_num_threads(1)
    InteractiveShell.clear_instance()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "CACHE", "CONFIG"):
            patch.setenv(f"JUPYTER_GPT_{name}", str(folder / name))
        ip = cells.shell()
        corrupt.build(ip)
        yield ip, folder
    InteractiveShell.clear_instance()
    torch.set_num_threads(threads)


@pytest.fixture
def shell(built, tmp_path, monkeypatch):
    """The shell on a copy of the store, under `tmp_path`."""
    from jupyter_gpt import gpt

    ip, folder = built
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for name in ("HOME", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"JUPYTER_GPT_{name}", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    for known in (gpt.runs.known, gpt.models.resident, gpt.indexes.open):
        known.clear()
    return ip


def test_magic_lines_at_random(shell):
    import fuzz

    lines, faults = fuzz.attack(shell, 300, seed=7)
    assert [fault for fault in faults if not fault.startswith("slow")] == [] and lines < 300  # a busy machine is slow


def test_rounds_of_everything_leave_nothing_behind(shell):
    import soak

    ran, faults = soak.attack(shell, 0, 3, seed=1, tell=lambda *_, **__: None)
    settling = ("memory", "files")  # in more rounds
    assert [fault for fault in faults if not fault.startswith(settling)] == [] and ran > 50


def test_a_damaged_file_is_one_line_everywhere(shell, tmp_path):
    import corrupt

    ran, lines, faults, erased = corrupt.attack(shell, tmp_path / "HOME", 50, seed=0)
    assert (faults, erased) == ([], []) and ran >= 50 and lines > 8
    assert Path(os.environ["JUPYTER_GPT_HOME"]).name.startswith("home")


def test_every_magic_says_that_the_disk_refuses(shell, tmp_path):
    import disk

    refused, faults = disk.attack(shell, tmp_path, len(disk.ERRORS) * len(disk.SOURCES), seed=0)
    assert faults == [] and refused > 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes that are killed are forked")
def test_killed_at_calls_to_the_file_system():
    """In a process of its own: one that has threads must not be forked."""
    file = TESTS / "benchmarks" / "kill.py"
    done = subprocess.run([sys.executable, str(file), "--kills", "2"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("2 processes killed, 0 faults"), done.stdout + done.stderr
