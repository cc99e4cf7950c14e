"""`%gpt pull`, `load`, `unload` and `save` on the real session: what they say, and that they can be run again."""

import shutil

import pytest
from IPython.core.completer import provisionalcompleter


@pytest.fixture
def run(ip, tmp_path, monkeypatch, tiny_model):
    """Runs cells where `./fox` is a folder of a tiny assistant; gives the notebook's variables."""
    from jupyter_gpt.session import Session

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "elsewhere"))
    folder = tiny_model(Session(), "fox", chat=True).folder
    shutil.copytree(folder, tmp_path / "fox", ignore=shutil.ignore_patterns("jupyter_gpt.json"))
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("jupyter_gpt.gpt", Session(), raising=False)

    def run(*cells: str) -> dict:
        for cell in cells:
            ip.run_cell(cell).raise_error()
        return ip.user_ns

    return run


LIFE = (
    "%gpt pull ./fox --name reynard --out m",
    "%gpt load reynard --dtype bfloat16",
    "%gpt models",
    "%gpt unload reynard",
    "%gpt unload reynard",
    "%gpt save reynard ./mine --out where",
)


def test_the_life_of_a_model_twice(run, shown, capsys, tmp_path):
    names = run(*LIFE)
    first, said = list(shown), capsys.readouterr().out
    assert first[0].startswith("reynard: assistant model, ") and ", licence not stated\nfrom «" in first[0]
    assert "reynard" in first[1] and "cpu, bfloat16" in first[1]
    assert first[2].startswith("reynard is no longer in memory: «") and first[2].endswith("» freed")
    lines = said.splitlines()
    assert lines == ["reynard is in memory, bfloat16 on cpu", "reynard was not in memory", "reynard is in ./mine"]
    assert (names["m"].name, names["where"]) == ("reynard", tmp_path / "mine")
    run(*LIFE)
    assert shown == first * 2 and capsys.readouterr().out == said


def test_weights_that_a_variable_holds_are_told(run, shown):
    run("%gpt pull ./fox", "%gpt load fox --out m", "module = m.module")
    run("%gpt unload fox")
    assert "a variable of the notebook still holds its weights" in shown[-1]


def test_mistakes_are_one_line(run, fails):
    run("%gpt pull ./fox")
    assert fails("%gpt pull") == "%gpt pull requires SOURCE: %gpt pull SOURCE [options]"
    assert "did you mean smollm2-135m-instruct?" in fails("%gpt pull smollm2-135m-instruc")
    assert fails("%gpt load foxx") == "there is no model foxx (did you mean fox?)"
    assert "float32 or bfloat16 or float16 or int8 or int4" in fails("%gpt load fox --dtype int3")
    assert "is not there" in fails("%gpt pull ./hen")


def test_the_catalogue_completes(run, ip):
    run("%gpt pull ./fox")

    def offered(cell: str) -> list[str]:
        with provisionalcompleter():
            return [c.text for c in ip.Completer.completions(cell, len(cell)) if c._origin == "jupyter_gpt"]

    assert {"smollm2-135m", "smollm2-135m-instruct"} <= set(offered("%gpt pull smollm2-135"))
    assert offered("%gpt unload f") == ["fox"]
