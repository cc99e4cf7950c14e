"""`python -m jupyter_gpt.server.supervisor COMMAND…`: run a server as long as whoever started this has it run.

The server gets a session of its own, so that the notebook's ■ does not reach it. It ends with its whole group, its
workers too, when this process's standard input closes: by `stop`, or because the kernel is gone, however it died.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 10.0  # seconds from SIGTERM to SIGKILL


def main(command: list[str]) -> int:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def end_with_the_kernel() -> None:
        sys.stdin.read()
        end(process)

    threading.Thread(target=end_with_the_kernel, daemon=True).start()
    code = process.wait()
    end(process)  # workers that outlive it
    return code


def end(process: subprocess.Popen) -> None:
    """End the group of `process`: first politely."""
    for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 1.0)):
        until = time.monotonic() + seconds
        try:
            os.killpg(process.pid, number)
            while time.monotonic() < until:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.05)
        except (ProcessLookupError, PermissionError):  # none is left; on macOS the second is said of zombies
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
