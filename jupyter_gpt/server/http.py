"""The routes of OpenAI's API, on tornado, which every Jupyter kernel has."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import threading
from collections.abc import AsyncIterator

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from jupyter_gpt.errors import GPTError, is_out_of_memory, nearest
from jupyter_gpt.server.batcher import Batcher, Ticket
from jupyter_gpt.server.requests import APIError, engine_request, parse, render_prompt
from jupyter_gpt.server.responses import Choice, Delta, Writer

LOG = logging.getLogger("jupyter_gpt.serve")


class LimitedServer(HTTPServer):
    """Closes a connection beyond `max_connections`: anybody may open one without a token."""

    max_connections = 256
    open = 0

    def handle_stream(self, stream, address) -> None:
        if self.open >= self.max_connections:
            stream.close()
            return
        self.open += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn) -> None:
        self.open -= 1
        super().on_close(server_conn)


def application(models, batcher: Batcher, token: str) -> Application:
    """`models` is the session's mapping of models, `token` the clients' API key."""
    shared = {"models": models, "batcher": batcher, "token": token}
    routes = [
        (r"/v1/models", ListModels, shared),
        (r"/v1/models/([^/]+)", GetModel, shared),
        (r"/v1/chat/completions", Completions, shared | {"chat": True}),
        (r"/v1/completions", Completions, shared | {"chat": False}),
        (r".*", NotFound, shared),
    ]
    # tornado's access log would be written into some cell
    return Application(routes, log_function=lambda handler: None)


@stream_request_body
class Handler(RequestHandler):
    """Checks the token before a byte of the body is read; errors are OpenAI's error objects."""

    def initialize(self, models, batcher: Batcher, token: str, chat: bool = False) -> None:
        self.models, self.batcher, self.token, self.chat = models, batcher, token, chat
        self.cancelled = threading.Event()
        self.received: list[bytes] = []

    def data_received(self, chunk: bytes) -> None:
        self.received.append(chunk)

    def set_default_headers(self) -> None:
        self.set_header("Server", "jupyter_gpt")

    def prepare(self) -> None:
        scheme, _, key = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self.token.encode()):
            raise APIError(401, "the token is missing or wrong: pass it as the API key", code="invalid_api_key")

    def write_error(self, status_code: int, **kwargs) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, HTTPError):
            error = APIError(status_code, error.log_message or self._reason)
        elif not isinstance(error, APIError):
            error = APIError(500, "internal error: see the log of the kernel")
        self.set_status(error.status)
        self.finish(error.body())

    def log_exception(self, typ, value, tb) -> None:
        if not isinstance(value, APIError | HTTPError | StreamClosedError):
            LOG.error("a request to the served models failed", exc_info=(typ, value, tb))

    def served(self) -> list[str]:
        """The names of the models of this kernel that generate text."""
        about = self.models.about
        return [name for name in self.models if about(name).kind != "endpoint" and not about(name).labels]

    def check_served(self, name: str) -> str:
        """`name`. Raises APIError if it is not served."""
        served = self.served()
        if name not in served and name in self.models and self.models.about(name).labels:
            raise APIError(400, f"{name} gives scores and writes no text: it is not served", param="model")
        if name not in served:
            raise APIError(
                404, f"there is no model {name}{nearest(name, served)}", param="model", code="model_not_found"
            )
        return name


def model_object(name: str) -> dict:
    return {"id": name, "object": "model", "created": 0, "owned_by": "jupyter_gpt"}


class NotFound(Handler):
    def prepare(self) -> None:
        super().prepare()
        raise APIError(
            404,
            f"there is nothing at {self.request.path}: this serves /v1/models, "
            "/v1/chat/completions and /v1/completions",
        )


class ListModels(Handler):
    """`GET /v1/models`"""

    def get(self) -> None:
        self.finish({"object": "list", "data": [model_object(name) for name in self.served()]})


class GetModel(Handler):
    """`GET /v1/models/NAME`"""

    def get(self, name: str) -> None:
        self.finish(model_object(self.check_served(name)))


class Completions(Handler):
    """`POST /v1/chat/completions` and `POST /v1/completions`"""

    def on_connection_close(self) -> None:
        self.cancelled.set()

    async def post(self) -> None:
        # in a thread: JSON, a schema and a prompt may be large, and a model may have to be read from disk
        loop = asyncio.get_running_loop()
        stream, *work, writer = await loop.run_in_executor(None, self.understand, b"".join(self.received))
        choices = work[-1]
        deltas = self.deltas(*work)
        await (self.stream(deltas, choices, writer) if stream else self.respond(deltas, choices, writer))

    def understand(self, body: bytes) -> tuple:
        """Whether to stream, the model's module, the engine's requests, their choices, and their writer."""
        request = parse(body, self.chat)
        name, sampling = self.check_served(request.model), request.sampling
        try:
            model = self.models.about(name)  # what is in memory answers, also while a run trains it anew
            model = model if model.resident else self.models[name]
            prompts = [render_prompt(model, prompt) for prompt in request.prompts]
            requests = [engine_request(model, prompt, sampling, request.rule, self.cancelled) for prompt in prompts]
            logprobs = request.alternatives is not None
            choices = [
                Choice(model.tokenizer, prompt, each, sampling.stops, logprobs, request.rule)
                for prompt, each in zip(prompts, requests, strict=True)
                for _ in range(sampling.samples)
            ]
        except GPTError as error:
            raise APIError(400, str(error), code=getattr(error, "code", None)) from error
        writer = Writer(self.chat, request, sum(len(prompt.ids) for prompt in prompts))
        return request.stream, model.module, requests, choices, writer

    async def deltas(self, module, requests: list, choices: list[Choice]) -> AsyncIterator[tuple[int, Delta]]:
        """What each choice gains, as (its number, delta), in the order of sampling."""
        queue: asyncio.Queue = asyncio.Queue()
        samples = len(choices) // len(requests)
        for at, request in enumerate(requests):
            deliver = lambda token, at=at: queue.put_nowait((at, token))  # noqa: E731
            self.batcher.submit(Ticket(module, request, deliver, self.cancelled))
        unfinished = len(requests)
        try:
            while unfinished:
                at, token = await queue.get()
                if isinstance(token, Exception):
                    raise engine_error(token)
                if token is None:
                    unfinished -= 1
                    new = [(i, choices[i].end()) for i in range(at * samples, (at + 1) * samples)]
                else:
                    number = at * samples + token.sample
                    new = [(number, choices[number].add(token))]
                for number, delta in new:
                    if delta.text or delta.tokens or delta.finish:
                        yield number, delta
        finally:
            self.cancelled.set()

    async def respond(self, deltas: AsyncIterator, choices: list[Choice], writer: Writer) -> None:
        received: list[list[Delta]] = [[] for _ in choices]
        async for number, delta in deltas:
            received[number].append(delta)
        self.finish(writer.response(choices, received))

    async def stream(self, deltas: AsyncIterator, choices: list[Choice], writer: Writer) -> None:
        """Server-sent events. The headers go with the first delta, so that an error before it has its own status."""
        opened = False
        try:
            async for number, delta in deltas:
                if not opened:
                    self.set_header("Content-Type", "text/event-stream; charset=utf-8")
                    self.set_header("Cache-Control", "no-cache")
                    if self.chat:
                        self.send([writer.first_chunk(i) for i in range(len(choices))])
                    opened = True
                self.send(writer.chunks(number, delta))
                await self.flush()
            self.send(writer.last_chunks(choices))
            self.write("data: [DONE]\n\n")
        except APIError as error:
            if not opened:
                raise
            self.send([error.body()])
        except StreamClosedError:
            return
        await self.finish()

    def send(self, events: list[dict]) -> None:
        for event in events:
            self.write(f"data: {json.dumps(event)}\n\n")


def engine_error(error: Exception) -> APIError:
    if is_out_of_memory(error):
        message = "there is not enough memory for this request beside the others: send fewer or shorter ones"
        return APIError(503, message, code="out_of_memory")
    if isinstance(error, GPTError):
        return APIError(400, str(error))
    LOG.error("the engine failed while it answered a served request", exc_info=error)
    return APIError(500, f"the engine failed: {type(error).__name__}")
