"""Runs in processes of their own: followed and controlled through their folder, killed, resumed, and what they send."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading

import psutil
import pytest

from helpers import TESTS
from helpers.errors import fail
from helpers.processes import wait_until
from helpers.stopping import hold_at
from helpers.tiny import DOCUMENTS, tiny_run
from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.panel import Panel
from jupyter_gpt.runs import failure, payload
from jupyter_gpt.runs.events import Reader
from jupyter_gpt.runs.launchers import launcher
from jupyter_gpt.session import Session

GIVEN = {"steps": 100, "eval_every": 80, "sample_every": 80, "checkpoint_every": 20, "seed": 3}


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def nothing_left(tmp_path):
    """Whatever a test leaves running ends with it."""
    yield
    for path in tmp_path.rglob(launcher.HANDLE):
        handle = launcher.read_handle(path.parent)
        launcher.launcher(handle["launcher"]).stop(handle)


def told(run):
    """What a run told, without its clocks and what was asked for."""
    keys = ("event", "step", "loss", "grad_norm", "lr", "val_loss", "text", "prompt")
    events = [e for e in run.events if e["event"] in ("step", "evaluation", "sample") and not e.get("asked")]
    return [{key: event[key] for key in keys if key in event} for event in events]


def test_a_detached_run_is_followed_stopped_killed_and_resumed_to_the_same_model(gpt, train, capfd, monkeypatch):
    whole = train("whole", **GIVEN)
    hold_at(monkeypatch, 3)
    run = train("apart", detach=True, **GIVEN)
    assert run.status == "running" and not run.here and run.alive
    assert fail(train, "apart", **GIVEN).startswith("run apart is still running")

    other = Session()  # another kernel in this folder
    seen = other.runs["apart"]
    wait_until(lambda: seen.step == 3)
    assert run.step == 3 and not (run.folder / payload.FILE).exists()
    assert json.loads((run.folder / launcher.HANDLE).read_text())["detached"] is True
    assert fail(lambda: other.models["apart"]).startswith("apart is running in a separate process (step ")
    assert "apart" in other.runs.report.text and "running" in other.runs.report.text
    seen.pause()
    assert (seen.status, run.status) == ("paused", "paused")
    seen.sample_now()
    wait_until(lambda: any(event.get("asked") for event in run.events))  # so it has seen that it is paused
    step = run.step
    assert step == 3 and len(run.history) == step
    latest = other.prompt("Tale", model="apart", step="latest", max_tokens=4, temperature=0)  # while it is trained
    [kept] = [path.name for path in sorted((run.folder / "checkpoints").glob("step-*"))][-1:]
    assert latest.model == f"apart.step-{int(kept[5:])}" and "apart" not in other.models
    assert other.prompt("Tale", model="apart", step=0, max_tokens=4, temperature=0).model == "apart.step-0"
    assert [model.name for model in other.models.resident.values()] == ["apart.step-0"]
    assert "has no checkpoint of step 1: th" in fail(other.prompt, "Tale", model="apart", step=1)
    panel = Panel()
    [row] = [row for row in panel.state()["runs"] if row["name"] == "apart"]
    assert (row["status"], row["here"], row["step"]) == ("paused", True, step)
    assert "error" not in panel.answer({"type": "unpause", "name": "apart"})
    wait_until(lambda: seen.step == 4)
    other.stop("apart")
    assert seen.status == run.status == "stopped" and gpt.models["apart"].step == run.step == 4

    hold_at(monkeypatch, 24)
    again = other.resume("apart", detach=True)
    assert fail(gpt.resume, "apart") == "run apart is running already"
    wait_until(lambda: again.step == 24)
    handle = again.handle
    os.kill(handle["pid"], signal.SIGKILL)
    wait_until(lambda: again.status == "interrupted")
    with pytest.raises(
        GPTError, match=r"^run apart was interrupted: its process was killed by SIGKILL, .*. %gpt resume apart goes on"
    ):
        again.wait()
    last = gpt.resume("apart")  # in this kernel
    assert last.status == "finished" and told(last) == told(whole)
    one, two = ((gpt.models.folder(name) / "model.safetensors").read_bytes() for name in ("whole", "apart"))
    assert one == two and gpt.models["apart"].step == 100 and other.models["apart"].step == 100
    assert capfd.readouterr().out == ""


def test_the_error_of_a_users_function_has_its_traceback_and_an_older_run_comes_back(gpt, tiny_model):
    tiny_model(gpt, "fox")
    given = {"policy": "fox", "algo": "grpo", "max_tokens": 4, "prompts_per_step": 1, "samples": 2, "devices": 1}

    def picky(prompt, completion):
        raise ValueError(f"nothing of {prompt} is good")

    def plain(prompt, completion):
        return float(len(completion))

    gpt.rlhf("run", ["Tale"], reward=plain, steps=1, **{**given, "devices": None})
    with pytest.raises(failure.ProcessFailed) as caught:
        gpt.rlhf("run", ["Tale"], reward=picky, steps=9, overwrite=True, **given)
    assert str(caught.value) == "ValueError: nothing of Tale is good"
    shown = "\n".join(caught.value._render_traceback_())
    assert shown.count("File ") == 1 and "in picky" in shown and 'raise ValueError(f"nothing of' in shown
    assert gpt.runs["run"].status == "finished" and gpt.runs["run"].recipe["steps"] == 1
    assert not list((gpt.home / "runs").glob(".old-*"))


def test_a_run_that_a_cell_waits_for_ends_with_its_kernel(tmp_path, gpt):
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom helpers.tiny import DOCUMENTS, TINY\n"
        "from jupyter_gpt import gpt\n"
        "gpt.pretrain('tiny', {'$docs': 1.0}, variables={'docs': DOCUMENTS}, steps=9999, devices=1, **TINY)"
    )
    kernel = subprocess.Popen([sys.executable, "-c", code])
    folder = gpt.home / "runs" / "tiny"
    wait_until(lambda: launcher.read_handle(folder))
    handle = launcher.read_handle(folder)
    wait_until(lambda: "jupyter_gpt-watch" in names_of_threads(handle["pid"]))
    kernel.kill()
    kernel.wait()
    wait_until(lambda: not psutil.pid_exists(handle["pid"]) or not launcher.is_alive(handle))
    assert gpt.runs["tiny"].status == "interrupted"


def names_of_threads(pid):
    """Two threads or more: one of them watches."""
    return ["jupyter_gpt-watch"] if psutil.pid_exists(pid) and psutil.Process(pid).num_threads() > 1 else []


def test_processes_that_do_not_stop_are_killed_when_asked_a_third_time(gpt):
    run = tiny_run(gpt, steps=1_000_000, detach=True)
    for _ in range(3):
        run.stop()
    with pytest.raises(GPTError, match="tiny was interrupted"):
        run.wait()
    assert run.status == "interrupted" and not run.alive


def test_what_cannot_be_started_is_one_line_and_leaves_the_older_run(gpt, train, monkeypatch):
    run = train(steps=2)
    assert "--devices 0 must be above zero, or all" in fail(train, devices=0)
    assert fail(train, devices="some").startswith("--devices some must be above zero")
    assert fail(train, devices=4096).startswith("--devices 4096: this machine has")
    assert fail(train, nodes=2).startswith("--nodes is for a cluster")
    assert fail(train, on="kubernetes").startswith("there is no launcher kubernetes")
    held = threading.Lock()
    message = fail(payload.pickled, {"docs": DOCUMENTS, "reward": lambda prompt, completion: held.locked()})
    assert message.startswith("$reward cannot be sent to another process (cannot pickle '_thread.lock' object)")
    with monkeypatch.context() as patch:
        patch.setattr(launcher.launcher("processes"), "start", lambda launch: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(steps=3, detach=True, overwrite=True)
    assert gpt.runs["tiny"].status == "finished" and gpt.runs["tiny"].recipe["steps"] == run.steps == 2
    report = train(steps=3, detach=True, overwrite=True, dry_run=True)
    assert "-m jupyter_gpt.stages.run_process" in report.text and "not started" in report.text
    assert train(steps=3, overwrite=True, dry_run=True).text.endswith("in this kernel")
    assert gpt.runs["tiny"].recipe["steps"] == 2 and gpt.runs["tiny"].provenance.requested["steps"] == 2


def test_the_place_of_a_run_is_no_part_of_what_it_is(gpt, train):
    train(steps=2)
    report = train(steps=2, detach=True, devices=1, dry_run=True)  # no --overwrite: it asks for the same
    assert "run_process" in report.text


def test_variables_are_read_only_as_they_were_sent(tmp_path, monkeypatch):
    factor = 3

    def scaled(value):
        return factor * value

    sent = payload.write(tmp_path, payload.pickled({"scaled": scaled}))
    assert stat.S_IMODE((tmp_path / payload.FILE).stat().st_mode) == 0o600
    monkeypatch.setenv(payload.VARIABLE, sent[payload.VARIABLE])
    assert payload.read(tmp_path)["scaled"](2) == 6
    data = bytearray((tmp_path / payload.FILE).read_bytes())
    data[-3] ^= 1
    (tmp_path / payload.FILE).write_bytes(data)
    with pytest.raises(GPTError, match="is not what the kernel has sent: nothing of it was read"):
        payload.read(tmp_path)
    assert payload.write(tmp_path, payload.pickled({})) == {} and not (tmp_path / payload.FILE).exists()


def test_a_file_of_events_is_read_on_and_anew_where_it_was_cut(tmp_path):
    path = tmp_path / "events.jsonl"
    reader = Reader(path)
    reader.read()
    assert reader.events == []
    lines = [f'{{"event": "step", "step": {n}, "loss": 1.0}}\n' for n in range(1, 5)]
    path.write_text("".join(lines[:2]) + lines[2][:9])
    reader.read()
    first = reader.events[0]
    with path.open("a") as file:
        file.write(lines[2][9:] + "no event\n" + lines[3])
    reader.read()
    assert [event["step"] for event in reader.events] == [1, 2, 3, 4] and reader.events[0] is first
    assert reader.damaged == [4]
    (tmp_path / "new").write_text(lines[0])
    os.replace(tmp_path / "new", path)
    reader.read()
    assert [event["step"] for event in reader.events] == [1] and reader.damaged == []


def test_documents_are_sent_whatever_else_the_notebook_has(gpt):
    """Only the variables that the recipe names travel: `%%pretrain` is given all of the notebook."""
    from helpers.recipes import classify_recipe, pretraining_recipe, rl_recipe
    from jupyter_gpt.stages.launch import sent

    names = {"docs": DOCUMENTS, "short": len, "reviews": [], "mine": object(), "lock": threading.Lock()}
    assert list(sent(pretraining_recipe({"$docs": 1.0, "stories": 1.0}), names)) == ["docs"]
    assert list(sent(classify_recipe("base", cell="good\tx\n$reviews: 1"), names)) == ["reviews"]
    recipe = rl_recipe("base", ["Why?"], reward=["$short", "a-model"]).model_copy(update={"algo": "$mine"})
    assert list(sent(recipe, names)) == ["short", "mine"]
