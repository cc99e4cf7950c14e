"""The reference notebook says what `--help` says, and is current."""

import json
import re

import pytest

from helpers import reference
from jupyter_gpt.notebook.magics.cells import CELLS
from jupyter_gpt.notebook.magics.options import help_text
from jupyter_gpt.notebook.magics.verbs import VERBS
from jupyter_gpt.stages.sft import SFT


def test_it_is_current():
    kept = reference.NOTEBOOK.read_text(encoding="utf-8")
    if kept != reference.notebook():
        pytest.fail(f"notebooks/reference.ipynb is not current: {reference.COMMAND} writes it again", pytrace=False)


def test_every_magic_and_every_option_of_its_help_is_there():
    pages = {}
    for cell in json.loads(reference.notebook())["cells"]:
        text = "".join(cell["source"])
        pages[text.partition("\n")[0]] = text
    for magic in (*CELLS.values(), *VERBS.values()):
        page = pages[f"## {magic.COMMAND.name.lstrip('%')}"]
        helped = re.findall(r"^  (--[\w-]+)", help_text(magic.COMMAND), re.MULTILINE)
        assert set(helped) == set(re.findall(r"^\| `(--[\w-]+)", page, re.MULTILINE)), magic.COMMAND.name
        assert f"(#{magic.COMMAND.name.lstrip('%').replace(' ', '-')})" in pages["# Reference"]


def test_an_option_has_its_type_default_and_bounds():
    page = reference.page(SFT)
    assert "| `--base MODEL` | text | required |  | the model to start from |" in page
    assert "| `--held-out SHARE` | number | 0.05 | ≥\N{NO-BREAK SPACE}0, \\<\N{NO-BREAK SPACE}1 | share of" in page
    assert "| `--train-on` | `assistant` or `all` | assistant |" in page
    assert "| `--detach` | switch |  |  | train in a process" in page and "`%gpt show NAME`" not in page


def test_markup_in_a_description_is_escaped():
    assert reference.markdown("a $variable | --step, {name} of *x* <b>") == (
        "a `$variable` \\| `--step`, `{name}` of \\*x\\* \\<b\\>"
    )
    assert reference.markdown('"A|B" or `a|b`') == '"A\\|B" or `a\\|b`'
