"""HTTP around the served models: who may ask, which model is meant, answers whole or as server-sent events.

Tornado, because Jupyter itself stands on it: every kernel has it, it is well kept, it tells when a client has
gone, and its loop runs on any thread.
"""

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

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.models import memory
from jupyter_gpt.server import prompts as questions
from jupyter_gpt.server import requests as asks
from jupyter_gpt.server.answers import Choice, Piece, Writer
from jupyter_gpt.server.batcher import Batcher, Ticket
from jupyter_gpt.server.requests import Refused

LOG = logging.getLogger("jupyter_gpt.serve")


class LimitedServer(HTTPServer):
    """Closes a connection that is one too many, `most` of them being open: without a token anybody may open some."""

    most = 256
    open = 0

    def handle_stream(self, stream, address) -> None:
        if self.open >= self.most:
            stream.close()
            return
        self.open += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn) -> None:
        self.open -= 1
        super().on_close(server_conn)


def application(models, batcher: Batcher, token: str) -> Application:
    """The routes. `models` is the session's mapping of models, `token` what a client has to know."""
    given = {"models": models, "batcher": batcher, "token": token}
    return Application(
        [
            (r"/v1/models", Models, given),
            (r"/v1/models/([^/]+)", OneModel, given),
            (r"/v1/chat/completions", Answer, given | {"chat": True}),
            (r"/v1/completions", Answer, given | {"chat": False}),
            (r".*", Nothing, given),
        ],
        log_function=lambda handler: None,  # else every refused request is written into some cell
    )


@stream_request_body
class Handler(RequestHandler):
    """Checks the token before a byte of the body is read; errors are OpenAI's error objects."""

    def initialize(self, models, batcher: Batcher, token: str, chat: bool = False) -> None:
        self.models, self.batcher, self.token, self.chat = models, batcher, token, chat
        self.gone = threading.Event()
        self.received: list[bytes] = []

    def data_received(self, chunk: bytes) -> None:
        self.received.append(chunk)

    def set_default_headers(self) -> None:
        self.set_header("Server", "jupyter_gpt")

    def prepare(self) -> None:
        scheme, _, given = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
            raise Refused(401, "the token is missing or wrong: pass it as the API key", code="invalid_api_key")

    def write_error(self, status_code: int, **kwargs) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, HTTPError):
            error = Refused(status_code, error.log_message or self._reason)
        elif not isinstance(error, Refused):
            error = Refused(500, "the server failed: its kernel's log says why")
        self.set_status(error.status)
        self.finish(error.body())

    def log_exception(self, typ, value, tb) -> None:
        if not isinstance(value, Refused | HTTPError | StreamClosedError):
            LOG.error("a request to the served models failed", exc_info=(typ, value, tb))


class Nothing(Handler):
    """Every other address."""

    def prepare(self) -> None:
        super().prepare()
        raise Refused(
            404,
            f"there is nothing at {self.request.path}: this serves /v1/models, "
            "/v1/chat/completions and /v1/completions",
        )


def served(models) -> list[str]:
    """The names of the models of this kernel that write text."""
    return [name for name in models if models.about(name).kind != "endpoint" and not models.about(name).labels]


def described(model) -> dict:
    return {"id": model.name, "object": "model", "created": 0, "owned_by": "jupyter_gpt"}


class Models(Handler):
    """`GET /v1/models`"""

    def get(self) -> None:
        self.finish({"object": "list", "data": [described(self.models.about(name)) for name in served(self.models)]})


class OneModel(Handler):
    """`GET /v1/models/NAME`"""

    def get(self, name: str) -> None:
        self.finish(described(self.models.about(known(self.models, name))))


def known(models, name: str) -> str:
    """`name`, if it is served. Raises Refused (404) that names the nearest."""
    names = served(models)
    if name not in names and name in models and models.about(name).labels:
        raise Refused(400, f"{name} gives scores and writes no text: it is not served", param="model")
    if name not in names:
        raise Refused(404, f"there is no model {name}{nearest(name, names)}", param="model", code="model_not_found")
    return name


class Answer(Handler):
    """`POST /v1/chat/completions` and `POST /v1/completions`"""

    def on_connection_close(self) -> None:
        """The client has gone: its rows leave the batch."""
        self.gone.set()

    async def post(self) -> None:
        body = b"".join(self.received)
        ask, module, requests, choices, writer = await asyncio.get_running_loop().run_in_executor(
            None, self.understood, body
        )  # on a thread: JSON, a schema and a prompt may be large, and a model may have to be read from disk
        pieces = self.pieces(module, requests, choices, ask.sampling.samples)
        await (self.stream(pieces, choices, writer) if ask.stream else self.whole(pieces, choices, writer))

    def understood(self, body: bytes) -> tuple:
        """What is asked, the model's module, the engine's requests, and what takes and writes their answers.

        Raises Refused for what cannot be answered.
        """
        try:
            ask = asks.read(json.loads(body), self.chat)
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the body is not JSON") from error
        name = known(self.models, ask.model)
        try:
            model, prompts, requests = questions.put(self.models, name, ask, self.gone)
            choices = [
                Choice(model.tokenizer, prompt, request, ask.sampling.stop, ask.logprobs, ask.rule)
                for prompt, request in zip(prompts, requests, strict=True)
                for _ in range(ask.sampling.samples)
            ]
        except GPTError as error:
            raise Refused(400, str(error), code=getattr(error, "code", None)) from error
        return ask, model.module, requests, choices, Writer(ask, sum(len(prompt.ids) for prompt in prompts), name)

    async def pieces(
        self, module, requests: list, choices: list[Choice], samples: int
    ) -> AsyncIterator[tuple[int, Piece]]:
        """What each choice gains, as (its number, piece), in the order in which it comes."""
        came: asyncio.Queue = asyncio.Queue()

        def hear(at: int):
            return lambda token: came.put_nowait((at, token))

        for at, request in enumerate(requests):
            self.batcher.submit(Ticket(module, request, hear(at), self.gone))
        left = len(requests)
        try:
            while left:
                at, token = await came.get()
                if isinstance(token, Exception):
                    raise failure(token)
                if token is None:
                    left -= 1
                    new = [(i, choices[i].end()) for i in range(at * samples, (at + 1) * samples)]
                else:
                    number = at * samples + token.sample
                    new = [(number, choices[number].take(token))]
                for number, piece in new:
                    if piece.text or piece.tokens or piece.finish:
                        yield number, piece
        finally:
            self.gone.set()

    async def whole(self, pieces: AsyncIterator, choices: list[Choice], writer: Writer) -> None:
        told: list[list[Piece]] = [[] for _ in choices]
        async for number, piece in pieces:
            told[number].append(piece)
        self.finish(writer.whole(choices, told))

    async def stream(self, pieces: AsyncIterator, choices: list[Choice], writer: Writer) -> None:
        """Server-sent events. Headers go out with the first piece, so that what fails before it has a proper
        status."""
        opened = False
        try:
            async for number, piece in pieces:
                if not opened:
                    self.set_header("Content-Type", "text/event-stream; charset=utf-8")
                    self.set_header("Cache-Control", "no-cache")
                    if writer.ask.chat:
                        self.events([writer.opening(i) for i in range(len(choices))])
                    opened = True
                self.events(writer.piece(number, piece))
                await self.flush()
            self.events(writer.closing(choices))
            self.write("data: [DONE]\n\n")
        except Refused as error:
            if not opened:
                raise
            self.events([error.body()])
        except StreamClosedError:
            return
        await self.finish()

    def events(self, messages: list[dict]) -> None:
        for message in messages:
            self.write(f"data: {json.dumps(message)}\n\n")


def failure(error: Exception) -> Refused:
    """What a client is told of an error in the engine."""
    if memory.is_out_of_memory(error):
        return Refused(
            503,
            "there is not enough memory for this beside what else is being answered",
            code="out_of_memory",
        )
    if isinstance(error, GPTError):
        return Refused(400, str(error))
    LOG.error("the engine failed while it answered a served request", exc_info=error)
    return Refused(500, f"the engine failed: {type(error).__name__}")
