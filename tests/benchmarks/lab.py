"""What the JupyterLab extension costs and how soon its panel shows what happens: one Lab, one Chromium, CPU.

    python tests/benchmarks/lab.py [--starts 9] [--events 20] [--windows 7] [--seconds 10]

1. Lab's start, until its layout is restored, with the extension and without it in turns: "without" takes it out of the
   list of extensions and of the settings on their way to the page. Then the bytes of the extension that a page with the
   launcher has loaded, one with a notebook, and all there are.
2. The panel: a run's file of events grows in the kernel's folder; the seconds until the panel has drawn the step.
3. The panel's cost: steps per second of a real run, with the panel drawing each change and without it in turns.

Other work on the machine shows in all three: run it alone. The page's own process takes part of the machine in both
windows of 3, as it does beside any notebook.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))
from playwright.sync_api import sync_playwright

from browser.conftest import FLAGS, OpenNotebook, chromium, notebook, running_lab, wait_until

EXTENSION = "jupyter-gpt"
RESTORED = """(() => {
  let app;
  const told = (lab) => lab.restored.then(() => { window.restoredAt = performance.now(); });
  Object.defineProperty(window, "jupyterapp", { get: () => app, set: (lab) => { app = lab; told(lab); } });
})()"""
DRAWN = """() => {
  window.drawn = {};
  const look = () => {
    const step = document.querySelector(".jp-gpt-row .jp-gpt-line")?.textContent.match(/step ([\\d,]+)/)?.[1];
    if (step) window.drawn[step.replaceAll(",", "")] ??= Date.now() / 1000;
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
GROW = """
import json, pathlib, threading, time
folder = pathlib.Path({folder!r})
def grow():
    for step in range(1, {events} + 1):
        time.sleep(1 + step % 7 / 10)
        event = {{"event": "step", "time": time.time(), "step": step, "loss": 3 / step, "seconds": float(step)}}
        with (folder / "events.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\\n")
threading.Thread(target=grow).start()"""
TRAIN = """%%pretrain beside --background --depth 2 --tokenizer char --minutes {minutes} --sample-every 100000
stories: 1"""
TURNS = """
import json, pathlib, time
from jupyter_gpt import gpt
from jupyter_gpt.notebook.panel import ID
connection = get_ipython().kernel.comm_manager.comms[ID].connection
run, follow = gpt.runs["beside"], connection.follow
connection.follow = lambda *_: None  # what the page asks for; the windows here decide
while run.step < 20:
    time.sleep(0.1)
speeds = {{True: [], False: []}}
for turn in range(2 * {windows} + 2):
    shown = turn % 2 == 0
    if shown:
        connection.comm.send(answer := connection.panel.answer({{"type": "state"}}))
        follow(answer["state"], {seconds} - 0.5, 0.25)
    step, began = run.step, time.monotonic()
    time.sleep({seconds})
    if turn > 1:
        speeds[shown].append((run.step - step) / (time.monotonic() - began))
assert run.alive, "the run ended before the last window"
run.stop()
pathlib.Path("speeds.json").write_text(json.dumps([speeds[True], speeds[False]]))"""


def without_extension(route) -> None:
    """Answers a page, or the list of settings, as if the extension were not installed."""
    answer = route.fetch()
    if "/api/settings" in route.request.url:
        found = answer.json()
        found["settings"] = [each for each in found["settings"] if not each["id"].startswith(f"{EXTENSION}:")]
        return route.fulfill(response=answer, json=found)
    head, mark, rest = answer.text().partition('"federated_extensions": ')
    extensions, end = json.JSONDecoder().raw_decode(rest)
    kept = [each for each in extensions if each["name"] != EXTENSION]
    assert len(kept) == len(extensions) - 1, "the extension is not installed in this Lab"
    return route.fulfill(response=answer, body=head + mark + json.dumps(kept) + rest[end:])


def start(browser, lab, extension: bool, path: str = "") -> tuple[float, int]:
    """Milliseconds until a new page is restored, and bytes of the extension that it has loaded 3 s later."""
    context = browser.new_context()
    page = context.new_page()
    loaded: list = []
    page.on("requestfinished", lambda done: f"/extensions/{EXTENSION}/" in done.url and loaded.append(done))
    page.add_init_script(RESTORED)
    through = without_extension if not extension else lambda route: route.fulfill(response=route.fetch())
    for url in ("**/lab?*", "**/lab/tree/*", "**/lab/api/settings*"):
        page.route(url, through)
    page.goto(f"{lab.url}/lab{path}?token={lab.token}&reset", wait_until="commit")
    page.wait_for_function("() => window.restoredAt", timeout=120_000)
    taken = page.evaluate("() => window.restoredAt")
    page.wait_for_timeout(3000)
    size = sum(request.sizes()["responseBodySize"] for request in loaded)
    context.close()
    return taken, size


def starts(browser, lab, turns: int) -> None:
    start(browser, lab, True), start(browser, lab, False)  # the server reads its files
    taken = {True: [], False: []}
    size = 0
    for turn in range(turns):
        for extension in (True, False) if turn % 2 else (False, True):
            milliseconds, loaded = start(browser, lab, extension)
            taken[extension].append(milliseconds)
            size = loaded if extension else size
    with_it, without = (statistics.median(taken[extension]) for extension in (True, False))
    pairs = [one - other for one, other in zip(taken[True], taken[False], strict=True)]
    print(f"Lab's start, medians of {turns}: {with_it:.0f} ms with the extension, {without:.0f} ms without it")
    print(f"  the extension takes {with_it - without:+.0f} ms (median of the pairs {statistics.median(pairs):+.0f} ms)")
    path = lab.root / "plain.ipynb"
    path.write_text(json.dumps(notebook(("1 + 1",))))
    _, with_notebook = start(browser, lab, True, f"/tree/{path.name}")
    root = Path(__file__).parents[2]
    extension = sum(file.stat().st_size for file in (root / "labextension" / "prebuilt" / "static").glob("*.js"))
    widgets = sum(file.stat().st_size for file in (root / "jupyter_gpt/notebook/views/static").glob("*.[jc]s*"))
    print(f"  loaded: {size / 1e3:.0f} kB with the launcher, {with_notebook / 1e3:.0f} kB with a Python notebook")
    print(f"  all its scripts: {extension / 1e3:.0f} kB; the widgets, which the kernel sends: {widgets / 1e3:.0f} kB")


def panel_of(opened: OpenNotebook):
    opened.command("jupyter-gpt:open-panel")
    panel = opened.page.get_by_role("region", name="GPT panel")
    panel.wait_for()
    return panel


def delays(opened, lab, events: int) -> None:
    """How long after an event was written the panel shows it."""
    from jupyter_gpt import store

    folder = lab.root / ".jupyter_gpt" / "runs" / "growing"
    store.write_text(folder / "recipe.yaml", f"kind: sft\nrecipe: {{steps: {events}}}\n")
    begin = {"event": "start", "time": time.time(), "step": 0, "steps": events, "metrics": [LOSS]}
    (folder / "events.jsonl").write_text(json.dumps(begin) + "\n")
    assert store.lock(folder, "the benchmark")  # so that it counts as running, in another process
    panel = panel_of(opened)
    opened.run_all()
    panel.locator(".jp-gpt-name", has_text="growing").wait_for(timeout=60_000)
    opened.page.evaluate(DRAWN)
    execute(opened, GROW.format(folder=str(folder), events=events))
    opened.page.wait_for_function(f"() => window.drawn[{events}]", timeout=(10 + 3 * events) * 1000)
    drawn = opened.page.evaluate("() => window.drawn")
    written = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()[1:]]
    taken = sorted(drawn[str(event["step"])] - event["time"] for event in written)
    print(f"An event in the panel, of {events}: median {statistics.median(taken):.2f} s, longest {taken[-1]:.2f} s")
    store.unlock(folder)
    shutil.rmtree(folder)


LOSS = {"name": "loss", "label": "training loss", "format": ".3f", "unit": "", "chart": None}


def cost(opened, lab, windows: int, seconds: float) -> None:
    """Steps per second of a run while the panel draws it and while it does not."""
    panel_of(opened)
    execute(opened, TRAIN.format(minutes=2 + 2 * (windows + 1) * seconds / 60))
    execute(opened, TURNS.format(windows=windows, seconds=seconds))
    found = lab.root / "speeds.json"
    wait_until(found.exists, 600 + 3 * windows * seconds, "the windows of the run")
    shown, hidden = json.loads(found.read_text())
    ratios = [one / other - 1 for one, other in zip(shown, hidden, strict=True)]
    print(
        f"The panel's cost, {windows} pairs of {seconds:.0f} s: {statistics.median(shown):.2f} steps/s with it, "
        f"{statistics.median(hidden):.2f} without; median of the pairs {statistics.median(ratios):+.2%} "
        f"({min(ratios):+.2%} to {max(ratios):+.2%})"
    )


def execute(opened, code: str) -> None:
    kernel = "window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel"
    opened.page.evaluate(f"code => {{ {kernel}.requestExecute({{ code }}); }}", code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=9, help="starts of Lab with the extension, and as many without")
    parser.add_argument("--events", type=int, default=20, help="events whose way to the panel is measured")
    parser.add_argument(
        "--windows", type=int, default=7, help="windows of training with the panel, and as many without"
    )
    parser.add_argument("--seconds", type=float, default=10, help="length of a window")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before")
    with TemporaryDirectory() as home, running_lab(Path(home)) as lab, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(playwright), args=FLAGS)
        starts(browser, lab, given.starts)
        path = lab.root / "panel.ipynb"
        path.write_text(json.dumps(notebook(("%load_ext jupyter_gpt",))))
        opened = OpenNotebook(browser.new_page(), path)
        opened.page.goto(f"{lab.url}/lab/tree/{path.name}?token={lab.token}&reset")
        opened.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        opened.wait_idle()
        delays(opened, lab, given.events)
        cost(opened, lab, given.windows, given.seconds)
        browser.close()


if __name__ == "__main__":
    main()
