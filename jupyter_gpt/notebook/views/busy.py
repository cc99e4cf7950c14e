"""Says again that a cell runs, after a message was answered on a subshell meanwhile.

The end of each message tells every page that the kernel is idle, and JupyterLab shows that until the cell ends.
"""

from __future__ import annotations

import threading
from typing import Any


class RunningCell:
    """The cell that the main shell of `ip` runs."""

    def __init__(self, ip: Any):
        self.ip, self.lock = ip, threading.Lock()
        self.request: dict | None = None
        self.publish = ip.kernel._publish_status
        ip.kernel._publish_status = self.tell
        ip.events.register("pre_run_cell", self.begun)
        ip.events.register("post_run_cell", self.ended)

    def close(self) -> None:
        self.request = None
        del self.ip.kernel._publish_status
        self.ip.events.unregister("pre_run_cell", self.begun)
        self.ip.events.unregister("post_run_cell", self.ended)

    def begun(self, info: Any = None) -> None:
        if threading.current_thread() is threading.main_thread():  # and not a cell of a subshell's console
            request = self.ip.kernel.get_parent()
            if request.get("msg_type") == "execute_request":  # there is none while the kernel starts
                self.request = request

    def ended(self, result: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            with self.lock:
                self.request = None

    def tell(self, status: str, *channel: Any, **parent: Any) -> None:
        """Tells the status as the kernel does, and after an "idle" that the cell still runs."""
        self.publish(status, *channel, **parent)
        with self.lock:  # so that it comes before the end of that cell
            if status == "idle" and self.request is not None:
                self.publish("busy", "shell", parent=self.request)


_cell: RunningCell | None = None


def running_cell(ip: Any) -> None:
    """From now on the kernel of a shell says again that its cell runs; nothing where it has no kernel, or does so."""
    global _cell
    if _cell is None and getattr(ip, "kernel", None) is not None:
        _cell = RunningCell(ip)
        _cell.begun()  # the cell that calls this


def forget() -> None:
    """Takes away what `running_cell` registered."""
    global _cell
    if _cell is not None:
        _cell.close()
        _cell = None
