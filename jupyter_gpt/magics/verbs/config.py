"""`%gpt config`: what is set for this folder, or for every notebook of the user. For now, endpoints."""

from __future__ import annotations

from jupyter_gpt.errors import GPTError
from jupyter_gpt.magics.notebook import show
from jupyter_gpt.magics.options import OUT, Command, Option
from jupyter_gpt.magics.words import number, whole
from jupyter_gpt.views.bundle import Bundle
from jupyter_gpt.views.table import html_table, text_table

CONFIG = Command(
    name="%gpt config",
    summary="models behind a server: where they are, which variable holds the key",
    about=(
        "%gpt config endpoint NAME makes a model of any OpenAI-compatible server (OpenAI, vLLM, Ollama, "
        "llama.cpp, %gpt serve) usable as a model of this notebook. The key stays in its environment "
        "variable: neither notebook nor file ever holds it. Without options it shows what is set."
    ),
    groups=(
        ("What", (
            Option("WHAT", "what to set or show", choices=("endpoint",)),
            Option("NAME", "what to call the endpoint here", complete="models"),
        )),
        ("Endpoint", (
            Option("--base-url", "its address up to /v1", "URL"),
            Option("--model", "the model's name over there", "MODEL"),
            Option("--key-env", "the environment variable that holds the key", "VAR"),
            Option("--base", "a base model: it gets raw documents, through /completions", kind=None),
            Option("--timeout", "seconds of silence that are borne", "SECONDS", number, default=60),
            Option("--retries", "how often a failed request is sent again", "N", whole, default=2),
            Option("--user", "for every notebook of mine, not just those of this folder", kind=None),
            Option("--remove", "forget it", kind=None),
            OUT,
        )),
    ),
    examples=(
        "%gpt config endpoint local --base-url http://127.0.0.1:11434/v1 --model llama3.2",
        "%gpt config endpoint mini --base-url https://api.openai.com/v1 --model gpt-4o-mini \\",
        "    --key-env OPENAI_API_KEY",
        "%gpt config endpoint",
    ),
)  # fmt: skip


def config(gpt, given: dict, ip) -> object:
    """Declares, forgets or lists; the result is the endpoint, or all of them."""
    endpoints = gpt.models.endpoints
    name, remove = given.get("name"), given.get("remove", False)
    options = {k: v for k, v in given.items() if k not in ("what", "name", "remove", "base", "out")}
    if "base" in given:
        options["chat"] = False
    if name is None:
        if options or remove:
            raise GPTError("%gpt config wants a name before its options: %gpt config endpoint NAME …")
        show(endpoints_bundle([endpoints[known] for known in endpoints]))
        return endpoints
    if remove:
        if options:
            raise GPTError("%gpt config endpoint NAME --remove takes no other option")
        endpoint = endpoints[name]
        endpoints.remove(name)
        print(f"endpoint {name} is forgotten")
        return endpoint
    if not options:
        show(endpoints_bundle([endpoints[name]]))
        return endpoints[name]
    missing = next((option for option in ("base_url", "model") if option not in options), None)
    if missing:
        raise GPTError(f"%gpt config endpoint {name} wants --{missing.replace('_', '-')} too")
    endpoint = gpt.endpoint(name, options.pop("base_url"), options.pop("model"), **options)
    print(f"endpoint {name}: {endpoint.model} at {endpoint.base_url}, {key_of(endpoint)}")
    return endpoint


def key_of(endpoint) -> str:
    """Where the key is; not whether it is there, which another machine would see otherwise."""
    return f"key from {endpoint.key_env}" if endpoint.key_env else "no key"


def endpoints_bundle(endpoints: list) -> Bundle:
    """One row an endpoint."""
    data = {"view": "endpoints", "endpoints": [
        {"name": e.name, "model": e.model, "base_url": e.base_url, "key_env": e.key_env} for e in endpoints
    ]}  # fmt: skip
    if not endpoints:
        text = "no endpoints yet: %gpt config endpoint NAME --base-url URL --model MODEL makes one"
        return Bundle(text, f"<p>{text}</p>", data)
    head = ("endpoint", "model", "address", "key", "asked through")
    rows = [(e.name, e.model, e.base_url, key_of(e), "chat" if e.chat else "completions") for e in endpoints]
    return Bundle(text_table(head, rows, "lllll"), html_table(head, rows, "lllll"), data)
