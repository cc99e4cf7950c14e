"""A real JupyterLab in a real Chromium: fixtures to open a notebook, run it, click in it and read what was saved.

Skipped, with the reason, where there is no Chromium. The server has its own settings and root folder.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}  # else a question covers the page


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A loaded machine may starve a page for longer than any wait: a test that fails here is run once more, and the
    summary lists it."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here:
            item.add_marker(pytest.mark.flaky(reruns=1))


@dataclass
class Server:
    url: str
    token: str
    root: Path


@dataclass
class OpenNotebook:
    """A notebook open in JupyterLab. `page` is Playwright's page."""

    page: object
    path: Path

    def command(self, name: str, **arguments: object) -> None:
        """Runs a JupyterLab command, without waiting for what it started."""
        script = "([name, args]) => { window.jupyterapp.commands.execute(name, args); }"
        self.page.evaluate(script, [name, arguments])

    def run_all(self) -> None:
        """Begins to run the cells, without waiting for them: `wait_idle` does."""
        begin = """() => { window.cellsRun = (window.cellsRun ?? 0) + 1;
            window.jupyterapp.commands.execute("notebook:run-all-cells").finally(() => { window.cellsRun--; }); }"""
        self.page.evaluate(begin)

    def kernel_status(self) -> str | None:
        session = "window.jupyterapp?.shell.currentWidget?.context?.sessionContext?.session"
        return self.page.evaluate(f"() => {session}?.kernel?.status ?? null")

    def wait_idle(self, seconds: float = 120) -> None:
        """Waits until the kernel is idle and no cell is left to run."""
        idle = lambda: self.kernel_status() == "idle" and not self.running()  # noqa: E731
        wait_until(idle, seconds, "the kernel to be idle")

    def running(self) -> bool:
        script = "() => window.cellsRun > 0 || [...document.querySelectorAll('.jp-InputPrompt')].some(SHOWN)"
        return self.page.evaluate(script.replace("SHOWN", "({ textContent }) => textContent.includes('[*]')"))

    def theme(self, dark: bool) -> None:
        self.command("apputils:change-theme", theme="JupyterLab Dark" if dark else "JupyterLab Light")
        self.page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{str(not dark).lower()}'")

    def flaws(self, selector: str) -> list[str]:
        """What audit.js finds wrong in a part of the page: names, focus, contrast."""
        return self.page.evaluate(Path(__file__).with_name("audit.js").read_text(encoding="utf-8"), selector)

    def saved(self) -> dict:
        """Saves the notebook and reads the file."""
        save = "window.jupyterapp.shell.currentWidget.context.save()"
        self.page.evaluate(f"async () => {{ await {save}; }}")
        return json.loads(self.path.read_text(encoding="utf-8"))


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> float:
    """Seconds it took until `true()`; fails the test when that is more than `seconds`."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            pytest.fail(f"waited {seconds} s for {what}")
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install '.[test]'")
    with sync_api.sync_playwright() as playwright:
        found = chromium(playwright)
        if not Path(found).exists():
            pytest.skip("no Chromium: neither chromium nor google-chrome on the PATH, nor playwright's own")
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


def chromium(playwright: object) -> str:
    """Where Chromium is, or where Playwright would have put its own."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), playwright.chromium.executable_path)


@pytest.fixture(scope="session")
def lab(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_lab(tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@contextmanager
def running_lab(home: Path) -> Iterator[Server]:
    """A JupyterLab server of this Python environment, with all that it keeps in a folder."""
    root = home / "notebooks"
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(NO_NEWS))
    root.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}", secrets.token_hex(16), root)
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
    }
    environment = {**os.environ, **{name: str(home / folder) for name, folder in folders.items()}}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--expose-app-in-browser",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={root}",
        f"--IdentityProvider.token={server.token}",
    ]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=root, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: _answers(server, process, home / "server.log"), 180, "JupyterLab to start")
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its kernels too
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:  # a worker thread of anyio may outlive the server's loop, and hold it
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(server: Server, process: subprocess.Popen, log: Path) -> bool:
    if process.poll() is not None:
        pytest.fail(f"JupyterLab ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    try:
        with urllib.request.urlopen(f"{server.url}/api/status?token={server.token}", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


@pytest.fixture
def open_notebook(lab: Server, browser: object) -> Iterator[Callable[..., OpenNotebook]]:
    """`open_notebook("code of cell 1", "code of cell 2", ..., width=1280)`, which waits for the kernel."""
    contexts = []

    def open_it(*cells: str, width: int = 1280, height: int = 1000) -> OpenNotebook:
        path = lab.root / f"{secrets.token_hex(4)}.ipynb"
        path.write_text(json.dumps(notebook(cells)))
        context = browser.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(60_000)  # a busy machine may take long for anything
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{lab.url}/lab/tree/{path.name}?token={lab.token}&reset")
        opened = OpenNotebook(page, path)
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        opened.wait_idle()
        return opened

    yield open_it
    for context in contexts:
        context.close()


def notebook(cells: tuple[str, ...]) -> dict:
    """A notebook file. It names its kernel, else JupyterLab would ask for one."""
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{i}",
                "metadata": {},
                "source": code,
                "outputs": [],
                "execution_count": None,
            }
            for i, code in enumerate(cells)
        ],
    }
