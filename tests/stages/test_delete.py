"""Deleting and renaming: models with their runs, rankings, indexes; what uses them is refused or follows."""

import json
import threading

import torch

from helpers.errors import fail
from helpers.stopping import stopped_at
from helpers.tiny import DOCUMENTS
from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.adapters import CONFIG
from jupyter_gpt.nn.lora import lora
from jupyter_gpt.session import Session

TEXTS = {"a.md": "The old fox lived in the wood.", "b.md": "Seven geese flew over the lake."}


def adapter(gpt, base, name):
    module = lora(gpt.models[base].module, 4)
    lineage = [*gpt.models[base].lineage, f"{name} (sft)"]
    return gpt.models.keep(name, module, gpt.models[base].tokenizer, "sft", None, lineage, 5, base=base)


def logits(gpt, name):
    model = gpt.models[name]
    with torch.no_grad():
        return model.module(input_ids=torch.tensor([[1, 2, 3]])).logits


def test_a_model_and_its_run_go_together(gpt, train):
    train("story", steps=3)
    folder, run = gpt.models["story"].folder, gpt.runs["story"].folder
    (run.parent / ".old-story@0").mkdir()  # an older run, which would come back
    (run.parent / ".old-story@0" / "recipe.yaml").write_text("kind: pretrain")
    freed = gpt.delete("story")
    assert freed.keys() == {"model", "run"} and all(freed.values())
    assert not folder.exists() and not run.exists()
    assert list(gpt.models) == [] and list(gpt.runs) == [] and gpt.models.resident == {}
    assert [path.name for root in (folder.parent, run.parent) for path in root.iterdir()] == []
    assert "there is no model, run, rankings or index named story" in fail(gpt.delete, "story")


def test_only_the_run(gpt, train):
    train("story", steps=3)
    assert gpt.delete("story", kind=["run"]).keys() == {"run"}
    assert list(gpt.models) == ["story"] and list(gpt.runs) == []
    assert "there is no index named story: story is model" in fail(gpt.delete, "story", kind=["index"])


def test_damaged_things_can_be_deleted(gpt, train):
    train("story", steps=3)
    (gpt.models["story"].folder / "jupyter_gpt.json").write_text("{")
    (gpt.runs["story"].folder / "recipe.yaml").write_text("- [")
    assert Session().delete("story").keys() == {"model", "run"}


def test_rankings_and_indexes(gpt, tiny_model):
    tiny_model(gpt, "docs")
    gpt.index("docs", TEXTS, embedder="docs", chunk_tokens=32)
    gpt.rank("taste", ["The fox"], model="docs", samples=2, max_tokens=4, judge=lambda prompt, completion: 0.0)
    assert "docs is the name of model and index: say which with --kind" in fail(gpt.delete, "docs")
    assert gpt.rename("docs", "papers", kind=["index"]) == ["index"]
    assert (
        gpt.indexes["papers"].search("geese")[0].source in ("$texts[a.md]", "$texts[b.md]")
        and "docs" not in gpt.indexes
    )
    before = list(gpt.rankings["taste"])
    assert gpt.rename("taste", "votes") == ["rankings"]
    assert list(gpt.rankings["votes"]) == before and list(gpt.rankings) == ["votes"]
    assert gpt.rankings["votes"].questions()
    assert gpt.delete("papers").keys() == {"index"} and gpt.delete("votes").keys() == {"rankings"}
    assert list(gpt.indexes) == list(gpt.rankings) == []


def test_a_base_of_adapters_is_kept_and_renamed_with_them(gpt, tiny_model):
    tiny_model(gpt, "fox")
    adapter(gpt, "fox", "reply")
    expected = logits(gpt, "reply")
    assert "fox is the base of reply: delete them first, or make one model of both with %gpt merge reply" in fail(
        gpt.delete, "fox"
    )
    assert gpt.rename("fox", "vixen") == ["model"]
    assert [entry.split()[0] for entry in gpt.models.about("reply").lineage] == ["vixen", "reply"]
    for session in (gpt, Session()):
        torch.testing.assert_close(logits(session, "reply"), expected)
    config = json.loads((gpt.models.folder("reply") / CONFIG).read_text())
    assert config["base_model_name_or_path"] == str(gpt.models.folder("vixen"))
    gpt.delete("reply")
    assert gpt.delete("vixen").keys() == {"model"}


def test_a_renamed_run_goes_on_to_the_same_weights(gpt, train):
    train("whole", steps=6, checkpoint_every=1)
    expected = gpt.models["whole"].module.state_dict()
    stopped_at(2, train, "part", steps=6, checkpoint_every=1)
    assert gpt.rename("part", "rest") == ["model", "run"] and "part" not in gpt.runs
    gpt.resume("rest", variables={"docs": DOCUMENTS})
    assert gpt.runs["rest"].status == "finished" and gpt.models["rest"].lineage == ["rest (pretrain)"]
    for name, tensor in gpt.models["rest"].module.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_names_that_are_taken(gpt, tiny_model):
    tiny_model(gpt, "fox")
    tiny_model(gpt, "hen")
    assert "there is already a model named hen: choose another name, or %gpt delete hen" in fail(
        gpt.rename, "fox", "hen"
    )
    gpt.endpoint("far", "http://127.0.0.1:1/v1", "far")
    assert "there is already an endpoint named far" in fail(gpt.rename, "fox", "far")
    assert "far is an endpoint: %gpt config endpoint far --remove" in fail(gpt.delete, "far")
    assert "cannot be a name" in fail(gpt.rename, "fox", "../fox")
    assert sorted(gpt.models) == ["far", "fox", "hen"]


def test_what_is_in_use_is_kept(gpt, train, tiny_model):
    train("story", steps=3)
    going, go_on = threading.Event(), threading.Event()

    def reward(prompt, completion):
        going.set()
        go_on.wait(600)
        return 0.0

    gpt.rlhf("aligned", policy="story", prompts=["The"], reward=reward, steps=1, max_tokens=2, background=True)
    try:
        assert going.wait(60)
        assert "run aligned is running and uses story: wait for it, or %gpt stop aligned" in fail(gpt.delete, "story")
        assert "run aligned is running: %gpt stop aligned first" in fail(gpt.delete, "aligned")
    finally:
        go_on.set()
    gpt.runs["aligned"].wait()


def test_a_name_locked_by_another_process_is_kept(gpt, train, monkeypatch):
    train("story", steps=3)

    def locked(folder, what):
        raise GPTError(f"{what} by another process (pid 1): wait for it, or stop it there")

    monkeypatch.setattr(store, "lock", locked)
    assert "story is in use by another process" in fail(gpt.delete, "story")
    assert gpt.models["story"].folder.exists()


def test_of_a_linked_model_the_link_is_deleted(gpt, tiny_model, tmp_path):
    folder, target = tiny_model(gpt, "fox").folder, tmp_path / "elsewhere"
    folder.rename(target)
    folder.symlink_to(target)
    gpt.models.resident.clear()
    assert set(gpt.delete("fox")) == {"model"}
    assert "fox" not in gpt.models and not folder.is_symlink() and (target / "config.json").exists()
