"""`gpt.serve`: the models of this kernel as an OpenAI-compatible server, on loopback unless asked otherwise."""

from __future__ import annotations

from typing import ClassVar

from jupyter_gpt.errors import GPTError
from jupyter_gpt.options import option
from jupyter_gpt.server.server import HOST, PORT, Server, token_from
from jupyter_gpt.stages.stage import Bound


class Serve(Bound):
    """serve the kernel's models through an OpenAI-compatible API

    Serves every model of this kernel at /v1/models, /v1/chat/completions and /v1/completions, with streaming. The token
    is the client's API key: a new one is generated, `gpt.serve().token`, unless --token-env names a variable that holds
    one. Only its beginning is shown, because outputs are saved with the notebook. Concurrent requests share one batch.
    The server runs until %gpt serve --stop or the end of the kernel.

    Every saved model is a plain transformers folder that other servers read too: `vllm serve FOLDER` in a terminal, and
    %gpt config endpoint, make it a model that prompts, judges and evaluations can use.
    """

    magic: ClassVar[str] = "%gpt serve"
    examples: ClassVar[tuple[str, ...]] = ("%gpt serve", "%gpt serve --port 0 --out server", "%gpt serve --stop")

    port: int | None = option(None, f"port to listen on; 0 takes any free one (default: {PORT})", "N")
    host: str | None = option(
        None,
        f"address to listen on; 0.0.0.0 lets other machines connect, unencrypted (default: {HOST})",
        "ADDRESS",
    )
    token_env: str | None = option(None, "environment variable that holds the token, instead of a new one", "VAR")
    stop: bool = option(False, "stop the server", only="magic")


class Serving:
    """The server of a session: one at a time."""

    def __init__(self, models):
        self.models, self.server = models, None

    def start(self, port: int | None = None, host: str | None = None, token_env: str | None = None) -> Server:
        """The server; the running one, if the options fit it. Raises GPTError if they do not."""
        now = self.server
        if now and now.running:
            if port in (None, 0, now.port) and host in (None, now.host) and token_env in (None, now.token_env):
                return now
            raise GPTError(f"a server is already running at {now.url}: stop it with `%gpt serve --stop`")
        token = token_from(token_env)
        self.server = Server(self.models, host or HOST, PORT if port is None else port, token, token_env)
        return self.server

    def stop(self) -> Server:
        """Stop the server. Raises GPTError when none is running."""
        if not (self.server and self.server.running):
            raise GPTError("no server is running: start one with `%gpt serve`")
        self.server.stop()
        return self.server


def serve(session, options: Serve) -> Server:
    """Serve the models of this kernel until `.stop()`.

    Raises GPTError for a port that is taken, and where another server is running.
    """
    return session.serving.start(options.port, options.host, options.token_env)
