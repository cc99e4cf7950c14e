"""The JupyterLab extension: installed with the package, it draws the reports of a notebook that no kernel runs."""

import json
import subprocess
import sys
from pathlib import Path

from jupyter_gpt.report.report import MIME

PREBUILT = Path(__file__).parents[2] / "labextension" / "prebuilt"


def test_the_extension_is_installed_enabled_and_small_at_start():
    listed = subprocess.run([sys.executable, "-m", "jupyterlab.labextensions", "list"], capture_output=True, text=True)
    found = [line for line in (listed.stdout + listed.stderr).splitlines() if "jupyter-gpt " in line]
    assert found and "enabled" in found[0] and "OK" in found[0], "run pip install -e '.[test]' again"
    entry = json.loads((PREBUILT / "package.json").read_text())["jupyterlab"]["_build"]["load"]
    assert (PREBUILT / entry).stat().st_size < 50_000
    assert MIME.encode() in b"".join(path.read_bytes() for path in (PREBUILT / "static").glob("*.js"))
