"""What a user brings along: functions that are told events, a loss, a model."""

import threading

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers import reference
from helpers.errors import fail
from helpers.stopping import stopped_at
from helpers.tiny import CHAT, TALES, tiny_run
from jupyter_gpt.data.tokenizer import delimiter, train_bpe
from jupyter_gpt.runs import checkpoint
from jupyter_gpt.runs.events import Checkpoint, Evaluation, Sample, Start, Step

ROWS = [{"prompt": f"How many birds saw {n} hens?", "completion": f"{n} birds, so many"} for n in range(40)]
SFT = {"context": 64, "batch_tokens": 256, "answer_tokens": 4, "steps": 6, "dtype": "float32", "optimizer": "adamw"}


def losses(run) -> list[float]:
    return [event["loss"] for event in run.events if event["event"] == "step"]


def test_callbacks_are_told_every_event_on_the_main_thread(gpt):
    told, threads = [], set()

    def tell(event):
        told.append(event)
        threads.add(threading.current_thread())

    run = tiny_run(gpt, steps=6, callbacks=[tell, lambda event: None], eval_every=3, sample_every=6, checkpoint_every=3)
    assert {Start, Step, Evaluation, Sample, Checkpoint} <= {type(event) for event in told}
    steps = [event for event in told if isinstance(event, Step)]
    assert [event.step for event in steps] == [1, 2, 3, 4, 5, 6] and threads == {threading.main_thread()}
    assert [event.values["loss"] for event in steps] == pytest.approx(losses(run))
    assert losses(run) == losses(tiny_run(gpt, "alone", steps=6))
    assert "callbacks" not in run.recipe and "callbacks" not in run.provenance.requested


def test_a_callback_that_raises_ends_the_run_and_loses_nothing(gpt):
    def stop_at_four(event):
        if isinstance(event, Step) and event.step == 4:
            raise ArithmeticError("four is enough")

    with pytest.raises(ArithmeticError, match="four is enough") as caught:
        tiny_run(gpt, steps=9, callbacks=[stop_at_four])
    assert "stop_at_four" in [entry.name for entry in caught.traceback]
    run = gpt.runs["tiny"]
    assert run.status == "failed" and checkpoint.steps(run.folder / "checkpoints")[-1] == 4
    seen = []
    assert losses(gpt.resume("tiny", callbacks=[seen.append])) == losses(tiny_run(gpt, "whole", steps=9))
    assert [event.step for event in seen if isinstance(event, Step)] == [5, 6, 7, 8, 9]
    assert fail(tiny_run, gpt, "other", callbacks=print) == (
        "callbacks=<built-in function print> is of type builtin_function_or_method: wanted is a list of functions"
    )
    assert fail(tiny_run, gpt, "other", callbacks=[print], devices=2).startswith("callbacks are called in this kernel")


def smoothed(logits, targets):
    return cross_entropy(logits, targets, label_smoothing=0.1)


def test_a_loss_of_ones_own_trains_and_validation_stays_cross_entropy(gpt):
    plain = tiny_run(gpt, "plain", steps=6, dtype="float32")
    same = tiny_run(gpt, "same", steps=6, dtype="float32", loss=lambda logits, targets: cross_entropy(logits, targets))
    assert losses(same) == pytest.approx(losses(plain), abs=1e-5) and same.recipe["loss"] == "$loss"
    own = tiny_run(gpt, "own", steps=6, dtype="float32", loss=smoothed)
    assert own.recipe["loss"] == "$smoothed" and losses(own) != losses(plain)
    first = [next(e["val_loss"] for e in run.events if e["event"] == "evaluation") for run in (plain, own)]
    assert first[0] == pytest.approx(first[1])
    accumulated = tiny_run(gpt, "parts", steps=6, dtype="float32", loss=smoothed, rows=1)
    assert losses(accumulated) == pytest.approx(losses(own), abs=1e-4)
    with torch.no_grad():
        assert all(parameter.isfinite().all() for parameter in gpt.models["own"].module.parameters())


def test_finetuning_by_a_loss_of_ones_own_is_stopped_and_resumed(gpt):
    tiny_run(gpt, "base", steps=2, context=64)
    given = {"base": "base", "lora": 4, **SFT}
    plain = gpt.sft("plain", ROWS, **given)
    same = gpt.sft("same", ROWS, loss=lambda logits, targets: cross_entropy(logits, targets), **given)
    assert losses(same) == pytest.approx(losses(plain), abs=1e-5)
    whole = gpt.sft("whole", ROWS, loss=smoothed, **given)
    run = stopped_at(3, gpt.sft, "part", ROWS, loss=smoothed, **given)
    assert "--loss $smoothed is no $variable with a function" in fail(gpt.resume, "part")
    assert losses(gpt.resume("part", variables={"smoothed": smoothed})) == losses(whole) and run.steps == 6
    assert "must return a tensor of one number" in fail(
        gpt.sft, "odd", ROWS, loss=lambda logits, targets: logits, **given
    )
    assert "is no $variable with a function f(logits, targets)" in fail(gpt.sft, "no", ROWS, loss="focal", **given)


def test_a_model_of_ones_own_is_trained_and_asked(gpt, capsys):
    """The example of the reference, and what one does next."""
    own: dict = {}
    tokenizer = train_bpe(TALES, 320)
    assert "is no class that AutoModelForCausalLM knows" in fail(gpt.models.add, "no", torch.nn.Linear(2, 2), tokenizer)
    exec(reference.EXAMPLE, own)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [int(step) for step, _ in printed][-1] == 20 and len(printed) > 5
    module = gpt.models["mine"].module
    assert "there is a model mine already" in fail(gpt.models.add, "mine", module, own["tokenizer"])
    assert "a tokenizer of transformers, not str" in fail(gpt.models.add, "other", module, "bpe")

    more = gpt.models["more"]
    text = "Once upon a time there was a fox."
    ids = [delimiter(more.tokenizer), *more.tokenizer(text).input_ids]
    with torch.no_grad():
        logits = more.module(torch.tensor([ids])).logits[0, :-1].float()
    assert more.losses(text) == pytest.approx(float(cross_entropy(logits, torch.tensor(ids[1:]))), rel=1e-3)
    said = gpt.prompt(text, model="more", max_tokens=1, temperature=0)
    assert said.text == more.tokenizer.decode(int(more.module(torch.tensor([ids])).logits[0, -1].argmax()))
    more.tokenizer.chat_template = CHAT
    given = {"context": 64, "batch_tokens": 256, "steps": 4, "dtype": "float32"}
    run = gpt.sft("tuned", ROWS, base="more", **given)
    assert run.status == "finished" and gpt.models["tuned"].lineage == [
        "mine (added)",
        "more (pretrain)",
        "tuned (sft)",
    ]
    gpt.models.unload("more")
    assert gpt.models["more"].module.lstm.hidden_size == 64  # read from disk again
