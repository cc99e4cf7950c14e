"""Pretraining that continues with a base: the same model and tokenizer, on other documents."""

import numpy as np
import pytest
import torch

from helpers.errors import fail
from helpers.stopping import stopped_at
from helpers.tiny import DOCUMENTS, TINY, tiny_model, tiny_run

SHORT = {"context": 32, "batch_tokens": 128, "rows": 2, "sample_every": 1000, "variables": {"docs": DOCUMENTS}}
DOCS = {"$docs": 1.0}


def weights(gpt, name):
    from safetensors.torch import load_file

    return load_file(gpt.models.folder(name) / "model.safetensors")


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_it_begins_where_the_base_is_and_leaves_it_untouched(gpt, arch):
    tiny_run(gpt, "base", arch=arch, steps=60)
    before, ended = weights(gpt, "base"), gpt.runs["base"].history["val_loss"].dropna().iloc[-1]
    run = gpt.pretrain("more", DOCS, base="base", steps=30, eval_every=30, **SHORT)
    assert run.status == "finished" and run.recipe["arch"] == arch and run.recipe["width"] == TINY["width"]
    assert gpt.models["more"].lineage == ["base (pretrain)", "more (pretrain)"]
    assert run.history["loss"].iloc[0] < 1.5 * ended  # a new model begins at log(vocabulary), 5.7
    assert run.history["val_loss"].dropna().iloc[-1] < 1.3 * ended
    after = weights(gpt, "base")
    assert all((before[key] == after[key]).all() for key in before)
    assert gpt.models["more"].tokenizer.get_vocab() == gpt.models["base"].tokenizer.get_vocab()


def test_the_first_loss_is_the_bases_own(gpt):
    """Of a base that is resident in bfloat16 too: the weights in its folder are what is copied."""
    from jupyter_gpt.data.documents import Documents
    from jupyter_gpt.data.packing import Rows

    tiny_model(gpt)
    gpt.models.load("tiny", "bfloat16")
    run = gpt.pretrain("more", DOCS, base="tiny", steps=1, lr=1e-9, dtype="float32", **SHORT)
    module = gpt.models.load("tiny", "float32").module
    rows = Rows(Documents.open(run.folder / "data"), 32, run.recipe["seed"]).batch(np.arange(4))
    ids = torch.from_numpy(rows).long()
    with torch.no_grad():
        logits = module(ids[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    assert run.history["loss"].iloc[0] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("from_scratch", [True, False])
def test_prompts_begin_as_the_documents_of_the_training(gpt, from_scratch):
    """Also where the tokenizer is of a model that begins texts with another token than it ends them with: Llama's."""
    from tokenizers.processors import TemplateProcessing

    from jupyter_gpt.data.documents import Documents
    from jupyter_gpt.data.render import Question, render

    model = tiny_model(gpt, "fox")
    model.tokenizer.bos_token = "<|system|>"
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|system|> $A", special_tokens=[("<|system|>", model.tokenizer.bos_token_id)]
    )
    first = model.tokenizer("The").input_ids[0]
    gpt.models.keep("fox", model.module, model.tokenizer, "pretrain", None, ["fox (pretrain)"], 0)
    given = {"tokenizer": "fox", "depth": 1, "width": 32, "heads": 2} if from_scratch else {"base": "fox"}
    run = gpt.pretrain("more", DOCS, steps=2, **given, **SHORT)
    begin = int(Documents.open(run.folder / "data")[0][0])
    assert first != begin == model.tokenizer.eos_token_id
    for _ in range(2):
        tokenizer = gpt.models["more"].tokenizer
        assert render("more", tokenizer, Question("The old fox")).ids[0] == begin
        assert tokenizer("The old", "fox").input_ids.count(begin) == 2 and tokenizer.decode([begin]) == "<|endoftext|>"
        gpt.unload("more")  # and as it is on disk
    assert gpt.models["fox"].tokenizer("The").input_ids[0] == first, "the base's own is as it was"


def test_stopped_and_resumed_equals_uninterrupted(gpt):
    tiny_model(gpt)
    given = {**SHORT, "base": "tiny", "steps": 20, "checkpoint_every": 5}
    gpt.pretrain("whole", DOCS, **given)
    stopped_at(7, gpt.pretrain, "part", DOCS, **given)
    assert gpt.resume("part", variables={"docs": DOCUMENTS}).status == "finished"
    one, two = weights(gpt, "whole"), weights(gpt, "part")
    assert all((one[key] == two[key]).all() for key in one)


def test_minutes_are_measured_with_the_base(gpt):
    tiny_model(gpt)
    run = gpt.pretrain("more", DOCS, base="tiny", minutes=0.01, **SHORT)
    assert run.status == "finished" and run.recipe["steps"] >= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base": "tiny"}, "say how long to continue with tiny: --steps, --tokens or --minutes"),
        (
            {"base": "tiny", "steps": 2, "depth": 4},
            "--depth is for a model from scratch, tiny has its own",
        ),
        ({"base": "tiny", "steps": 2, "tokenizer": "char"}, "--tokenizer is for a model from scratch"),
        ({"base": "tiny", "steps": 2, "context": 65}, "--context 65 is more than tiny was made for: at most 64"),
        ({"base": "tini", "steps": 2}, "there is no model tini (did you mean tiny?)"),
        ({"base": "chat", "steps": 2}, "chat is an adapter of tiny: %gpt merge chat NAME, then --base NAME"),
        ({"base": "more", "steps": 2}, "more would take the place of the model it starts from"),
    ],
)
def test_what_cannot_be_continued_is_refused(gpt, given, message):
    tiny_model(gpt, "more" if given["base"] == "more" else "tiny")
    if given["base"] == "chat":
        gpt.sft("chat", [("Who saw?", "The fox.")] * 8, "tiny", lora=2, steps=1, context=64, batch_tokens=64)
    options = {key: value for key, value in SHORT.items() if key != "context"} | given
    assert message in fail(gpt.pretrain, "more", DOCS, **options)


def test_a_base_that_has_changed_is_told(gpt):
    tiny_model(gpt)
    stopped_at(5, gpt.pretrain, "more", DOCS, base="tiny", steps=2000, checkpoint_every=5, **SHORT)
    tiny_model(gpt, seed=1)
    again = fail(gpt.resume, "more", variables={"docs": DOCUMENTS})
    assert again == "tiny is not what more began with: run its cell again"
