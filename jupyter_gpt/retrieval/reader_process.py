"""Documents read in a process of their own, which is ended when one takes too long.

A parser that never ends on a damaged or hostile file, or a server that sends a byte a second, then costs one document
and not the kernel. The process starts with the first document and reads one after the other: a request and a reply are
one line of JSON each.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from jupyter_gpt.retrieval.document_sources import Item
from jupyter_gpt.retrieval.read import Document, Mark, Unreadable

SECONDS = 60.0  # that reading one document may take
MEMORY = 4 << 30  # bytes that the process may use, where the system can limit it
LOOK = 0.005  # seconds that `Reading.done` waits


class Reader:
    """Reads documents one at a time; close it after the last. `seconds` is the limit for each."""

    def __init__(self, seconds: float = SECONDS):
        self.seconds = seconds
        self.process: subprocess.Popen | None = None
        self.pool = ThreadPoolExecutor(1, "jupyter_gpt-reader")

    def start(self, item: Item) -> Reading:
        """Begin to read a document."""
        return Reading(self, self.pool.submit(self.ask, item))

    def ask(self, item: Item) -> Document:
        """The document, when it has been read. Raises Unreadable."""
        if item.text is not None:
            return item.load()
        if self.process is None:
            code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt of the kernel is not meant for it
            )
        process, reply = self.process, b""
        request = {"source": item.source, "path": item.path and str(item.path.absolute()), "seconds": self.seconds}
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            reply = process.stdout.readline()
        if not reply:  # it was ended, by `Reading.end` or by the system
            self.kill()
            raise Unreadable(f"could not be read: its reader ended with exit code {process.returncode}")
        read = json.loads(reply)
        if "unreadable" in read:
            raise Unreadable(read["unreadable"])
        return Document(read["text"], tuple(Mark(*mark) for mark in read["marks"]), tuple(read["notes"]))

    def kill(self) -> None:
        """End the process; the next document starts another."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def close(self) -> None:
        """End the process and the thread that waits for it."""
        self.kill()
        self.pool.shutdown()


class Reading:
    """A document that is being read."""

    def __init__(self, reader: Reader, future: Future):
        self.reader, self.future = reader, future
        self.late = time.monotonic() + reader.seconds
        self.result: Callable[[], Document] = future.result

    def done(self) -> bool:
        """Whether it has been read, looked at for `LOOK` seconds. Raises Unreadable when it takes too long."""
        if wait([self.future], LOOK).done:
            return True
        if time.monotonic() > self.late:
            self.end()
            raise Unreadable(f"took longer than {self.reader.seconds:g} s to read")
        return False

    def wait(self) -> Document:
        """The document. Raises Unreadable."""
        try:
            while not self.done():
                pass
        except KeyboardInterrupt:
            self.end()
            raise
        return self.result()

    def end(self) -> None:
        """Stop reading it."""
        if self.reader.process is not None:
            self.reader.process.kill()
        wait([self.future])


def serve() -> None:
    """The process: documents from stdin to stdout until stdin ends."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no reply
    for line in sys.stdin.buffer:
        request = json.loads(line)
        path = request["path"]
        if hasattr(signal, "alarm"):  # the system's own clock: it also ends a process whose kernel is gone
            signal.alarm(int(request["seconds"]) + 2)
        try:
            document = Item(request["source"], path and Path(path)).load()
            reply = {"text": document.text, "marks": document.marks, "notes": document.notes}
        except Unreadable as error:
            reply = {"unreadable": str(error)}
        except (MemoryError, RecursionError) as error:
            reply = {"unreadable": f"cannot be read: {type(error).__name__} in its parser"}
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        out.write(json.dumps(reply) + "\n")
        out.flush()
