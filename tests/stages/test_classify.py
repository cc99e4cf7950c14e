"""Classifiers: trained in full, with an adapter and from scratch, asked, resumed, and what is refused."""

import json
from collections import Counter

import pytest
import torch

from helpers.errors import fail
from helpers.stopping import stopped_at
from jupyter_gpt.data.labelled import Labelled, batch, check, read, split
from jupyter_gpt.session import Session

GOOD, BAD = ("glad", "red", "small"), ("old", "sad", "late")
TEXTS = [
    (f"The fox saw {n} {word} birds.", "good" if word in GOOD else "bad") for n in range(8) for word in (*GOOD, *BAD)
]
SHORT = {"steps": 12, "batch": 8, "lr": 0.01, "sample_every": 100, "eval_every": 6}


@pytest.fixture
def fox(gpt, tiny_model):
    return tiny_model(gpt, "fox")


def last(run):
    return [e for e in run.events if e["event"] == "evaluation"][-1]


@pytest.mark.parametrize("options", [{}, {"lora": 4}, {"from_scratch": True}])
def test_a_base_becomes_a_classifier(gpt, fox, options):
    before = {name: p.detach().clone() for name, p in fox.module.named_parameters()}
    run = gpt.classify("mood", TEXTS, "fox", **{**SHORT, "steps": 150, **options})
    assert run.status == "finished" and last(run)["accuracy"] >= 0.8 and last(run)["f1"] >= 0.7
    assert last(run)["low"] < 0.9, "an interval of ten texts"
    model = gpt.models["mood"]
    assert model.labels == ["bad", "good"] and model.kind == "classify"
    assert model.lineage == (
        ["mood (classify)"] if "from_scratch" in options else ["fox (pretrain)", "mood (classify)"]
    )
    texts = ["The fox saw 9 glad birds.", "The fox saw 9 sad birds."]
    said = model.predict([text for text, _ in TEXTS])
    assert sum(a == b for a, (_, b) in zip(said, TEXTS, strict=True)) >= 0.9 * len(TEXTS)
    assert model.predict(TEXTS[0][0]) == said[0] and model.predict([]) == []
    assert fail(model.predict, [None]) == "a classifier takes a text or a list of texts, not None"
    assert fail(model.classify, 3) == "a classifier takes a text or a list of texts, not 3"
    assert "mood is a classifier: .classify(texts)" in fail(model.score, ["The fox"])
    odds = model.classify(texts)
    assert list(odds.columns) == ["label", "bad", "good"] and list(odds.index) == texts
    assert odds["label"].tolist() == model.predict(texts)
    assert (odds["bad"] + odds["good"]).tolist() == pytest.approx([1, 1])
    assert all(torch.equal(before[name], p) for name, p in fox.module.named_parameters())
    assert Session().models["mood"].classify(texts).equals(odds)
    if "lora" in options:
        assert gpt.merge("mood").classify(texts)["bad"].tolist() == pytest.approx(odds["bad"].tolist(), abs=1e-5)
    start = next(e for e in run.events if e["event"] == "start")
    assert start["texts"] + start["held_out"] == len(TEXTS)
    with torch.no_grad():  # the folder's own forward says the same
        ids = model.tokenizer(texts[0], return_tensors="pt").input_ids
        theirs = torch.softmax(model.module(input_ids=ids).logits[0], -1)
    assert theirs.tolist() == pytest.approx(odds[["bad", "good"]].iloc[0].tolist(), abs=1e-4)


def test_a_step_in_pieces_is_the_whole_step(gpt, fox, monkeypatch):
    def steps(name):
        run = gpt.classify(name, TEXTS, "fox", **SHORT)
        return [(e["loss"], e["grad_norm"]) for e in run.events if e["event"] == "step"]

    whole = steps("whole")
    monkeypatch.setattr("jupyter_gpt.models.scoring.CPU_TOKENS", 64)  # tokens: a step has more than a hundred
    for one, two in zip(whole, steps("parts"), strict=True):
        assert one == pytest.approx(two, rel=1e-3)


@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_see_each_text_so_often(gpt, fox, monkeypatch, epochs):
    from jupyter_gpt.stages.classify import Classifying

    seen, loss = Counter(), Classifying.loss
    monkeypatch.setattr(
        Classifying, "loss", lambda self, rows: (seen.update(tuple(r) for r, _ in rows), loss(self, rows))[1]
    )
    given = SHORT | {"steps": None, "epochs": epochs}
    start = next(e for e in gpt.classify("mood", TEXTS, "fox", **given).events if e["event"] == "start")
    assert len(seen) == start["texts"] and min(seen.values()) == epochs
    assert sum(seen.values()) < epochs * start["texts"] + SHORT["batch"]


def test_stopped_and_resumed_ends_as_if_never_stopped(gpt, fox):
    def steps(run):
        return [(e["step"], e["loss"]) for e in run.events if e["event"] == "step"]

    whole = gpt.classify("whole", TEXTS, "fox", **{**SHORT, "steps": 30})
    part = stopped_at(3, gpt.classify, "part", TEXTS, "fox", **{**SHORT, "steps": 30})
    assert part.status == "stopped" and gpt.models["part"].predict("The fox") in ("good", "bad")
    assert steps(Session().resume("part")) == steps(whole)
    assert len(steps(whole)) == 30


def test_bad_rows_are_refused_or_skipped_and_counted(gpt, fox, tmp_path):
    from jupyter_gpt.notebook.views.run_report import run_report

    path = tmp_path / "mood.jsonl"
    rows = [json.dumps({"text": text, "label": label}) for text, label in TEXTS]
    path.write_text("\n".join([*rows[:2], "{", '{"text": "no label"}', *rows[2:]]))
    body = f"{path}\nneither a label\n"
    assert fail(gpt.classify, "mood", body, "fox", **SHORT).startswith(f"{path}, line 3 is not JSON")
    assert fail(gpt.classify, "mood", body, "fox", bad_rows="drop") == "--bad-rows is refuse or skip, not 'drop'"
    run = gpt.classify("mood", body, "fox", bad_rows="skip", **SHORT)
    start = next(e for e in run.events if e["event"] == "start")
    assert start["texts"] + start["held_out"] == len(TEXTS) and start["skipped"] == 3
    assert f"3, the first: {path}, line 3 is not JSON" in run_report(run).text
    reasons = []
    assert [tuple(each) for each in read(body, bad_rows="skip", skipped=reasons)] == TEXTS and len(reasons) == 3
    assert fail(gpt.classify, "mood", TEXTS, "fox", bad_rows="drop") == "--bad-rows is refuse or skip, not 'drop'"


def test_what_is_refused(gpt, fox):
    assert "--base MODEL" in fail(gpt.classify, "x", TEXTS)
    assert "say what to learn from" in fail(gpt.classify, "x", " ", "fox")
    assert "label occurs once (odd)" in fail(gpt.classify, "x", [*TEXTS, ("a", "odd")], "fox")
    assert "at least two apart" in fail(gpt.classify, "x", TEXTS[:3], "fox")
    assert "choose another name" in fail(gpt.classify, "fox", TEXTS, "fox")
    assert "leave one out" in fail(gpt.classify, "x", TEXTS, "fox", lora=2, from_scratch=True)
    assert "must be below 1" in fail(gpt.classify, "x", TEXTS, "fox", held_out=1.0)
    gpt.classify("mood", TEXTS, "fox", **SHORT)
    assert "answers with numbers" in fail(gpt.classify, "x", TEXTS, "mood")
    assert "is not a classifier" in fail(gpt.models["fox"].predict, "a")


def test_how_labelled_texts_are_written(tmp_path):
    pairs = [("a b", "good"), ("c", "bad")]
    wanted = [Labelled(*pair) for pair in pairs]
    rows = [{"text": text, "label": label} for text, label in pairs]
    assert read("a b\tgood\n\nc\tbad\n") == wanted
    assert read('{"text": "a b", "label": "good"}\n{"sentence": "c", "sentiment": "bad"}') == wanted
    assert read(pairs) == read(rows) == read("$x", {"x": rows}) == wanted

    import json

    import pandas

    assert read("$x", {"x": pandas.DataFrame(rows)}) == wanted
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert read(str(file)) == wanted
    assert "line 2 of the cell has no label" in fail(read, "a\tb\nc")
    assert "line 1 of the cell is not JSON" in fail(read, '{"text": ')
    assert "item 1" in fail(read, [("a", "b"), {"text": "c"}])
    assert "has no text" in fail(read, [(" ", "b")])
    for empty in (None, float("nan"), " "):
        assert fail(read, [("a", "b"), {"text": "c", "label": empty}]).startswith("item 1 has no label")
    assert fail(read, [{"text": "c"}]) == "item 0 has the fields text: expected text and label"
    assert "item 0 has half a character: U+D83D" in fail(read, [("\ud83d", "b")])
    assert read(f"{file}: 1") == wanted, "as other cells weigh a source"
    assert "expected a DataFrame" in fail(read, 7)
    assert read([("a", 1), ("b", 0)]) == [Labelled("a", "1"), Labelled("b", "0")]


def test_the_split_keeps_every_label_and_no_text_on_both_sides():
    texts = [Labelled(f"text {n % 30}", "good" if n % 3 else "bad") for n in range(60)] + [
        Labelled("x", "rare"),
        Labelled("y", "rare"),
    ]
    learn, test = split(texts, 0.2)
    assert {each.label for each in learn} == {each.label for each in test} == {"good", "bad", "rare"}
    assert not {each.text for each in learn} & {each.text for each in test} and len(learn) + len(test) == len(texts)
    assert 0.15 < len(test) / len(texts) < 0.3
    assert check(texts) == ["bad", "good", "rare"]
    assert "1 label occurs once (same)" in fail(check, [*texts, Labelled("z", "same"), Labelled("z", "same")])
    seen = [n for step in range(1, 6) for n in batch(10, 4, 0, step)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and seen[:10] != seen[10:]


def test_figures_are_those_of_scikit_learn():
    import numpy as np

    from jupyter_gpt.evaluation.metrics import confusion, metrics

    sk = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    true = random.integers(0, 3, 400)
    said = np.where(random.random(400) < 0.7, true, random.integers(0, 3, 400))
    found = metrics(true, said, 3)
    assert found["confusion"] == sk.confusion_matrix(true, said).tolist() == confusion(true, said, 3).tolist()
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(true, said))
    assert found["f1"] == pytest.approx(sk.f1_score(true, said, average="macro"))
    assert found["low"] < found["accuracy"] < found["high"] and found["f1_low"] < found["f1"] < found["f1_high"]
    assert 0.06 < found["f1_high"] - found["f1_low"] < 0.13


def test_the_picture_and_its_text(gpt, fox):
    from jupyter_gpt.notebook.views.run_report import run_report

    run = gpt.classify("mood", [*TEXTS, ("<b>bold</b>", "good")], "fox", **SHORT)
    report = run_report(run)
    assert "accuracy" in report.text and "95% interval" in report.text and "macro F1" in report.text
    assert "true label (rows) × predicted label (columns)" in report.text
    assert "<b>bold</b>" not in report.html and '<img src="data:image/png' in report.html
    assert {"view": "run", "name": "mood", "kind": "classify", "base": "fox"}.items() <= report.data.items()
