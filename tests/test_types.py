"""Types, as pyright checks them; `pyproject.toml` says where, and which files are not there yet."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyright")


def test_no_error_of_types():
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    try:
        found = json.loads(done.stdout)
    except ValueError:
        pytest.skip(f"pyright could not be had: {done.stdout}{done.stderr}")
    assert found["summary"]["filesAnalyzed"] > 50
    errors = [each for each in found["generalDiagnostics"] if each["severity"] == "error"]
    shown = [f"{e['file']}:{e['range']['start']['line'] + 1}: {e['message']}" for e in errors]
    assert not shown, "\n".join(shown)
