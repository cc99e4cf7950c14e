"""The static views of reward models and of RL: what is there, what is escaped, what is marked."""

import json
import re

import pytest

from helpers.recipes import reward_recipe, rl_recipe
from helpers.recipes import run_of as run
from jupyter_gpt.notebook.views.run_report import run_report
from jupyter_gpt.runs.events import line_of
from jupyter_gpt.stages.alignment_report import alignment_table
from jupyter_gpt.stages.reward import calibration_table

EVIL = "<script>alert(1)</script>»"


def rl_events():
    steps = [
        {
            "event": "step",
            "step": n,
            "loss": 0.1,
            "reward": 1.0 * n,
            "kl": 40.0 * n,
            "entropy": 2.0,
            "length": 5.0,
            "clip_fraction": 0.1,
            "value_loss": 0.3,
            "accuracy": 0.5,
            "margin": 0.1,
            "seconds": 1.0 * n,
            "tokens": 9,
            "tokens_per_second": 3.0,
            "mfu": None,
        }
        for n in (1, 2)
    ]
    evaluations = [
        {
            "event": "evaluation",
            "step": n,
            "reward": 0.5 * n,
            "kl": 0.1,
            "entropy": 2.0,
            "length": 4.0,
            "identical": 0.2,
            "prompts": 2,
            "seconds": 1.0,
        }
        for n in (0, 2)
    ]
    samples = [
        {
            "event": "sample",
            "step": n,
            "prompt": "Why?",
            "text": f"be{EVIL}",
            "reward": 0.5,
            "pieces": ["be", EVIL],
            "advantages": [0.5, -0.5],
        }
        for n in (0, 2)
    ]
    rows = [
        {
            "model": name,
            "stage": stage,
            "win_rate": 0.5,
            "win_low": low,
            "win_high": low and 0.9,
            "reward": 1.0,
            "perplexity": 3.0,
            "entropy": 2.0,
            "distinct_1": 0.5,
            "distinct_2": 0.9,
            "self_bleu": 0.3,
            "identical": 0.0,
        }
        for name, stage, low in (("b", "base", 0.1), ("s", "start", None), ("a", "aligned", 0.2))
    ]
    return [
        {"event": "start", "device": "cpu", "about": "s, rewarded by $polite"},
        *evaluations[:1],
        *samples[:1],
        *steps,
        {"event": "warning", "step": 1, "cause": "kl", "text": f"the KL is running away {EVIL}"},
        *evaluations[1:],
        *samples[1:],
        line_of(alignment_table(2, rows, prompts=2, samples=8), 0.0),
    ]


@pytest.mark.parametrize("algo", ["ppo", "grpo", "dpo"])
def test_a_run_of_rl_is_told_in_words_and_pictures(algo):
    recipe = rl_recipe("s", ["Why?"], algo=algo, reward=["$polite"], rankings="taste")
    report = run_report(run("rlhf", recipe, rl_events()))
    assert "<script" not in report.html and EVIL not in report.html
    assert report.html.count("data:image/png") == 2 and "running away" in report.text and "#d04545" in report.html
    assert "win rate" in report.text and "rgba(60,159,80" in report.html and "rgba(208,69,69" in report.html
    assert "$polite" in report.text
    json.dumps(report.data)
    json.dumps(report.metadata)


def unmarked(text):
    """What nbval compares: without marked numbers, marked text and pictures."""
    text = re.sub(r"≈[-–0-9.,e+]+", "≈N", text)
    text = re.sub(r"«[^»]*»", "«…»", text)
    return re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "PICTURE", text)


def test_what_differs_between_machines_is_marked():
    recipe = rl_recipe("s", ["Why?"], algo="ppo", reward=["$polite"])
    one = run_report(run("rlhf", recipe, rl_events()))
    events = rl_events()
    for event in events:
        for key in ("reward", "kl", "entropy", "seconds", "win_rate", "perplexity", "advantages", "text"):
            if isinstance(event.get(key), float):
                event[key] += 0.123
            if event["event"] == "sample":
                event["text"], event["pieces"] = "other", ["ot", "her"]
    place = events[-1]["columns"].index("mean reward")
    for row in events[-1]["rows"]:
        row[place] += 1.5
    two = run_report(run("rlhf", recipe, events))
    assert one.text != two.text and unmarked(one.text) == unmarked(two.text)
    alt = re.compile(r'alt="[^"]*"')
    assert unmarked(alt.sub("", one.html)) == unmarked(alt.sub("", two.html)) and one.data == two.data


def test_the_live_view_is_sent_what_the_algorithm_declares():
    from array import array

    from jupyter_gpt.notebook.views import live

    alive = run("rlhf", rl_recipe("s", ["Why?"], algo="grpo", reward=["$polite"]), rl_events(), "running")
    feed = live._Feed(alive)
    content, buffers = feed.update()
    assert {"reward", "kl", "clip_fraction"} <= {metric["name"] for metric in feed.describe()["metrics"]}
    assert array("f", buffers[content["columns"].index("kl")]).tolist() == [40.0, 80.0] and content["rows"] == 2
    assert [e["event"] for e in content["events"]].count("warning") == 1
    alive = run("rlhf", rl_recipe("s", ["Why?"], algo="dpo", rankings="taste"), rl_events(), "running")
    assert "margin" in live._Feed(alive).update()[0]["columns"]


def test_an_alarm_that_comes_back_is_one_line():
    again = [{"event": "warning", "step": step, "cause": "constant", "text": "the same reward"} for step in (3, 5, 9)]
    recipe = rl_recipe("s", ["Why?"], algo="grpo", reward=["$polite"])
    text = run_report(run("rlhf", recipe, [*rl_events(), *again])).text
    assert "! step ≈1: «the KL" in text
    assert (
        "! step ≈3: «the same reward (and 2 times more, the last at step 9)»" in text
        and text.count("the same reward") == 1
    )


def test_a_run_that_has_not_begun_is_shown_too():
    recipe = rl_recipe("s", ["Why?"], algo="ppo", reward=["$polite"])
    assert "PPO" in run_report(run("rlhf", recipe, [], "failed")).text
    assert "reward model" in run_report(run("reward", reward_recipe("s", "taste"), [], "failed")).text


def test_the_slide_of_a_reward_model():
    events = [
        {"event": "note", "text": "the file was cut off"},
        {"event": "start", "rankings": 9, "held_out": 1, "cut": 2, "device": "cpu"},
        {
            "event": "evaluation",
            "step": 0,
            "val_loss": 0.7,
            "accuracy": 0.5,
            "low": 0.2,
            "high": 0.8,
            "pairs": 4,
            "rankings": 2,
        },
        *({"event": "step", "step": n, "loss": 0.5, "accuracy": 0.9, "seconds": 1.0} for n in (1, 2)),
        {
            "event": "evaluation",
            "step": 2,
            "val_loss": 0.3,
            "accuracy": 0.9,
            "low": 0.5,
            "high": 1.0,
            "pairs": 4,
            "rankings": 2,
        },
        line_of(calibration_table(2, [[0.6, 0.5, 2], [0.95, 1.0, 2]]), 0.0),
        {"event": "sample", "step": 2, "prompt": "Why?", "text": EVIL, "reward": 1.5},
        {"event": "sample", "step": 2, "prompt": "Why?", "text": "rude", "reward": -1.5},
    ]
    report = run_report(run("reward", reward_recipe("s", "taste"), events))
    assert "<script" not in report.html and "▣" in report.html and "cut off" in report.text
    assert "≈90.0% (95% interval ≈50.0% to ≈100.0%)" in report.text and "calibration" in report.html
    assert re.search(r"≈0.95 +≈1.00 +≈2\n", report.text), "a count has no decimals"
    json.dumps([report.data, report.metadata])
