"""`%gpt config`: what is set for this folder, or for all of the user's: endpoints, techniques' texts, launchers."""

from __future__ import annotations

from typing import ClassVar, Literal

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.models.endpoints import EndpointOptions
from jupyter_gpt.notebook.lexer import spelled
from jupyter_gpt.notebook.magics.notebook import show
from jupyter_gpt.options import Options, option

TECHNIQUES = ("cot", "expert", "reflection", "tree", "react", "agent")


class What(Options):
    what: Literal["endpoint", "template", "launcher"] | None = option(
        None, "what to set or show", place=True, group="What"
    )


class Config(EndpointOptions, What):
    """models behind a server, templates of the techniques, cluster settings

    %gpt config endpoint NAME makes a model of any OpenAI-compatible server (OpenAI, vLLM, Ollama, llama.cpp, %gpt
    serve) usable as a model of this notebook. The key stays in its environment variable: neither notebook nor file ever
    contains it. Without options it shows what is set. %gpt config template cot shows the texts that --cot sends, and
    with --part and --text replaces one for the notebooks of this folder; its {holes} stay holes. %gpt config launcher
    slurm keeps what --on slurm needs at this site.
    """

    magic: ClassVar[str] = "%gpt config"
    groups: ClassVar[tuple[str, ...]] = ("What", "Endpoint", "Template", "Launcher")
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt config endpoint local --base-url http://127.0.0.1:11434/v1 --model llama3.2",
        "%gpt config endpoint mini --base-url https://api.openai.com/v1 --model gpt-4o-mini \\",
        "    --key-env OPENAI_API_KEY",
        "%gpt config endpoint",
        '%gpt config template cot --part trigger --text "First, let\'s think logically."',
        "%gpt config launcher slurm partition=gpu account=nlp time=1-00:00:00",
    )

    name: str | None = option(
        None,
        f"name of the endpoint here; or the technique: {', '.join(TECHNIQUES)}; or the launcher: slurm, ray",
        place=True,
        group="What",
        complete="models",
        hints=TECHNIQUES,
    )
    settings: list[str] | None = option(
        None,
        "settings of the launcher: partition=gpu, or partition= to remove it",
        place="KEY=VALUE",
        many=True,
        group="Launcher",
    )
    base_url: str | None = option(None, "address of its API, up to /v1", "URL", group="Endpoint")
    model: str | None = option(None, "name of the model at the server", "MODEL", group="Endpoint")
    base: bool = option(False, "a base model: it gets raw documents, through /completions", group="Endpoint")
    remove: bool = option(
        False, "remove the endpoint, or the launcher's settings; restore the technique's own text", group="Endpoint"
    )
    part: str | None = option(None, "which text of the technique", "PART", group="Template")
    text: str | None = option(
        None,
        r"text to send instead, with the same {holes}; \n is a new line",
        "TEXT",
        kind=spelled,
        group="Template",
    )
    out: str | None = option(None, "bind the result to this variable of the notebook", "VAR", group="Template")


def config(gpt, given: dict, ip) -> object:
    """Declares, removes or lists; the result is the endpoint, or all of them; of a technique its texts."""
    what = given.pop("what", None)
    if what == "template":
        return template(**given)
    if what == "launcher":
        return launcher(**given)
    if "settings" in given:
        raise GPTError(f"{given['settings'][0]} is no option of an endpoint: settings with = are a launcher's")
    if "part" in given or "text" in given:
        raise GPTError("--part and --text replace a technique's text: %gpt config template cot --part … --text …")
    endpoints, name, remove = gpt.models.endpoints, given.pop("name", None), given.pop("remove", False)
    if given.pop("base", False):
        given["chat"] = False
    if name is None and (given or remove):
        raise GPTError("%gpt config needs a name before its options: %gpt config endpoint NAME …")
    if remove and given:
        raise GPTError("%gpt config endpoint NAME --remove takes no other option")
    if remove:
        endpoint = endpoints[name]
        endpoints.remove(name)
        print(f"endpoint {name} is removed")
        return endpoint
    if not given:
        show(endpoints_report([endpoints[known] for known in ([name] if name else endpoints)]))
        return endpoints[name] if name else endpoints
    if missing := next((option for option in ("base_url", "model") if option not in given), None):
        raise GPTError(f"%gpt config endpoint {name} needs --{missing.replace('_', '-')}")
    endpoint = gpt.endpoint(name, **given)
    print(f"endpoint {name}: {endpoint.model} at {endpoint.base_url}, {key_of(endpoint)}")
    return endpoint


def key_of(endpoint) -> str:
    """Where the key is; not whether it is there, which differs between machines."""
    return f"key from {endpoint.key_env}" if endpoint.key_env else "no key"


def endpoints_report(endpoints: list):
    """One row per endpoint."""
    from jupyter_gpt.report.parts import Paragraph, Table
    from jupyter_gpt.report.report import Report

    facts = [{"name": e.name, "model": e.model, "base_url": e.base_url, "key_env": e.key_env} for e in endpoints]
    head = ("endpoint", "model", "address", "key", "API")
    rows = [(e.name, e.model, e.base_url, key_of(e), "chat" if e.chat else "completions") for e in endpoints]
    none = Paragraph("No endpoints yet. Declare one with %gpt config endpoint NAME --base-url URL --model MODEL")
    return Report("", [Table(head, rows, "lllll") if rows else none], {"view": "endpoints", "endpoints": facts})


def template(
    name: str | None = None, part: str | None = None, text: str | None = None, remove: bool = False, **others
) -> dict[str, str]:
    """Shows a technique's texts, after replacing one or restoring its own."""
    from jupyter_gpt.prompting import templates
    from jupyter_gpt.report.parts import Paragraph, bold
    from jupyter_gpt.report.report import Report

    if others:
        raise GPTError(f"--{next(iter(others)).replace('_', '-')} belongs to an endpoint, not to a template")
    if name is None:
        raise GPTError(f"%gpt config template needs a technique: {', '.join(templates.MODULES)}")
    own = templates.defaults(name)
    if part is not None and part not in own:
        raise GPTError(f"{name} has no template {part}{nearest(part, own)}")
    if text is not None and (remove or part is None):
        raise GPTError("expected --part PART --text TEXT to replace a text, or --part PART --remove to restore it")
    if text is not None or remove:
        for each in [part] if part else list(templates.replaced_templates().get(name, {})):
            templates.replace(name, each, text)
    now = templates.current(name)
    shown, parts = {each: text for each, text in now.items() if part in (None, each)}, []
    for each, text in shown.items():
        parts.append(Paragraph(bold(f"{name} {each}" + " (replaced)" * (text != own[each]))))
        parts.append(Paragraph(text or "(nothing)", "code"))
    show(Report("", parts, {"view": "templates", "technique": name, "templates": shown}))
    return now


def launcher(
    name: str | None = None, settings: list[str] | None = None, user: bool = False, remove: bool = False, **others
) -> dict:
    """Shows the settings of a launcher, after changing some or removing all."""
    from jupyter_gpt.report.parts import Paragraph, Table
    from jupyter_gpt.report.report import Report
    from jupyter_gpt.runs.launchers import launcher as launchers

    if others:
        raise GPTError(f"--{next(iter(others)).replace('_', '-')} is no setting of a launcher: they are KEY=VALUE")
    if name is None:
        raise GPTError(f"%gpt config launcher needs a name: {', '.join(launchers.SHIPPED)}")
    if odd := next((each for each in settings or () if "=" not in each), None):
        raise GPTError(f"{odd} is no setting of a launcher: write KEY=VALUE, such as partition=gpu")
    known = getattr(launchers.launcher(name), "SETTINGS", {})
    if settings or remove:
        changes = {key: value for key, _, value in (each.partition("=") for each in settings or ())}
        now = launchers.configure(name, changes, user, afresh=remove)
    else:
        now = launchers.settings_of(name)
    rows = [(key, str(now.get(key, "–")), known.get(key, "")) for key in {**known, **now}]
    parts = [Table(("setting", "value", "what it is"), rows, "lll", wrap=True)] if rows else []
    show(
        Report("", parts or [Paragraph(f"{name} has no settings")], {"view": "launcher", "name": name, "settings": now})
    )
    return now
