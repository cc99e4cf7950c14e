"""`%gpt serve`: the models of this kernel for any tool that speaks to OpenAI."""

from __future__ import annotations

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.lexer import whole
from jupyter_gpt.notebook.magics.notebook import say
from jupyter_gpt.notebook.magics.options import OUT, Command, Option
from jupyter_gpt.report.parts import Inline, Varies

SERVE = Command(
    name="%gpt serve",
    summary="serve the kernel's models to any tool that speaks to OpenAI",
    about=(
        "Serves every model of this kernel as an OpenAI-compatible endpoint: /v1/models, "
        "/v1/chat/completions and /v1/completions, streaming too. A client needs the token, which is new "
        "each time and shown once, unless --token-env names a variable that holds one. Requests that come "
        "together are answered in one batch. It goes on until %gpt serve --stop or the end of the kernel."
    ),
    groups=(
        (
            "Options",
            (
                Option("--port", "where it listens; 0 takes any free port", "N", whole, default=8000),
                Option(
                    "--host",
                    "which address of this machine; 0.0.0.0 lets other machines in, unencrypted",
                    "ADDRESS",
                    default="127.0.0.1",
                ),
                Option("--token-env", "the environment variable that holds the token, instead of a new one", "VAR"),
                Option("--stop", "stop serving", kind=None),
                OUT,
            ),
        ),
    ),
    examples=("%gpt serve", "%gpt serve --port 0 --out server", "%gpt serve --stop"),
)


def serve(gpt, given: dict, ip) -> object:
    """Starts or stops; says where, and a new token once. The result is the server."""
    options = {name: given[name] for name in ("port", "host", "token_env") if name in given}
    if given.get("stop"):
        if options:
            raise GPTError("%gpt serve --stop takes no other option")
        server = gpt.serving.stop()
        print("the models are no longer served")
        return server
    before = gpt.serving.server
    server = gpt.serve(**options)
    token = ["token: ", Varies(server.token)]
    if server is before:
        token = "as before, with the same token"
    elif server.token_env:
        token = f"token: that in {server.token_env}"
    say("serving at ", shown(server), "\n", token)
    return server


def shown(server) -> Inline:
    """The address; a port that happened to be free differs each time."""
    before, after = server.url.split(f":{server.port}/")
    return [before, ":", str(server.port) if server.asked else Varies(str(server.port)), "/", after]
