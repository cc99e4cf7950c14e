"""The report of a long run: the bytes it costs a notebook, the time to open it, the frames per second of zooming in it.

    python tests/benchmarks/saved_report.py [--steps 100000]

A run of so many steps is saved as its cell leaves it, alone and beside a second one, and opened in JupyterLab with no
kernel, in a page that has loaded JupyterLab. The time is from the command that opens the notebook to its first drawn
chart, to be compared with that of a notebook with one line of text; and of it what the renderer takes, from its output
to the first frame with the curves. While keys zoom in and out, each frame shows another view. Needs Playwright.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[1]))

OPENED = """async ([name, chart]) => {
  const began = performance.now();
  const app = window.jupyterapp;
  let output = 0, drawn = 0;
  const seen = new Promise(resolve => {
    const look = () => {
      const shown = document.querySelector(`[data-bench="${name}"]`)
        ?? [...document.querySelectorAll(".jp-NotebookPanel")].find(each => !each.dataset.bench && each.isConnected);
      if (shown) shown.dataset.bench = name;
      if (shown?.querySelector(".jp-OutputArea-output")) output ||= performance.now();
      if (shown?.querySelector(chart)) { drawn = performance.now(); resolve(); } else requestAnimationFrame(look);
    };
    look();
  });
  app.commands.execute("docmanager:open", { path: name, kernel: { shouldStart: false } });
  await seen;
  return [drawn - began, drawn - output];
}"""
ZOOM = """async seconds => {
  const box = [...document.querySelectorAll(".gpt-main")].at(-1);
  const press = key => box.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const until = performance.now() + 1000 * seconds;
  const frames = [];
  let last = await new Promise(requestAnimationFrame), n = 0;
  while (performance.now() < until) {
    press(n++ % 20 < 10 ? "+" : "-");
    const now = await new Promise(requestAnimationFrame);
    frames.push(now - last);
    last = now;
  }
  frames.sort((a, b) => a - b);
  return [frames.length / seconds, frames[Math.floor(0.95 * frames.length)]];
}"""


def long_run(name: str, steps: int, seed: int):
    """As much of a run as its report needs."""
    rng = random.Random(seed)
    start = {"event": "start", "parameters": 10_000_000, "device": "cpu", "dtype": "float32", "steps": steps}
    events: list[dict] = [start]
    for step in range(1, steps + 1):
        loss = 8 / (1 + step / 1000) ** 0.4 + 0.2 * rng.random()
        numbers = {"loss": loss, "grad_norm": 1 + rng.random(), "lr": 1e-3 * (1 - step / steps)}
        speed = {"tokens": 1000 * step, "seconds": step / 10, "tokens_per_second": 1e4 + 100 * rng.random()}
        events.append({"event": "step", "step": step, **numbers, **speed})
        if step % max(1, steps // 100) == 0:
            events.append({"event": "evaluation", "step": step, "val_loss": loss + 0.1})
    about = {"kind": "pretrain", "status": "finished", "recipe": {}}
    return SimpleNamespace(name=name, steps=steps, step=steps, events=events, **about)


def saved(report) -> dict:
    data, metadata = report._repr_mimebundle_()
    return {"output_type": "display_data", "data": data, "metadata": metadata}


def notebook(output: dict) -> str:
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": "", "outputs": [output], "execution_count": 1}
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    given = parser.parse_args()

    from playwright.sync_api import sync_playwright

    from browser.conftest import FLAGS, chromium, running_lab
    from jupyter_gpt.notebook.views.run_report import run_report
    from jupyter_gpt.report.report import MIME

    runs = [long_run(name, given.steps, seed) for seed, name in enumerate(("long", "other"))]
    text = {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}
    one, two = saved(run_report(runs[0])), saved(run_report(runs[0], runs[1:]))
    for name, output in (("one run", one), ("two runs", two)):
        parts = output["metadata"][MIME]["parts"]["parts"]
        curves = next(part for part in parts if part["kind"] == "curves")
        whole, html, points = (len(json.dumps(value)) // 1000 for value in (output, output["data"], curves))
        kept = f"{len(curves['steps']):,} of {curves['of']:,} steps kept"
        print(f"{name}: {whole} kB, of it picture and HTML {html}, points {points}; {kept}")
    with TemporaryDirectory() as home, running_lab(Path(home)) as lab, sync_playwright() as playwright:
        names = {"text": text, "again": text, "one": one, "two": two, "twice": one}
        for name, output in names.items():
            (lab.root / f"{name}.ipynb").write_text(notebook(output))
        browser = playwright.chromium.launch(executable_path=chromium(playwright), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(f"{lab.url}/lab?token={lab.token}&reset")
        page.wait_for_function("() => window.jupyterapp?.commands?.hasCommand('docmanager:open')", timeout=90_000)
        page.wait_for_timeout(3000)
        for name in names:
            chart = "pre" if names[name] is text else ".gpt-main canvas"
            whole, renderer = page.evaluate(OPENED, [f"{name}.ipynb", chart])
            said = "JupyterLab's own" if names[name] is text else f"{renderer:.0f} ms after its output is there"
            print(f"{name}: opened in {whole:.0f} ms, {said}")
            if names[name] is not text:
                rate, slow = page.evaluate(ZOOM, 3)
                print(f"  zooming: {rate:.0f} frames/s, 95% of them within {slow:.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
