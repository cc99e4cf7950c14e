"""The line of progress: how long it may still take."""

from types import SimpleNamespace

import pytest

from jupyter_gpt.notebook.views import progress
from jupyter_gpt.notebook.views.progress import Progress


@pytest.fixture
def line(monkeypatch):
    """A Progress whose clock the test sets, and what it drew."""
    drawn, clock = [], SimpleNamespace(now=100.0)
    handle = SimpleNamespace(update=lambda data, raw: drawn.append(data["text/plain"]))
    monkeypatch.setattr("IPython.display.display", lambda *a, **more: handle)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return Progress(lambda done, total: f"{done} of {total}"), clock, drawn


def test_what_was_there_before_took_none_of_the_time(line):
    bar, clock, drawn = line
    bar("model --cot", 50, 150)
    clock.now += 10
    bar("model --cot", 60, 150)
    assert drawn == ["model --cot: 50 of 150", "model --cot: 60 of 150, 90 s left"]


def test_each_part_has_its_own_speed(line):
    bar, clock, drawn = line
    bar("model direct", 0, 20)
    clock.now += 2
    bar("model direct", 10, 20)
    bar("model --cot", 10, 20)
    clock.now += 30
    bar("model --cot", 15, 20)
    assert [text.partition(", ")[2] for text in drawn] == ["", "2 s left", "", "30 s left"]
