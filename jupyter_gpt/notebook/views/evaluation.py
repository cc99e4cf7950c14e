"""What techniques are worth, as a table, a picture of accuracy against cost, and a recommendation in words."""

from __future__ import annotations

from jupyter_gpt.evaluation.cost_accuracy import Setting, front, price, recommended
from jupyter_gpt.report import charts
from jupyter_gpt.report.parts import Chart, Inline, Paragraph, Table, Varies
from jupyter_gpt.report.report import Report

HEAD = ("model", "technique", "correct", "accuracy", "95% interval", "tokens in", "out", "seconds", "dollars")
SIDES = "llrrrrrrr"


def evaluation_report(evaluation) -> Report:
    """Tokens, seconds and dollars are those of one question, on average."""
    task, settings = evaluation.task, evaluation.settings
    title, data = f"{task.name}: {len(task.questions):,} questions", {"view": "evaluation", "task": task.name}
    if not settings:
        return Report(title, [Paragraph("stopped before the first answer: run the cell again to continue")], data)
    lines = [*words(settings), *notes(evaluation)]
    return Report(
        title,
        [
            Table(HEAD, [row_of(s) for s in settings], SIDES),
            Chart(lambda: pareto_picture(settings), f"accuracy against {price(settings)[0]}: {lines[0]}"),
            *(Paragraph(Varies(line)) for line in lines),
            Paragraph("tokens, seconds and dollars are per question; seconds are its share of its batch", "quiet"),
        ],
        data | {"settings": [[s.model, s.technique] for s in settings]},
        {"rows": evaluation.rows, "settings": [vars(s) for s in settings]},
    )


def row_of(s: Setting) -> tuple[Inline, ...]:
    (low, high), each = s.interval, max(1, s.count)
    return (
        s.model,
        s.technique,
        [Varies(s.right), " of ", Varies(s.count)],
        [Varies(100 * s.accuracy, 1), "%"],
        [Varies(100 * low, 1), " to ", Varies(100 * high, 1)],
        Varies(s.tokens_in / each, 0),
        Varies(s.tokens_out / each, 0),
        Varies(s.seconds / each, 2),
        "unpriced" if s.cost is None else Varies(s.cost / each, 6),
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
    said = [f"replies without a readable answer: {', '.join(map(unread, evaluation.settings))}; they count as wrong"]
    if not evaluation.whole and not evaluation.errors:
        said.append(
            f"stopped: {len(evaluation.rows):,} of {evaluation.wanted:,} answered; run the cell again to continue"
        )
    if evaluation.errors:
        said.append(f"{len(evaluation.errors):,} questions could not be asked; the first: {evaluation.errors[0]}")
    return said


def unread(s: Setting) -> str:
    """How many replies of a setting had no answer; always told, so that none is told too."""
    cut = f" ({s.cut:,} stopped at --max-tokens)" if s.cut else ""
    return f"{s.silent:,} of {s.count:,} of {s.name}{cut}"


def pareto_picture(settings: list[Setting]):
    """Each setting at its cost and accuracy with its interval, a line through those that nothing beats."""
    unit, costs = price(settings)
    cost, best = dict(zip(settings, costs, strict=True)), front(settings)
    figure, (axes,) = charts.figure(7.2, 3.4)
    axes.plot([cost[s] for s in best], [100 * s.accuracy for s in best], color=charts.BLUE, linewidth=1.2, alpha=0.6)
    for s in settings:
        y, (low, high) = 100 * s.accuracy, s.interval
        error = [[max(0, y - 100 * low)], [max(0, 100 * high - y)]]
        colour = charts.ORANGE if s in best else charts.GREY
        axes.errorbar(cost[s], y, error, fmt="o", color=colour, markersize=5, linewidth=1, capsize=2)
        axes.annotate(charts.label(s.name), (cost[s], y), (6, 4), textcoords="offset points", fontsize=7, color=colour)
    if all(value > 0 for value in costs):
        axes.set_xscale("log")
    axes.margins(x=0.25)
    charts.style(axes, unit, "accuracy, %")
    return figure
