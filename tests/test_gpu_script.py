"""The script that measures on a GPU, without one: what hangs, fails or is missing costs only its own figures."""

import sys
from pathlib import Path

import pytest

FIGURES = """
import json, pathlib, sys
pathlib.Path(sys.argv[-1]).write_text(json.dumps([{"what": "steps", "ours": 6, "theirs": 3, "unit": "a second"}]))
"""


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "benchmarks")
    import gpu

    yield gpu
    del sys.modules["gpu"]


def test_each_part_has_its_turn_and_its_figures_are_in_one_table(gpu, tmp_path, capsys):
    parts = {
        "tests": (["-c", "print('2 passed')"], 0.4),
        "hangs": (["-c", "import time; time.sleep(60)"], 0.02),
        "fails": (["-c", "raise SystemExit('out of memory')"], 0.3),
        "works": (["-c", FIGURES], 0.28),
    }
    found = gpu.measure(parts, 0.5, tmp_path)
    assert found["ended"] == {"tests": "passed", "hangs": "out of time", "fails": "failed (1)", "works": "passed"}
    assert found["table"].splitlines()[2:] == ["| steps | 6 a second | 3 | 2.00× | – |"]
    assert "out of memory" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(gpu, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="there is no GPU here"):
        gpu.main()
