"""What magics need of the notebook they run in: the id of the cell, and the display of reports and runs."""

from __future__ import annotations

from jupyter_gpt.runs.provenance import cell_of


def cell_id(ip) -> str | None:
    """Which cell is running, as the front end names it; None where it does not say (nbclient, a terminal)."""
    parent = ip.get_parent() if hasattr(ip, "get_parent") else None
    return cell_of((parent or {}).get("metadata") or {})


def show(report: object) -> None:
    """Displays a report, once."""
    from IPython.display import display

    display(report)


def say(*content) -> None:
    """Displays a line of inline content, some of which may vary."""
    from jupyter_gpt.report.parts import Paragraph
    from jupyter_gpt.report.report import Report

    show(Report("", [Paragraph(content)]))


def watch(run, overlays: list | tuple = (), background: bool = False) -> None:
    """Shows a run until it ends, or in the background.

    Any error of the view, or a second interrupt, also stops the run gracefully: a cell that has ended leaves nothing
    training except in the background.
    """
    from jupyter_gpt.notebook.views.follow import follow
    from jupyter_gpt.notebook.views.run_report import run_report

    try:
        follow(run, lambda run: run_report(run, overlays), overlays=overlays, background=background)
    except BaseException:
        if run.alive and not background:
            run.stop()
        raise
