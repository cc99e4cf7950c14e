"""`%gpt config`: what is set for this folder, or for every notebook of the user: endpoints, and techniques' texts."""

from __future__ import annotations

from collections.abc import Mapping

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.notebook.lexer import number, spelled, whole
from jupyter_gpt.notebook.magics.notebook import show
from jupyter_gpt.notebook.magics.options import OUT, Command, Option

CONFIG = Command(
    name="%gpt config",
    summary="models behind a server; the texts of the techniques of %%prompt",
    about=(
        "%gpt config endpoint NAME makes a model of any OpenAI-compatible server (OpenAI, vLLM, Ollama, "
        "llama.cpp, %gpt serve) usable as a model of this notebook. The key stays in its environment "
        "variable: neither notebook nor file ever holds it. Without options it shows what is set. "
        "%gpt config template cot shows the texts that --cot sends, and with --part and --text replaces one for the "
        "notebooks of this folder; its {holes} stay holes."
    ),
    groups=(
        (
            "What",
            (
                Option("WHAT", "what to set or show", choices=("endpoint", "template")),
                Option(
                    "NAME",
                    "what to call the endpoint here; or the technique: cot, expert, reflection, tree, react, agent",
                    complete="models",
                    hints=("cot", "expert", "reflection", "tree", "react", "agent"),
                ),
            ),
        ),
        (
            "Endpoint",
            (
                Option("--base-url", "its address up to /v1", "URL"),
                Option("--model", "the model's name over there", "MODEL"),
                Option("--key-env", "the environment variable that holds the key", "VAR"),
                Option("--base", "a base model: it gets raw documents, through /completions", kind=None),
                Option("--timeout", "seconds of silence that are borne", "SECONDS", number, default=60),
                Option("--retries", "how often a failed request is sent again", "N", whole, default=2),
                Option("--user", "for every notebook of mine, not just those of this folder", kind=None),
                Option("--overwrite", "replace the endpoint that another cell declared under this NAME", kind=None),
                Option("--remove", "forget the endpoint; go back to the technique's own text", kind=None),
            ),
        ),
        (
            "Template",
            (
                Option("--part", "which text of the technique", "PART"),
                Option("--text", r"what to send instead, with the same {holes}; \n is a new line", "TEXT", spelled),
                OUT,
            ),
        ),
    ),
    examples=(
        "%gpt config endpoint local --base-url http://127.0.0.1:11434/v1 --model llama3.2",
        "%gpt config endpoint mini --base-url https://api.openai.com/v1 --model gpt-4o-mini \\",
        "    --key-env OPENAI_API_KEY",
        "%gpt config endpoint",
        '%gpt config template cot --part trigger --text "First, let\'s think logically."',
    ),
)


def config(gpt, given: dict, ip) -> object:
    """Declares, forgets or lists; the result is the endpoint, or all of them; of a technique its texts."""
    if given.get("what") == "template":
        return template({k: v for k, v in given.items() if k not in ("what", "out")})
    if "part" in given or "text" in given:
        raise GPTError("--part and --text replace a technique's text: %gpt config template cot --part … --text …")
    endpoints = gpt.models.endpoints
    name, remove = given.get("name"), given.get("remove", False)
    options = {k: v for k, v in given.items() if k not in ("what", "name", "remove", "base", "out")}
    if "base" in given:
        options["chat"] = False
    if name is None:
        if options or remove:
            raise GPTError("%gpt config wants a name before its options: %gpt config endpoint NAME …")
        show(endpoints_report([endpoints[known] for known in endpoints]))
        return endpoints
    if remove:
        if options:
            raise GPTError("%gpt config endpoint NAME --remove takes no other option")
        endpoint = endpoints[name]
        endpoints.remove(name)
        print(f"endpoint {name} is forgotten")
        return endpoint
    if not options:
        show(endpoints_report([endpoints[name]]))
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


def endpoints_report(endpoints: list):
    """One row an endpoint."""
    from jupyter_gpt.report.parts import Paragraph, Table
    from jupyter_gpt.report.report import Report

    facts = [{"name": e.name, "model": e.model, "base_url": e.base_url, "key_env": e.key_env} for e in endpoints]
    head = ("endpoint", "model", "address", "key", "API")
    rows = [(e.name, e.model, e.base_url, key_of(e), "chat" if e.chat else "completions") for e in endpoints]
    none = Paragraph("No endpoints yet. Declare one with %gpt config endpoint NAME --base-url URL --model MODEL")
    return Report("", [Table(head, rows, "lllll") if rows else none], {"view": "endpoints", "endpoints": facts})


def template(given: dict) -> dict[str, str]:
    """Shows a technique's texts, after replacing one or going back to its own."""
    from jupyter_gpt.prompting import templates

    technique, part, text, remove = (given.pop(key, None) for key in ("name", "part", "text", "remove"))
    if given:
        raise GPTError(f"--{next(iter(given)).replace('_', '-')} belongs to an endpoint, not to a template")
    if technique is None:
        raise GPTError(f"%gpt config template wants a technique: {', '.join(templates.MODULES)}")
    texts = templates.defaults(technique)
    if text is not None or remove:
        if text is not None and (remove or part is None):
            raise GPTError(
                "say which text: --part PART --text TEXT replaces it, --part PART --remove goes back to its own"
            )
        for each in [part] if part else list(templates.replaced_templates().get(technique, {})):
            templates.replace(technique, each, text)
    elif part is not None and part not in texts:
        raise GPTError(f"{technique} has no template {part}{nearest(part, texts)}")
    now = templates.current(technique)
    show(templates_report(technique, now, texts, part))
    return now


def templates_report(technique: str, now: Mapping, own: Mapping, part: str | None):
    """Each text under its name, marked where it was replaced."""
    from jupyter_gpt.report.parts import Paragraph, bold
    from jupyter_gpt.report.report import Report

    shown = {name: text for name, text in now.items() if part in (None, name)}
    parts = []
    for name, text in shown.items():
        parts.append(Paragraph(bold(f"{technique} {name}" + " (replaced)" * (text != own[name]))))
        parts.append(Paragraph(text or "(nothing)", "code"))
    return Report("", parts, {"view": "templates", "technique": technique, "templates": shown})
