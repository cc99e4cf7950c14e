"""Errors of an endpoint in one line that says what to do and never contains the key.

Servers repeat keys in their messages (whole or in part), and client libraries keep request headers in their exceptions.
So the error that is raised is new, has no cause, and every piece of the key is removed from it.
"""

from __future__ import annotations

import re

from jupyter_gpt.errors import GPTError, nearest

LONGEST = 200  # characters of a server's own words that a line has room for
TRANSPORTS = ("httpx", "httpx2", "httpcore", "ssl", "anyio")  # whose errors the client may pass on
PIECE = 8  # characters of a key that are removed


class Garbage(Exception):
    """An answer that is no completion; the text says what it is instead."""


class Cut(Exception):
    """An answer that is incomplete."""


def explain(error: BaseException, endpoint, key: str | None, client=None) -> GPTError:
    """The error for the user. `client`, if given, is asked which models there are."""
    import openai

    name = f"endpoint {endpoint.name}"
    if isinstance(error, openai.APITimeoutError) or "Timeout" in type(error).__name__:
        return GPTError(
            f"{name} sent nothing for {endpoint.timeout:g} s: it is slow or stuck; --timeout gives it longer"
        )
    if isinstance(error, openai.APIStatusError):
        return GPTError(status(error, endpoint, key, client))
    if isinstance(error, openai.APIConnectionError):
        return GPTError(f"{name} cannot be reached at {endpoint.base_url}: {reason(error, key)}")
    if isinstance(error, openai.APIError):
        return GPTError(f"{name} failed while it answered: {words(error, key) or 'it does not say why'}")
    if isinstance(error, Garbage):
        return GPTError(f"{name} answers {without_key(str(error), key)}: is {endpoint.base_url} the right --base-url?")
    if isinstance(error, Cut) or type(error).__module__.partition(".")[0] in TRANSPORTS:
        return GPTError(f"{name} closed the connection before its answer was whole: {reason(error, key)}")
    if isinstance(error, ValueError):
        return GPTError(f"{name} answers with something other than JSON: is {endpoint.base_url} the right --base-url?")
    return GPTError(f"{name} failed: {type(error).__name__}")


def status(error, endpoint, key: str | None, client) -> str:
    """The message for an HTTP error status."""
    code, message = error.status_code, words(error, key)
    name, tail = f"endpoint {endpoint.name}", f": {message}" if message else ""
    if 300 <= code < 400:
        return f"{name} sends requests on to another address ({code}): give the one that answers as --base-url"
    if code in (401, 403):
        if endpoint.key_env is None:
            return f"{name} needs an API key ({code}): declare it again with --key-env VARIABLE"
        return f"{name} refuses the key in {endpoint.key_env} ({code}){tail}"
    if code == 404:
        known = models(client)
        if known and endpoint.model not in known:
            return f"{name} has no model {endpoint.model} (404){nearest(endpoint.model, known)}"
        return f"{name} finds no model {endpoint.model} at {endpoint.base_url} (404){tail}"
    if code == 429:
        tried = f" after {endpoint.retries + 1} tries" if endpoint.retries else ""
        return f"{name} refuses further requests for now (429: rate limit or quota){tried}{tail}"
    if code >= 500:
        return f"{name} failed on its side ({code}){tail}"
    return f"{name} refuses the request ({code}){tail}"


def models(client) -> list[str]:
    """The names of an endpoint's models, if it lists them within two seconds."""
    import openai

    try:
        return [str(model.id) for model in client.with_options(timeout=2.0, max_retries=0).models.list().data or []]
    except (openai.OpenAIError, ValueError, TypeError, AttributeError):  # the first error is what counts
        return []


def words(error, key: str | None) -> str:
    """A server's own message: one line, without mark-up, without the key."""
    body = getattr(error, "body", None)
    message = body.get("message") or body.get("detail") or body.get("error") if isinstance(body, dict) else body
    if not isinstance(message, str) or "<html" in message.lower() or "<!doctype" in message.lower():
        return ""
    message = without_key(" ".join(message[: 8 * LONGEST].split()), key)
    return message if len(message) <= LONGEST else message[:LONGEST] + "…"


def reason(error: BaseException, key: str | None) -> str:
    """Why a connection failed: the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    message = re.sub(r"^\[Errno -?\d+\] ", "", " ".join(str(error).split()))
    return without_key(message, key)[:LONGEST] or type(error).__name__


def without_key(text: str, key: str | None) -> str:
    """`text` with the key, and every piece of it of `PIECE` characters or more, replaced by `…`."""
    if not key:
        return text
    text = text.replace(key, "…")
    at = 0
    while at <= len(text) - PIECE:
        if text[at : at + PIECE] in key:
            end = at + PIECE
            while end < len(text) and text[at : end + 1] in key:
                end += 1
            text = text[:at] + "…" + text[end:]
        at += 1
    return text
