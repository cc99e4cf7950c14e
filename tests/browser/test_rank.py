"""The ranking form in JupyterLab: by keys alone, by buttons and by dragging; nothing is lost, not even over a
reload.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from jupyter_gpt.report.report import MIME

SETUP = """import os; os.environ["JUPYTER_GPT_HOME"] = {home!r}
import jupyter_gpt
from fake_rank import Session
jupyter_gpt.gpt = Session()
%load_ext jupyter_gpt"""
CELL = """%%rank taste --model assistant --max-tokens 60
Tell me about the fox.
Why was Anna sad?
Say yes.
What is two and two?"""


@pytest.fixture
def ask(lab, open_notebook, tmp_path):
    """A notebook that ranks, its form waiting; and the file of rankings."""
    shutil.copy(Path(__file__).with_name("fake_rank.py"), lab.root)

    def start(after: str = "after = 1"):
        notebook = open_notebook(SETUP.format(home=str(tmp_path / "home")), CELL, after)
        notebook.run_all()
        notebook.page.locator(".gpt-rank").wait_for()
        notebook.wait_idle()  # the cell waits for nobody
        return notebook, tmp_path / "home" / "rankings" / "taste.jsonl"

    return start


def kept(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def ordered(ranking: dict) -> list[list[str]]:
    """The texts in their order, ties together."""
    texts = [each["text"] for each in ranking["completions"]]
    return [sorted(texts[place] for place in group) for group in ranking["order"]]


def cards(page) -> list[str]:
    """The texts by their numbers, wherever they stand."""
    found = page.locator(".gpt-card").all()
    numbered = {int(c.locator("kbd").inner_text()): c.locator(".gpt-written").inner_text() for c in found}
    return [numbered[number] for number in sorted(numbered)]


def spoken(page) -> str:
    return page.locator(".gpt-rank .gpt-spoken").text_content()


def reach(page) -> None:
    """Goes to the form with the Tab key, from the notebook in command mode."""
    page.locator(".jp-Notebook .jp-Cell .jp-InputPrompt").nth(1).click()
    for _ in range(25):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('gpt-rank')"):
            return
    pytest.fail("the form is not to be reached with the Tab key")


def wait_for_row(page, count: str) -> None:
    page.locator(".gpt-rank .gpt-about", has_text=count).wait_for()


def test_the_keyboard_alone_ranks_over_a_reload_and_nothing_is_lost(ask):
    notebook, file = ask()
    page = notebook.page
    reach(page)
    texts = cards(page)
    assert len(texts) == 4 and "I do not know any <b>fox</b>." in texts, "a model's text was taken for HTML"
    described = "c => document.getElementById(c.getAttribute('aria-describedby')).innerText"
    assert page.locator(".gpt-card").first.evaluate(described) == texts[0], "a screen reader hears a number and no text"
    for key in ("3", "=", "1", "2"):  # 3 and 1 tie, 2 is next, and 4 is left
        page.keyboard.press(key)
    assert spoken(page) == "Completion 2 is rank 3. All are ranked: Enter saves the ranking."
    page.keyboard.press("r")
    page.keyboard.type("3 & 1 <b>tell</b>")
    page.keyboard.press("Enter")
    wait_for_row(page, "2 of 3, 1 ranked")
    [first] = kept(file)
    assert ordered(first) == [sorted([texts[2], texts[0]]), [texts[1]], [texts[3]]]
    assert first["reason"] == "3 & 1 <b>tell</b>" and first["by"] == "person" and first["time"] > 1e9
    assert spoken(page).startswith("1 of 3 ranked. Prompt 2: Why was Anna sad? 3 completions.")

    notebook.saved()
    page.reload()
    page.locator(".gpt-rank").wait_for()
    wait_for_row(page, "2 of 3, 1 ranked")
    assert kept(file) == [first]
    reach(page)
    texts = cards(page)
    assert len(texts) == 3 and any("×2" in text for text in texts), "a text sampled twice is asked about once"
    page.keyboard.press("2")
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    wait_for_row(page, "3 of 3, 2 ranked")
    assert [len(group) for group in kept(file)[1]["order"]] == [1, 2]
    texts = cards(page)
    for key in ("4", "3", "2", "Backspace", "1", "Enter"):
        page.keyboard.press(key)
    page.get_by_text("3 ranked, 0 missing").wait_for()
    page.locator(".gpt-rank").wait_for(state="detached")
    assert ordered(kept(file)[2]) == [[texts[3]], [texts[2]], [texts[0]], [texts[1]]]
    notebook.wait_idle()  # else a key has reached the notebook

    notebook.run_all()
    notebook.wait_idle()
    page.get_by_text("3 ranked, 0 missing").wait_for()
    page.locator(".gpt-rank").wait_for(state="detached")
    assert len(kept(file)) == 3
    saved = notebook.saved()
    [left] = [output["data"] for output in saved["cells"][1]["outputs"]]
    assert set(left) == {"text/plain", "text/html", MIME}
    assert '"time"' not in json.dumps(left[MIME]) and "widgets" not in saved["metadata"]
    assert page.locator(".jp-OutputArea b", has_text=re.compile("^tell$")).count() == 0
    assert len(saved["cells"]) == 3


def test_buttons_rank_move_undo_and_skip_and_only_the_answers_stay(ask):
    notebook, file = ask()
    page = notebook.page
    assert notebook.flaws(".gpt-run") == []
    texts = cards(page)
    keep = page.get_by_role("button", name="Save ranking")
    for number in (2, 1, 4):
        assert keep.is_disabled()
        page.get_by_role("button", name=f"Rank completion {number} next").click()
    page.get_by_role("button", name="Move completion 3 up").click()  # joins 4
    page.get_by_role("button", name="Move completion 3 up").click()  # stands before it
    keep.click()
    wait_for_row(page, "2 of 3, 1 ranked")
    assert ordered(kept(file)[0]) == [[texts[1]], [texts[0]], [texts[2]], [texts[3]]]

    page.get_by_role("button", name="Undo", exact=True).click()
    wait_for_row(page, "1 of 3, 0 ranked")
    assert kept(file) == []
    page.get_by_role("button", name="Tie the rest").click()
    keep.click()
    wait_for_row(page, "2 of 3, 1 ranked")
    page.get_by_role("button", name="Skip").click()
    wait_for_row(page, "3 of 3, 1 ranked")
    page.get_by_role("button", name="Show results").click()
    page.locator(".gpt-rank").wait_for(state="detached")
    page.get_by_text("1 ranked, 2 missing").wait_for()
    assert [len(group) for group in kept(file)[0]["order"]] == [4]
    outputs = [set(output["data"]) for output in notebook.saved()["cells"][1]["outputs"]]
    assert outputs == [{"text/plain", "text/html", MIME}]


def centre(locator) -> tuple[float, float]:
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page, number: int, to: tuple[float, float]) -> None:
    x, y = centre(page.locator(".gpt-card", has=page.locator("kbd", has_text=str(number))).locator(".gpt-grip"))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(*to, steps=6)
    page.mouse.up()
    page.wait_for_function("() => !document.querySelector('.gpt-board').getAnimations({ subtree: true }).length")


def test_dragging_ranks_ties_and_reorders(ask):
    notebook, file = ask()
    page = notebook.page
    texts = cards(page)
    tiers = page.locator(".gpt-tier")
    drag(page, 3, centre(page.locator(".gpt-next")))
    drag(page, 1, centre(page.locator(".gpt-next")))
    assert spoken(page) == "Completion 1 is rank 2. 2 left."
    drag(page, 4, centre(tiers.nth(1)))  # beside 1; so 2 is last
    box = tiers.nth(0).bounding_box()
    drag(page, 2, (box["x"] + 200, box["y"] + 3))  # before the best
    assert spoken(page) == "Completion 2 is rank 1. All are ranked: Enter saves the ranking."
    page.get_by_role("button", name="Save ranking").click()
    wait_for_row(page, "2 of 3, 1 ranked")
    assert ordered(kept(file)[0]) == [[texts[1]], [texts[2]], sorted([texts[0], texts[3]])]


def test_a_ranking_is_kept_while_another_cell_works(ask, tmp_path):
    go = tmp_path / "go"
    go.touch()
    notebook, file = ask(after=f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)")
    page = notebook.page
    go.unlink()
    notebook.command("notebook:run-cell")
    page.wait_for_function("() => document.querySelectorAll('.jp-InputPrompt')[2].innerText.includes('*')")
    page.locator(".gpt-rank").focus()
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    wait_for_row(page, "2 of 3, 1 ranked")
    assert len(kept(file)) == 1 and notebook.running()
    go.touch()


def test_a_ranking_that_is_lost_on_its_way_is_sent_again(ask):
    notebook, file = ask()
    page = notebook.page
    asked, lost = [], []

    def relay(socket) -> None:
        server = socket.connect_to_server()
        server.on_message(socket.send)

        def send(message) -> None:
            if b'"type":"ready"' in message and not asked:
                asked.append(message)
            elif b'"type":"rank"' in message and not lost:
                lost.append(message)
                server.send(asked[0])  # its answer is not one to the ranking
            else:
                server.send(message)

        socket.on_message(send)

    page.route_web_socket("**/channels?*", relay)
    notebook.saved()
    page.reload()
    page.locator(".gpt-rank").wait_for()
    page.get_by_role("button", name="Tie the rest").click()
    page.get_by_role("button", name="Save ranking").click()
    page.locator(".gpt-rank.gpt-slow").wait_for()
    wait_for_row(page, "2 of 3, 1 ranked")
    page.locator(".gpt-rank:not(.gpt-slow)").wait_for()
    assert len(lost) == 1 and len(kept(file)) == 1


def test_a_state_that_comes_late_does_not_take_the_form_back(ask):
    """As JupyterLab sets one that it asked for after a reload, when a click has brought another."""
    notebook, file = ask()
    page = notebook.page
    told = []

    def relay(socket) -> None:
        server = socket.connect_to_server()
        socket.on_message(server.send)

        def hear(message) -> None:
            socket.send(message)
            if b'"heard"' in message and b'"method":"update"' in message.replace(b": ", b":"):
                told.append(message)
                socket.send(told[-2:][0])  # the one before once more

        server.on_message(hear)

    page.route_web_socket("**/channels?*", relay)
    notebook.saved()
    page.reload()
    page.locator(".gpt-rank").wait_for()
    for count in ("2 of 3, 1 ranked", "3 of 3, 2 ranked"):
        page.get_by_role("button", name="Tie the rest").click()
        page.get_by_role("button", name="Save ranking").click()
        wait_for_row(page, count)
    assert len(kept(file)) == 2 and len(told) > 2


TRAINED = """import os; os.environ["JUPYTER_GPT_HOME"] = {home!r}
%load_ext jupyter_gpt
from jupyter_gpt import gpt
shape = dict(tokenizer="char", depth=1, width=32, context=64, batch_tokens=512, rows=4, steps=4)
tales = ["the fox sat on a box %d and sang" % i for i in range(400)]
gpt.pretrain("fox", {{"$tales": 1}}, variables={{"tales": tales}}, **shape);"""
FOUR = """%%rank taste --model fox --samples 3 --max-tokens 12 --temperature 1
the fox
on a box
and sang
a fox sat"""
REWARD = """%gpt reward judge --rankings taste --base fox --steps 6 --out judge
print("scored", round(judge.score("the fox", " sat"), 6))"""


def test_rankings_given_by_keys_over_a_reload_train_a_reward_model(lab, open_notebook, tmp_path):
    notebook = open_notebook(TRAINED.format(home=str(tmp_path / "home")), FOUR, REWARD)
    page, file = notebook.page, tmp_path / "home" / "rankings" / "taste.jsonl"
    notebook.run_all()
    page.locator(".gpt-rank").wait_for()
    page.get_by_text("rankings taste: 0 are there, 4 are needed, 4 missing").wait_for()
    notebook.wait_idle()
    reach(page)
    for row, keys in ((2, "21"), (3, "213")):  # 3 is last by itself, and stays there for whoever says so too
        for key in (*keys, "Enter"):
            page.keyboard.press(key)
        wait_for_row(page, f"{row} of 4, {row - 1} ranked")
    assert len(kept(file)) == 2

    notebook.saved()
    page.reload()
    page.locator(".gpt-rank").wait_for()
    wait_for_row(page, "3 of 4, 2 ranked")
    reach(page)
    for ranked in (3, 4):
        for key in ("3", "1", "Enter"):
            page.keyboard.press(key)
        if ranked == 3:
            wait_for_row(page, "4 of 4, 3 ranked")
    page.get_by_text("4 ranked, 0 missing").wait_for()
    given = kept(file)
    assert [len(ranking["order"]) for ranking in given] == [3] * 4

    notebook.run_all()  # the model is trained again, the same; so the questions are, and nothing is asked
    notebook.wait_idle()
    page.get_by_text("4 ranked, 0 missing").first.wait_for()
    page.locator(".jp-OutputArea", has_text="scored").first.wait_for()
    assert kept(file) == given
    printed = [o["text"] for o in notebook.saved()["cells"][2]["outputs"] if o["output_type"] == "stream"]
    assert any("scored" in "".join(text) for text in printed)
