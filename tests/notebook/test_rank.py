"""`%%rank` hands over name, prompts, models, judges and options, and shows the answers."""

import pytest

from jupyter_gpt.stages.ranking_task import RankingTask
from jupyter_gpt.stages.rankings import AllRankings, Question


@pytest.fixture
def asked(fake_gpt, tmp_path, monkeypatch):
    """What `gpt.rank` was asked, as (name, prompts, options)."""
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path))
    seen = []

    def rank(name, prompts, *, tick, **options):
        seen.append((name, prompts, options))
        tick("ann writes", 0, 2, 0)
        both = tuple({"model": "ann", "text": text, "seed": 0} for text in ("yes", "no"))
        return RankingTask(AllRankings().named(name), [Question(text, both, (0, 1)) for text in prompts], ["ann"])

    fake_gpt.rank = rank
    return seen


def test_one_prompt_a_line_with_its_holes_filled(ip, succeed, asked, shown):
    ip.user_ns["animal"] = "fox"
    succeed("%%rank taste --model ann --samples 3 --max-tokens 20 --by bob --out r\nThe {animal}\n\n  Why? \n")
    [(name, prompts, options)] = asked
    assert (name, prompts) == ("taste", ["The fox", "Why?"])
    assert options == {"model": ["ann"], "samples": 3, "max_tokens": 20, "by": "bob"}
    assert ip.user_ns["r"].missing == [0, 1]
    assert len(shown) == 1 and shown[0].startswith("rankings taste\n2 prompts")


def test_a_judge_is_a_function_or_a_model(ip, succeed, asked, shown):
    ip.user_ns["polite"] = polite = lambda prompt, completion: 1.0
    succeed("%%rank taste --model ann bob --judge $polite\nx\n")
    succeed("%%rank taste --model ann --judge smollm2 --no-form\nx\n")
    assert [options["judge"] for _, _, options in asked] == [polite, "smollm2"]
    assert asked[0][2]["model"] == ["ann", "bob"]


def test_a_file_fills_them_and_the_body_may_be_empty(succeed, asked, shown):
    succeed("%%rank taste --rankings theirs.jsonl")
    assert asked == [("taste", [], {"rankings_file": "theirs.jsonl"})]


def test_help_tells_of_the_body_and_of_the_keys(succeed, fake_gpt, capsys):
    succeed("%%rank --help")
    text = capsys.readouterr().out
    assert "%%rank NAME [options]\n    prompt\n" in text and "Backspace" in text and "--judge JUDGE" in text


def test_mistakes(ip, fake_gpt, fails):
    assert fails("%%rank\nx\n") == "%%rank requires NAME: %%rank NAME [options]"
    ip.user_ns["polite"] = len
    assert "no variable politr (did you mean polite?)" in fails("%%rank t --judge $politr\nx\n")


def test_completion_offers_functions_for_a_judge_and_names_of_rankings(ip, tmp_path, monkeypatch):
    from jupyter_gpt.notebook.magics.completion import candidates

    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path))
    (tmp_path / "rankings").mkdir()
    (tmp_path / "rankings" / "taste.jsonl").touch()
    (tmp_path / "rankings" / "taste.questions.json").touch()
    variables = {"polite": len, "docs": ["x"]}

    def offered(line):
        return [text for text, _ in candidates(line, 0, line, variables)[1]]

    assert offered("%%rank t") == ["taste"]
    assert offered("%%rank taste --judge $") == ["$polite"]
    assert "--samples" in offered("%%rank taste --")
