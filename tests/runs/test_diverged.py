"""A run whose loss diverges ends, its model kept, and says so wherever it is shown; what it is called is defined
once.
"""

import re
import time
from pathlib import Path

import pytest

from helpers.stopping import stopped_at
from jupyter_gpt.notebook.execute import summary
from jupyter_gpt.notebook.views.live import _Feed
from jupyter_gpt.notebook.views.run_report import run_report
from jupyter_gpt.runs.events import LAST, recent
from jupyter_gpt.runs.run import runs_report
from jupyter_gpt.stages.rankings import Ranking

ROWS = [{"prompt": f"How many birds saw hen {n}?", "completion": f"It saw {n}."} for n in range(20)]
TEXTS = [
    (f"The fox saw {n} {word} birds.", "good" if word == "glad" else "bad")
    for n in range(20)
    for word in ("glad", "sad")
]
LAYOUT = Path(__file__).parents[2] / "labextension" / "src" / "layout.ts"


def start(gpt, tiny_model, train, kind, **options):
    """A run of a kind named `run`, of 16 steps."""
    options = {"steps": 16, "eval_every": 16, **options}
    if kind == "pretrain":
        return train("run", **options)
    tiny_model(gpt, "fox")
    if kind == "sft":
        return gpt.sft("run", ROWS, "fox", batch_tokens=128, held_out=0.2, questions=["Who saw?"], **options)
    if kind == "classify":
        return gpt.classify("run", TEXTS, "fox", **options)
    for n in range(12):
        completions = tuple({"model": "fox", "text": f"{text} {n}", "seed": 0} for text in ("saw birds.", "xx xx"))
        gpt.rankings.named("taste").add(Ranking(f"Tale {n}.", completions, ((0,), (1,)), time=float(n)))
    return gpt.reward("run", rankings="taste", base="fox", lora=4, **options)


KINDS = pytest.mark.parametrize("kind", ["pretrain", "sft", "classify", "reward"])


@KINDS
def test_a_run_that_diverges_is_kept_and_says_so_everywhere(gpt, tiny_model, train, kind):
    with pytest.warns(
        UserWarning, match=r"^run, step \d+: the run has diverged: the training loss is .* Lower --lr \(now 30\)$"
    ):
        run = start(gpt, tiny_model, train, kind, lr=30.0)
    assert run.status == "finished" and gpt.models["run"].step == 16
    alarm = next(event for event in run.events if event["event"] == "warning")
    assert alarm["cause"] == "diverged" and alarm["step"] < 16
    before = run.events[run.events.index(alarm) - 1]
    assert (before["event"], before["step"]) == ("step", alarm["step"]), "told right where it began"
    assert run.events[-1]["alarms"] == ["diverged"] and "finished, diverged" in repr(run)
    report = run_report(run)
    assert re.match(
        r"run: [a-z ]+, finished, diverged, all 16 steps\n.*\n! step ≈\d+: «the run has diverged: ", report.text
    )
    assert (
        "finished, diverged" in report.html
        and '<p style="border-left:4px solid #d04545' in report.html
        and "Lower --lr (now 30)" in report.html
    )
    assert report.metadata["warnings"][0]["cause"] == "diverged"
    assert "finished, diverged" in runs_report(gpt.runs).text and "finished, diverged" in summary(gpt.home)


@KINDS
def test_a_run_that_does_not_says_nothing(gpt, tiny_model, train, kind):
    run = start(gpt, tiny_model, train, kind)
    assert not [event for event in run.events if event["event"] == "warning"] and run.events[-1]["alarms"] == []
    assert "diverged" not in run_report(run).text + runs_report(gpt.runs).text + summary(gpt.home)


@KINDS
def test_training_loss_is_one_and_validation_has_its_step(gpt, tiny_model, train, kind):
    """In the report, in the table of runs, and in the live card, which labels it as all others do."""
    run = start(gpt, tiny_model, train, kind, eval_every=5)
    last = [event["loss"] for event in run.events if event["event"] == "step"][-10:]
    loss = sum(last) / 10
    assert recent(run.events) == pytest.approx(loss)
    assert "loss" in _Feed(run).update()[0]["columns"] and f"last {LAST} steps" in LAYOUT.read_text()
    text, table = run_report(run).text, runs_report(gpt.runs).text
    assert re.search(rf"training loss +≈{loss:.3f} nats per \w+, mean of last {LAST} steps", text)
    assert "loss, mean of last 10" in table and f"≈{loss:.3f}" in table
    value = [event["val_loss"] for event in run.events if event["event"] == "evaluation"][-1]
    assert re.search(rf"validation loss +≈{value:.3f} nats per \w+ at step 16", text)
    assert f"≈{value:.3f} at step ≈16" in table and f"{value:.3f} at step 16" in summary(gpt.home)


def test_a_stopped_run_shows_the_step_of_a_validation_that_was_skipped(gpt, train):
    run = train("run", steps=4000, eval_every=4000, background=True)
    while run.step < 3:
        time.sleep(0.002)
    run.stop()
    run.stop()
    run.wait()
    assert re.search(r"validation loss +≈\d\.\d+ nats per token at step ≈0\n", run_report(run).text)


@pytest.mark.filterwarnings("ignore:run, step")
def test_a_resumed_run_raises_the_alarms_that_it_would_have_raised(gpt, train):
    def told(run):
        return [(e["step"], e["text"]) for e in run.events if e["event"] == "warning"]

    options = {"steps": 60, "eval_every": 50, "lr": 30.0}
    whole = told(train("run", **options))
    part = stopped_at(12, train, "run", overwrite=True, **options)
    assert told(part) == whole[:1] and part.events[-1]["alarms"] == ["diverged"]
    gpt.runs.known.clear()
    assert told(gpt.resume("run")) == whole
