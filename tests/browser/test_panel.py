"""The GPT panel in JupyterLab: what it says of a kernel, what its buttons do, and how it comes back by itself."""

from __future__ import annotations

import shutil
import urllib.request

from browser.conftest import wait_until

TRAIN = (
    "%%pretrain tale --background --depth 1 --width 32 --heads 2 --context 32 --batch-tokens 128 --tokenizer char "
    "--steps 100000 --sample-every 100000 --eval-every 100000\nstories: 1"
)
BLOCK = """
import pathlib, time
while not pathlib.Path("go").exists():
    time.sleep(0.05)
pathlib.Path("ended").touch()
"""


def execute(notebook, code: str) -> None:
    """Runs code in the kernel, without waiting for it."""
    kernel = "window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel"
    notebook.page.evaluate(f"code => {{ {kernel}.requestExecute({{ code }}); }}", code)


def open_panel(notebook):
    notebook.command("jupyter-gpt:open-panel")
    panel = notebook.page.get_by_role("region", name="GPT panel")
    panel.wait_for()
    return panel


OTHER_VERSION = """
from comm import create_comm
from jupyter_gpt.notebook.panel import ID
def answer(message):
    request = message["content"]["data"]
    comm.send({"id": request["id"], "type": request["type"], "state": {"version": "0.0.9", "models": []}})
comm = create_comm(target_name=ID, comm_id=ID, primary=False)
comm.handle_msg = answer
get_ipython().kernel.comm_manager.register_comm(comm)
get_ipython().kernel.comm_manager.register_target(ID, lambda *_: None)
"""
OPEN = """([path, kernel, canStart]) => window.jupyterapp.commands.execute("docmanager:open", {
    path, kernel, kernelPreference: canStart ? undefined : { canStart, shouldStart: false } })"""
KERNEL = "window.jupyterapp.shell.currentWidget.context.sessionContext.session?.kernel"


def open_beside(notebook, name: str, kernel: dict | None = None, can_start: bool = True) -> None:
    """Another notebook, with a kernel of its own unless that is given."""
    path = notebook.path.with_name(f"{name}.ipynb")
    path.write_text(notebook.path.read_text())
    notebook.page.evaluate(OPEN, [path.name, kernel, can_start])
    notebook.page.get_by_role("tab", name=path.name).wait_for()
    if can_start:
        notebook.page.wait_for_function(f"() => {KERNEL}?.status === 'idle'")


def test_the_panel_is_that_of_the_notebook_in_front_whatever_its_kernel_is(open_notebook):
    notebook = open_notebook("1")
    page = notebook.page
    panel = open_panel(notebook)
    not_loaded = panel.get_by_text("This kernel has not loaded jupyter_gpt")
    loaded = panel.get_by_text("This kernel", exact=True)  # its memory
    not_loaded.wait_for()
    execute(notebook, "%load_ext jupyter_gpt")
    loaded.wait_for()
    same = page.evaluate(f"() => ({{ id: {KERNEL}.id, name: {KERNEL}.name }})")
    open_beside(notebook, "another")
    not_loaded.wait_for()
    execute(notebook, OTHER_VERSION)
    panel.get_by_text("This kernel runs jupyter_gpt 0.0.9, this page another version.").wait_for()
    open_beside(notebook, "same", same)
    loaded.wait_for()
    open_beside(notebook, "none", can_start=False)
    panel.get_by_text("This notebook has no running kernel").wait_for()
    page.get_by_role("tab", name=notebook.path.name).click()
    loaded.wait_for()


def test_the_panel_asks_again_where_a_starting_kernel_never_had_the_question(open_notebook):
    """For some seconds nothing that the page sends reaches the kernel, which also tells nothing of its start."""
    notebook = open_notebook("1")
    page = notebook.page
    lost = []
    deaf = False
    is_lost = lambda: any(b"comm_info_request" in message for message in lost)  # noqa: E731

    def relay(socket) -> None:
        server = socket.connect_to_server()
        socket.on_message(lambda sent: lost.append(sent) if deaf else server.send(sent))
        server.on_message(lambda told: deaf or socket.send(told))

    page.route_web_socket("**/channels?*", relay)
    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    panel = open_panel(notebook)
    panel.get_by_text("This kernel has not loaded jupyter_gpt").wait_for()
    deaf = True  # JupyterLab itself asks once, and after 3 s sends what waits
    page.evaluate(f"() => {{ {KERNEL}.reconnect(); }}")
    panel.get_by_text("Asking the kernel").wait_for()
    wait_until(lambda: page.wait_for_timeout(50) or is_lost(), 60, "the question to be lost")
    deaf = False
    panel.get_by_text("This kernel has not loaded jupyter_gpt").wait_for()
    execute(notebook, "%load_ext jupyter_gpt")
    panel.get_by_text("This kernel", exact=True).wait_for()


LOADS = """
import pathlib, time
while not pathlib.Path({go!r}).exists():
    time.sleep(0.05)
get_ipython().run_line_magic("load_ext", "jupyter_gpt")
"""


def test_a_page_loaded_again_sees_that_a_cell_which_ran_before_has_loaded_the_package(open_notebook, tmp_path):
    go = tmp_path / "go"
    notebook = open_notebook(LOADS.format(go=str(go)))
    open_panel(notebook)
    notebook.run_all()
    notebook.saved()
    notebook.page.reload()
    notebook.page.wait_for_selector(".jp-Notebook .jp-Cell")
    panel = open_panel(notebook)
    panel.get_by_text("This kernel has not loaded jupyter_gpt").wait_for()
    go.touch()
    panel.get_by_text("This kernel", exact=True).wait_for()


def test_the_panel_sees_that_another_page_has_restarted_its_kernel(open_notebook, lab):
    notebook = open_notebook("1")
    panel = open_panel(notebook)
    for _ in range(2):
        panel.get_by_text("This kernel has not loaded jupyter_gpt").wait_for()
        execute(notebook, "%load_ext jupyter_gpt")
        panel.get_by_text("This kernel", exact=True).wait_for()
        restart = f"{lab.url}/api/kernels/{notebook.page.evaluate(f'{KERNEL}.id')}/restart"
        asked = urllib.request.Request(restart, method="POST", headers={"Authorization": f"token {lab.token}"})
        urllib.request.urlopen(asked).close()
        notebook.page.evaluate("window.dispatchEvent(new Event('focus'))")  # the person comes back to this page


def test_a_run_in_the_panel_through_reload_restart_and_kill(open_notebook, lab):
    shutil.rmtree(lab.root / ".jupyter_gpt", ignore_errors=True)  # the runs of other tests
    assert not (lab.root / "go").exists()
    notebook = open_notebook("%load_ext jupyter_gpt", TRAIN, BLOCK)
    panel = open_panel(notebook)
    panel.get_by_text("This kernel has not loaded jupyter_gpt").wait_for()
    assert panel.locator("pre").inner_text() == "%load_ext jupyter_gpt"

    notebook.run_all()
    panel.locator(".jp-gpt-chip", has_text="running").wait_for(timeout=90_000)
    page = notebook.page
    page.locator(".jp-gpt-status", has_text="tale · step").wait_for(timeout=90_000)
    assert panel.locator(".jp-gpt-curve path").get_attribute("d")
    assert panel.get_by_role("progressbar", name="Steps of tale").is_visible()

    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    panel = open_panel(notebook)
    panel.get_by_role("button", name="Pause tale").click()
    panel.get_by_role("button", name="Continue tale").click()
    panel.get_by_role("button", name="Stop tale").click()
    panel.locator(".jp-gpt-chip", has_text="stopped").wait_for()
    assert not (lab.root / "ended").exists(), "the cell had ended, so the clicks prove nothing"
    assert page.locator(".jp-gpt-status", has_text="tale").count() == 0
    panel.get_by_text("Models in memory").wait_for()
    panel.get_by_role("button", name="Show tale").click()
    page.locator(".jp-gpt-report", has_text="tale: pretrain, stopped").wait_for()
    page.get_by_role("tab", name=notebook.path.name).click()

    assert notebook.flaws(".jp-gpt-panel") == []

    panel.get_by_role("button", name="Take tale out of memory").click()
    panel.get_by_text("Models on disk").wait_for()
    (lab.root / "go").touch()
    notebook.wait_idle()
    execute(notebook, "import os; os.kill(os.getpid(), 9)")
    page.get_by_role("dialog").get_by_role("button", name="Ok").click()
    panel.get_by_text("This kernel has not loaded jupyter_gpt").wait_for()
    execute(notebook, "%load_ext jupyter_gpt")
    panel.locator(".jp-gpt-chip", has_text="stopped").wait_for()

    page.evaluate("window.jupyterapp.shell.currentWidget.context.sessionContext.restartKernel()")
    panel.get_by_text("This kernel has not loaded jupyter_gpt").wait_for()
    execute(notebook, "%load_ext jupyter_gpt")
    panel.get_by_role("button", name="Delete run tale").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    assert (lab.root / ".jupyter_gpt" / "runs" / "tale").exists()
    panel.get_by_role("button", name="Delete run tale").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    panel.locator(".jp-gpt-curve").wait_for(state="detached", timeout=90_000)
    assert not (lab.root / ".jupyter_gpt" / "runs" / "tale").exists()
    assert (lab.root / ".jupyter_gpt" / "models" / "tale").exists()
