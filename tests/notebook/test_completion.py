"""Completion, asked as the kernel asks: the whole cell and where the cursor is."""

import json

import pytest
from IPython.core.completer import provisionalcompleter


@pytest.fixture
def complete(ip, tmp_path, monkeypatch):
    """The texts offered at the end of a cell, each as the whole word that would stand there."""
    home = tmp_path / ".jupyter_gpt"
    for folder in ("models/storyteller", "models/tiny", "runs/storyteller", "runs/old", "models/.half"):
        (home / folder).mkdir(parents=True)
    for name in ("storyteller", "tiny", ".half"):
        (home / "models" / name / "config.json").write_text("{}")
    endpoint = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    (home / "endpoints.json").write_text(json.dumps({"far": endpoint}))
    (home / "corpora").mkdir()
    (home / "corpora" / "bedtime.yaml").write_text("stories: 1\n")
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "tale.txt").write_text("Once")
    (tmp_path / "books" / "cover.png").write_text("")
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(home))
    monkeypatch.chdir(tmp_path)

    def run(cell: str) -> list[str]:
        with provisionalcompleter():
            return [c.text for c in ip.Completer.completions(cell, len(cell)) if c._origin == "jupyter_gpt"]

    return run


def test_options(complete):
    assert complete("%%pretrain x --ep") == []
    assert sorted(complete("%%pretrain x --de")) == ["--decay", "--depth", "--detach", "--devices"]
    assert complete("%%pretrain x --depth 4 --dep") == []
    assert "--help" in complete("%%corpus --")
    assert complete("%gpt resume x --b") == ["--background"]


def test_values(complete):
    assert set(complete("%%pretrain x --arch ")) == {"llama", "qwen3", "gpt2"}
    assert complete("%%pretrain x --arch=ll") == ["llama"]
    assert complete("%%pretrain x --corpus ") == ["bedtime"]
    assert set(complete("%%pretrain x --tokenizer ")) == {"bpe", "char", "far", "storyteller", "tiny"}
    assert complete("%%pretrain x --steps ") == []


def test_variables_that_are_data(complete, ip):
    ip.run_cell("import json\ntexts = ['a']\ndef tell(): pass\n_hidden = 1")
    assert complete("%%pretrain x --prompts $") == ["$texts"]
    assert complete("%%corpus x\n$te") == ["$texts"]


def test_verbs_and_their_names(complete):
    assert "show" in complete("%gpt ")
    assert complete("%gpt re") == ["rename", "resume", "reward"]
    assert set(complete("x = 1\n%gpt show ")) == {"storyteller", "old", "last"}
    assert complete("%gpt show ol") == ["old"]
    assert complete("%gpt show old st") == ["storyteller"]
    assert complete("%gpt stop old ") == []
    assert complete("%gpt nonsense ") == []
    assert complete("%gpt help sh") == ["show"]


def test_sources_in_a_body(complete):
    assert {"stories: ", "sums: ", "python: ", "hf:", "books/"} <= set(complete("%%pretrain x --depth 2\n"))
    assert complete("%%corpus x\nstories: 1\nbo") == ["books/"]
    assert complete("%%corpus x\n./books/") == ["./books/tale.txt"]
    assert complete("%%corpus x\nnowhere/") == []
    assert complete("%%corpus x\nstories: ") == []


def test_silent_elsewhere(complete):
    assert complete("import o") == []
    assert complete("--de") == []
    assert complete("%%time\nstor") == []
    assert complete("%%pretrained --de") == []
