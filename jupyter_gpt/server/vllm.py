"""`vllm serve` on the folder of a model: started, waited for, stopped. No GPU has run this; a stand-in for vLLM has."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from jupyter_gpt.errors import GPTError
from jupyter_gpt.server.server import HOST, listen
from jupyter_gpt.server.supervisor import GRACE

LONGEST = 200  # characters of its own words that an error has room for
LOOK = 0.25  # seconds between two looks at whether the server is up


class VLLM:
    """A vLLM server of one model, on loopback alone: whoever reaches its development API can change its weights.

    url: a client's base URL.  endpoint: the name it is an endpoint by.  log: the file with what it prints.
    """

    def __init__(self, name: str, folder: Path, endpoint: str, log: Path, port: int | None, arguments: str | None):
        self.name, self.endpoint, self.log, self.arguments = name, endpoint, log, arguments
        self.requested_port, self.port = port or 0, free_port(port)  # 0: any free one
        command = [*executable(), "serve", str(folder), "--served-model-name", name, "--host", HOST]
        command += ["--port", str(self.port), "--generation-config", "vllm", *split(arguments)]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyter_gpt.server.supervisor", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "VLLM_SERVER_DEV_MODE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            )

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self) -> None:
        """Until it is healthy. Raises GPTError, one line, if it ends before."""
        try:
            while not healthy(self.port):
                if not self.running:
                    raise GPTError(f"vLLM ended while it started: {last_error(self.log)} (all it printed: {self.log})")
                time.sleep(LOOK)
        except BaseException:  # an interrupt too
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and its workers, and wait for that."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(GRACE + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()


def executable() -> list[str]:
    """The command of vLLM: that beside this Python, else the one in PATH. Raises GPTError where there is none."""
    found = shutil.which("vllm", path=str(Path(sys.executable).parent)) or shutil.which("vllm")
    if found is None:
        raise GPTError("vLLM is not installed: pip install 'jupyter_gpt[vllm]' (it needs Linux and, in general, a GPU)")
    return [found]


def split(arguments: str | None) -> Sequence[str]:
    try:
        return shlex.split(arguments or "")
    except ValueError as error:
        raise GPTError(f"--vllm-args {arguments!r} cannot be split into words: {error}") from error


def free_port(port: int | None) -> int:
    """`port`, or any that is free. Raises GPTError where it is taken."""
    sockets = listen(HOST, port or 0)
    found = sockets[0].getsockname()[1]
    for each in sockets:
        each.close()
    return found


def healthy(port: int) -> bool:
    """Whether a server says that it is."""
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{HOST}:{port}/health", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def last_error(log: Path) -> str:
    """The last line that names an error, else the last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error:" in line]
    return (errors or lines or ["it printed nothing"])[-1][:LONGEST]
