"""Alarms of a loss: what diverges, overfits or does not fall is told once, with its step, and what is healthy is
not.
"""

import json
import random
from pathlib import Path

import pytest

from jupyter_gpt.report.report import MIME
from jupyter_gpt.runs.alarms import LossAlarms

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
RECIPE = {"lr": 0.5, "steps": 400, "clip": 1.0}


def raised(losses, tests=None, norms=None, recipe=RECIPE):
    """[(step, cause, text)] of a run with these losses, a validation loss after each step in `tests`, and what is on at
    its end.
    """
    alarms, found = LossAlarms(), []

    def see(**event):
        found.extend((told.step, told.cause, told.text) for told in alarms.see(event, recipe))

    tests = {0: losses[0]} if tests is None else tests
    for step in range(len(losses) + 1):
        if step:
            see(event="step", step=step, loss=losses[step - 1], grad_norm=norms[step - 1] if norms else 1.0)
        if step in tests:
            see(event="evaluation", step=step, val_loss=tests[step])
    return found, list(alarms.causes)


def falling(count, first=6.0, last=2.0, noise=0.2, seed=0):
    """Losses as of an ordinary run, with the noise of its batches."""
    at = random.Random(seed)
    return [last + (first - last) * 0.97**n + at.gauss(0, noise) for n in range(count)]


def test_a_loss_far_above_its_start_has_diverged():
    found, on = raised([5.0, 80.0, 9000.0, 34544.0, 800.0, 100.0, 90.0, 95.0])
    assert found == [
        (5, "diverged", "the run has diverged: the training loss is 800, and it began at 5. Lower --lr (now 0.5)")
    ]
    assert on == ["diverged"]


def test_a_loss_far_above_its_best_for_long_has_diverged_and_may_come_back():
    found, on = raised([*falling(200), *[4.5] * 40])
    assert [(cause, 200 < step < 240) for step, cause, _ in found] == [("diverged", True)] and on == ["diverged"]
    assert "the training loss is 4.5, and was 1." in found[0][2] or "and was 2." in found[0][2]
    assert raised([*falling(200), *[4.5] * 40, *[2.0] * 20])[1] == []
    assert raised([*[6.0] * 5, *[900.0] * 20, *[5.9] * 60])[1] == ["diverged"], "to be where it began is not to be back"
    assert raised([*falling(200), *[4.5] * 9, *[2.1] * 30])[0] == [], "a spike"


def test_a_single_batch_says_little_of_where_a_run_began():
    easy = [0.2, *[1.4] * 60]  # without a validation loss
    assert raised(easy, tests={}) == ([], [])
    assert raised([0.2, *[40.0] * 20], tests={})[1] == ["diverged"]


def test_a_short_run_has_diverged_where_its_validation_loss_has():
    found, on = raised([2.0, 60.0, 400.0], tests={0: 2.1, 3: 512.0})
    assert found == [
        (3, "diverged", "the run has diverged: the validation loss is 512, and it began at 2.1. Lower --lr (now 0.5)")
    ]
    assert on == ["diverged"]


def test_a_gradient_that_explodes_is_told_before_the_loss_is_gone():
    found, _ = raised(falling(80), norms=[*[0.5] * 60, *[300.0] * 20])
    assert [cause for _, cause, _ in found] == ["gradient"] and "150 before clipping, and was 0.5" in found[0][2]
    assert raised(falling(80), norms=[*[0.5] * 40, *[300.0] * 4, *[0.5] * 36])[0] == []
    assert raised(falling(80), norms=[*[0.01] * 60, *[2.0] * 20])[0] == [], "small after all that was learned by heart"


def test_a_validation_loss_that_rises_while_the_training_loss_falls():
    rising = {0: 6.0, 20: 3.0, 40: 3.1, 60: 3.3, 80: 3.5, 100: 3.7, 120: 3.9}
    found, on = raised(falling(120, last=0.2), tests=rising)
    assert [(step, cause) for step, cause, _ in found] == [(100, "overfitting")] and on == ["overfitting"]
    assert "rose from 3 at step 20 to 3.7 while the training loss fell. Use more data, or fewer --steps" in found[0][2]
    assert raised(falling(120, last=0.2), tests={**rising, 60: 2.9, 80: 3.5, 100: 2.8})[0] == []
    assert (
        raised([3.0] * 120, tests={0: 3.0, **{n: 3.2 for n in range(20, 121, 20)}}, recipe={**RECIPE, "steps": 900})[0]
        == []
    )


def test_a_loss_that_does_not_fall():
    found, on = raised([0.7 + 0.001 * (n % 7) for n in range(400)])
    assert [(step, cause) for step, cause, _ in found] == [(200, "stuck")] and on == ["stuck"]
    assert (
        "has not fallen: it began at 0.7 and is 0.702. Look at the data, and try a higher or a lower --lr (now 0.5)"
        in found[0][2]
    )


def test_an_alarm_is_told_when_it_begins_and_again_only_after_it_was_over():
    found, _ = raised([5.0, *[50.0] * 20, *[2.0] * 20, *[50.0] * 20, *[2.0] * 20])
    assert [cause for _, cause, _ in found] == ["diverged", "diverged"]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_an_ordinary_run_raises_none(seed, noise):
    losses = falling(400, noise=noise, seed=seed)
    assert raised(losses, tests={n: 2 + 4 * 0.97**n + 0.02 * (n % 3) for n in range(0, 401, 40)}) == ([], [])


@pytest.mark.parametrize("seed", range(20))
def test_small_batches_of_a_mixture_raise_none(seed):
    """Three rows a step, each of an easy source or, one in four, of a hard one."""
    at = random.Random(seed)
    easy = [1 + 6 * 0.99**n for n in range(400)]
    losses = [7.0, *(sum(4.4 if at.random() < 0.25 else loss for _ in range(3)) / 3 for loss in easy)]
    assert raised(losses) == ([], [])


def recorded():
    """The runs of next-token training and of reward models that the notebooks hold, by notebook and name."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", ()):
                held = output.get("metadata", {}).get(MIME, {})
                if "steps" in held and output["data"][MIME]["kind"] != "rlhf":
                    yield pytest.param(held, id=f"{path.stem}-{output['data'][MIME]['name']}")


@pytest.mark.parametrize("held", list(recorded()))
def test_the_runs_of_the_notebooks_raise_none(held):
    losses = [step[1] for step in held["steps"]]
    assert [step[0] for step in held["steps"]] == list(range(1, len(losses) + 1)), "all steps are there"
    tests = {evaluation["step"]: evaluation["val_loss"] for evaluation in held["evaluations"]}
    assert raised(losses, tests, recipe={**RECIPE, "steps": len(losses)}) == ([], [])
