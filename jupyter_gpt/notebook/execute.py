"""Runs a notebook without a browser: prints each cell as it runs, and at the end tables of its models, runs and claims.

The kernel is always that of this Python, whatever kernels are installed; its working directory is the notebook's
folder, as in Jupyter. The input file is never changed: the executed notebook goes to `.jupyter_gpt/executed/`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.imports import without_iri_grammar
from jupyter_gpt.report.text import printable

MAX_LINES = 16  # of a cell's text
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
METADATA = {"debugger": True, "supported_encryption": ["curve"]}  # as in ipykernel's kernelspec
EXPECTED = {"raises-exception", "nbval-raises-exception"}  # tags of cells that are meant to fail


def execute(notebook: Path) -> int:
    """Runs `notebook`: 0 if all cells passed, 1 if one failed, 130 after Ctrl-C. Raises GPTError if it is invalid."""
    with without_iri_grammar():
        import nbformat
    try:
        nb = nbformat.read(notebook, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        reason = (str(error).splitlines() or ["it is empty"])[0]
        raise GPTError(f"{notebook.name} cannot be read as a notebook: {reason[:200]}") from None
    started = time.time()
    home = notebook.parent / (os.environ.get("JUPYTER_GPT_HOME") or ".jupyter_gpt")  # as the kernel will see it
    status = asyncio.run(_run(nb, notebook))
    executed = _save(nb, home / "executed" / notebook.name)

    print("\n" + "\n\n".join([summary(home, started), *claims_of(nb), f"executed notebook: {executed}"]))
    return status


def summary(home: Path, since: float = 0.0) -> str:
    """The runs and models under `home` that were written at or after `since` (unix seconds), as text."""
    from jupyter_gpt.report.parts import Table
    from jupyter_gpt.report.text import render
    from jupyter_gpt.runs.run import Runs, runs_report

    os.environ["JUPYTER_GPT_HOME"] = str(home.resolve())
    runs = Runs()
    new = [name for name in runs if written(runs.folder(name) / "events.jsonl", since)]
    folders = sorted({path.parent for path in home.glob("models/[!.]*/*config.json") if written(path, since)})
    models = Table(("model", "folder"), [(folder.name, str(folder)) for folder in folders])
    parts = [*(runs_report(runs, new).parts if new else ()), *([models] if folders else ())]
    return render("", parts, marks=False).strip() or "no model and no run was made"


def written(path: Path, since: float) -> bool:
    """Whether a file was written since then, with a second of grace for file systems with coarse clocks."""
    return path.exists() and path.stat().st_mtime >= since - 1


def claims_of(nb) -> list[str]:
    """The table of the notebook's last `%gpt claims`, if that cell ran; whole, where a cell's text is truncated."""
    cells = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.startswith("%gpt claims")]
    outputs = [output for cell in cells for output in cell.outputs if output.output_type == "display_data"]
    return ["\n".join(plain_lines([output.data["text/plain"]])) for output in outputs[-1:]]


def _save(nb, path: Path) -> Path:
    import nbformat

    store.write_text(path, nbformat.writes(nb))
    return path


def kernel_manager():
    """A manager of a kernel of this Python, with or without an installed kernelspec."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    manager = AsyncKernelManager()
    if manager.has_trait("transport_encryption"):  # newer kernels warn without encryption
        manager.transport_encryption = "auto"
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager._kernel_spec = KernelSpec(argv=argv, display_name="Python 3", language="python", metadata=METADATA)
    return manager


def kernel_environment() -> dict[str, str]:
    """The kernel's environment; a source checkout is on its path."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "pyproject.toml").is_file():
        return dict(os.environ)
    paths = [str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


async def _run(nb, notebook: Path) -> int:
    """Runs the cells in order until one fails or Ctrl-C ends one."""
    from nbclient import NotebookClient

    resources = {"metadata": {"path": str(notebook.parent)}}
    client = NotebookClient(nb, km=kernel_manager(), resources=resources, timeout=None, store_widget_state=False)
    cells = [(index, cell) for index, cell in enumerate(nb.cells) if cell.cell_type == "code" and cell.source.strip()]
    for _, cell in cells:
        cell.outputs, cell.execution_count = [], None
    print(f"{notebook} ({len(cells)} cells, {sys.executable})")
    ctrl_c = CtrlC(client)
    # after nbclient has set its own handlers, which it does before it first waits for the kernel
    asyncio.get_running_loop().call_soon(ctrl_c.listen)
    async with contextlib.AsyncExitStack() as stack:
        try:
            setup = client.async_setup_kernel(cleanup_kc=True, env=kernel_environment())
            await stack.enter_async_context(setup)
        except RuntimeError as error:
            atexit.unregister(client._cleanup_kernel)
            if ctrl_c.pressed:
                return 130
            raise GPTError(f"the kernel did not start: {error}") from None
        ctrl_c.running = True
        for number, (index, cell) in enumerate(cells, 1):
            if ctrl_c.pressed:
                break
            label = f"[{number:{len(str(len(cells)))}}/{len(cells)}]"
            if not await _run_cell(client, cell, index, label):
                return 130 if ctrl_c.pressed else 1
    return 130 if ctrl_c.pressed else 0


@dataclass
class CtrlC:
    """Ctrl-C interrupts the running cell. So does a second one, with which a stopping run skips its last evaluation. A
    third, or SIGTERM, ends the kernel.
    """

    client: Any
    running: bool = False
    pressed: int = 0
    tasks: list = field(default_factory=list)  # asyncio references tasks only weakly

    def listen(self) -> None:
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C stays a KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self.press)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.end)

    def end(self) -> None:
        self.pressed = max(2, self.pressed)
        self.press()

    def press(self) -> None:
        self.pressed += 1
        messages = {
            1: "interrupting: Ctrl-C again skips the evaluation of a stopping run",
            2: "interrupting: Ctrl-C again ends the kernel",
        }
        print(f" {messages.get(self.pressed, 'ending the kernel')}", flush=True)
        self.tasks.append(asyncio.ensure_future(self.act()))

    async def act(self) -> None:
        if self.pressed > 2:
            await self.client.km.shutdown_kernel(now=True)
        elif self.running:
            await self.client.km.interrupt_kernel()


async def _run_cell(client, cell, index: int, label: str) -> bool:
    """Runs one cell and prints its first line and its text; returns whether it passed."""
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    print(f"{label} {_first_line(cell.source):<64}", end="", flush=True)
    began, failure = time.perf_counter(), None
    try:
        await client.async_execute_cell(cell, index)
    except CellExecutionError as error:
        failure = error.ename
    except DeadKernelError:
        failure = "the kernel died"
    expected = failure is not None and EXPECTED & set(cell.metadata.get("tags", []))
    passed = failure is None or bool(expected)
    verdict = "ok" if failure is None else f"ok, {failure} expected" if expected else f"FAILED: {failure}"
    print(f" {time.perf_counter() - began:7.1f} s  {verdict}")
    text = _text(cell.outputs, whole_errors=not passed)
    if text:
        print("\n".join(f"    {line}".rstrip() for line in text.splitlines()))
    sys.stdout.flush()
    return passed


def _first_line(source: str) -> str:
    line = next(line for line in source.splitlines() if line.strip()).strip()
    return line if len(line) <= 64 else line[:63] + "…"


def _text(outputs: list, whole_errors: bool) -> str:
    """A cell's text, truncated; the traceback of an error is not."""
    shown, errors = [], []
    for output in outputs:
        if output.output_type == "stream":
            shown.append(output.text.rstrip("\n"))
        elif output.output_type == "error":
            trace = "\n".join(output.traceback) or f"{output.ename}: {output.evalue}"
            (errors if whole_errors else shown).append(trace)
        elif "text/plain" in output.data:
            shown.append(output.data["text/plain"])
    lines = plain_lines(shown)
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"… {len(lines) - MAX_LINES + 1} more lines"]
    return "\n".join(lines + plain_lines(errors))


def plain_lines(texts: list[str]) -> list[str]:
    """The lines of texts without colours and other control sequences."""
    return [printable(line) for line in ANSI.sub("", "\n".join(texts)).splitlines()]
