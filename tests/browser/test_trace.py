"""A technique at work in JupyterLab: its tree grows, folds and can be searched while the cell runs, and ends static."""

from __future__ import annotations

from jupyter_gpt.report.report import MIME

SCRIPTED = """
import pathlib, time
from jupyter_gpt import gpt
from jupyter_gpt.inference.completion import Completion, Usage
from jupyter_gpt.prompting.ask import Ask, run
from jupyter_gpt.stages.prompt_techniques import compose
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.trace import Node
from jupyter_gpt.stages.prompt_techniques import completion
from jupyter_gpt.prompting.trace import trace_report
from jupyter_gpt.notebook.views.trace_live import Growing

follow_up = False
sent = []

def wait_for(name):
    while not pathlib.Path(FOLDER, name).exists():
        time.sleep(0.05)
        growing.show(growing.root)

def send(prompts, show=None, deadline=None, **settings):
    if len(sent) > 1:
        wait_for("on")
        growing.widget.hear({"type": "ready"})  # as another page is loaded, which is sent everything
    sent.append(prompts)
    n = settings.get("samples") or 1
    said = "sure" if "one word" in prompts[0] else None
    done = []
    for prompt in prompts:
        samples = [Completion(said or f"<b>step</b> {k + 1}", tokens=[1, 2], prompt=str(prompt), finish_reason="stop",
                              usage=Usage(10, 2 * n, 0.1), model="script") for k in range(n)]
        samples[0].samples = samples
        done.append(samples[0])
    show(done)
    return done

def value(prompt, steps):
    return float(not steps.endswith("3"))

options = Options(tree=True, breadth=3, depth=3, value=value)
with Growing() as growing:
    ask = Ask(send, root=Node("technique", "tree of thoughts", model="script"), changed=growing.show)
    answer = run(ask, compose(options), "Where to?", options)
    wait_for("end")
    done = completion(ask, answer, options, ())
    growing.put(trace_report(done))
"""


def test_the_tree_grows_folds_and_is_searched_while_the_cell_runs(open_notebook, tmp_path):
    notebook = open_notebook(f"FOLDER = {str(tmp_path)!r}{SCRIPTED}", "1")
    page = notebook.page
    notebook.run_all()
    page.locator(".gpt-trace .gpt-node").nth(3).wait_for(state="attached")
    count = page.locator(".gpt-trace .gpt-node").count()
    page.locator(".gpt-trace button", has_text="unfold").click()
    assert page.locator(".gpt-trace .gpt-exact b").count() == 0, "a model's text was taken for HTML"
    page.locator(".gpt-trace .gpt-search").fill("step 2")
    page.locator(".gpt-trace .gpt-hit").first.wait_for()
    assert page.locator(".gpt-trace .gpt-node:visible").count() < page.locator(".gpt-trace .gpt-node").count()
    page.locator(".gpt-trace .gpt-search").fill("")
    (tmp_path / "on").touch()
    page.wait_for_function(f"() => document.querySelectorAll('.gpt-trace .gpt-node').length > {count}")
    page.locator(".gpt-trace .gpt-pruned").first.wait_for(state="attached")
    page.locator(".gpt-trace .gpt-tag", has_text="score 1").first.wait_for(state="attached")
    page.locator(".gpt-trace .gpt-cut", has_text="pruned").first.wait_for(state="attached")
    sent = page.locator(".gpt-trace .gpt-sent:visible > summary").first
    sent.click()
    assert "Where to?" in page.locator(".gpt-trace .gpt-sent[open] .gpt-exact").first.inner_text()
    assert notebook.running(), "the cell was over, so nothing was seen to grow"
    for dark in (True, False):
        notebook.theme(dark)
        ground = "dark" if dark else "light"
        page.locator(f".gpt-trace[data-ground={ground}]").wait_for()

    (tmp_path / "end").touch()
    notebook.wait_idle()
    page.locator(".gpt-trace").wait_for(state="detached")
    page.locator(".jp-OutputArea-output details summary", has_text="tree of thoughts").first.wait_for()
    assert page.locator(".jp-OutputArea-output b", has_text="step 1").count() >= 1
    [left] = notebook.saved()["cells"][0]["outputs"]
    assert set(left["data"]) == {"text/plain", "text/html", MIME}
