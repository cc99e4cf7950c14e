"""What a run leaves behind: its loss curve as a picture, its figures, and how its samples changed.

Readable with no kernel and no trust; colours are mid-tones on a transparent ground, for light and dark pages alike.
"""

from __future__ import annotations

import io

from jupyter_gpt.notebook.views.bundle import Bundle, about, escape, image, quoted
from jupyter_gpt.notebook.views.run_head import RED, alarm_html, alarm_lines, alarms_of, heading, step_of
from jupyter_gpt.runs.run_figures import MEAN, training_loss

GREY, TRAIN, VALIDATION = "#888888", "#3b82c4", "#e07b39"
CELL, HEAD = '<td style="text-align:left;vertical-align:top">', '<th style="text-align:left">'  # JupyterLab: right
POINTS = 1000  # of a curve in the metadata: more than any screen shows


def smooth(values: list[float], weight: float) -> list[float]:
    """Exponential moving average with its start-up bias removed (Kingma & Ba 2015, section 3)."""
    out, mean, left = [], 0.0, 1.0
    for value in values:
        mean = weight * mean + (1 - weight) * value
        left *= weight
        out.append(mean / (1 - left))
    return out


def loss_picture(steps: list[dict], evaluations: list[dict], alarms: list[dict]) -> bytes:
    """A PNG of training loss, raw and smoothed, with the validation points, over steps; alarms as red lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.0), dpi=180, facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    x, y = [e["step"] for e in steps], [e["loss"] for e in steps]
    axes.plot(x, y, color=TRAIN, alpha=0.25, linewidth=0.8)
    axes.plot(x, smooth(y, min(0.98, 1 - 30 / max(31, len(y)))), color=TRAIN, linewidth=1.8, label="training")
    if evaluations:
        ex, ey = [e["step"] for e in evaluations], [e["val_loss"] for e in evaluations]
        axes.plot(ex, ey, color=VALIDATION, marker="o", markersize=4, linewidth=1.4, label="validation")
    for alarm in alarms:
        axes.axvline(alarm["step"], color=RED, linewidth=0.9, alpha=0.8)
    if y:
        top = max(sorted(y)[int(0.995 * (len(y) - 1))], *[e["val_loss"] for e in evaluations] or [0])
        axes.set_ylim(top=top * 1.02)
    axes.set_xlabel("step", color=GREY)
    axes.set_ylabel("loss, nats per token", color=GREY)
    axes.tick_params(colors=GREY, labelsize=8)
    axes.grid(color=GREY, alpha=0.2, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_color(GREY)
        spine.set_visible(side in ("left", "bottom"))
    if x or evaluations:
        axes.legend(frameon=False, labelcolor=GREY, fontsize=9)
    figure.tight_layout()
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()


def thinned(rows: list, most: int = POINTS) -> list:
    """At most `most` of the rows, evenly spread, the last always among them."""
    if len(rows) <= most:
        return rows
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def shape_line(recipe: dict) -> str:
    """The model in one line, without what only the machine knows."""
    return (
        f"{recipe['arch']}, {recipe['layers']} layers of {recipe['width']}, {recipe['heads']} heads, "
        f"context {recipe['context']}, vocabulary {recipe['vocab_size']:,}, "
        f"{recipe['batch_tokens']:,} tokens a step"
    )


def figures(run, steps: list[dict], evaluations: list[dict]) -> list[tuple[str, str]]:
    """The numbers of the run, named; those that depend on the machine are marked."""
    last = evaluations[-1] if evaluations else {}
    seconds = steps[-1]["seconds"] if steps else None
    start = next((e for e in run.events if e["event"] == "start"), {})
    rates = sorted(e["tokens_per_second"] for e in steps)
    shares = sorted(e["mfu"] for e in steps if e["mfu"] is not None)
    rows = [
        ("training loss", f"{about(training_loss(steps))} nats per token, {MEAN}"),
        ("validation loss", f"{about(last.get('val_loss'))} nats per token at step {step_of(run, last)}"),
        ("bits per byte", f"{about(last.get('bits_per_byte'))} at step {step_of(run, last)}"),
        ("parameters", f"{start.get('parameters', 0):,}"),
        ("tokens", about(steps[-1]["tokens"] if steps else None, 0)),
        ("time", f"{about(seconds, 0)} s on {quoted(start.get('device', '?') + ', ' + start.get('dtype', '?'))}"),
        ("speed", f"{about(rates[len(rates) // 2] if rates else None, 0)} tokens/s"),
    ]
    if shares:
        rows[-1] = ("speed", f"{rows[-1][1]}, {about(100 * shares[len(shares) // 2], 0)}% of this machine's peak")
    return rows


def run_bundle(run) -> Bundle:
    """The static bundle of a run as it stands, by its kind: here curve, figures, first and last samples."""
    steps = [e for e in run.events if e["event"] == "step"]
    evaluations = [e for e in run.events if e["event"] == "evaluation"]
    samples = [e for e in run.events if e["event"] == "sample"]
    title, alarms = heading(run, run.kind), alarms_of(run)
    rows = figures(run, steps, evaluations)
    first = [s for s in samples if s["step"] == samples[0]["step"]]
    last = [s for s in samples if s["step"] == samples[-1]["step"]]
    shown = [("first samples", first)] if first else []
    shown += [("last samples", last)] if last and last[0]["step"] != first[0]["step"] else []

    wide = max(len(name) for name, _ in rows)
    text = [
        title,
        shape_line(run.recipe),
        *alarm_lines(alarms),
        *(f"  {name:<{wide}}  {value}" for name, value in rows),
    ]
    for head, group in shown:
        text.append(f"{head}, at step {about(group[0]['step'], 0)}")
        text += [f"  {quoted(s['prompt'])} {quoted(s['text'])}" for s in group]

    html = [f"<p><b>{escape(title)}</b><br>{escape(shape_line(run.recipe))}</p>", *alarm_html(alarms)]
    if steps:
        html.append(image(loss_picture(steps, evaluations, alarms), f"loss curve of {run.name}", 640))
    html.append(
        "<table>" + "".join(f"<tr>{CELL}{escape(n)}</td>{CELL}{escape(v)}</td></tr>" for n, v in rows) + "</table>"
    )
    if shown:
        heads = "".join(f"{HEAD}{escape(h)}, step {about(g[0]['step'], 0)}</th>" for h, g in shown)
        cells = "".join(f"{CELL}{sample_cell(group)}</td>" for _, group in shown)
        html.append(f"<table><tr>{heads}</tr><tr>{cells}</tr></table>")
    between = [s for s in samples if s not in first and s not in last]
    if between:
        body = "".join(f"<p><i>step {about(s['step'], 0)}</i><br>{sample_cell([s])}</p>" for s in between)
        html.append(f"<details><summary>the samples between</summary>{quoted_block(body)}</details>")
    metadata = {
        "steps": [[e["step"], e["loss"], e["lr"], e["tokens_per_second"]] for e in thinned(steps)],
        "evaluations": [[e["step"], e["val_loss"], e["bits_per_byte"]] for e in evaluations],
        "samples": [[s["step"], s["prompt"], s["text"]] for s in samples],
        "warnings": alarms,
        "figures": rows,
    }
    data = {
        "view": "run",
        "name": run.name,
        "kind": run.kind,
        "status": run.status,
        "mixture": run.recipe["mixture"],
        "arch": run.recipe["arch"],
    }
    return Bundle("\n".join(text), "\n".join(html), data, metadata)


def quoted_block(html: str) -> str:
    """HTML of samples as one marked stretch: how many there are may differ too."""
    return "«" + html.replace("«", "‹").replace("»", "›") + "»"


def sample_cell(group: list[dict]) -> str:
    """Prompts in italics, what the model went on with after them; line breaks kept."""
    return "<br>".join(f"<i>{lines(quoted(s['prompt']))}</i> {lines(quoted(s['text']))}" for s in group)


def lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")
