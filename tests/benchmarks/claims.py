"""On how many seeds the claims of the notebooks hold.

Each notebook runs once for each seed, in a folder of its own, with the default `--seed` of every stage and its line
`seed = 0` changed to that seed.

    python tests/benchmarks/claims.py [NOTEBOOK ...] [--seeds 0 1 2 3 4] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
DEFAULTS = """
import importlib, pkgutil
import jupyter_gpt.stages
from jupyter_gpt.options import Options

for module in pkgutil.walk_packages(jupyter_gpt.stages.__path__, "jupyter_gpt.stages."):
    importlib.import_module(module.name)

def set_default(options):
    field = options.model_fields.get("seed")
    if field is not None and field.default == 0:
        field.default = SEED
        options.model_rebuild(force=True)
    for subclass in options.__subclasses__():
        set_default(subclass)

set_default(Options)
"""
COLLECT = """
import json
from jupyter_gpt import gpt
print(json.dumps([[c.text, c.holds, c.measured.value, c.than and c.than.value] for c in gpt.claims]))
"""


def run(path: Path, seed: int) -> list[tuple[str, bool, float, float | None]]:
    """The claims of a notebook with this seed: text, whether it holds, measured, compared with.

    Raises CellExecutionError if a cell fails other than `%gpt claims`.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            lines = cell.source.splitlines()
            cell.source = "\n".join(f"seed = {seed}" if line == "seed = 0" else line for line in lines)
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip() != "%gpt claims"]
    first = nbformat.v4.new_code_cell(DEFAULTS.replace("SEED", str(seed)))
    notebook.cells = [first, *notebook.cells, nbformat.v4.new_code_cell(COLLECT)]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JUPYTER_GPT_HOME": f"{folder}/.jupyter_gpt"}
        client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": folder}})
        client.execute(env=environment)
    return [tuple(claim) for claim in json.loads(notebook.cells[-1].outputs[0].text)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", help="names, such as 03_sft; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--json", type=Path, help="also write what was measured to this file")
    given = parser.parse_args()
    names = [Path(name).stem for name in given.notebooks] or sorted(p.stem for p in NOTEBOOKS.glob("[0-9]*.ipynb"))
    measured: dict[str, dict[str, dict[int, tuple]]] = {}
    for name in names:
        claims = measured.setdefault(name, {})
        for seed in given.seeds:
            began = time.perf_counter()
            try:
                found = run(NOTEBOOKS / f"{name}.ipynb", seed)
            except CellExecutionError as error:
                print(f"{name}, seed {seed}: a cell fails: {error.ename}: {error.evalue}", flush=True)
                continue
            for text, *rest in found:
                claims.setdefault(text, {})[seed] = tuple(rest)
            print(f"{name}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
        print(f"\n| {name} | holds | {' | '.join(f'seed {seed}' for seed in given.seeds)} |")
        print("|---|---|" + "---|" * len(given.seeds))
        for text, by_seed in claims.items():
            figures = [figure(*by_seed[seed]) if seed in by_seed else "failed" for seed in given.seeds]
            holds = sum(holds for holds, *_ in by_seed.values())
            print(f"| {text} | {holds} of {len(given.seeds)} | {' | '.join(figures)} |", flush=True)
        print(flush=True)
    if given.json:
        given.json.write_text(json.dumps(measured, indent=1))


def figure(holds: bool, value: float, than: float | None) -> str:
    against = "" if than is None else f" against {than:.3g}"
    return f"{value:.3g}{against}{'' if holds else ', no'}"


if __name__ == "__main__":
    main()
