"""A line of progress for work that is not a run, a download or an index: what is done, how much, how long it may
take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jupyter_gpt.notebook.views import place
from jupyter_gpt.report.html import escape
from jupyter_gpt.report.report import Report

PERIOD = 0.2  # seconds between two updates


def megabytes(done: int, total: int | None) -> str:
    return f"{done / 1e6:,.0f} MB" + (f" of {total / 1e6:,.0f} MB" if total else "")


def percent(done: int, total: int | None) -> str:
    return f"{done / total:.0%}" if total else ""


def count_of(what: str) -> Callable[[int, int], str]:
    return lambda done, total: f"{done:,} of {total:,} {what}"


@contextmanager
def progress_line(
    amount: Callable[[int, Any], str] = megabytes,
) -> Iterator[tuple[Progress | None, Callable[[Report], object]]]:
    """A line of progress while the block works, and the function that shows its report: in the place of the line.

    Without a live front end there is no line (None), and the report is displayed.
    """
    from IPython.display import display

    if not place.is_live():
        yield None, display
        return
    bar, left = Progress(amount), []
    try:
        yield bar, left.append
    finally:
        bar.close(left[0] if left else None)


class Progress:
    """Called as `progress(what, done, total)`; draws itself in the cell, and `close` takes it away.

    `amount(done, total)` puts into words how much is done.
    """

    def __init__(self, amount: Callable[[int, Any], str] = megabytes):
        from IPython.display import display

        self.handle: Any = display({"text/plain": ""}, raw=True, display_id=True)
        self.what, self.began, self.had, self.drawn, self.amount = "", time.monotonic(), 0, 0.0, amount

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if what != self.what:
            self.what, self.began, self.had = what, now, done  # what was there before took none of this time
        elif now - self.drawn < PERIOD:
            return
        self.drawn = now
        line = f"{what}: {self.amount(done, total)}"
        bar = "<progress></progress>"
        if total:
            bar = f'<progress value="{done}" max="{total}"></progress>'
            if self.had < done < total and now - self.began > 1:
                line += f", {(now - self.began) * (total - done) / (done - self.had):,.0f} s left"
        html = f'<p role="status">{bar} {escape(line)}</p>'
        self.handle.update({"text/plain": line, "text/html": html}, raw=True)

    def close(self, report: Report | None = None) -> None:
        """Put what came in the place of the line, or nothing."""
        self.handle.update(report.mime() if report else {"text/plain": "", "text/html": ""}, raw=True)
