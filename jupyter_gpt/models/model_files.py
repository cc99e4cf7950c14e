"""Checks of a model's files before any library reads them.

Weights are safetensors inside the folder: an index that names another file would have it unpickled, which can run any
code. A configuration of absurd size, or a chat template that never ends, would take the kernel down.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from jupyter_gpt.errors import GPTError

SHARD = re.compile(r"[\w.-]+\.safetensors")
MAX_SIZE = 1 << 32  # of any integer in a configuration
MAX_LAYERS = 4096  # and of one that counts layers, experts or heads
COUNTS = re.compile(r"layer|expert|block|head", re.IGNORECASE)
SIZES = re.compile(r"dim|size|length|token|window", re.IGNORECASE)
SECONDS, MEMORY = 10, 2 << 30  # of a chat template, for one short conversation
RENDER = f"""import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
    resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
except (ImportError, ValueError, OSError):
    pass  # the parent's time limit remains
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
turns = [("user", "Hello"), ("assistant", "Hi."), ("user", "Why?")]
messages = [dict(role=role, content=content) for role, content in turns]
try:
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(sys.stdin.read())
    for piece in template.generate(messages=messages, add_generation_prompt=True, bos_token="", eos_token=""):
        pass
except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
    pass  # it needs variables that are not given here
"""


def weight_count(folder: Path) -> int:
    """How many numbers the safetensors files of `folder` hold, from their headers, which the library checks against the
    length of the file. Raises GPTError for a damaged file.
    """
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except (SafetensorError, ValueError, OSError) as error:
            raise GPTError(f"{path} is damaged: {error}") from error
    return total


def check_files(folder: Path, what: str) -> None:
    """Raises GPTError if an index of weights names anything but safetensors of this folder."""
    for path in folder.glob("*.index.json"):
        try:
            names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
            odd = next((name for name in names if not isinstance(name, str) or not SHARD.fullmatch(name)), None)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise GPTError(f"{what} is damaged: its {path.name} cannot be read") from error
        if odd is not None:
            raise GPTError(
                f"{what} is refused: its {path.name} names {odd!r:.80}, and only safetensors in its folder are read"
            )
        if missing := sorted(name for name in names if not (folder / name).is_file()):
            raise GPTError(f"{what} is damaged: {missing[0]}, which its {path.name} names, is missing")


def check_links(folder: Path, names: list[str]) -> None:
    """Raises GPTError if a file to be copied is a link out of the folder; the hub's cache links to its own blobs."""
    root = folder.resolve()
    for name in names:
        target = (folder / name).resolve()
        if (folder / name).is_symlink() and target.parent not in (root, root.parent.parent / "blobs"):
            raise GPTError(f"{folder} is refused: its {name} is a link to {target}, outside the folder")


def check_settings(folder: Path, what: str) -> None:
    """Raises GPTError if a configuration asks for sizes that no model has."""
    for path in (folder / "config.json", folder / "adapter_config.json"):
        try:
            settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            numbers = list(sizes(settings))
        except (OSError, ValueError, RecursionError) as error:
            raise GPTError(f"{what} is damaged: its {path.name} cannot be read") from error
        for name, value in numbers:
            if value > (MAX_LAYERS if COUNTS.search(name) and not SIZES.search(name) else MAX_SIZE):
                raise GPTError(f"{what} is refused: {name} {value} in its {path.name} is larger than any model's")


def sizes(settings: object, name: str = "") -> Iterator[tuple[str, int]]:
    """The integers of a configuration, each with its key."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from sizes(value, str(key))
    elif isinstance(settings, list):
        for value in settings:
            yield from sizes(value, name)
    elif isinstance(settings, int) and not isinstance(settings, bool):
        yield name, settings


def check_template(folder: Path, what: str) -> None:
    """Raises GPTError if the chat template needs too much time or memory for one short conversation."""
    for template in templates(folder):
        try:
            subprocess.run(
                [sys.executable, "-P", "-c", RENDER],
                input=template.encode("utf-8", "replace"),
                timeout=3 * SECONDS,
                capture_output=True,
                check=True,
            )
        except subprocess.SubprocessError as error:
            raise GPTError(
                f"{what} is refused: its chat template does not end within {SECONDS} s, or takes {MEMORY >> 30} GB"
            ) from error


def templates(folder: Path) -> Iterator[str]:
    """The chat templates in a model's folder, as text."""
    file = folder / "chat_template.jinja"
    if file.exists():
        yield file.read_text(encoding="utf-8", errors="replace")
    for name in ("tokenizer_config.json", "chat_template.json"):
        try:
            config = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # missing, or reported by whoever reads it next
        value = config.get("chat_template") if isinstance(config, dict) else None
        for template in value if isinstance(value, list) else [value]:
            template = template.get("template") if isinstance(template, dict) else template
            if isinstance(template, str):
                yield template
