"""The cells of our magics in JupyterLab's editor: their colours, what is underlined, help, and the completer."""

from __future__ import annotations

from browser.conftest import wait_until

CELLS = (
    "%load_ext jupyter_gpt",
    "%%prompt m --system 'Be brief.'\nuser: Explain {topic} for one",
    "%%pretrain tale --stepz 5 --arch gpt9\nstories: 3",
    "%%sft a --base tale\nuser: Who?\nassistant: The hen.",
    "for x in y:\n    %gpt show tale --tokens\n    print(x)",
)
PROMPT, PRETRAIN, SFT, PYTHON = 1, 2, 3, 4


def colours(notebook, number: int) -> dict[str, str]:
    """The colour of each text of a cell that has one."""
    script = "nodes => nodes.map(node => [node.textContent, getComputedStyle(node).color])"
    return dict(notebook.page.locator(".jp-Cell").nth(number).locator(".cm-line span").evaluate_all(script))


def comes(page, shown) -> bool:
    """Whether it is seen soon."""
    for _ in range(30):
        if shown.is_visible():
            return True
        page.wait_for_timeout(50)
    return False


def hover_until_helped(page, word: str, help: str) -> None:
    """Moves the mouse over a word, again where the kernel had not yet said what it means."""
    shown = page.locator(".jp-gpt-help", has_text=help)
    for _ in range(20):
        page.get_by_text(word, exact=True).hover()
        if comes(page, shown):
            return
        page.mouse.move(0, 0)
    raise AssertionError(f"no help over {word}")


def type_until_completed(page, text: str, offered: str) -> None:
    """Types, the last letter again where the kernel answered too late for JupyterLab's completer."""
    page.keyboard.type(text)
    item = page.locator(".jp-Completer-item", has_text=offered)
    for _ in range(20):
        if comes(page, item):
            return
        page.keyboard.press("Backspace")
        page.keyboard.type(text[-1])
    raise AssertionError(f"{offered} was not offered after {text}")


def test_magics_in_the_editor(open_notebook):
    notebook = open_notebook(*CELLS)
    page = notebook.page
    cell = page.locator(".jp-Cell").nth
    line = lambda number, place=0: cell(number).locator(".cm-line").nth(place)  # noqa: E731

    # with no package in the kernel
    line(PROMPT).locator("span", has_text="%%prompt").wait_for()
    prompt, pretrain, sft, python = (colours(notebook, number) for number in (PROMPT, PRETRAIN, SFT, PYTHON))
    magic = prompt["%%prompt"]
    assert magic == prompt["user:"] == sft["%%sft"] == sft["assistant:"] == python["for"] == python["%gpt"]
    assert prompt["--system"] == python["--tokens"] != magic
    assert "for" not in prompt and len({prompt["'Be brief.'"], prompt["{topic}"], pretrain["5"], magic}) == 3 + (
        pretrain["5"] != magic
    )
    assert {"stories", "3"} <= pretrain.keys()
    assert page.locator(".jp-gpt-wrong").count() == 0
    notebook.theme(dark=True)
    assert colours(notebook, PROMPT)["%%prompt"] != magic
    notebook.theme(dark=False)

    # help, from the kernel
    notebook.run_all()
    page.locator(".jp-gpt-wrong", has_text="gpt9").wait_for()
    assert page.locator(".jp-gpt-wrong").all_inner_texts() == ["--stepz", "gpt9"]
    hover_until_helped(page, "--stepz", "%%pretrain has no option --stepz (did you mean --steps?)")
    hover_until_helped(page, "--base", "the model")

    # the completer, as one types
    line(SFT).click()
    page.keyboard.press("End")
    type_until_completed(page, " --epo", "--epochs")
    page.keyboard.press("Enter")
    wait_until(lambda: line(SFT).inner_text() == "%%sft a --base tale --epochs", 60, "what was chosen to stand there")
    assert page.locator(".jp-gpt-wrong").all_inner_texts() == ["--stepz", "gpt9"]  # its value may be about to be typed

    # the same help by the keyboard, and a line that ends where its last word is whole
    page.keyboard.press("Shift+Tab")
    page.locator(".jp-Tooltip", has_text="--epochs N").wait_for()
    line(SFT).click()
    page.keyboard.press("End")
    type_until_completed(page, " 2 --background", "--background")
    page.keyboard.press("Enter")
    wait_until(lambda: line(SFT).inner_text().endswith(" --epochs 2 --background"), 60, "the line to end there")
    assert line(SFT, 2).inner_text() == "user: Who?"

    # another language at once, and back
    line(PYTHON).click()
    page.keyboard.press("Control+Home")
    page.keyboard.type("%%rag docs\n")
    assert "for" not in colours(notebook, PYTHON)
    page.keyboard.press("Control+z")
    while not line(PYTHON).inner_text().startswith("for"):
        page.keyboard.press("Control+z")
    assert "for" in colours(notebook, PYTHON)
