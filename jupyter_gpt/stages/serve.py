"""`gpt.serve`: the models of this kernel as an OpenAI-compatible server, on loopback unless asked otherwise; or one
model by vLLM, in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.endpoints import EndpointOptions
from jupyter_gpt.options import option
from jupyter_gpt.server.server import HOST, PORT, Server, token_from
from jupyter_gpt.stages.stage import Bound

if TYPE_CHECKING:
    from jupyter_gpt.server.vllm import VLLM

TIMEOUT = 600.0  # seconds that vLLM may take for an answer: all completions of a step may be in its queue


class Serve(Bound):
    """serve the kernel's models through an OpenAI-compatible API

    Serves every model of this kernel at /v1/models, /v1/chat/completions and /v1/completions, with streaming. The token
    is the client's API key: a new one is generated, `gpt.serve().token`, unless --token-env names a variable that holds
    one. Only its beginning is shown, because outputs are saved with the notebook. Concurrent requests share one batch.
    The server runs until %gpt serve --stop or the end of the kernel.

    With --engine vllm it serves one MODEL with vLLM (pip install 'jupyter_gpt[vllm]'), on this machine only, as the
    endpoint MODEL-vllm; %%rlhf --rollouts MODEL-vllm samples from it. This follows vLLM's documentation and was tested
    against a stand-in for vLLM: no GPU has run it.
    """

    magic: ClassVar[str] = "%gpt serve"
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt serve",
        "%gpt serve --port 0 --out server",
        "%gpt serve --engine vllm assistant --vllm-args '--gpu-memory-utilization 0.4'",
        "%gpt serve --stop",
    )

    model: str | None = option(None, "the model that vLLM serves", place=True, complete="models")
    engine: Literal["vllm"] | None = option(None, "serve MODEL with vLLM instead of the kernel's models")

    port: int | None = option(None, f"port to listen on; 0 takes any free one (default: {PORT})", "N")
    host: str | None = option(
        None,
        f"address to listen on; 0.0.0.0 lets other machines connect, unencrypted (default: {HOST})",
        "ADDRESS",
    )
    token_env: str | None = option(None, "environment variable that holds the token, instead of a new one", "VAR")
    vllm_args: str | None = option(None, "further arguments of `vllm serve`, in quotes", "ARGS")
    stop: bool = option(False, "stop the server, and vLLM", only="magic")

    def check_together(self) -> None:
        if self.engine is None and (self.model or self.vllm_args):
            name = "--vllm-args" if self.vllm_args else f"a model ({self.model})"
            raise GPTError(f"the kernel serves all of its models: {name} is for --engine vllm")
        if self.engine and self.model is None and not self.stop:
            raise GPTError("--engine vllm needs the model to serve: %gpt serve --engine vllm MODEL")
        if self.engine and (self.host or self.token_env):
            name = "--host" if self.host else "--token-env"
            raise GPTError(f"--engine vllm takes no {name}: vLLM listens on this machine only, without a token")


class Serving:
    """The servers of a session: one of all models at a time, and vLLM for single models, by the name of each."""

    def __init__(self, models):
        self.models, self.server = models, None
        self.engines: dict[str, VLLM] = {}

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

    def start_vllm(self, name: str, port: int | None = None, arguments: str | None = None) -> VLLM:
        """vLLM with this model, healthy, and declared as an endpoint; the running one, if the options fit it."""
        from jupyter_gpt.server.vllm import VLLM

        now = self.engines.get(name)
        if now and now.running:
            if port in (None, 0, now.port) and arguments == now.arguments:
                return now
            raise GPTError(f"vLLM is already serving {name} at {now.url}: stop it with `%gpt serve --stop`")
        model = self.models.about(name)
        if model.kind == "endpoint":
            raise GPTError(f"{name} is an endpoint: it is served already")
        if model.base:
            raise GPTError(f"{name} is an adapter: `%gpt merge {name}` makes the full model that vLLM can serve")
        if model.labels or model.is_reward_model:
            raise GPTError(f"{name} writes no text: vLLM serves language models here")
        endpoint = endpoint_of(name)
        log = store.home() / "logs" / f"{endpoint}.log"
        engine = VLLM(name, model.folder, endpoint, log, port, arguments)
        engine.wait()
        declared = EndpointOptions.of(
            name=endpoint, base_url=engine.url, model=name, chat=model.has_chat, timeout=TIMEOUT, overwrite=True
        )
        self.models.endpoints.declare(declared)
        self.engines[name] = engine
        return engine

    def stop(self) -> list[str]:
        """Stop what runs; its names in words. Raises GPTError when nothing does."""
        stopped = []
        if self.server and self.server.running:
            self.server.stop()
            stopped.append("the server")
        for name, engine in list(self.engines.items()):
            del self.engines[name]
            if endpoint_of(name) in self.models.endpoints:
                self.models.endpoints.remove(endpoint_of(name))
            engine.stop()
            stopped.append(f"vLLM with {name}")
        if not stopped:
            raise GPTError("no server is running: start one with `%gpt serve`")
        return stopped


def endpoint_of(name: str) -> str:
    """What the endpoint of a model that vLLM serves is called."""
    return store.check_name(f"{name}-vllm")


def serve(session, options: Serve) -> Server | VLLM:
    """Serve the models of this kernel, or with `engine="vllm"` one of them, until `.stop()`.

    Raises GPTError for a port that is taken, another server, or a vLLM that is not installed or does not start.
    """
    if options.engine and options.model:
        session.finish_first(options.model)
        return session.serving.start_vllm(options.model, options.port, options.vllm_args)
    return session.serving.start(options.port, options.host, options.token_env)
