"""What a reward model's run leaves behind: loss and accuracy, whether it is right when it is sure, and how it reads.

The last is the talk's slide: a prompt, a completion, a reward token at its end, and the score that the model gives
there.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from jupyter_gpt.notebook.views.bundle import Bundle, about, escape, image, marked, plain, quoted
from jupyter_gpt.notebook.views.curve import CELL, GREY, TRAIN, VALIDATION
from jupyter_gpt.notebook.views.panels import Panel, draw, points
from jupyter_gpt.notebook.views.run_head import RED, alarm_html, alarm_lines, alarms_of, heading, step_of
from jupyter_gpt.runs.run_figures import MEAN, training_loss

TOKEN = "▣"  # stands for the reward token


def run_bundle(run) -> Bundle:
    """The static bundle of a reward model's run as it stands."""
    steps = [e for e in run.events if e["event"] == "step"]
    evaluations = [e for e in run.events if e["event"] == "evaluation"]
    samples = [e for e in run.events if e["event"] == "sample"]
    notes = [e["text"] for e in run.events if e["event"] == "note"]
    start = next((e for e in run.events if e["event"] == "start"), {})
    title, alarms = heading(run, f"{run.kind} model"), alarms_of(run)
    about_it = f"from {run.recipe['base']} and the rankings {run.recipe['rankings']}, " + (
        f"LoRA of rank {run.recipe['lora']}" if run.recipe["lora"] else "trained whole"
    )
    rows = figures(run, start, steps, evaluations)
    last = [s for s in samples if s["step"] == samples[-1]["step"]] if samples else []
    wide = max(len(name) for name, _ in rows)
    text = [title, about_it, *alarm_lines(alarms), *notes, *(f"  {name:<{wide}}  {value}" for name, value in rows)]
    html = [
        f"<p><b>{escape(title)}</b><br>{escape(about_it)}</p>",
        *alarm_html(alarms),
        *(f"<p>{escape(note)}</p>" for note in notes),
    ]
    if steps:
        html.append(image(picture(steps, evaluations, alarms), described(evaluations), 640))
    html.append(
        "<table>" + "".join(f"<tr>{CELL}{escape(n)}</td>{CELL}{escape(v)}</td></tr>" for n, v in rows) + "</table>"
    )
    if last:
        text.append("how it scores held-out completions, the ranker's best first")
        text += [f"  {quoted(s['prompt'])} {quoted(s['text'])} {TOKEN} {about(s['reward'], 2)}" for s in last]
        html.append(slide(last))
    metadata = {
        "steps": [[e["step"], e["loss"], e["accuracy"]] for e in steps],
        "evaluations": [
            [e["step"], e["val_loss"], e["accuracy"], e["low"], e["high"], e["calibration"]] for e in evaluations
        ],
        "samples": [[s["prompt"], s["text"], s["reward"]] for s in last],
        "warnings": alarms,
        "figures": rows,
    }
    data = {
        "view": "reward",
        "name": run.name,
        "status": run.status,
        "base": run.recipe["base"],
        "rankings": run.recipe["rankings"],
    }
    return Bundle("\n".join(text), "\n".join(html), data, metadata)


def figures(run, start: dict, steps: list[dict], evaluations: list[dict]) -> list[tuple[str, str]]:
    """The numbers of the run, named; those that depend on the machine are marked."""
    last = evaluations[-1] if evaluations else {}
    accuracy = "–"
    if last:
        low, high = about(100 * last["low"], 1), about(100 * last["high"], 1)
        accuracy = f"{about(100 * last['accuracy'], 1)}% (95% interval {low} to {high}%) at step {step_of(run, last)}"
    return [
        ("training loss", f"{about(training_loss(steps))} nats per choice, {MEAN}"),
        ("validation loss", f"{about(last.get('val_loss'))} nats per choice at step {step_of(run, last)}"),
        ("held-out accuracy", accuracy),
        ("held out", f"{last.get('pairs', 0):,} pairs of {last.get('rankings', 0):,} rankings"),
        ("learned from", f"{start.get('rankings', 0):,} rankings, {start.get('cut', 0):,} of them shortened"),
        ("time", f"{about(steps[-1]['seconds'] if steps else None, 0)} s on {quoted(start.get('device', '?'))}"),
    ]


def described(evaluations: list[dict]) -> str:
    """What the pictures show, in words."""
    last = evaluations[-1] if evaluations else {"calibration": [], "accuracy": 0.0}
    bins = "; ".join(f"sure {sure:.0%}, right {share:.0%} of {count}" for sure, share, count in last["calibration"])
    return f"loss, held-out accuracy ({last['accuracy']:.0%} at the end) and calibration: {bins}"


def picture(steps: list[dict], evaluations: list[dict], alarms: list[dict]) -> bytes:
    """A PNG: loss, accuracy on held-out pairs with its interval, and the reliability diagram."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 2.3), dpi=180, facecolor="none")
    loss, accuracy, sure = (figure.add_subplot(1, 3, n, facecolor="none") for n in (1, 2, 3))
    draw(loss, Panel("loss, nats per choice", points(steps, "loss"), points(evaluations, "val_loss")))
    for alarm in alarms:
        loss.axvline(alarm["step"], color=RED, linewidth=0.9, alpha=0.8)
    draw(accuracy, Panel("held-out accuracy", (), points(evaluations, "accuracy")))
    if evaluations:
        x, low, high = zip(*((e["step"], e["low"], e["high"]) for e in evaluations), strict=True)
        accuracy.fill_between(x, low, high, color=VALIDATION, alpha=0.18, linewidth=0)
        accuracy.set_ylim(min(0.45, *low), 1.01)
    draw(sure, Panel("right, by how sure it is", ()))
    sure.plot([0.5, 1], [0.5, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    found = evaluations[-1]["calibration"] if evaluations else []
    if found:
        most = max(count for *_, count in found)
        sure.scatter(
            [b[0] for b in found],
            [b[1] for b in found],
            s=[10 + 60 * b[2] / most for b in found],
            color=TRAIN,
            zorder=3,
        )
        sure.plot([b[0] for b in found], [b[1] for b in found], color=TRAIN, linewidth=1.2)
    sure.set_xlim(0.48, 1.02)
    sure.set_ylim(-0.03, 1.05)
    figure.tight_layout()
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()


def slide(samples: Sequence[dict]) -> str:
    """Rows of prompt, completion, reward token and score, coloured from the worst of all shown to the best."""
    low, high = min(s["reward"] for s in samples), max(s["reward"] for s in samples)
    rows, before = [], None
    for s in samples:
        share = (s["reward"] - low) / (high - low) if high > low else 0.5
        shade = f"background:rgba({round(208 - 148 * share)},{round(69 + 90 * share)},69,0.35)"
        prompt = plain(s["prompt"]) if s["prompt"] != before else ""
        before = s["prompt"]
        rows.append(
            f'<tr><td style="text-align:left;vertical-align:top;color:{GREY}">{prompt}</td>'
            f'<td style="text-align:left;vertical-align:top">{plain(s["text"])} <b '
            f'style="color:{VALIDATION}">{TOKEN}</b></td>'
            f'<td style="text-align:right;vertical-align:top;{shade}">{s["reward"]:.2f}</td></tr>'
        )
    head = "".join(
        f'<th style="text-align:{side}">{word}</th>'
        for word, side in (("prompt", "left"), (f"completion and reward token {TOKEN}", "left"), ("score", "right"))
    )
    return f"<table><tr>{head}</tr>{marked(''.join(rows))}</table>"
