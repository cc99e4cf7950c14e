"""The short versions of `benchmarks/fuzz.py` and `soak.py`; those of `corrupt.py` are in test_damaged.py and test_disk.py."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))


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
    assert [fault for fault in faults if not fault.startswith(("memory", "files"))] == [] and ran > 50  # settles in more rounds
