"""What the live widget sends, and what follow() publishes, without a kernel."""

from __future__ import annotations

import array
import json
import math
import sys
import threading
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace

import pytest

pytest.importorskip("anywidget")

from helpers.processes import wait_until
from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.views import follow as following
from jupyter_gpt.notebook.views import live, place
from jupyter_gpt.notebook.views.run_report import run_report
from jupyter_gpt.notebook.views.widget import close
from jupyter_gpt.report.report import MIME, Report
from jupyter_gpt.stages.loop import METRICS

START = {"event": "start", "time": 0.0, "step": 0, "metrics": [asdict(metric) for metric in METRICS]}


@dataclass
class FakeRun:
    here = True
    name: str = "storyteller"
    kind: str = "pretrain"
    status: str = "running"
    recipe: dict = field(default_factory=dict)
    steps: int = 100
    events: list = field(default_factory=list)
    told: list = field(default_factory=list)
    error: Exception | None = None

    def pause(self) -> None:
        self.told.append("pause")

    def unpause(self) -> None:
        self.told.append("unpause")

    def stop(self) -> None:
        self.told.append("stop")

    def sample_now(self) -> None:
        self.told.append("sample")

    def step(self, k: int, loss: float | None = 3.0) -> None:
        self.emit(
            "step",
            step=k,
            loss=loss,
            lr=1e-3,
            grad_norm=1.0,
            tokens=64 * k,
            seconds=0.1 * k,
            tokens_per_second=640.0,
            mfu=None,
        )

    def emit(self, event: str, **fields) -> None:
        self.events.append({"event": event, "time": 0.0, **fields})

    def wait(self, tick=None) -> None:
        if tick:
            tick()
        self.status = "failed" if self.error else "finished"
        if self.error:
            raise self.error


@pytest.fixture
def widget(monkeypatch, tmp_path):
    """A function that makes a LiveRun whose messages land in `.sent` as (content, columns)."""
    for name in ("run.js", "run.css"):
        (tmp_path / name).write_text("/* built */")
    monkeypatch.setattr("jupyter_gpt.notebook.views.widget.STATIC", tmp_path)

    def make(run, overlays=()):
        made = live.LiveRun(run, overlays)
        made.sent = []

        def send(content, buffers=()):
            made.sent.append((content, [floats(buffer) for buffer in buffers]))

        monkeypatch.setattr(made, "send", send)
        return made

    return make


def floats(buffer: bytes) -> list[float]:
    values = array.array("f")
    values.frombytes(buffer)
    return list(values)


def hear(widget, what: str, page: str = "first") -> None:
    widget._handle_custom_msg({"type": what, "page": page}, [])


def test_each_pump_sends_only_what_is_new(widget):
    run = FakeRun(events=[START])
    shown = widget(run)
    hear(shown, "heard")  # so that nothing is sent again, however slow the machine is
    run.step(1, loss=4.0)
    run.emit("evaluation", step=1, val_loss=4.5, bits_per_byte=1.5, seconds=0.1)
    shown.pump(at_once=True)
    shown.pump(at_once=True)
    run.step(2, loss=3.5)
    run.step(3, loss=3.25)
    shown.pump(at_once=True)
    _, (first, columns), (second, more) = shown.sent  # the first as the widget hears that the page is there
    assert [first[key] for key in ("from", "to", "rows")] == [1, 3, 1]
    assert [event["event"] for event in first["events"]] == ["evaluation"]
    assert columns[first["columns"].index("loss")] == [4.0]
    assert [second[key] for key in ("from", "to", "rows")] == [3, 5, 2]
    assert more[second["columns"].index("step")] == [2, 3]
    assert more[second["columns"].index("loss")] == [3.5, 3.25]
    assert second["now"]["tokens"] == 192


def test_only_who_saw_that_a_run_stops_skips_its_evaluation(widget):
    run = FakeRun()
    shown = widget(run)
    hear(shown, "stop")
    run.status = "stopping"
    hear(shown, "stop")  # clicked again before that was seen, or on another page
    assert run.told == ["stop"]
    hear(shown, "skip")
    assert run.told == ["stop", "stop"]


def test_a_page_that_comes_later_is_sent_the_newest_snapshot(widget):
    shown = widget(FakeRun())
    shown.renewed({"text/plain": "old"}, {})
    hear(shown, "ready")
    outputs = lambda: [content["data"] for content, _ in shown.sent if content["type"] == "output"]  # noqa: E731
    assert outputs() == []  # this page has drawn it itself
    shown.renewed({"text/plain": "new"}, {})
    hear(shown, "ready", "second")
    hear(shown, "heard", "second")
    assert outputs() == [{"text/plain": "new"}]


def test_events_wait_a_fifth_of_a_second_but_a_new_status_does_not(widget, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    run = FakeRun()
    shown = widget(run)
    run.step(1)
    shown.pump()
    run.step(2)
    now[0] += 0.1
    shown.pump()
    assert [content["to"] for content, _ in shown.sent] == [1]
    run.status = "paused"
    shown.pump()
    assert [content["to"] for content, _ in shown.sent] == [1, 2]
    run.step(3)
    now[0] += 0.25
    shown.pump()
    assert [content["to"] for content, _ in shown.sent] == [1, 2, 3]


def test_ready_brings_the_whole_history_again(widget):
    run = FakeRun()
    shown = widget(run)
    for k in range(1, 6):
        run.step(k)
        shown.pump(at_once=True)
    hear(shown, "ready")
    content, columns = shown.sent[-1]
    assert content["from"] == 0 and content["to"] == 5
    assert columns[0] == [1, 2, 3, 4, 5]


def test_history_is_repeated_until_the_front_end_is_heard(widget, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    run = FakeRun()
    shown = widget(run)
    run.step(1)
    repeats = []
    for tick in range(80):
        now[0] = tick / 10
        before = len(shown.sent)
        shown.pump()
        if len(shown.sent) > before:
            repeats.append(now[0])
        if now[0] == 5:
            hear(shown, "heard")
    assert repeats == pytest.approx([0, 0.5, 1.5, 3.5], abs=0.21)  # a message goes every 0.2 s


def test_what_is_no_number_arrives_as_unknown_and_json_stays_valid(widget):
    run = FakeRun(events=[START])
    shown = widget(run)
    run.step(1, loss=math.nan)
    run.step(2, loss=None)
    run.emit("evaluation", step=2, val_loss=math.inf, bits_per_byte=math.nan, seconds=0.1)
    shown.pump(at_once=True)
    content, columns = shown.sent[0]
    assert all(math.isnan(value) for value in columns[content["columns"].index("loss")])
    evaluation = json.loads(json.dumps(content, allow_nan=False))["events"][1]
    assert evaluation["val_loss"] is None and evaluation["bits_per_byte"] is None


def test_events_cut_back_to_a_checkpoint_start_the_history_again(widget):
    run = FakeRun()
    shown = widget(run)
    for k in (1, 2, 3):
        run.step(k)
    shown.pump(at_once=True)
    run.events = run.events[:1]
    shown.pump(at_once=True)
    content, columns = shown.sent[-1]
    assert content["from"] == 0 and columns[0] == [1]


def test_overlays_travel_under_their_own_number(widget):
    run, other = FakeRun(), FakeRun("earlier", status="finished")
    other.step(1, loss=9.0)
    shown = widget(run, [other])
    assert [each["name"] for each in shown.state["runs"]] == ["storyteller", "earlier"]
    shown.pump(at_once=True)
    assert [content["run"] for content, _ in shown.sent] == [1]


def test_clicks_reach_the_run_and_its_new_status_goes_back(widget):
    run = FakeRun()
    shown = widget(run)
    for what in ("pause", "unpause", "sample", "stop"):
        hear(shown, what)
    assert run.told == ["pause", "unpause", "sample", "stop"]
    run.status = "stopped"
    shown.pump(at_once=True)
    assert shown.state["runs"][0]["status"] == "stopped"


def test_a_page_that_was_loaded_again_is_sent_the_snapshots(widget):
    shown = widget(FakeRun())
    hear(shown, "ready")
    before = len(shown.sent)
    shown.renewed({"text/plain": "a"}, {})
    assert len(shown.sent) == before, "the display was renewed, which this page knows"
    hear(shown, "ready", page="second")
    shown.renewed({"text/plain": "b"}, {})
    assert shown.sent[-1][0] == {"type": "output", "data": {"text/plain": "b"}, "metadata": {}, "last": False}


def test_the_report_is_sent_to_whoever_comes_until_a_page_has_it(widget):
    run = FakeRun()
    shown = widget(run)
    shown.renewed({"text/plain": "report"}, {}, last=True)
    hear(shown, "ready", page="much later")
    message = {"type": "output", "data": {"text/plain": "report"}, "metadata": {}, "last": True}
    assert [content for content, _ in shown.sent] == [message, message]
    hear(shown, "stop", page="much later")
    assert run.told == [], "the run is over"
    assert shown.comm is not None
    hear(shown, "kept", page="much later")
    assert shown.comm is None
    hear(shown, "kept", page="much later")


def test_the_mark_stands_in_what_nbval_folds(widget):
    shown = widget(FakeRun())
    assert shown.marked("<p>a <!--«-->1<!--»--></p>") == (
        f'<p>a <!--«--><span class="gpt-{shown.mark}"></span>1<!--»--></p>'
    )
    assert shown.marked("<p>a</p>", beside=True) == f'<p>a</p><span class="gpt-{shown.mark} gpt-beside"></span>'


def test_its_name_in_a_notebook_is_the_same_every_time(widget):
    assert repr(widget(FakeRun())) == "LiveRun('storyteller')"


def test_a_missing_build_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setattr("jupyter_gpt.notebook.views.widget.STATIC", tmp_path)
    with pytest.raises(GPTError, match="was not built"):
        live.LiveRun(FakeRun())


@pytest.fixture
def published(monkeypatch):
    """What display() was given, as (mime bundle, metadata)."""
    import IPython.display

    seen = []
    monkeypatch.setattr(IPython.display, "display", lambda data, metadata=None, **_: seen.append((data, metadata)))
    return seen


def report_of(run) -> Report:
    return Report(f"{run.name} {run.status}", data={"name": run.name}, metadata={"seconds": 1.5})


def test_with_nobody_there_only_the_final_bundle_is_published(published):
    run = FakeRun()
    run.step(1)
    following.follow(run, report_of)
    assert published == [(report_of(run).mime(), {MIME: {"seconds": 1.5}})]
    assert published[0][0]["text/plain"] == "storyteller finished"


def test_a_live_cell_holds_a_snapshot_from_its_first_second_and_at_last_the_report(widget, published, monkeypatch):
    monkeypatch.setattr(place, "is_live", lambda: True)
    monkeypatch.setattr(place, "draws_over", lambda: True)
    updates = []
    handle = SimpleNamespace(update=lambda data, raw, metadata: updates.append(data))
    monkeypatch.setattr("IPython.display.display", lambda data, **_: published.append(data) or handle)
    run = FakeRun()
    run.step(1)
    following.follow(run, report_of)
    [first] = published
    assert set(first) == {"text/plain", "text/html"}
    assert first["text/plain"].startswith("storyteller running\n") and '<span class="gpt-' in first["text/html"]
    assert updates[-1] == report_of(run).mime()


def test_where_widgets_are_drawn_as_outputs_only(widget, published, monkeypatch):
    """VS Code and Colab."""
    monkeypatch.setattr(place, "is_live", lambda: True)
    updates = []
    handle = SimpleNamespace(update=lambda data, raw, metadata: updates.append(data))
    monkeypatch.setattr("IPython.display.display", lambda data, **_: published.append(data) or handle)
    run = FakeRun()
    run.step(1)
    following.follow(run, report_of)
    [shown] = published
    assert isinstance(shown, live.LiveRun)
    assert updates == [report_of(run).mime()]


@pytest.mark.parametrize(("cell", "over"), [("3f2b-9", True), ("vscode-notebook-cell:/a.ipynb#W0", False), ("", False)])
def test_which_front_ends_draw_over_an_output(monkeypatch, cell, over):
    shell = SimpleNamespace(get_parent=lambda: {"metadata": {"cellId": cell}})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    assert place.draws_over() is over


def test_a_failed_run_leaves_its_bundle_and_raises(published):
    run = FakeRun(error=GPTError("the loss is NaN at step 7"))
    run.step(6)
    with pytest.raises(GPTError, match="NaN at step 7"):
        following.follow(run, report_of)
    assert [data["text/plain"] for data, _ in published] == ["storyteller failed"]


def test_a_run_that_failed_before_its_first_step_leaves_its_error_alone(published):
    run = FakeRun(error=GPTError("bad.jsonl, line 37 is not JSON"))
    with pytest.raises(GPTError, match="line 37"):
        following.follow(run, report_of)
    assert published == []


def test_a_background_run_with_nobody_there_says_one_fixed_line(published, capsys):
    following.follow(FakeRun(), report_of, background=True)
    assert published == []
    assert capsys.readouterr().out == (
        "storyteller trains in the background; %gpt show storyteller shows how far it is\n"
    )


@pytest.mark.parametrize(("metadata", "live_there"), [({"cellId": "a1"}, True), ({}, False)])
def test_a_person_is_there_when_the_request_names_a_cell(monkeypatch, metadata, live_there):
    class Shell:
        def get_parent(self):
            return {"header": {}, "metadata": metadata}

    monkeypatch.setattr("IPython.get_ipython", Shell)
    assert place.is_live() is live_there


def test_a_plain_script_is_not_live(monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    assert place.is_live() is False


def test_a_closed_widget_leaves_no_comm(widget):
    widget = widget(FakeRun())
    layout = widget.layout
    assert layout.comm is not None and widget.comm is not None
    close(widget)
    assert layout.comm is None and widget.comm is None


def test_after_a_snapshot_that_could_not_be_drawn_comes_the_next(monkeypatch):
    shown, failed = [], threading.Event()
    handle = SimpleNamespace(update=lambda data, **_: shown.append(data["text/plain"]))
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data["text/plain"]) or handle)
    monkeypatch.setattr(place, "draws_over", lambda: True)
    monkeypatch.setattr(place, "PERIODS", (0.0, 0.0))
    monkeypatch.setattr(threading, "excepthook", lambda error: failed.set())
    reports = iter([Report("first"), None, Report("second")])  # None cannot be drawn
    there = place.Place()
    there.watch(SimpleNamespace(marked=lambda html, _: html, renewed=lambda *_: None), lambda: next(reports))
    wait_until(lambda: there.renew() or failed.is_set())
    wait_until(lambda: there.renew() or len(shown) > 1)
    assert shown == ["first", "second"]


def test_a_cell_says_which_model_it_loads_before_it_shows_anything_else(published, monkeypatch):
    from jupyter_gpt.models import models

    monkeypatch.setattr(place, "is_live", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, **_: published.append(data) or SimpleNamespace())
    with place.Place():
        models.tell_loading("assistant")
        models.tell_loading("its judge")
    assert [data["text/plain"] for data in published] == ["loading assistant …"]
    models.tell_loading("another")
    assert len(published) == 1


def test_the_first_cell_of_a_kernel_says_at_once_that_a_model_on_disk_is_loaded(published, monkeypatch, tmp_path):
    shown = []
    handle = SimpleNamespace(update=lambda data, **_: shown.append(data.get("text/plain")))
    monkeypatch.setattr(place, "is_live", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data["text/plain"]) or handle)
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path))
    (tmp_path / "models" / "tale").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "jupyter_gpt.session", SimpleNamespace(gpt=None))
    with place.announced("tale"):
        assert shown == []  # a later cell looks for the model as fast
    monkeypatch.delitem(sys.modules, "jupyter_gpt.session")
    with place.announced("nothing"), place.announced("--cot"):
        assert shown == []
    with place.announced("tale"), place.Place() as writing:
        assert shown == ["loading tale …"]
        writing.put(Report("the answer"))
    assert shown == ["loading tale …", "the answer"]
    (tmp_path / "indexes" / "docs").mkdir(parents=True)
    with place.announced("docs"), place.Place() as hits:
        assert shown[2:] == ["loading docs …"]
        hits.put(Report("the hits"))
    with pytest.raises(GPTError), place.announced("tale"):
        raise GPTError("no such option")
    assert shown[4:] == ["loading tale …", None]


def test_a_model_on_disk_is_told_before_it_is_loaded(gpt, train, monkeypatch):
    from jupyter_gpt.models import models

    train(steps=2)
    told = []
    monkeypatch.setattr(models, "tell_loading", told.append)
    assert gpt.models["tiny"].resident and told == []
    gpt.models.unload("tiny")
    assert gpt.models["tiny"].resident and told == ["tiny"]


def test_runs_of_other_tokens_are_not_compared_by_tokens(gpt, train):
    for name, size in (("one", 300), ("two", 320), ("three", 300)):
        train(name, vocab_size=size, steps=1)
    differ = "Their vocabularies differ, and so do their tokens: compare bits per byte."
    assert differ in run_report(gpt.runs["one"], [gpt.runs["two"]]).text
    assert differ not in run_report(gpt.runs["one"], [gpt.runs["three"]]).text
