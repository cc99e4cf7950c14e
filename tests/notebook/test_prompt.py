"""`%%prompt` and `%gpt show last` in a shell, on a real session with tiny models."""

import sys
from inspect import signature

import pytest

import jupyter_gpt
from jupyter_gpt.notebook.magics.cells import CELLS


@pytest.fixture
def gpt(gpt, tiny_model):
    tiny_model(gpt, "base", context=512)
    tiny_model(gpt, "chat", chat=True, context=512)
    return gpt


def test_it_asks_shows_and_binds(gpt, succeed, shown):
    names = succeed("%%prompt base --max-tokens 6 --seed 2 --temperature 1 --out done\nThe old fox\n")
    done = names["done"]
    assert done is gpt.last
    assert done.prompt == "<|endoftext|>The old fox"
    assert done.tokens == gpt.prompt("The old fox", model="base", max_tokens=6, seed=2, temperature=1).tokens
    [text] = shown
    assert text.startswith("<|endoftext|>The old fox«")
    assert "base · base model, continuing the document · temperature 1, at most 6 tokens, seed 2" in text


def test_every_option_reaches_the_session(gpt, ip, shown, monkeypatch):
    seen = {}

    def ask(text, on_token, **options):
        seen.update(options, text=text)
        return gpt.real(text, model="chat", dry_run=True)

    gpt.real = gpt.prompt
    monkeypatch.setattr(gpt, "prompt", ask)
    pairs = ip.user_ns["pairs"] = [("1+1", "2")]
    line = (
        "%%prompt chat --samples 3 --temperature 0.5 --top-p 0.9 --top-k 40 --min-p 0.05 --max-tokens 1k "
        r'--min-tokens 2 --stop "\n\n" "Q:" --seed 4 --logprobs 5 --system "Be brief" --history '
        "--as-assistant --few-shot $pairs --truncate --dry-run"
    )
    ip.run_cell(f"{line}\nWhy?\n").raise_error()
    assert seen.pop("few_shot") is pairs
    assert seen == {
        "text": "Why?",
        "model": "chat",
        "samples": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "max_tokens": 1000,
        "min_tokens": 2,
        "stop": ["\n\n", "Q:"],
        "seed": 4,
        "logprobs": 5,
        "system": "Be brief",
        "history": True,
        "as_assistant": True,
        "truncate": True,
        "dry_run": True,
        "variables": ip.user_ns,
    }


def test_the_options_are_those_of_the_session(gpt):
    keywords = signature(gpt.prompt).parameters
    options = {option.key: option for _, group in CELLS["prompt"].COMMAND.groups for option in group}
    only_python = {"text", "variables", "on_token", "on_trace", "person", "lookup"}
    assert set(options) - {"out"} == set(keywords) - only_python


def test_a_dry_run_shows_the_prompt_and_sends_nothing(gpt, succeed, shown, monkeypatch):
    monkeypatch.setattr("jupyter_gpt.inference.engine.generate", lambda *_: pytest.fail("sent"))
    succeed("who = 'Ada'", '%%prompt chat --dry-run --out done\nsystem: Obey.\nuser: Hi {who}, {"a": {"b": 1}}\n')
    [text] = shown
    assert "assistant, asked through its chat template" in text
    assert "nothing was sent" in text
    assert text.endswith('<|system|>Obey.<|end|><|user|>Hi Ada, {"a": {"b": 1}}<|end|><|assistant|>')


def test_the_chat_goes_on(gpt, succeed, shown):
    names = succeed("%%prompt chat --max-tokens 3\nHi", "%%prompt --history --max-tokens 3 --out done\nAnd?")
    assert names["done"].prompt.startswith("<|user|>Hi<|end|><|assistant|>")
    assert names["done"].prompt.endswith("<|end|><|user|>And?<|end|><|assistant|>")


def test_samples_and_alternatives(gpt, succeed, shown):
    succeed("%%prompt base --samples 2 --logprobs 2 --max-tokens 4\nThe")
    assert shown[0].startswith("1.  «")
    assert "\n2.  «" in shown[0]
    assert "nats per token" in shown[0]


def test_show_last(gpt, succeed, shown):
    names = succeed("%%prompt base --max-tokens 4\nThe", "%gpt show last --out last", "%gpt show last --tokens")
    assert names["last"] is gpt.last
    assert shown[1].startswith("exact prompt, special tokens included\n\n<|endoftext|>The\n\nanswer\n\n«")
    assert "tokens/s" in shown[1]
    assert shown[2].startswith("base: ≈")


def test_mistakes(gpt, fails, ip, shown):
    assert fails("%gpt show last") == "nothing was prompted yet: %%prompt asks a model"
    assert fails("%gpt show base --tokens").endswith("%gpt show last --tokens")
    assert fails("%%prompt bas\nHi") == "there is no model bas (did you mean base?)"
    assert fails("%%prompt chat\n") == "the prompt is empty: write the question in the cell, under the magic"
    assert "has no turns" in fails("%%prompt base\nuser: Hi")
    assert "expected a variable" in fails('%%prompt base --few-shot "1+1"\nHi')
    assert fails("%%prompt base --few-shot $nobody\nHi").startswith(
        "%%prompt --few-shot: this notebook has no variable"
    )
    assert (
        fails("%%prompt base --temprature 1\nHi") == "%%prompt has no option --temprature (did you mean --temperature?)"
    )
    assert "--truncate" in fails("%%prompt base\n" + "The old fox. " * 200)
    assert shown == []


def test_no_model_says_how_to_get_one(ip, fails, tmp_path, monkeypatch):
    from jupyter_gpt.session import Session

    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "empty"))
    monkeypatch.setitem(vars(jupyter_gpt), "gpt", Session())
    assert "%gpt pull" in fails("%%prompt\nHi")


def test_a_base_model_may_begin_from_nothing(gpt, succeed, shown):
    names = succeed("%%prompt base --max-tokens 2 --out done")
    assert names["done"].prompt == "<|endoftext|>"


def test_loading_the_magic_imports_no_torch():
    """The door and its help need neither torch nor transformers."""
    import subprocess

    code = (
        "import sys, jupyter_gpt.notebook.magics.cells as c; from jupyter_gpt.notebook.magics.options import "
        "help_text; "
        "help_text(c.CELLS['prompt'].COMMAND); sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bodies_offer_no_sources(ip):
    from jupyter_gpt.notebook.magics.completion import candidates

    assert candidates("%%prompt base\nsto", 1, "sto", {}) == ("sto", [])
    assert ("--temperature", "option") in candidates("%%prompt --te", 0, "%%prompt --te", {})[1]


def test_techniques_from_the_magic(gpt, succeed, shown, tiny_model):
    tiny_model(gpt, "thinker", chat=True, context=400)
    names = succeed(
        "def check(prompt, answer): return answer == 'x' or 'no'",
        "%%prompt thinker --cot --samples 3 --vote --reflect 2 --check $check --max-tokens 6 --max-calls 20 --out "
        "done\nHow?\n",
        "%gpt show last --out last",
        "%%prompt thinker --cot --dry-run\nHow?",
    )
    done = names["done"]
    assert done is names["last"] and len(done.samples) == 3 and done.trace["children"]
    assert "thinker · chain of thought, 3 samples, vote, reflection" in shown[0]
    assert "thinks step by step" in shown[0] and "fails the check" in shown[0] and shown[1] == shown[0]
    assert "nothing was sent" in shown[2] and "Let's think step by step." in shown[2]


def test_values_that_may_be_left_out(gpt, ip, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "jupyter_gpt.notebook.magics.cells.show_trace",
        lambda ask, question, variables, given, acts: seen.append(given),
    )
    for line in (
        "--reflect",
        "--reflect 3",
        "--expert",
        "--expert physics",
        "--reflect --cot",
        "--samples 2 --best-of rm",
    ):
        ip.run_cell(f"%%prompt chat {line}\nWhy?\n").raise_error()
    assert [{k: v for k, v in given.items() if k != "model"} for given in seen] == [
        {"reflect": 1},
        {"reflect": 3},
        {"expert": True},
        {"expert": "physics"},
        {"reflect": 1, "cot": True},
        {"samples": 2, "best_of": "rm"},
    ]


def test_contradictory_techniques(gpt, fails):
    assert "add --samples" in fails("%%prompt chat --vote\nHi")
    assert "add --tree" in fails("%%prompt chat --depth 4\nHi")
    for alone in ("--steps 3", "--approve", "--allow calculator"):
        assert "add --react and --tools" in fails(f"%%prompt chat {alone}\nHi")
    assert "expected a variable" in fails("%%prompt chat --reflect --check len\nHi")
    assert "--search: expected bfs or dfs or beam" in fails("%%prompt chat --tree --search best\nHi")
