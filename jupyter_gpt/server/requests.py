"""OpenAI's `/chat/completions` and `/completions` requests, validated, and the engine's requests made of them.

`top_k`, `min_p` and `min_tokens` are as in vLLM and llama.cpp, constraints as `response_format` or vLLM's
`structured_outputs` (formerly `guided_json` and so on). A field that would change the answer and is not implemented is
refused, never ignored.

The prompts are those that `%%prompt` would send. A chat goes through the model's chat template. A base model has none:
a single message is a document to continue, a longer chat becomes a document in which an assistant is about to speak.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from jupyter_gpt.data.render import Prompt, Question, encode, opening_token, render
from jupyter_gpt.errors import GPTError, as_keywords
from jupyter_gpt.inference.answer import request_of
from jupyter_gpt.inference.completion import Sampling
from jupyter_gpt.inference.rules import KINDS, Rule, parsed, rule
from jupyter_gpt.prompting.generation import stop_ids

MAX_ANSWERS = 512  # prompts times samples
UNSUPPORTED = {  # and the value that asks for nothing
    "tools": [],
    "functions": [],
    "logit_bias": {},
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "best_of": 1,
    "echo": False,
    "suffix": "",
    "audio": None,
}


class APIError(GPTError):
    """An HTTP status and OpenAI's error object."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict:
        kind = {401: "authentication_error", 404: "not_found_error"}.get(self.status, "invalid_request_error")
        kind = "server_error" if self.status >= 500 else kind
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def join_parts(content: object) -> object:
    """The text of a message whose content is a list of parts."""
    if not isinstance(content, list):
        return content
    if any(not isinstance(p, dict) or p.get("type") != "text" or not isinstance(p.get("text"), str) for p in content):
        raise ValueError("content must be a string or parts of type text")
    return "".join(part["text"] for part in content)


def as_batch(prompt: object) -> list:
    """The prompts of `/completions`: strings or lists of token ids, one or several."""
    batch = prompt if isinstance(prompt, list) and not (prompt and type(prompt[0]) is int) else [prompt]
    for item in batch or [None]:
        ids = isinstance(item, list) and item and all(type(i) is int for i in item)
        if not (isinstance(item, str) or ids):
            raise ValueError("prompt must be a string, token ids, or a list of either")
    return batch


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(join_parts)]


class StreamOptions(BaseModel):
    include_usage: bool = False


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] = {}


class Request(BaseModel):
    """The fields of both. A subclass adds `prompts`, and `alternatives`: how many come with each token's log
    probability, None for no log probabilities."""

    model_config = ConfigDict(strict=True)

    model: str = Field(min_length=1)
    n: int = Field(1, ge=1, le=128)
    seed: int = Field(default_factory=lambda: secrets.randbits(31), ge=-(1 << 63), lt=1 << 63)
    max_tokens: int = Field(ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    min_tokens: int = Field(0, ge=0)
    temperature: float = Field(1.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = 0
    min_p: float = Field(0.0, ge=0, le=1)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    ] = Field([], max_length=64)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    response_format: ResponseFormat = ResponseFormat(type="text")
    structured_outputs: dict[Literal[KINDS], Any] = {}
    guided_regex: Any = None
    guided_json: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, body: Any) -> Any:
        """Null is the default. Raises APIError for a field that is not implemented."""
        if not isinstance(body, dict):
            return body
        given = {name: value for name, value in body.items() if value is not None}
        for name in given.keys() & UNSUPPORTED.keys():
            if given[name] != UNSUPPORTED[name]:
                raise APIError(400, f"{name} is not supported here", param=name, code="unsupported_parameter")
        return given

    @cached_property
    def sampling(self) -> Sampling:
        return Sampling.of(
            samples=self.n,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(0, self.top_k),  # elsewhere -1 also means all
            min_p=self.min_p,
            max_tokens=self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens,
            min_tokens=self.min_tokens,
            stop=self.stop,
            seed=self.seed % (1 << 63),
            logprobs=self.alternatives or 0,
        )

    @cached_property
    def rule(self) -> Rule | None:
        """The constraint. A string is never read as the name of a file of this machine."""
        given = [(kind, getattr(self, f"guided_{kind}"), f"guided_{kind}") for kind in KINDS]
        given += [(kind, what, "structured_outputs") for kind, what in self.structured_outputs.items()]
        if self.response_format.type == "json_object":
            given.append(("json", {"type": "object"}, "response_format"))
        if self.response_format.type == "json_schema":
            given.append(("json", self.response_format.json_schema.get("schema", []), "response_format"))
        given = [each for each in given if each[1] is not None]
        if len(given) > 1:
            names = " and ".join(f"{param} ({kind})" for kind, _, param in given)
            raise APIError(400, f"{names} are two constraints: give one", param="structured_outputs")
        for kind, what, param in given:
            try:
                what = parsed(what) if kind == "json" and isinstance(what, str) else what
                if kind == "json" and not isinstance(what, dict):
                    raise ValueError("the schema must be a JSON object")
                if kind == "grammar" and not (isinstance(what, str) and ":" in what):
                    raise ValueError("grammar must be a Lark grammar with a rule `start:`")
                return rule(**{kind: what})
            except (GPTError, ValueError) as error:
                raise APIError(400, str(error), param=param) from error
        return None


class TextRequest(Request):
    """A request to `/completions`."""

    prompt: Annotated[list[str | list[int]], BeforeValidator(as_batch)]
    max_tokens: int = Field(16, ge=1)  # as in OpenAI's specification
    logprobs: int | None = Field(None, ge=0, le=100)

    @property
    def prompts(self) -> list:
        return self.prompt

    @property
    def alternatives(self) -> int | None:
        return self.logprobs


class ChatRequest(Request):
    """A request to `/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int = Field(1 << 20, ge=1)  # up to the context
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=100)

    @property
    def prompts(self) -> list:
        roles = {"developer": "system"}
        return [[{"role": roles.get(m.role, m.role), "content": m.content} for m in self.messages]]

    @property
    def alternatives(self) -> int | None:
        if self.top_logprobs and not self.logprobs:
            raise APIError(400, "top_logprobs needs logprobs=true", param="top_logprobs")
        return self.top_logprobs if self.logprobs else None


def parse(body: bytes, chat: bool) -> Request:
    """The request in a JSON body. Raises APIError (400) that names the field."""
    try:
        request = (ChatRequest if chat else TextRequest).model_validate_json(body)
    except ValidationError as error:
        raise field_error(error) from error
    try:
        request.sampling  # noqa: B018 - raises for min_tokens above max_tokens
    except APIError:
        raise
    except GPTError as error:
        raise APIError(400, as_keywords(str(error)), param="min_tokens") from error
    if (count := len(request.prompts) * request.n) > MAX_ANSWERS:
        message = f"{len(request.prompts):,} prompts times n {request.n} are {count:,} answers: at most {MAX_ANSWERS}"
        raise APIError(400, message, param="prompt")
    request.rule  # noqa: B018 - the same of a constraint
    return request


def field_error(error: ValidationError) -> APIError:
    """The first field that is wrong: OpenAI's `param`, what is expected, what was given."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return APIError(400, "the body is not JSON")
    name, kind = ".".join(map(str, first["loc"])), first["type"]
    if kind == "missing":
        message = f"{name} is missing"
    elif kind == "value_error":
        message = first["msg"].removeprefix("Value error, ")
    else:
        message = f"{name or 'the body'}: {first['msg']}, not {first['input']!r:.40}"
    return APIError(400, message, param=str(first["loc"][0]) if first["loc"] else None)


# from a request to the engine's


class ContextExceeded(GPTError):
    """A prompt that leaves no room for an answer."""

    code = "context_length_exceeded"


def render_prompt(model, prompt: str | list) -> Prompt:
    """A string, token ids or a list of messages as the model reads it. Raises GPTError."""
    tokenizer = model.tokenizer
    if isinstance(prompt, list) and isinstance(prompt[0], dict):
        if model.has_chat or len(prompt) > 1:
            return render(model.name, tokenizer, Question(prompt, as_assistant=not model.has_chat))
        prompt = prompt[0]["content"]
    if isinstance(prompt, str):
        first = opening_token(tokenizer)
        ids = [*([] if first is None else [first]), *(encode(tokenizer, prompt) if prompt else [])]
        return Prompt(tuple(ids), tokenizer.decode(ids), "continuing the document")
    unknown = next((i for i in prompt if not 0 <= i < len(tokenizer)), None)
    if unknown is not None:
        raise GPTError(f"prompt has the token {unknown}, but the ids of {model.name} are 0 to {len(tokenizer) - 1}")
    return Prompt(tuple(prompt), tokenizer.decode(prompt), "token ids")


def engine_request(model, prompt: Prompt, sampling: Sampling, rule, cancelled: threading.Event):
    """The engine's request. Its samples end early once `cancelled` is set. Raises GPTError for a prompt that is empty
    or exceeds the context: in the engine it would end the whole batch.
    """
    from jupyter_gpt.nn.modules import context_of

    context = context_of(model.module)
    room = context - len(prompt.ids)
    if not prompt.ids:
        raise GPTError("the prompt is empty")
    if room <= 0:
        raise ContextExceeded(
            f"the prompt has {len(prompt.ids):,} tokens, {1 - room:,} more than fit: the context of "
            f"{model.name} is {context:,}, and one must be left for the answer"
        )
    request = request_of(model.tokenizer, prompt, sampling, stop_ids(model), rule)
    stopped = request.until
    return replace(
        request,
        max_tokens=min(sampling.max_tokens, room),
        min_tokens=min(sampling.min_tokens, room),
        until=lambda ids: cancelled.is_set() or (stopped is not None and stopped(ids)),
    )
