"""A shell to type into and a session that only remembers what it was asked, for tests that train nothing."""

from __future__ import annotations

import sys
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell

import jupyter_gpt
from helpers.displays import Displays
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.report.report import Report
from jupyter_gpt.stages.loop import METRICS

EVENTS = [
    {"event": "start", "time": 0.0, "steps": 600, "step": 0, "metrics": [asdict(metric) for metric in METRICS]},
    {"event": "evaluation", "time": 1.0, "step": 0, "val_loss": 7.5, "bits_per_byte": 3.0, "seconds": 0.1},
    {"event": "step", "time": 2.0, "step": 1, "loss": 7.25, "tokens": 1024, "seconds": 0.5},
    {"event": "step", "time": 3.0, "step": 2, "loss": 6.125, "tokens": 2048, "seconds": 1.0},
]


class Named(dict):
    """Like the session's mappings: an unknown name is the user's mistake, and `about` loads nothing."""

    def about(self, name: str):
        return self[name]

    def unused(self) -> list[str]:
        return []

    def __missing__(self, name: str):
        raise GPTError(f"there is no {name}{nearest(name, self)}")


class FakeRun(SimpleNamespace):
    @property
    def alive(self) -> bool:
        return self.status == "running"

    here = alive

    def stop(self):
        self.status = "stopped"

    def wait(self, tick=None):
        if self.error:
            self.status = "failed"
            raise self.error
        self.status = "finished"


def make_run(name: str, **more) -> FakeRun:
    facts = {
        "kind": "pretrain",
        "status": "finished",
        "recipe": {},
        "step": 2,
        "steps": 2,
        "events": EVENTS,
        "error": None,
    }
    return FakeRun(name=name, **{**facts, **more})


class FakeSession:
    """Records each call as (verb, arguments) and answers with a run, a model or a corpus of that name."""

    def __init__(self):
        self.calls = []
        self.runs = Named(storyteller=make_run("storyteller"))
        self.models = Named(
            storyteller=SimpleNamespace(
                name="storyteller",
                kind="pretrain",
                parameters=1_234_567,
                lineage=["storyteller"],
                device="cpu",
                dtype="float32",
                resident=True,
                has_chat=False,
                licence="MIT",
                memory=4_938_268,
                on_disk=5_000_000,
            )
        )
        self.error, self.rankings = None, {}

    @property
    def plan(self):
        from jupyter_gpt.session import Session

        return Session.plan.__get__(self)

    @property
    def batch(self):
        from jupyter_gpt.session import Session

        return Session.batch.__get__(self)

    def corpus(self, name, mixture, **options):
        self.calls.append(("corpus", {"name": name, "mixture": mixture, **options}))
        return SimpleNamespace(name=name)

    def pretrain(self, name, mixture=None, **options):
        self.calls.append(("pretrain", {"name": name, "mixture": mixture, **options}))
        self.models[name] = SimpleNamespace(name=name)
        self.runs[name] = make_run(name, status="running", error=self.error)
        return self.runs[name]

    def resume(self, name, **options):
        self.calls.append(("resume", {"name": name, **options}))
        return self.runs[name]

    def stop(self, name):
        self.calls.append(("stop", {"name": name}))
        return self.runs[name]


@pytest.fixture
def gpt(gpt, monkeypatch):
    """A session of its own, the one that cells work on."""
    monkeypatch.setitem(vars(jupyter_gpt), "gpt", gpt)
    return gpt


@pytest.fixture
def fake_gpt(monkeypatch) -> FakeSession:
    """A session that only remembers what it was asked."""
    session = FakeSession()
    monkeypatch.setitem(vars(jupyter_gpt), "gpt", session)
    return session


@pytest.fixture
def shown(monkeypatch) -> list[str]:
    """The text of what was displayed, instead of displaying it."""
    seen = []

    def display(shown, raw=False, **_):
        seen.append(shown["text/plain"] if raw else shown.text)

    monkeypatch.setattr("IPython.display.display", display)
    return seen


@pytest.fixture
def pictures(monkeypatch) -> None:
    """Bundles that name the view they come from, so that no test here draws."""
    curve = SimpleNamespace(run_report=lambda run, beside=(): Report(f"run {run.name}: {run.status}"))
    monkeypatch.setitem(sys.modules, "jupyter_gpt.notebook.views.run_report", curve)
    monkeypatch.setattr("jupyter_gpt.stages.corpus.corpus_report", lambda corpus: Report(f"corpus {corpus.name}"))


@pytest.fixture
def ip():
    """A shell of its own, with the extension loaded, as `%load_ext` would."""
    shell = InteractiveShell.instance()
    shell.reset(new_session=False)
    shell.run_line_magic("load_ext", "jupyter_gpt")
    yield shell
    shell.run_line_magic("unload_ext", "jupyter_gpt")
    InteractiveShell.clear_instance()


@pytest.fixture
def succeed(ip):
    """Runs cells that have to succeed, and gives the names of the notebook."""

    def run(*cells: str) -> dict:
        for cell in cells:
            ip.run_cell(cell).raise_error()
        return ip.user_ns

    return run


@pytest.fixture
def fails(ip, capsys):
    """Runs a cell that has to fail as a user's mistake, and gives its message."""

    def run(cell: str) -> str:
        error = ip.run_cell(cell).error_in_exec
        assert isinstance(error, GPTError), error
        capsys.readouterr()
        return str(error)

    return run


@pytest.fixture
def page(monkeypatch, tmp_path) -> Displays:
    """What is displayed, and the ranking forms among it, with a front end that counts as built."""
    from jupyter_gpt.notebook.views.rank_form import RankForm

    for name in ("rank.js", "rank.css"):
        (tmp_path / name).write_text("/* built */")
    monkeypatch.setattr("jupyter_gpt.notebook.views.widget.STATIC", tmp_path)
    displays = Displays()
    make_form = lambda *args: displays.forms.append(RankForm(*args)) or displays.forms[-1]  # noqa: E731
    monkeypatch.setattr("jupyter_gpt.notebook.views.rank_form.RankForm", make_form)
    monkeypatch.setattr("IPython.display.display", displays.display)
    return displays
