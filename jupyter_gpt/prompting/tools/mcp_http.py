"""An MCP server at a URL, over streamable HTTP: `https://host/mcp --header "Authorization: Bearer ${NAME}"`.

Keys stand in environment variables alone, in headers or the URL as `${NAME}`; no message repeats them.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, NamedTuple

from jupyter_gpt.errors import GPTError

VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
HEADER = re.compile(r"([\w-]+): *(.*\S)")
EXAMPLE = "--header 'Authorization: Bearer ${NAME}'"
UNSAID = ("Server returned an error response", "Not Found")  # the SDK's errors for a status without a message
ADVICE = {
    401: f"wanted is a key, from an environment variable: {EXAMPLE}",
    403: f"wanted is another key, from an environment variable: {EXAMPLE}",
    404: "the address of an MCP server often ends with /mcp",
    405: "the address of an MCP server often ends with /mcp; one of the older HTTP+SSE transport cannot be used",
}


class Endpoint(NamedTuple):
    """Where a server is and what it is sent, both with the values of the variables."""

    url: str
    headers: dict[str, str]
    secrets: list[str]

    def without_secrets(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "…")
        return text


def parse(address: str) -> Endpoint | None:
    """`URL [--header "Name: ${VARIABLE}"] …`; None for a command. Raises GPTError, which repeats no value."""
    if not re.match(r"https?://", address):
        return None
    try:
        url, *rest = shlex.split(address)
    except ValueError as error:
        raise GPTError(f"mcp: {str(error).lower()}: quotes go around a header, {EXAMPLE}") from None
    headers, secrets = {}, []
    for flag, text in zip(rest[::2], [*rest[1::2], ""], strict=False):
        found = HEADER.fullmatch(text)
        if flag != "--header" or not found:
            raise GPTError(f"mcp:{shown(url)} is followed by nothing, or by headers: {EXAMPLE}")
        if not VARIABLE.search(found[2]):
            variable = f"--header '{found[1]}: ${{NAME}}'"
            raise GPTError(f"the header {found[1]} takes its value from an environment variable: {variable}")
        headers[found[1]] = filled(found[2], secrets)
    return Endpoint(filled(url, secrets), headers, secrets)


def filled(text: str, secrets: list[str]) -> str:
    """The text with the values of its variables, which are added to `secrets`. Raises GPTError for one not set."""

    def value(found: re.Match) -> str:
        secret = os.environ.get(found[1], "").strip()
        if not secret:
            raise GPTError(f"the environment variable {found[1]} is not set: set it to the key of the MCP server")
        secrets.append(secret)
        return secret

    return VARIABLE.sub(value, text)


def shown(url: str) -> str:
    """Without user, password and query."""
    return re.sub(r"(?<=//)[^/@]*@", "", url.partition("?")[0])


@asynccontextmanager
async def streams(endpoint: Endpoint, refusals: list[str]) -> AsyncIterator[Any]:
    """The SDK's transport. `refusals` holds the error status of the last message's answer, where it is one."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    async def look(response: httpx2.Response) -> None:
        if response.request.method == "POST":
            refusals[:] = [refusal(response.status_code)] if response.status_code >= 400 else []

    timeout = httpx2.Timeout(30.0, read=300.0)
    hooks = {"response": [look]}
    async with (
        httpx2.AsyncClient(headers=endpoint.headers, timeout=timeout, event_hooks=hooks) as client,
        streamable_http_client(endpoint.url, http_client=client) as both,
    ):
        yield both


def refusal(status: int) -> str:
    """`HTTP 401 Unauthorized: wanted is a key …`"""
    known: Sequence[int] = [each.value for each in HTTPStatus]
    said = f"HTTP {status} {HTTPStatus(status).phrase}" if status in known else f"HTTP {status}"
    return f"{said}: {ADVICE[status]}" if status in ADVICE else said
