"""Shift+Tab, asked as the kernel asks: the whole cell and where the cursor is."""

from types import SimpleNamespace

import pytest

from jupyter_gpt.notebook.magics import inspection
from jupyter_gpt.notebook.magics.inspection import explained

OPTIONS = "%%prompt m --samples 3 --search bfs --cot --system 'Be very brief.'\nWhat is --samples?"


@pytest.mark.parametrize(
    ("at", "starts"),
    [
        ("%%pro", "%%prompt: ask a model"),
        ("%%prompt m", "  MODEL"),
        ("--sam", "  --samples N"),
        ("--samples 3", "  --samples N"),
        ("--search=b", "  --search bfs|dfs|beam"),
        ("--cot", "  --cot"),
        ("'Be very br", "  --system TEXT"),
    ],
)
def test_a_word_is_explained(at, starts):
    cell = OPTIONS.replace("--search ", "--search=")
    told = explained(cell, cell.index(at) + len(at))
    assert told is not None and told.startswith(starts) and (at == "%%pro" or len(told) < 400)


def test_what_is_wrong_comes_first():
    told = explained("%%prompt m --search bsf", 23)
    assert told.startswith("%%prompt --search: expected bfs or dfs or beam, got 'bsf'")
    assert "  --search bfs|dfs|beam" in told
    assert explained("%%prompt --smaples 3", 14) == "%%prompt has no option --smaples (did you mean --samples?)"
    assert explained("%%sft --help", 10).startswith("%%sft: finetune")


def test_lines_of_verbs():
    cell = "x = 1\nrun = %gpt show tale --tokens"
    assert explained(cell, len(cell)).startswith("  --tokens")
    assert explained(cell, cell.index("show") + 1).startswith("%gpt show: ")


def test_silent_elsewhere():
    for cell, at in [(OPTIONS, OPTIONS.index("What") + 12), ("%%time\nx", 3), ("%gpt nonsense x", 10), ("print(x)", 4)]:
        assert explained(cell, at) is None


def test_the_kernel_answers_and_forgets():
    class Kernel:
        def do_inspect(self, code, cursor_pos, detail_level=0, omit_sections=()):
            return f"usual {code} {detail_level}"

    shell = SimpleNamespace(kernel=Kernel())
    inspection.load(shell)
    reply = shell.kernel.do_inspect("%%prompt --cot", 12, 0)
    assert reply["found"] and reply["data"]["text/plain"].startswith("  --cot")
    assert shell.kernel.do_inspect("len", 2, 1) == "usual len 1"
    inspection.unload(shell)
    assert shell.kernel.do_inspect("%%prompt --cot", 12) == "usual %%prompt --cot 0"
