"""The static views of finetuning and of classifiers: before and after side by side, escaped, and marked where machines
differ.
"""

import json
import re
from types import SimpleNamespace

from helpers.recipes import classify_recipe, finetuning_recipe
from helpers.recipes import run_of as run
from jupyter_gpt.notebook.views.run_report import panels, run_report
from jupyter_gpt.report.charts import Panel, curves, figure
from jupyter_gpt.runs.events import declared, line_of
from jupyter_gpt.stages.classify import Classifying, confusion_table
from jupyter_gpt.stages.sft_training import Supervised

EVIL = "<script>alert(1)</script>»"


def told(evaluated=True):
    start = {"event": "start", "device": "cpu", "dtype": "float32", "parameters": 1000, "trained": 40}
    samples = [
        {"event": "sample", "step": n, "prompt": f"Why {q}? {EVIL}", "text": f"{n}{EVIL}" if n else ""}
        for n in (0, 2, 4)
        for q in "xy"
    ]
    steps = [
        {
            "event": "step",
            "step": n,
            "loss": 3.0 / n,
            "lr": 0.1,
            "seconds": 1.0 * n,
            "tokens": 9 * n,
            "tokens_per_second": 9.0,
            "mfu": None,
        }
        for n in range(1, 5)
    ]
    tests = (
        [{"event": "evaluation", "step": n, "val_loss": 2.0, "bits_per_byte": None} for n in (0, 4)]
        if evaluated
        else []
    )
    return [start, *tests[:1], *samples[:2], *steps, *samples[2:], *tests[1:]]


def unmarked(text):
    """What is left for nbval to compare."""
    return re.sub("≈[-–0-9.,e+]+|«[^»]*»|data:image/png;base64,[A-Za-z0-9+/=]+", "", text)


def test_the_same_questions_before_and_after_side_by_side():
    report = run_report(
        run("sft", finetuning_recipe({"stories-qa": 1}, "hen", lora=4, steps=4, batch_tokens=64), told())
    )
    assert "40 (4%)" in report.text
    first, last = "  before training  «(nothing)»", "  after step 4     «4<script>"
    assert report.text.count(first) == report.text.count(last) == 2 and report.text.index(first) < report.text.index(
        last
    )
    assert ">before training</th>" in report.html and "after step 4</th>" in report.html
    assert "the samples between" in report.html and "step 2" in report.html
    assert "<script" not in report.html and report.html.count("data:image/png") == 1
    assert "validation loss" in report.text and "3.0" not in unmarked(report.text)
    assert report.data["base"] == "hen" and len(report.metadata["samples"]) == 6
    json.dumps([report.data, report.metadata])


def test_what_a_run_does_not_know_it_does_not_say():
    recipe = finetuning_recipe({"the cell": 1}, "hen", adapter="polite", steps=4, batch_tokens=64)
    report = run_report(run("sft", recipe, told(evaluated=False), "stopped"))
    assert "validation" not in report.text and report.text.startswith("a: sft, stopped, ≈4 of ≈4 steps")
    assert Supervised.about.fget(SimpleNamespace(recipe=recipe)).startswith("a copy of the adapter polite of hen, ")
    recipe = finetuning_recipe({"x": 1}, "hen", lora=4, steps=4, batch_tokens=64)
    assert Supervised.about.fget(SimpleNamespace(recipe=recipe)).startswith("an adapter of rank 4 on hen, ")
    early = run_report(run("sft", recipe, told()[:1], "failed"))
    assert early.text.startswith("a: sft, failed") and "image" not in early.html


def test_a_classifier_tells_its_figures_with_intervals_and_its_confusion_as_a_picture():
    labels = ["bad", f"good{EVIL}"]
    start = {
        "event": "start",
        "device": "cpu",
        "dtype": "float32",
        "figures": {"texts": "80 to train on, 20 held out, 1 truncated"},
        "parameters": 1000,
        "trained": 40,
    }
    steps = [{"event": "step", "step": n, "loss": 0.5, "seconds": 1.0} for n in (1, 4)]
    tests = [
        {
            "event": "evaluation",
            "step": n,
            "val_loss": 0.4,
            "accuracy": 0.85,
            "low": 0.64,
            "high": 0.95,
            "f1": 0.84,
            "f1_low": 0.6,
            "f1_high": 0.96,
        }
        for n in (0, 4)
    ]
    tests.append(line_of(confusion_table(4, labels, [[9, 1], [2, 8]]), 0.0))
    samples = [{"event": "sample", "step": n, "prompt": f"so {EVIL}", "text": "bad (0.90)"} for n in (0, 4)]
    for options in ({"lora": 4}, {"from_scratch": True}):
        report = run_report(run("classify", classify_recipe("hen", **options), [start, *tests, *steps, *samples]))
        assert "held-out accuracy   ≈85.0% (95% interval ≈64.0% to ≈95.0%) at step 4, from ≈85.0%" in report.text
        assert "macro F1            ≈0.840 (95% interval ≈0.600 to ≈0.960) at step 4, from ≈0.840" in report.text
        assert "80 to train on, 20 held out, 1 truncated" in report.text and report.html.count("data:image/png") == 2
        assert "<script" not in report.html
        json.dumps([report.data, report.metadata])
    recipe = classify_recipe("hen", from_scratch=True)
    assert "the architecture of hen from random weights" in Classifying.about.fget(SimpleNamespace(recipe=recipe))
    many = [f"label {n}" for n in range(20)]
    matrix = [[n == m for n in range(20)] for m in range(20)]
    events = [start, tests[0], line_of(confusion_table(0, many, [list(map(int, row)) for row in matrix]), 0.0)]
    assert "data:image/png" in run_report(run("classify", classify_recipe("hen"), events, "stopped")).html


def test_another_run_is_drawn_beside_it_and_its_figures_are_said():
    recipe = finetuning_recipe({"x": 1}, "hen", lora=4, steps=4, batch_tokens=64)
    one, other = run("sft", recipe, told()), run("sft", recipe, told())
    other.name = "b"
    report = run_report(one, [other])
    assert "b: training loss" in report.text and "b: training loss" not in run_report(one).text
    assert report.metadata["beside"]["b"] == report.metadata["steps"]
    metrics = declared(one.events)
    steps = [event for event in one.events if event["event"] == "step"]
    first = panels(metrics, steps, [], "a", [other])[0]
    assert first.others == [("b", list(first.points))] and (first.run, first.names[0]) == ("a", "training loss")
    assert report.html.count("data:image/png") == 1


def test_the_chart_has_room_for_the_run_beside_it():
    [axes] = figure()[1]
    curves(
        axes, Panel("loss", points=[(1, 3.0), (2, 2.0)], others=[("b", [(1, 0.5), *((n, 9.0) for n in range(2, 12))])])
    )
    low, high = axes.get_ylim()
    assert low < 0.5 and high > 9 and axes.get_xlim()[1] > 9
