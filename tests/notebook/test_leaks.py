"""What a notebook that is used all day must not collect: comms of widgets, open files, threads."""

import gc
import threading
from types import SimpleNamespace

import psutil
import pytest

pytest.importorskip("anywidget")

from ipywidgets.widgets.widget import _instances as widgets

from jupyter_gpt.notebook.magics.notebook import watch
from jupyter_gpt.notebook.views import place
from jupyter_gpt.notebook.views import widget as base


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """The widgets that were displayed, as to a person who watches."""
    import IPython.display

    seen = []

    def watch(self, widget, *rest, **more):
        seen.append(widget)
        return seen_by(self, widget, *rest, **more)

    def display(*_, **__):
        return SimpleNamespace(update=lambda *_, **__: None)

    for name in ("run.js", "run.css"):
        (tmp_path / name).write_text("/* built */")
    monkeypatch.setattr(base, "STATIC", tmp_path)
    monkeypatch.setattr(place, "is_live", lambda: True)
    monkeypatch.setattr(place, "draws_over", lambda: True)
    seen_by = place.Place.watch
    monkeypatch.setattr(place.Place, "watch", watch)
    monkeypatch.setattr(IPython.display, "display", display)
    return seen


def pumps() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.endswith("(_pump_until_end)")]


def held() -> tuple[int, int]:
    """Open files and threads, without the fonts that matplotlib keeps open, those of 64 threads at most."""
    gc.collect()
    process = psutil.Process()
    fonts = [file for file in process.open_files() if "mpl-data" in file.path]
    return process.num_fds() - len(fonts), threading.active_count()


def rounds(train, shown, count, answers=True) -> None:
    """A run is watched `count` times, each fourth time while it trains, each second time in the background; the page
    `answers` that it holds the report, or is closed.
    """
    for number in range(count):
        run = train(steps=2, overwrite=True, background=True) if number % 4 == 0 else run  # noqa: F821
        watch(run, background=bool(number // 4 % 2))
        for thread in pumps():
            thread.join(30)
        if answers:
            shown[-1]._handle_custom_msg({"type": "kept", "page": "one"}, [])


def test_watched_runs_leave_no_comm_no_file_and_no_thread(train, shown):
    rounds(train, shown, 1)  # what is opened once
    shown.clear()
    known, before = set(widgets), held()
    rounds(train, shown, 8)  # in both places
    assert held() == before
    assert len(shown) == 8 and set(widgets) == known
    assert all(widget.comm is None for widget in shown)


def test_of_reports_that_no_page_has_taken_only_the_last_wait(train, shown, monkeypatch):
    monkeypatch.setattr(base, "LEFT_OPEN", 2)
    rounds(train, shown, 1)
    shown.clear()
    base._left.clear()
    before = held()
    rounds(train, shown, base.LEFT_OPEN + 1, answers=False)
    assert held() == before
    still = [widget for widget in shown if widget.comm is not None]
    assert still == shown[-base.LEFT_OPEN :] == list(base._left)
    for widget in still:
        base.close(widget)
