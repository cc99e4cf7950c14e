"""A run that is stopped: what it tells of the model it leaves, how a second stop skips that, and that resuming forgets
it.
"""

import os
import signal
import threading
import time

import pytest

from helpers.stopping import stopped_at
from jupyter_gpt.runs.events import cut_events, read_events
from jupyter_gpt.stages import rl
from jupyter_gpt.stages.pretrain_training import Training
from jupyter_gpt.stages.rankings import Ranking

RARELY = {"steps": 4000, "eval_every": 4000, "background": True}
ROWS = [{"prompt": f"How many birds saw hen {n}?", "completion": f"It saw {n}."} for n in range(20)]
TEXTS = [
    (f"The fox saw {n} {word} birds.", "good" if word == "glad" else "bad")
    for n in range(20)
    for word in ("glad", "sad")
]
PROMPTS = [f"Tale {n}. The old fox" for n in range(12)]


def short(prompt, completion):
    return -float(len(completion))


def start(gpt, tiny_model, kind, reward=short):
    """A run of a kind on a tiny model, in the background, which would train for long and evaluate at its start and
    end.
    """
    tiny_model(gpt, "fox")
    for n, prompt in enumerate(PROMPTS):
        completions = tuple({"model": "fox", "text": f"{text} {n}", "seed": 0} for text in ("saw birds.", "xx xx"))
        gpt.rankings.named("taste").add(Ranking(prompt, completions, ((0,), (1,)), time=float(n)))
    rlhf = {"policy": "fox", "max_tokens": 6, "prompts_per_step": 2, "samples": 4, "lora": 4, **RARELY}
    return {
        "sft": lambda: gpt.sft(
            "run", ROWS, "fox", batch_tokens=128, sample_every=4000, held_out=0.2, questions=["Who saw?"], **RARELY
        ),
        "classify": lambda: gpt.classify("run", TEXTS, "fox", sample_every=4000, **RARELY),
        "reward": lambda: gpt.reward("run", rankings="taste", base="fox", lora=4, **RARELY),
        "grpo": lambda: gpt.rlhf("run", PROMPTS, algo="grpo", reward=reward, **rlhf),
        "ppo": lambda: gpt.rlhf("run", PROMPTS, algo="ppo", reward=reward, **rlhf),
        "dpo": lambda: gpt.rlhf("run", PROMPTS, algo="dpo", rankings="taste", **rlhf),
    }[kind]()


def come_to(run, step):
    while run.step < step and run.alive:
        time.sleep(0.002)


def steps_of(run, kind):
    return [event["step"] for event in run.events if event["event"] == kind]


def endless(monkeypatch):
    """Every evaluation but that of step 0 goes on until it is skipped."""
    real = Training.evaluate

    def evaluate(training):
        while training.step:
            time.sleep(0.001)
            yield None
        yield from real(training)

    monkeypatch.setattr(Training, "evaluate", evaluate)


def is_evaluating(run):
    return run.status == "stopping" and steps_of(run, "checkpoint")[-1:] == [run.step]


def evaluating(run):
    while not is_evaluating(run):
        time.sleep(0.005)
    time.sleep(0.2)
    assert run.alive


@pytest.mark.parametrize("kind", ["sft", "classify", "reward", "grpo", "ppo", "dpo"])
def test_a_stopped_run_tells_of_the_model_it_leaves(gpt, tiny_model, kind):
    run = start(gpt, tiny_model, kind)
    come_to(run, 3)
    gpt.stop("run")
    assert run.status == "stopped" and 3 <= run.step < 4000 and gpt.models.about("run").step == run.step
    assert steps_of(run, "evaluation") == [0, run.step]
    assert set(steps_of(run, "sample")) == {0, run.step}
    told = gpt.runs["run"].history
    assert kind in ("grpo", "ppo") or told["val_loss"].notna().tolist() == [False] * (run.step - 1) + [True]


def test_a_stopped_pretraining_tells_too_and_a_resumed_one_forgets_it(gpt, train):
    given = {"steps": 60, "eval_every": 50, "sample_every": 50, "seed": 3}
    whole = train("whole", **given)
    run = stopped_at(7, train, "part", **given)
    assert steps_of(run, "evaluation") == [0, run.step]
    assert run.history["val_loss"].iloc[-1] == [e for e in run.events if e["event"] == "evaluation"][-1]["val_loss"]
    gpt.runs.known.clear()
    again = gpt.resume("part")
    told = [
        [
            {key: e[key] for key in ("event", "step", "loss", "grad_norm", "val_loss", "text") if key in e}
            for e in r.events
            if e["event"] in ("step", "evaluation", "sample", "warning")
        ]
        for r in (whole, again)
    ]
    assert told[0] == told[1]
    one, two = ((gpt.models.folder(name) / "model.safetensors").read_bytes() for name in ("whole", "part"))
    assert one == two


def test_a_second_stop_skips_the_evaluation(gpt, train, monkeypatch):
    endless(monkeypatch)
    run = train(**RARELY)
    come_to(run, 5)
    run.stop()
    evaluating(run)
    assert f"<run tiny: pretrain, stopping, step {run.step} " in repr(run)
    run.stop()
    assert run.wait().status == "stopped" and gpt.models["tiny"].step == run.step
    assert steps_of(run, "evaluation") == [0]
    monkeypatch.undo()


def test_two_interrupts_stop_and_skip_and_the_cell_ends_without_an_error(gpt, train, monkeypatch):
    """As the notebook's stop button sends them: to the main thread, which waits."""
    endless(monkeypatch)
    run = train(**RARELY)

    def press():
        if run.step >= 5 if not pressed else len(pressed) == 1 and is_evaluating(run):
            pressed.append(run.step)
            signal.raise_signal(signal.SIGINT)

    pressed = []
    assert run.wait(press).status == "stopped" and gpt.models["tiny"].step == run.step
    assert steps_of(run, "evaluation") == [0]


def test_a_run_at_its_end_is_stopped_once_for_its_last_evaluation_and_twice_without(gpt, train, monkeypatch):
    endless(monkeypatch)
    run = train(**{**RARELY, "steps": 5, "eval_every": 5})
    come_to(run, 5)
    run.stop()
    time.sleep(0.2)
    assert run.alive
    run.stop()
    assert run.wait().status == "finished" and gpt.models["tiny"].step == 5


def test_what_a_step_has_told_already_is_not_told_twice(gpt, train, monkeypatch):
    real = Training.samples

    def stops(training):
        for event in real(training):
            yield event
            if event is not None and training.step == 10:
                gpt.runs["tiny"].stopping.set()

    monkeypatch.setattr(Training, "samples", stops)
    run = train(steps=40, eval_every=10, sample_every=10, prompts=["The old", "The red", "The tall"])
    assert run.status == "stopped" and run.step == 10
    assert steps_of(run, "evaluation") == [0, 10] and steps_of(run, "sample") == [0] * 3 + [10] * 3
    assert [e["prompt"] for e in run.events if e["event"] == "sample"][3:] == ["The old", "The red", "The tall"]


def test_an_interrupt_in_the_reward_of_the_last_evaluation_skips_it(gpt, tiny_model, monkeypatch):
    real = rl.RL.closing
    begun = []

    def closing(training, there):
        begun.append(training.step)
        yield from real(training, there)

    monkeypatch.setattr(rl.RL, "closing", closing)

    def slow(prompt, completion):
        if begun:
            threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            time.sleep(60)
        return short(prompt, completion)

    run = start(gpt, tiny_model, "grpo", slow)
    come_to(run, 2)
    run.stop()
    run.wait()
    assert begun == [run.step] and run.status == "stopped" and gpt.models.about("run").step == run.step
    assert steps_of(run, "evaluation") == [0]


def test_what_a_stop_added_is_cut_and_an_alarm_of_the_step_itself_is_kept(tmp_path):
    path = tmp_path / "events.jsonl"
    told = [
        ("step", 1),
        ("step", 2),
        ("warning", 2),
        ("checkpoint", 2),
        ("evaluation", 2),
        ("warning", 2),
        ("sample", 2),
        ("end", 2),
    ]
    path.write_text("".join(f'{{"event": "{event}", "step": {step}}}\n' for event, step in told))
    assert (
        [e["event"] for e in cut_events(path, 2)]
        == ["step", "step", "warning"]
        == [e["event"] for e in read_events(path)]
    )
