"""What a classifier's run leaves behind: its figures with intervals, and the confusion matrix as a picture and in
text.
"""

from __future__ import annotations

import io

from jupyter_gpt.notebook.views.bundle import Bundle, about, escape, image, plain_label, quoted
from jupyter_gpt.notebook.views.curve import CELL, GREY, lines
from jupyter_gpt.notebook.views.run_head import alarm_html, alarm_lines, alarms_of, heading, step_of
from jupyter_gpt.notebook.views.table import html_table, text_table
from jupyter_gpt.runs.run_figures import MEAN, training_loss

MOST = 12  # labels named in the picture


def run_bundle(run) -> Bundle:
    """The static bundle of a classifier's run as it stands."""
    start = next((e for e in run.events if e["event"] == "start"), None)
    steps = [e for e in run.events if e["event"] == "step"]
    evaluations = [e for e in run.events if e["event"] == "evaluation"]
    samples = [e for e in run.events if e["event"] == "sample"]
    title, alarms = heading(run, "classifier"), alarms_of(run)
    text = [title, made_of(run.recipe), *alarm_lines(alarms)]
    html = [f"<p><b>{escape(title)}</b><br>{escape(made_of(run.recipe))}</p>", *alarm_html(alarms)]
    rows = figures(run, start, steps, evaluations)
    wide = max((len(name) for name, _ in rows), default=0)
    text += [f"  {name:<{wide}}  {value}" for name, value in rows]
    html.append(
        "<table>" + "".join(f"<tr>{CELL}{escape(n)}</td>{CELL}{escape(v)}</td></tr>" for n, v in rows) + "</table>"
    )
    if start and evaluations:
        head, table = matrix(start["labels"], evaluations[-1]["confusion"])
        text += [
            "",
            "what it is (rows) and what was said (columns)",
            text_table(head, table, "l" + "r" * (len(head) - 1)),
        ]
        html.append(image(picture(start["labels"], evaluations), described(start["labels"], evaluations[-1]), 640))
        html.append(
            f"<details><summary>the numbers</summary>{html_table(head, table, 'l' + 'r' * (len(head) - 1))}</details>"
        )
    last = [s for s in samples if s["step"] == samples[-1]["step"]] if samples else []
    if last:
        text += ["", *(f"  {quoted(s['prompt'])} {quoted(s['text'])}" for s in last)]
        html.append(
            "<table>"
            + "".join(
                f"<tr>{CELL}{lines(quoted(s['prompt']))}</td>{CELL}{lines(quoted(s['text']))}</td></tr>" for s in last
            )
            + "</table>"
        )
    metadata = {
        "steps": [[e["step"], e["loss"]] for e in steps],
        "warnings": alarms,
        "figures": rows,
        "evaluations": [
            {key: e[key] for key in ("step", "val_loss", "accuracy", "f1", "confusion")} for e in evaluations
        ],
    }
    data = {
        "view": "classify",
        "name": run.name,
        "status": run.status,
        "base": run.recipe["base"],
        "labels": start["labels"] if start else [],
    }
    return Bundle("\n".join(text), "\n".join(html), data, metadata)


def made_of(recipe: dict) -> str:
    """What is finetuned and how, in one line."""
    if recipe["from_scratch"]:
        return f"the architecture of {recipe['base']} from random weights, {recipe['batch']} texts a step"
    how = f"an adapter of rank {recipe['lora']} and a head on" if recipe["lora"] else "a head and all weights of"
    return f"{how} {recipe['base']}, {recipe['batch']} texts a step"


def figures(run, start: dict | None, steps: list[dict], evaluations: list[dict]) -> list[tuple[str, str]]:
    """The numbers of the run, named; those that depend on the machine are marked."""
    rows = []
    if evaluations:
        last = evaluations[-1]
        low, high, at = about(100 * last["low"], 1), about(100 * last["high"], 1), f"at step {step_of(run, last)}"
        rows += [
            ("accuracy", f"{about(100 * last['accuracy'], 1)}%, 95% interval {low} to {high}, {at}"),
            (
                "macro F1",
                f"{about(last['f1'])}, 95% interval {about(last['f1_low'])} to {about(last['f1_high'])}, {at}",
            ),
            ("validation loss", f"{about(last['val_loss'])} nats per text {at}"),
        ]
    if steps:
        rows.append(("training loss", f"{about(training_loss(steps))} nats per text, {MEAN}"))
    if start:
        rows += [
            ("texts", f"{start['texts']:,} to learn from, {start['held_out']:,} held out, {start['cut']:,} cut"),
            ("parameters trained", f"{start['trained']:,} of {start['parameters']:,}"),
        ]
        if start.get("skipped"):
            rows.append(("rows skipped", f"{start['skipped']:,}, the first: {start['first_skipped']}"))
    if steps:
        where = f"{start['device']}, {start['dtype']}" if start else "?"
        rows.append(("time", f"{about(steps[-1]['seconds'], 0)} s on {quoted(where)}"))
    return rows


def matrix(labels: list[str], counts: list[list[int]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The confusion matrix as a table with its sums."""
    head = ("", *labels, "in all")
    return head, [
        (label, *(about(n, 0) for n in row), f"{sum(row):,}") for label, row in zip(labels, counts, strict=True)
    ]


def described(labels: list[str], last: dict) -> str:
    """What the picture shows, in words."""
    right = sum(last["confusion"][n][n] for n in range(len(labels)))
    return (
        f"confusion matrix of {', '.join(labels[:MOST])}: {about(right, 0)} of {sum(map(sum, last['confusion']))} right"
    )


def picture(labels: list[str], evaluations: list[dict]) -> bytes:
    """A PNG: the confusion matrix, each row as shares, and accuracy over the steps beside it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = evaluations[-1]["confusion"]
    figure = Figure(figsize=(7.2, 3.0), dpi=180, facecolor="none")
    left, right = figure.subplots(1, 2)
    shares = [[n / max(1, sum(row)) for n in row] for row in counts]
    left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= MOST:
        for y, row in enumerate(counts):
            for x, n in enumerate(row):
                left.text(
                    x,
                    y,
                    f"{n:,}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if shares[y][x] > 0.5 else "#555555",
                )
        names = [plain_label(label[:12]) for label in labels]
        left.set_xticks(range(len(labels)), names, rotation=30 if len(labels) > 3 else 0)
        left.set_yticks(range(len(labels)), names)
    left.set_xlabel("said", color=GREY)
    left.set_ylabel("is", color=GREY)
    x, y = [e["step"] for e in evaluations], [100 * e["accuracy"] for e in evaluations]
    right.plot(x, y, color="#e07b39", marker="o", markersize=4, linewidth=1.4)
    right.fill_between(
        x,
        [100 * e["low"] for e in evaluations],
        [100 * e["high"] for e in evaluations],
        color="#e07b39",
        alpha=0.2,
        linewidth=0,
    )
    right.set_xlabel("step", color=GREY)
    right.set_ylabel("accuracy, %", color=GREY)
    right.grid(color=GREY, alpha=0.2, linewidth=0.6)
    for axes in (left, right):
        axes.set_facecolor("none")
        axes.tick_params(colors=GREY, labelsize=8)
        for side, spine in axes.spines.items():
            spine.set_color(GREY)
            spine.set_visible(side in ("left", "bottom"))
    figure.tight_layout()
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()
