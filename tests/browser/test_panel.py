"""The GPT panel in JupyterLab: what it says of a kernel, what its buttons do, and how it comes back by itself."""

from __future__ import annotations

TRAIN = (
    "%%pretrain tale --background --depth 1 --width 32 --heads 2 --context 32 --batch-tokens 128 --tokenizer char "
    "--steps 100000 --sample-every 100000 --eval-every 100000\nstories: 1"
)
BLOCK = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.05)"


def execute(notebook, code: str) -> None:
    """Runs code in the kernel, without waiting for it."""
    kernel = "window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel"
    notebook.page.evaluate(f"code => {{ {kernel}.requestExecute({{ code }}); }}", code)


def open_panel(notebook):
    notebook.command("jupyter-gpt:open-panel")
    panel = notebook.page.get_by_role("region", name="GPT panel")
    panel.wait_for(timeout=20_000)
    return panel


def test_a_run_in_the_panel_through_reload_restart_and_kill(open_notebook, lab):
    notebook = open_notebook("%load_ext jupyter_gpt", TRAIN, BLOCK)
    panel = open_panel(notebook)
    panel.get_by_text("This kernel has not loaded jupyter_gpt").wait_for(timeout=20_000)
    assert panel.locator("pre").inner_text() == "%load_ext jupyter_gpt"

    notebook.run_all()
    panel.locator(".jp-gpt-chip", has_text="running").wait_for(timeout=90_000)
    page = notebook.page
    page.locator(".jp-gpt-status", has_text="tale · step").wait_for(timeout=90_000)
    assert panel.locator(".jp-gpt-curve path").get_attribute("d")
    assert panel.get_by_role("progressbar", name="Steps of tale").is_visible()

    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    panel = open_panel(notebook)
    panel.get_by_role("button", name="Pause tale").click(timeout=60_000)
    panel.get_by_role("button", name="Continue tale").click()
    panel.get_by_role("button", name="Stop tale").click()
    panel.locator(".jp-gpt-chip", has_text="stopped").wait_for(timeout=60_000)
    for _ in range(100):  # each message of the panel makes JupyterLab show "idle" for a moment
        if notebook.kernel_status() == "busy":
            break
        page.wait_for_timeout(100)
    else:
        raise AssertionError("the cell had ended, so the clicks prove nothing")
    assert page.locator(".jp-gpt-status", has_text="tale").count() == 0
    panel.get_by_text("Models in memory").wait_for(timeout=20_000)
    panel.get_by_role("button", name="Show tale").click()
    page.locator(".jp-gpt-report", has_text="tale: pretrain, stopped").wait_for(timeout=60_000)
    page.get_by_role("tab", name=notebook.path.name).click()

    panel.get_by_role("button", name="Take tale out of memory").click()
    panel.get_by_text("Models on disk").wait_for(timeout=60_000)
    (lab.root / "go").touch()
    notebook.wait_idle()
    execute(notebook, "import os; os.kill(os.getpid(), 9)")
    page.get_by_role("dialog").get_by_role("button", name="Ok").click(timeout=60_000)
    panel.get_by_text("This kernel has not loaded jupyter_gpt").wait_for(timeout=60_000)
    execute(notebook, "%load_ext jupyter_gpt")
    panel.locator(".jp-gpt-chip", has_text="stopped").wait_for(timeout=60_000)

    page.evaluate("window.jupyterapp.shell.currentWidget.context.sessionContext.restartKernel()")
    panel.get_by_text("This kernel has not loaded jupyter_gpt").wait_for(timeout=60_000)
    execute(notebook, "%load_ext jupyter_gpt")
    panel.get_by_role("button", name="Delete run tale").click(timeout=60_000)
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    assert (lab.root / ".jupyter_gpt" / "runs" / "tale").exists()
    panel.get_by_role("button", name="Delete run tale").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    panel.locator(".jp-gpt-curve").wait_for(state="detached", timeout=90_000)
    assert not (lab.root / ".jupyter_gpt" / "runs" / "tale").exists()
    assert (lab.root / ".jupyter_gpt" / "models" / "tale").exists()
