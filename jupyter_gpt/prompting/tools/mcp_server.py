"""Tools of MCP servers (Model Context Protocol), by the official SDK: `mcp:COMMAND …`, or `mcp:URL` over HTTP.

A server is started, or connected to, at its first use and stays for the next cells; one that has died is started again
by the next call. It runs with the notebook's rights: its calls are shown for approval as those of any tool that writes,
unless the server says of a tool that it only reads. The model is told texts; an image is named and left out, for a
language model cannot see it.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import logging
import re
import shlex
import tempfile
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Waited
from pathlib import Path
from typing import Any

from jupyter_gpt.errors import GPTError
from jupyter_gpt.imports import without_iri_grammar
from jupyter_gpt.prompting.tools import mcp_http
from jupyter_gpt.prompting.tools.call import Failed
from jupyter_gpt.prompting.tools.tool import NAME, Tool, to_json

PREFIX = "mcp:"
STARTING = 30.0  # seconds in which a server has to say which tools it has
CALLING = 60.0  # seconds of a call
LEAVING = 5.0  # seconds in which it has to end
servers: dict[str, Server] = {}


def tools_of(given: str) -> list[Tool]:
    """The tools of the server `mcp:COMMAND …` or `mcp:URL`. Raises GPTError, one line, where there is none."""
    address = given.removeprefix(PREFIX).strip()
    if not address:
        raise GPTError("mcp: is followed by the command that starts a server, in quotes, or by its URL")
    if importlib.util.find_spec("mcp") is None:
        raise GPTError(f"--tools {given} needs an extra: pip install 'jupyter_gpt[mcp]'")
    return [as_tool(address, each) for each in connected(address).tools]


def connected(address: str) -> Server:
    """The server, started where it is not running."""
    server = servers.get(address)
    if server is None or server.ended or server.endpoint != mcp_http.parse(address):  # its key may have changed
        server = servers[address] = Server(address)
    return server


class Server:
    """A connection, on a thread with an event loop of its own. Raises GPTError where it does not come about."""

    def __init__(self, address: str):
        self.address, self.tools, self.ended = address, [], False
        self.endpoint = mcp_http.parse(address)
        self.refusals: list[str] = []  # of an HTTP server: the error status of its last answer
        self.loop, self.leave = asyncio.new_event_loop(), asyncio.Event()
        self.ready: Future = Future()
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 its standard error, for as long as it lives
        self.thread = threading.Thread(target=self.run, name="jupyter_gpt-mcp", daemon=True)
        self.thread.start()
        try:
            self.ready.result(STARTING)
        except BaseException as error:
            self.close()
            if isinstance(error, KeyboardInterrupt):
                raise
            late = isinstance(error, Waited)
            raise GPTError(f"{self.name}: {'no answer' if late else self.reason(error)}") from None

    @property
    def name(self) -> str:
        """As messages name it."""
        return PREFIX + (mcp_http.shown(shlex.split(self.address)[0]) if self.endpoint else self.address)

    def run(self) -> None:
        try:
            self.loop.run_until_complete(self.connect())
        except BaseException as error:  # also of what it started: told to whoever waits
            if not self.ready.done():
                self.ready.set_exception(innermost(error))
        finally:
            self.ended = True
            self.loop.close()

    async def connect(self) -> None:
        from mcp import Client

        logging.getLogger("mcp").addHandler(logging.NullHandler())  # what goes wrong is told in one line, here
        async with Client(self.transport(), read_timeout_seconds=CALLING) as self.client:
            found, cursor = [], None
            while True:
                page = await self.client.list_tools(cursor=cursor)
                found += page.tools
                if not (cursor := page.next_cursor):
                    break
            self.tools = found
            self.ready.set_result(None)
            await self.leave.wait()

    def transport(self) -> Any:
        """Streamable HTTP, or the standard input and output of a command that is started."""
        if self.endpoint:
            return mcp_http.streams(self.endpoint, self.refusals)
        from mcp import StdioServerParameters
        from mcp.client.stdio import stdio_client

        command, *arguments = shlex.split(self.address)
        return stdio_client(StdioServerParameters(command=command, args=arguments, cwd=Path.cwd()), errlog=self.errors)

    def call(self, name: str, arguments: dict) -> Any:
        """The server's result. Raises what went wrong, and KeyboardInterrupt, at which the call is cancelled."""
        work: Coroutine = self.client.call_tool(name, arguments)
        try:
            answer = asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:  # the loop is closed
            work.close()
            raise
        try:
            return answer.result(CALLING)
        except BaseException:
            answer.cancel()
            raise

    def reason(self, error: BaseException) -> str:
        """Why it does not work: the last line that it printed, or the error."""
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors.read().splitlines() if line.strip()]
        return (lines[-1] if lines else self.message(error))[:300]

    def message(self, error: BaseException) -> str:
        """The error in a line, without keys; the HTTP status where the server said no more."""
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if self.endpoint is None:
            return said
        return self.refusals[0] if self.refusals and said in mcp_http.UNSAID else self.endpoint.without_secrets(said)

    def close(self) -> None:
        """End it; what does not end in time is left to its own."""
        self.ended = True
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.stop)
            self.thread.join(LEAVING)

    def stop(self) -> None:
        """Leave, also while it is still connecting."""
        self.leave.set()
        if not self.ready.done() or self.ready.exception() is not None:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()


@atexit.register
def close_all() -> None:
    """End the servers of this kernel."""
    for server in servers.values():
        server.close()
    servers.clear()


def innermost(error: BaseException) -> BaseException:
    """The first error of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def as_tool(address: str, described) -> Tool:
    """A tool of a server as one of ours."""
    hints = described.annotations
    name = re.sub(r"[^A-Za-z0-9_-]", "_", described.name)[:64]
    if not NAME.fullmatch(name):
        raise GPTError(f"{PREFIX}{address} has a tool of the name {described.name!r:.60}, which no model can call")
    schema = {"type": "object", "properties": {}, **described.input_schema}
    return Tool(
        name,
        described.description or name,
        schema,
        calling(address, described.name),
        checking(schema),
        writes=not (hints is not None and hints.read_only_hint),
        seconds=CALLING,
    )


def calling(address: str, name: str) -> Callable[..., str]:
    def called(**arguments) -> str:
        return call(address, name, arguments)

    return called


def checking(schema: dict) -> Callable[[Mapping], dict]:
    """What checks arguments by their schema; ValueError says what is wrong in one line."""

    with without_iri_grammar():
        from jsonschema import ValidationError, validate

    def check(given: Mapping) -> dict:
        try:
            validate(dict(given), schema)
        except ValidationError as error:
            where = ".".join(map(str, error.absolute_path))
            raise ValueError(f"{where}: {error.message}" if where else error.message) from None
        return dict(given)

    return check


def call(address: str, name: str, arguments: dict, again: bool = True) -> str:
    """Call a tool, `again` where an HTTP server has forgotten the session; what the model is told. Raises Failed for
    what the server refuses, and where it is gone."""
    try:
        server = connected(address)
    except GPTError as error:
        raise Failed(str(error)) from None
    try:
        result = server.call(name, arguments)
    except (Waited, TimeoutError):
        raise Failed(f"the server did not answer within {CALLING:g} s") from None
    except Exception as error:
        if server.endpoint and again and server.refusals and server.refusals[0].startswith("HTTP 404"):
            server.close()  # it has forgotten the session, as after a restart: the call was not run
            return call(address, name, arguments, again=False)
        gone = server.ended or type(error).__name__ in ("ClosedResourceError", "BrokenResourceError", "EndOfStream")
        if gone or re.search("closed|terminated", str(error).lower()):
            server.close()
            raise Failed(f"the server {server.name} has ended: {server.reason(error)}") from None
        raise Failed(server.message(error)) from None
    text = "\n".join(filter(None, map(as_text, result.content)))
    if not text and result.structured_content is not None:
        text = to_json(result.structured_content)
    if result.is_error:
        raise Failed(text or "the server says that it failed")
    return text or "done"


def as_text(content) -> str:
    """A part of a result in words."""
    if content.type == "text":
        return content.text
    if content.type in ("image", "audio"):
        return f"[{content.type} left out: {content.mime_type}, {len(content.data) * 3 // 4:,} bytes]"
    if content.type == "resource":
        inside = content.resource
        return getattr(inside, "text", None) or f"[resource left out: {inside.uri}]"
    return f"[resource: {content.uri}]"
