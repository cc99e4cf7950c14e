"""The arena in JupyterLab: votes by keys alone, and a leaderboard when the last is given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from jupyter_gpt.report.report import MIME

SETUP = """import os; os.environ["JUPYTER_GPT_HOME"] = {home!r}
import jupyter_gpt
from fake_rank import Session
jupyter_gpt.gpt = Session("base", "assistant", "aligned")
questions = ["Tell me about the fox.", "What is two and two?", "Why was Anna sad?"]
%load_ext jupyter_gpt"""


def test_keys_vote_and_the_last_vote_brings_the_leaderboard(lab, open_notebook, tmp_path):
    shutil.copy(Path(__file__).with_name("fake_rank.py"), lab.root)
    cells = SETUP.format(home=str(tmp_path / "home")), "%gpt arena base assistant aligned --prompts $questions"
    notebook = open_notebook(*cells)
    notebook.run_all()
    page = notebook.page
    page.locator(".gpt-rank").wait_for()
    notebook.wait_idle()
    assert page.get_by_text("0 ranked, 8 missing · 1 with identical completions").count() == 1
    assert page.get_by_text("Elo", exact=True).count() == 0
    page.locator(".gpt-rank").focus()
    for vote in range(1, 8):
        page.keyboard.press("210"[vote % 3])
        page.get_by_text(f"{vote} ranked, {8 - vote} missing").wait_for()
    page.keyboard.press("1")
    page.get_by_text("8 ranked, 0 missing").wait_for()
    page.locator(".gpt-rank").wait_for(state="detached")
    page.get_by_text("Elo", exact=True).wait_for()
    votes = (tmp_path / "home" / "rankings" / "arena-base-assistant-aligned.jsonl").read_text().splitlines()
    assert len(votes) == 8 and sum(len(json.loads(vote)["order"]) == 1 for vote in votes) == 2
    outputs = [set(output["data"]) for output in notebook.saved()["cells"][1]["outputs"]]
    assert outputs == [{"text/plain", "text/html", MIME}]
