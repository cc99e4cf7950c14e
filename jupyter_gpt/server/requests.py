"""What a request to the served models asks for, read out of its JSON with every field checked.

The fields are those of OpenAI's `/chat/completions` and `/completions`, and `top_k`, `min_p` and `min_tokens`
as vLLM and llama.cpp have them; constraints as `response_format` has them, and as vLLM's `structured_outputs`
(before: `guided_json` and so on). A field that would change the answer and is not offered here is refused,
never ignored.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Sampling
from jupyter_gpt.inference.rules import KINDS, Rule, parsed, rule

MOST_SAMPLES = 128  # of one prompt
MOST_ANSWERS = 512  # of one request: prompts times samples
MOST_STOPS = 64  # stop texts
SHORT = 16  # tokens of `/completions` when nothing is said, as its specification has it
LONG = 1 << 20  # tokens of `/chat/completions` when nothing is said: up to the context
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# What is not offered, and the value of each that asks for nothing.
NOT_OFFERED = {
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


class Refused(GPTError):
    """A request that cannot be answered: the HTTP status and the fields of OpenAI's error object."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict:
        kind = {401: "authentication_error", 404: "not_found_error"}.get(self.status, "invalid_request_error")
        kind = "server_error" if self.status >= 500 else kind
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Ask:
    """One request. `prompts` are texts, token ids or messages; each is answered `sampling.samples` times.

    logprobs: whether to tell them; `sampling.logprobs` says how many alternatives.
    """

    chat: bool
    model: str
    prompts: list
    sampling: Sampling
    logprobs: bool
    stream: bool
    include_usage: bool
    rule: Rule | None = None


def read(body: object, chat: bool) -> Ask:
    """The request in a JSON body. Raises Refused (400) that names the field."""
    if not isinstance(body, dict):
        raise Refused(400, "the body is to be a JSON object")
    refuse_what_is_not_offered(body)
    model = typed(body, "model", str, None)
    if not model:
        raise Refused(400, "model is missing: name one that /v1/models lists", param="model")
    options = body.get("stream_options") or {}
    most = typed(body, "max_completion_tokens", int, typed(body, "max_tokens", int, LONG if chat else SHORT))
    told, alternatives = logprobs(body, chat)
    samples = typed(body, "n", int, 1)
    if not 1 <= samples <= MOST_SAMPLES:
        raise Refused(400, f"n is from 1 to {MOST_SAMPLES}, not {samples}", param="n")
    seed = typed(body, "seed", int, None)
    if seed is not None and not -(1 << 63) <= seed < 1 << 63:
        raise Refused(400, "seed is a whole number of 64 bits", param="seed")
    try:
        sampling = Sampling(
            samples=samples,
            temperature=typed(body, "temperature", float, 1.0),
            top_p=typed(body, "top_p", float, 1.0),
            top_k=max(0, typed(body, "top_k", int, 0)),  # elsewhere -1 also means all
            min_p=typed(body, "min_p", float, 0.0),
            max_tokens=most,
            min_tokens=typed(body, "min_tokens", int, 0),
            stop=stops(body.get("stop")),
            seed=secrets.randbits(31) if seed is None else seed,
            logprobs=alternatives,
        )
    except GPTError as error:
        raise Refused(400, str(error), param=str(error).partition(" ")[0]) from error
    prompts = [messages(body.get("messages"))] if chat else texts(body.get("prompt"))
    if len(prompts) * samples > MOST_ANSWERS:
        raise Refused(
            400,
            f"{len(prompts):,} prompts times n {samples} are more than {MOST_ANSWERS} answers: send fewer at once",
            param="prompt",
        )
    return Ask(
        chat,
        model,
        prompts,
        sampling,
        told,
        typed(body, "stream", bool, False),
        isinstance(options, dict) and bool(options.get("include_usage")),
        rule_of(body),
    )


def refuse_what_is_not_offered(body: dict) -> None:
    for name, nothing in NOT_OFFERED.items():
        if body.get(name) not in (None, nothing):
            raise Refused(400, f"{name} is not supported here", param=name, code="unsupported_parameter")


def rule_of(body: dict) -> Rule | None:
    """The constraint that is asked for. Raises Refused for one that is none, or cannot be enforced.

    A text is never taken for the name of a file, which a client of this server has no business with.
    """
    found = {kind: body[f"guided_{kind}"] for kind in KINDS if body.get(f"guided_{kind}") is not None}
    found = {kind: (what, f"guided_{kind}") for kind, what in found.items()}
    given = body.get("structured_outputs") or {}
    unknown = [name for name in given if name not in KINDS] if isinstance(given, dict) else ["structured_outputs"]
    if unknown:
        raise Refused(400, f"structured_outputs has one of {', '.join(KINDS)}", param="structured_outputs")
    found |= {kind: (what, "structured_outputs") for kind, what in given.items() if what is not None}
    form = body.get("response_format") or {"type": "text"}
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_schema":
        wrapped = form.get("json_schema")
        found["json"] = (wrapped.get("schema") if isinstance(wrapped, dict) else None, "response_format")
    elif kind == "json_object":
        found["json"] = ({"type": "object"}, "response_format")
    elif kind != "text":
        raise Refused(400, "response_format has a type: text, json_object or json_schema", param="response_format")
    if len(found) > 1:
        raise Refused(400, f"{' and '.join(found)} are two constraints: leave one out", param="structured_outputs")
    for kind, (what, param) in found.items():
        try:
            if kind == "json" and isinstance(what, str):
                what = parsed(what)
            if kind == "json" and not isinstance(what, dict):
                raise Refused(400, "the schema is a JSON object", param=param)
            if kind == "grammar" and not (isinstance(what, str) and ":" in what):
                raise Refused(400, "grammar is a Lark grammar with a rule `start:`", param=param)
            return rule(**{kind: what})
        except (GPTError, ValueError) as error:
            raise Refused(400, str(error), param=param) from error
    return None


def typed(body: dict, name: str, kind: type, default):
    """The field `name`, or `default` where it is absent or null. Raises Refused when it is of another
    type."""
    value = body.get(name)
    if value is None:
        return default
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        word = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind]
        raise Refused(400, f"{name} is {word}, not {value!r:.40}", param=name)
    return value


def logprobs(body: dict, chat: bool) -> tuple[bool, int]:
    """Whether logprobs are to be told, and of how many alternatives. The two interfaces say it
    differently."""
    if not chat:
        count = typed(body, "logprobs", int, None)
        return count is not None, count or 0
    told = typed(body, "logprobs", bool, False)
    count = typed(body, "top_logprobs", int, 0)
    if count and not told:
        raise Refused(400, "top_logprobs wants logprobs to be true", param="top_logprobs")
    return told, count


def stops(value: object) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value or []
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise Refused(400, "stop is a text or a list of texts", param="stop")
    if len(found) > MOST_STOPS:
        raise Refused(400, f"stop has {len(found):,} texts: at most {MOST_STOPS}", param="stop")
    return tuple(found)


def messages(value: object) -> list[dict]:
    """Messages with plain texts: a content in parts is joined, and one that is not text refused."""
    if not isinstance(value, list) or not value:
        raise Refused(400, "messages is a list with one message at least", param="messages")
    return [{"role": role(message), "content": content(message)} for message in value]


def role(message: object) -> str:
    found = message.get("role") if isinstance(message, dict) else None
    if not isinstance(found, str) or found not in ROLES:
        raise Refused(400, f"a message has a role ({', '.join(ROLES)}) and a content", param="messages")
    return ROLES[found]


def content(message: dict) -> str:
    value = message.get("content")
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [None]
    if not all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in parts):
        raise Refused(400, "the content of a message is a text, or parts of type text", param="messages")
    return "".join(part["text"] for part in parts)


def texts(value: object) -> list:
    """The prompts of `/completions`: one text or several, one list of token ids or several."""

    def ids(item: object) -> bool:
        return isinstance(item, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in item)

    if isinstance(value, str) or (ids(value) and value):
        return [value]
    if isinstance(value, list) and value and all(isinstance(item, str) or (ids(item) and item) for item in value):
        return value
    raise Refused(400, "prompt is a text, token ids, or a list of either", param="prompt")
