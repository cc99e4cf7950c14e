"""`gpt.serve`: the models of this kernel as an OpenAI-compatible server, on a thread of its own.

On loopback unless asked otherwise, and only for who knows the token: anything on this machine can open a
port.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
from typing import ClassVar

from jupyter_gpt.errors import GPTError
from jupyter_gpt.options import option
from jupyter_gpt.stages.stage import Bound

HOST, PORT = "127.0.0.1", 8000
SHORTEST = 16  # characters of a token of one's own
LARGEST = 16 << 20  # bytes of a request
HEADERS = 16 << 10  # bytes of its headers
PATIENCE = 20.0  # seconds a client has for its headers, and a connection may be idle
BODY = 60.0  # seconds it has for its body
CONNECTIONS = 256  # at once


class Serve(Bound):
    """serve the kernel's models to any tool that speaks to OpenAI

    Serves every model of this kernel as an OpenAI-compatible endpoint: /v1/models, /v1/chat/completions and
    /v1/completions, streaming too. A client needs the token, which is new each time unless --token-env names a variable
    that holds one: `gpt.serve().token`. Only its beginning is shown, for outputs are saved with the notebook. Requests
    that come together are answered in one batch. It goes on until %gpt serve --stop or the end of the kernel.
    """

    magic: ClassVar[str] = "%gpt serve"
    examples: ClassVar[tuple[str, ...]] = ("%gpt serve", "%gpt serve --port 0 --out server", "%gpt serve --stop")

    port: int | None = option(None, f"port that it listens on; 0 takes any free one (default: {PORT})", "N")
    host: str | None = option(
        None, f"address of this machine; 0.0.0.0 lets other machines in, unencrypted (default: {HOST})", "ADDRESS"
    )
    token_env: str | None = option(None, "the environment variable that holds the token, instead of a new one", "VAR")
    stop: bool = option(False, "stop serving", only="magic")


class Server:
    """A server that runs until `stop()`. `url` is what a client takes as its base URL, `token` as its API
    key."""

    def __init__(self, models, host: str, port: int, token: str, token_env: str | None):
        self.host, self.token, self.token_env = host, token, token_env
        self.asked = port  # 0: any that is free
        self.sockets = bound(host, port)
        self.port = self.sockets[0].getsockname()[1]
        self.ready = threading.Event()
        self.error: Exception | None = None
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.main(models)), name="jupyter_gpt-serve", daemon=True
        )
        self.thread.start()
        self.ready.wait(10)
        if self.error:
            raise self.error

    @property
    def url(self) -> str:
        """The base URL, with the address to reach it by from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    @property
    def running(self) -> bool:
        return self.thread.is_alive()

    async def main(self, models) -> None:
        """The life of the server, on its thread."""
        try:
            from jupyter_gpt.server.batcher import Batcher
            from jupyter_gpt.server.http import LimitedServer, application

            self.loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
            self.batcher = Batcher(self.loop)
            server = LimitedServer(
                application(models, self.batcher, self.token),
                max_body_size=LARGEST,
                max_header_size=HEADERS,
                idle_connection_timeout=PATIENCE,
                body_timeout=BODY,
            )
            server.most = CONNECTIONS
            server.add_sockets(self.sockets)
        except Exception as error:  # raised where the server was asked for
            self.error = error
            return
        finally:
            self.ready.set()
        await self.stopping.wait()
        server.stop()
        self.batcher.cancel_all()
        await server.close_all_connections()

    def stop(self) -> None:
        """Close the door, end what is being answered, and wait for that. Does nothing a second time."""
        if self.running:
            self.loop.call_soon_threadsafe(self.stopping.set)
            self.thread.join(10)

    def __repr__(self) -> str:
        return f"<server at {self.url}: {'running' if self.running else 'stopped'}>"


def bound(host: str, port: int) -> list[socket.socket]:
    """Listening sockets, made at once so that a port which is taken is known at once."""
    from tornado.netutil import bind_sockets

    if not 0 <= port <= 65535:
        raise GPTError(f"a port is from 0 (any free one) to 65535, not {port}")
    try:
        return bind_sockets(port, host, backlog=512, reuse_port=False)
    except socket.gaierror as error:
        raise GPTError(f"--host {host} is no address of this machine: 127.0.0.1 is loopback, 0.0.0.0 all") from error
    except OSError as error:
        raise GPTError(
            f"port {port} of {host} cannot be had ({error.strerror}): --port 0 takes any free one"
        ) from error


def token_from(variable: str | None) -> str:
    """The token in an environment variable, or a new one. Raises GPTError, without repeating what it
    found."""
    if variable is None:
        return secrets.token_urlsafe(24)
    from jupyter_gpt.models.endpoints import checked_variable

    token = os.environ.get(checked_variable(variable, "--token-env"), "").strip()
    if not token:
        raise GPTError(f"--token-env names the environment variable {variable}, but it is not set")
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise GPTError(f"the token in {variable} is to have {SHORTEST} characters or more, plain ones without spaces")
    return token


class Serving:
    """The server of a session: one at a time."""

    def __init__(self, models):
        self.models, self.server = models, None

    def start(self, port: int | None = None, host: str | None = None, token_env: str | None = None) -> Server:
        """The server as asked; the one that runs, if that is it. Raises GPTError when one runs otherwise."""
        now = self.server
        if now and now.running:
            same = port in (None, 0, now.port) and host in (None, now.host) and token_env in (None, now.token_env)
            if not same:
                raise GPTError(f"the models are served already, at {now.url}: %gpt serve --stop first")
            return now
        token = token_from(token_env)
        self.server = Server(self.models, host or HOST, PORT if port is None else port, token, token_env)
        return self.server

    def stop(self) -> Server:
        """Stop the server. Raises GPTError when there is none."""
        if not (self.server and self.server.running):
            raise GPTError("no model is served: %gpt serve begins to")
        self.server.stop()
        return self.server


def serve(session, options: Serve) -> Server:
    """Serve the models of this kernel until `.stop()`; `.url` and `.token` are for the client.

    Raises GPTError when the port is taken or it serves elsewhere already.
    """
    return session.serving.start(options.port, options.host, options.token_env)
