"""Models on disk and in memory: kept, loaded again, given back, saved, and what is said of damaged ones."""

import pytest

from helpers.errors import fail
from helpers.large import measured_on_large
from jupyter_gpt import store
from jupyter_gpt.models.models import ABOUT
from jupyter_gpt.session import Session


def logits(model):
    import torch

    ids = model.tokenizer("The old fox saw 3 small birds", return_tensors="pt").input_ids
    with torch.no_grad():
        return model.module(ids).logits


def test_a_kept_model_is_there_again_in_another_session(gpt, tiny_model):
    import torch

    kept = tiny_model(gpt, "fox", chat=True)
    later = Session()
    about = later.models.about("fox")
    assert (about.resident, about.device, about.dtype, about.memory) == (False, None, None, 0)
    assert (about.parameters, about.lineage, about.has_chat) == (kept.parameters, ["fox (pretrain)"], True)
    assert not about.resident, "asking about a model loads it"
    loaded = later.models["fox"]
    assert loaded.resident and loaded is later.models["fox"]
    assert torch.equal(logits(loaded), logits(kept))
    assert list(later.models) == ["fox"] and "fox" in later.models and "hen" not in later.models


def test_an_unknown_name_names_the_nearest(gpt, tiny_model):
    tiny_model(gpt, "storyteller")
    assert fail(gpt.models.about, "storyteler") == ("there is no model storyteler (did you mean storyteller?)")
    assert fail(gpt.load, "storyteler") == fail(gpt.unload, "storyteler") == fail(gpt.models.about, "storyteler")
    assert fail(gpt.models.about, "gpt2").endswith(": %gpt pull gpt2 downloads it")
    assert fail(gpt.models.about, "smolm2-135-instruct").endswith(": %gpt pull smollm2-135m-instruct downloads it")
    assert "cannot be a name" in fail(gpt.models.about, "../secrets")


def test_what_a_model_says_of_itself(gpt, tiny_model):
    base, assistant = tiny_model(gpt, "base"), tiny_model(gpt, "talker", chat=True)
    assert (base.has_chat, assistant.has_chat) == (False, True)
    assert 0 <= base.memory - 4 * base.parameters < 256, "fp32, tied weights once, and the angles of RoPE"
    assert base.on_disk == sum(file.stat().st_size for file in base.folder.iterdir()) > base.memory
    gpt.unload("base")
    gpt.unload("talker")
    base, assistant = gpt.models.about("base"), gpt.models.about("talker")
    assert (base.has_chat, assistant.has_chat) == (False, True), "read from the folder"
    tokenizer, module = gpt.models["base"].tokenizer, gpt.models["base"].module
    gpt.models.keep("heir", module, tokenizer, "finetune", None, ["base", "heir (finetune)"], 3, licence="MIT")
    heir = Session().models.about("heir")
    assert (heir.licence, heir.kind, heir.step) == ("MIT", "finetune", 3)
    assert base.licence is None


def test_load_in_another_form_loads_anew(gpt, tiny_model):
    tiny_model(gpt, "fox")
    whole = gpt.models["fox"].memory
    half = gpt.load("fox", dtype="bfloat16", device="cpu")
    assert (half.dtype, half.device) == ("bfloat16", "cpu")
    assert half.memory == pytest.approx(whole / 2, rel=0.01)
    assert gpt.load("fox") is half, "no form asked for: the one that is there will do"
    assert gpt.load("fox", dtype="float32").memory == whole
    assert gpt.load("fox").resident
    assert "--dtype is float32 or bfloat16 or float16 or int8 or int4, not" in fail(gpt.load, "fox", dtype="int3")
    assert gpt.load("fox").resident, "a mistake leaves the model usable"
    assert "not a device" in fail(gpt.load, "fox", device="gpu")


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(gpt, tiny_model, monkeypatch):
    model = tiny_model(gpt, "fox")
    tiny_model(gpt, "hen")
    gpt.unload("fox")
    monkeypatch.setattr("jupyter_gpt.nn.devices.free", lambda device: 3 * model.parameters)
    message = fail(gpt.load, "fox", dtype="float32")
    assert message.startswith("model fox needs ") and " in float32, and cpu has " in message
    assert "--dtype bfloat16 needs" in message and "%gpt unload hen" in message
    assert gpt.load("fox", dtype="bfloat16").resident


MEASURED = """
import sys, psutil
from jupyter_gpt.session import Session
folder, gpt = sys.argv[1], Session()
def used(): return psutil.Process().memory_info().rss
gpt.pull(folder, "small")
gpt.prompt("a", model="small", max_tokens=1)  # what the libraries load for good is not the model's
gpt.unload("small")
before = used()
model = gpt.load("small", dtype="float32")
gpt.prompt("a", model="small", max_tokens=2)
size, loaded = model.memory, used()
del model
gpt.unload("small")
print(size, loaded - before, used() - before)
"""


def test_unload_gives_the_memory_back(tmp_path, tiny_model, gpt):
    output = measured_on_large(MEASURED, tmp_path / "large", tiny_model(gpt).tokenizer)
    size, loaded, left = map(int, output.split())
    assert size > 120e6
    assert loaded > 0.8 * size, "the model was not in memory: this measures nothing"
    assert left < 0.2 * size


def test_unload_says_when_a_variable_still_holds_the_weights(gpt, tiny_model):
    size = tiny_model(gpt, "fox").memory
    module = gpt.models["fox"].module
    assert gpt.models.unload("fox") == (size, False)
    del module
    gpt.load("fox")
    assert gpt.models.unload("fox") == (size, True)
    assert gpt.models.unload("fox") == (0, True), "a model that is only on disk"


def test_a_saved_model_loads_without_this_package(gpt, tiny_model, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = tiny_model(gpt, "fox")
    folder = gpt.save("fox", tmp_path / "out" / "fox")
    assert folder == tmp_path / "out" / "fox"
    module, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("The old fox saw 3 small birds", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(module(ids).logits, logits(model))
    assert gpt.save("fox", folder) == folder, "saved again over itself"
    tiny_model(gpt, "hen", seed=1)
    assert "contains another model" in fail(gpt.save, "hen", folder)
    gpt.save("hen", folder, overwrite=True)
    assert store.read_json(folder / ABOUT)["name"] == "hen"
    assert [path.name for path in folder.parent.iterdir()] == ["fox"], "nothing half-written stays"


def test_save_touches_no_folder_of_other_things(gpt, tiny_model, tmp_path):
    model = tiny_model(gpt, "fox")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_bytes(b"cat")
    for overwrite in (False, True):
        assert "has other files in it (cat.jpg)" in fail(gpt.save, "fox", photos, overwrite=overwrite)
    assert [path.name for path in photos.iterdir()] == ["cat.jpg"]
    mixed = gpt.save("fox", tmp_path / "mixed")
    (mixed / "thesis.docx").write_bytes(b"years of work")
    assert "thesis.docx" in fail(gpt.save, "fox", mixed, overwrite=True)
    assert "is not a folder" in fail(gpt.save, "fox", photos / "cat.jpg")
    assert "own folder" in fail(gpt.save, "fox", model.folder)
    assert (mixed / "thesis.docx").exists() and (photos / "cat.jpg").read_bytes() == b"cat"


@pytest.fixture
def on_disk(gpt, tiny_model):
    """A model that is not in memory; its folder is the test's to damage."""
    tiny_model(gpt, "fox")
    gpt.unload("fox")
    return gpt.models.about("fox").folder


@pytest.mark.parametrize("kept", [0, 5, 200, -100])
def test_safetensors_cut_short(gpt, on_disk, tmp_path, kept):
    weights = on_disk / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    assert "model.safetensors is damaged" in fail(gpt.load, "fox")
    assert "damaged" in fail(gpt.save, "fox", tmp_path / "copy")
    assert not (tmp_path / "copy").exists() and not gpt.models.about("fox").resident


def test_safetensors_of_noise_and_of_another_model(gpt, on_disk):
    from safetensors.torch import load_file, save_file

    weights = on_disk / "model.safetensors"
    tensors = load_file(weights)
    lost = next(name for name in tensors if "q_proj" in name)
    save_file({k: v for k, v in tensors.items() if k != lost}, weights, {"format": "pt"})
    assert fail(gpt.load, "fox") == f"model fox is damaged: 1 of its weights are missing ({lost} …)"
    save_file({**tensors, lost: tensors[lost][:, :-2].contiguous()}, weights, {"format": "pt"})
    assert fail(gpt.load, "fox").startswith("model fox cannot be loaded")
    weights.write_bytes(b"\xff" * 4096)
    assert "is damaged" in fail(gpt.load, "fox")


def test_only_pickles(gpt, on_disk):
    (on_disk / "model.safetensors").rename(on_disk / "pytorch_model.bin")
    assert "pickled weights are never read" in fail(gpt.load, "fox")


@pytest.mark.parametrize(
    "file, message",
    [
        ("config.json", "its config.json cannot be read"),
        (ABOUT, f"its {ABOUT} cannot be read"),
        ("tokenizer.json", "model fox is damaged: its tokenizer.json cannot be read"),
    ],
)
def test_settings_cut_short(gpt, on_disk, file, message):
    text = (on_disk / file).read_text()
    (on_disk / file).write_text(text[: len(text) // 2])
    assert message in fail(gpt.load, "fox")


def test_a_tokenizer_that_is_missing_or_empty(gpt, on_disk):
    (on_disk / "tokenizer.json").write_text("{}")
    assert fail(gpt.load, "fox") == "model fox is damaged: its tokenizer.json cannot be read"
    (on_disk / "tokenizer.json").unlink()
    assert fail(gpt.load, "fox") == "model fox is damaged: it has no tokenizer.json"


def test_pulling_over_a_name_made_here(gpt, tiny_model, tmp_path):
    tiny_model(gpt, "fox")
    hen = tiny_model(gpt, "hen", seed=1)
    folder = gpt.save("hen", tmp_path / "hen")
    assert fail(gpt.pull, str(folder), "fox") == (
        "fox was made by pretrain: choose another name with --name, or use --overwrite"
    )
    assert gpt.models["fox"].kind == "pretrain"
    pulled = gpt.pull(str(folder), "fox", overwrite=True)
    assert (pulled.kind, pulled.folder.parent, pulled.lineage) == (
        "pull",
        store.cache() / "models",
        hen.lineage,
    )
    made = tiny_model(gpt, "fox")
    assert gpt.models["fox"] is made, "where both have a name, the one made here is meant"
    assert list(gpt.models) == ["fox", "hen"]
