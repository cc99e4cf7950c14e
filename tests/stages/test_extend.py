"""A run made longer: what it comes to, from which checkpoint, and what is refused.

Twenty steps read all of `$docs`: then a longer run prepares the same data.
"""

import json
import time

import pytest
from filelock import FileLock

from helpers.stopping import stopped_at
from helpers.tiny import DOCUMENTS
from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs import checkpoint

STEPS = ("step", "loss", "lr", "grad_norm")


def steps(run):
    return [tuple(e[key] for key in STEPS) for e in run.events if e["event"] == "step"]


def weights(gpt, name):
    return (gpt.models.folder(name) / "model.safetensors").read_bytes()


def kept(run):
    return checkpoint.steps(run.folder / "checkpoints")


def notes(run):
    return [e["text"] for e in run.events if e["event"] == "note"]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_finished_run_made_longer_equals_one_of_that_length(gpt, train, optimizer):
    """Both rise in one step: a hundredth of 20 and of 40."""
    run = train("short", steps=20, optimizer=optimizer)
    assert kept(run) == [10] and run.status == "finished"
    gpt.runs.known.clear()  # as a new kernel would find it
    again = gpt.resume("short", steps=40)
    whole = train("whole", steps=40, optimizer=optimizer)
    assert again.status == "finished" and again.steps == 40 and steps(again) == steps(whole)
    assert weights(gpt, "short") == weights(gpt, "whole")
    assert gpt.models.about("short").step == 40 and kept(again) == kept(whole) == [20]
    assert notes(again) == ["made longer, from 20 to 40 steps, from its checkpoint of step 10"]


def test_it_says_which_data_it_reads_again(gpt, train):
    """Ten steps have not read all of `$docs`."""
    run = train("short", steps=10)
    [source] = json.loads((run.folder / "data" / "documents.json").read_text())["sources"]
    again = gpt.resume("short", steps=40)
    assert not source["exhausted"] and notes(again) == [
        "made longer, from 10 to 40 steps, from its checkpoint of step 5. Its data were prepared for the shorter run: "
        f"it reads $docs {40 * 128 / source['tokens']:.1f} times"
    ]


def test_a_finetuning_says_which_conversations_it_reads_again(gpt, tiny_model):
    """One source has more than ten steps read of it, the other is read whole."""
    tiny_model(gpt, "base")
    pairs = [(f"Who is {n}?", f"The fox {n} saw birds.") for n in range(400)]
    options = dict(base="base", batch_tokens=64, context=64, decay=0.4, variables={"many": pairs, "few": pairs[:8]})
    run = gpt.sft("tuned", {"$many": 1, "$few": 1}, steps=10, **options)
    many, few = json.loads((run.folder / "data" / "conversations.json").read_text())["counts"]
    again = gpt.resume("tuned", steps=60, variables=options["variables"])
    assert (many["exhausted"], few["exhausted"]) == (False, True)
    assert notes(again) == [
        "made longer, from 10 to 60 steps, from its checkpoint of step 6. Its data were prepared for the shorter run: "
        f"it reads $many {60 * 64 / 2 / many['tokens']:.1f} times"
    ]


def test_a_warm_up_keeps_its_steps(gpt, train):
    run = train("short", steps=20, warmup=0.2)
    longer, whole = gpt.resume(run.name, steps=40), train("whole", steps=40, warmup=0.1)
    assert steps(longer) == steps(whole)


def test_made_longer_twice_and_stopped_between(gpt, train):
    train("short", steps=20)
    gpt.resume("short", steps=30)
    run = stopped_at(34, gpt.resume, "short", steps=4000)
    assert run.status == "stopped" and run.step < 2000
    again = gpt.resume("short", steps=(run.step + 1) * 2)
    whole = train("whole", steps=again.steps, checkpoint_every=7)
    assert (
        again.status == "finished" and steps(again) == steps(whole) and weights(gpt, "short") == weights(gpt, "whole")
    )


def test_a_constant_rate_goes_on_from_the_end(gpt, train):
    run = train("short", steps=20, decay=0.0)
    assert kept(run) == [20]
    assert steps(gpt.resume("short", steps=32)) == steps(train("whole", steps=32, decay=0.0))


def test_tokens_and_minutes_set_the_length_too(gpt, train):
    run = train("short", steps=10)
    assert gpt.resume("short", tokens=15 * 128 - 1).steps == 15
    second = next(e["seconds"] for e in reversed(run.events) if e["event"] == "step") / 15
    assert gpt.resume("short", minutes=18.5 * second / 60).steps in (18, 19)


def test_finetuning_is_made_longer(gpt, tiny_model):
    tiny_model(gpt, "fox")
    rows = [{"prompt": f"How many birds saw hen {n}?", "completion": f"It saw {n}."} for n in range(20)]
    given = {"batch_tokens": 128, "lora": 4, "decay": 0.5}
    gpt.sft("short", rows, "fox", steps=8, **given)
    again, whole = gpt.resume("short", steps=16), gpt.sft("whole", rows, "fox", steps=16, **given)
    assert steps(again) == steps(whole)


def test_where_the_rate_falls_at_once_it_says_what_the_longer_run_is(gpt, train):
    given = {"warmup": 0.2, "decay": 0.8}
    train("short", steps=10, **given)
    with pytest.raises(GPTError) as refused:
        gpt.resume("short", steps=20)
    assert str(refused.value) == (
        "run short cannot be made longer: its learning rate falls as soon as it has risen, so nothing was kept before "
        "that. Train on from its model with --base short, or run its cell again with --keep last and more steps"
    )
    run = train("kept", steps=10, keep="last", **given)
    assert kept(run) == [10]
    again = gpt.resume("kept", steps=20)
    rates = [lr for _, _, lr, _ in steps(again)]
    assert again.status == "finished" and rates[10] > rates[9] and rates[19] < rates[10]
    assert "from its checkpoint of step 10: its learning rate had been falling by then" in notes(again)[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 10}, "run short has taken 10 steps already: 10 steps are not more"),
        ({"tokens": 300}, "run short has taken 10 steps already: 3 steps are not more"),
        ({"steps": 20, "minutes": 1}, "--steps and --minutes both set the length of the run: give one"),
        ({}, "run short has finished all its 10 steps, there is nothing to resume: --steps makes it longer"),
    ],
)
def test_refused_in_one_line_and_nothing_is_touched(gpt, train, given, message):
    run = train("short", steps=10)
    before = (run.folder / "events.jsonl").read_bytes()
    with pytest.raises(GPTError) as refused:
        gpt.resume("short", **given)
    assert str(refused.value) == message
    assert (run.folder / "events.jsonl").read_bytes() == before and kept(run) == [5]


def test_a_run_that_works_and_one_of_another_process_are_refused(gpt, train, monkeypatch):
    run = train("short", steps=4000, background=True)
    with pytest.raises(GPTError, match=r"^run short is running already$"):
        gpt.resume("short", steps=8000)
    while run.step < 3:
        time.sleep(0.01)
    run.stop()
    run.wait()
    before = kept(run), (run.folder / "events.jsonl").read_bytes()
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    with (
        FileLock(store.lock_file(run.folder)),
        pytest.raises(GPTError, match=r"^short is being trained by another process: wait for it, or stop it there$"),
    ):
        gpt.resume("short", steps=8000)
    assert (kept(run), (run.folder / "events.jsonl").read_bytes()) == before and gpt.runs["short"].steps == 4000


def test_without_what_was_kept_it_says_so(gpt, train):
    train("short", steps=10, keep=0)
    with pytest.raises(GPTError, match=r"cannot be made longer: it has kept no checkpoint\. Train on"):
        gpt.resume("short", steps=20, variables={"docs": DOCUMENTS})
