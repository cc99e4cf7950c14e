from pathlib import Path

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.lexer import number, whole
from jupyter_gpt.notebook.magics.options import OUT, Command, Option, help_text, parse

COMMAND = Command(
    "%%make",
    "make something",
    "It makes what it is told.",
    (
        ("What", (Option("NAME", "its name", needed=True), Option("OTHER", "another"))),
        (
            "How",
            (
                Option("--steps", "optimizer steps", "N", whole),
                Option("--background", "return at once; a later cell that needs the model waits for it", kind=None),
                OUT,
                Option("--lr", "the rate", "X", number, default=0.02),
                Option("--arch", "the kind", choices=("llama", "gpt2")),
                Option("--prompts", "texts", "TEXT", many=True),
                Option("--batch-tokens", "tokens a step", "N", whole),
            ),
        ),
    ),
    body="source: weight",
    examples=("%%make it",),
)


def test_only_what_was_given_comes_out():
    assert parse(COMMAND, "tale") == {"name": "tale"}
    line = "tale --steps 2k --background --lr=3e-4 --arch gpt2 --batch-tokens 1_024 --out m"
    assert parse(COMMAND, line) == {
        "name": "tale",
        "steps": 2000,
        "background": True,
        "lr": 3e-4,
        "arch": "gpt2",
        "batch_tokens": 1024,
        "out": "m",
    }


def test_many_values_go_up_to_the_next_option():
    assert parse(COMMAND, 'x --prompts "Once upon" 2+2= "--steps" --steps 5 --prompts again') == {
        "name": "x",
        "prompts": ["Once upon", "2+2=", "--steps", "again"],
        "steps": 5,
    }


def test_variables_are_looked_up_unless_quoted():
    names = {"n": 7, "texts": ["a", "b"], "rate": 0.5, "_hidden": 1}
    assert parse(COMMAND, "x --steps $n --lr $rate --prompts $texts '$n' $5", names) == {
        "name": "x",
        "steps": 7,
        "lr": 0.5,
        "prompts": ["a", "b", "$n", "$5"],
    }
    assert parse(COMMAND, "x --prompts $texts") == {"name": "x", "prompts": ["$texts"]}
    with pytest.raises(GPTError, match=r"--prompts: this notebook has no variable text \(did you mean texts\?\)"):
        parse(COMMAND, "x --prompts $text", names)
    with pytest.raises(GPTError, match=r"--steps: expected a whole number .*, got \"\['a', 'b'\]\""):
        parse(COMMAND, "x --steps $texts", names)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "%%make requires NAME: %%make NAME [OTHER] [options]"),
        ("x --stepz 5", "%%make has no option --stepz (did you mean --steps?)"),
        ("x --step 5", "%%make has no option --step (did you mean --steps?)"),
        ("x -s 5", "%%make has no option -s"),
        ("x --learning-rate 5", "%%make has no option --learning-rate (did you mean --lr?)"),
        ("x --num-iterations 5", "%%make has no option --num-iterations (did you mean --steps?)"),
        ("x --back", "%%make has no option --back (did you mean --background?)"),
        ("x --depth 5", "%%make has no option --depth (there is --arch, --background, --batch-tokens, --lr, --out, "),
        ("x --batch 5", "%%make has no option --batch (did you mean --batch-tokens?)"),
        ("x --steps", "%%make --steps requires a value: --steps N"),
        ("x --steps --background", "%%make --steps requires a value: --steps N"),
        (
            "x --steps many",
            "%%make --steps: expected a whole number (such as 1000, 1_000_000, 50k, 1e6), got 'many'",
        ),
        ("x --steps -5", "%%make --steps: expected a whole number (such as 1000, 1_000_000, 50k, 1e6), got '-5'"),
        ("x --lr fast", "%%make --lr: expected a number (such as 0.02, 3e-4, 1.5), got 'fast'"),
        ("x --arch lama", "%%make --arch: expected llama or gpt2, got 'lama' (did you mean llama?)"),
        ("x --steps 5 --steps 6", "%%make --steps is given twice"),
        ("x --background=yes", "%%make --background takes no value"),
        ("x y z", "%%make: unexpected argument 'z' (several words need quotes)"),
        ("x --out 2a", "%%make --out: expected the name of a Python variable, got '2a'"),
    ],
)
def test_mistakes_are_one_line_that_helps(line, message):
    with pytest.raises(GPTError) as caught:
        parse(COMMAND, line)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["--help", "-h", "x --steps nonsense --help"])
def test_help_is_printed_and_nothing_runs(line, capsys):
    assert parse(COMMAND, line) is None
    assert capsys.readouterr().out == help_text(COMMAND) + "\n"


def test_quoted_help_is_a_text(capsys):
    assert parse(COMMAND, 'x --prompts "--help"')["prompts"] == ["--help"]
    assert capsys.readouterr().out == ""


def test_the_manual_page():
    assert (
        help_text(COMMAND)
        == """%%make: make something

    %%make NAME [OTHER] [options]
    source: weight
    …

It makes what it is told.

What
  NAME                    its name
  OTHER                   another

How
  --steps N               optimizer steps
  --background            return at once; a later cell that needs the model waits for it
  --out VAR               bind the result to this variable of the notebook
  --lr X                  the rate (default: 0.02)
  --arch llama|gpt2       the kind
  --prompts TEXT …        texts
  --batch-tokens N        tokens a step

Body
  source: weight

Examples
  %%make it"""
    )


def test_expressions_and_names_are_expanded_on_the_lines_of_gpt(ip):
    from jupyter_gpt.notebook.magics.verbs import command

    names = {"best": "fox", "runs": ["owl", "hen"], "lr": 0.25, "step": 40, "folder": Path("/data")}

    def parsed(verb, line):
        return parse(command(verb), line, names)

    assert parsed("resume", "{best} --steps 120") == {"name": "fox", "steps": 120}
    assert parsed("resume", "{runs[1].upper()} --steps {step + 2}") == {"name": "HEN", "steps": 42}
    assert (
        parsed("resume", "$best")["name"] == "fox" and parsed("resume", "tale-$best-{lr*2}")["name"] == "tale-fox-0.5"
    )
    assert parsed("save", "fox --gguf $folder/{best}.gguf")["gguf"] == "/data/fox.gguf"
    quoted = 'cot --part trigger --text "Well, {question} for $best"'
    assert parsed("config", f"template {quoted}")["text"] == "Well, {question} for $best"
    assert parsed("resume", "{{best}}")["name"] == "{best}"
    with pytest.raises(GPTError, match=r"%gpt resume: this notebook has no variable bets .did you mean best"):
        parsed("resume", "{bets}")
    with pytest.raises(GPTError, match=r"%gpt resume: {runs.7.}: IndexError"):
        parsed("resume", "{runs[7]}")
    assert parse(COMMAND, "{best}", names) == {"name": "{best}"}, "cells have their bodies"
