"""Adapter models: kept, loaded again by us and by peft, sharing their base in memory and given back with it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.errors import fail
from helpers.large import measured_on_large
from jupyter_gpt import store
from jupyter_gpt.models.adapters import CONFIG
from jupyter_gpt.models.models import ABOUT
from jupyter_gpt.nn.heads import with_head
from jupyter_gpt.nn.lora import lora
from jupyter_gpt.nn.modules import trained
from jupyter_gpt.session import Session


def ids(model):
    return model.tokenizer("The old fox saw 3 small birds", return_tensors="pt").input_ids


def logits(model):
    with torch.no_grad():
        return model.module(input_ids=ids(model)).logits


def moved(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in trained(module):
            p.add_(torch.randn(p.shape, generator=generator) * 0.05)
    return module


@pytest.fixture
def kept(gpt, tiny_model):
    """`kept(name)`: an adapter of the model `fox`, as a finetuning run would keep it."""
    base = tiny_model(gpt, "fox")

    def make(name="reply", seed=0):
        module = moved(lora(gpt.models["fox"].module, 4, seed=seed), seed)
        return gpt.models.keep(
            name, module, base.tokenizer, "sft", None, [*base.lineage, f"{name} (sft)"], 5, base="fox"
        )

    return make


def test_an_adapter_is_there_again_in_another_session_on_a_shared_base(kept, gpt):
    model = kept()
    assert model.base == "fox" and model.trained == sum(
        p.numel() for n, p in model.module.named_parameters() if "lora" in n
    )
    assert model.parameters == gpt.models["fox"].parameters + model.trained
    assert model.memory == 4 * model.trained
    wanted, before = logits(model), logits(gpt.models["fox"])
    later = Session()
    about = later.models.about("reply")
    assert (about.base, about.trained, about.lineage) == ("fox", model.trained, ["fox (pretrain)", "reply (sft)"])
    assert not about.resident and list(later.models) == ["fox", "reply"] and "reply" in later.models
    loaded = later.models["reply"]
    assert torch.equal(logits(loaded), wanted)
    base = later.models["fox"]
    shared = {p.data_ptr() for p in base.module.parameters()}
    assert shared < {p.data_ptr() for p in loaded.module.parameters()}
    assert torch.equal(logits(base), before)
    text = later.prompt("The old fox", model="reply", temperature=0, max_tokens=5)
    assert len(text.tokens) == 5 or text.finish_reason == "stop"


def test_the_folder_of_an_adapter_is_peft_s_own(kept, gpt, tmp_path):
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM

    model = kept()
    base = AutoModelForCausalLM.from_pretrained(gpt.models["fox"].folder)
    loaded = PeftModel.from_pretrained(base, model.folder).eval()
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids(model)).logits, logits(model))
        whole = AutoPeftModelForCausalLM.from_pretrained(model.folder).eval()
        assert torch.equal(whole(input_ids=ids(model)).logits, logits(model))
    assert not [f for f in model.folder.iterdir() if f.name == "README.md" or f.suffix == ".bin"]
    assert model.on_disk < gpt.models["fox"].on_disk
    saved = gpt.save("reply", tmp_path / "out")
    assert (saved / "adapter_model.safetensors").exists()
    assert gpt.save("reply", saved) == saved, "saved again over itself"


def readme_code(folder) -> str:
    """The Python that an adapter's README gives."""
    return (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


def test_a_saved_adapter_loads_on_another_machine_as_its_readme_says(gpt, tiny_model, tmp_path):
    """Of a text and of labels."""
    code, wanted, elsewhere = "import torch\ntorch.set_grad_enabled(False)\n", {}, tmp_path / "elsewhere"
    for name, labels in (("reply", None), ("mood", ["good", "bad"])):
        base = tiny_model(gpt, f"fox-{name}")
        module = with_head(base.module, labels, base.tokenizer.pad_token_id) if labels else base.module
        module = moved(lora(module, 4, tokens=[1, 2, 3, 4], task="SEQ_CLS" if labels else "CAUSAL_LM"))
        lineage = [*base.lineage, f"{name} (sft)"]
        model = gpt.models.keep(name, module, base.tokenizer, "sft", None, lineage, 5, base=base.name, labels=labels)
        wanted[name] = ids(model).tolist(), logits(model).flatten()
        for each in (name, base.name):
            gpt.save(each, tmp_path / "out" / each)
    (tmp_path / "out").rename(elsewhere)
    shutil.rmtree(store.home())
    for name, (asked, _) in wanted.items():
        code += readme_code(elsewhere / name)
        code += f"\nprint(model.eval()(input_ids=torch.tensor({asked})).logits.flatten().tolist())\n"
    environment = {**os.environ, "HOME": str(tmp_path / "nobody"), "HF_HOME": str(tmp_path / "nobody" / "hf")}
    for name in ("JUPYTER_GPT_HOME", "JUPYTER_GPT_CACHE", "PYTHONPATH"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    for line, (_, expected) in zip(done.stdout.splitlines()[-2:], wanted.values(), strict=True):
        torch.testing.assert_close(torch.tensor(json.loads(line)), expected)


def test_the_verb_says_that_an_adapter_needs_its_base(kept, gpt, tmp_path, capsys):
    from jupyter_gpt.notebook.magics.verbs import save

    kept()
    save(gpt, {"name": "reply", "folder": str(tmp_path / "a")}, None)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "it is an adapter of fox, which is not in that folder: its README.md says how both are loaded"
    ]
    save(gpt, {"name": "fox", "folder": str(tmp_path / "b")}, None)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_an_adapter_of_a_base_from_the_hub_names_it_as_the_hub_does(kept, gpt, tmp_path):
    model, folder = kept(), gpt.models.folder("fox")
    source = "the hub's cache on this machine: the hub cannot be reached"
    store.write_json(folder / ABOUT, {**store.read_json(folder / ABOUT), "origin": "owner/fox-1m", "source": source})
    saved = gpt.save("reply", tmp_path / "out")
    readme = (saved / "README.md").read_text(encoding="utf-8")
    assert store.read_json(saved / CONFIG)["base_model_name_or_path"] == "owner/fox-1m"
    assert readme.startswith("---\nbase_model: owner/fox-1m\nlibrary_name: peft\n---\n")
    assert (
        'from_pretrained("owner/fox-1m")' in readme and "on its weights from the hub's cache on this machine." in readme
    )
    assert store.read_json(model.folder / CONFIG)["base_model_name_or_path"] == str(folder), "here it loads from here"
    store.write_json(folder / ABOUT, {**store.read_json(folder / ABOUT), "origin": str(tmp_path / "clone")})
    gpt.save("reply", saved)
    assert store.read_json(saved / CONFIG)["base_model_name_or_path"] == "fox"
    assert "`fox` is not on the Hugging Face hub" in (saved / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["", "[1]", "{", "\udcff{}", "[" * 100_000, None])
def test_a_damaged_adapter_is_not_saved(gpt, kept, tmp_path, content):
    path = kept().folder / CONFIG
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content.encode(errors="surrogateescape"))
    assert f"model reply is damaged: its {CONFIG} cannot be read" in fail(gpt.save, "reply", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_whose_name_is_too_long(gpt, kept, tmp_path):
    kept()
    assert "reply could not be saved in" in fail(gpt.save, "reply", tmp_path / ("a" * 300))


def test_weights_that_are_a_folder_are_damaged(gpt, kept, tmp_path):
    path = kept().folder / "adapter_model.safetensors"
    path.unlink()
    path.mkdir()
    assert "is damaged" in fail(gpt.save, "reply", tmp_path / "out")


def test_no_saved_file_names_a_place_on_this_machine(kept, gpt, tmp_path):
    kept()
    gpt.merge("reply")
    gpt.pull(str(gpt.save("reply-merged", tmp_path / "clone")), "pulled")
    names = ("fox", "reply", "reply-merged", "pulled")
    for name in names:
        gpt.save(name, tmp_path / "out" / name)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(names)
    for path in files:
        data = path.read_bytes()
        assert str(tmp_path).encode() not in data and str(Path.home()).encode() not in data, path.name
    assert store.read_json(tmp_path / "out/pulled" / ABOUT)["source"] == "clone"


def test_two_adapters_of_one_base_do_not_touch_each_other(kept, gpt):
    first, second = kept("a", 1), kept("b", 2)
    wanted = logits(first), logits(second)
    gpt.unload("a")
    assert second.resident and torch.equal(logits(second), wanted[1])
    assert torch.equal(logits(gpt.models["a"]), wanted[0])


def test_a_base_made_anew_takes_its_adapters_out_of_memory_and_refuses_them(kept, gpt, tiny_model):
    model = kept()
    wanted = logits(model)
    tiny_model(gpt, "fox")
    assert not gpt.models.about("reply").resident
    assert torch.equal(logits(gpt.models["reply"]), wanted), "the same weights again: nothing has changed"
    tiny_model(gpt, "fox", seed=9)
    assert fail(lambda: gpt.models["reply"]) == (
        "reply was trained on another fox than the one that is here now: run its cell again"
    )


def test_adapters_that_cannot_be_loaded(kept, gpt, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = kept().folder
    gpt.unload("fox")
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if "layers.0.mlp.up_proj.lora_A" not in k}, weights)
    assert "missing adapter keys" in fail(lambda: gpt.models["reply"])
    weights.write_bytes(b"")
    assert "reply" in fail(lambda: gpt.models["reply"])
    (folder / "adapter_config.json").write_text("{")
    assert "its adapter_config.json cannot be read" in fail(lambda: gpt.models["reply"])
    shutil.rmtree(gpt.models.folder("fox"))
    assert "is an adapter of fox, which is not here" in fail(lambda: gpt.models["reply"])


def test_another_form_of_an_adapter_is_another_form_of_its_base(kept, gpt):
    kept()
    half = gpt.load("reply", dtype="bfloat16")
    assert gpt.models["fox"].dtype == "bfloat16"
    assert {p.dtype for n, p in half.module.named_parameters() if "lora" not in n} == {torch.bfloat16}
    assert gpt.load("fox", dtype="float32").dtype == "float32"
    assert not gpt.models.about("reply").resident, "its tensors would have been those of the old form"


@pytest.mark.parametrize("adapted", [False, True])
def test_a_head_is_kept_and_loaded_with_its_labels(gpt, tiny_model, adapted):
    base = tiny_model(gpt, "fox")
    module = with_head(base.module, ["good", "bad"], base.tokenizer.pad_token_id)
    if adapted:
        module = moved(lora(module, 2, task="SEQ_CLS"))
    else:
        import copy

        module = moved(copy.deepcopy(module).requires_grad_(True))
    options = {"base": "fox"} if adapted else {}
    model = gpt.models.keep(
        "judge",
        module,
        base.tokenizer,
        "classify",
        None,
        [*base.lineage, "judge (classify)"],
        1,
        labels=["good", "bad"],
        **options,
    )
    wanted = logits(model)
    later = Session().models["judge"]
    assert later.labels == ["good", "bad"] and wanted.shape == (1, 2)
    assert torch.equal(logits(later), wanted)
    assert later.module.config.id2label == {0: "good", 1: "bad"}
    assert "returns scores and no text: gpt.models['judge'].classify(texts)" in fail(gpt.prompt, "hello", model="judge")
    assert gpt.prompt("hello", max_tokens=1).model == "fox", "made last, but nothing to talk to"


MEASURED = """
import sys, psutil
from jupyter_gpt.session import Session
from jupyter_gpt.nn.lora import lora
folder, gpt = sys.argv[1], Session()
def used(): return psutil.Process().memory_info().rss
gpt.pull(folder, "large")
def adapt(name):
    base = gpt.models["large"]
    gpt.models.keep(name, lora(base.module, 2), base.tokenizer, "sft", None, ["large", name], 1, base="large")
adapt("one")
gpt.prompt("a", model="one", max_tokens=1)
gpt.unload("large")  # what the libraries load for good is not the model's
before = used()
adapt("one"); adapt("two")
gpt.prompt("a", model="two", max_tokens=1)
loaded = used()
size = gpt.models["large"].memory
gpt.unload("one")
some = used()
gave, freed = gpt.models.unload("large")
print(size, loaded - before, some - before, used() - before, gave >= size, freed, gpt.models.about("two").resident)
"""


def test_unloading_a_base_gives_back_what_its_twins_held(tmp_path, tiny_model, gpt):
    output = measured_on_large(MEASURED, tmp_path / "large", tiny_model(gpt).tokenizer)
    *numbers, gave, freed, resident = output.split()
    size, loaded, some, left = map(int, numbers)
    assert size > 120e6
    assert 0.8 * size < loaded < 1.5 * size, "two adapters, one base"
    assert some > 0.8 * size, "the other adapter still needs the base"
    assert left < 0.2 * size
    assert (gave, freed, resident) == ("True", "True", "False")


def test_what_is_written_about_an_adapter(kept, gpt):
    about = store.read_json(kept().folder / ABOUT)
    assert about["base"] == "fox" and about["trained"] > 0 and about["labels"] is None
    assert fail(gpt.models.about, "replz").startswith("there is no model replz (did you mean reply?)")
