"""Trackers beside a run: what reaches them, and that one which fails or hangs costs a line."""

import json
import sys
import time

import pytest

from helpers.errors import fail
from helpers.stopping import hold_at
from jupyter_gpt.runs import trackers
from jupyter_gpt.runs.trackers import without_secrets

KEY = "a-secret-key-of-forty-characters-00000000"
GIVEN = {"steps": 4, "eval_every": 2, "sample_every": 2}
FAKE = """
import json, os, time
from pathlib import Path

class Table:
    def __init__(self, columns, data, dataframe):
        self.rows = [dict(zip(columns, row)) for row in data]

class Run:
    def __init__(self, **given):
        self.file = Path(given["dir"]) / "fake.jsonl"
        self.write(init={k: str(v) for k, v in given.items()})
        runs.append(self)

    def write(self, **line):
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\\n")

    def log(self, values, step):
        if os.environ.get("FAKE") == "fails":
            raise RuntimeError("the server said no to " + os.environ["WANDB_API_KEY"] + "\\nand more")
        if os.environ.get("FAKE") == "hangs":
            time.sleep(600)
        self.write(step=step, **{k: v.rows if isinstance(v, Table) else v for k, v in values.items()})

    def finish(self, exit_code):
        self.write(exit_code=exit_code)

class config:
    def update(values, allow_val_change):
        runs[-1].write(config=values)

runs, init = [], Run
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A module wandb that writes down what it is given, in this process and in those of runs."""
    (tmp_path / "fakes").mkdir()
    (tmp_path / "fakes" / "wandb.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path / "fakes"))
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield
    sys.modules.pop("wandb", None)


def logged(run):
    return [json.loads(line) for line in (run.folder / "trackers" / "wandb" / "fake.jsonl").read_text().splitlines()]


def alarms(run):
    return [event["text"] for event in run.events if event["event"] == "warning"]


def test_metrics_samples_and_recipe_reach_a_tracker(train, fake):
    run = train("fox", log_to=["wandb"], **GIVEN)
    first, told, *lines, last = logged(run)
    assert first["init"]["mode"] == "offline" and first["init"]["name"] == "fox" and last == {"exit_code": 0}
    assert told["config"]["stage"] == "pretrain" and told["config"]["mixture.$docs"] == 1.0
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert [line["loss"] for line in steps] == [e["loss"] for e in run.events if e["event"] == "step"]
    assert [line["step"] for line in lines if "val_loss" in line] == [0, 2, 4]
    samples = [row for line in lines for row in line.get("samples", ())]
    told = [event for event in run.events if event["event"] == "sample"]
    assert [(row["step"], row["text"]) for row in samples] == [(e["step"], e["text"]) for e in told] and samples
    assert KEY not in "".join(path.read_text() for path in run.folder.rglob("*.json*")) and not alarms(run)


@pytest.mark.parametrize("stage", ["sft", "classify", "rlhf"])
def test_every_stage_has_it_and_logs_what_it_declares(gpt, tiny_model, fake, stage):
    tiny_model(gpt, "fox", chat=True)
    if stage == "sft":
        run = gpt.sft("tuned", [("a", "b")] * 8, "fox", steps=2, log_to=["wandb"])
    elif stage == "classify":
        run = gpt.classify("sorter", [(f"a{n}", "xy"[n % 2]) for n in range(16)], "fox", steps=2, log_to="wandb")
    else:
        run = gpt.rlhf("aligned", ["a", "b"], policy="fox", algo="grpo", reward=lambda p, c: len(c), steps=2,
                       log_to=["wandb"], max_tokens=4)  # fmt: skip
    start = next(event for event in run.events if event["event"] == "start")
    names = {name for line in logged(run) for name in line}
    step = next(event for event in run.events if event["event"] == "step")
    assert {metric["name"] for metric in start["metrics"]} & step.keys() <= names


def test_a_detached_run_and_one_that_is_resumed_go_on_in_the_same_tracker(gpt, train, fake, monkeypatch):
    hold_at(monkeypatch, 15)
    run = train("fox", steps=40, checkpoint_every=10, log_to=["wandb"], detach=True)
    while run.step < 15:
        run.look()
        time.sleep(0.01)
    gpt.stop("fox")
    assert logged(run)[-1] == {"exit_code": 0} and run.step == 15
    gpt.resume("fox")
    lines = logged(run)
    first, second = (line["init"]["id"] for line in lines if "init" in line)
    assert first == second
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 41))


def test_one_that_fails_costs_a_line_without_its_key(train, fake, monkeypatch):
    monkeypatch.setenv("FAKE", "fails")
    run = train("fox", log_to=["wandb"], **GIVEN)
    assert run.status == "finished" and run.step == 4
    [line] = alarms(run)
    assert line == "wandb has stopped logging, the run goes on without it: RuntimeError: the server said no to …"
    assert run.events[-1]["event"] == "end" and run.events[-1]["alarms"] == []


def test_one_that_cannot_be_started_costs_a_line(train, fake, monkeypatch):
    def full(*_):
        raise OSError("no more processes")

    monkeypatch.setattr(trackers, "started", full)
    run = train("fox", log_to=["wandb"], **GIVEN)
    [line] = alarms(run)
    assert run.status == "finished" and line.endswith("its process could not be started: no more processes")


def test_one_that_hangs_is_left_to_itself(train, fake, monkeypatch):
    monkeypatch.setenv("FAKE", "hangs")
    monkeypatch.setattr(trackers, "FINISH", 0.5)
    kept = []
    monkeypatch.setattr(trackers, "started", lambda *given, real=trackers.started: kept.append(real(*given)) or kept[0])
    run = train("fox", log_to=["wandb"], **GIVEN)
    assert run.status == "finished" and kept[0].poll() is None
    assert alarms(run) == ["wandb is still busy with what the run told: it goes on in a process of its own"]
    kept[0].kill()
    kept[0].wait()


def test_what_is_missing_is_said_before_anything_is_made(gpt, train, fake, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mlflow" else name)
    assert fail(train, "fox", log_to=["mlflow"]) == "--log-to mlflow needs an extra: pip install 'jupyter_gpt[mlflow]'"
    assert "--log-to is tensorboard or wandb or mlflow or trackio, not" in fail(train, "fox", log_to=["neptune"])
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", "/nowhere")
    assert fail(train, "fox", log_to=["wandb"]).startswith("WANDB_MODE=online needs a key: set WANDB_API_KEY")
    assert "fox" not in gpt.runs


def test_secrets_are_left_out_of_messages():
    said = "403 at https://me:hunter2@host/api with key abcdefgh, of path /root"
    assert without_secrets(said, {"X_API_KEY": "abcdefgh", "HOME": "/root", "TOKEN": "a"}) == (
        "403 at https://host/api with key …, of path /root"
    )


def test_a_tracker_is_no_part_of_what_a_run_is(train, fake):
    train("fox", log_to=["wandb"], **GIVEN)
    again = train("fox", **GIVEN)
    assert "log_to" not in again.recipe and not (again.folder / "trackers").exists()


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Trackers keep their own files in a folder of the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))


def losses(run):
    return {event["step"]: event["loss"] for event in run.events if event["event"] == "step"}


def test_tensorboard_itself(train, local):
    pytest.importorskip("tensorboard", reason="pip install 'jupyter_gpt[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train("fox", log_to=["tensorboard"], **GIVEN)
    assert not alarms(run)
    found = EventAccumulator(str(run.folder / "trackers" / "tensorboard")).Reload()
    assert {e.step: e.value for e in found.Scalars("loss")} == pytest.approx(losses(run))
    assert [e.step for e in found.Scalars("val_loss")] == [0, 2, 4]
    assert "samples/0/text_summary" in found.Tags()["tensors"]
    [recipe] = run.folder.rglob("hparams.yml")
    assert "stage: pretrain" in recipe.read_text()


def test_wandb_itself_offline(train, local):
    pytest.importorskip("wandb", reason="pip install 'jupyter_gpt[wandb]'")
    run = train("fox", log_to=["wandb"], **GIVEN)
    assert not alarms(run)
    [file] = run.folder.rglob("offline-run-*/*.wandb")
    data = file.read_bytes()
    assert b"val_loss" in data and b"grad_norm" in data


def test_mlflow_itself(train, local):
    mlflow = pytest.importorskip("mlflow", reason="pip install 'jupyter_gpt[mlflow]'")
    run = train("fox", log_to=["mlflow"], **GIVEN)
    assert not alarms(run)
    client = mlflow.MlflowClient()
    [found] = client.search_runs([client.get_experiment_by_name("jupyter_gpt").experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["stage"] == "pretrain"
    assert {m.step: m.value for m in client.get_metric_history(found.info.run_id, "loss")} == losses(run)
    assert client.list_artifacts(found.info.run_id, "samples")


def test_trackio_itself(train, local):
    pytest.importorskip("trackio", reason="pip install 'jupyter_gpt[trackio]'")
    run = train("fox", log_to=["trackio"], **GIVEN)
    assert not alarms(run)
    from trackio.sqlite_storage import SQLiteStorage

    [name] = SQLiteStorage.get_runs("jupyter_gpt")
    rows = SQLiteStorage.get_logs("jupyter_gpt", name)
    assert {row["step"]: row["loss"] for row in rows if "loss" in row} == pytest.approx(losses(run))
