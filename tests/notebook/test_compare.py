"""`%%compare` hands over models, prompts and options, and shows the table."""

import pytest

from jupyter_gpt.stages.compare import Comparison
from jupyter_gpt.stages.rankings import AllRankings, Question


@pytest.fixture
def asked(fake_gpt, tmp_path, monkeypatch):
    """What `gpt.compare` was asked, as (models, prompts, options)."""
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path))
    seen = []

    def compare(models, prompts, *, tick, **options):
        seen.append((models, prompts, options))
        tick(models[0], 0, 2, 0)
        both = tuple({"model": name, "text": name, "seed": 0} for name in models)
        return Comparison(AllRankings().named("n"), [Question(text, both, (0, 1)) for text in prompts], models)

    fake_gpt.compare = compare
    return seen


def test_one_prompt_a_line_with_its_holes_filled(ip, succeed, asked, shown):
    ip.user_ns["animal"] = "fox"
    succeed(
        '%%compare ann bob --max-tokens 20 --temperature 0 --stop "\\n" "." --seed 4 --out c\n'
        'The {animal} is {"kind": 1}\n\n  Why? \n',
    )
    [(models, prompts, options)] = asked
    assert (models, prompts) == (["ann", "bob"], ['The fox is {"kind": 1}', "Why?"])
    assert options == {"max_tokens": 20, "temperature": 0.0, "stop": ["\n", "."], "seed": 4}
    assert ip.user_ns["c"].models == ["ann", "bob"]
    assert len(shown) == 1 and shown[0].startswith("compare ann, bob\n2 prompts")


def test_where_the_votes_go_and_samples(succeed, asked, shown):
    succeed("%%compare ann bob --rankings best --samples 3 --no-form --as-assistant\nx\n")
    assert asked[0][2] == {"rankings": "best", "samples": 3, "as_assistant": True}


def test_votes_are_asked_for_only_with_blind(succeed, asked, monkeypatch):
    forms = []
    monkeypatch.setattr("jupyter_gpt.notebook.views.rank.Page.show", lambda self, task, form: forms.append(form))
    for options in ("", "--blind", "--blind --no-form", "--no-form"):
        succeed(f"%%compare ann bob {options}\nx\n")
    assert forms == [False, True, False, False]


def test_help_tells_of_the_body(succeed, fake_gpt, capsys):
    succeed("%%compare --help")
    text = capsys.readouterr().out
    assert "%%compare MODEL … [options]\n    prompt\n" in text and "--rankings NAME" in text


def test_mistakes(ip, fake_gpt, fails):
    assert fails("%%compare\nx\n") == "%%compare requires MODEL: %%compare MODEL … [options]"
    assert "did you mean --samples" in fails("%%compare a b --sample 3\nx\n")
