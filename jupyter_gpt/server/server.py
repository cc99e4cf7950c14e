"""The server: its thread, its socket, its token, and the limits that hold before a client has shown the token."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading

from jupyter_gpt.errors import GPTError

HOST, PORT = "127.0.0.1", 8000
MIN_TOKEN = 16  # characters of a user's own token
MAX_BODY, MAX_HEADERS = 16 << 20, 16 << 10  # bytes
IDLE_TIMEOUT, BODY_TIMEOUT = 20.0, 60.0  # seconds for the headers or between requests, and for a body
MAX_CONNECTIONS = 256


class Server:
    """Runs on a thread of its own until `stop()`. `url` is a client's base URL, `token` its API key."""

    def __init__(self, models, host: str, port: int, token: str, token_env: str | None):
        self.host, self.token, self.token_env = host, token, token_env
        self.requested_port = port  # 0: any free one
        self.sockets = listen(host, port)
        self.port = self.sockets[0].getsockname()[1]
        self.ready, self.error = threading.Event(), None
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.main(models)), name="jupyter_gpt-serve", daemon=True
        )
        self.thread.start()
        self.ready.wait(10)
        if self.error:
            raise self.error

    @property
    def url(self) -> str:
        """The base URL on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    @property
    def running(self) -> bool:
        return self.thread.is_alive()

    async def main(self, models) -> None:
        try:
            from jupyter_gpt.server.batcher import Batcher
            from jupyter_gpt.server.http import LimitedServer, application

            self.loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
            self.batcher = Batcher(self.loop)
            server = LimitedServer(
                application(models, self.batcher, self.token),
                max_body_size=MAX_BODY,
                max_header_size=MAX_HEADERS,
                idle_connection_timeout=IDLE_TIMEOUT,
                body_timeout=BODY_TIMEOUT,
            )
            server.max_connections = MAX_CONNECTIONS
            server.add_sockets(self.sockets)
        except Exception as error:  # raised by the constructor
            self.error = error
            return
        finally:
            self.ready.set()
        await self.stopping.wait()
        server.stop()
        self.batcher.cancel_all()
        await server.close_all_connections()

    def stop(self) -> None:
        """Close the socket, end the requests that are being answered, and wait for that."""
        if self.running:
            self.loop.call_soon_threadsafe(self.stopping.set)
            self.thread.join(10)

    def __repr__(self) -> str:
        return f"<server at {self.url}: {'running' if self.running else 'stopped'}>"


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets. Raises GPTError for an address that is wrong or taken."""
    from tornado.netutil import bind_sockets

    if not 0 <= port <= 65535:
        raise GPTError(f"--port {port} must be from 0 (any free one) to 65535")
    try:
        return bind_sockets(port, host, backlog=512, reuse_port=False)
    except socket.gaierror as error:
        raise GPTError(
            f"--host {host} is not an address of this machine: 127.0.0.1 is loopback, 0.0.0.0 is all"
        ) from error
    except OSError as error:
        raise GPTError(
            f"cannot listen on port {port} of {host} ({error.strerror}): --port 0 takes any free one"
        ) from error


def token_from(variable: str | None) -> str:
    """The token in an environment variable, or a new one. Raises GPTError, which never repeats the value."""
    if variable is None:
        return secrets.token_urlsafe(24)
    from jupyter_gpt.models.endpoints import checked_variable

    token = os.environ.get(checked_variable(variable, "--token-env"), "").strip()
    if not token:
        raise GPTError(f"the environment variable {variable} (--token-env) is not set: set it to the token")
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise GPTError(f"the token in {variable} must have at least {MIN_TOKEN} ASCII characters and no spaces")
    return token
