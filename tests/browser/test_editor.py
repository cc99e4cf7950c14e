"""The cells of our magics in JupyterLab's editor: their colours, what is underlined, help, and the completer."""

from __future__ import annotations

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


def test_magics_in_the_editor(open_notebook):
    notebook = open_notebook(*CELLS)
    page = notebook.page
    cell = page.locator(".jp-Cell").nth
    line = lambda number, place=0: cell(number).locator(".cm-line").nth(place)  # noqa: E731

    # with no package in the kernel
    line(PROMPT).locator("span", has_text="%%prompt").wait_for(timeout=20_000)
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
    page.locator(".jp-gpt-wrong").first.wait_for(timeout=60_000)
    assert page.locator(".jp-gpt-wrong").all_inner_texts() == ["--stepz", "gpt9"]
    page.get_by_text("--stepz", exact=True).hover()
    page.get_by_text("%%pretrain has no option --stepz (did you mean --steps?)").wait_for(timeout=20_000)
    page.get_by_text("--base", exact=True).hover()
    page.locator(".jp-gpt-help", has_text="the model").wait_for(timeout=20_000)

    # the completer, as one types
    line(SFT).click()
    page.keyboard.press("End")
    page.keyboard.type(" --epo")
    page.locator(".jp-Completer-item", has_text="--epochs").wait_for(timeout=20_000)
    page.keyboard.press("Enter")
    assert line(SFT).inner_text() == "%%sft a --base tale --epochs"
    assert page.locator(".jp-gpt-wrong").all_inner_texts() == ["--stepz", "gpt9"]  # its value may be about to be typed

    # another language at once, and back
    line(PYTHON).click()
    page.keyboard.press("Control+Home")
    page.keyboard.type("%%rag docs\n")
    assert "for" not in colours(notebook, PYTHON)
    page.keyboard.press("Control+z")
    while not line(PYTHON).inner_text().startswith("for"):
        page.keyboard.press("Control+z")
    assert "for" in colours(notebook, PYTHON)
