"""The house: each file imports from below, and no import goes in a circle."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import jupyter_gpt

ROOT = Path(jupyter_gpt.__file__).parent
FLOORS = (
    "errors",
    "imports",
    "store",
    "runs.events",
    "data",
    "arguments",
    "report",
    "options",
    "nn",
    "inference",
    "runs",
    "models",
    "retrieval",
    "prompting",
    "evaluation",
    "server",
    "stages",
    "notebook.views",
    "session",
    "stages.run_process",
    "notebook",
    "__main__",
)
FILES = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}


@cache
def imports(file: str) -> set[str]:
    """The files of the package that one imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(FILES[file].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "jupyter_gpt":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                name = name if name in FILES else node.module
                found.add("jupyter_gpt.session" if name == "jupyter_gpt" else name)  # `from jupyter_gpt import gpt`
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in FILES}
    return found - {file}


def floor(name: str) -> int:
    below = name.removeprefix("jupyter_gpt.")
    return FLOORS.index(max((f for f in FLOORS if f"{below}.".startswith(f"{f}.")), key=len))


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("__init__")])
def test_imports_point_down(name):
    upwards = [other for other in imports(name) if other.count(".") and floor(other) > floor(name)]
    assert not upwards, f"{name} imports from above: {', '.join(upwards)}"


def test_the_files_that_contributing_names_are_there():
    text = (ROOT.parent / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = ROOT, ROOT.parent / "labextension" / "src", ROOT.parent / "tests"
    there = ["/labextension/hatch_build.py", *(f"/{path.as_posix()}" for room in rooms for path in room.rglob("*.*"))]
    named = re.findall(r"[\w/.]+\.(?:py|ts|md)\b", text)
    assert len(named) > 20
    named.remove("stages/NAME.py")
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in there)] == []


def test_no_import_goes_in_a_circle():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "a circle: " + " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in sorted(imports(name) if name in FILES else ()):
                visit(other, (*path, name))
            done.add(name)

    for name in FILES:
        visit(name, ())


def test_only_the_notebook_knows_ipython_and_widgets():
    for name, path in FILES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        roots = {
            alias.name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        roots |= {(node.module or "").partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        odd = roots & {"IPython", "ipywidgets", "anywidget"}
        assert not odd or name.startswith("jupyter_gpt.notebook"), f"{name} imports {', '.join(odd)}"
