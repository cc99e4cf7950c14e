"""A run from its cell's function to the folder on disk: what is kept, stopped, resumed, refused."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.stopping import stopped_at
from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs.control import Control


def losses(run):
    return [(e["step"], e["loss"], e["grad_norm"]) for e in run.events if e["event"] == "step"]


def weights(gpt, name):
    from safetensors.torch import load_file

    return load_file(gpt.models.folder(name) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)


def test_a_run_leaves_history_events_and_a_model(gpt, train):
    run = train(steps=12)
    assert run.status == "finished" and run.step == 12
    table = run.history
    assert list(table.columns)[:7] == ["step", "loss", "val_loss", "tokens", "seconds", "lr", "tokens_per_second"]
    assert len(table) == 12 and table["loss"].iloc[-1] < table["loss"].iloc[0]
    assert table["val_loss"].notna().sum() == 12  # a tenth of twelve steps is one
    assert table["tokens"].iloc[-1] == 12 * 128
    on_disk = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    assert on_disk == run.events and on_disk[-1]["event"] == "end"
    model = gpt.models["tiny"]
    assert model.resident and model.lineage == ["tiny (pretrain)"]
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["step-0000006"]  # before the decay


def test_the_folder_loads_where_this_package_is_unknown(gpt, train):
    train(steps=3)
    folder = gpt.models.folder("tiny")
    code = (
        "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        f"t = T.from_pretrained({str(folder)!r}); m = M.from_pretrained({str(folder)!r})\n"
        "ids = t('The old fox', return_tensors='pt').input_ids\n"
        "print(t.decode(m.generate(ids, max_new_tokens=4)[0])); assert 'jupyter_gpt' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The old fox")


def test_same_seed_same_numbers_other_seed_other_numbers(gpt, train):
    one, two, three = train("a", steps=6), train("b", steps=6), train("c", steps=6, seed=1)
    assert losses(one) == losses(two) != losses(three)
    assert same(weights(gpt, "a"), weights(gpt, "b"))


def test_stopped_and_resumed_equals_uninterrupted(gpt, train):
    whole = train("whole", steps=40, sample_every=10)
    run = stopped_at(13, train, "part", steps=40, sample_every=10)
    assert run.status == "stopped" and run.step < 40
    assert gpt.models.about("part").step == run.step
    gpt.runs.known.clear()  # as a new kernel would find it
    again = gpt.resume("part")
    assert again.status == "finished" and losses(again) == losses(whole)
    assert same(weights(gpt, "part"), weights(gpt, "whole"))
    both = [
        [
            {k: e[k] for k in ("event", "step", "val_loss", "text") if k in e}
            for e in r.events
            if e["event"] in ("evaluation", "sample")
        ]
        for r in (whole, again)
    ]
    assert both[0] == both[1]
    with pytest.raises(GPTError, match="has finished"):
        gpt.resume("part")


def test_accumulated_equals_whole_batch(gpt, train):
    one, two = train("a", steps=5, rows=4, dtype="float32"), train("b", steps=5, rows=1, dtype="float32")
    for (_, a, _), (_, b, _) in zip(losses(one), losses(two), strict=True):
        assert abs(a - b) < 1e-5


def test_pause_holds_and_sample_now_samples(gpt, train):
    run = train(steps=4000, background=True)
    while run.step < 5 and run.alive:
        time.sleep(0.01)
    run.pause()
    asked = 0
    for held in (True, False):  # while it is paused, and while it trains
        run.sample_now()
        until = time.time() + 60
        while sum(bool(e.get("asked")) for e in run.events) <= asked and time.time() < until:
            time.sleep(0.02)
        assert sum(bool(e.get("asked")) for e in run.events) > asked
        assert run.status == ("paused" if held else "running")
        step = run.step
        time.sleep(0.3)
        assert not held or run.step == step
        asked = sum(bool(e.get("asked")) for e in run.events)
        run.unpause()
    gpt.stop("tiny")
    assert run.status == "stopped"


def test_a_model_waits_for_its_background_run(gpt, train):
    run = train(steps=20, background=True)
    assert gpt.models["tiny"].step == 20 and run.status == "finished"


def test_minutes_set_the_steps(gpt, train):
    run = train(minutes=0.01)
    assert run.status == "finished" and run.steps >= 1 and run.recipe["minutes"] == 0.01


def test_stopped_before_its_first_step_says_so(gpt, train, monkeypatch):
    monkeypatch.setattr(Control, "look", lambda self, run, event: run.stopping.set())
    with pytest.raises(GPTError, match="before its first step"):
        train(steps=9)
    assert gpt.runs["tiny"].status == "failed" and "tiny" not in gpt.models


def test_two_runs_at_once_are_refused(gpt, train):
    run = train(steps=4000, background=True)
    with pytest.raises(GPTError, match="run tiny is running"):
        train("other", steps=5)
    while run.step < 1 and run.alive:
        time.sleep(0.01)
    gpt.stop("tiny")
    assert "other" not in gpt.runs and run.status == "stopped"


def test_a_failed_run_gives_the_older_one_back(gpt, train):
    before = losses(train(steps=4))
    with pytest.raises(GPTError):
        train(steps=4, context=100_000)
    assert losses(gpt.runs["tiny"]) == before and gpt.models["tiny"].step == 4


def test_a_loss_that_is_not_a_number_stops_with_the_checkpoint_kept(gpt, train, monkeypatch):
    from jupyter_gpt.stages.pretrain_training import Training

    real = Training.micro_batch

    def poisoned(training, step, micro):
        if step == 9:
            with __import__("torch").no_grad():
                next(training.model.parameters()).fill_(float("nan"))
        return real(training, step, micro)

    monkeypatch.setattr(Training, "micro_batch", poisoned)
    with pytest.raises(GPTError, match=r"stopped being a number at step \d+; the checkpoint of step 6 is kept"):
        train(steps=20, checkpoint_every=3)
    run = gpt.runs["tiny"]
    assert run.status == "failed" and all(e["loss"] == e["loss"] for e in run.events if e["event"] == "step")
    monkeypatch.setattr(Training, "micro_batch", real)
    assert gpt.resume("tiny").status == "finished"


def test_a_full_disk_keeps_the_last_checkpoint(gpt, train, monkeypatch):
    import safetensors.torch
    import transformers.modeling_utils  # noqa: F401  (else it takes the one that fails for good, if this test is the first)

    real, saves = safetensors.torch.save_file, []

    def fills_up(tensors, path, *rest):
        saves.append(path)
        if len(saves) > 4:
            raise OSError(28, "No space left on device")
        return real(tensors, path, *rest)

    monkeypatch.setattr(safetensors.torch, "save_file", fills_up)
    with pytest.raises(GPTError, match=r"checkpoint of step 6 could not be written.*step 3 is whole"):
        train(steps=20, checkpoint_every=3)
    monkeypatch.setattr(safetensors.torch, "save_file", real)
    assert gpt.resume("tiny").status == "finished"


def test_a_step_that_memory_runs_out_in_is_one_line_and_goes_on(gpt, train, monkeypatch):
    from jupyter_gpt.stages.pretrain_training import Training

    real = Training.loss

    def runs_out(training, inputs):
        if training.step == 8:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return real(training, inputs)

    whole = losses(train("whole", steps=20))
    monkeypatch.setattr(Training, "loss", runs_out)
    with pytest.raises(
        GPTError, match=r"^memory ran out after step 8 of tiny; the checkpoint of step 6 is kept\. .*%gpt resume tiny"
    ) as error:
        train(steps=20, checkpoint_every=3)
    assert "\n" not in str(error.value) and gpt.runs["tiny"].events[-1]["error"] == str(error.value)
    monkeypatch.setattr(Training, "loss", real)
    assert losses(gpt.resume("tiny")) == whole


@pytest.mark.parametrize(("figure", "kept"), [("grad_norm", 3), ("val_loss", 6)])
def test_what_is_not_a_number_leaves_no_checkpoint_of_it(gpt, train, monkeypatch, figure, kept):
    """A gradient that is none has spoiled the weights of its very step, though that step's loss was fine."""
    import torch

    from jupyter_gpt.runs import runner

    real = runner.read_tensors

    def poisoned(events):
        real(events)
        for event in events:
            if event.get("step") == 6 and figure in event:
                event[figure] = float("nan")

    monkeypatch.setattr(runner, "read_tensors", poisoned)
    with pytest.raises(
        GPTError, match=rf"of tiny stopped being a number at step 6; the checkpoint of step {kept} is kept"
    ):
        train(steps=20, checkpoint_every=3, eval_every=6)
    run = gpt.runs["tiny"]
    figures = [e[key] for e in run.events for key in ("loss", "grad_norm", "val_loss") if key in e]
    assert torch.tensor(figures).isfinite().all()


def test_weights_that_overflowed_are_said_so_by_a_sample_too(gpt, train):
    with pytest.raises(GPTError, match=r"of tiny stopped being a number at step \d+; the checkpoint of step 0 is kept"):
        train(steps=20, lr=1e30, sample_every=1, eval_every=100, dtype="float32")


@pytest.fixture
def disk(monkeypatch):
    """`disk(full=True)`: every file opened to be written from here on refuses what is written to it."""
    state, real = {"full": False}, Path.open

    def opened(self, mode="r", *rest, **more):
        file = real(self, mode, *rest, **more)
        if state["full"] and ("w" in mode or "a" in mode):
            file.close()
            raise OSError(28, "No space left on device", str(self))
        return file

    monkeypatch.setattr(Path, "open", opened)
    return lambda full: state.update(full=full)


def test_a_full_disk_is_one_line_wherever_it_strikes(gpt, train, disk):
    run = train(steps=4000, background=True)
    while run.step < 5 and run.alive:
        time.sleep(0.01)
    disk(full=True)
    with pytest.raises(GPTError, match=r"run tiny could not be written \(No space left on device\)") as error:
        run.wait()
    assert "\n" not in str(error.value)
    assert run.status == "failed" and run.events[-1]["event"] == "end"
    assert not store._locks
    for again in (lambda: train("other", steps=3), lambda: gpt.resume("tiny")):
        with pytest.raises(GPTError, match="could not be written"):
            again()
    assert "other" not in gpt.runs and not store._locks
    disk(full=False)
    stopped_at(run.step + 3, gpt.resume, "tiny")


def test_a_name_made_again_on_a_full_disk_stays(gpt, train, disk):
    before = losses(train(steps=4))
    disk(full=True)
    with pytest.raises(GPTError, match="could not be written"):
        train(steps=5, overwrite=True)
    disk(full=False)
    assert losses(gpt.runs["tiny"]) == before and gpt.models["tiny"].step == 4


def test_a_model_that_does_not_fit_is_refused_before_it_is_built(gpt, train, monkeypatch):
    from jupyter_gpt.nn import devices as memory

    monkeypatch.setattr(memory, "free", lambda device: 100_000)
    with pytest.raises(
        GPTError,
        match=r"^a model of 52,128 parameters needs about 1 MB to train: .*cpu has 100 kB free: a lower --depth",
    ):
        train(steps=3)
    assert gpt.runs["tiny"].status == "failed"
    assert not (gpt.runs["tiny"].folder / "data").exists()


def test_a_short_memory_cuts_the_batch_and_resumed_it_stays_cut(gpt, train, monkeypatch):
    """The numbers stay those of the whole batch, to rounding; the recipe says what was chosen."""
    from jupyter_gpt.nn import devices as memory
    from jupyter_gpt.stages.pretrain import PretrainRecipe
    from jupyter_gpt.stages.pretrain_training import memory_step

    whole = train("whole", rows=None, steps=6, dtype="float32")
    assert (whole.recipe["rows"], whole.recipe["checkpointing"]) == (4, False)
    step, _ = memory_step(PretrainRecipe.from_dict(whole.recipe), 300, "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(memory, "free", lambda device: int(step.bytes(64, True) / 0.84))
        part = stopped_at(2, train, "part", rows=None, steps=6, dtype="float32")
    assert (part.recipe["rows"], part.recipe["checkpointing"]) == (2, True)
    assert any(
        "64 tokens go through the model at a time" in e.get("text", "") for e in part.events if e["event"] == "note"
    )
    if part.status == "stopped":
        part = gpt.resume("part")
    assert (part.recipe["rows"], part.recipe["checkpointing"]) == (2, True)
    for (_, a, _), (_, b, _) in zip(losses(part), losses(whole), strict=True):
        assert abs(a - b) < 1e-5


def test_another_version_is_refused(gpt, train):
    run = stopped_at(3, train, steps=40)
    newest = sorted((run.folder / "checkpoints").glob("step-*"))[-1]
    state = json.loads((newest / "state.json").read_text())
    (newest / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(GPTError, match="format 99"):
        gpt.resume("tiny")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "--steps 0 must be above zero"),
        ({"steps": 3, "tokens": 9}, "--steps and --tokens both"),
        ({"steps": 3, "arch": "lama"}, "did you mean llama"),
        ({"steps": 3, "width": 30, "heads": 4}, "does not divide"),
        ({"steps": 3, "name": "../up"}, "cannot be a name"),
        ({"steps": 3, "corpus": "x"}, "not both"),
        ({"steps": 3, "tokenizer": "bep"}, "neither bpe, char nor a model"),
    ],
)
def test_bad_options_are_one_line(gpt, train, options, message):
    with pytest.raises(GPTError, match=message) as error:
        train(options.pop("name", "tiny"), **options)
    assert "\n" not in str(error.value)
    assert len(gpt.runs) == 0


def test_bits_per_byte_are_of_the_text_alone(gpt, train):
    """By hand, from the saved model's logits and the held-out text: nothing of the end's nats, which is no text."""
    import torch

    from jupyter_gpt.data.documents import Documents
    from jupyter_gpt.data.packing import validation_rows

    run = train(steps=3, held_out=0.2, eval_tokens=1 << 20, dtype="float32")
    documents, model = Documents.open(run.folder / "data"), gpt.models["tiny"]
    rows, counted = validation_rows(documents, 32)
    with torch.no_grad():
        logp = torch.log_softmax(model.module(torch.from_numpy(rows[:, :-1])).logits.double(), -1)
    nats = -logp.gather(-1, torch.from_numpy(rows[:, 1:, None]))[..., 0].numpy()
    spelled = counted & (rows[:, 1:] != documents.eot)
    held = [documents[d][1:].tolist() for d in documents.held_out.nonzero()[0]]
    size = sum(len(model.tokenizer.decode(ids).encode()) for ids in held)
    last = [e for e in run.events if e["event"] == "evaluation"][-1]
    assert last["bits_per_byte"] == pytest.approx(nats[spelled].sum() / math.log(2) / size, rel=1e-4)
    assert last["val_loss"] == pytest.approx(nats[counted].mean(), rel=1e-4)
    assert (counted & ~spelled).sum() == len(held)


def test_nothing_held_out_is_trained_on_whole(gpt, train):
    run = train(steps=2, held_out=0.0)
    assert run.status == "finished" and not [e for e in run.events if e["event"] == "evaluation"]
    assert len([e for e in run.events if e["event"] == "sample"]) > 0


def test_another_models_tokenizer_has_its_own_size(gpt, train):
    train(steps=2)
    with pytest.raises(GPTError, match="--vocab-size is for a tokenizer that is trained, not for that of tiny"):
        train("second", steps=2, tokenizer="tiny", vocab_size=300)
    assert len(train("second", steps=2, tokenizer="tiny", vocab_size=None).history) == 2


def test_a_damaged_run_says_how_to_go_on(gpt, train):
    run = stopped_at(7, train, steps=4000, checkpoint_every=5)
    newest = sorted((run.folder / "checkpoints").glob("step-*"))[-1]
    (newest / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(GPTError, match=f"{newest.name} is damaged .*without that folder an earlier one"):
        gpt.resume("tiny")
    (run.folder / "recipe.yaml").write_text("{{{")
    gpt.runs.known.clear()
    with pytest.raises(GPTError, match="--overwrite makes the run anew"):
        train(steps=2)
    assert train(steps=2, overwrite=True).status == "finished"


def test_the_shallowest_model_has_a_vocabulary_that_spells_every_byte(gpt):
    from helpers.recipes import pretraining_recipe
    from jupyter_gpt.data.tokenizer import MIN_VOCAB_SIZE

    assert all(
        pretraining_recipe({"stories": 1}, depth=depth, steps=1).vocab_size >= MIN_VOCAB_SIZE for depth in (1, 2, 3)
    )


def test_an_interrupt_stops_gracefully(gpt, train):
    """SIGINT reaches the main thread only, as the notebook's stop button does."""
    import signal

    run = train(steps=4000, background=True)

    run.wait(tick=lambda: run.step >= 5 and not run.stopping.is_set() and signal.raise_signal(signal.SIGINT))
    assert run.status == "stopped" and gpt.models["tiny"].step == run.step
