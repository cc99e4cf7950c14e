"""`python -m jupyter_gpt`: the tour in JupyterLab, or run here in the terminal, from any folder."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from jupyter_gpt.errors import GPTError, nearest

TOUR = "00_tour.ipynb"
HELP = """\
NAME
    jupyter_gpt - every stage of training a GPT assistant, as notebook cells

SYNOPSIS
    python -m jupyter_gpt [NOTEBOOK] [-- OPTION ...]
    python -m jupyter_gpt --execute [NOTEBOOK]

DESCRIPTION
    Opens NOTEBOOK in JupyterLab. With --execute, runs it in the terminal: prints the first line, the seconds
    and the text of each cell, and at the end tables of the new models and runs, and of the claims.

    NOTEBOOK is a path, or the name of a notebook of the package (default: 00_tour.ipynb). A name is looked up
    in ./notebooks/, then here; else the package's notebook is copied here.

OPTIONS
    --execute     run the notebook instead of opening it; the file itself is not changed
    --version     print the version
    -h, --help    print this page
    -- OPTION     options of JupyterLab, such as -- --no-browser --port 8890

FILES
    .jupyter_gpt/                       beside the notebook: models, runs, indexes
    .jupyter_gpt/executed/NAME.ipynb    the notebook with its outputs, after --execute

ENVIRONMENT
    JUPYTER_GPT_HOME    a folder to use instead of .jupyter_gpt

EXIT STATUS
    0 on success, 1 if a cell failed, 2 if it could not start, 130 if it was interrupted. Ctrl-C stops the
    running cell: a training run is evaluated and its model saved. A second one skips the evaluation, a third
    one kills the kernel.

EXAMPLES
    python -m jupyter_gpt
    python -m jupyter_gpt --execute
    python -m jupyter_gpt --execute notebooks/00_tour.ipynb
"""


class _Parser(argparse.ArgumentParser):
    """Errors are one line, raised as GPTError."""

    def error(self, message: str):
        raise GPTError(f"{message}; see python -m jupyter_gpt --help")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line; `.lab` are JupyterLab's options. Raises GPTError."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parser = _Parser(prog="python -m jupyter_gpt", add_help=False, allow_abbrev=False)
    parser.add_argument("notebook", nargs="?", default=TOUR)
    parser.add_argument("--execute", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    given = parser.parse_args(arguments[:cut])
    given.lab = arguments[cut + 1 :]
    if given.execute and given.lab:
        raise GPTError("the options after -- are JupyterLab's, which --execute does not open")
    return given


def shipped() -> Path | None:
    """The folder of the package's notebooks, in a wheel or in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if folder.is_dir() and (folder.parent == package or (package.parent / "pyproject.toml").is_file()):
            return folder
    return None


def find(name: str, own: Path | None) -> Path:
    """The notebook of that name or path; one of the package's, in `own`, is copied here first. Raises GPTError."""
    name = name if name.endswith(".ipynb") else f"{name}.ipynb"
    asked = Path(name)
    bare = asked.parent == Path() and not asked.is_absolute()
    for place in [Path("notebooks") / name, asked] if bare else [asked]:
        if place.is_file():
            return place.resolve()
    if not bare:
        raise GPTError(f"there is no notebook {name}")
    there = [path.name for folder in (Path("notebooks"), Path(), own) if folder for path in folder.glob("*.ipynb")]
    if own is None or not (own / name).is_file():
        raise GPTError(f"there is no notebook {name}, here or in the package{nearest(name, set(there))}")
    try:
        with asked.open("xb") as copy:
            copy.write((own / name).read_bytes())
    except OSError as error:
        raise GPTError(f"{name} cannot be copied to {Path.cwd()}: {error.strerror}") from None
    print(f"copied {name} to {Path.cwd()}")
    return asked.resolve()


def lab_command(notebook: Path, extra: list[str]) -> list[str]:
    """The command that opens `notebook` in this Python's JupyterLab, also as root."""
    command = [sys.executable, "-m", "jupyterlab", str(notebook), *extra]
    if hasattr(os, "getuid") and os.getuid() == 0 and "--allow-root" not in extra:
        print("running as root: JupyterLab is started with --allow-root")
        command.append("--allow-root")
    return command


def lab_environment() -> dict[str, str]:
    """An environment in which JupyterLab finds this Python's kernel before those of JUPYTER_PATH."""
    own = str(Path(sys.prefix) / "share" / "jupyter")
    others = os.environ.get("JUPYTER_PATH")
    return os.environ | {"JUPYTER_PATH": os.pathsep.join([own, others]) if others else own}


def open_lab(notebook: Path, extra: list[str]) -> int:
    """Replaces this process by JupyterLab, which then handles Ctrl-C; on Windows, waits for it. Raises GPTError."""
    import importlib.util
    import subprocess

    if importlib.util.find_spec("jupyterlab") is None:
        raise GPTError("JupyterLab is not installed in this Python: pip install jupyterlab, or use --execute")
    command = lab_command(notebook, extra)
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, lab_environment())
    return subprocess.call(command, env=lab_environment())


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    sys.stdout.reconfigure(errors="replace")
    try:
        given = parse(sys.argv[1:] if arguments is None else arguments)
        if given.help:
            print(HELP, end="")
            return 0
        if given.version:
            from jupyter_gpt import __version__

            print(f"jupyter_gpt {__version__}")
            return 0
        notebook = find(given.notebook, shipped())
        if given.execute:
            from jupyter_gpt.notebook.execute import execute

            return execute(notebook)
        return open_lab(notebook, given.lab)
    except GPTError as error:
        print(f"jupyter_gpt: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
