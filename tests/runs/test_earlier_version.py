"""What an earlier version left on disk: its models answer, its runs are shown and go on."""

import tarfile
from pathlib import Path

import pytest

from jupyter_gpt.session import Session

DOCUMENTS = [f"a fox saw {n} birds and was glad" for n in range(40)]


@pytest.fixture
def gpt(tmp_path, monkeypatch):
    with tarfile.open(Path(__file__).with_name("earlier_version.tar.xz")) as archive:
        archive.extractall(tmp_path / "home", filter="data")
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "home"))
    return Session()


def test_models_answer(gpt):
    assert {"base", "chat", "mood", "judge", "aligned", "stopped"} <= set(gpt.models)
    for name in ("base", "chat", "aligned"):
        assert gpt.prompt("a fox", model=name, max_tokens=3, temperature=0).usage.completion_tokens == 3
    assert gpt.models["mood"].predict("3 fox") in ("f", "h")
    assert isinstance(gpt.models["judge"].score("a fox", " saw"), float)
    assert gpt.search("docs", DOCUMENTS[3], k=1)[0].text


def test_runs_are_shown(gpt):
    steps = {"base": 3, "chat": 3, "mood": 3, "judge": 3, "aligned": 2, "stopped": 20}
    for name, reached in steps.items():
        run = gpt.runs[name]
        assert (run.step, run.status) == (reached, "stopped" if name == "stopped" else "finished")
        assert list(run.history["step"]) == list(range(1, reached + 1))
        assert name in gpt.show(name).text
    assert {"reward", "kl", "entropy", "length"} <= set(gpt.runs["aligned"].history)
    for name, told in (("base", "bits per byte"), ("mood", "confusion matrix"), ("judge", "calibration")):
        assert told in gpt.show(name).text
    assert "gains and costs of alignment" in gpt.show("aligned").text and "data:image" in gpt.show("aligned").html
    assert gpt.rankings["taste"].read() and gpt.show("taste").text
    assert gpt.corpora["mix"].weights == {"stories": 1.0}


def test_a_stopped_run_goes_on(gpt):
    assert gpt.resume("stopped", variables={"docs": DOCUMENTS}).status == "finished"
    assert gpt.runs["stopped"].step == 400


def test_what_is_made_anew_by_the_same_options_needs_no_overwrite(gpt):
    shape = {"depth": 1, "width": 16, "heads": 1, "context": 32, "rows": 2, "batch_tokens": 64, "tokenizer": "char"}
    options = {"steps": 3, "prompts": ["a fox"], **shape}
    assert gpt.pretrain("base", {"$docs": 1.0}, variables={"docs": DOCUMENTS}, **options).status == "finished"
    rows = [("who sang", f"bird {n}") for n in range(20)]
    options = {"lora": 1, "steps": 3, "context": 32, "batch_tokens": 64, "answer_tokens": 4}
    assert gpt.sft("chat", rows, "base", **options).status == "finished"
