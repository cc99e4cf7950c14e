"""Options are said once: each field of a stage is in its `--help`, its signature, its docstring and its recipe."""

import inspect
import re
import typing

import pytest

from jupyter_gpt import gpt
from jupyter_gpt.errors import GPTError, in_magic
from jupyter_gpt.notebook.magics.cells import CELLS
from jupyter_gpt.notebook.magics.options import help_text, parse
from jupyter_gpt.notebook.magics.verbs import VERBS
from jupyter_gpt.options import NAMES

MAGICS = [*(CELLS[name] for name in ("pretrain", "sft", "classify", "rlhf")), VERBS["reward"]]
each_stage = pytest.mark.parametrize("magic", MAGICS, ids=[magic.stage for magic in MAGICS])


@each_stage
def test_every_field_has_a_description_and_is_in_the_help_and_the_signature(magic):
    stage, text = magic.options, help_text(magic.COMMAND)
    signature = inspect.signature(getattr(gpt, magic.stage))
    for name, field in stage.model_fields.items():
        only = stage.details(name).get("only")
        assert field.description and stage.hints()[name] is not None, name
        flag = name.upper() if stage.details(name).get("place") else f"--{name.replace('_', '-')}"
        assert bool(re.search(rf"\n  {flag}( |\n)", text)) == (only != "python"), name
        assert (name in signature.parameters) == (only != "magic"), name
        if name in signature.parameters:
            default = signature.parameters[name].default
            assert default == (inspect.Parameter.empty if field.is_required() else field.default), name
            assert f"    {name}: " in getattr(gpt, magic.stage).__doc__
    assert "--" not in getattr(gpt, magic.stage).__doc__.partition("Args:")[2], "Python has no flags"


@each_stage
def test_the_recipe_has_every_option_that_decides_numbers(magic):
    stage = magic.options
    recipe = next(
        value
        for value in vars(inspect.getmodule(stage)).values()
        if isinstance(value, type) and issubclass(value, stage) and value is not stage
    )
    outside = set(NAMES)
    kept = {name for name in stage.model_fields if name not in outside and stage.details(name).get("recipe", True)}
    assert kept <= recipe.kept() and not outside & recipe.kept()


@each_stage
def test_out_of_bounds_is_one_line_that_names_the_option(magic):
    stage, hints = magic.options, magic.options.hints()
    numbers = {
        name
        for name in stage.model_fields
        if {int, float} & {hints[name], *typing.get_args(hints[name])} and bool not in typing.get_args(hints[name])
    }
    assert numbers
    needed = {name: "x" for name, field in stage.model_fields.items() if field.is_required()}
    for name in numbers:
        for value in (-1, "3", float("nan")):
            with pytest.raises(GPTError) as caught:
                stage.of(**{**needed, name: value})
            assert name in str(caught.value) or f"--{name.replace('_', '-')}" in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.python_messages
def test_messages_name_options_as_they_were_given():
    with pytest.raises(GPTError, match=r"^batch_tokens=0 must be above zero$"):
        gpt.sft("a", [("x", "y")], "nobody", batch_tokens=0)
    with pytest.raises(GPTError, match=r"^--batch-tokens 0 must be above zero$"), in_magic():
        gpt.sft("a", [("x", "y")], "nobody", batch_tokens=0)
    with pytest.raises(GPTError, match=r"steps= and epochs= both set the length of the run: give one"):
        gpt.classify("a", "good\tx", "nobody", steps=1, epochs=2)
    with pytest.raises(GPTError, match=r"gpt.pretrain has no option n_layer \(did you mean depth\?\)"):
        gpt.pretrain("a", {"stories": 1}, n_layer=2)
    with pytest.raises(GPTError, match=r"%%rlhf requires --policy|policy="):
        gpt.rlhf("a", ["Why?"])


@pytest.mark.parametrize("magic", [CELLS["pretrain"], VERBS["arena"]], ids=["pretrain", "arena"])
def test_prompts_are_texts_a_list_or_the_lines_of_a_file(magic, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("one\n\n two \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "empty.txt").write_text("\n")

    def prompts(words: str) -> list[str]:
        return parse(magic.COMMAND, f"a --prompts {words}", {"texts": ("one", "two"), "none": []})["prompts"]

    assert prompts('"one" "two"') == prompts("$texts") == prompts("p.txt") == ["one", "two"]
    assert prompts('"p.txt" p.txt three') == ["p.txt", "one", "two", "three"]
    for words, message in [
        ("nowhere.txt", "No such file"),
        ("latin.txt", "not UTF-8 text: byte 3"),
        ("empty.txt", "is empty"),
        ("$none", "the variable none is empty"),
    ]:
        with pytest.raises(GPTError, match=f"--prompts: .*{message}"):
            prompts(words)


def test_lines_parse_as_the_fields_say():
    given = parse(
        CELLS["sft"].COMMAND, "a --base b --lora-targets q_proj,k_proj --dora --checkpointing off --lr 3e-4 --tokens 1M"
    )
    assert given == {
        "name": "a",
        "base": "b",
        "lora_targets": ["q_proj", "k_proj"],
        "dora": True,
        "checkpointing": False,
        "lr": 3e-4,
        "tokens": 1_000_000,
    }
    polite = len
    given = parse(
        CELLS["rlhf"].COMMAND, "a --policy b --reward $polite judge --reward-weights 1 0.5", {"polite": polite}
    )
    assert given["reward"] == [polite, "judge"] and given["reward_weights"] == [1.0, 0.5]
