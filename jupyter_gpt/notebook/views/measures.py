"""What alignment gained and what it cost: base, start and aligned model in one table and one picture."""

from __future__ import annotations

import io

from jupyter_gpt.notebook.views.bundle import about, escape, image, plain_label, quoted
from jupyter_gpt.notebook.views.curve import CELL, GREY, TRAIN, VALIDATION

COLUMNS = (
    ("win_rate", "win rate", 2),
    ("reward", "mean reward", 2),
    ("perplexity", "perplexity", 2),
    ("entropy", "entropy", 2),
    ("distinct_1", "distinct-1", 2),
    ("distinct_2", "distinct-2", 2),
    ("self_bleu", "self-BLEU", 2),
    ("identical", "identical", 2),
)
MEANING = (
    "win rate: against the start, by the reward, with its 95% interval; perplexity: of what the start says; "
    "entropy: nats a "
    "token; distinct-n: share of different n-grams; self-BLEU and identical: how alike samples of one prompt are"
)


def cell(row: dict, key: str, digits: int) -> str:
    """One figure, marked; a win rate with its interval."""
    if row.get(key) is None:
        return "–"
    if key == "win_rate" and row.get("win_low") is not None:
        return f"{about(row[key], digits)} ({about(row['win_low'], digits)} to {about(row['win_high'], digits)})"
    return about(row[key], digits)


def measures_text(event: dict) -> list[str]:
    """The table as lines of text."""
    lines = [f"what it gained and what it cost, on {event['prompts']} prompts × {event['samples']} samples"]
    for row in event["rows"]:
        said = ", ".join(
            f"{title} {cell(row, key, digits)}" for key, title, digits in COLUMNS if row.get(key) is not None
        )
        lines.append(f"  {row['model']} ({row['stage']}): {said}")
    return lines


def measures_html(event: dict) -> str:
    """The table and its picture."""
    shown = [column for column in COLUMNS if any(row.get(column[0]) is not None for row in event["rows"])]
    head = "".join(f'<th style="text-align:right">{escape(title)}</th>' for _, title, _ in shown)
    body = "".join(
        f"<tr>{CELL}<b>{escape(row['model'])}</b> {escape(row['stage'])}</td>"
        + "".join(f'<td style="text-align:right">{escape(cell(row, key, digits))}</td>' for key, _, digits in shown)
        + "</tr>"
        for row in event["rows"]
    )
    said = f"what it gained and what it cost, on {event['prompts']} prompts × {event['samples']} samples"
    drawn = image(picture(event), "; ".join(measures_text(event)[1:]).replace(quoted(""), ""), 640)
    return f"<p>{said}</p><table><tr><th></th>{head}</tr>{body}</table><p style='color:{GREY}'>{MEANING}</p>{drawn}"


def picture(event: dict) -> bytes:
    """A PNG: each measure as bars, one a model; higher is better to the left, more varied to the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = event["rows"]
    shown = [c for c in COLUMNS if any(row.get(c[0]) is not None for row in rows)]
    figure = Figure(figsize=(7.6, 1.9), dpi=180, facecolor="none")
    shades = [GREY, TRAIN, VALIDATION][-len(rows) :]
    for number, (key, title, _) in enumerate(shown, start=1):
        axes = figure.add_subplot(1, len(shown), number, facecolor="none")
        values = [row.get(key) or 0.0 for row in rows]
        axes.bar(range(len(rows)), values, color=shades, width=0.75)
        if key == "win_rate":
            axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
            for place, row in enumerate(rows):
                if row.get("win_low") is not None:
                    axes.plot([place, place], [row["win_low"], row["win_high"]], color=GREY, linewidth=1.2)
            axes.set_ylim(0, 1)
        axes.set_title(title, color=GREY, fontsize=7)
        axes.set_xticks(
            range(len(rows)), [plain_label(row["stage"]) for row in rows], rotation=60, fontsize=6, color=GREY
        )
        axes.tick_params(colors=GREY, labelsize=6)
        for side, spine in axes.spines.items():
            spine.set_color(GREY)
            spine.set_visible(side in ("left", "bottom"))
    figure.tight_layout(w_pad=0.3)
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()
