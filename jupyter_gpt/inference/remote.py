"""Completions from an endpoint: any OpenAI-compatible server, through the `openai` client, streamed.

- Servers differ in what they take. One that refuses a setting by name is asked again without it, and the completion's
  notes say so; one that returns fewer samples than asked for is asked for the rest, one request each, with their seeds.
- A base model (`endpoint.chat` false) gets the raw document through `/completions`; any other gets messages.
- The key is in the request's header and nowhere else (`remote_errors`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from urllib.parse import urlsplit

from jupyter_gpt.data.render import BY_SERVER
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion, Sampling, Usage
from jupyter_gpt.inference.remote_answer import Answers
from jupyter_gpt.inference.remote_errors import Garbage, explain
from jupyter_gpt.inference.tool_calls import NoToolCalls, sendable

LOOPBACK = ("localhost", "127.0.0.1", "::1")
AT_ONCE = 8  # requests in parallel
LINE, WHOLE = 1 << 20, 64 << 20  # bytes of one event, and of an answer that is not streamed
CONNECT = 10.0  # seconds a server may take to accept a connection
OWN = ("top_k", "min_p", "min_tokens")  # not in OpenAI's interface, but in that of vLLM and llama.cpp
EXTRA = (*OWN, "structured_outputs")  # passed to the client as `extra_body`
OPTIONAL = (
    *("temperature", "top_p", "seed", "n", "logprobs", "top_logprobs", "stop", "stream_options", "response_format"),
    *EXTRA,
)
UNSUPPORTED = (
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not (permitted|allowed)"
    r"|extra.(forbidden|inputs)"
)


def complete(endpoint, asked: str | Sequence[dict] | Mapping, sampling: Sampling, rule=None) -> Iterator[Completion]:
    """Ask an endpoint; yields the completion so far each time a piece comes, and at the end the whole one.

    `endpoint` is a `models.endpoints.Endpoint`; `asked` a text, messages with `role` and `content`, or a mapping of
    `messages` and `tools`: the completion may then have `calls`; NoToolCalls is raised if the server has none. Token
    ids are not known: `tokens` holds each token's text, if the server offers logprobs. `rule` is passed on to the
    server, which may ignore it. Closing the generator ends the request.

    Raises GPTError, one line: no key, endpoint down, silent, refusing, or answering garbage.
    """
    key = endpoint.key()
    client, failed = connect(endpoint, key), None
    try:
        yield from ask(endpoint, client, asked, sampling, rule)
    except GPTError:
        raise
    except Exception as error:  # whatever the client or its transport raises; bugs of ours name their type
        failed = explain(error, endpoint, key, client)
    finally:
        client.close()
    if failed is not None:  # raised out here so that it holds no reference to the request and its key
        raise failed


def complete_all(
    endpoint,
    asked: Sequence[str | Sequence[dict] | Mapping],
    sampling: Sampling,
    on_done: Callable[[int], None] | None = None,
    rule=None,
) -> list[Completion]:
    """The same for many prompts, several requests in parallel; in the order asked. The first error ends it."""
    endpoint.key()

    def whole(question) -> Completion:
        *_, completion = complete(endpoint, question, sampling, rule)
        return completion

    done: list[Completion | None] = [None] * len(asked)
    for i, completion in in_parallel(whole, asked):
        done[i] = completion
        if on_done:
            on_done(i)
    return done


def in_parallel(function: Callable, items: Sequence) -> Iterator[tuple[int, object]]:
    """The number of each item and `function(item)`, as they come."""
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="jupyter_gpt-remote")
    try:
        jobs = {pool.submit(function, item): i for i, item in enumerate(items)}
        for job in as_completed(jobs):
            yield jobs[job], job.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def connect(endpoint, key: str | None):
    """A client of the `openai` library for this endpoint. It follows no redirects, which could send the prompt to an
    unknown host."""
    import openai

    timeout = openai.Timeout(endpoint.timeout, connect=min(CONNECT, endpoint.timeout))
    local = urlsplit(endpoint.base_url).hostname in LOOPBACK  # no proxy leads there
    return openai.OpenAI(
        api_key=key or "none",
        base_url=endpoint.base_url,
        timeout=timeout,
        max_retries=endpoint.retries,
        http_client=openai.DefaultHttpxClient(trust_env=not local, timeout=timeout, follow_redirects=False),
    )


def ask(endpoint, client, asked, sampling: Sampling, rule=None) -> Iterator[Completion]:
    """The first request, and further ones for missing samples, with the seeds they would have had."""
    start = time.perf_counter()
    answers = Answers()

    def so_far() -> Completion:
        return completion(endpoint, asked, sampling, answers, time.perf_counter() - start)

    def single(k: int) -> Answers:
        one = Answers()
        for _ in pieces(endpoint, client, asked, sampling.replace(samples=1, seed=sampling.seed + k), one, rule):
            pass
        return one

    for _ in pieces(endpoint, client, asked, sampling, answers, rule):
        yield so_far()
    missing = [k for k in range(sampling.samples) if k not in answers.samples]
    if missing:
        answers.notes.setdefault("n", "the endpoint gives one sample a request: the others were asked for one by one")
        for i, one in in_parallel(single, missing):
            answers.merge(missing[i], one)
            yield so_far()
    yield so_far()


def pieces(endpoint, client, asked, sampling: Sampling, answers: Answers, rule=None) -> Iterator[None]:
    """One request; each piece that comes is added to `answers` before the next `yield`."""
    with opened(endpoint, client, request(endpoint, asked, sampling, rule), answers.notes) as stream:
        kind, received = stream.response.headers.get("content-type", ""), stream.response.iter_bytes
        if "event-stream" in kind or not kind:
            stream.response.iter_bytes = lambda *size: checked(received(*size), LINE, b"\n")
            for chunk in stream:
                answers.add(chunk)
                yield
                if answers.too_long(sampling.max_tokens, sampling.samples):
                    break
        elif "json" in kind:  # a server that does not stream
            answers.whole(json.loads(b"".join(checked(received(), WHOLE))))
            yield
        else:
            raise Garbage(f"{kind.split(';')[0]}, which is no completion")
    answers.check()


def checked(pieces: Iterator[bytes], most: int, end: bytes | None = None) -> Iterator[bytes]:
    """The pieces of an answer. Raises Garbage where more than `most` bytes come without an `end`."""
    size = 0
    for piece in pieces:
        size = len(piece) - piece.rfind(end) - 1 if end and end in piece else size + len(piece)
        if size > most:
            raise Garbage(f"with {'a line of ' if end else ''}more than {most >> 20} MB")
        yield piece


def request(endpoint, asked, sampling: Sampling, rule=None) -> dict:
    """The body of the request; settings at their default are left out."""
    body: dict = {
        "model": endpoint.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
    }
    if isinstance(asked, Mapping):
        body |= {"messages": [sendable(message) for message in asked["messages"]], "tools": list(asked["tools"])}
    elif endpoint.chat:
        body["messages"] = [{"role": "user", "content": asked}] if isinstance(asked, str) else list(asked)
    else:
        body["prompt"] = document(asked)
    if sampling.samples > 1:
        body["n"] = sampling.samples
    if sampling.top_p < 1:
        body["top_p"] = sampling.top_p
    if sampling.stops:
        body["stop"] = sampling.stops
    if sampling.logprobs:
        count = sampling.logprobs
        body |= {"logprobs": True, "top_logprobs": count} if endpoint.chat else {"logprobs": count}
    own = {name: getattr(sampling, name) for name in OWN if getattr(sampling, name)}
    return body | own | constraint_fields(endpoint, rule)


def constraint_fields(endpoint, rule) -> dict:
    """The fields that ask a server to enforce a rule: OpenAI's if it has one, else vLLM's."""
    if rule is None:
        return {}
    if rule.kind == "json" and endpoint.chat:
        schema = {"name": "answer", "schema": rule.what, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"structured_outputs": {rule.kind: list(rule.what) if rule.kind == "choice" else rule.what}}


def document(asked) -> str:
    """The prompt of a base model: the text, or the contents of messages with a blank line between them."""
    return asked if isinstance(asked, str) else "\n\n".join(message["content"] for message in asked)


def opened(endpoint, client, body: dict, notes: dict[str, str]):
    """The stream of the answer. What the server refuses by name is left out, one setting at a time."""
    import openai

    api = client.chat.completions if endpoint.chat else client.completions
    while True:
        own = {name: body[name] for name in EXTRA if name in body}
        try:
            return api.create(**{k: v for k, v in body.items() if k not in own}, extra_body=own or None)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            schema = body.get("response_format", {}).get("json_schema", {})
            if schema.get("strict") and "schema" in str(error).lower():
                schema["strict"] = False  # some servers enforce only a part of JSON Schema
                notes["strict"] = "the endpoint cannot enforce this schema: its answer is only validated"
                continue
            if "tools" in body and re.search(r"\btools?\b|tool.choice|function.call", str(error).lower()):
                raise NoToolCalls(f"{endpoint.name} takes no tool calls") from None
            culprit = refused(error, body)
            if culprit is None:
                raise
            if culprit == "max_tokens":
                body["max_completion_tokens"] = body.pop(culprit)
                continue
            body.pop(culprit)
            if culprit == "logprobs":
                body.pop("top_logprobs", None)
            if culprit not in ("stream_options", "n"):  # both are made up for
                notes[culprit] = f"the endpoint takes no {culprit}: it was left out"


def refused(error, body: dict) -> str | None:
    """Which optional setting of `body` the server refuses; None if the error is about something else.

    An error about a setting's *value* names it too, so only words such as "unsupported" or "unknown" count.
    """
    message = str(error).lower()
    if "max_tokens" in body and "max_tokens" in message and "max_completion_tokens" in message:
        return "max_tokens"
    if "n" in body and re.search(r"\bn\b.*\b(only|must be|at most|support)", message):
        return "n"
    if not re.search(UNSUPPORTED, message):
        return None
    named = getattr(error, "param", None)
    if named in OPTIONAL and named in body:
        return named
    found = [name for name in OPTIONAL if name in body and re.search(rf"\b{name}\b", message)]
    return max(found, key=len, default=None)


def completion(endpoint, asked, sampling: Sampling, answers: Answers, seconds: float) -> Completion:
    """The answer so far as a completion, its samples in order."""
    messages = request(endpoint, asked, sampling)["messages"] if endpoint.chat else None
    sent = document(asked) if messages is None else json.dumps(messages, ensure_ascii=False, indent=1)
    tokens_in, tokens_out = answers.usage()
    price = cost(endpoint.base_url, endpoint.model, tokens_in, tokens_out) if answers.counted else None
    usage = Usage(tokens_in or 0, tokens_out or 0, seconds, price, cached_tokens=answers.cached)
    notes = tuple(answers.notes.values()) + (() if answers.counted else answers.uncounted)
    shared = {
        "prompt": sent,
        "prompt_tokens": usage.prompt_tokens,
        "usage": usage,
        "model": endpoint.name,
        "form": BY_SERVER if endpoint.chat else "the raw document",
        "messages": None if messages is None else json.loads(sent),
        "sampling": sampling,
        "notes": notes,
    }
    samples = [
        Completion(
            one.text,
            list(one.tokens),
            list(one.logprobs),
            list(one.top),
            finish_reason=one.finish or "length",
            calls=one.tool_calls,
            **shared,
        )
        for _, one in sorted(answers.samples.items())
    ] or [Completion("", finish_reason="length", **shared)]
    samples[0].samples = samples
    return samples[0]


def cost(base_url: str, model: str, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
    """Dollars for one request by the published prices of the provider at this address (`genai-prices`, offline); None
    if no price is known or the tokens were not counted. A `gpt-4o` on one's own machine has no published price."""
    if prompt_tokens is None or completion_tokens is None:
        return None
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=prompt_tokens, output_tokens=completion_tokens)
    try:
        return float(calc_price(usage, model, provider_api_url=base_url).total_price)
    except LookupError:
        return None
