"""What a run leaves in its cell: its curves, its figures, its tables, and the same prompts before and after.

Of every kind of run this is drawn from its events alone: the metrics that it declares in `Start`, its evaluations,
tables and samples (`runs/events.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import median
from typing import Any

from jupyter_gpt.report import charts
from jupyter_gpt.report.charts import BarChart, Bars, Group, Matrix, Scatter
from jupyter_gpt.report.parts import (
    Alarm,
    Chart,
    Curves,
    Figures,
    Folded,
    Inline,
    Paragraph,
    Part,
    Samples,
    Span,
    Table,
    Varies,
    joined,
    quiet,
)
from jupyter_gpt.report.report import Report
from jupyter_gpt.report.text import plain
from jupyter_gpt.runs.events import Metric, declared, last_of, mean_label, recent
from jupyter_gpt.runs.progress import algorithm
from jupyter_gpt.runs.run import standing

KINDS = {"classify": "classifier", "reward": "reward model"}
KEPT = ("mixture", "arch", "base", "adapter", "algo", "policy", "reward", "rankings")  # of the recipe, in the JSON
BETWEEN = 6  # steps whose samples are shown between the first and the last
WIDE = 10  # columns of a table that is shown beside its picture; a wider one is folded
TOKEN = "▣"  # stands for the reward token, at which a reward model gives its score
NOTHING = "(nothing)"  # an answer that ended at once


def run_report(run, beside: Sequence = ()) -> Report:
    """The report of a run as it stands; `beside` are other runs to draw into its charts."""
    steps, evaluations, samples, notes = (
        [e for e in run.events if e["event"] == kind] for kind in ("step", "evaluation", "sample", "note")
    )
    start, metrics, alarms = last_of(run.events, "start"), declared(run.events), alarms_of(run)
    rows = figures(run, start, metrics, steps, evaluations)
    rows += [row for other in beside for row in other_figures(other)]
    parts: list[Part] = [Paragraph(start["about"])] if start.get("about") else []
    parts += [Alarm(["step ", Varies(alarm["step"]), ": ", Varies(alarm["text"])]) for alarm in alarms]
    parts += [Paragraph(Varies(note["text"])) for note in notes]
    shown = panels(metrics, steps, evaluations, run.name, beside)
    if steps and shown:
        said = "; ".join(f"{name}: {plain(value)}" for name, value in rows)
        parts.append(Curves(shown, said, [alarm["step"] for alarm in alarms], name=run.name))
    parts += [Figures(rows)] if rows else []
    if len({size for each in (run, *beside) if (size := each.recipe.get("vocab_size"))}) > 1:
        parts.append(Paragraph("Their vocabularies differ, and so do their tokens: compare bits per byte.", "quiet"))
    parts += [part for table in tables(run) for part in table_parts(table)]
    parts += sample_parts(run, samples)
    names = ["step", *(metric.name for metric in metrics if metric.chart != "")]
    metadata = {
        "columns": names,
        "steps": charts.thinned([[e.get(name) for name in names] for e in steps]),
        "evaluations": evaluations,
        "samples": [[s["step"], s["prompt"], s["text"]] for s in samples],
        "warnings": alarms,
    }
    if beside:
        metadata["beside"] = {
            other.name: charts.thinned([[e.get(name) for name in names] for e in other.events if e["event"] == "step"])
            for other in beside
        }
    about = {"view": "run", "name": run.name, "kind": run.kind, "status": run.status}
    recipe = {key: run.recipe[key] for key in KEPT if key in run.recipe}
    return Report(heading(run), parts, about | recipe, metadata)


def heading(run) -> list[Inline]:
    """`storyteller: pretrain, finished, all 600 steps`."""
    kind = algorithm(run.kind, run.recipe).upper() if run.kind == "rlhf" else KINDS.get(run.kind, run.kind)
    reached = [f"all {run.steps} steps"] if fixed(run) else [Varies(run.step), " of ", Varies(run.steps), " steps"]
    return [f"{run.name}: {kind}, {standing(run)}, ", *reached]


def fixed(run) -> bool:
    """Whether every machine comes to the same step."""
    return run.status == "finished" and not run.recipe.get("minutes")


def step_of(run, step: int) -> Inline:
    return str(step) if fixed(run) else Varies(step)


def alarms_of(run) -> list[dict]:
    """The first alarm of each cause, which says how often and until when it came back."""
    causes: dict[str, list[dict]] = {}
    for event in run.events:
        if event["event"] == "warning":
            causes.setdefault(event["cause"], []).append(event)
    found = []
    for first, *more in causes.values():
        again = f" (and {len(more)} times more, the last at step {more[-1]['step']})" if more else ""
        found.append({**first, "text": first["text"] + again})
    return found


def number(value: float | None, spec: str) -> Inline:
    """A value in a metric's format."""
    digits = int((re.search(r"\.(\d)", spec) or ["", "3"])[1])
    if value is None or not math.isfinite(value) or spec.endswith("f"):
        return Varies(value, digits)
    return [Varies(100 * value, digits), "%"] if spec.endswith("%") else Varies(f"{value:{spec}}")


def panels(
    metrics: Sequence[Metric], steps: Sequence[dict], evaluations: Sequence[dict], name: str = "", beside: Sequence = ()
) -> list[charts.Panel]:
    """The charts of the metrics that have something to show, the first metric's first; the runs `beside` in each."""
    found = []
    for metric in metrics:
        if metric.chart not in (None, metric.name):
            continue
        dots = next((each for each in metrics if each.chart == metric.name), metric)
        tested = [e for e in evaluations if e.get(dots.name) is not None]
        bounds = dots.interval or ("", "")
        told = [(other.name, [e for e in other.events if e["event"] == "step"]) for other in beside]
        lines = [(other, charts.points(events, metric.name)) for other, events in told]
        panel = charts.Panel(
            metric.title,
            charts.points(steps, metric.name),
            charts.points(tested, dots.name),
            [(e["step"], e[bounds[0]], e[bounds[1]]) for e in tested if bounds[0] in e],
            metric.limit,
            (metric.label, dots.label if dots is not metric else f"{metric.label}, evaluated"),
            metric.smooth,
            [(other, found) for other, found in lines if found],
            name if beside else "",
        )
        if panel.points or panel.evaluated:
            found.append(panel)
    return found


def figures(run, start: dict, metrics: Sequence[Metric], steps: list, evaluations: list) -> list[tuple[str, Inline]]:
    """The numbers of the run, named."""
    rows: list[tuple[str, Inline]] = []
    for metric in metrics:
        value = figure_of(run, metric, steps, evaluations) if metric.summary else None
        rows += [(metric.label, value)] if value else []
    rows += list(start.get("figures", {}).items())
    parameters, trained = start.get("parameters"), start.get("trained")
    rows += [("parameters", parameters)] if parameters else []
    if trained and parameters and trained != parameters:
        rows.append(("parameters trained", f"{trained:,} ({100 * trained / parameters:.3g}%)"))
    if steps:
        rates, shares = ([e[key] for e in steps if e.get(key)] for key in ("tokens_per_second", "mfu"))
        where = joined(", ", [start.get("device", "?"), start.get("dtype", "")])
        use = [", ", Varies(100 * median(shares), 0), "% hardware use"] if shares else []
        rows += [
            ("tokens", Varies(steps[-1].get("tokens"), 0)),
            ("time", [Varies(steps[-1]["seconds"], 0), " s on ", Varies(where)]),
            ("speed", [Varies(median(rates) if rates else None, 0), " tokens per second", *use]),
        ]
    return rows


def other_figures(run) -> list[tuple[str, Inline]]:
    """The figures of a run that is drawn beside another, its name with them."""
    steps, evaluations = ([e for e in run.events if e["event"] == kind] for kind in ("step", "evaluation"))
    found = ((m.label, figure_of(run, m, steps, evaluations)) for m in declared(run.events) if m.summary)
    return [(f"{run.name}: {name}", value) for name, value in found if value]


def figure_of(run, metric: Metric, steps: Sequence[dict], evaluations: Sequence[dict]) -> Inline:
    """What the last evaluation found, and the first, with its interval; of what only steps tell, a mean."""
    tested = [e for e in evaluations if e.get(metric.name) is not None]
    unit = f" {metric.unit}" if metric.unit else ""
    if not tested:
        mean, count = recent(steps, metric.name), sum(e.get(metric.name) is not None for e in steps)
        return "" if mean is None else [number(mean, metric.format), f"{unit}, {mean_label(count)}"]
    first, last = tested[0], tested[-1]
    interval: list[Inline] = []
    if metric.interval and metric.interval[0] in last:
        low, high = (number(last[key], metric.format) for key in metric.interval)
        interval = [" (95% interval ", low, " to ", high, ")"]
    before = [", from ", number(first[metric.name], metric.format)] if first is not last else []
    return [number(last[metric.name], metric.format), unit, *interval, " at step ", step_of(run, last["step"]), *before]


def tables(run) -> list[dict]:
    """The last table of each title."""
    return list({event["title"]: event for event in run.events if event["event"] == "table"}.values())


def table_parts(table: dict) -> list[Part]:
    """A table and its picture."""

    def cell(value: Any) -> Inline:
        if isinstance(value, list | tuple):
            value, low, high = (number(each, table["format"]) for each in value)
            return [value, " (", low, " to ", high, ")"]
        return value if isinstance(value, str) else number(value, ".0f" if isinstance(value, int) else table["format"])

    numbers = Table(table["columns"], [[cell(value) for value in row] for row in table["rows"]])
    noted = [Paragraph(table["note"], "quiet")] if table["note"] else []
    if table["chart"] not in PLOTS or not table["rows"]:
        return [Paragraph(table["title"]), numbers, *noted]
    narrow = len(table["columns"]) <= WIDE
    said = "; ".join(f"{row[0]}: {', '.join(plain(cell(v)) for v in row[1:])}" for row in table["rows"] if narrow)
    picture = Chart(PLOTS[table["chart"]](table), f"{table['title']}: {said}")
    shown = [numbers, *noted, picture] if narrow else [picture, Folded("the numbers", [numbers], text=True)]
    return [Paragraph(table["title"]), *shown]


def bars(table: dict) -> BarChart:
    """Each column as bars, one a row, with their intervals."""
    rows, shades = table["rows"], [charts.GREY, charts.BLUE, charts.ORANGE][-len(table["rows"]) :]

    def column(number: int, title: str) -> Bars:
        cells = [row[number] if isinstance(row[number], list | tuple) else [row[number], None, None] for row in rows]
        bounds = [None if low is None else (low, high) for _, low, high in cells]
        return Bars(title, [value or 0.0 for value, *_ in cells], shades, bounds)

    names = [row[0].rpartition("(")[2].rstrip(")") for row in rows]
    return BarChart(names, [column(n, title) for n, title in enumerate(table["columns"][1:], start=1)])


def matrix(table: dict) -> Matrix:
    return Matrix([row[0] for row in table["rows"]], table["columns"][1:], [row[1:] for row in table["rows"]])


def curve(table: dict) -> Scatter:
    """The second number over the first, as large as the third, beside the diagonal on which they are the same."""
    x, y, sizes = zip(*(row[1:4] for row in table["rows"]), strict=True)
    points = Group("", list(zip(x, y, strict=True)), labels=[row[0] for row in table["rows"]], sizes=sizes, joined=True)
    return Scatter([points], table["columns"][1], table["columns"][2], diagonal=True, size=(3.6, 2.6))


PLOTS = {"bars": bars, "matrix": matrix, "curve": curve}


def sample_parts(run, samples: Sequence[dict]) -> list[Part]:
    """The same prompts before and after; what was sampled between is folded."""
    by_step: dict[int, dict] = {}
    for sample in samples:  # the last ones of a step where it was asked again
        key = sample["prompt"], sample["text"] if scored(sample) else ""
        by_step.setdefault(sample["step"], {})[key] = sample
    if not by_step:
        return []
    steps = sorted(by_step)
    if scored(samples[-1]):
        return [scores(by_step[steps[-1]].values())]
    most = max((abs(a) for s in samples for a in s.get("advantages") or ()), default=0.0) or 1.0

    def side_by_side(names: Sequence[Inline], which: Sequence[int]) -> Samples:
        prompts = [key for key in by_step[which[0]] if all(key in by_step[step] for step in which)]
        rows = [
            (Varies(prompt[0]), [Varies(sample_cell(by_step[step][prompt], most)) for step in which])
            for prompt in prompts
        ]
        return Samples(names, rows)

    first, last = steps[0], steps[-1]
    names: list[Inline] = [["step ", step_of(run, first)] if first else "before training"]
    names += [["after step ", step_of(run, last)]] if last != first else []
    parts: list[Part] = [side_by_side(names, [first, last][: len(names)])]
    if between := charts.thinned(steps[1:-1], BETWEEN):
        inside = side_by_side([f"step {step}" for step in between], between)
        parts.append(Folded("the samples between", [Varies([inside])]))
    return parts


def scored(sample: dict) -> bool:
    """Whether it is a text that was there before, and its reward is what the model said."""
    return sample.get("reward") is not None and not sample.get("pieces")


def sample_cell(sample: dict, most: float) -> Inline:
    """What was said; of reinforcement learning its tokens, green where they were better than expected (a share of
    `most`), red where worse, and its reward.
    """
    if not sample.get("pieces"):
        return sample["text"] or NOTHING
    spans = []
    for piece, advantage in zip(sample["pieces"], sample["advantages"], strict=True):
        colour = "60,159,80" if advantage > 0 else "208,69,69"
        tint = f"rgba({colour},{0.45 * min(1.0, abs(advantage) / most):.2f})"
        spans.append(Span(piece, tint=tint, tooltip=f"{advantage:+.2f}"))
    return [*spans, quiet(f"  reward {sample['reward']:.2f}")]


def scores(samples) -> Samples:
    """The talk's slide: prompt, completion, reward token, and the score there, from the worst shown to the best."""
    samples = list(samples)
    low, high = (pick(s["reward"] for s in samples) for pick in (min, max))
    rows, before = [], None
    for sample in samples:
        share = (sample["reward"] - low) / (high - low) if high > low else 0.5
        tint = f"rgba({round(208 - 148 * share)},{round(69 + 90 * share)},69,0.35)"
        score = Span(f"{sample['reward']:.2f}", tint=tint)
        prompt = Varies(sample["prompt"]) if sample["prompt"] != before else ""
        rows.append((prompt, [Varies([sample["text"], f" {TOKEN} ", score])]))
        before = sample["prompt"]
    return Samples([f"completion, reward token {TOKEN} and score, the ranker's best first"], rows)
