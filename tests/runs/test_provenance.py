"""Who may replace what has a name: the cell that made it, the same options on the same data, or who says
--overwrite.
"""

import json
import signal
import threading
from pathlib import Path

import pandas
import pytest

from helpers.errors import fail
from helpers.killed import die_in_a_step, in_a_process
from helpers.tiny import DOCUMENTS, TINY
from jupyter_gpt import store
from jupyter_gpt.models.models import ABOUT
from jupyter_gpt.retrieval import build
from jupyter_gpt.runs import provenance as module
from jupyter_gpt.runs.provenance import Provenance, digest, plain, provenance
from jupyter_gpt.session import Session
from jupyter_gpt.stages.rankings import Ranking

ROWS = [
    {"prompt": f"How many birds saw {who}?", "completion": f"{n} birds."} for n in range(1, 5) for who in ("fox", "hen")
]
SFT = {"batch_tokens": 64, "context": 64, "steps": 2, "answer_tokens": 2, "sample_every": 100}


@pytest.fixture
def cell(monkeypatch):
    """`cell("a")`: what follows is run by that cell; None is a script or nbclient, which name none."""
    return lambda name: monkeypatch.setattr(module, "running_cell", lambda: name)


@pytest.mark.parametrize("before", ["a", None])
@pytest.mark.parametrize("after", ["a", "b", None])
@pytest.mark.parametrize("same", [True, False])
def test_the_same_cell_or_the_same_recipe_makes_it_again(gpt, train, cell, before, after, same):
    cell(before)
    train(steps=2)
    cell(after)
    steps = 2 if same else 3
    if same or (before == after == "a"):
        assert train(steps=steps).step == gpt.models["tiny"].step == steps
    else:
        place = " in another cell" if before and after else ""
        assert fail(train, steps=3) == (
            f"tiny was made by pretrain{place} with steps 2, not 3: choose another name, or use --overwrite"
        )
        assert gpt.runs["tiny"].step == gpt.models["tiny"].step == 2
        assert train(steps=3, overwrite=True).step == 3


def test_another_kernel_knows_it_too(gpt, train, cell):
    cell("a")
    train(steps=2)
    later = Session()
    cell(None)
    made = later.models.about("tiny").provenance
    assert made == later.runs["tiny"].provenance == gpt.models["tiny"].provenance
    assert (made.kind, made.cell_id, made.requested["steps"], made.requested["mixture"]) == (
        "pretrain",
        "a",
        2,
        {"$docs": 1.0},
    )
    again = {"variables": {"docs": DOCUMENTS}, **TINY, "steps": 2}
    later.pretrain("tiny", {"$docs": 1.0}, **again)
    assert later.runs["tiny"].provenance.cell_id is None, "now it is the script's"


def test_minutes_that_were_measured_and_what_the_machine_chose_are_no_difference(gpt, train):
    first = train(minutes=0.02)
    first.recipe["steps"] += 1  # as if measured on a busier day
    assert train(minutes=0.02).status == "finished"
    assert "made by pretrain with minutes 0.02, not 0.03" in fail(train, minutes=0.03)


@pytest.mark.parametrize(
    "form",
    [
        list,
        pandas.Series,
        lambda texts: pandas.DataFrame({"text": texts, "n": range(len(texts))}),
        lambda texts: [{"text": text} for text in texts],
    ],
)
def test_data_are_known_by_their_content(gpt, form):
    def start(texts):
        return gpt.pretrain("tiny", {"$docs": 1.0}, variables={"docs": form(texts)}, **TINY, steps=1)

    start(DOCUMENTS)
    assert start(list(DOCUMENTS)).step == 1
    assert (
        fail(start, DOCUMENTS[1:])
        == "tiny was made by pretrain with other $docs: choose another name, or use --overwrite"
    )


def test_every_stage_and_what_is_made_of_models(gpt, tiny_model, tmp_path):
    tiny_model(gpt, "fox")
    gpt.sft("reply", ROWS, "fox", lora=2, **SFT)
    gpt.sft("reply", ROWS, "fox", lora=2, **SFT)
    assert "reply was made by sft with other $data" in fail(gpt.sft, "reply", ROWS[1:], "fox", lora=2, **SFT)
    assert "reply was made by sft with lora 2" in fail(gpt.sft, "reply", ROWS, "fox", **SFT)
    labelled = [(text, "good" if "fox" in text else "bad") for text in DOCUMENTS]
    assert "reply was made by sft: choose" in fail(gpt.classify, "reply", labelled, "fox", steps=1)
    gpt.classify("mood", labelled, "fox", steps=1)
    gpt.classify("mood", list(labelled), "fox", steps=1)
    assert "mood was made by classify without lr" in fail(gpt.classify, "mood", labelled, "fox", steps=1, lr=0.1)

    gpt.merge("reply", "whole")
    gpt.merge("reply", "whole")
    gpt.sft("second", ROWS, "fox", lora=2, seed=1, **SFT)
    assert "whole was made by merge with model reply, not second" in fail(gpt.merge, "second", "whole")
    assert "mood was made by classify: choose" in fail(gpt.merge, "second", "mood")

    folder = gpt.save("whole", tmp_path / "out")
    gpt.save("whole", folder)
    gpt.merge("second", "whole", overwrite=True)
    assert fail(gpt.save, "whole", folder) == (
        f"{folder} contains another model named whole: choose another folder, or use --overwrite"
    )
    gpt.save("whole", folder, overwrite=True)
    gpt.save("whole", folder)
    assert "reply was made by sft: choose" in fail(gpt.pull, str(folder), "reply"), "an adapter is a model too"
    assert gpt.models["reply"].base == "fox"


def test_a_cell_that_saves_or_pulls_another_model_may(gpt, tiny_model, tmp_path, cell):
    tiny_model(gpt, "fox"), tiny_model(gpt, "hen", seed=1)
    cell("a")
    gpt.save("fox", tmp_path / "out")
    gpt.save("hen", tmp_path / "out")
    assert store.read_json(tmp_path / "out" / ABOUT)["name"] == "hen"
    one, two = gpt.save("fox", tmp_path / "one"), gpt.save("hen", tmp_path / "two")
    gpt.pull(str(one), "bird")
    assert gpt.pull(str(two), "bird").source == str(two)
    cell("b")
    assert "bird was pulled from" in fail(gpt.pull, str(one), "bird")
    gpt.endpoint("far", "https://x/v1", "m")
    assert "far was made by endpoint" in fail(gpt.pull, str(one), "far")


def rank_by_hand(gpt, count=8):
    for n in range(count):
        texts = ({"model": "fox", "text": f"{text} {n}", "seed": 0} for text in ("saw 3 birds", "xx"))
        gpt.rankings.named("taste").add(Ranking(f"Tale {n}.", tuple(texts), ((0,), (1,)), time=float(n)))


def test_the_reward_model_that_reinforcement_makes_first_replaces_no_other(gpt, tiny_model):
    tiny_model(gpt, "fox")
    rank_by_hand(gpt)
    gpt.reward("a-reward", rankings="taste", steps=1, lora=2)
    small = {
        "max_tokens": 2,
        "prompts_per_step": 2,
        "samples": 2,
        "lora": 2,
        "steps": 1,
        "policy": "fox",
        "rankings": "taste",
    }
    assert "a-reward was made by reward" in fail(gpt.rlhf, "a", algo="grpo", **small)
    assert gpt.models.about("a-reward").provenance.requested["steps"] == 1 and "a" not in gpt.runs
    gpt.rlhf("b", algo="grpo", **small)
    gpt.rlhf("b", algo="grpo", **small)
    assert "b was made by rlhf with algo grpo, not ppo" in fail(gpt.rlhf, "b", algo="ppo", **small)


def test_a_reward_is_known_by_its_source(gpt, tiny_model):
    tiny_model(gpt, "fox")
    options = {
        "max_tokens": 2,
        "prompts_per_step": 2,
        "samples": 2,
        "lora": 2,
        "steps": 1,
        "policy": "fox",
        "algo": "grpo",
    }

    def few(prompt, completion):
        return -len(completion)

    gpt.rlhf("a", ["Tale 1."], reward=few, **options)
    gpt.rlhf("a", ["Tale 1."], reward=few, **options)

    def few(prompt, completion):
        return -len(set(completion))

    assert "a was made by rlhf with other $few" in fail(gpt.rlhf, "a", ["Tale 1."], reward=few, **options)


def test_corpora_and_endpoints(gpt, cell):
    gpt.corpus("bedtime", {"stories": 1})
    gpt.corpus("bedtime", "stories: 1")
    assert 'bedtime was made by corpus with mixture {"stories": 1.0}, not' in fail(gpt.corpus, "bedtime", {"sums": 1})
    assert gpt.corpora["bedtime"].weights == {"stories": 1.0}
    gpt.corpus("bedtime", {"sums": 1}, overwrite=True)
    cell("a")
    gpt.corpus("bedtime", {"sums": 1})
    gpt.corpus("bedtime", {"sums": 2})
    cell("b")
    assert "in another cell" in fail(gpt.corpus, "bedtime", {"sums": 3})
    gpt.endpoint("far", "http://127.0.0.1:9/v1", "m", timeout=3)
    cell(None)
    assert gpt.endpoint("far", "http://127.0.0.1:10/v1", "m").base_url.endswith(":10/v1"), (
        "a free port is another each time"
    )
    assert "far was made by endpoint with model m, not n" in fail(gpt.endpoint, "far", "http://127.0.0.1:10/v1", "n")
    assert gpt.endpoint("far", "http://127.0.0.1:10/v1", "n", overwrite=True).model == "n"


def test_rankings_that_another_asked_are_not_replaced(gpt, tiny_model, cell):
    tiny_model(gpt, "fox")
    options = {"model": "fox", "samples": 2, "max_tokens": 3}
    gpt.rank("taste", ["Tale", "The"], **options)
    gpt.rank("taste", ["Tale", "The"], **options, by="ann")
    assert "taste was made by rank with prompts" in fail(gpt.rank, "taste", ["Tale"], **options)
    assert len(gpt.rank("taste", ["Tale", "The", "fox"], **options).questions) == 3, "more prompts replace nothing"
    gpt.rank("taste", ["Tale"], **options, overwrite=True)
    cell("a")
    tiny_model(gpt, "hen")
    gpt.arena(["fox", "hen"], ["Tale"], max_tokens=2)
    gpt.arena(["fox", "hen"], ["The"], max_tokens=2)  # under no name that anybody chose
    assert "taste was made by rank: choose" in fail(gpt.arena, ["fox", "hen"], ["The"], name="taste", max_tokens=2)


TEXTS = ["Leave is 27 days a year.", "Trains are second class.", "The printer is called Gutenberg."]
INDEX = {"embedder": "fox", "chunk_tokens": 40}


def test_indexes(gpt, tiny_model, tmp_path, monkeypatch, cell):
    tiny_model(gpt, "fox")
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(TEXTS[0])
    Path("b.txt").write_text(TEXTS[1])
    for _ in range(2):  # Run All, twice
        assert gpt.index("kb", "a.txt", **INDEX).documents == ["a.txt"]
        assert gpt.index("kb", "b.txt", add=True).documents == ["a.txt", "b.txt"]
    assert "also contains a.txt" in fail(gpt.index, "kb", "b.txt")
    cell("a")
    gpt.index("mine", "a.txt", **INDEX)
    assert gpt.index("mine", "b.txt", **{**INDEX, "chunk_tokens": 20}).about["chunk_tokens"] == 20
    cell("b")
    assert "20 tokens per chunk, not 30" in fail(gpt.index, "mine", "b.txt", chunk_tokens=30)

    cell(None)

    def texts(*kept, **options):
        return gpt.index("notes", "$texts", variables={"texts": list(kept)}, **options)

    texts(*TEXTS[:2], **INDEX)
    assert len(texts(*TEXTS)) == 3, "it grows"
    assert fail(texts, "Something else altogether.") == (
        "index notes contains other texts of $texts: choose another name, or use --overwrite"
    )
    assert texts("Something else altogether.", overwrite=True).documents == ["$texts[0]"]


def test_an_index_keeps_what_it_lets_go_of_until_the_new_is_there(gpt, tiny_model, monkeypatch):
    tiny_model(gpt, "fox")
    gpt.index("kb", "$old", variables={"old": TEXTS}, **INDEX)
    many = [f"Document {n} tells of {n} birds. It sang." for n in range(2000)]

    interrupted, embed = threading.Event(), build.embed_pending

    def waiting(*given):
        for told in embed(*given):
            yield told
            interrupted.wait()

    monkeypatch.setattr(build, "embed_pending", waiting)

    def interrupt(what, done, total):
        if what == "embedding" and not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    stopped = gpt.index("kb", "$new", variables={"new": many}, overwrite=True, progress=interrupt)
    assert stopped.report.stopped
    assert Session().indexes["kb"].search(TEXTS[0], k=1)[0].text == TEXTS[0]
    done = gpt.index("kb", variables={"new": many})
    assert done.report.removed == ["$old[0]", "$old[1]", "$old[2]"] and len(done.documents) == 2000


def test_remakes_that_are_killed_one_after_another_keep_the_run_and_the_model(gpt, train):
    first = train("a", steps=4)
    losses = list(first.history["loss"])
    for _ in range(2):
        assert in_a_process(gpt.home, "pretrain", die_in_a_step, 3) == -signal.SIGKILL
    later = Session()
    assert later.runs["a"].status == "interrupted" and later.models["a"].step == 4
    parked = sorted(path.name for path in (gpt.home / "runs").iterdir())
    assert parked == [".old-a@0", ".old-a@1", "a"]
    events = [json.loads(line) for line in (gpt.home / "runs" / ".old-a@0" / "events.jsonl").read_text().splitlines()]
    assert [e["loss"] for e in events if e["event"] == "step"] == losses
    again = {"variables": {"docs": DOCUMENTS}, **TINY, "steps": 4, "overwrite": True}
    later.pretrain("a", {"$docs": 1.0}, **again)
    assert [path.name for path in (gpt.home / "runs").iterdir()] == ["a"]


def test_a_run_that_never_began_is_nothing_to_protect(gpt, train):
    fail(train, context=100_000)
    assert gpt.runs["tiny"].status == "failed"
    assert train(steps=2).step == 2


def test_contents_are_told_apart_and_recorded_short():
    frame = pandas.DataFrame({"text": ["a", "b"], "n": [1, 2]})
    assert digest(frame) == digest(frame.copy()) != digest(frame.iloc[::-1])
    assert digest(["a", "bc"]) != digest(["ab", "c"]) and digest([["a"], "b"]) != digest(["a", ["b"]])
    assert digest({"a", "b", "c"}) == digest({"c", "b", "a"})
    assert digest(pandas.Series([1, 2]).to_numpy()) == digest([1, 2])
    once = iter(["a"])
    digest(once)
    assert next(once) == "a", "what can be read only once is left whole"
    assert digest(object()) == digest(object())
    assert plain(("q_proj", "v_proj")) == ["q_proj", "v_proj"] and plain("x" * 99).startswith("sha256:")
    assert plain(Path("a/b")) == "a/b"
    made = provenance("sft", {"lr": None, "prompts": ["x"] * 99}, {"rows": [1]}, ["$rows", "$gone", "a.jsonl"])
    assert set(made.requested) == {"prompts", "$rows"}
    assert Provenance.read({"kind": "sft", "requested": [1]}).requested is None
    json.dumps(made.requested)
