"""Completions from an endpoint: any OpenAI-compatible server, through the `openai` client, streamed.

- Servers differ in what they take. One that refuses a setting by name is asked again without it, and the
  completion's notes say so; one that answers fewer samples than were asked is asked for the rest, one request
  each, seeds counted on.
- A base model (`endpoint.chat` false) gets the raw document through `/completions`; any other gets messages.
- The key stands in the request's header and nowhere else (`remote_errors`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from urllib.parse import urlsplit

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion, Sampling, Usage
from jupyter_gpt.inference.remote_answer import Answers
from jupyter_gpt.inference.remote_errors import Garbage, explained
from jupyter_gpt.inference.rules import Rule
from jupyter_gpt.inference.tool_calls import NoToolCalls, sendable

LOOPBACK = ("localhost", "127.0.0.1", "::1")
AT_ONCE = 8  # requests under way together
CONNECT = 10.0  # seconds a server may take to accept a connection
OPTIONAL = (
    "temperature",
    "top_p",
    "seed",
    "n",
    "logprobs",
    "top_logprobs",
    "stop",
    "stream_options",
    "top_k",
    "min_p",
    "min_tokens",
    "response_format",
    "structured_outputs",
)
UNSUPPORTED = (
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not (permitted|allowed)"
    r"|extra.(forbidden|inputs)"
)
OWN = ("top_k", "min_p", "min_tokens")  # not in OpenAI's interface, but in that of vLLM and llama.cpp
EXTRA = (*OWN, "structured_outputs")  # what the client has to be given apart


def complete(
    endpoint, asked: str | Sequence[dict], sampling: Sampling, rule: Rule | None = None
) -> Iterator[Completion]:
    """Ask an endpoint; yields the completion so far each time a piece comes, and at the end the whole one.

    `endpoint` is a `session.endpoints.Endpoint`; `asked` a text, or messages with `role` and `content`, or a mapping of
    `messages` and `tools`: the completion may then have `calls`, and NoToolCalls tells of a server without. Token
    ids are not known here: `tokens` holds each token's text, and only where the server offers logprobs. What
    a token took its server is not told either. Closing the generator ends the request. `rule` is passed on to the
    server, which may or may not keep it.

    Raises GPTError, one line: no key, endpoint down, silent, refusing, or answering garbage.
    """
    key = endpoint.key()
    client, failed = connect(endpoint, key), None
    try:
        yield from answered(endpoint, client, asked, sampling, rule)
    except GPTError:
        raise
    except Exception as error:  # whatever the client or its transport raises; bugs of ours name their type
        failed = explained(error, endpoint, key, client)
    finally:
        client.close()
    if failed is not None:  # raised out here so that it holds no reference to the request and its key
        raise failed


def complete_all(
    endpoint,
    asked: Sequence[str | Sequence[dict]],
    sampling: Sampling,
    on_done: Callable[[int], None] | None = None,
    rule: Rule | None = None,
) -> list[Completion]:
    """The same for many prompts, several requests under way at once; in the order asked. The first error ends
    it."""
    endpoint.key()
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="jupyter_gpt-remote")
    try:
        jobs = {pool.submit(last, complete(endpoint, one, sampling, rule)): i for i, one in enumerate(asked)}
        for job in as_completed(jobs):
            job.result()
            if on_done:
                on_done(jobs[job])
        return [job.result() for job in jobs]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def connect(endpoint, key: str | None):
    """A client of the `openai` library for this endpoint. It follows no redirect: that would send the prompt to a host
    that nobody has named."""
    import openai

    timeout = openai.Timeout(endpoint.timeout, connect=min(CONNECT, endpoint.timeout))
    near = urlsplit(endpoint.base_url).hostname in LOOPBACK  # a proxy of the environment leads elsewhere
    return openai.OpenAI(
        api_key=key or "none",
        base_url=endpoint.base_url,
        timeout=timeout,
        max_retries=endpoint.retries,
        http_client=openai.DefaultHttpxClient(trust_env=not near, timeout=timeout, follow_redirects=False),
    )


def answered(endpoint, client, asked, sampling: Sampling, rule: Rule | None = None) -> Iterator[Completion]:
    """The first request, and further ones for the samples that it did not bring."""
    start = time.perf_counter()
    answers = Answers()

    def so_far() -> Completion:
        return completion(endpoint, asked, sampling, answers, time.perf_counter() - start)

    for _ in pieces(endpoint, client, asked, sampling, answers, rule):
        yield so_far()
    missing = [k for k in range(sampling.samples) if k not in answers.samples]
    if missing:
        answers.notes.setdefault("n", "the endpoint gives one sample a request: the others were asked for one by one")
        for extra in singly(endpoint, client, asked, sampling, missing, rule):
            answers.merge(*extra)
            yield so_far()
    yield so_far()


def singly(
    endpoint, client, asked, sampling: Sampling, missing: list[int], rule: Rule | None = None
) -> Iterator[tuple[int, Answers]]:
    """One request for each missing sample k, with the seed that it would have had."""

    def one(k: int) -> tuple[int, Answers]:
        answers = Answers()
        alone = replace(sampling, samples=1, seed=sampling.seed + k)
        for _ in pieces(endpoint, client, asked, alone, answers, rule):
            pass
        return k, answers

    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="jupyter_gpt-remote")
    try:
        for job in as_completed([pool.submit(one, k) for k in missing]):
            yield job.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def pieces(endpoint, client, asked, sampling: Sampling, answers: Answers, rule: Rule | None = None) -> Iterator[None]:
    """One request; every piece that comes is added to `answers` before the next `yield`."""
    with opened(endpoint, client, request(endpoint, asked, sampling, rule), answers.notes) as stream:
        kind = stream.response.headers.get("content-type", "")
        if "event-stream" in kind or not kind:
            for chunk in stream:
                answers.add(chunk)
                yield
        elif "json" in kind:  # a server that does not stream answers whole
            answers.whole(json.loads(stream.response.read()))
            yield
        else:
            raise Garbage(f"{kind.split(';')[0]}, which is no completion")
    answers.check()


def request(endpoint, asked, sampling: Sampling, rule: Rule | None = None) -> dict:
    """The body of the request; settings that say nothing are left out."""
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
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.logprobs:
        body |= (
            {"logprobs": True, "top_logprobs": sampling.logprobs} if endpoint.chat else {"logprobs": sampling.logprobs}
        )
    return body | {name: getattr(sampling, name) for name in OWN if getattr(sampling, name)} | ruled(endpoint, rule)


def ruled(endpoint, rule: Rule | None) -> dict:
    """The fields that ask a server to keep a rule: OpenAI's where it has one for it, else vLLM's."""
    if rule is None:
        return {}
    if rule.kind == "json" and endpoint.chat:
        schema = {"name": "answer", "schema": rule.what, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"structured_outputs": {rule.kind: list(rule.what) if rule.kind == "choice" else rule.what}}


def document(asked) -> str:
    """What a base model reads: the text as it is, or the contents of messages, a blank line between them."""
    return asked if isinstance(asked, str) else "\n\n".join(message["content"] for message in asked)


def opened(endpoint, client, body: dict, notes: dict[str, str]):
    """The stream of the answer, after leaving out, one at a time, what the server says it does not take."""
    import openai

    api = client.chat.completions if endpoint.chat else client.completions
    while True:
        own = {name: body[name] for name in EXTRA if name in body}
        try:
            return api.create(**{k: v for k, v in body.items() if k not in own}, extra_body=own or None)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            schema = body.get("response_format", {}).get("json_schema", {})
            if schema.get("strict") and "schema" in str(error).lower():
                schema["strict"] = False  # some enforce but a part of JSON Schema, and refuse the rest
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
            if culprit not in ("stream_options", "n"):  # these two cost nothing: see Answers and singly
                notes[culprit] = f"the endpoint takes no {culprit}: it was left out"


def refused(error, body: dict) -> str | None:
    """Which optional setting of `body` the server complains about; None when it is about something else.

    A complaint about a setting's *value* names it too, so only words such as "unsupported" or "unknown"
    count.
    """
    said = str(error).lower()
    if "max_tokens" in body and "max_tokens" in said and "max_completion_tokens" in said:
        return "max_tokens"
    if "n" in body and re.search(r"\bn\b.*\b(only|must be|at most|support)", said):
        return "n"
    if not re.search(UNSUPPORTED, said):
        return None
    named = getattr(error, "param", None)
    if named in OPTIONAL and named in body:
        return named
    found = [name for name in OPTIONAL if name in body and re.search(rf"\b{name}\b", said)]
    return max(found, key=len, default=None)


def completion(endpoint, asked, sampling: Sampling, answers: Answers, seconds: float) -> Completion:
    """What has come so far, as a completion whose samples stand in order."""
    sent = (
        document(asked)
        if not endpoint.chat
        else json.dumps(request(endpoint, asked, sampling)["messages"], ensure_ascii=False, indent=1)
    )
    spent = answers.usage()
    price = cost(endpoint.base_url, endpoint.model, spent[0], spent[1]) if answers.counted else None
    usage = Usage(spent[0] or 0, spent[1] or 0, seconds, price)
    notes = tuple(answers.notes.values()) + (() if answers.counted else answers.uncounted)
    shared = {
        "prompt": sent,
        "prompt_tokens": usage.prompt_tokens,
        "usage": usage,
        "model": endpoint.name,
        "form": "messages, laid out by the server" if endpoint.chat else "the raw document",
        "messages": json.loads(sent) if endpoint.chat else None,
        "sampling": sampling,
        "notes": notes,
    }
    drawn = [
        Completion(
            one.text,
            list(one.tokens),
            list(one.logprobs),
            list(one.top),
            finish_reason=one.finish or "length",
            calls=one.made,
            **shared,
        )
        for _, one in sorted(answers.samples.items())
    ] or [Completion("", finish_reason="length", **shared)]
    drawn[0].samples = drawn
    return drawn[0]


def last(steps: Iterator[Completion]) -> Completion:
    """The last of the partial completions: the whole one."""
    for step in steps:  # noqa: B007
        pass
    return step


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
