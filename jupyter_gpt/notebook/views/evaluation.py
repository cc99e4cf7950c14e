"""What techniques are worth, as a table, a picture of accuracy against cost, and a recommendation in words."""

from __future__ import annotations

import io

from jupyter_gpt.evaluation.measured import Setting, front, price, recommended
from jupyter_gpt.notebook.views.bundle import Bundle, about, image, marked, plain, plain_label, quoted
from jupyter_gpt.notebook.views.completion import QUIET
from jupyter_gpt.notebook.views.curve import GREY, TRAIN, VALIDATION
from jupyter_gpt.notebook.views.table import html_table, text_table

HEAD = ("model", "technique", "right", "accuracy", "95% interval", "tokens in", "out", "seconds", "dollars")
SIDES = "llrrrrrrr"


def evaluation_bundle(evaluation) -> Bundle:
    """Tokens, seconds and dollars are those of one question, on average."""
    task, settings = evaluation.task, evaluation.settings
    title = f"{task.name}: {len(task.questions):,} questions"
    if not settings:
        text = f"{title}\nstopped before anything was answered: run it again to go on"
        return Bundle(text, f"<p>{plain(text)}</p>", {"view": "evaluation", "task": task.name})
    rows = [row_of(s) for s in settings]
    lines = [*words(settings), *notes(evaluation)]
    text = "\n".join([title, text_table(HEAD, rows, SIDES), "", *map(quoted, lines)])
    picture = image(pareto_picture(settings), f"accuracy against {price(settings)[0]}: {lines[0]}", 640)
    html = (
        f"<p><b>{plain(title)}</b></p>{html_table(HEAD, rows, SIDES)}{marked(alt_safe(picture))}"
        f"<p>{'<br>'.join(marked(plain(line)) for line in lines)}</p>"
        f'<p style="{QUIET}">tokens, seconds and dollars are those of one question; seconds are its share of the '
        f"batches it "
        "was in</p>"
    )
    data = {"view": "evaluation", "task": task.name, "settings": [[s.model, s.technique] for s in settings]}
    return Bundle(text, html, data, {"rows": evaluation.rows, "settings": [vars(s) for s in settings]})


def alt_safe(html: str) -> str:
    return html.replace("«", "&laquo;").replace("»", "&raquo;")


def row_of(s: Setting) -> tuple[str, ...]:
    low, high = s.interval
    each = max(1, s.count)
    dollars = "unpriced" if s.cost is None else about(s.cost / each, 6)
    return (
        s.model,
        s.technique,
        f"{about(s.right, 0)} of {about(s.count, 0)}",
        f"{about(100 * s.accuracy, 1)}%",
        f"{about(100 * low, 1)} to {about(100 * high, 1)}",
        about(s.tokens_in / each, 0),
        about(s.tokens_out / each, 0),
        about(s.seconds / each, 2),
        dollars,
    )


def words(settings: list[Setting]) -> list[str]:
    """The recommendation."""
    best, cheap = recommended(settings)
    unit, costs = price(settings)
    cost = dict(zip(settings, costs, strict=True))
    low, high = best.interval
    said = (
        f"best: {best.name}, {100 * best.accuracy:.1f}% ({100 * low:.1f} to {100 * high:.1f}), {cost[best]:.4g} {unit}"
    )
    if cheap is best:
        return [said, "nothing cheaper is within its interval"]
    share = f", {cost[cheap] / cost[best]:.0%} of the cost" if cost[best] else ""
    return [
        said,
        f"cheapest within its interval: {cheap.name}, {100 * cheap.accuracy:.1f}%, {cost[cheap]:.4g} {unit}{share}",
    ]


def notes(evaluation) -> list[str]:
    """What is missing."""
    said = [f"no answer could be read in: {', '.join(map(unread, evaluation.settings))}; such replies count as wrong"]
    if not evaluation.whole and not evaluation.errors:
        said.append(f"stopped: {len(evaluation.rows):,} of {evaluation.wanted:,} answered; run it again to go on")
    if evaluation.errors:
        said.append(f"{len(evaluation.errors):,} questions could not be asked; the first: {evaluation.errors[0]}")
    return said


def unread(s: Setting) -> str:
    """How many replies of a setting had no answer; always told, so that none is told too."""
    cut = f" ({s.cut:,} cut off at --max-tokens)" if s.cut else ""
    return f"{s.silent:,} of {s.count:,} of {s.name}{cut}"


def pareto_picture(settings: list[Setting]) -> bytes:
    """A PNG: each setting at its cost and accuracy with its interval, a line through those that nothing beats."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    unit, costs = price(settings)
    cost = dict(zip(settings, costs, strict=True))
    best = front(settings)
    figure = Figure(figsize=(7.2, 3.4), dpi=180, facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.plot([cost[s] for s in best], [100 * s.accuracy for s in best], color=TRAIN, linewidth=1.2, alpha=0.6)
    for s in settings:
        y, (low, high) = 100 * s.accuracy, s.interval
        colour = VALIDATION if s in best else GREY
        axes.errorbar(
            cost[s],
            y,
            [[max(0, y - 100 * low)], [max(0, 100 * high - y)]],
            fmt="o",
            color=colour,
            markersize=5,
            linewidth=1,
            capsize=2,
        )
        axes.annotate(plain_label(s.name), (cost[s], y), (6, 4), textcoords="offset points", fontsize=7, color=GREY)
    if all(value > 0 for value in costs):
        axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.set_xlabel(unit, color=GREY)
    axes.set_ylabel("accuracy, %", color=GREY)
    axes.tick_params(colors=GREY, labelsize=8, which="both")
    axes.grid(color=GREY, alpha=0.2, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_color(GREY)
        spine.set_visible(side in ("left", "bottom"))
    figure.tight_layout()
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()
